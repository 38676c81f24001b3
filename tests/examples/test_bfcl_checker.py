"""BFCL's checker: its rules one by one, and on the real questions with answers built from the accepted ones."""

from __future__ import annotations

from collections.abc import Iterator
from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ramify.examples.bfcl.calls import Call, read_calls
from ramify.examples.bfcl.checker import check, check_call
from ramify.examples.bfcl.data import CATEGORIES, Accepted, Question, described, load_questions
from ramify.ir.errors import UsageError

ANSWERED = CATEGORIES[:-1]
COUNTS = {"simple": 400, "multiple": 200, "parallel": 200, "parallel_multiple": 200, "relevance": 240}
# Their accepted answers name a parameter that the function does not have, so a call with it is wrong.
WITH_UNKNOWN_PARAMETERS = {"parallel_multiple_function_12", "parallel_multiple_function_26"}


def function(name: str = "f.g", required: list[str] | None = None, **properties: Any) -> dict[str, Any]:
    described = {name: kind if isinstance(kind, dict) else {"type": kind} for name, kind in properties.items()}
    needed = list(properties) if required is None else required
    return {
        "name": name,
        "description": "",
        "parameters": {"type": "dict", "properties": described, "required": needed},
    }


def kind_of(kind: Any, value: Any, *accepted: Any) -> str | None:
    """What is wrong with a value of one parameter."""
    return check_call(function(a=kind), {"a": list(accepted)}, Call("f.g", {"a": value})).kind


FLOATS = {"type": "array", "items": {"type": "float"}}
TEXTS = {"type": "array", "items": {"type": "string"}}
OBJECTS = {"type": "array", "items": {"type": "dict"}}


@pytest.mark.parametrize(
    ("kind", "value", "accepted", "wrong"),
    [
        ("integer", 3, [3], None),
        ("integer", 3.0, [3], "wrong_type"),
        ("integer", "3", [3], "wrong_type"),
        ("integer", True, [1], "wrong_type"),
        ("integer", 0.85, [0.85], None),  # the accepted value is of another type than is documented
        ("float", 3, [3.0], None),
        ("float", 3.5, [3.0], "wrong_value"),
        ("string", "new york, NY", ["New York NY", "NYC"], None),
        ("string", "it's", ['it"s'], None),
        ("string", "New York!", ["New York"], "wrong_value"),
        ("string", True, ["", True], None),
        ("boolean", False, [False], None),
        ("boolean", "false", [False], "wrong_type"),
        (TEXTS, ["A b", "c"], [["a-B", "C"]], None),
        (TEXTS, ["c", "a"], [["a", "c"]], "wrong_value"),
        (TEXTS, [1], [["a"]], "wrong_type"),
        (TEXTS, "data", ["data"], None),  # a variable
        (TEXTS, "Data", ["data"], "wrong_value"),  # which is compared as it is
        (FLOATS, [1.0, 2.5], [[1.0, 2.5]], None),
        (FLOATS, [1, 2.5], [[1.0, 2.5]], "wrong_type"),  # inside a list an int is no float
        (FLOATS, [1, 2], [[1, 2]], None),
        (FLOATS, [], ["", [1.0]], None),  # as BFCL takes an empty list where none is needed
        ({"type": "tuple", "items": {"type": "float"}}, (1.0, 2.0), [[1.0, 2.0]], None),
        ("dict", {"x": 1, "y": "B"}, [{"x": [1, 2], "y": ["b"]}], None),
        ("dict", {"x": 1}, [{"x": [1], "y": ["", "b"]}], None),
        ("dict", {"x": 1}, [{"x": [1], "y": ["b"]}], "wrong_value"),
        ("dict", {"x": 1, "z": 1}, [{"x": [1]}], "wrong_value"),
        (OBJECTS, [{"x": 1}, {"x": 2}], [[{"x": [1]}, {"x": [2]}]], None),
        (OBJECTS, [{"x": 2}, {"x": 1}], [[{"x": [1]}, {"x": [2]}]], "wrong_value"),
        (OBJECTS, [{"x": 1}], [[{"x": [1]}, {"x": [2]}]], "wrong_value"),
        ("any", "x", ["x"], None),
    ],
)
def test_values(kind: Any, value: Any, accepted: list[Any], wrong: str | None) -> None:
    assert kind_of(kind, value, *accepted) == wrong


def test_names_and_parameters() -> None:
    made = function(required=["a"], a="integer", b="integer", c="integer")
    accepted = {"a": [1], "b": ["", 2], "c": [3]}
    verdicts = {
        "wrong_name": Call("f_g", {"a": 1, "c": 3}),
        "missing_required": Call("f.g", {"c": 3}),
        "missing_parameter": Call("f.g", {"a": 1}),
        "unexpected_parameter": Call("f.g", {"a": 1, "c": 3, "d": 4}),
        "wrong_value": Call("f.g", {"a": 1, "b": 5, "c": 3}),
        None: Call("f.g", {"a": 1, "c": 3}),
    }
    for kind, call in verdicts.items():
        verdict = check_call(made, accepted, call)
        assert verdict.kind == kind and bool(verdict.reason) == (kind is not None)
    assert check_call(made, accepted, Call("f_g", {"a": 1, "c": 3}), underscores=True).valid
    assert check_call(made, accepted, Call("f.g", {"a": 1, "c": 3}, [1])).kind == "unexpected_parameter"


