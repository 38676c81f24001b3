"""Multi-agent debate (arXiv 2305.19118): see program.py, and docs/debate.md."""

from .data import load_rows
from .program import debate

__all__ = ["debate", "load_rows"]
