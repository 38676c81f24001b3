"""The prompt tree of a run as rows: what each says, how deep it stands, and which tokens it holds.

A branch stands below what it goes on from, one step in; what goes on in the same branch behind its forks stands at the
branch's own depth again, so that loops which fork do not run out of the picture.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Literal

from ...runtime.generation import GenRecord
from ...runtime.prompt import CALLS, Prompt
from ..origins import Extent, extents
from ..run import Run
from ..transcript import branch_label
from ..tree import Line, Stretch, prompt_tree
from .telling import head_of, tokens_of

Origin = Literal["cached", "computed", "generated", "told"]
MEANINGS: dict[Origin, str] = {
    "cached": "was in the cache",
    "computed": "computed",
    "generated": "generated",
    "told": "text, of which nobody knows",
}
_MOST_NODES = 50_000


@dataclass(frozen=True, slots=True)
class Segment:
    """Tokens of one origin, by their positions in the sequence (characters, where the model tells no tokens)."""

    origin: Origin
    begin: int
    end: int


@dataclass(frozen=True, slots=True)
class Row:
    """A row: the head of a stretch (with a label), or a text or request in it.

    depth: how many branches it is in. role: of the message that it begins. name: the number in the trace, and what was
    generated, if it is a request. text: all of its text. told: what else there is to say. ends_at: where the branch
    ends, in its last row.
    """

    depth: int
    label: str = ""
    role: str = ""
    name: str = ""
    text: str = ""
    told: str = ""
    is_failed: bool = False
    segments: tuple[Segment, ...] = ()
    ends_at: int | None = None


@dataclass(frozen=True, slots=True)
class Rows:
    """The rows of a run. unit: what its positions count."""

    rows: list[Row]
    unit: Literal["tokens", "characters"]

    @property
    def length(self) -> int:
        """The last position in it."""
        return max((segment.end for row in self.rows for segment in row.segments), default=0)


def rows_of(run: Run) -> Rows:
    """The rows of a run's prompts. Raises UsageError for a run of another process."""
    known = extents(run, _MOST_NODES)
    found: list[Row] = []
    todo = [(prompt_tree(run), 0, 0)]
    while todo:
        stretch, depth, at = todo.pop()
        found.append(Row(depth, _label(stretch), told=stretch.state))
        for line in stretch.lines:
            segments = tuple(_merged(_known_segments(line, known) if known else _told_segments(line, at)))
            at = max([at, *(segment.end for segment in segments)])
            found.append(_row(line, depth, segments))
        if not stretch.children and stretch.lines:
            found[-1] = replace(found[-1], ends_at=at or None)
        same = [child for child in stretch.children if child.label == "goes on"]
        others = [child for child in stretch.children if child.label != "goes on"]
        todo += [(child, depth, at) for child in same]
        todo += [(child, depth + 1, at) for child in reversed(others)]
    return Rows(found, "tokens" if known else "characters")


def _label(stretch: Stretch) -> str:
    if stretch.label != "goes on":
        return stretch.label
    return f"branch {branch_label(stretch.branch)} goes on" if stretch.branch else "the first state goes on"


def _row(line: Line, depth: int, segments: tuple[Segment, ...]) -> Row:
    role, text = _parted(line)
    if line.call is None:
        return Row(depth, role=role, text=text, segments=segments)
    record = line.call.record()
    name = f"{'' if line.number is None else f'[{line.number}] '}{record.name or record.kind}"
    if record.error is not None:
        error = record.error
        said = f"{type(error).__name__}: {getattr(error, 'message', error)}"
        return Row(depth, role=role, name=name, text=said, is_failed=True, segments=segments)
    return Row(depth, role=role, name=name, text=_came_to(record), told=tokens_of(record), segments=segments)


def _parted(line: Line) -> tuple[str, str]:
    """The role that a line begins with, and its text behind it."""
    begins = line.nodes and line.nodes[0].kind == "role" and line.nodes[0].open
    role = line.nodes[0].value.role if begins else ""
    return role, line.text.removeprefix(f"{role}: ") if role else line.text


def _came_to(record: GenRecord) -> str:
    if record.kind == "score":
        return ", ".join(f"{scored.text!r} {scored.total:.2f}" for scored in record.scores)
    return record.text


def _known_segments(line: Line, known: dict[Prompt, Extent]) -> Iterator[Segment]:
    for node in line.nodes:
        extent = known.get(node)
        if node.kind in CALLS:
            yield from _generated(node, extent)
        elif extent is not None:
            yield Segment("cached", extent.begin, extent.computed)
            yield Segment("computed", extent.computed, extent.end)


def _generated(node: Prompt, extent: Extent | None) -> Iterator[Segment]:
    """What a request has added; of one that nothing was asked behind, its answer says how much."""
    done = node.value.done
    if node.kind == "score" or done is None:
        return
    if extent is not None:
        yield Segment("generated", extent.begin, extent.end)
    else:
        yield Segment("generated", done.prompt_tokens, done.prompt_tokens + len(done.token_ids))


def _told_segments(line: Line, at: int) -> Iterator[Segment]:
    """By characters: of texts nothing is known but what they say."""
    _, text = _parted(line)
    if line.call is None or text:
        yield Segment("told", at, at + len(text))
        at += len(text)
    record = None if line.call is None else line.call.record()
    if record is not None and record.kind != "score" and record.error is None:
        yield Segment("generated", at, at + len(record.text))


def _merged(segments: Iterable[Segment]) -> Iterator[Segment]:
    """The segments that hold something; neighbours of one origin are one."""
    last: Segment | None = None
    for segment in segments:
        if segment.end <= segment.begin:
            continue
        if last is not None and last.origin == segment.origin and last.end == segment.begin:
            last = Segment(last.origin, last.begin, segment.end)
            continue
        if last is not None:
            yield last
        last = segment
    if last is not None:
        yield last


def row_text(row: Row, most: int) -> str:
    """How a row's text begins, in one line; what was generated stands in quotes."""
    text = head_of(row.text, most)
    return f'"{text}"' if row.name and not row.is_failed else text
