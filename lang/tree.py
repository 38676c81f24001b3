"""The prompt tree of a run: what its branches share, and where they part."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import IO, Any

from ..runtime.generation import GenRecord
from ..runtime.prompt import CALLS, Prompt
from .run import Run
from .transcript import branch_label

_HEAD_CHARACTERS = 60
_UNBOUNDED = 100_000


@dataclass(slots=True, eq=False)
class Stretch:
    """A part of the tree without a parting in it: a line for each text and generation, and what goes on from there."""

    label: str
    lines: list[str] = field(default_factory=list)
    children: list[Stretch] = field(default_factory=list)
    open_text: str | None = None
    open_mark: str | None = None

    def add_text(self, text: str) -> None:
        """More text of the line that is being made."""
        self.open_text = (self.open_text or "") + text

    def add_call(self, line: str) -> None:
        """A generation; it shares the line of a message that begins with it."""
        mark = self.open_text if self.open_mark and self.open_text == self.open_mark else ""
        if not mark:
            self.end_line()
        self.open_text = self.open_mark = None
        self.lines.append(f"{mark}{line}")

    def begin_message(self, role: str) -> None:
        """A new line, which begins with the role."""
        self.end_line()
        self.open_text = self.open_mark = f"{role}: "

    def end_line(self) -> None:
        """The line is whole."""
        if self.open_text is not None and self.open_text.strip():
            self.lines.append(_head(self.open_text.rstrip()))
        self.open_text = self.open_mark = None


def prompt_tree(run: Run) -> Stretch:
    """The tree of the prompts that the run generated from, with what they became, and of its state's prompt."""
    children = _children(run)
    top = Stretch("the first state")
    (root,) = children[None]
    todo = [(root, top)]
    while todo:
        node, stretch = todo.pop()
        while True:
            _add(node, stretch)
            following = children.get(node, [])
            if len(following) != 1 or following[0].branch != node.branch:
                break
            node = following[0]
        stretch.end_line()
        for child in following:
            stretch.children.append(Stretch(_label(child, node)))
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


def _add(node: Prompt, stretch: Stretch) -> None:
    if node.kind == "text":
        stretch.add_text(node.value if isinstance(node.value, str) else _late_text(node.value))
    elif node.kind == "role":
        if node.open:
            stretch.begin_message(node.value.role)
        else:
            stretch.end_line()
    elif node.kind in CALLS:
        stretch.add_call(_call_line(node.value.record()))


def _late_text(pending: Any) -> str:
    return str(pending.result()) if pending.done and pending.error is None else "(never arrived)"


def _call_line(record: GenRecord) -> str:
    name = record.name or record.kind
    if record.error is not None:
        return f"{name} failed: {_head(str(record.error))}"
    tokens = f"prompt {record.prompt_tokens} tokens, {record.cached_tokens} cached"
    if record.kind == "gen":
        tokens += f", generated {record.generated_tokens}"
    result = repr(_head(record.text)) if record.kind != "score" else _totals(record)
    return f"{name} = {result}  ({tokens})"


def _totals(record: GenRecord) -> str:
    return _head(", ".join(f"{scored.text!r} {scored.total:.2f}" for scored in record.scores))


def _head(text: str) -> str:
    text = " ".join(text.split()) if "\n" in text else text
    return text if len(text) <= _HEAD_CHARACTERS else text[: _HEAD_CHARACTERS - 3] + "..."


def print_tree(run: Run, out: IO[str]) -> None:
    """Write the tree, in colour on a terminal."""
    from rich.console import Console
    from rich.text import Text
    from rich.tree import Tree

    from .live import printable

    top = Tree("", hide_root=True)
    todo = [(prompt_tree(run), top)]
    while todo:
        stretch, above = todo.pop(0)
        place = above.add(Text(stretch.label, style="bold"))
        for line in stretch.lines:
            place.add(Text(printable(line)))
        todo.extend((child, place) for child in stretch.children)
    width = None if out.isatty() else _UNBOUNDED
    Console(file=out, highlight=False, width=width).print(top)
