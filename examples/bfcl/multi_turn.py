"""BFCL's multi-turn tasks, and a server of their tools that answers from the recorded execution of the wanted calls.

The server has no implementation of the tools, only the documents of all functions and what each wanted call gave when
it was made in order. So a turn passes when it makes the wanted calls in order, and nothing else that its functions'
documents do not refuse; it fails when it makes fewer calls than are wanted. What a call that was never recorded would
have done, or a recorded one at another time, nobody can tell: a turn with such a call is undecided.
"""

import json
from pathlib import Path
from typing import Any, Literal

import msgspec
from ramify.ir.errors import UsageError
from ramify.lang.rows import read_objects

from .calls import Call, call_of_source
from .functions import json_schema, mistakes

__all__ = ["Task", "TraceServer", "TurnVerdict", "judge", "load_tasks", "task_of"]

DOCUMENTS = {
    "GorillaFileSystem": "gorilla_file_system",
    "MathAPI": "math_api",
    "MessageAPI": "message_api",
    "TicketAPI": "ticket_api",
    "TradingBot": "trading_bot",
    "TravelAPI": "travel_booking",
    "TwitterAPI": "posting_api",
    "VehicleControlAPI": "vehicle_control",
}
"""The file of functions of each class."""
Outcome = Literal["passed", "failed", "undecided"]


class Recorded(msgspec.Struct, frozen=True):
    """A wanted call and what it gave when it was made."""

    call: Call
    result: str


class Task(msgspec.Struct, frozen=True):
    """A task: what the user says in each turn, the functions there are, and the recorded calls of each turn."""

    id: str
    turns: list[str]
    functions: list[dict[str, Any]]
    recorded: list[list[Recorded]]


class TurnVerdict(msgspec.Struct, frozen=True):
    """What is known of a turn, and why."""

    outcome: Outcome
    reason: str = ""


class Answer(msgspec.Struct, frozen=True):
    """What the server says to a call. kind: "refused" by the function's document; recorded and "in order", or made
    "early"; "unknown" where nothing is recorded.
    """

    result: str
    kind: Literal["in order", "early", "refused", "unknown"]


def load_tasks(folder: Path) -> list[Task]:
    """The tasks of BFCL's folder, or of its `multi_turn`. Raises UsageError for a folder without them."""
    home = folder / "multi_turn" if (folder / "multi_turn").is_dir() else folder
    if not (home / "tasks" / "base.jsonl").is_file():
        raise UsageError(
            f"{folder} has no multi-turn tasks", help="looked for multi_turn/tasks/base.jsonl, with traces beside it"
        )
    traces = {row["id"]: row["turns"] for row in read_objects(home / "execution_traces" / "base.jsonl")}
    rows = list(read_objects(home / "tasks" / "base.jsonl"))
    classes = {name for row in rows for name in row["involved_classes"]}
    documents = {name: _documents(home, name) for name in classes}
    return [_task(row, traces[row["id"]], _functions(row, documents)) for row in rows]


def _task(row: dict[str, Any], trace: list[list[dict[str, str]]], functions: list[dict[str, Any]]) -> Task:
    turns = ["\n".join(message["content"] for message in turn) for turn in row["question"]]
    return Task(row["id"], turns, functions, _recorded(trace, functions))


def task_of(row: dict[str, Any]) -> Task:
    """The task that a row of data holds. Raises UsageError."""
    try:
        return msgspec.convert(row, Task)
    except msgspec.ValidationError as error:
        raise UsageError(f"this is no task: {error}") from None


def _documents(home: Path, name: str) -> list[dict[str, Any]]:
    if name not in DOCUMENTS:
        raise UsageError(f"no file of functions is known for the class {name}")
    documents = read_objects(home / "func_doc" / f"{DOCUMENTS[name]}.json")
    return [{key: document[key] for key in ("name", "description", "parameters")} for document in documents]


def _functions(row: dict[str, Any], documents: dict[str, list[dict[str, Any]]]) -> list[dict[str, Any]]:
    excluded = row.get("excluded_function", [])
    return [
        document for name in row["involved_classes"] for document in documents[name] if document["name"] not in excluded
    ]


