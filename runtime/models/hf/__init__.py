"""Any causal language model of transformers: its own modeling code, with our attention over the prefix tree.

Needs `ramify[hf]`. Nothing here is imported, nor transformers, before a model wants it.
"""
