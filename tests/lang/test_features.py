"""What a backend cannot do is refused at the append, with the user's line, before anything is sent."""

from __future__ import annotations

from typing import Any

import pytest
import ramify as rf
from ramify.backends import open_backend
from ramify.backends.scripted import ScriptedBackend
from ramify.ir.errors import RequestError, Unsupported
from ramify.runtime.features import FEATURES, SAMPLING


@rf.program
def asks(s: rf.State, **params: Any) -> Any:
    s += "before" + rf.gen("x", max_tokens=2)
    s += rf.gen("y", **params)
    return s["y"]


@rf.program
def chooses(s: rf.State) -> Any:
    s += "before"
    s += rf.select("y", ["a", "b"])
    return s["y"]


def failure(program: Any, backend: Any, *, eager: bool, **params: Any) -> Unsupported:
    with pytest.raises(Unsupported) as caught:
        program.run(**params, backend=backend, eager=eager)
    return caught.value


@pytest.mark.parametrize("eager", [True, False])
@pytest.mark.parametrize(
    ("feature", "params"),
    [
        ("seed", {"seed": 3, "temperature": 1.0}),
        ("logprobs", {"logprobs": 0}),
        ("token_ids", {"stop_token_ids": [1]}),
        ("top_k", {"top_k": 4}),
        ("ignore_eos", {"ignore_eos": True}),
        ("repetition_penalty", {"repetition_penalty": 1.1}),
    ],
)
def test_a_parameter_that_the_backend_lacks_is_refused(feature: str, params: dict[str, Any], eager: bool) -> None:
    backend = ScriptedBackend(features=FEATURES.keys() - {feature})
    error = failure(asks, backend, eager=eager, **params)
    assert error.message == f"the backend 'scripted' cannot take {FEATURES[feature]}"
    assert error.help is not None and repr(feature) in error.help
    assert error.span is not None and error.span.source_line().strip() == 's += rf.gen("y", **params)'
    assert backend.requests in ([], ["before"])
    assert asks.run(**params, backend=ScriptedBackend(features=[feature]), eager=eager).ok


@pytest.mark.parametrize("eager", [True, False])
def test_a_choice_is_refused(eager: bool) -> None:
    backend = ScriptedBackend(features=[])
    error = failure(chooses, backend, eager=eager)
    assert error.span is not None and "rf.select" in error.span.source_line()
    assert backend.requests == []


def test_a_seed_asks_for_nothing_where_nothing_is_drawn() -> None:
    assert asks.run(seed=3, backend=ScriptedBackend(features=[])).ok


def test_the_local_backend_samples() -> None:
    assert open_backend("tiny").features >= SAMPLING | {"select"}
    assert FEATURES.keys() >= SAMPLING


@pytest.mark.parametrize("eager", [True, False])
@pytest.mark.parametrize("name", ["tiny", "scripted"])
def test_an_empty_stop_string_is_refused_everywhere(name: str, eager: bool) -> None:
    with pytest.raises(RequestError, match="a stop string is empty") as caught:
        asks.run(stop=["\n", ""], backend=name, eager=eager)
    assert caught.value.span is not None and caught.value.span.source_line().strip() == 's += rf.gen("y", **params)'
