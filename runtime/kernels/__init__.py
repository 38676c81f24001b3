"""The decoder's operations as Triton kernels; what they mean is said in models/operations.py.

Importing a kernel needs triton, which comes with builds of torch for CUDA. Everything is computed in float32 from what
is stored in the model's dtype, and rounded once. Sizes of a model are compile-time constants. What differs from step to
step comes in tables, or is not specialized on: a kernel is compiled once a model, never because a batch is another.
"""
