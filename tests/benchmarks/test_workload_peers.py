"""What is recorded of a program is what it asks for and waits for, and an asyncio script asks for the same."""

from __future__ import annotations

import asyncio
import json
from dataclasses import asdict

import pytest
import ramify as rf
import torch
from ramify.backends.local import LocalBackend
from ramify.backends.tiny import model_dir

from benchmarks.workload_calls import Call, drive, generated_tokens
from benchmarks.workload_peers import bars
from benchmarks.workload_programs import map_reduce, map_reduce_by_hand, tree_of_thought, tree_of_thought_by_hand
from benchmarks.workload_trace import record
from benchmarks.workloads import watched


@pytest.fixture(scope="module")
def backend():
    opened = LocalBackend(model_dir(), dtype=torch.float32, check=True)
    yield opened
    opened.close()


def text(name: str, length: int) -> object:
    return rf.gen(name, max_tokens=length, ignore_eos=True)


@rf.program
def two_and_one(s, word):
    """Two branches, one of which goes on by itself; the end looks at the other one only."""
    first, second = s.fork(2)
    first += f"A {word}:" + text("a", 5)
    second += f"B {word}:" + text("b", 4)
    first += ". And then" + text("c", 3)
    s += "It was" + second["b"] + "." + text("end", 2)


@rf.program
def chooses(s):
    s += "The sky is" + text("sky", 3) + ". Blue?" + rf.select("answer", [" yes, it is", " no, it is not"])
    if s["answer"].startswith(" "):
        s += "." + rf.gen("why", regex="[0-9]{2}", max_tokens=8)
    t = s.copy()
    t += " Once more" + rf.gen("more", max_tokens=4, ignore_eos=True, temperature=0.5, seed=3)


def test_dependencies_are_those_of_the_program(backend: LocalBackend):
    (calls,) = record(two_and_one, [{"word": "fox"}], backend)
    lengths = {call.generated: index for index, call in enumerate(calls)}
    a, b, c, end = (lengths[length] for length in (5, 4, 3, 2))
    assert [calls[index].after for index in (a, b, c, end)] == [[], [], [a], [b]]
    assert [calls[index].continues for index in (a, b, c, end)] == [None, None, a, None]
    tokens = backend.tokenizer.decode(calls[c].prompts[0])
    assert tokens == ". And then"


def test_choices_and_sampling(backend: LocalBackend):
    (calls,) = record(chooses, [{}], backend)
    sky, answer, why, more = calls
    assert answer.is_choice and answer.generated == 1 and answer.continues == 0
    asked = [backend.tokenizer.decode(prompt) for prompt in answer.prompts]
    assert asked[0].startswith(". Blue? yes, it") and asked[1].startswith(". Blue? no, it is")
    assert " yes, it is" not in asked[0] and " no, it is not" not in asked[1]
    assert why.after == [0, 1] and why.continues == 0
    assert more.after == [0, 1, 2] and more.continues == 2 and (more.temperature, more.seed) == (0.5, 3)
    assert generated_tokens([calls]) == sky.generated + why.generated + more.generated == 3 + why.generated + 4


@pytest.mark.parametrize(
    ("loop", "by_hand", "row"),
    [
        (map_reduce, map_reduce_by_hand, {"chunks": ["One.", "Two.", "Three."], "question": "What?"}),
        (tree_of_thought, tree_of_thought_by_hand, {"question": "What is 3 times 4?", "width": 2, "depth": 2}),
    ],
)
def test_a_loop_waits_for_no_more_than_forks_do(backend: LocalBackend, loop, by_hand, row):
    def waits(program: rf.Program) -> list[tuple[int, int]]:
        return sorted((len(call.after), call.generated) for call in record(program, [row], backend)[0])

    assert waits(loop) == waits(by_hand)


def test_a_script_asks_for_what_the_program_asked(backend: LocalBackend):
    """Given the model's answers, as they come over the wire, it makes the prompts that the engine saw."""
    rows = [{"word": "fox"}, {"word": "hen"}]
    with watched(backend) as served:
        recorded = record(two_and_one, rows, backend)
    wire = json.loads(json.dumps([[asdict(call) for call in calls] for calls in recorded]))
    answers = {tuple(each.prompt): list(each.generated) for each in served}
    asked: list[tuple[int, ...]] = []

    async def generate(prompt: list[int], call: Call) -> list[int]:
        asked.append(tuple(prompt))
        await asyncio.sleep(0)
        return answers[tuple(prompt)]

    asyncio.run(drive([[Call(**call) for call in calls] for calls in wire], generate))
    assert sorted(asked) == sorted(answers) and len(asked) == len(served) == 8


def test_calls_begin_when_those_before_have_ended_and_not_later():
    calls = [
        Call([[1]], None, [], 1),
        Call([[2]], None, [], 1),
        Call([[3]], 0, [0], 2),
        Call([[4], [5, 6]], 2, [0, 1, 2], 1, is_choice=True),
    ]
    assert asyncio.run(_rounds([calls, calls[:2]])) == [
        [[1], [1], [2], [2]],
        [[1, 9, 3]],
        [[1, 9, 3, 9, 9, 4], [1, 9, 3, 9, 9, 5, 6]],
    ]


async def _rounds(rows: list[list[Call]]) -> list[list[list[int]]]:
    """The prompts of each round, where everything that is asked for is answered with nines once nothing else moves."""
    waiting: list[tuple[list[int], asyncio.Event]] = []

    async def generate(prompt: list[int], call: Call) -> list[int]:
        waiting.append((prompt, asyncio.Event()))
        await waiting[-1][1].wait()
        return [9] * call.generated

    driving = asyncio.create_task(drive(rows, generate))
    rounds = []
    while not driving.done():
        for _ in range(50):  # turns of the loop, enough for all that follows from an answer
            await asyncio.sleep(0)
        if waiting:
            rounds.append(sorted(prompt for prompt, _ in waiting))
        for _, event in waiting:
            event.set()
        waiting.clear()
    await driving
    return rounds


def test_what_fails_is_raised():
    async def generate(prompt: list[int], call: Call) -> list[int]:
        raise ValueError(f"no answer to {prompt}")

    with pytest.raises(ValueError, match=r"no answer to \[7\]"):
        asyncio.run(drive([[Call([[7]], None, [], 1), Call([[8]], 0, [0], 1)]], generate))


def test_the_bar_is_of_the_geometric_mean():
    runs = {"a": {"seconds": {"ramify": [1.0, 9.0, 1.0], "vllm": [8.0, 8.0, 8.0]}}}
    runs |= {"b": {"seconds": {"ramify": [2.0], "vllm": [1.0]}}}
    (bar,) = bars(runs).values()
    assert bar.value == pytest.approx(2.0) and bar.holds
