"""`:tree` and `:usage`: what the last run, and the session, came to; `:time`: how long an input takes."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence

from ...ir.errors import UsageError
from ..rendering import seconds, tokens_line, usage_line
from ..session import Session
from ..tree import print_tree
from .command import Command


def _tree(session: Session, rest: str) -> None:
    if rest and not rest.isdecimal():
        raise UsageError(f"{rest} is no number of a run", help=":runs lists them")
    print_tree(session.log.run(int(rest)) if rest else session.latest_run(), session.out)


def _usage(session: Session, rest: str) -> None:
    log = session.log
    latest = session.latest_run()
    shared = f", {log.usage.shared_calls:,} of them answered by an equal one" if log.usage.shared_calls else ""
    failed = f", {log.num_failed:,} failed" if log.num_failed else ""
    session.print(f"last run: {usage_line(latest.usage)}")
    session.print(f"session:  {tokens_line(log.usage)}{shared}; runs: {log.num_runs:,}{failed}")


def _time(session: Session, rest: str) -> None:
    if rest in ("on", "off"):
        session.shows_times = rest == "on"
    elif not rest:
        raise UsageError(":time takes an expression or a statement to time, or on or off", help=TIME.form)
    else:
        started = time.perf_counter()
        session.execute(rest)
        if not session.shows_times:  # else it has been said
            session.print(f"time: {seconds((time.perf_counter() - started) * 1000, digits=2)}")


def _complete_time(session: Session, words: Sequence[str]) -> Iterable[str]:
    return ("on", "off") if len(words) == 1 else ()


def _complete_tree(session: Session, words: Sequence[str]) -> Iterable[str]:
    return map(str, session.log.kept) if len(words) == 1 else ()


TREE = Command(":tree", "[RUN]", "the prompt tree of the last run", _tree, _complete_tree)
USAGE = Command(":usage", "", "what the last run and the session have used", _usage)
TIME = Command(":time", "INPUT | on | off", "how long an input takes, or each from now on", _time, _complete_time)
