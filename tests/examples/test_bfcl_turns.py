"""Multi-turn tasks: the trace-backed server, and the verdicts on the recorded calls and on changes of them."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

import msgspec
import pytest
from ramify.backends.scripted import ScriptedBackend
from ramify.examples.bfcl.calls import Call, call_of_source
from ramify.examples.bfcl.functions import shared_first
from ramify.examples.bfcl.multi_turn import Recorded, Task, TraceServer, judge, load_tasks, task_of
from ramify.examples.bfcl.program import converse
from ramify.ir.errors import UsageError
from ramify.lang.rows import read_objects

READ = {
    "name": "read",
    "description": "Read lines of a file.",
    "parameters": {
        "type": "dict",
        "properties": {"file": {"type": "string"}, "lines": {"type": "integer", "default": 10}},
        "required": ["file"],
    },
}
OPEN = {
    "name": "open",
    "description": "Open a folder.",
    "parameters": {"type": "dict", "properties": {"folder": {"type": "string"}}, "required": ["folder"]},
}
WANTED = [
    [Recorded(Call("open", {"folder": "notes"}), "None"), Recorded(Call("read", {"file": "a.txt"}), '{"text": "tea"}')],
    [Recorded(Call("read", {"file": "b.txt", "lines": 2}), '{"text": "milk"}')],
]
TASK = Task("toy", ["Open the notes and read a.", "Now two lines of b."], [READ, OPEN], WANTED)
RIGHT = [[each.call for each in turn] for turn in WANTED]


def test_recorded_calls_pass_however_their_arguments_are_written() -> None:
    assert judge(TASK, RIGHT).outcome == "passed"
    told = Call("read", {"lines": 10, "file": "a.txt"})
    assert judge(TASK, [[RIGHT[0][0], told], RIGHT[1]]).outcome == "passed"


def test_fewer_calls_than_wanted_fail() -> None:
    for turns in ([RIGHT[0][:1], RIGHT[1]], [RIGHT[0][1:], RIGHT[1]], [RIGHT[0], []], [RIGHT[0]], []):
        verdict = judge(TASK, turns)
        assert verdict.outcome == "failed" and "is missing" in verdict.reason


def test_calls_that_their_documents_refuse_change_nothing() -> None:
    refused = [Call("read", {}), Call("write", {"file": "a"}), Call("open", {"folder": 3})]
    assert judge(TASK, [[*refused, *RIGHT[0]], RIGHT[1]]).outcome == "passed"
    server = TraceServer(TASK)
    server.begin(0)
    assert [server.answer(call).kind for call in refused] == ["refused"] * 3
    assert json.loads(server.answer(refused[1]).result) == {"error": "there is no function write"}


def test_what_the_trace_does_not_hold_is_undecided() -> None:
    other = Call("read", {"file": "c.txt"})
    assert judge(TASK, [[*RIGHT[0], other], RIGHT[1]]).outcome == "undecided"  # one more
    assert judge(TASK, [RIGHT[0][::-1], RIGHT[1]]).outcome == "undecided"  # in another order
    assert judge(TASK, [RIGHT[0], [other]]).outcome == "undecided"  # another instead
    assert judge(TASK, [[*RIGHT[0], RIGHT[0][0]], RIGHT[1]]).outcome == "undecided"  # once more


@cache
def tasks(folder: Path) -> tuple[Task, ...]:
    return tuple(load_tasks(folder))


def test_ground_truth_passes_and_fails_without_its_last_call(data: Path) -> None:
    found = tasks(data / "bfcl")
    answers = read_objects(data / "bfcl" / "multi_turn" / "possible_answer" / "base.jsonl")
    truth = {row["id"]: [[call_of_source(call) for call in turn] for turn in row["ground_truth"]] for row in answers}
    named = {task.id: [[each.call for each in turn] for turn in task.recorded] for task in found}
    assert len(found) == len(truth) == 40
    for task in found:
        assert [[call.name for call in turn] for turn in truth[task.id]] == [
            [call.name for call in turn] for turn in named[task.id]
        ]
        turns = named[task.id]
        assert judge(task, turns).outcome == "passed"
        last = max(number for number, turn in enumerate(turns) if turn)
        assert judge(task, [*turns[:last], turns[last][:-1], *turns[last + 1 :]]).outcome == "failed"


def test_any_missing_call_fails(data: Path) -> None:
    for task in tasks(data / "bfcl"):
        turns = [[each.call for each in turn] for turn in task.recorded]
        for number, turn in enumerate(turns):
            for place in range(len(turn)):
                left = [*turn[:place], *turn[place + 1 :]]
                assert judge(task, [*turns[:number], left, *turns[number + 1 :]]).outcome == "failed"


def test_functions_that_most_tasks_have_come_first(data: Path) -> None:
    found = tasks(data / "bfcl")
    orders = shared_first([task.functions for task in found])
    shared = set.intersection(*({function["name"] for function in task.functions} for task in found))
    assert len(shared) >= 10
    assert len({json.dumps(order[: len(shared)]) for order in orders}) == 1
    for task, order in zip(found, orders, strict=True):
        assert sorted(map(json.dumps, order)) == sorted(map(json.dumps, task.functions))


def test_a_conversation_runs_until_the_model_calls_nothing_more() -> None:
    said = iter(
        [
            '[{"name":"open","arguments":{"folder":"notes"}},{"name":"read","arguments":{"file":"a.txt"}}]',
            "[]",
            '[{"name":"read","arguments":{"file":"b.txt","lines":2}}]',
            "[]",
        ]
    )
    backend = ScriptedBackend(lambda _text, _params: next(said))
    record = {"id": TASK.id, "turns": TASK.turns, "functions": TASK.functions, "recorded": recorded_as_data()}
    run = converse.run(record, backend=backend)
    made = [[Call(each["name"], each["arguments"]) for each in turn] for turn in run.value["turns"]]
    assert judge(TASK, made).outcome == "passed"
    results = [message["content"] for message in run.messages if message["role"] == "tool"]
    assert results == ["None", '{"text": "tea"}', '{"text": "milk"}']


def test_a_model_that_makes_the_recorded_calls_passes_through_the_whole_loop(data: Path) -> None:
    for task in tasks(data / "bfcl")[::5]:
        steps = [json.dumps([data_of(each.call)]) for turn in task.recorded for each in turn]
        ends = [len(turn) for turn in task.recorded]
        said = iter([step for end in ends for step in (*[steps.pop(0) for _ in range(end)], "[]")])
        run = converse.run(
            msgspec.to_builtins(task), backend=ScriptedBackend(lambda _text, _params, said=said: next(said))
        )
        made = [[Call(each["name"], each["arguments"]) for each in turn] for turn in run.value["turns"]]
        assert judge(task, made).outcome == "passed"
        results = [message["content"] for message in run.messages if message["role"] == "tool"]
        assert results == [each.result for turn in task.recorded for each in turn]


def data_of(call: Call) -> dict[str, object]:
    return {"name": call.name, "arguments": call.arguments}


def recorded_as_data() -> list[list[dict[str, object]]]:
    return [[{"call": data_of(each.call), "result": each.result} for each in turn] for turn in WANTED]


def test_mistakes_of_users_are_told(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="has no multi-turn tasks"):
        load_tasks(tmp_path)
    with pytest.raises(UsageError, match="this is no task"):
        task_of({"id": "x"})
