"""Programs of the embedded model on a device: the texts of the CPU, eager and compiled, and caches that are kept."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import ramify as rf
import torch
from ramify.backends.local import LocalBackend
from ramify.backends.tiny import model_dir


@rf.program(max_tokens=12)
def chat(s: rf.State, question: str) -> Any:
    s += rf.system("You answer questions.")
    s += rf.user(question)
    s += rf.assistant(rf.gen("answer"))
    s += rf.user("Sure?")
    s += rf.assistant(rf.select("sure", ["yes", "no", "not at all"]))
    return s["answer"], s["sure"]


@rf.program
def branches(s: rf.State, topic: str) -> Any:
    s += f"Notes about {topic}.\n"
    found = []
    for branch, aspect in zip(s.fork(3), ("price", "taste", "colour"), strict=True):
        branch += f"The {aspect} is"
        branch += rf.gen("text", max_tokens=10, stop="\n")
        found.append(branch["text"])
    s += " ".join(found) + " So:" + rf.gen("end", max_tokens=10)
    return found, s["end"]


@rf.program
def constrained(s: rf.State, name: str) -> Any:
    s += f"{name} is " + rf.gen("age", regex="[1-9][0-9]?", max_tokens=4) + " years old. "
    schema = {"type": "object", "properties": {"name": {"type": "string", "maxLength": 6}, "old": {"type": "boolean"}}}
    schema |= {"required": ["name", "old"], "additionalProperties": False}
    s += "As JSON: " + rf.gen("found", json_schema=schema, max_tokens=60)
    return s["age"], s["found"]


@rf.program
def drawn(s: rf.State, topic: str) -> Any:
    s += f"About {topic}: " + rf.gen("many", n=3, max_tokens=8, temperature=0.8, top_p=0.95, seed=3)
    return list(s["many"])


CASES: dict[str, tuple[Any, dict[str, str]]] = {
    "chat": (chat, {"question": "What is 2 + 3?"}),
    "branches": (branches, {"topic": "tea"}),
    "constrained": (constrained, {"name": "Ann"}),
    "drawn": (drawn, {"topic": "the sea"}),
}


def opened(device: torch.device | str, **options: Any) -> LocalBackend:
    return LocalBackend(model_dir(), dtype=torch.float32, device=device, **{"kv_tokens": 8000, "check": True} | options)


@pytest.fixture(scope="module")
def on_cpu() -> dict[str, Any]:
    """What the programs give on a CPU, of an engine that keeps nothing."""
    with closing(opened("cpu", prefix_cache=False, lookup=False)) as backend:
        return {name: program.run(**rows, backend=backend).value for name, (program, rows) in CASES.items()}


@pytest.fixture(scope="module")
def backend(device: torch.device) -> Iterator[LocalBackend]:
    made = opened(device)
    yield made
    made.engine.check_idle()
    made.close()


@pytest.mark.parametrize("eager", [False, True])
@pytest.mark.parametrize("name", CASES)
def test_programs_give_what_they_give_on_a_cpu(
    backend: LocalBackend, on_cpu: dict[str, Any], name: str, eager: bool
) -> None:
    program, rows = CASES[name]
    for _ in range(2):  # the second time from the cache
        assert program.run(**rows, backend=backend, eager=eager).value == on_cpu[name]


def test_batches_of_programs(backend: LocalBackend) -> None:
    questions = [f"What is {a} + {b}?" for a in range(3) for b in range(4)]
    alone = [chat.run(question, backend=backend).value for question in questions]
    together = chat.run_batch([{"question": question} for question in questions], backend=backend)
    assert [run.value for run in together] == alone


@pytest.mark.parametrize("was_saved_on_cpu", [False, True])
def test_saved_caches_come_back(device: torch.device, tmp_path: Path, was_saved_on_cpu: bool) -> None:
    path = tmp_path / "cache.kv"
    with closing(opened("cpu" if was_saved_on_cpu else device)) as backend:
        first = chat.run("What is 3 + 4?", backend=backend)
        num_tokens = backend.save_cache(path)
    with closing(opened(device)) as backend:
        assert backend.load_cache(path) == num_tokens > 0
        again = chat.run("What is 3 + 4?", backend=backend)
        assert again.usage.cached_tokens > first.usage.cached_tokens
        assert again.value == first.value


def test_processors_get_logits_of_the_device(backend: LocalBackend) -> None:
    seen = []

    def only_even(token_ids: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
        seen.append((token_ids.device.type, logits.device.type))
        logits[1::2] = -torch.inf
        return logits

    @rf.program
    def even(s: rf.State) -> Any:
        s += "Count: " + rf.gen("x", max_tokens=6, processors=[only_even], ignore_eos=True)
        return s["x"]

    run = even.run(backend=backend)
    assert run.ok and set(seen) == {(backend.device.type, backend.device.type)}
