"""gen(tools=[...]): calls of tools, as the only text that can be written; eager and compiled."""

from __future__ import annotations

import json
import pickle
import re
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Annotated, Any, Literal

import msgspec
import pytest
import ramify as rf
from ramify.backends.scripted import ScriptedBackend
from ramify.backends.strict_schema import strict_schema
from ramify.ir.errors import BackendError, RequestError, Unsupported
from ramify.lang.mcp import McpTool
from ramify.runtime.constraint import matches
from ramify.runtime.tool_schema import MOST_CALLS, RequestedCall, call_schema

BOTH = pytest.mark.parametrize("eager", [True, False], ids=["eager", "compiled"])


@dataclass
class Place:
    city: Literal["Oslo", "Rome"]
    near: Place | None = None


@rf.tool
def search(query: Literal["cats", "dogs"], limit: Annotated[int, msgspec.Meta(ge=1, le=9)] = 3) -> str:
    """Find pictures."""
    return f"{limit} {query}"


@rf.tool
def plus(a: Annotated[int, msgspec.Meta(ge=0, le=99)], b: Annotated[int, msgspec.Meta(ge=0, le=99)]) -> int:
    """The sum."""
    return a + b


@rf.tool
def forecast(place: Place, days: Literal[1, 2] = 1) -> dict[str, Any]:
    """The weather."""
    assert isinstance(place, Place)
    return {"city": place.city, "days": days}


TOOLS = [search, plus]


@rf.program
def one(s, tools, **params):
    s += rf.user("What is 3 + 4?") + rf.assistant(rf.gen("call", tools=tools, **params))
    return s["call"]


@rf.program
def literal(s):
    s += rf.user("What is 3 + 4?") + rf.assistant(rf.gen("call", tools=[search, plus]))
    (result,) = rf.call_tools(s["call"])
    s += rf.tool_message(result)
    return result


@rf.program
def of_a_global(s, least):
    s += rf.user("Look!") + rf.assistant(rf.gen("calls", tools=TOOLS, num_calls=(1, 3), max_tokens=200))
    return [result.content for result in rf.call_tools(s["calls"])]


@rf.program
def numbered(s, tools):
    s += rf.user("Look!") + rf.assistant(rf.gen("calls", tools=tools, num_calls="any", max_tokens=400, close=True))
    return s["calls"]


@rf.program
def branches(s, tools):
    for branch, word in zip(s.fork(3), ["cats", "dogs", "7 + 8"], strict=True):
        branch += rf.user(word) + rf.assistant(rf.gen("call", tools=tools, temperature=1.5, seed=len(word)))
        (result,) = rf.call_tools(branch["call"])
        s += f"{result.name}: {result.content}\n"
    return s.text()


def scripted(*replies: str) -> ScriptedBackend:
    rest = list(replies)
    return ScriptedBackend(lambda *_: rest.pop(0), delay=0.01)


def written(name: str, **arguments: Any) -> str:
    return json.dumps({"name": name, "arguments": arguments}, separators=(",", ":"))


@BOTH
def test_a_model_writes_a_call_that_runs(eager: bool) -> None:
    run = literal.run(eager=eager)
    call = run["call"]
    assert isinstance(call, RequestedCall) and call.name in ("search", "plus")
    assert json.loads(run.trace[0].text) == {"name": call.name, "arguments": call.arguments}
    assert run.value.ok and run.value.name == call.name
    assert [record.name for record in run.trace] == ["call", call.name]
    assert run.messages[-1] == {"role": "tool", "content": run.value.content}


@BOTH
def test_lists_of_calls(eager: bool) -> None:
    contents = of_a_global.run(0, eager=eager).value
    assert 1 <= len(contents) <= 3
    assert not any("failed" in each for each in contents)
    assert len(numbered.run(TOOLS, eager=eager).value) <= MOST_CALLS
    assert len(one.run(TOOLS, num_calls=2, max_tokens=200, eager=eager).value) == 2


