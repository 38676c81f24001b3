"""An agent that calls functions (BFCL's tasks): one answer, or a conversation with a server of the tools.

    ramify run examples/bfcl --arg question="Please book a room with city Oslo and days 3."
    ramify run examples/bfcl --arg question=... --arg functions=@functions.json

The system message holds the instruction, the same everywhere, and the documents of the functions; so questions with the
same functions share all of it.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ramify as rf
from ramify.lang.rows import read_objects
from ramify.lang.toolcalls import ToolResult

from .calls import Call
from .data import read_question
from .functions import tools_of
from .multi_turn import TraceServer, task_of

HERE = Path(__file__).parent
SYSTEM: str = json.loads((HERE / "prompts.json").read_text(encoding="utf-8"))["system"]
FUNCTIONS: list[dict[str, Any]] = json.loads((HERE / "functions.json").read_text(encoding="utf-8"))


@rf.program
def call(
    s,
    question: str,
    functions: list[dict[str, Any]] | dict[str, Any] | None = None,
    system: str = SYSTEM,
    id: str = "",
    constrained: bool = True,
    underscores: bool = False,
    max_tokens: int = 256,
):
    """The calls that answer a question, of functions that come with the example unless some are given.

    Not `constrained`: whatever the model writes, which is told as `text`. So is an answer that cannot be read because
    max_tokens cut it off where it had no short end.
    """
    tools = tools_of(functions or FUNCTIONS, underscores=underscores)
    s += rf.system(system, tools=tools) + rf.user(question)
    if not constrained:
        s += rf.assistant(rf.gen("text", max_tokens=max_tokens))
        return {"id": id, "text": s["text"]}
    s += rf.assistant(rf.gen("calls", tools=tools, num_calls="any", max_tokens=max_tokens, close=True))
    try:
        return {"id": id, "calls": [{"name": each.name, "arguments": each.arguments} for each in s["calls"]]}
    except rf.OutputError as error:
        return {"id": id, "text": error.text}


@rf.program
def converse(s, task: dict[str, Any], system: str = SYSTEM, max_steps: int = 20, max_tokens: int = 256):
    """The calls of each turn of a multi-turn task; a turn ends when the model makes no more calls that can be read."""
    known = task_of(task)
    server = TraceServer(known)
    tools = tools_of(known.functions)
    s += rf.system(system, tools=tools)
    turns = []
    for number, said in enumerate(known.turns):
        server.begin(number)
        s += rf.user(said)
        made = []
        for _ in range(max_steps):
            s += rf.assistant(rf.gen("calls", tools=tools, num_calls="any", max_tokens=max_tokens, close=True))
            try:
                calls = s["calls"]
            except rf.OutputError:
                break
            if not calls:
                break
            for each in calls:
                result = server.answer(Call(each.name, each.arguments)).result
                s += rf.tool_message(ToolResult(each.name, each.arguments, result, id=each.id))
                made.append({"name": each.name, "arguments": each.arguments})
        turns.append(made)
    return {"id": known.id, "turns": turns}


def load_rows(path: Path) -> Iterator[dict[str, Any]]:
    """Rows for `ramify run --data`: a file of BFCL's questions."""
    for row in read_objects(path):
        question = read_question(row)
        yield {"id": question.id, "question": question.text, "functions": question.functions}
