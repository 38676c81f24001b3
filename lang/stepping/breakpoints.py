"""Breakpoints: `b LINE`, `b OP`, `b NAME`, each also with `if EXPRESSION`."""

from __future__ import annotations

import ast
import builtins
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import CodeType
from typing import Any

from ...ir.errors import UsageError, nearest
from ...ir.span import Span
from ...runtime.generation import Generation
from ...runtime.program_steps import KINDS, ProgramStep
from ..compiled import Compiled
from .attempt import Moment
from .scene import Scene

_FORM = "b LINE | FILE:LINE | OP | NAME [if EXPRESSION]"
_GENERATED = ("gen", "select", "score")


@dataclass(frozen=True, slots=True)
class Known:
    """What a program may come to. steps: all that are in it and in what it calls, each with its function's name.

    functions: the programs and helpers that can be stepped into. names: what a condition may speak of. texts: what is
    said in the code, such as the name of a request that is made in one place and appended in another.
    """

    steps: Sequence[tuple[ProgramStep, str]]
    functions: Sequence[str]
    names: frozenset[str]
    texts: frozenset[str]

    @classmethod
    def of(cls, forms: Sequence[Compiled]) -> Known:
        """That of a program and of those that it may call, in the forms in which they are stepped."""
        steps = [each for form in forms for each in form.interpreter.steps]
        names = {name for step, _ in steps for name in (*step.names, *([step.name] if step.name else ()))}
        texts: set[str] = set()
        for function in (function for form in forms for function in form.lowered.python.values()):
            names |= {*function.__globals__, *function.__code__.co_freevars}
            texts |= set(_texts(function.__code__))
        functions = list(dict.fromkeys(name for _, name in steps))
        return cls(steps, functions, frozenset(names | texts), frozenset(texts))

    @property
    def variables(self) -> list[str]:
        """The names of what is generated, and of tools and functions that are called."""
        return list(dict.fromkeys(step.name for step, _ in self.steps if step.name is not None and step.kind != "read"))


def _texts(code: CodeType) -> Iterator[str]:
    for each in code.co_consts:
        if isinstance(each, str):
            yield each
        elif isinstance(each, CodeType):
            yield from _texts(each)


@dataclass(slots=True)
class Breakpoint:
    """number: what it is called. told: as it was written. condition: a Python expression, or None.

    Of what it names one is set: file and line, an op's kind, or a name. is_after: whether it is for what has been
    generated under the name, and not for the step before.
    """

    number: int
    told: str
    line: int | None = None
    file: str | None = None
    kind: str | None = None
    name: str | None = None
    condition: str | None = None
    is_after: bool = field(default=False)
    num_hits: int = 0

    def is_at(self, moment: Moment) -> bool:
        """Whether a step is one of those it is for."""
        step = moment.visit.step
        if self.is_after:
            return False
        if self.line is not None:
            return step.begins and _is_on(step.statement, self.file, self.line)
        if self.kind is not None:
            return step.kind == self.kind
        if step.kind == "call":
            return False  # it stops inside
        is_entered = moment.enters and moment.visit.frame.function.python_name == self.name
        return is_entered or (step.name == self.name and step.kind != "read")

    def is_for(self, call: Generation) -> bool:
        """Whether it waits for what has been generated for a variable."""
        return self.is_after and call.expression.name == self.name


def parse(text: str, number: int, known: Known, file: str) -> Breakpoint:
    """A breakpoint as it is written. file: that of lines without one. Raises UsageError for one that can never bind."""
    match = re.fullmatch(r"(.*?)(?:\s*\bif\b\s+(.+))?", text.strip())
    assert match is not None
    place, condition = match[1].strip(), match[2]
    made = Breakpoint(number, text.strip())
    if not place:
        raise UsageError("a breakpoint needs a line, an op or a name", help=_FORM)
    if line := re.fullmatch(r"(?:(.+):)?(\d+)", place):
        _bind_line(made, line[1] or file, int(line[2]), known)
    elif place in KINDS:
        _bind_kind(made, place, known)
    else:
        _bind_name(made, place, known)
    if condition:
        _bind_condition(made, condition, known)
    return made