def _recorded(trace: list[list[dict[str, str]]], functions: list[dict[str, Any]]) -> list[list[Recorded]]:
    by_name = {function["name"]: function for function in functions}
    return [
        [
            Recorded(_named(call, by_name[call.name]), step["result"])
            for step in turn
            for call in [call_of_source(step["call"])]
        ]
        for turn in trace
    ]


def _named(call: Call, function: dict[str, Any]) -> Call:
    """The call with all its arguments by name: those by position are in the order of the document."""
    names = list(function["parameters"]["properties"])
    return Call(call.name, {**dict(zip(names, call.positional, strict=False)), **call.arguments})


class TraceServer:
    """The tools of a task, turn by turn."""

    def __init__(self, task: Task) -> None:
        self._functions = {function["name"]: function for function in task.functions}
        self._recorded = task.recorded
        self._left: list[Recorded] = []
        self._owed = 0
        self._surprises: list[str] = []

    def begin(self, turn: int) -> None:
        """A turn begins."""
        self._left = list(self._recorded[turn])
        self._owed = len(self._left)
        self._surprises = []

    def answer(self, call: Call) -> Answer:
        """What a call gives."""
        wrong = self._refusal(call)
        if wrong is not None:
            return Answer(json.dumps({"error": wrong}), "refused")
        self._owed -= 1
        wanted = self._canonical(call)
        for place, recorded in enumerate(self._left):
            if self._canonical(recorded.call) == wanted:
                del self._left[place]
                if place:
                    self._surprises.append(f"{call.name} comes before {self._left[0].call.name}")
                return Answer(recorded.result, "early" if place else "in order")
        self._surprises.append(f"nothing is recorded of {shown(call)}")
        return Answer(json.dumps({"error": "the result of this call is not known"}), "unknown")

    def verdict(self) -> TurnVerdict:
        """What is known of the turn so far."""
        if self._owed > 0:
            return TurnVerdict("failed", f"{shown(self._left[0].call)} is missing")
        if self._surprises:
            missing = f", and {shown(self._left[0].call)} is missing" if self._left else ""
            return TurnVerdict("undecided", self._surprises[0] + missing)
        return TurnVerdict("passed")

    def _refusal(self, call: Call) -> str | None:
        """Why a call cannot be made at all, by the functions' documents."""
        function = self._functions.get(call.name)
        if function is None:
            return f"there is no function {call.name}"
        found = mistakes(call.arguments, json_schema(function["parameters"], is_enforced=True))
        return f"{call.name}: {found[0]}" if found else None

    def _canonical(self, call: Call) -> str:
        """The call as a text that equal calls share: without arguments that are the documented default anyway."""
        properties = self._functions[call.name]["parameters"]["properties"]
        told = {
            name: value
            for name, value in call.arguments.items()
            if "default" not in properties.get(name, {}) or value != properties[name]["default"]
        }
        return json.dumps([call.name, _whole(told)], sort_keys=True)


def _whole(value: Any) -> Any:
    """A value in which 3.0 is 3, as Python compares them."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, list):
        return [_whole(item) for item in value]
    return {name: _whole(item) for name, item in value.items()} if isinstance(value, dict) else value


def shown(call: Call) -> str:
    """A call as Python writes it, for messages."""
    return f"{call.name}({', '.join(f'{name}={value!r:.40}' for name, value in call.arguments.items())})"


def judge(task: Task, turns: list[list[Call]]) -> TurnVerdict:
    """Judge the calls of a task's turns: it passes when all turns do, else the first turn that does not decides."""
    server = TraceServer(task)
    for number in range(len(task.turns)):
        server.begin(number)
        for call in turns[number] if number < len(turns) else []:
            server.answer(call)
        verdict = server.verdict()
        if verdict.outcome != "passed":
            return TurnVerdict(verdict.outcome, f"turn {number + 1}: {verdict.reason}")
    return TurnVerdict("passed")
