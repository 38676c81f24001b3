"""Prompt editing, TEMPERA (arXiv 2211.11890)."""
