"""Whole models with the Triton kernels: the logits of torch's operations, and the same tokens from an engine.

On a CPU the kernels run in Triton's interpreter.
"""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import torch
import transformers
from ramify.runtime.batch import Batch
from ramify.runtime.models import Model, load_model
from ramify.runtime.models.operations import Operations, TorchOperations
from ramify.runtime.models.replay import Capture, Computation, CudaCapture

from .fakes import call, finish, new_engine
from .gpu_kernels import DEVICE, need_triton

need_triton()
from ramify.runtime.models.triton_operations import TritonOperations  # noqa: E402

# The interpreter computes with numpy, which warns of infinities that are meant.
pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")

VOCAB = 61
SIZES = {
    "vocab_size": VOCAB,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": 256,
    "initializer_range": 0.3,
    "eos_token_id": None,
    "pad_token_id": 0,
}


def saved_model(family: str, path: Path) -> Path:
    """Of random weights, in that folder."""
    torch.manual_seed(3)
    config = getattr(transformers, f"{family}Config")(**SIZES)
    getattr(transformers, f"{family}ForCausalLM")(config).save_pretrained(path)
    return path


class Compared:
    """A model that runs every batch twice, and compares the logits."""

    def __init__(self, directory: Path) -> None:
        self.kernels, self._plain = load_model(directory, device=DEVICE), load_model(directory, device=DEVICE)
        self._set(self.kernels, TritonOperations(self.kernels.config, DEVICE, num_processors=4))
        self._set(self._plain, TorchOperations(self._plain.config, DEVICE, torch.float32))
        self.config, self.layout, self.identity = self._plain.config, self._plain.layout, self._plain.identity
        self.shared_reads = 0

    def forward(self, batch: Batch) -> torch.Tensor:
        self.shared_reads += sum(read.rows != [(w.start, w.stop)] for read in batch.reads for w in batch.writes[:1])
        plain = self._plain.forward(batch).clone()
        logits = self.kernels.forward(batch)
        torch.testing.assert_close(logits, plain, rtol=0, atol=1e-4)
        return logits

    @staticmethod
    def _set(model: Model, operations: Operations) -> None:
        model._operations = operations


def prompts() -> list[list[int]]:
    """Branches below two nodes, one below the other, and one prompt of its own."""
    rng = random.Random(1)
    stem = [rng.randrange(VOCAB) for _ in range(90)]
    branches = [stem[:count] + [rng.randrange(VOCAB) for _ in range(3)] for count in (90, 90, 90, 40, 40)]
    return [*branches, [rng.randrange(VOCAB) for _ in range(9)]]


@pytest.mark.parametrize(("family", "tree_attention"), [("Qwen3", True), ("Llama", False)])
def test_an_engine_with_forks(tmp_path: Path, family: str, tree_attention: bool) -> None:
    directory = saved_model(family, tmp_path)
    model = Compared(directory)
    engine = new_engine(model, chunk_tokens=70, tree_attention=tree_attention)
    finish(engine, call(prompts()[0], max_tokens=1))
    made = finish(engine, *(call(tokens, max_tokens=3) for tokens in prompts()))
    assert engine.stats().hit_tokens > 0 and model.shared_reads > 0
    plain = load_model(directory, device=DEVICE)
    Compared._set(plain, TorchOperations(plain.config, DEVICE, torch.float32))
    alone = new_engine(plain, prefix_cache=False)
    for one, tokens in zip(made, prompts(), strict=True):
        (expected,) = finish(alone, call(tokens, max_tokens=3))
        assert one.token_ids == expected.token_ids


def compute_again(computation: Computation) -> Computation:
    """In place of a graph where there is no GPU: it gives its result in the same memory every time."""
    result = computation()
    return lambda: result.copy_(computation())


def test_replayed_steps_of_an_engine(tmp_path: Path) -> None:
    """Branches below a shared prefix, enough for a wide tile, of which most end before the others."""
    model = Compared(saved_model("Qwen3", tmp_path))
    capture: Capture = CudaCapture(DEVICE) if DEVICE.type == "cuda" else compute_again
    replays = model.kernels._new_replays(TritonOperations(model.config, DEVICE, num_processors=1), capture)
    replays._times_before = 0
    model.kernels._replays = replays
    engine = new_engine(model, chunk_tokens=70)
    stem = prompts()[0][:40]
    finish(engine, call(stem, max_tokens=1))
    finish(engine, *(call([*stem, i], max_tokens=4 if i < 2 else 3) for i in range(9)))
    assert {(bucket.rows, bucket.wide > 0) for bucket in replays._replays} == {(16, True), (2, False)}