def test_parallel_calls_find_each_other_whatever_their_order() -> None:
    # The first accepted call takes either of the two that are made; only one of them does for the second.
    wanted = [Accepted("f.g_1", {"a": [1], "b": ["", 2]}), Accepted("f.g_2", {"a": [1], "b": [2]})]
    asked = Question("q", "parallel", "", [function(required=["a"], a="integer", b="integer")], wanted)
    with_b, without = Call("f.g", {"a": 1, "b": 2}), Call("f.g", {"a": 1})
    assert check(asked, [with_b, without]).valid and check(asked, [without, with_b]).valid
    assert check(asked, [without, without]).kind == "no_match"
    assert check(asked, [with_b]).kind == check(asked, [with_b, with_b, without]).kind == "wrong_count"


def test_relevance_wants_no_call() -> None:
    asked = Question("q", "relevance", "", [function(a="integer")], None)
    assert check(asked, []).valid and check(asked, [Call("f.g", {"a": 1})]).kind == "unwanted_call"


def test_calls_are_read_from_json_and_python() -> None:
    calls = [Call("f.g", {"a": 1, "b": ["x"]}), Call("h", {})]
    assert read_calls('[{"name": "f.g", "arguments": {"a": 1, "b": ["x"]}}, {"name": "h", "arguments": {}}]') == calls
    assert read_calls("```python\n[f.g(a=1, b=['x']), h()]\n```") == calls
    assert read_calls("f(a=data['x'], b=-1)") == [Call("f", {"a": "data['x']", "b": -1})]
    assert read_calls("[]") == []
    for text in ("I cannot.", '[{"name": 3}]', '{"name": "f", "arguments": [1]}', "[1]", "f(**x)", ""):
        with pytest.raises(ValueError):
            read_calls(text)


def concrete(value: Any) -> Any:
    """A value as a call has it, from an accepted one: objects have lists of values at their keys."""
    if isinstance(value, dict):
        return {key: concrete(options[0]) for key, options in value.items() if options[0] != ""}
    if isinstance(value, list) and any(isinstance(item, dict) for item in value):
        return [concrete(item) for item in value]
    return value


def answer(question: Question, which: int, *, is_least: bool) -> list[Call]:
    """Calls of accepted values, the first or the last; is_least: without what may be left out."""
    assert question.accepted is not None
    calls = []
    for accepted in question.accepted:
        called = described(accepted, question.functions)
        assert called is not None, question.id
        required = called["parameters"]["required"]
        arguments = {
            name: concrete([value for value in values if value != ""][which])
            for name, values in accepted.values.items()
            if any(value != "" for value in values) and (name in required or not (is_least and "" in values))
        }
        calls.append(Call(called["name"], arguments))
    return calls


@cache
def questions(folder: Path, category: str) -> tuple[Question, ...]:
    return tuple(load_questions(folder, category))


@pytest.mark.parametrize("category", ANSWERED)
def test_every_accepted_answer_is_right(data: Path, category: str) -> None:
    found = questions(data / "bfcl", category)
    assert len(found) == COUNTS[category]
    for question in found:
        assert check(question, answer(question, 0, is_least=True)[::-1]).valid
        for which in (0, -1):
            verdict = check(question, answer(question, which, is_least=False))
            assert verdict.valid == (question.id not in WITH_UNKNOWN_PARAMETERS), verdict


def test_relevance_has_questions_without_calls(data: Path) -> None:
    found = questions(data / "bfcl", "relevance")
    assert len(found) == COUNTS["relevance"]
    assert all(check(question, []).valid for question in found)
    assert not any(check(question, [Call(question.functions[0]["name"], {})]).valid for question in found)


def mutations(question: Question, calls: list[Call]) -> Iterator[tuple[str, list[Call]]]:
    """Right calls made wrong in one way each, with the kind of mistake of a single call."""
    yield "wrong_count", [*calls, calls[0]]
    yield "wrong_count", calls[:-1]
    first, rest = calls[0], calls[1:]
    yield "wrong_name", [Call(f"{first.name}_not", first.arguments), *rest]
    yield "unexpected_parameter", [Call(first.name, {**first.arguments, "not_a_parameter": 1}), *rest]
    assert question.accepted is not None
    called = described(question.accepted[0], question.functions)
    assert called is not None
    for name in first.arguments:
        if name in called["parameters"]["required"]:
            left = {other: value for other, value in first.arguments.items() if other != name}
            yield "missing_required", [Call(first.name, left), *rest]
        yield "wrong_type", [Call(first.name, {**first.arguments, name: Odd()}), *rest]
        if isinstance(first.arguments[name], str):
            yield "wrong_value", [Call(first.name, {**first.arguments, name: "no such value 1729"}), *rest]


