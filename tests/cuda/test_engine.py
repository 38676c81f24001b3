"""The engine on a device: the same tokens however requests are cached, batched and cut, and nothing is left behind."""

from __future__ import annotations

import gc
import random
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from ramify.ir.errors import ModelError
from ramify.runtime.batch import Batch
from ramify.runtime.models import Model, load_model
from ramify.runtime.pool import KVLayout
from safetensors.torch import load_file, save_file
from torch import Tensor

from ..runtime.fakes import LAYOUT, Call, FakeConfig, FakeModel, call, finish, new_engine
from ..runtime.test_engine_model import continuation, prompts, workload


class DeviceModel(FakeModel):
    """The fake model with its KV and its logits on a device: the same numbers everywhere."""

    def __init__(self, device: torch.device, config: FakeConfig | None = None) -> None:
        shape = (LAYOUT.num_layers, LAYOUT.num_kv_heads, LAYOUT.head_dim, LAYOUT.dtype)
        super().__init__(config=config or FakeConfig(), layout=KVLayout(*shape, device))

    def forward(self, batch: Batch) -> Tensor:
        return super().forward(batch).to(self.layout.device)


SAMPLED: list[dict[str, Any]] = [
    {"temperature": 0.0},
    {"temperature": 1.0},
    {"temperature": 0.7, "top_p": 0.8},
    {"temperature": 1.3, "top_k": 5},
    {"temperature": 1.0, "min_p": 0.1},
    {"temperature": 0.9, "top_k": 12, "top_p": 0.9, "min_p": 0.02},
    {"temperature": 1.0, "frequency_penalty": 0.5, "presence_penalty": 0.3},
    {"temperature": 0.0, "repetition_penalty": 1.4},
    {"temperature": 1.0, "logprobs": 3},
    {"temperature": 1.0, "min_tokens": 6, "stop_token_ids": (3, 4, 5, 6, 7)},
]


def sampled() -> list[Call]:
    draw = random.Random(7)
    stem = [draw.randrange(26) for _ in range(9)]
    return [
        call([*stem[: draw.choice([0, 4, 9])], draw.randrange(26), i % 26], max_tokens=12, seed=i, **params)
        for i, params in enumerate(SAMPLED * 3)
    ]


@pytest.mark.parametrize("options", [{}, {"max_running": 1}, {"max_running": 7, "chunk_tokens": 5, "pipelined": True}])
def test_drawn_tokens_are_those_of_the_cpu_in_any_company(device: torch.device, options: dict[str, Any]) -> None:
    """The logits are the same numbers, so the draws must be."""
    on_cpu = [finish(new_engine(FakeModel(), prefix_cache=False), one)[0] for one in sampled()]
    found = finish(new_engine(DeviceModel(device), **options), *sampled())
    assert [done.token_ids for done in found] == [done.token_ids for done in on_cpu]
    assert len({done.token_ids for done in found}) > 20
    for got, wanted in zip(found, on_cpu, strict=True):
        assert [one.token_id for one in got.logprobs] == [one.token_id for one in wanted.logprobs]
        assert [one.logprob for one in got.logprobs] == pytest.approx(
            [one.logprob for one in wanted.logprobs], abs=1e-5
        )


def test_greedy_tokens_are_those_of_transformers(model: Model, checkpoint: Path) -> None:
    reference = transformers.AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32).eval()
    runs = prompts(12)
    calls = [call(tokens, max_tokens=10) for tokens in runs]
    engine = new_engine(model, chunk_tokens=24, kv_tokens=400)
    finish(engine, *calls)
    assert engine.stats().hit_tokens > 0
    assert [one.done.token_ids for one in calls] == [continuation(reference, tokens, 10) for tokens in runs]