def test_eager_and_compiled_are_one() -> None:
    assert branches.run(TOOLS, eager=True).value == branches.run(TOOLS).value
    for params in ({}, {"num_calls": 2}, {"n": 2, "temperature": 1.0, "seed": 3}):
        asked = {"max_tokens": 200, **params}
        eagerly, compiled = one.run(TOOLS, **asked, eager=True), one.run(TOOLS, **asked)
        assert eagerly.value == compiled.value and eagerly.text == compiled.text


@BOTH
def test_samples_are_calls_each(eager: bool) -> None:
    calls = one.run(TOOLS, n=3, temperature=1.0, seed=1, max_tokens=200, eager=eager).value
    assert len(calls) == 3
    assert [result.ok for result in rf.call_tools(calls)] == [True] * 3


@BOTH
def test_types_of_arguments_that_refer_to_themselves(eager: bool) -> None:
    texts = [written("forecast", place={"city": "Oslo", "near": {"city": "Rome"}}, days=2)]
    call = one.run([search, forecast], backend=scripted(*texts), eager=eager).value
    assert call.arguments == {"place": {"city": "Oslo", "near": {"city": "Rome"}}, "days": 2}
    (result,) = rf.call_tools(call)
    assert result.value == {"city": "Oslo", "days": 2}
    made = one.run([search, forecast], max_tokens=200, close=True, seed=1, temperature=1.0, eager=eager).value
    assert rf.call_tools(made)[0].ok


@BOTH
@pytest.mark.parametrize(
    "text",
    [
        "no JSON",
        written("remove", query="cats"),
        written("plus", a=1),
        written("plus", a=1, b=100),
        written("search", query="fish"),
        written("search", query="cats", color="red"),
        '{"name":"plus"}',
        f"[{written('plus', a=1, b=2)}]",
    ],
)
def test_a_backend_that_writes_something_else_is_refused(eager: bool, text: str) -> None:
    with pytest.raises(BackendError, match="does not match"):
        one.run(TOOLS, backend=scripted(text), eager=eager)


@BOTH
def test_none_as_asked(eager: bool) -> None:
    run = numbered.run(TOOLS, backend=scripted("[]"), eager=eager)
    assert run.value == [] and rf.call_tools(run.value) == []


@BOTH
def test_what_is_cut_off_says_so_at_the_read(eager: bool) -> None:
    with pytest.raises(rf.OutputError, match=r"gen\('call', tools=\[search, plus\]\).*no call of them.*cut it off"):
        one.run(TOOLS, max_tokens=3, eager=eager)


@BOTH
@pytest.mark.parametrize(
    ("tools", "params", "error", "reason"),
    [
        ([], {}, ValueError, "tools is empty"),
        ([search, len], {}, TypeError, "len is none"),
        (search, {}, TypeError, "a list of tools, not Tool"),
        ("search", {}, TypeError, "a list of tools, not str"),
        ([plus, search, plus], {}, ValueError, "two tools of the name 'plus'"),
        (TOOLS, {"regex": "x"}, TypeError, "regex and tools"),
        (TOOLS, {"dtype": int}, TypeError, "dtype and tools"),
        (TOOLS, {"choices": ["a"]}, TypeError, "choices and tools"),
        (TOOLS, {"schema": int}, TypeError, "schema and tools"),
        (TOOLS, {"json_schema": {}}, TypeError, "json_schema and tools"),
        (TOOLS, {"grammar": "start: /a/"}, TypeError, "grammar and tools"),
        (TOOLS, {"num_calls": 0}, TypeError, "num_calls is"),
        (TOOLS, {"num_calls": True}, TypeError, "num_calls is"),
        (TOOLS, {"num_calls": (3, 1)}, TypeError, "num_calls is"),
        (TOOLS, {"num_calls": "all"}, TypeError, "num_calls is"),
        (None, {"num_calls": 2}, TypeError, "num_calls together with tools"),
    ],
)
def test_what_is_refused(eager: bool, tools: Any, params: dict[str, Any], error: type, reason: str) -> None:
    with pytest.raises(error, match=reason):
        one.run(tools, **params, backend=ScriptedBackend(), eager=eager)


