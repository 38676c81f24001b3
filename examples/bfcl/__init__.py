"""Function calling (BFCL): see program.py."""

from .program import call, converse, load_rows

main = call  # the one that `ramify run examples/bfcl` runs

__all__ = ["call", "converse", "load_rows", "main"]