@pytest.mark.parametrize(
    "options",
    [
        {"prefix_cache": False},
        {"chunk_tokens": 3},
        {"chunk_tokens": 200, "kv_tokens": 4000},
        {"max_running": 2, "kv_tokens": 150},
        {"kv_tokens": 80},
        {"pipelined": True, "kv_tokens": 120},
        {"pipelined": False},
        {"kv_tokens": 80, "host_kv_tokens": 600},
        {"kv_tokens": 80, "host_kv_tokens": 200},
    ],
)
def test_caching_batching_and_chunking_change_no_token(model: Model, options: dict[str, Any]) -> None:
    """Greedy and drawn, with penalties; kv_tokens=80 makes room by evicting."""
    alone = [finish(new_engine(model, prefix_cache=False), one)[0] for one in workload()]
    engine = new_engine(model, **options)
    for _ in range(2):
        together = finish(engine, *workload())
        assert [done.token_ids for done in together] == [done.token_ids for done in alone]
    engine.check_idle()
    assert (engine.stats().restored_tokens > 0) == ("host_kv_tokens" in options)


def test_scores_are_those_of_transformers(model: Model, checkpoint: Path) -> None:
    reference = transformers.AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32).eval()
    runs = [tokens for tokens in prompts(12) if len(tokens) > 5]
    with torch.inference_mode():
        rows = [reference(torch.tensor([tokens])).logits[0].log_softmax(-1) for tokens in runs]
    calls = [call(tokens, score_from=4) for tokens in runs]
    finish(new_engine(model, chunk_tokens=16), *calls)
    for one, tokens, logprobs in zip(calls, runs, rows, strict=True):
        want = [float(logprobs[i - 1, tokens[i]]) for i in range(4, len(tokens))]
        assert [score.logprob for score in one.done.logprobs] == pytest.approx(want, abs=5e-4)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_runs_to_the_end(checkpoint: Path, device: torch.device, dtype: torch.dtype) -> None:
    """Rounding depends on the batch there, so only that all of it is served, and that nothing stays held, is said."""
    engine = new_engine(load_model(checkpoint, dtype=dtype, device=device), chunk_tokens=24, kv_tokens=400)
    together = finish(engine, *workload())
    assert len(together) == 16
    assert all(done.finish_reason in ("length", "stop") for done in together)
    engine.check_idle()


def test_a_nan_weight_names_the_layer(checkpoint: Path, device: torch.device, tmp_path: Path) -> None:
    damaged = shutil.copytree(checkpoint, tmp_path / "damaged")
    weights = load_file(damaged / "model.safetensors")
    weights["model.layers.1.mlp.down_proj.weight"][3, 5] = float("nan")
    save_file(weights, damaged / "model.safetensors", metadata={"format": "pt"})
    engine = new_engine(load_model(damaged, device=device))
    one = call([1, 2, 3], max_tokens=4)
    finish(engine, one)
    assert "layer 2 is the first whose keys or values are NaN" in str(one.error)
    assert "the output of layer 1" in str(one.error)


def test_too_much_kv_is_refused_with_what_would_fit(checkpoint: Path, device: torch.device) -> None:
    with pytest.raises(ModelError) as caught:
        load_model(checkpoint, device=device, kv_tokens=10**12)
    said = str(caught.value)
    assert f"does not fit the memory of {device}" in said and "GiB are free" in said
    assert "kv_tokens=" in said and "would fit" in said


def test_memory_goes_back(checkpoint: Path, device: torch.device) -> None:
    """What the device's allocator says is in use, after many runs and after the engine is gone."""
    gc.collect()
    before = allocated(device)
    model = load_model(checkpoint, device=device)
    engine = new_engine(model, kv_tokens=500)
    in_use = []
    for _ in range(13):  # by when every kind of step has its graph, which stays
        finish(engine, *workload()[:6])
        engine.clear_cache()
        assert engine.stats().used == 0
        gc.collect()
        in_use.append(allocated(device))
    assert in_use[-1] == in_use[-3], in_use
    engine.close()
    del engine, model
    gc.collect()
    assert allocated(device) <= before + 2**25, "more than a workspace is left of a model that is gone"


def allocated(device: torch.device) -> int:
    return int(torch.cuda.memory_allocated(device)) if device.type == "cuda" else 0
