"""What runs on a GPU is compared with plain torch and with transformers; the same tests run on the CPU everywhere.

A test that takes `device` runs twice; the one on "cuda" has the mark `cuda` and is skipped where there is no GPU.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import transformers
from ramify.runtime.models import Model, load_model


@pytest.fixture(scope="module", params=["cpu", pytest.param("cuda", marks=pytest.mark.cuda)])
def device(request: pytest.FixtureRequest) -> torch.device:
    """Where the test runs."""
    if request.param == "cuda" and not torch.cuda.is_available():
        pytest.skip("there is no CUDA device here")
    return torch.device(request.param)


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random Qwen3 that says more than one thing, with the prompts of tests/runtime/test_engine_model.py in reach."""
    torch.manual_seed(11)
    config = transformers.Qwen3Config(
        vocab_size=101,
        hidden_size=64,
        intermediate_size=80,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=16,
        max_position_embeddings=256,
        initializer_range=0.25,
        eos_token_id=None,
        pad_token_id=0,
    )
    path = tmp_path_factory.mktemp("qwen3")
    transformers.Qwen3ForCausalLM(config).save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def model(checkpoint: Path, device: torch.device) -> Model:
    """That, in float32."""
    return load_model(checkpoint, device=device)
