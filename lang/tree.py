"""The prompt tree of a run: what its branches share, and where they part."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import IO, Any

from rich.console import Console
from rich.text import Text
from rich.tree import Tree

from ..ir.errors import UsageError
from ..runtime.generation import Generation, GenRecord
from ..runtime.prompt import CALLS, Prompt
from ..runtime.toolcall import ToolCall
from .live import printable
from .nodes import Node, nodes_of
from .origins import Piece, origins, still_cached
from .rendering import seconds
from .run import Run
from .timeline import run_labels
from .transcript import branch_label

_HEAD_CHARACTERS = 60
_UNBOUNDED = 100_000
# How the text of tokens looks that were in the cache, that were computed, and that were generated.
STYLES = {"cached": "green", "computed": "yellow", "generated": "bold cyan"}


@dataclass(slots=True, eq=False)
class Line:
    """A text, or a request, with the role that it begins. nodes: what of the prompt it stands for, in order.

    pieces: the text, with where its tokens came from; of a request only what stands before it in the message. number:
    that of a request in the trace.
    """

    pieces: list[Piece]
    nodes: list[Prompt]
    call: Generation | None = None
    number: int | None = None

    @property
    def text(self) -> str:
        """All its text, without what was generated."""
        return _joined(self.pieces)

    def head(self) -> Text:
        """How it begins, and what a request came to."""
        if self.call is None:
            return _head_of(self.pieces)
        number = "" if self.number is None else f"[{self.number}] "
        return Text.assemble(self.text, (number, "dim"), call_line(self.call.record()))


@dataclass(slots=True, eq=False)
class Stretch:
    """A part of the tree without a parting in it: a line for each text and generation, and what goes on from there.

    branch: that of its nodes. state: what is said of it behind its label. last_call: the last request from it.
    """

    label: str
    branch: tuple[int, ...] = ()
    state: str = ""
    lines: list[Line] = field(default_factory=list)
    children: list[Stretch] = field(default_factory=list)
    last_call: Generation | None = None
    open_pieces: list[Piece] = field(default_factory=list)
    open_nodes: list[Prompt] = field(default_factory=list)
    open_mark: str | None = None

    def add_text(self, node: Prompt, pieces: list[Piece]) -> None:
        """More text of the line that is being made."""
        self.open_pieces += pieces
        self.open_nodes.append(node)

    def add_call(self, node: Prompt, number: int | None) -> None:
        """A generation, with its number in the trace; it shares the line of a message that begins with it."""
        call: Generation = node.value
        if not self.open_mark or _joined(self.open_pieces) != self.open_mark:
            self.end_line()
        self.lines.append(Line(self.open_pieces, [*self.open_nodes, node], call, number))
        self._begin_line(None)
        self.last_call = call

    def begin_message(self, node: Prompt, role: str) -> None:
        """A new line, which begins with the role."""
        self.end_line()
        self._begin_line(f"{role}: ")
        self.open_nodes.append(node)

    def end_message(self, node: Prompt) -> None:
        """The line of the message is whole, and its end mark belongs to it."""
        self.end_line()
        if self.lines:
            self.lines[-1].nodes.append(node)

    def end_line(self) -> None:
        """The line is whole."""
        if _joined(self.open_pieces).strip():
            self.lines.append(Line(self.open_pieces, self.open_nodes))
        self._begin_line(None)

    def _begin_line(self, mark: str | None) -> None:
        self.open_mark, self.open_nodes = mark, []
        self.open_pieces = [(mark, "")] if mark else []


def prompt_tree(run: Run, *, with_origins: bool = False) -> Stretch:
    """The tree of the prompts that the run generated from, with what they became, and of its state's prompt.

    with_origins: tell of texts, by their styles, whether they were cached or computed.
    """
    children = _children(run)
    known = origins(run) if with_origins else {}
    numbers = {node.asked: node.number for node in nodes_of(run)}
    top = Stretch("the first state")
    (root,) = children[None]
    todo = [(root, top)]
    while todo:
        node, stretch = todo.pop()
        while True:
            if node.kind in CALLS:
                stretch.add_call(node, numbers.get(node.value))
            else:
                _add(node, stretch, known)
            following = children.get(node, [])
            if len(following) != 1 or following[0].branch != node.branch:
                break
            node = following[0]
        stretch.end_line()
        stretch.state = _state(stretch.last_call)
        for child in following:
            stretch.children.append(Stretch(_label(child, node), child.branch))
        todo.extend(zip(following, stretch.children, strict=True))
    return top


def _label(child: Prompt, node: Prompt) -> str:
    if child.branch != node.branch:
        return f"branch {branch_label(child.branch)}"
    sample = child.value.sample if child.kind in CALLS else 0
    return f"sample {sample}" if sample else "goes on"


def _children(run: Run) -> dict[Prompt | None, list[Prompt]]:
    """The nodes of the run's prompts by the node before them (None: the root)."""
    context = run.state.prompt.context
    children: dict[Prompt | None, list[Prompt]] = {}
    seen: set[Prompt] = set()
    generated: set[Any] = set()

    def collect(prompt: Prompt) -> None:
        for node in prompt.upwards():
            if node in seen:
                return
            seen.add(node)
            children.setdefault(node.parent, []).append(node)
            if node.kind in CALLS and node.value.prompt is node.parent:
                generated.add(node.value)

    collect(run.state.prompt)
    for call in reversed(context.calls):
        collect(call.prompt)
    for call in context.calls:
        if call not in generated:  # nothing was generated after it: only the call itself knows what came of it
            children.setdefault(call.prompt, []).append(Prompt(context, call.prompt, call.expression.kind, call))
    for nodes in children.values():
        nodes.sort(key=lambda node: node.branch)
    return children


