"""Steps in flight on a device: what is launched does not wait for it, and nothing depends on that."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from ramify.runtime.inflight import InFlight
from ramify.runtime.models import Model

from ..runtime.fakes import Call, call, finish, new_engine
from ..runtime.test_engine_model import prompts
from ..runtime.test_inflight import PROMPT, ROWS, going_on, launch_choice


@contextmanager
def no_waiting(device: torch.device) -> Iterator[None]:
    """Whatever waits for a GPU is an error."""
    if device.type == "cuda":
        torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        if device.type == "cuda":
            torch.cuda.set_sync_debug_mode("default")


def free_requests() -> list[Call]:
    """What needs nothing of the host between two tokens."""
    draw = random.Random(3)
    kinds: list[dict[str, Any]] = [{}, {"temperature": 1.0}, {"temperature": 0.8, "top_p": 0.9}, {"stop": ("a", "zz")}]
    return [
        call(tokens, max_tokens=draw.randint(1, 12), seed=i, **kinds[i % len(kinds)])
        for i, tokens in enumerate(prompts(16))
    ]


def test_choices_and_batches_are_launched_without_waiting(device: torch.device) -> None:
    logits = torch.randn(len(ROWS), 1000, generator=torch.Generator().manual_seed(2))
    wanted = [choice.result() for choice in launch_choice(logits)]
    build = going_on(new_engine(pipelined=True), call(PROMPT, max_tokens=3))
    on_device = logits.to(device)
    with no_waiting(device):
        choices = launch_choice(on_device)
        batch = build(choices[0].token_ids)
    assert [choice.result() for choice in choices] == wanted
    assert batch.token_ids.tolist() == choices[0].token_ids[2:3].tolist()


def test_steps_are_launched_without_waiting(
    model: Model, device: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once all kernels were used, whose first use may wait."""
    plain = new_engine(model, pipelined=False, kv_tokens=4000)
    wanted = [done.token_ids for done in finish(plain, *free_requests())]
    engine = new_engine(model, pipelined=True, kv_tokens=4000)
    assert [done.token_ids for done in finish(engine, *free_requests())] == wanted
    engine.clear_cache()
    launch = InFlight.launch

    def launched(step: InFlight, *arguments: Any) -> None:
        with no_waiting(device):
            launch(step, *arguments)

    monkeypatch.setattr(InFlight, "launch", launched)
    assert [done.token_ids for done in finish(engine, *free_requests())] == wanted
    assert engine.stats().generated_tokens == 2 * plain.stats().generated_tokens
