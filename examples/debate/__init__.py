"""Multi-agent debate (arXiv 2305.19118): see program.py."""

from .program import debate, load_rows

__all__ = ["debate", "load_rows"]
