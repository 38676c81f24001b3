"""Decoders, read from Hugging Face model directories: the Llama family's, and those of transformers in `hf`."""

from .config import ModelConfig
from .decoder import Model
from .loader import load_model

__all__ = ["Model", "ModelConfig", "load_model"]
