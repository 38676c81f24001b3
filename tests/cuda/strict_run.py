"""The engine on the pretended device of strict_device.py, beside the CPU: prints what happened as JSON.

A process of its own for tests/cuda/test_strict_device.py: `python -m tests.cuda.strict_run CHECKPOINT`, with a random
model's directory.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

# Views of inference tensors need more of a device than is pretended. Before ramify's decorators take it.
torch.inference_mode = lambda mode=True: torch.no_grad()  # type: ignore[misc, assignment]

from ramify.backends.tiny import model_dir  # noqa: E402
from ramify.runtime.batch import Batch  # noqa: E402
from ramify.runtime.engine import Engine  # noqa: E402
from ramify.runtime.models import Model, load_model  # noqa: E402
from ramify.runtime.request import Failed  # noqa: E402

from ..runtime import test_constrained as constrained  # noqa: E402
from ..runtime.fakes import Call, FakeModel, ToyStream, call, finish  # noqa: E402
from ..runtime.test_engine_model import prompts, workload  # noqa: E402
from .strict_device import Strict, make_device  # noqa: E402
from .test_engine import DeviceModel, sampled  # noqa: E402

STEPS = 5
WATCHED: dict[str, dict[str, Any]] = {
    "greedy": {"temperature": 0.0},
    "drawn": {"temperature": 1.0},
    "filtered": {"temperature": 0.9, "top_p": 0.9, "top_k": 20},
}


def tokens(engine: Engine, calls: Sequence[Call]) -> list[tuple[int, ...]]:
    """What each gets; fails if one does."""
    finish(engine, *calls)
    return [one.done.token_ids for one in calls]


def engine(model: Any, **options: Any) -> Engine:
    return Engine(model, ToyStream, **{"kv_tokens": 1000, "pipelined": True} | options)


def draws(device: torch.device) -> bool:
    """All kinds of sampling parameters."""
    on_cpu = tokens(engine(FakeModel()), sampled())
    return tokens(engine(DeviceModel(device)), sampled()) == on_cpu


def decoder(checkpoint: Path, device: torch.device) -> bool:
    on_cpu = tokens(engine(load_model(checkpoint)), workload())
    return tokens(engine(load_model(checkpoint, device=device)), workload()) == on_cpu


def scores(checkpoint: Path, device: torch.device) -> bool:
    def found(model: Model) -> list[float]:
        calls = [call(prompt, score_from=2) for prompt in prompts(6) if len(prompt) > 3]
        finish(engine(model), *calls)
        return [score.logprob for one in calls for score in one.done.logprobs]

    pairs = zip(found(load_model(checkpoint, device=device)), found(load_model(checkpoint)), strict=True)
    return all(abs(first - second) < 1e-4 for first, second in pairs)


def constraints(device: torch.device) -> bool:
    """Regular expressions, a schema and a grammar, beside free text and with processors."""

    def only_even(_: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
        logits[1::2] = -torch.inf
        return logits

    def found(model: Any) -> list[Any]:
        calls = [*constrained.workload(6), call([5, 6], max_tokens=5, processors=(only_even,))]
        model = Engine(
            model,
            constrained.TOKENIZER.decode_stream,
            kv_tokens=4000,
            pipelined=True,
            grammars=constrained.GRAMMARS,
            eos_token_ids=(constrained.END,),
        )
        return tokens(model, calls)

    config = constrained.FakeConfig(constrained.VOCAB, 1000)
    return found(DeviceModel(device, config)) == found(FakeModel(config))


def half_precision(device: torch.device) -> bool:
    """The embedded model in half precision."""
    model = load_model(Path(model_dir()), device=device)
    return len(tokens(engine(model), [call([5, 6, 7, number], max_tokens=4) for number in range(3)])) == 3


def saved(checkpoint: Path, device: torch.device) -> bool:
    model = load_model(checkpoint, device=device)
    first, second = engine(model), engine(model)
    wanted = tokens(first, workload())
    with tempfile.TemporaryDirectory() as folder:
        first.save_cache(Path(folder, "kv"))
        assert second.load_cache(Path(folder, "kv")) > 0
    return tokens(second, workload()) == wanted


def damaged(checkpoint: Path, device: torch.device) -> bool:
    model: Any = load_model(checkpoint, device=device)
    model._weights.layers[1].mlp_norm[3] = float("nan")
    one = call([1, 2, 3], max_tokens=4)
    finish(engine(model), one)
    assert isinstance(one.events[-1], Failed)
    return "layer 2 is the first whose keys or values are NaN" in str(one.error)


def replayable(checkpoint: Path, device: torch.device) -> bool:
    """Whether the host can tell of steps in which all decode that all rows want logits, as graphs need it."""
    model: Any = load_model(checkpoint, device=device)
    forward, found = model.forward, []

    def watched(batch: Batch) -> torch.Tensor:
        found.append(batch.logit_rows.device.type == "cpu" and batch.logit_rows.numel() == batch.token_ids.numel())
        return forward(batch)

    model.forward = watched
    finish(engine(model), *[call(prompt, max_tokens=12) for prompt in prompts(4)])
    return sum(found) >= 8


def waits_of_steps(model: Any, params: dict[str, Any]) -> dict[str, int]:
    """Where the host waits, and how often, in STEPS steps in which eight decode."""
    made = engine(model)
    for prompt in prompts(8):
        made.submit(call(prompt, max_tokens=60, seed=1, **params).request)
    for _ in range(14):
        made.step()
    scheduler: Any = made._scheduler
    assert len(scheduler.running) == 8 and not scheduler.is_prefilling
    watched = Strict()
    with watched:
        for _ in range(STEPS):
            made.step()
    return dict(watched.waits)


def main() -> None:
    """Everything, in turn."""
    checkpoint, device = Path(sys.argv[1]), make_device()
    checks: dict[str, Callable[[], bool]] = {
        "draws": lambda: draws(device),
        "decoder": lambda: decoder(checkpoint, device),
        "scores": lambda: scores(checkpoint, device),
        "constraints": lambda: constraints(device),
        "half precision": lambda: half_precision(device),
        "saved": lambda: saved(checkpoint, device),
        "replayable": lambda: replayable(checkpoint, device),
        "damaged": lambda: damaged(checkpoint, device),
    }
    with Strict():
        found: dict[str, Any] = {name: check() for name, check in checks.items()}
        model = load_model(checkpoint, device=device)
        waits = {name: waits_of_steps(model, params) for name, params in WATCHED.items()}
    print(json.dumps({"checks": found, "waits": waits}))


if __name__ == "__main__":
    main()
