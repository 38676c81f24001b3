"""Constrained texts that max_tokens cuts off: the error and its text, or the shortest end; white space in JSON."""

from __future__ import annotations

from itertools import product
from typing import Any

import msgspec
import pytest
import ramify as rf
from ramify.backends.scripted import ScriptedBackend
from ramify.ir.errors import RequestError
from ramify.runtime.closing import closing
from ramify.runtime.constraint import Constraint, grammar_constraint, json_schema_constraint, matches, regex_constraint

BOTH = pytest.mark.parametrize("eager", [True, False], ids=["eager", "compiled"])


class Card(msgspec.Struct):
    name: str
    sizes: list[int]
    note: str | None = None


SCHEMA = {"type": "object", "properties": {"kind": {"enum": ["fruit", "tool"]}}, "required": ["kind"]}
WAYS: dict[str, Any] = {
    "regex": "(The|An) answer is [0-9]{3,}!",
    "json_schema": SCHEMA,
    "grammar": 'start: item ("; " item)* "."\nitem: "left" | "right " /[0-9]+/',
    "schema": Card,
}
MAKERS = {"regex": regex_constraint, "json_schema": json_schema_constraint, "grammar": grammar_constraint}


@rf.program
def gen_with(s, **given):
    s += "Say: " + rf.gen("x", **given)
    return s["x"]


@rf.program
def goes_on(s, **given):
    s += "Say: " + rf.gen("x", **given) + " and " + rf.gen("y", max_tokens=4)
    return s["x"], s["y"]


@rf.program
def catches(s, **given):
    s += "Say: " + rf.gen("x", **given)
    try:
        return s["x"]
    except rf.OutputError as error:
        return error


def test_the_written_out_call_compiles() -> None:
    @rf.program
    def constant(s):
        s += "n: " + rf.gen(
            "x", json_schema={"type": "array", "minItems": 2}, max_tokens=1, close=True, whitespace=True
        )
        return s["x"]

    assert len(msgspec.json.decode(constant.run().value)) >= 2
    (op,) = [op for op in constant.compile().module.walk() if op.name == "lm.gen"]
    assert op.attrs["params"]["close"] is True and op.attrs["params"]["whitespace"] is True


@BOTH
@pytest.mark.parametrize("way", WAYS)
def test_a_text_that_is_cut_off_is_an_error_at_the_read(way: str, eager: bool) -> None:
    error = catches.run(**{way: WAYS[way]}, max_tokens=2, eager=eager).value
    assert isinstance(error, rf.OutputError) and isinstance(error, ValueError)
    assert error.text and repr(error.text) in error.message and "max_tokens cut it off" in error.message
    assert error.help == "raise max_tokens, or end the text in the shortest way: close=True"
    assert error.span is not None and error.span.source_line().strip() == 's += "Say: " + rf.gen("x", **given)'
    run = gen_with.run_batch([{way: WAYS[way], "max_tokens": 2}], eager=eager)[0]
    assert isinstance(run.error, rf.OutputError), "also when it is not caught"
    assert run.trace[0].text == error.text and run.trace[0].finish_reason == "length"


@BOTH
@pytest.mark.parametrize("way", WAYS)
def test_close_ends_it(way: str, eager: bool) -> None:
    for max_tokens in (1, 2, 4):
        run = goes_on.run(**{way: WAYS[way]}, max_tokens=max_tokens, close=True, eager=eager)
        text, info = run.trace[0].text, run.get_meta_info("x")
        if info["finish_reason"] == "length":
            assert info["closing"] and text.endswith(info["closing"]) and info["completion_tokens"] == max_tokens
        assert run.text == f"Say: {text} and {run['y']}", "the prompt goes on with the whole text"
        if way == "schema":
            assert isinstance(run["x"], Card)
        else:
            assert run["x"] == text and matches(MAKERS[way](WAYS[way]), text)
    whole = gen_with.run(**{way: WAYS[way]}, max_tokens=400, close=True, eager=eager)
    assert way == "schema" or matches(MAKERS[way](WAYS[way]), whole.value)


@BOTH
def test_close_is_an_option_of_runs_too(eager: bool) -> None:
    program = gen_with.options(close=True, max_tokens=1)
    assert program.run(regex="[a-z]{5}", eager=eager).value.isalpha()
    assert program.run(eager=eager).ok, "it says nothing where nothing has to match"
    rows = program.run_batch([{"regex": "[a-z]{5}"}, {"json_schema": SCHEMA}], eager=eager)
    assert [run.ok for run in rows] == [True, True]


@BOTH
def test_samples_and_streams(eager: bool) -> None:
    pieces: list[str] = []
    given = {"regex": "[a-z]{30}", "max_tokens": 2, "close": True}
    run = gen_with.run(**given, stream=lambda event: pieces.append(event.text), eager=eager)
    assert "".join(pieces) == f"Say: {run.value}"
    samples = gen_with.run(**given, n=3, temperature=1.0, seed=1, eager=eager).value
    assert len(samples) == 3 and all(len(sample) == 30 for sample in samples)