TWICE = [plus, plus]


@rf.program
def of_a_wrong_global(s):
    s += rf.gen("call", tools=TWICE)


def test_tools_that_a_global_names_are_checked_before_anything_runs() -> None:
    with pytest.raises(RequestError, match="two tools of the name 'plus'"):
        of_a_wrong_global.compile()


@BOTH
def test_a_backend_that_cannot_hold_to_it_is_not_asked(eager: bool) -> None:
    backend = ScriptedBackend(lambda *_: pytest.fail("was asked"), features=[])
    with pytest.raises(Unsupported):
        one.run(TOOLS, backend=backend, eager=eager)


def test_call_tools_takes_other_tools_only_where_it_is_told() -> None:
    call = one.run(TOOLS, backend=scripted(written("plus", a=3, b=4))).value
    other = rf.Tool(lambda a, b: "other", name="plus")
    assert [rf.call_tools(call)[0].value, rf.call_tools(call, [other])[0].value] == [7, "other"]
    assert rf.call_tools(call, [search])[0].error.type == "UnknownTool"


def test_the_tool_of_a_call_need_not_be_registered() -> None:
    private = rf.Tool(lambda word: word.upper(), name="private")
    call = one.run([private], backend=scripted(written("private", word="a"))).value
    assert rf.call_tools(call)[0].value == "A"


def test_a_run_with_a_call_is_pickled_and_told_as_json() -> None:
    from ramify.lang.plain import to_json

    run = one.run(TOOLS, backend=scripted(written("plus", a=3, b=4)))
    assert rf.call_tools(pickle.loads(pickle.dumps(run))["call"])[0].value == 7
    assert json.loads(to_json(run.value)) == {"name": "plus", "arguments": {"a": 3, "b": 4}}


@BOTH
def test_tools_of_a_server(eager: bool) -> None:
    async def answer(**arguments: Any) -> Any:
        return arguments

    kinds = {"type": "object", "properties": {"kind": {"$ref": "#/$defs/Kind"}}, "required": ["kind"]}
    described = {"$schema": "https://json-schema.org/draft/2020-12/schema", **kinds, "$defs": {"Kind": {"enum": ["a"]}}}
    told = SimpleNamespace(name="shop/find", description="", input_schema={**described, "additionalProperties": False})
    found = McpTool(SimpleNamespace(caller=lambda _: answer), told, timeout=None, errors="raise")  # type: ignore[arg-type]
    call = one.run([found], eager=eager).value
    assert (call.name, call.arguments) == ("shop/find", {"kind": "a"})
    assert rf.call_tools(call)[0].value == {"kind": "a"}


def test_the_schema_of_a_call() -> None:
    schema = call_schema([search, plus, forecast]).constraint
    assert matches(schema, written("search", query="cats"))
    assert matches(schema, written("forecast", place={"city": "Rome", "near": {"city": "Oslo"}}))
    assert not matches(schema, written("forecast", place={"city": "Rome", "near": {"city": "Bonn"}}))
    assert not matches(schema, written("search", a=1, b=2))
    strict = strict_schema(call_schema([forecast]).constraint.source)
    assert strict["properties"]["name"] == {"type": "string", "const": "forecast"}
    with pytest.raises(Unsupported):
        strict_schema(call_schema([search, plus]).constraint.source)


def test_tools_are_described() -> None:
    told = [json.loads(line) for line in rf.describe_tools(TOOLS).splitlines()]
    assert told == [search.schema, plus.schema]
    with pytest.raises(rf.RamifyError, match=re.escape("two tools of the name 'plus'")):
        rf.describe_tools([plus, plus])
