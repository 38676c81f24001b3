"""`:tokens`: what the last run generated for a variable, token by token."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from rich.table import Table
from rich.text import Text

from ...ir.errors import UsageError
from ...runtime.expression import Gen
from ...runtime.generation import Generation, GenRecord
from ...runtime.request import Scored
from ..live import printable
from ..session import Session
from ..token_listing import Alternative, Token, calls_of, listed
from ..transcript import branch_label
from .command import Command

_MOST_TOKENS = 400
_NO_LOGPROBS = "log-probabilities were not asked for: gen(..., logprobs=3), or :set logprobs 3"


def _tokens(session: Session, rest: str) -> None:
    if len(rest.split()) != 1:
        raise UsageError(":tokens takes the name of what was generated", help=TOKENS.form)
    calls = calls_of(session.latest_run(), rest)
    for call in calls:
        if isinstance(call.expression, Gen):
            _print_generation(session, call)
        else:
            _print_scores(session, call)
    if any(isinstance(call.expression, Gen) and call.done and not call.done.logprobs for call in calls):
        session.print(Text(_NO_LOGPROBS, style="dim"))


def _print_generation(session: Session, call: Generation) -> None:
    session.print(Text(_title(call), style="bold"))
    tokens = listed(call)
    if tokens:
        session.print(_table(tokens[:_MOST_TOKENS]))
    if len(tokens) > _MOST_TOKENS:
        session.print(f"and {len(tokens) - _MOST_TOKENS:,} more")
    if call.done is not None and call.done.closing:
        session.print(f"{_quoted(call.done.closing)} was added, so that the text matches its constraint")


def _title(call: Generation) -> str:
    record = call.record()
    if record.error is not None:
        return f"{_place(record)} failed: {type(record.error).__name__}"
    count = f"{record.generated_tokens:,} token{'' if record.generated_tokens == 1 else 's'}"
    shared = ", the answer of an equal request" if record.shared else ""
    return f"{_place(record)}: {count}, ended by {record.finish_reason}{shared}"


def _place(record: GenRecord) -> str:
    """The name, and where several of that name are, which one it is."""
    branch = f", branch {branch_label(record.branch)}" if record.branch else ""
    sample = f", sample {record.sample}" if record.sample else ""
    return f"{record.name}{branch}{sample}"


def _table(tokens: Sequence[Token]) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column("token", overflow="fold")
    has_logprobs = any(token.logprob is not None for token in tokens)
    has_masks = any(token.num_allowed is not None for token in tokens)
    if has_logprobs:
        table.add_column("logprob", justify="right", no_wrap=True)
    if has_masks:
        table.add_column("allowed", justify="right", no_wrap=True)
    if any(token.alternatives for token in tokens):
        table.add_column("instead", overflow="fold")
    for token in tokens:
        cells = [Text(_quoted(token.text), style="dim" if token.forced else "")]
        cells += [_logprob(token.logprob)] * has_logprobs
        cells += [Text("forced" if token.forced else _count(token.num_allowed))] * has_masks
        table.add_row(*cells, _alternatives(token.alternatives))
    return table


def _logprob(logprob: float | None) -> Text:
    if logprob is None:
        return Text("")
    probability = math.exp(logprob)
    style = "green" if probability > 0.9 else "yellow" if probability > 0.5 else "red"
    return Text(f"{logprob:.2f}", style=style)


def _count(number: int | None) -> str:
    return "" if number is None else f"{number:,}"


def _alternatives(given: Sequence[Alternative]) -> Text:
    told = [
        Text(f"{_quoted(text)} {logprob:.2f}{'' if is_allowed else ' masked'}", style="" if is_allowed else "dim")
        for text, logprob, is_allowed in given
    ]
    return Text("  ").join(told)


def _quoted(text: str) -> str:
    return printable(repr(text))


def _print_scores(session: Session, call: Generation) -> None:
    record = call.record()
    title = _title(call) if record.error is not None else f"{_place(record)}: {_quoted(record.text)}"
    session.print(Text(title, style="bold"))
    table = Table(box=None, pad_edge=False)
    for name in ("text", "tokens", "logprob", "mean"):
        table.add_column(name, justify="left" if name == "text" else "right", overflow="fold")
    for scored in record.scores:
        table.add_row(*_score_cells(scored))
    if record.scores:
        session.print(table)


def _score_cells(scored: Scored) -> list[Text]:
    numbers = (f"{len(scored.tokens)}", f"{scored.total:.2f}", f"{scored.mean:.2f}")
    return [Text(_quoted(scored.text)), *map(Text, numbers)]


def _complete(session: Session, words: Sequence[str]) -> Iterable[str]:
    if len(words) > 1 or session.last_run is None or not session.last_run.is_whole:
        return ()
    return dict.fromkeys(record.name for record in session.last_run.trace if record.name)


TOKENS = Command(":tokens", "NAME", "what the last run generated, token by token", _tokens, _complete)
