"""The function calling example: its prompts, its program, its command line, and what constraints make impossible."""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree

import pytest
from ramify.backends.chats import chat_format
from ramify.backends.scripted import ScriptedBackend
from ramify.backends.tiny import calls as learnt
from ramify.backends.tiny import model_dir
from ramify.backends.tiny.tasks import draw_task
from ramify.backends.tiny.tokenizer import render
from ramify.examples.bfcl.__main__ import main
from ramify.examples.bfcl.data import CATEGORIES, Accepted, Question, load_questions
from ramify.examples.bfcl.evaluate import assess, outcomes
from ramify.examples.bfcl.functions import FunctionTool, json_schema, mistakes, tools_of, typed
from ramify.examples.bfcl.own import own_questions
from ramify.examples.bfcl.program import FUNCTIONS, SYSTEM, call, converse
from ramify.ir.errors import UsageError
from ramify.lang.loading import load_file
from ramify.lang.program import Program
from ramify.runtime.tool_schema import call_schema

FOLDER = Path(__file__).parents[2] / "examples" / "bfcl"
ASKED = "Please book a room with city Oslo and days 3."
CALLED = [{"name": "book_room", "arguments": {"city": "Oslo", "days": 3}}]


def test_prompts_are_those_the_embedded_model_learnt() -> None:
    assert SYSTEM == learnt.SYSTEM
    for index, question in enumerate(own_questions(5)):
        example = draw_task("tool-call", "held-out", index)
        backend = ScriptedBackend(lambda _text, _params: "[]", chat=chat_format(model_dir()))
        run = call.run(question.text, question.functions, backend=backend)
        assert run.text.startswith("".join(map(render, example.messages[:2])))


@pytest.mark.parametrize("name", [None, "call"])
def test_the_folder_runs(name: str | None) -> None:
    program: Program = load_file(FOLDER).program(name)
    run = program.run(ASKED, backend=ScriptedBackend(lambda _text, _params: json.dumps(CALLED)))
    assert run.value["calls"] == CALLED
    functions = json.loads((FOLDER / "functions.json").read_text("utf-8"))
    one = program.run(ASKED, functions[0], backend=ScriptedBackend(lambda _text, _params: json.dumps(CALLED)))
    assert one.value["calls"] == CALLED


def test_types_are_translated_and_closed() -> None:
    document = {
        "type": "dict",
        "properties": {
            "at": {"type": "tuple", "items": {"type": "float"}, "description": "Where.", "optional": True},
            "kind": {"type": "string", "enum": ["a", "b"], "default": "a"},
            "more": {"type": "dict"},
            "data": {"type": "any"},
        },
        "required": ["at", "gone"],
    }
    shown = json_schema(document)
    assert shown["properties"]["at"] == {"type": "array", "items": {"type": "number"}, "description": "Where."}
    assert shown["properties"]["data"] == {"type": "string"} and shown["required"] == ["at"]
    enforced = json_schema(document, is_enforced=True)
    assert enforced["additionalProperties"] is False and "default" not in enforced["properties"]["kind"]
    assert typed({"at": [1, 2.5], "more": {"x": 1}}, document) == {"at": [1.0, 2.5], "more": {"x": 1}}
    for wrong in ({}, {"at": "x"}, {"at": [True]}, {"at": [], "kind": "c"}, {"at": [], "other": 1}):
        assert len(mistakes(wrong, enforced)) == 1
    assert mistakes({"at": [1, 2.5], "more": {"x": 1}, "data": "y"}, enforced) == []


def test_a_broken_document_is_told() -> None:
    for broken in ({"name": "f"}, {"name": "f", "parameters": {"type": "long"}}):
        with pytest.raises(UsageError, match="no document of a function"):
            FunctionTool(broken)
    assert FunctionTool({**FUNCTIONS[0], "name": "a.b"}, underscores=True).name == "a_b"


@pytest.mark.parametrize("category", CATEGORIES)
def test_the_schemas_of_all_real_functions_can_be_enforced(data: Path, category: str) -> None:
    for question in load_questions(data / "bfcl", category)[::10]:
        call_schema(tools_of(question.functions), "any").constraint.check()


