"""`:edit` and `:retry`: a run made again with another answer at one place."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

from ...ir.errors import RamifyError, UsageError
from ...runtime.expression import Select
from ...runtime.generation import Generation
from ..editing import RETRIED, edited, retried
from ..nodes import Node, node_of, nodes_of
from ..rendering import reuse_line, value_text
from ..run import Run
from ..session import Session
from .command import Command

_RUN = re.compile(r"--run\s+(\S+)\s*")
_AS_PYTHON = 'texts are written as in Python: :edit answer "yes"'


def _edit(session: Session, rest: str) -> None:
    run, rest = _run_of(session, rest)
    wanted, _, text = rest.partition(" ")
    if not text.strip():
        raise UsageError(":edit takes a node of the run and what it becomes", help=EDIT.form)
    node = node_of(run, wanted)
    _show(session, run, node, edited(run, wanted, _value(session, text)))


def _retry(session: Session, rest: str) -> None:
    run, rest = _run_of(session, rest)
    wanted, _, text = rest.partition(" ")
    if not wanted:
        raise UsageError(":retry takes a node of the run", help=RETRY.form)
    node = node_of(run, wanted)
    _show(session, run, node, retried(run, wanted, _parameters(session, text)))


def _run_of(session: Session, rest: str) -> tuple[Run, str]:
    """The run that is meant, and what else is said."""
    match = _RUN.match(rest)
    if match is None:
        return session.latest_run(), rest
    if not match[1].isdecimal():
        raise UsageError(f"{match[1]} is no number of a run", help=":runs lists them")
    return session.log.run(int(match[1])), rest[match.end() :]


def _value(session: Session, text: str) -> Any:
    try:
        return eval(text.strip(), session.names)
    except (SyntaxError, NameError):
        raise UsageError(f"this is no value: {text.strip()}", help=_AS_PYTHON) from None


def _parameters(session: Session, text: str) -> dict[str, Any]:
    """What stands behind a node, as in `temperature=1.0 seed=2`."""
    given = {}
    for part in re.split(r"[\s,]+(?=\w+\s*=)", text.strip()) if text.strip() else ():
        name, equals, value = part.partition("=")
        if not equals:
            raise UsageError(f"this is no parameter: {part}", help=RETRY.form)
        given[name.strip()] = _value(session, value)
    return given


def _show(session: Session, old: Run, node: Node, new: Run) -> None:
    assert new.reuse is not None and new.origin is not None
    number = session.log.number_of(new)
    if number is None:  # a program that the session does not watch
        session.remember(new.origin.program.name, new)
        number = session.log.num_runs
    session.last_run = new
    if new.value is not None:
        session.print(f"value: {value_text(new.value)}")
    before = session.log.number_of(old)
    told = f"run {number}" if before is None else f"run {number}, from run {before}"
    session.print(f"{told}: {reuse_line(new.reuse)}")
    if new.error is not None:
        raise new.error
    if _is_same_greedy(node, new):
        session.print(f"it said the same again: {node.label} is greedy, so give it a temperature")


def _is_same_greedy(node: Node, new: Run) -> bool:
    """Whether a generation that draws nothing was asked for once more, and has answered as before."""
    call, again = node.asked, nodes_of(new)[node.number - 1].asked
    if not (isinstance(call, Generation) and isinstance(again, Generation)) or call.params is None:
        return False
    is_same = call.done is not None and again.done is not None and call.done.text == again.done.text
    is_greedy = again.params is not None and again.params.temperature == 0
    return is_same and is_greedy and again.done is not None and bool(again.done.generated_tokens)


def _complete_edit(session: Session, words: Sequence[str]) -> Iterable[str]:
    if len(words) == 2:
        try:
            asked = node_of(session.latest_run(), words[0]).asked
        except RamifyError:
            return ()
        is_choice = isinstance(asked, Generation) and isinstance(asked.expression, Select)
        return map(repr, asked.expression.choices) if is_choice else ()  # type: ignore[union-attr]
    return _complete_node(session, words)


def _complete_retry(session: Session, words: Sequence[str]) -> Iterable[str]:
    return [f"{name}=" for name in RETRIED] if len(words) > 1 else _complete_node(session, words)


def _complete_node(session: Session, words: Sequence[str]) -> Iterable[str]:
    if len(words) > 1 or session.last_run is None:
        return ()
    try:
        return [node.label for node in nodes_of(session.last_run)]
    except UsageError:  # a run of another process
        return ()


EDIT = Command(
    ":edit", '[--run RUN] NODE "TEXT"', "the last run again, with another answer there", _edit, _complete_edit
)
RETRY = Command(
    ":retry",
    "[--run RUN] NODE [temperature=1.0 seed=2 ...]",
    "the last run again, with the model asked once more there",
    _retry,
    _complete_retry,
)
