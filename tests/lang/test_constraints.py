"""Constraints and processors of gen: what is taken, what is refused and where, eagerly and compiled."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import ramify as rf
from ramify.backends.scripted import ScriptedBackend
from ramify.ir.errors import BackendError, RequestError, Unsupported
from ramify.lang.cli import main
from ramify.runtime.constraint import Constraint
from ramify.runtime.request import SamplingParams

BOTH = pytest.mark.parametrize("eager", [True, False], ids=["eager", "compiled"])
SCHEMA = {"type": "object", "properties": {"b": {"type": "integer"}, "a": {"enum": ["x"]}}, "required": ["b"]}
GRAMMAR = 'start: "yes" | "no"'


class Recording(ScriptedBackend):
    """Notes the sampling parameters of what it is asked."""

    def __init__(self, reply: str = "1", **options: Any) -> None:
        self.seen: list[SamplingParams] = []
        super().__init__(lambda _, params: self.seen.append(params) or reply, **options)


@rf.program
def constant_regex(s):
    s += "n: " + rf.gen("x", regex="[0-9]+")


@rf.program
def gen_with(s, **given):
    s += "n: " + rf.gen("x", **given)


@rf.program
def gen_regex(s, regex):
    s += "é: " + rf.gen("x", regex=regex)


@rf.program
def gen_json_schema(s, json_schema):
    s += "é: " + rf.gen("x", json_schema=json_schema)


@rf.program
def gen_grammar(s, grammar):
    s += "é: " + rf.gen("x", grammar=grammar)


@rf.program
def constant_schema(s):
    s += rf.gen("x", json_schema={"type": "object", "properties": {"b": {"type": "integer"}, "a": {"enum": ["x"]}}})


PROGRAMS = {"regex": gen_regex, "json_schema": gen_json_schema, "grammar": gen_grammar}


def asked(program: Any, *, eager: bool, reply: str = "1", **arguments: Any) -> SamplingParams:
    backend = Recording(reply, features={"regex", "json_schema", "grammar", "processors"})
    program.run(**arguments, backend=backend, eager=eager)
    (params,) = backend.seen
    return params


@BOTH
def test_constraints_reach_the_backend(eager: bool, tmp_path: Path) -> None:
    assert asked(constant_regex, eager=eager).constraint == Constraint("regex", "[0-9]+")
    assert asked(gen_regex, eager=eager, regex="[0-9]").constraint == Constraint("regex", "[0-9]")
    assert asked(gen_with, eager=eager, regex=r"\d").constraint == Constraint("regex", r"\d")
    text = '{"type":"object","properties":{"b":{"type":"integer"},"a":{"enum":["x"]}},"required":["b"]}'
    for schema in (SCHEMA, text):
        made = asked(gen_json_schema, eager=eager, json_schema=schema, reply='{"b":1}').constraint
        assert made == Constraint("json_schema", text), "properties keep their order"
    made = asked(constant_schema, eager=eager, reply="{}").constraint
    assert made == Constraint("json_schema", text.replace(',"required":["b"]', ""))
    file = tmp_path / "answer.lark"
    file.write_text(GRAMMAR)
    for grammar in (GRAMMAR, str(file), file):
        assert asked(gen_grammar, eager=eager, grammar=grammar, reply="no").constraint == Constraint("lark", GRAMMAR)


def test_a_schema_that_is_written_out_is_a_constant_of_the_module() -> None:
    (op,) = [op for op in constant_schema.compile().module.walk() if op.name == "lm.gen"]
    schema = {"type": "object", "properties": {"b": {"type": "integer"}, "a": {"enum": ["x"]}}}
    assert op.attrs["params"] == {"json_schema": schema}


def test_check_finds_bad_constraints_before_anything_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "programs.py"
    file.write_text(
        "import ramify as rf\n\n@rf.program\ndef good(s):\n    s += rf.gen('x', regex='[0-9]+')\n\n"
        "@rf.program\ndef bad(s):\n    s += 'a'\n    s += rf.gen('x', regex='[0-9')\n\n"
        "@rf.program\ndef worse(s):\n    s += rf.gen('x', json_schema={'contains': {}})\n"
    )
    assert main(["check", str(file)]) == 2
    out = capsys.readouterr().out
    assert ":good: ok" in out and ":bad: error" in out and "regex: unclosed character class" in out
    assert "programs.py:10" in out and "rf.gen('x', regex='[0-9')" in out
    assert "json_schema: at #/contains: this keyword cannot be enforced" in out


@BOTH
def test_processors_reach_the_backend(eager: bool) -> None:
    class Unhashable:
        __hash__ = None  # type: ignore[assignment]

        def __call__(self, token_ids: Any, logits: Any) -> None: ...

    first, second = Unhashable(), lambda token_ids, logits: logits
    assert asked(gen_with, eager=eager, processors=[first, second]).processors == (first, second)
    assert asked(gen_with, eager=eager, processors=first).processors == (first,)
    assert asked(gen_with.options(processors=[second]), eager=eager).processors == (second,)


@BOTH
@pytest.mark.parametrize(
    ("name", "source", "message"),
    [
        ("regex", "[0-9", "regex: unclosed character class"),
        ("regex", "(?=a)b", "regex: look-around"),
        ("regex", r"(a)\1", "regex: backreferences are not supported"),
        ("regex", r"[^\s\S]", "regex: no text matches it"),
        ("regex", r"\bno", r"regex: look-around is not supported: `\b` in /\bno/"),
        ("regex", "a$b", "regex: look-around is not supported: a `$` that is not at its end"),
        ("regex", "a{3,2}", "regex: invalid repetition count range"),
        ("regex", "\ud800", "regex: half of a surrogate pair"),
        ("grammar", 'start: "\ud800"', "grammar: half of a surrogate pair"),
        ("json_schema", {"const": "\ud800"}, "json_schema: half of a surrogate pair"),
        (
            "json_schema",
            {"properties": {"a": {"type": 5}}},
            "json_schema: at #/properties/a/type: it takes names of types",
        ),
        ("json_schema", {"contains": {}}, "json_schema: at #/contains: this keyword cannot be enforced"),
        ("json_schema", {"type": "thing"}, "json_schema: at #/type: Invalid type: thing"),
        (
            "json_schema",
            {"type": "string", "format": "color"},
            "json_schema: at #/format: the format 'color' cannot be",
        ),
        (
            "json_schema",
            {"minimum": 3, "maximum": 1, "type": "integer"},
            "json_schema: at # (minimum, maximum): nothing matches",
        ),
        ("json_schema", '{"type"', "json_schema: the text is not JSON"),
        ("json_schema", False, "json_schema: the schema `false` accepts nothing"),
        ("grammar", "start: foo", 'grammar: line 1, column 8: unknown name: "foo"'),
        (
            "grammar",
            'start: "x" a\na: "y" a',
            "grammar: line 2: no finite text matches the rule 'a': it contains itself",
        ),
        ("grammar", "start: A\nA: /a/ & /b/", "grammar: line 1: no text matches A in the rule 'start'"),
        ("grammar", "nowhere/x.lark", "grammar: 'nowhere/x.lark' cannot be read"),
    ],
)
def test_a_bad_constraint_is_an_error_at_the_append(name: str, source: Any, message: str, eager: bool) -> None:
    backend = Recording(features={"regex", "json_schema", "grammar"})
    with pytest.raises(RequestError) as caught:
        PROGRAMS[name].run(source, backend=backend, eager=eager)
    assert caught.value.message.startswith(message)
    assert caught.value.span is not None
    assert caught.value.span.source_line().strip() == f's += "é: " + rf.gen("x", {name}={name})'
    assert not backend.requests, "nothing was sent"


@BOTH
@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"regex": "a", "grammar": GRAMMAR}, "it got regex and grammar"),
        ({"regex": "a", "dtype": int}, "it got dtype and regex"),
        ({"json_schema": {}, "choices": ["a"]}, "it got choices and json_schema"),
        ({"regex": 5}, "regex takes a text, not int"),
        ({"json_schema": 5}, "json_schema takes a JSON schema"),
        ({"json_schema": {"enum": [object]}}, "json_schema holds what is no JSON"),
        ({"json_schema": {"maximum": float("nan")}}, "json_schema holds what is no JSON: a number that is infinite"),
        ({"grammar": 5}, "grammar takes a Lark grammar"),
        ({"processors": [5]}, "processors takes functions, not int"),
        ({"constraint": Constraint("regex", "a")}, "unexpected keyword argument 'constraint'"),
    ],
)
def test_arguments_of_the_wrong_kind(given: dict[str, Any], message: str, eager: bool) -> None:
    with pytest.raises(TypeError, match=message):
        gen_with.run(**given, backend=ScriptedBackend(), eager=eager)


@BOTH
@pytest.mark.parametrize("name", ["regex", "json_schema", "grammar"])
def test_a_backend_without_the_feature_refuses(name: str, eager: bool) -> None:
    source = {"regex": "a", "json_schema": SCHEMA, "grammar": GRAMMAR}[name]
    with pytest.raises(Unsupported, match=f"cannot take {name}") as caught:
        PROGRAMS[name].run(source, backend=ScriptedBackend(features=()), eager=eager)
    assert caught.value.span is not None
    with pytest.raises(Unsupported, match="cannot take processors"):
        gen_with.run(processors=[print], backend=ScriptedBackend(features=()), eager=eager)


@BOTH
@pytest.mark.parametrize(
    ("name", "source", "good", "bad"),
    [
        ("regex", "[0-9]+", "12", "12a"),
        ("json_schema", SCHEMA, '{"b": 1, "a": "x"}', '{"a": "x"}'),
        ("json_schema", SCHEMA, '{"b":1}', '{"b":'),
        ("grammar", GRAMMAR, "no", "nobody"),
    ],
)
def test_a_scripted_reply_has_to_match(name: str, source: Any, good: str, bad: str, eager: bool) -> None:
    assert PROGRAMS[name].run(source, backend=ScriptedBackend(lambda *_: good), eager=eager)["x"] == good
    with pytest.raises(BackendError, match=f"does not match the {name}"):
        PROGRAMS[name].run(source, backend=ScriptedBackend(lambda *_: bad), eager=eager)
