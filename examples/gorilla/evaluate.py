"""Judge API calls as Gorilla's released scorers do (arXiv 2305.15334, section 4): match syntax trees with a database.

A reply's candidate call is parsed by tree-sitter-python. For each API of the database, in its order, one subtree of the
candidate is compared: the first whose first child reads like the API's function, else the last one enumerated. It
matches if every argument that the hub's rules ask for is part of its text. The first API that matches is the one that
was called. A call that matches none is a hallucination; one that matches is right if its domain is that of the
question's API.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, Literal

from ramify.ir.errors import UsageError

from .hubs import PUNCTUATION, HubRules

if TYPE_CHECKING:
    from tree_sitter import Node, Parser

__all__ = ["Reference", "Score", "Scorer", "Verdict", "VerdictKind", "candidate_call", "tally"]

VerdictKind = Literal["correct", "wrong", "hallucinated", "no call"]


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of one reply.

    `api` is the index of the matched API in the database, `call` the text that was judged; either can be None. `same`:
    whether the matched API's call is the reference's, which APIBench does not ask for.
    """

    kind: VerdictKind
    api: int | None = None
    call: str | None = None
    same: bool = False


@dataclass(frozen=True, slots=True)
class Score:
    """Numbers of replies, and shares of them from 0 to 1."""

    replies: int
    correct: int
    hallucinated: int
    no_call: int
    same: int

    @property
    def accuracy(self) -> float:
        """The share of right calls."""
        return self.correct / self.replies if self.replies else 0.0

    @property
    def hallucination(self) -> float:
        """The share of calls that the database has not."""
        return self.hallucinated / self.replies if self.replies else 0.0


@dataclass(frozen=True, slots=True)
class Reference:
    """A database call as it is compared: the function's text, and the texts that have to reappear."""

    function: bytes
    arguments: tuple[str, ...]


class Scorer:
    """Judges replies against one API database."""

    def __init__(self, database: Sequence[Mapping[str, Any]], rules: HubRules) -> None:
        """`database`: records with `api_call` and `domain`. Raises UsageError where tree-sitter is missing."""
        self.database = database
        self.rules = rules
        self.references = [reference(parse(record["api_call"]), rules) for record in database]

    def judge(self, reply: str | None, wanted: Mapping[str, Any]) -> Verdict:
        """Judge one reply (None: there is none) to a question that the API `wanted` answers."""
        call = None if reply is None else candidate_call(reply, self.rules)
        if call is None:
            return Verdict("no call")
        api = self.find(call)
        if api is None:
            return Verdict("hallucinated", call=call)
        found = self.database[api]
        kind: VerdictKind = "correct" if found["domain"] == wanted["domain"] else "wrong"
        return Verdict(kind, api, call, found["api_call"] == wanted["api_call"])

    def find(self, call: str) -> int | None:
        """The index of the first API that a call's text matches."""
        trees = list(subtrees(parse(call)))
        first: dict[bytes | None, str] = {}
        for head, text in trees:
            first.setdefault(head, text)
        last = trees[-1][1]
        for index, known in enumerate(self.references):
            if known is not None:
                text = first.get(known.function, last)
                if all(argument in text for argument in known.arguments):
                    return index
        return None


def tally(verdicts: Sequence[Verdict]) -> Score:
    """Count verdicts."""
    kinds = Counter(verdict.kind for verdict in verdicts)
    same = sum(verdict.same for verdict in verdicts)
    return Score(len(verdicts), kinds["correct"], kinds["hallucinated"], kinds["no call"], same)


def candidate_call(reply: str, rules: HubRules) -> str | None:
    """Cut the call's text out of a reply, or None where the hub's rules find none.

    It lies between the first `api_call` and the `api_provider` after it: from two characters after the first colon up
    to the last closing bracket (without one, all but the last character).
    """
    _before, named, rest = reply.partition("api_call")
    if not named:
        return reply if rules.judges_whole_text else None
    # A second `api_call` ends the text too.
    text = rest.split("api_call")[0].split("api_provider")[0]
    start = max(text.find(":"), 0) + 2
    end = text.rfind(")") + 1 if ")" in text else -1
    return text[start:end]


def reference(tree: Node, rules: HubRules) -> Reference | None:
    """What a database call's tree asks of a candidate; None if nothing can match it."""
    statement = tree.children[0].children[0] if tree.children and tree.children[0].children else None
    if statement is None or statement.child_count < 2:
        return None
    function, arguments = statement.children[0], statement.children[1]
    texts = tuple(texts_to_find(arguments, rules))
    return Reference(text_bytes(function), texts) if texts else None


def texts_to_find(arguments: Node, rules: HubRules) -> Iterator[str]:
    """The argument texts that have to reappear, without the quotes around them."""
    for child in arguments.children:
        text = text_bytes(child).decode()
        if rules.is_keyword(text):
            yield text_bytes(child.children[2]).decode().strip("'")
        elif rules.takes_others_whole and text not in PUNCTUATION:
            yield text.strip("'")


def subtrees(root: Node) -> Iterator[tuple[bytes | None, str]]:
    """Every node that has children, and the root: its first child's text and its own, in the scorer's order.

    That is depth first with a stack, so of siblings the last comes first.
    """
    stack = [root]
    while stack:
        node = stack.pop()
        yield (text_bytes(node.children[0]) if node.child_count else None), text_bytes(node).decode()
        stack += [child for child in node.children if child.child_count]


def text_bytes(node: Node) -> bytes:
    """A node's source text."""
    return node.text or b""


def parse(code: str) -> Node:
    """The syntax tree of some Python, which need not be valid."""
    return parser().parse(code.encode("utf-8", errors="replace")).root_node


@cache
def parser() -> Parser:
    """The parser of tree-sitter-python."""
    try:
        import tree_sitter_python
        from tree_sitter import Language, Parser
    except ImportError as error:
        raise UsageError(
            "judging API calls needs tree-sitter, which is not installed", help="pip install 'ramify[examples]'"
        ) from error
    return Parser(Language(tree_sitter_python.language()))
