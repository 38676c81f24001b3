"""The benchmark for GPUs runs through on a CPU, keeps what it found, and goes on after what fails."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from ramify.runtime.models import Model
from ramify.runtime.models.random_model import random_model

from benchmarks.gpu_batches import GENERATED, decode_batch, distinct_tokens, flat, prefill_batch
from benchmarks.gpu_shapes import CONFIGS, config, decode_bytes, multiplied, prefill_flops
from benchmarks.report import Bar
from benchmarks.sections import Figures, Journal, Section, run_sections

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def model() -> Model:
    return random_model(config("tiny"), dtype=torch.float32)


def test_all_of_it_on_a_tiny_shape(tmp_path: Path) -> None:
    path = tmp_path / "found" / "gpu.json"
    command = [sys.executable, "-W", "error", "-m", "benchmarks.gpu", "--json", str(path)]
    done = subprocess.run(
        [*command, "--device", "cpu", "--shapes", "tiny"], capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    content = json.loads(path.read_text())
    runs, bars = content["runs"], content["bars"]
    assert all("error" not in figures and "skipped" not in figures for figures in runs.values())
    assert len(bars) == 6 and all(bar["value"] is not None and bar["value"] > 0 for bar in bars.values())
    assert runs["rates"]["bytes"] > 0 and runs["rates"]["flops"] > 0
    for name in ("decode, batch 1", "decode, batch 4", "prefill"):
        assert runs[f"tiny: {name}"]["floor_ms"] > 0 and runs["tiny: transformers"][name]["over_ours"] > 0
    assert f"written to {path}" in done.stdout


def test_it_needs_a_gpu_unless_told_otherwise(tmp_path: Path) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU here")
    command = [sys.executable, "-m", "benchmarks.gpu", "--json", str(tmp_path / "gpu.json")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 1 and "there is no CUDA device here" in done.stderr


def test_random_weights_are_of_the_shape_and_the_same_each_time() -> None:
    first, second, other = (random_model(config("tiny"), dtype=torch.float32, seed=seed) for seed in (1, 1, 2))
    batch = prefill_batch(first.layout, 20, 512)
    logits = [one.forward(batch) for one in (first, second, other)]
    assert logits[0].shape == (1, 512) and logits[0].isfinite().all() and logits[0].std() > 0
    assert torch.equal(logits[0], logits[1]) and not torch.allclose(logits[0], logits[2])
    assert first.identity == second.identity != other.identity


@pytest.mark.parametrize("shape", sorted(CONFIGS))
def test_shapes_are_those_that_transformers_builds(shape: str) -> None:
    import transformers

    described = {name: value for name, value in CONFIGS[shape].items() if name != "architectures"}
    with torch.device("meta"):
        built = transformers.AutoModelForCausalLM.from_config(transformers.AutoConfig.for_model(**described))
    parameters = dict(built.named_parameters())
    matrices = sum(
        parameter.numel() for name, parameter in parameters.items() if parameter.ndim == 2 and ".layers." in name
    )
    layers, head = multiplied(config(shape))
    assert layers == matrices and head == built.lm_head.weight.numel()


def test_floors_by_hand() -> None:
    shape = config("tiny")
    # Of a layer: queries 64, keys and values 32 each, output 64, three matrices of 64 x 96.
    layers, head = 2 * 64 * (64 + 32 + 32 + 64 + 3 * 96), 64 * 512
    assert decode_bytes(shape, 10, 2, 128) == (layers + head) * 2 + 10 * 128
    pairs = 1 + 2 + 3  # of a row and a token that it sees; each is two products of 16 numbers in 4 heads and 2 layers
    assert prefill_flops(shape, 3) == 3 * 2 * layers + 2 * head + pairs * 2 * 2 * 16 * 4 * 2


@pytest.mark.parametrize(("branches", "shared", "own"), [(3, 20, 0), (3, 0, 7), (1, 5, 2)])
def test_batches_are_whole_and_flat_is_the_same(model: Model, branches: int, shared: int, own: int) -> None:
    batch = decode_batch(model.layout, branches, shared, own)
    batch.check()
    apart = flat(batch)
    apart.check()
    assert all(stop - start == 1 for read in apart.reads for start, stop in read.rows)
    assert distinct_tokens(batch) == shared + branches * (own + GENERATED + 1)
    torch.testing.assert_close(model.forward(apart), model.forward(batch), rtol=0, atol=1e-4)


def test_flat_prompts_see_what_comes_before_each_row(model: Model) -> None:
    batch = prefill_batch(model.layout, 9, 512)
    batch.check()
    flat(batch).check()
    torch.testing.assert_close(model.forward(flat(batch)), model.forward(batch), rtol=0, atol=1e-4)


def _journal(path: Path, *, is_resumed: bool = False) -> Journal:
    def bars(runs: dict[str, Figures]) -> dict[str, Bar]:
        return {"found": Bar(runs.get("good", {}).get("x"), 1, "x")}

    return Journal(path, {"cores": 1}, bars, is_resumed=is_resumed)


def _run(path: Path, sections: dict[str, Callable[[], Figures]], limit: float = 60, **options: Any) -> list[str]:
    """Runs sections; returns what was restarted."""
    restarts: list[str] = []
    settings: dict[str, Any] = {
        "ends_at": time.time() + 1000,
        "restart": lambda: restarts.append("again"),
        "is_usable": lambda: True,
        **options,
    }
    run_sections({name: Section(run, limit) for name, run in sections.items()}, _journal(path), **settings)
    return restarts


def _bad() -> Figures:
    raise ValueError("no such kernel")


def test_a_section_that_fails_is_told_and_the_others_go_on(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    assert _run(path, {"bad": _bad, "good": lambda: {"x": 0.5}}) == []
    content = json.loads(path.read_text())
    assert content["runs"]["bad"]["error"] == "ValueError: no such kernel"
    assert "in _bad" in content["runs"]["bad"]["traceback"]
    assert content["runs"]["good"]["x"] == 0.5 and content["bars"]["found"]["holds"] is True


def test_when_the_device_is_lost_a_fresh_process_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    sections = {"bad": _bad, "good": lambda: {"x": 2.0}}
    assert _run(path, sections, is_usable=lambda: False) == ["again"]
    assert "good" not in json.loads(path.read_text())["runs"]
    again = _journal(path, is_resumed=True)
    run_sections(
        {name: Section(run, 60) for name, run in sections.items()},
        again,
        ends_at=time.time() + 1000,
        restart=lambda: pytest.fail("what failed before is not run again"),
        is_usable=lambda: False,
    )
    assert again.runs["bad"]["error"] and again.runs["good"]["x"] == 2.0 and again.about == {"cores": 1}


def test_a_section_that_hangs_is_given_up(tmp_path: Path) -> None:
    path, given_up = tmp_path / "a.json", threading.Event()
    errors: list[str] = []

    def hang() -> Figures:
        assert given_up.wait(60)
        errors.append(json.loads(path.read_text())["runs"]["slow"]["error"])
        return {}

    _run(path, {"slow": hang}, limit=0.01, restart=given_up.set)
    assert errors == ["given up after 0 s"]


def test_nothing_is_begun_when_no_time_is_left(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    _run(path, {"late": _bad}, ends_at=time.time() + 1)
    assert json.loads(path.read_text())["runs"]["late"]["skipped"] == "no time was left"
