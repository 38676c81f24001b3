"""Recordings of runs: every answer of a model and of a tool in a file, from which the runs can be made again."""
