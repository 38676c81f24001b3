"""Measurements, one file per claim: `python -m benchmarks.NAME [--quick] --json FILE` from the repository's root.

Every benchmark prints a table and writes JSON: the machine, the raw figures, and `bars` (name -> value, bar, holds).
"""
