"""What a run has asked for, as it is called: by its number in the trace, or by the name of its variable or tool."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from ..ir.errors import UsageError, nearest
from ..ir.span import Span
from ..runtime.expression import span_of
from ..runtime.generation import Generation
from ..runtime.toolcall import ToolCall
from .run import Run
from .transcript import branch_label

_MOST_TOLD = 5


@dataclass(frozen=True, slots=True)
class Node:
    """A generation, choice, score or tool call. number: its place in the trace, from 1.

    label: its name, or what it is; where several have one name with a number, as in "answer#2".
    """

    number: int
    label: str
    asked: Generation | ToolCall

    @property
    def span(self) -> Span | None:
        """Where the program asks for it."""
        return span_of(self.asked.where)


def nodes_of(run: Run) -> list[Node]:
    """All nodes, in program order. Raises UsageError for a run of another process."""
    asked = list(run.state.prompt.context.leaves())
    names = [_name(each) for each in asked]
    counts, seen = Counter(names), Counter[str]()
    nodes = []
    for number, (each, name) in enumerate(zip(asked, names, strict=True), 1):
        seen[name] += 1
        nodes.append(Node(number, name if counts[name] == 1 else f"{name}#{seen[name]}", each))
    return nodes


def node_of(run: Run, wanted: int | str) -> Node:
    """The node of that number or name. Raises UsageError for none and for several, with the nearest."""
    nodes = nodes_of(run)
    if not nodes:
        raise UsageError("the run has asked the model for nothing, and called no tool")
    text = str(wanted).removeprefix("#")
    if text.lstrip("-").isdecimal():
        if 1 <= int(text) <= len(nodes):
            return nodes[int(text) - 1]
        raise UsageError(f"the run has no node {text}", help=f"they are 1 to {len(nodes)}: {_told(nodes)}")
    found = [node for node in nodes if node.label == text]
    if found:
        return found[0]
    same = [node for node in nodes if node.label.rpartition("#")[0] == text]
    if same:
        raise UsageError(f"the run has {len(same)} nodes {text!r}", help=f"say which: {_told(same)}")
    name = text.partition("#")[0]
    close = [node for node in nodes if node.label.partition("#")[0] == name]
    help = f"it has {_told(close)}" if close else nearest(text, [node.label for node in nodes], "it has")
    raise UsageError(f"the run has no node {text!r}", help=help)


def _name(asked: Generation | ToolCall) -> str:
    return asked.name if isinstance(asked, ToolCall) else asked.expression.name or asked.expression.kind


def _told(nodes: list[Node]) -> str:
    told = [f"{node.label}{_place(node.asked)}" for node in nodes[:_MOST_TOLD]]
    return ", ".join([*told, *(["..."] if len(nodes) > _MOST_TOLD else [])])


def _place(asked: Generation | ToolCall) -> str:
    if isinstance(asked, ToolCall):
        return ""
    branch = f"branch {branch_label(asked.prompt.branch)}" if asked.prompt.branch else ""
    sample = f"sample {asked.sample}" if len(asked.samples) > 1 else ""
    return f" ({', '.join(filter(None, [branch, sample]))})" if branch or sample else ""
