"""What is said of a program that is stepped: where it stands, what was answered, and what its prompt line is."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from rich.text import Text

from ...ir.printer import print_op
from ...ir.span import Span
from ...runtime.program_steps import ProgramStep
from ...runtime.toolcall import ToolCall
from ..live import printable
from ..transcript import branch_label, branch_name
from ..tree import call_line
from .attempt import Heard
from .debugger import Halt
from .scene import Scene

_MOST_CHARACTERS = 200


def halted(halt: Halt) -> Iterator[Text]:
    """Why the program stands here, and where that is."""
    yield from map(Text, halt.reasons)
    visit = halt.scene.visit
    step = visit.step
    branch = f"branch {branch_label(visit.prompt.branch)}, " if visit.prompt.branch else ""
    where = f"step {halt.moment.number}, {branch}{place(step.op.span)} in {visit.frame.function.python_name}: "
    yield Text.assemble(where, (_label(step), "bold"))
    yield from excerpt(step.op.span)


def _label(step: ProgramStep) -> str:
    is_end = step.op.name == "flow.return" and step.statement is not None and _is_definition(step.statement)
    return f"{step.label} (the end of the function)" if is_end else step.label


def _is_definition(span: Span) -> bool:
    return span.source_line().lstrip().startswith(("def ", "async def ", "@"))


def news(heard: Heard) -> Iterator[Text]:
    """What was answered, in lines."""
    for each in heard:
        if isinstance(each, ToolCall):
            yield Text(f"{_call(each)} {_outcome(each)}")
        else:
            branch = f"branch {branch_label(each.prompt.branch)}: " if each.prompt.branch else ""
            yield Text(branch) + call_line(each.record())


def _call(call: ToolCall) -> str:
    arguments = ", ".join(f"{name}={value!r}" for name, value in call.arguments.items())
    return short(f"{call.name}({arguments})")


def _outcome(call: ToolCall) -> str:
    error = call.pending.error
    return short(f"failed: {error}" if error is not None else f"= {call.pending.result()!r}")


def short(text: str) -> str:
    """A text that fits in a line or two."""
    text = printable(text)
    return text if len(text) <= _MOST_CHARACTERS else f"{text[: _MOST_CHARACTERS - 3]}..."


def place(span: Span | None) -> str:
    """File and line."""
    return "?" if span is None else f"{Path(span.file).name}:{span.line}"


def excerpt(span: Span | None) -> Iterator[Text]:
    """The user's line, with carets under the span."""
    yield from map(Text, span.excerpt() if span is not None else ())


def where(scene: Scene) -> Iterator[Text]:
    """The user's line and the op, then the calls that led there."""
    for number, (frame, op) in enumerate(scene.calls()):
        for level, (span, name) in enumerate(frame.function.places(op)):
            yield Text(f"{'called from ' if number or level else ''}{place(span)} in {name}")
            yield from excerpt(span)
        if number == 0:
            yield from (Text(f"    {line}") for line in print_op(op).rstrip("\n").split("\n")[:6])


def branches(scene: Scene) -> Iterator[Text]:
    """The branch that is looked at, what it has generated, and which others there are."""
    alive = ", ".join(branch_label(each.branch) or "the first state" for each in scene.branches)
    yield Text(f"{branch_name(scene.selected.branch)}, of those that are alive: {alive}")
    for name, value in scene.generated.items():
        yield Text(f"    {name} = {short(repr(value))}")


def prompt_line(scene: Scene) -> str:
    """What stands before an input: the branch that is looked at, and the place."""
    branch = f"branch {branch_label(scene.selected.branch)}, " if scene.selected.branch else ""
    span = scene.visit.step.op.span
    line = "" if span is None else f":{span.line}"
    return f"({branch}{scene.visit.frame.function.python_name}{line}) "