def test_constrained_answers_never_invent_names_nor_mistype() -> None:
    questions = own_questions(10)
    rows = [{"question": each.text, "functions": each.functions, "max_tokens": 40} for each in questions]
    runs = call.options(temperature=2.0, seed=7).run_batch(rows)
    found = [assess(question, run.value) for question, run in zip(questions, runs, strict=True)]
    assert all(outcome.is_readable and not outcome.invented and not outcome.ill_typed for outcome in found)
    assert not all(outcome.verdict.valid for outcome in found)  # at this temperature words are anything


def test_an_answer_that_cannot_be_read_is_told_as_text() -> None:
    properties = {"far": {"type": "float"}}
    move = {"name": "move", "parameters": {"type": "dict", "properties": properties, "required": ["far"]}}
    text = '[{"name":"move","arguments":{"far":1e2002}}]'
    run = call.run("Move.", move, backend=ScriptedBackend(lambda _text, _params: text))
    assert run.value == {"id": "", "text": text}
    question = Question("q", "simple", "Move.", [move], [Accepted("move", {"far": [1.0]})])
    assert assess(question, run.value).verdict.kind == "wrong_value"
    assert assess(question, {"id": "q", "text": text[:20]}).verdict.kind == "unreadable"
    task = {"id": "t", "turns": ["Move.", "Stop."], "functions": [move], "recorded": [[], []]}
    run = converse.run(task, backend=ScriptedBackend(lambda _text, _params: text))
    assert run.value == {"id": "t", "turns": [[], []]}


def test_answers_without_constraints_are_looked_at_too() -> None:
    question = Question("q", "simple", ASKED, FUNCTIONS, [])
    text = '[{"name": "hire_room", "arguments": {}}, {"name": "book_room", "arguments": {"city": 3}}]'
    outcome = assess(question, {"id": "q", "text": text})
    assert outcome.invented == ["hire_room"]
    assert outcome.ill_typed == ["days is missing", "city is to be string, and is 3"]
    unreadable = assess(question, {"id": "q", "text": "I have booked it."})
    assert not unreadable.is_readable and unreadable.verdict.kind == "unreadable"
    irrelevant = Question("q", "relevance", ASKED, FUNCTIONS, None)
    assert assess(irrelevant, {"id": "q", "text": "There is no such tool."}).verdict.valid
    with pytest.raises(UsageError, match="no question 'other'"):
        outcomes([{"error": None, "value": {"id": "other", "calls": []}}], [question])


def test_a_run_over_real_questions_is_scored_resumed_and_scored_again(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = str(tmp_path / "answers.jsonl")
    run = ["run", "--category", "simple", "--category", "relevance", "--data", str(data / "bfcl"), "--limit", "2"]
    run += ["--out", out, "--model", "tiny", "--max-tokens", "16", "--quiet"]
    assert main(run) == 0
    table = capsys.readouterr().out
    assert [line.split()[0] for line in table.splitlines()[1:]] == ["simple", "relevance"]
    assert all(line.split()[3:6] == ["1.000", "0.000", "0.000"] for line in table.splitlines()[1:])
    assert main([*run, "--resume"]) == 0 and capsys.readouterr().out == table
    assert main(["score", out, "--data", str(data / "bfcl"), "--reasons"]) == 0
    assert capsys.readouterr().out.startswith(table)


def test_the_comparison_draws_a_picture(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    picture = tmp_path / "p.svg"
    command = ["compare", "--limit", "2", "--max-tokens", "16", "--quiet", "--picture", str(picture)]
    assert main(command) == 0
    assert "constrained:" in capsys.readouterr().out
    root = ElementTree.parse(picture).getroot()
    assert root.findtext("{http://www.w3.org/2000/svg}desc")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "--category", "simple"], "--category needs --data"),
        (["run", "--category", "multi_turn"], "multi_turn needs --data"),
        (["run", "--category", "multi_turn", "--category", "simple", "--data", "x"], "a program of its own"),
        (["run", "--data", "nowhere"], "has no questions of the category simple"),
        (["run", "--prompts", "nowhere.json"], "nowhere.json has no prompts"),
    ],
)
def test_mistakes_on_the_command_line_are_told(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    assert message in capsys.readouterr().err
