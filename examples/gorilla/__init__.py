"""Tool calling with Gorilla (arXiv 2305.15334): see program.py."""

from .program import ApiCall, call_api, load_rows

__all__ = ["ApiCall", "call_api", "load_rows"]
