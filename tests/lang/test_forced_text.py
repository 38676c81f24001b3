"""Forced text in programs: forks, samples, stops, log-probabilities, streams; eager or compiled, cached or not."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from typing import Any

import pytest
import ramify as rf
import torch
from ramify.backends.local import LocalBackend
from ramify.backends.tiny import model_dir

SCHEMA = {
    "type": "object",
    "properties": {
        "the name of the thing": {"type": "string", "pattern": "^[a-z]{1,8}$"},
        "kind": {"enum": ["fruit", "vegetable"]},
    },
    "required": ["the name of the thing", "kind"],
    "additionalProperties": False,
}


@pytest.fixture(scope="module", params=[True, False], ids=["cached", "uncached"])
def backend(request: pytest.FixtureRequest) -> Iterator[LocalBackend]:
    opened = LocalBackend(model_dir(), dtype=torch.float32, device="cpu", prefix_cache=request.param, check=True)
    yield opened
    opened.engine.check_idle()
    opened.close()


@rf.program
def describe(s, thing):  # type: ignore[no-untyped-def]
    s += rf.user(f"Describe: {thing}")
    forks = s.fork(3)
    for branch in forks:
        branch += rf.assistant(rf.gen("made", json_schema=SCHEMA, temperature=1.0, logprobs=0, max_tokens=60))
    s += rf.assistant(
        rf.gen("many", n=3, json_schema=SCHEMA, temperature=1.0, max_tokens=60)
        + rf.gen("cut", regex="and then the end comes [a-z]+", stop="the end")
        + rf.gen("free", max_tokens=3)
    )
    forks.join()
    infos = [branch.get_meta_info("made") for branch in forks]
    return s["made"], s["many"], s["cut"], s["free"], infos


def told(run: Any) -> Any:
    made, many, cut, free, infos = run.value
    return made, many, cut, free, [info["token_ids"] for info in infos], run.text


@pytest.fixture(scope="module")
def expected() -> Any:
    """By a backend of its own, without a cache."""
    opened = LocalBackend(model_dir(), dtype=torch.float32, device="cpu", prefix_cache=False)
    run = describe.options(seed=5).run("apple", backend=opened, eager=True)
    opened.close()
    return told(run)


@pytest.mark.parametrize("eager", [True, False])
def test_forks_samples_and_stops(backend: LocalBackend, expected: Any, eager: bool) -> None:
    for _ in range(2):  # the second time, from the cache
        run = describe.options(seed=5).run("apple", backend=backend, eager=eager)
        made, many, cut, _, infos = run.value
        for text in (*made, *many):
            assert list(json.loads(text)) == SCHEMA["required"]
        assert len(set(made)) > 1 and len(set(many)) > 1, "each follows the schema for itself"
        assert cut == "and then "
        for text, info in zip(made, infos, strict=True):
            assert [token.token_id for token in info["logprobs"]] == info["token_ids"]
            assert all(token.logprob <= 0 and math.isfinite(token.logprob) for token in info["logprobs"])
            tokenizer = backend.tokenizer
            assert tokenizer.decode(info["token_ids"]) == text
        assert told(run) == expected


@pytest.mark.parametrize("eager", [True, False])
def test_streams_tell_it_in_order(backend: LocalBackend, expected: Any, eager: bool) -> None:
    events: list[Any] = []
    describe.options(seed=5).run("apple", backend=backend, eager=eager, stream=events.append)
    told_of: dict[tuple[Any, ...], str] = {}
    for event in events:
        if event.kind == "gen":
            place = (event.branch, event.name, event.sample)
            told_of[place] = told_of.get(place, "") + event.text
    made = [text for (branch, name, _), text in sorted(told_of.items()) if name == "made"]
    assert sorted(made) == sorted(expected[0])
    assert [told_of[(), "many", sample] for sample in range(3)] == expected[1]
    assert told_of[(), "cut", 0] == "and then " and told_of[(), "free", 0] == expected[3]


def test_rows_of_a_batch_are_as_alone(backend: LocalBackend) -> None:
    """Constrained rows, and rows without a constraint, in the same steps."""

    @rf.program
    def either(s, thing, constrained):  # type: ignore[no-untyped-def]
        s += rf.user(f"Describe: {thing}")
        given = {"json_schema": SCHEMA} if constrained else {}
        s += rf.assistant(rf.gen("x", temperature=1.0, max_tokens=40, **given))
        return s["x"]

    rows = [{"thing": thing, "constrained": n % 2 == 0} for n, thing in enumerate(["apple", "leek", "plum", "pea"] * 3)]
    program = either.options(seed=2)
    together = [run.value for run in program.run_batch(rows, backend=backend)]
    assert together == [program.run(**row, backend=backend).value for row in rows]