@BOTH
def test_a_character_that_is_cut_is_no_part_of_the_text(eager: bool) -> None:
    for max_tokens in range(1, 7):
        pieces: list[str] = []
        given = {"regex": "[éü世]{9}!", "max_tokens": max_tokens, "temperature": 1.0, "seed": max_tokens}
        run = goes_on.run(**given, close=True, stream=lambda event, told=pieces: told.append(event.text), eager=eager)
        assert matches(regex_constraint(given["regex"]), run["x"]) and "".join(pieces) == run.text
        error = catches.run(**given, eager=eager).value
        assert isinstance(error, rf.OutputError) and "\ufffd" not in error.text


@BOTH
def test_dtypes_close(eager: bool) -> None:
    backend = ScriptedBackend(lambda *_: "12 and a half")
    assert gen_with.run(dtype=int, max_tokens=1, close=True, backend=backend, eager=eager).value == 12
    assert isinstance(gen_with.run(dtype=bool, max_tokens=1, close=True, eager=eager).value, bool)


@BOTH
def test_what_cannot_be_asked_for(eager: bool) -> None:
    for given, message in (
        ({"close": True}, "takes close together with what the text must match"),
        ({"close": 1, "regex": "a"}, "close must be True or False, got 1"),
        ({"whitespace": True, "regex": "a"}, "takes whitespace together with json_schema, schema or tools"),
        ({"whitespace": "  ", "json_schema": {}}, "whitespace must be True or False, got '  '"),
    ):
        with pytest.raises(TypeError, match=message):
            gen_with.run(**given, eager=eager)


@BOTH
def test_white_space_on_request(eager: bool) -> None:
    schema = {"type": "array", "items": {"const": 1}, "minItems": 2, "maxItems": 2}
    compact = gen_with.run(json_schema=schema, eager=eager)
    assert compact.value == "[1,1]"
    drawn = {
        gen_with.run(json_schema=schema, whitespace=True, temperature=1.0, seed=seed, max_tokens=400, eager=eager).value
        for seed in range(8)
    }
    assert all(msgspec.json.decode(text) == [1, 1] for text in drawn)
    assert any(any(space in text for space in " \n\t") for text in drawn)


CARD = {"type": "object", "properties": {"a": {"type": "string", "minLength": 2}, "b": {"enum": [10, 2, True]}}}
SHORT: list[tuple[Constraint, str]] = [
    (Constraint("regex", "a{3}|b{5}|(ab)*c"), "ab"),
    (Constraint("regex", "a{3}|b{5}|(ab)*c"), "a"),
    (Constraint("regex", "(x|yy|z{4})+(a|bb)"), "z"),
    (json_schema_constraint({**CARD, "required": ["a", "b"], "additionalProperties": False}), '{"a":"ab","b":'),
    (json_schema_constraint({"type": "array", "items": {"enum": [0, 12]}, "minItems": 2}), "[1"),
    (json_schema_constraint({"type": "array", "items": {"enum": [0, 12]}, "minItems": 2, "maxItems": 3}), ""),
    (json_schema_constraint({"type": "integer", "minimum": 100, "multipleOf": 7}), "1"),
]


@pytest.mark.parametrize(("constraint", "text"), SHORT)
def test_nothing_shorter_ends_it(constraint: Constraint, text: str) -> None:
    end = closing(constraint, text)
    assert matches(constraint, text + end)
    letters = "abcxyz012,[]}tr"
    for length in range(len(end)):
        assert not any(matches(constraint, text + "".join(more)) for more in product(letters, repeat=length))


LONG: list[Constraint] = [
    json_schema_constraint(
        {
            "type": "object",
            "properties": {
                f"p{i}": {
                    "type": "object",
                    "properties": {
                        "x": {"type": "number"},
                        "y": {"type": "array", "items": {"type": "string", "minLength": 5}, "minItems": 3},
                    },
                    "required": ["x", "y"],
                }
                for i in range(8)
            },
            "required": [f"p{i}" for i in range(8)],
        }
    ),
    json_schema_constraint(
        {"type": "array", "items": {"type": "string", "pattern": "^[a-z]+@[a-z]+x$"}, "minItems": 3}
    ),
    json_schema_constraint({"type": "string", "minLength": 80}),
    json_schema_constraint({"type": "string", "format": "date-time"}),
    json_schema_constraint({"$ref": "#/$defs/n", "$defs": {"n": {"type": "array", "items": {"$ref": "#/$defs/n"}}}}),
]


@pytest.mark.parametrize("constraint", LONG, ids=range(len(LONG)))
def test_long_ends_are_found(constraint: Constraint) -> None:
    whole = closing(constraint, "")
    assert matches(constraint, whole)
    for cut in range(0, len(whole), 7):
        end = closing(constraint, whole[:cut])
        assert matches(constraint, whole[:cut] + end) and len(end) <= len(whole) - cut


def test_a_text_with_white_space_is_ended_too() -> None:
    constraint = json_schema_constraint(SCHEMA)
    assert closing(constraint, '{\n  "kind": "f') == 'ruit"}'
    backend = ScriptedBackend(lambda *_: '{ "kind": "tool" }', features={"json_schema"})
    value = gen_with.run(json_schema=SCHEMA, max_tokens=5, close=True, backend=backend).value
    assert msgspec.json.decode(value) == {"kind": "tool"}
    with pytest.raises(RequestError, match="no text that matches begins with"):
        closing(constraint, "[")