class Odd:
    """A value of a type that no parameter has."""


@pytest.mark.parametrize("category", ANSWERED)
def test_every_mutation_is_wrong(data: Path, category: str) -> None:
    for question in questions(data / "bfcl", category):
        calls = answer(question, 0, is_least=True)
        before = deepcopy(calls)
        for kind, wrong in mutations(question, calls):
            verdict = check(question, wrong)
            assert verdict.kind in ((kind,) if len(wrong) == len(calls) == 1 else (kind, "no_match")), question.id
            assert verdict.reason
        assert calls == before


VALUES = st.one_of(st.integers(-9, 9), st.text(max_size=6), st.booleans(), st.lists(st.integers(-9, 9), max_size=3))
KINDS = {int: "integer", str: "string", bool: "boolean"}


def kind_for(value: Any) -> Any:
    return {"type": "array", "items": {"type": "integer"}} if isinstance(value, list) else KINDS[type(value)]


@given(st.dictionaries(st.sampled_from("abcd"), VALUES, min_size=1), st.randoms(use_true_random=False), st.data())
def test_any_call_is_right_by_itself_and_wrong_with_a_change(arguments: dict[str, Any], rng: Any, data: Any) -> None:
    made = function(**{name: kind_for(value) for name, value in arguments.items()})
    if "" in arguments.values():
        return  # "" among accepted values is the mark of what may be left out
    accepted = {name: [value] for name, value in arguments.items()}
    assert check_call(made, accepted, Call("f.g", arguments)).valid
    name = rng.choice(sorted(arguments))
    other = data.draw(VALUES)
    changed = check_call(made, accepted, Call("f.g", {**arguments, name: other}))
    if type(other) is not type(arguments[name]):
        assert changed.kind == "wrong_type"
    elif other == arguments[name]:
        assert changed.valid
    left = {each: value for each, value in arguments.items() if each != name}
    assert check_call(made, accepted, Call("f.g", left)).kind == "missing_required"


@given(st.lists(st.integers(0, 4), min_size=1, max_size=5), st.randoms(use_true_random=False))
def test_the_order_of_parallel_calls_does_not_matter(values: list[int], rng: Any) -> None:
    wanted = [Accepted(f"f.g_{index}", {"a": [value]}) for index, value in enumerate(values)]
    asked = Question("q", "parallel", "", [function(a="integer")], wanted)
    calls = [Call("f.g", {"a": value}) for value in values]
    rng.shuffle(calls)
    assert check(asked, calls).valid
    calls[0] = Call("f.g", {"a": 5})
    assert not check(asked, calls).valid


def test_mistakes_of_users_are_told(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no category 'easy'"):
        load_questions(tmp_path, "easy")
    with pytest.raises(UsageError, match="has no questions of the category simple"):
        load_questions(tmp_path, "simple")
    (tmp_path / "questions").mkdir()
    (tmp_path / "questions" / "simple.jsonl").write_text('{"id": "simple_0"}\n', "utf-8")
    with pytest.raises(UsageError, match="has no accepted answer for simple_0"):
        load_questions(tmp_path, "simple")
    (tmp_path / "possible_answer").mkdir()
    (tmp_path / "possible_answer" / "simple.jsonl").write_text('{"id": "simple_0", "ground_truth": {}}\n', "utf-8")
    with pytest.raises(UsageError, match="simple_0 is no question of BFCL"):
        load_questions(tmp_path, "simple")


def test_files_of_later_releases_are_read(tmp_path: Path) -> None:
    (tmp_path / "possible_answer").mkdir()
    turn = '[[{"role": "user", "content": "Call it twice."}]]'
    asked = f'{{"id": "parallel_0", "question": {turn}, "function": [{{"name": "f"}}]}}'
    truth = '{"id": "parallel_0", "ground_truth": [{"f": {"a": [1]}}, {"f": {"a": [2]}}]}'
    (tmp_path / "BFCL_v3_parallel.json").write_text(asked + "\n", "utf-8")
    for other in ("BFCL_v3_live_parallel.json", "BFCL_v3_parallel_multiple.json"):
        (tmp_path / other).write_text("not this one", "utf-8")
    (tmp_path / "possible_answer" / "BFCL_v3_parallel.json").write_text(truth + "\n", "utf-8")
    (question,) = load_questions(tmp_path, "parallel")
    with pytest.raises(UsageError, match="has no questions of the category multiple"):
        load_questions(tmp_path, "multiple")
    assert question.text == "Call it twice." and [each.name for each in question.accepted or []] == ["f", "f"]
