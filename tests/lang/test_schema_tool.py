"""Tools that are known by the JSON schema of their arguments alone."""

from __future__ import annotations

import pickle

import pytest
import ramify as rf
from ramify.backends.scripted import ScriptedBackend
from ramify.ir.errors import UsageError

SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}}, "required": ["a"]}


def test_it_is_described_as_given_and_passes_arguments_on() -> None:
    given: list[dict[str, object]] = []

    def add(**arguments: object) -> str:
        given.append(arguments)
        return "done"

    tool = rf.SchemaTool("sums.add", "Add.", SCHEMA, add)
    assert tool.schema["function"] == {"name": "sums.add", "description": "Add.", "parameters": SCHEMA}
    assert tool(1, b="2") == "done" and tool(a=3) == "done"
    assert given == [{"a": 1, "b": "2"}, {"a": 3}]
    (result,) = rf.call_tools('{"name": "sums.add", "arguments": {"a": 5}}', [tool])
    assert result.content == "done"


def test_an_async_function_is_awaited() -> None:
    async def twice(a: int) -> int:
        return 2 * a

    assert rf.SchemaTool("twice", "", SCHEMA, twice, is_async=True)(4) == 8


def test_without_a_function_a_call_fails_and_can_be_told() -> None:
    tool = rf.SchemaTool("add", "", SCHEMA)
    (result,) = rf.call_tools([{"name": "add", "arguments": {"a": 1}}], [tool])
    assert result.error is not None and result.error.type == "NotImplemented"
    with pytest.raises(rf.ToolError, match="only described"):
        tool(1)


def test_a_schema_without_properties_takes_none() -> None:
    assert rf.SchemaTool("now", "", {"type": "object"}).parameters == {"type": "object", "properties": {}}


def test_calls_of_it_are_generated() -> None:
    @rf.program
    def ask(s, tools):
        s += rf.user("?") + rf.assistant(rf.gen("call", tools=tools))
        return s["call"]

    backend = ScriptedBackend(lambda _text, _params: '{"name":"add","arguments":{"a":7}}')
    call = ask.run([rf.SchemaTool("add", "", SCHEMA)], backend=backend).value
    assert call.name == "add" and call.arguments == {"a": 7}


def test_mistakes_say_what_is_wrong() -> None:
    tool = rf.SchemaTool("add", "", SCHEMA)
    with pytest.raises(rf.ToolError, match="takes 2 arguments, got 3"):
        tool(1, 2, 3)
    with pytest.raises(rf.ToolError, match="two values for 'a'"):
        tool(1, a=2)
    with pytest.raises(UsageError, match="a tool's name is a text"):
        rf.SchemaTool("", "", SCHEMA)
    with pytest.raises(UsageError, match="no Python type"):
        _ = tool.arguments_type
    with pytest.raises(pickle.PicklingError, match="add cannot be pickled"):
        pickle.dumps(tool)
