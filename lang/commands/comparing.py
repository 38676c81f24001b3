"""`:runs`: the runs of the session; `:diff`: what two of them said differently."""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import takewhile
from operator import eq
from typing import Any

from rich.table import Table
from rich.text import Text

from ...ir.errors import UsageError
from ...runtime.generation import GenRecord
from ..live import printable
from ..rendering import seconds, tokens_line
from ..run import Run
from ..session import Session
from ..transcript import branch_label
from .command import Command

_HEAD_CHARACTERS = 48
# How much of a long value is shown, and how much of that stands before the first difference.
_VALUE_CHARACTERS = 160
_BEFORE_CHARACTERS = 24
# How many columns a terminal needs for what each run has used.
_WIDE = 70
_DIFF_STYLES = {"+": "green", "-": "red", "@": "cyan"}


def _runs(session: Session, rest: str) -> None:
    if not session.log.kept:
        raise UsageError("nothing was run yet", help="run a program, as in NAME.run(...)")
    table = Table(box=None, pad_edge=False)
    numbers = ("prompt", "generated", "calls") if session.width >= _WIDE else ()
    for name in ("run", "program", "value", *numbers, "time"):
        is_text = name in ("program", "value")
        table.add_column(name, justify="left" if is_text else "right", no_wrap=not is_text, overflow="fold")
    for number, (program, run) in session.log.kept.items():
        usage = run.usage
        used = [f"{each:,}" for each in (usage.prompt_tokens, usage.generated_tokens, usage.calls)]
        cells = [str(number), program, _outcome(run), *used[: len(numbers)], seconds(usage.wall_ms)]
        table.add_row(*map(Text, cells), style="" if run.ok else "red")
    session.print(table)


def _outcome(run: Run) -> str:
    return _head(run.value) if run.error is None else f"failed: {type(run.error).__name__}"


def _head(value: Any) -> str:
    text = printable(repr(value))
    return text if len(text) <= _HEAD_CHARACTERS else text[: _HEAD_CHARACTERS - 3] + "..."


def _diff(session: Session, rest: str) -> None:
    words = rest.split()
    if len(words) != 2 or not all(word.isdecimal() for word in words):
        raise UsageError(":diff takes the numbers of two runs", help="as in :diff 1 2; :runs lists them")
    first, second = (session.log.run(int(word)) for word in words)
    lines = list(differences(first, second))
    for line in lines:
        session.print(Text(printable(line), style=_DIFF_STYLES.get(line[:1], "")))
    if not lines:
        session.print("they said the same")
    session.print(Text(f"run {words[0]}: {tokens_line(first.usage)}", style="dim"))
    session.print(Text(f"run {words[1]}: {tokens_line(second.usage)}", style="dim"))


def differences(first: Run, second: Run) -> Iterator[str]:
    """Lines: values, generations and variables that differ, then the texts as a unified diff."""
    yield from _changed("value", _outcome_of(first), _outcome_of(second))
    before, after = _generations(first), _generations(second)
    for name in dict.fromkeys([*before, *after]):
        yield from _changed(name, before.get(name, _MISSING), after.get(name, _MISSING))
    told = {record.name for run in (first, second) for record in run.trace}
    for name in dict.fromkeys([*first.vars, *second.vars]):
        if name not in told:
            yield from _changed(name, first.vars.get(name, _MISSING), second.vars.get(name, _MISSING))
    texts = difflib.unified_diff(first.text.splitlines(), second.text.splitlines(), n=1, lineterm="")
    yield from list(texts)[2:]


class _Missing:
    def __repr__(self) -> str:
        return "(none)"


_MISSING = _Missing()


def _changed(name: str, before: Any, after: Any) -> Iterator[str]:
    old, new = repr(before), repr(after)
    if old != new:  # values of the user's may compare as they like
        is_long = max(len(old), len(new)) > _VALUE_CHARACTERS
        num_same = sum(1 for _ in takewhile(bool, map(eq, old, new)))
        start = max(num_same - _BEFORE_CHARACTERS, 0) if is_long else 0
        yield f"{name}: {_part(old, start)} -> {_part(new, start)}"


def _part(text: str, start: int) -> str:
    """What a long text says from `start` on, cut at both ends."""
    end = start + _VALUE_CHARACTERS
    return "..." * (start > 0) + text[start:end] + "..." * (end < len(text))


def _outcome_of(run: Run) -> Any:
    return run.value if run.error is None else run.error


def _generations(run: Run) -> dict[str, str]:
    """The text of each generation and choice, by a name that says which it is."""
    seen: Counter[str] = Counter()
    found = {}
    for record in run.trace:
        if isinstance(record, GenRecord) and record.kind != "score":
            branch = f" of branch {branch_label(record.branch)}" if record.branch else ""
            sample = f", sample {record.sample}" if record.sample else ""
            name = f"{record.name or record.kind}{branch}{sample}"
            seen[name] += 1
            found[name if seen[name] == 1 else f"{name}, number {seen[name]}"] = record.text
    return found


def _complete(session: Session, words: Sequence[str]) -> Iterable[str]:
    return map(str, session.log.kept) if len(words) <= 2 else ()


RUNS = Command(":runs", "", "the runs of the session, with their numbers", _runs)
DIFF = Command(":diff", "RUN RUN", "what two runs, by their numbers, said differently", _diff, _complete)
