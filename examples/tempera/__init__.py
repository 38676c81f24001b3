"""Prompt editing, TEMPERA (arXiv 2211.11890): see program.py."""

from .program import edit, load_rows

__all__ = ["edit", "load_rows"]