def _bind_line(made: Breakpoint, file: str, line: int, known: Known) -> None:
    spans = [step.statement for step, _ in known.steps if step.begins and step.statement is not None]
    files = list(dict.fromkeys(span.file for span in spans))
    found = [each for each in files if each == file or Path(each).name == file]
    if not found:
        named = {Path(each).name: each for each in files}
        raise UsageError(f"no step of the program is in {file}", help=nearest(file, named, "its files are"))
    if not any(_is_on(span, found[0], line) for span in spans):
        lines = sorted({span.line for span in spans if span.file == found[0]})
        near = sorted(sorted(lines, key=lambda each: abs(each - line))[:2])
        raise UsageError(f"no step begins at line {line}", help=f"the nearest lines are {' and '.join(map(str, near))}")
    made.file, made.line = found[0], line


def _is_on(span: Span | None, file: str | None, line: int) -> bool:
    return span is not None and span.file == file and span.line <= line <= span.end_line


def _bind_kind(made: Breakpoint, kind: str, known: Known) -> None:
    kinds = [each for each in KINDS if any(step.kind == each for step, _ in known.steps)]
    if kind not in kinds:
        raise UsageError(f"the program has no {kind}", help=f"its ops are {', '.join(kinds)}")
    made.kind = kind


def _bind_name(made: Breakpoint, name: str, known: Known) -> None:
    names = list(dict.fromkeys([*known.variables, *known.functions]))
    made.is_after = name not in names and name in known.texts
    if name not in names and not made.is_after:
        kinds = {step.kind for step, _ in known.steps}
        nearest_one = nearest(name, [*names, *KINDS, *(text for text in known.texts if text.isidentifier())])
        listing = f"its names are {', '.join(names)}; its ops are {', '.join(each for each in KINDS if each in kinds)}"
        raise UsageError(f"the program has no line, op or name {name!r}", help=nearest_one or listing)
    made.name = name


def _bind_condition(made: Breakpoint, condition: str, known: Known) -> None:
    try:
        tree = ast.parse(condition, mode="eval")
    except SyntaxError as error:
        raise UsageError(f"the condition is no expression: {error.msg}: {condition}", help=_FORM) from None
    own = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    own |= {node.arg for node in ast.walk(tree) if isinstance(node, ast.arg)}
    read = [node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and node.id not in own]
    for name in read:
        if name not in known.names and not hasattr(builtins, name):
            raise UsageError(
                f"nothing is called {name!r}, so the condition cannot hold", help=nearest(name, known.names)
            )
    made.condition = condition
    made.is_after |= made.name in read and any(
        step.name == made.name and step.kind in _GENERATED for step, _ in known.steps
    )


def holds(breakpoint: Breakpoint, scene: Scene, given: dict[str, Any] | None = None) -> tuple[bool, str]:
    """Whether a condition holds, and what went wrong with it: then the program stops, too.

    A name that has no value yet is no failure. given: values of names, over those that the scene has.
    """
    if breakpoint.condition is None:
        return True, ""
    try:
        code = compile(breakpoint.condition, "<condition>", "eval")
        return bool(eval(code, scene.namespace() | (given or {}))), ""
    except NameError:
        return False, ""
    except Exception as error:
        return True, f"the condition {breakpoint.condition} failed: {type(error).__name__}: {error}"


def listed(breakpoints: Iterable[Breakpoint]) -> list[str]:
    """The breakpoints in lines."""
    lines = []
    for each in breakpoints:
        times = "" if not each.num_hits else f"  (hit {'once' if each.num_hits == 1 else f'{each.num_hits} times'})"
        lines.append(f"{each.number}: {each.told}{times}")
    return lines or ["no breakpoints"]
