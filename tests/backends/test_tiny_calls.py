"""The embedded model's lessons in calling tools: the text is what ramify renders, the calls fit the declarations."""

from __future__ import annotations

import json
from itertools import takewhile
from random import Random
from typing import Any

import pytest
import ramify as rf
from ramify.backends.chats import chat_format
from ramify.backends.scripted import ScriptedBackend
from ramify.backends.tiny import model_dir
from ramify.backends.tiny.calls import SYSTEM, call_example, declared, draw_functions
from ramify.backends.tiny.example import Example
from ramify.backends.tiny.tokenizer import render

EXAMPLES = [call_example(Random(index)) for index in range(40)]


def tools_of(example: Example) -> list[rf.SchemaTool]:
    """The tools that an example declares."""
    lines = [line for line in example.messages[0].content.split("\n") if line.startswith("{")]
    described = [json.loads(line)["function"] for line in lines]
    return [rf.SchemaTool(each["name"], each["description"], each["parameters"]) for each in described]


@rf.program
def conversation(s, turns: list[tuple[str, str]], tools: list[rf.SchemaTool]):
    """The same turns by ramify's own means."""
    s += rf.system(SYSTEM, tools=tools)
    for role, text in turns:
        if role == "user":
            s += rf.user(text)
        elif role == "tool":
            s += rf.tool_message(text)
        else:
            s += rf.assistant(rf.gen("calls", tools=tools, num_calls="any"))


@pytest.mark.parametrize("example", EXAMPLES[:12], ids=range(12))
def test_the_lesson_is_what_ramify_writes(example: Example) -> None:
    is_called = takewhile(lambda turn: not turn.content.startswith("The result"), example.messages[1:])
    turns = [(turn.role, turn.content) for turn in is_called]
    answers = iter([text for role, text in turns if role == "assistant"])
    backend = ScriptedBackend(lambda _text, _params: next(answers), chat=chat_format(model_dir()))
    run = conversation.run(turns, tools_of(example), backend=backend)
    assert run.text == "".join(map(render, example.messages[: len(turns) + 1]))


def fits(value: Any, schema: dict[str, Any]) -> bool:
    kinds: dict[str, Any] = {"integer": int, "number": (int, float), "string": str, "boolean": bool}
    return isinstance(value, kinds[schema["type"]]) and value in schema.get("enum", [value])


def test_calls_fit_their_declarations_and_copy_the_request() -> None:
    for example in EXAMPLES:
        tools = {tool.name: tool.parameters for tool in tools_of(example)}
        for asked, said in zip(example.messages, example.messages[1:], strict=False):
            if asked.role != "user" or not said.content.startswith("["):
                continue
            for call in json.loads(said.content):
                schema = tools[call["name"]]
                assert set(schema["required"]) <= set(call["arguments"]) <= set(schema["properties"])
                for name, value in call["arguments"].items():
                    assert fits(value, schema["properties"][name])
                    assert isinstance(value, bool) or str(value) in asked.content


def test_only_the_same_calls_are_accepted() -> None:
    example = next(each for each in EXAMPLES if each.answer.startswith('[{"name"'))
    calls = json.loads(example.answer)
    assert example.accepts(json.dumps(calls, indent=1))
    for wrong in ("", "[]", json.dumps([*calls, *calls]), json.dumps([{**calls[0], "name": "no"}, *calls[1:]])):
        assert not example.accepts(wrong)


def test_functions_that_are_declared_together_have_names_of_their_own() -> None:
    for index in range(200):
        functions = draw_functions(Random(index))
        assert len({function.name for function in functions}) == len(functions)
        assert declared(functions).content.count("\n") == len(functions) + 2
