"""The seed of a run: forks differ, and nothing else matters: not how it is run, what runs beside it, or when."""

from __future__ import annotations

import copy
from itertools import product
from typing import Any

import pytest
import ramify as rf
from ramify.backends import open_backend
from ramify.backends.scripted import ScriptedBackend
from ramify.runtime.backend import Backend
from ramify.runtime.seeds import gen_seed

from .corpus import CASES, Case
from .test_differential import NAMES, outcome

BOTH = pytest.mark.parametrize("eager", [True, False], ids=["eager", "compiled"])


@rf.program
def draws(s, topic: str):  # type: ignore[no-untyped-def]
    s += f"{topic}:"
    forks = s.fork(3)
    for branch in forks:
        branch += rf.gen("x", max_tokens=6, ignore_eos=True)
    draft = s.copy()
    draft += rf.gen("y", max_tokens=6, ignore_eos=True)
    nested = draft.fork(2)
    nested += rf.gen("z", max_tokens=6, ignore_eos=True)
    s += rf.gen("a", max_tokens=6, ignore_eos=True)
    s += f"{topic}:" + rf.gen("b", max_tokens=6, ignore_eos=True)
    return [*(branch["x"] for branch in forks), draft["y"], *(branch["z"] for branch in nested), s["a"], s["b"]]


@rf.program
def own_seeds(s):  # type: ignore[no-untyped-def]
    s += "Once"
    forks = s.fork(3)
    for number, branch in enumerate(forks):
        branch += rf.gen("x", max_tokens=8, seed=number // 2)
    return [branch["x"] for branch in forks]


def sampled(program: rf.Program, **more: Any) -> rf.Program:
    return program.options(temperature=2.0, seed=7, **more)


@BOTH
def test_forks_and_copies_with_equal_prompts_differ(eager: bool) -> None:
    drawn = sampled(draws, backend="tiny", eager=eager).run("a").value
    assert len(set(drawn)) == 8, drawn
    assert sampled(draws, backend="tiny", eager=eager).run("a").value == drawn
    assert draws.options(temperature=2.0, seed=8, backend="tiny", eager=eager).run("a").value != drawn


def test_eager_compiled_alone_batched_and_in_any_order_are_the_same() -> None:
    topics = [f"topic {number % 5}" for number in range(10)]
    alone = [sampled(draws, backend="tiny", eager=True).run(topic).value for topic in topics]
    assert alone[:5] == alone[5:] and len({tuple(each) for each in alone}) == 5
    for eager, in_flight, step in product([True, False], [1, 256], [1, -1]):
        rows = [{"topic": topic} for topic in topics[::step]]
        runs = sampled(draws, backend="tiny", eager=eager).run_batch(rows, max_in_flight=in_flight)
        assert [run.value for run in runs] == alone[::step]


@BOTH
def test_a_gens_own_seed_is_used_as_it_is(eager: bool) -> None:
    seen: list[int | None] = []

    def reply(text: str, params: rf.SamplingParams) -> str:
        seen.append(params.seed)
        return "x"

    sampled(own_seeds, backend=ScriptedBackend(reply), eager=eager).run()
    assert seen == [0, 0, 1]
    first, second, third = sampled(own_seeds, backend="tiny", eager=eager).run().value
    assert first == second != third


@BOTH
def test_without_a_seed_none_is_made_up(eager: bool) -> None:
    seen: list[int | None] = []

    def reply(text: str, params: rf.SamplingParams) -> str:
        seen.append(params.seed)
        return "x"

    draws.run("a", backend=ScriptedBackend(reply), eager=eager)
    assert set(seen) == {None} and len(seen) == 8


@pytest.mark.parametrize("case", CASES, ids=NAMES)
@pytest.mark.parametrize("model", ["scripted", "tiny"])
def test_seeded_runs_of_the_corpus_are_the_same_eager_and_compiled(case: Case, model: str) -> None:
    backend: Backend = ScriptedBackend() if model == "scripted" else open_backend("tiny")

    def run(eager: bool) -> dict[str, Any]:
        program = sampled(case.program)
        return outcome(Case(program, copy.deepcopy(case.arguments), case.raises), backend, eager=eager)

    assert run(eager=False) == run(eager=True)


@BOTH
def test_greedy_generations_keep_the_runs_seed_and_share_their_answers(eager: bool) -> None:
    run = draws.options(seed=7, backend="tiny", eager=eager).run("a")
    assert len(set(run.value[:3])) == 1
    if not eager:
        assert run.usage.shared_calls > 0


def test_places_have_seeds_of_their_own() -> None:
    branches = [(), (0,), (1,), (0, 0), (0, 1), (1, 0), (2**40,)]
    seeds = {
        gen_seed(seed, branch, number) for seed in (0, 1, -1, 2**64 + 2) for branch in branches for number in range(50)
    }
    assert len(seeds) == 4 * len(branches) * 50
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert gen_seed(7, (0, 2), 3) == 4804668345091440828  # of every release: stored results depend on it