def _state(call: Generation | None) -> str:
    """Whether the model still keeps what was computed up to a request's end."""
    found = None if call is None else still_cached(call)
    if found is None:
        return ""
    cached, whole = found
    return "alive" if cached == whole else f"{cached:,} of {whole:,} tokens alive"


def _add(node: Prompt, stretch: Stretch, known: Mapping[Prompt, list[Piece]]) -> None:
    if node.kind == "text":
        text = node.value if isinstance(node.value, str) else _late_text(node.value)
        stretch.add_text(node, known.get(node) or [(text, "")])
    elif node.kind == "role":
        if node.open:
            stretch.begin_message(node, node.value.role)
        else:
            stretch.end_message(node)


def _late_text(pending: Any) -> str:
    return str(pending.result()) if pending.done and pending.error is None else "(never arrived)"


def call_line(record: GenRecord) -> Text:
    """What a request came to, in one line."""
    name = record.name or record.kind
    if record.error is not None:
        return Text(f"{name} failed: {_head(getattr(record.error, 'message', str(record.error)))}", style="red")
    tokens = f"prompt {record.prompt_tokens} tokens, {record.cached_tokens} cached"
    if record.kind == "gen":
        tokens += f", generated {record.generated_tokens}"
    result = repr(_head(record.text)) if record.kind != "score" else _totals(record)
    return Text.assemble(f"{name} = ", (printable(result), STYLES["generated"]), (f"  ({tokens})", "dim"))


def _tool_line(node: Node) -> Text:
    call = node.asked
    assert isinstance(call, ToolCall)
    arguments = ", ".join(f"{name}={value!r}" for name, value in call.arguments.items())
    error = call.pending.error
    result = f"failed: {_head(str(error))}" if error is not None else _head(repr(call.pending.result()))
    told = _head(f"{call.name}({arguments})"), " -> ", (printable(result), "red" if error is not None else "")
    return Text.assemble((f"[{node.number}] ", "dim"), *told, (f"  ({seconds(call.ms)})", "dim"))


def _totals(record: GenRecord) -> str:
    return _head(", ".join(f"{scored.text!r} {scored.total:.2f}" for scored in record.scores))


def _head(text: str) -> str:
    return _head_of([(text, "")]).plain


def _joined(pieces: list[Piece]) -> str:
    return "".join(text for text, _ in pieces)


def _head_of(pieces: list[Piece]) -> Text:
    """The beginning of a text, on one line, without the white space at its end."""
    line = Text()
    for text, origin in pieces:
        line.append(printable(text), style=STYLES.get(origin, ""))
    line.rstrip()
    if "\n" in line.plain:
        words = re.finditer(r"\S+", line.plain)
        line = Text(" ").join(line[word.start() : word.end()] for word in islice(words, _HEAD_CHARACTERS))
    return line if len(line) <= _HEAD_CHARACTERS else line[: _HEAD_CHARACTERS - 3] + Text("...")


class PromptTrees:
    """The prompt trees of runs of this process, as pictures."""

    def __init__(self, runs: Sequence[Run]) -> None:
        """Raises UsageError for a run of another process."""
        self.runs = list(runs)
        self.labels = run_labels(self.runs)

    def html(self) -> str:
        """A page that needs nothing from elsewhere."""
        from .pictures.tree_page import page

        return page(self.runs, self.labels)

    def _repr_html_(self) -> str:
        from .pictures.page import framed

        return framed(self.html())

    def svg(self) -> str:
        """A drawing of the tree of a single run that stands alone. Raises UsageError for several."""
        from .pictures.tree_drawing import drawing
        from .pictures.tree_rows import rows_of

        if len(self.runs) != 1:
            raise UsageError(f"a drawing is of one run, not of {len(self.runs):,}", help="html() takes several")
        return drawing(f"prompt tree of {self.labels[0]}", rows_of(self.runs[0]))

    def show(self, file: IO[str] | None = None) -> None:
        """Print them, in colour on a terminal. file: None is stdout."""
        for run in self.runs:
            print_tree(run, file or sys.stdout)


def print_tree(run: Run, out: IO[str]) -> None:
    """Write the tree, in colour on a terminal."""
    console = Console(file=out, highlight=False, width=None if out.isatty() else _UNBOUNDED)
    has_colours = console.color_system is not None and not console.no_color
    top = Tree("", hide_root=True)
    todo = [(prompt_tree(run, with_origins=has_colours), top)]
    while todo:
        stretch, above = todo.pop(0)
        state = f"  ({stretch.state})" if stretch.state else ""
        place = above.add(Text.assemble((stretch.label, "bold"), (state, "dim")))
        for line in stretch.lines:
            place.add(line.head())
        todo.extend((child, place) for child in stretch.children)
    tools = [node for node in nodes_of(run) if isinstance(node.asked, ToolCall)]
    called = top.add(Text("tools", style="bold")) if tools else top
    for node in tools:
        called.add(_tool_line(node))
    console.print(top)
    if has_colours:
        console.print(Text.assemble(*((f"{name} ", style) for name, style in STYLES.items())))
