"""`:step` of the REPL: goes through a run step by step."""
