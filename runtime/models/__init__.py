"""Decoders of the Llama family, read from Hugging Face model directories."""

from .config import ModelConfig
from .decoder import Model
from .loader import load_model

__all__ = ["Model", "ModelConfig", "load_model"]
