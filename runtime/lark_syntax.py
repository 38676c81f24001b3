"""Lark grammars in llguidance's dialect, read as far as it takes to say which of their rules can end.

`read` gives the rules with their places in the source. llguidance itself is the judge of what is well formed; a grammar
that uses what is not known here (parameters of rules) is not read at all.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

_TOKEN = re.compile(
    r"""
    (?P<skip> (?: \# | // ) [^\n]* | [ \t]+ )
  | (?P<newline> (?: \r?\n [ \t]* )+ )
  | (?P<json> %(?:json|regex|llguidance) )
  | (?P<word> %[a-z]+ )
  | (?P<string> " (?: \\. | [^"\\\n] )* " i? )
  | (?P<regex> / (?: \\. | [^/\\] )+ / [imslux]* )
  | (?P<rule> !?[_?]?[a-z][_a-z0-9\-]* )
  | (?P<terminal> _?[A-Z][_A-Z0-9\-]* )
  | (?P<special> <[^<>\s]+> | @[a-zA-Z0-9_\-]+ )
  | (?P<number> [+-]?[0-9]+ )
  | (?P<sign> -> | \.\. | [:=,.(){}\[\]~|&+*?] )
    """,
    re.VERBOSE | re.DOTALL,
)
_SAYS_NOTHING = ("%ignore", "%import", "%declare")
LeafKind = Literal["name", "terminal", "regex", "json", "other"]


class _Unknown(Exception):
    """The grammar uses what is not known here."""


@dataclass(frozen=True, slots=True)
class Token:
    kind: str
    text: str
    start: int
    stop: int
    value: Any = None


@dataclass(frozen=True, slots=True)
class Leaf:
    """What has no parts here. text: a name, or the source. value: of `%json` the schema."""

    kind: LeafKind
    text: str
    value: Any = None


@dataclass(frozen=True, slots=True)
class Item:
    """A part of an alternative at [start, stop) of the source, how often it is repeated left aside. least: how often it
    must come."""

    start: int
    stop: int
    least: int
    inner: Leaf | list[Alternative] | Grammar


@dataclass(frozen=True, slots=True)
class Alternative:
    """One way through a rule or group, at [start, stop) of the source."""

    start: int
    stop: int
    items: list[Item]


@dataclass(frozen=True, slots=True)
class Grammar:
    """rules: by name, with the line that each begins in. terminals: their definitions in the source, by name."""

    rules: dict[str, list[Alternative]] = field(default_factory=dict)
    lines: dict[str, int] = field(default_factory=dict)
    terminals: dict[str, str] = field(default_factory=dict)
    imports: list[str] = field(default_factory=list)


def read(source: str) -> Grammar | None:
    """The rules of a grammar; None for one that uses what is not known here."""
    try:
        return _Reader(source).grammar()
    except _Unknown:
        return None


def _tokens(source: str) -> list[Token]:
    found, place = [], 0
    while place < len(source):
        match = _TOKEN.match(source, place)
        if match is None or match.lastgroup is None:
            raise _Unknown
        value, stop = None, match.end()
        if match.lastgroup == "json":
            value, stop = _json(source, stop)
        if match.lastgroup != "skip":
            found.append(Token(match.lastgroup, match.group(), place, stop, value))
        place = stop
    return [*found, Token("newline", "\n", place, place)]


def _json(source: str, place: int) -> tuple[Any, int]:
    start = re.compile(r"\s*").match(source, place)
    assert start is not None
    try:
        return json.JSONDecoder().raw_decode(source, start.end())
    except json.JSONDecodeError:
        raise _Unknown from None


class _Reader:
    """Reads by recursive descent."""

    def __init__(self, source: str) -> None:
        self._source = source
        self._tokens = _tokens(source)
        self._place = 0

    def grammar(self) -> Grammar:
        """All statements to the end, or to a closing brace."""
        found = Grammar()
        while self._place < len(self._tokens) and not self._is("}"):
            token = self._next()
            if token.kind in ("rule", "terminal"):
                self._definition(found, token)
            elif token.text == "%import":
                found.imports.append(self._rest(token))
            elif token.text in _SAYS_NOTHING:
                self._rest(token)
            elif token.kind not in ("newline", "json"):
                raise _Unknown
        return found

    def _definition(self, found: Grammar, name: Token) -> None:
        while not self._is(":"):
            if self._next().text not in ("[", "]", ".", ",", "=") and self._tokens[self._place - 1].kind == "sign":
                raise _Unknown
        self._next()
        if name.kind == "terminal":
            found.terminals[name.text] = self._rest(name)
            return
        if self._is(":"):
            raise _Unknown
        plain = name.text.lstrip("!").lstrip("?")
        found.lines[plain] = self._source.count("\n", 0, name.start) + 1
        found.rules[plain] = self._alternatives()

    def _alternatives(self) -> list[Alternative]:
        found = [self._alternative()]
        while self._is_bar():
            found.append(self._alternative())
        return found

    def _is_bar(self) -> bool:
        """Takes a bar, if there is one, also behind line breaks."""
        place = self._place
        while self._kind() == "newline" and self._place < len(self._tokens) - 1:
            self._place += 1
        if self._is("|"):
            self._place += 1
            return True
        self._place = place
        return False

    def _alternative(self) -> Alternative:
        first = self._place
        items: list[Item] = []
        is_regular = False
        while self._kind() != "newline" and self._text() not in ("|", ")", "]", "}", "->"):
            if self._text() == "&" or (self._is("~") and (not items or self._tokens[self._place + 1].kind != "number")):
                is_regular = True
                self._next()
            else:
                items.append(self._item())
        start, stop = self._span(first)
        if is_regular:
            items = [Item(start, stop, 1, Leaf("regex", self._source[start:stop]))]
        if self._is("->"):
            self._next()
            self._next()
        return Alternative(start, stop, items)

    def _item(self) -> Item:
        first = self._place
        token = self._next()
        least = 1
        inner: Leaf | list[Alternative] | Grammar
        if token.text in ("(", "["):
            inner, least = self._alternatives(), int(token.text == "(")
            if self._next().text not in (")", "]"):
                raise _Unknown
        elif token.text == "%lark":
            self._next()
            inner = self.grammar()
            self._next()
        else:
            inner = self._leaf(token)
        start, stop = self._span(first)
        return Item(start, stop, min(least, self._least()), inner)

    def _leaf(self, token: Token) -> Leaf:
        if self._is("{") and self._tokens[self._place + 1].kind not in ("number", "sign"):
            raise _Unknown
        if self._is(":"):
            raise _Unknown
        match token.kind:
            case "rule":
                return Leaf("name", token.text)
            case "terminal" | "regex":
                return Leaf("terminal" if token.kind == "terminal" else "regex", token.text)
            case "json" if token.text == "%json":
                return Leaf("json", token.text, token.value)
            case "string":
                if self._is(".."):
                    self._next()
                    self._next()
                return Leaf("other", token.text)
            case "json" | "special":
                return Leaf("other", token.text)
        raise _Unknown

    def _least(self) -> int:
        """How often what was read has to come: takes the sign behind it."""
        if self._text() in ("*", "?", "+"):
            return int(self._next().text == "+")
        if self._is("~"):
            self._next()
            least = int(self._next().text)
            if self._is(".."):
                self._next()
                self._next()
            return min(least, 1)
        if self._is("{"):
            self._next()
            least = 0 if self._is(",") else int(self._next().text)
            while self._next().text != "}":
                pass
            return min(least, 1)
        return 1

    def _rest(self, first: Token) -> str:
        """The source of a statement from its first token on: to a line break behind which no bar comes."""
        last = first
        while self._kind() != "newline" or self._is_bar():
            if self._is("}") and not self._has_brace(first):
                break
            last = self._next() if self._kind() != "newline" else last
        return self._source[first.start : last.stop]

    def _has_brace(self, first: Token) -> bool:
        """Whether a repetition in braces is open since a token."""
        since = [token.text for token in self._tokens[: self._place] if token.start >= first.start]
        return since.count("{") > since.count("}")

    def _span(self, first: int) -> tuple[int, int]:
        """The source between a token and the one at hand."""
        if first == self._place:
            return self._tokens[first].start, self._tokens[first].start
        return self._tokens[first].start, self._tokens[self._place - 1].stop

    def _next(self) -> Token:
        if self._place >= len(self._tokens):
            raise _Unknown
        self._place += 1
        return self._tokens[self._place - 1]

    def _kind(self) -> str:
        return self._tokens[self._place].kind if self._place < len(self._tokens) else "newline"

    def _text(self) -> str:
        return self._tokens[self._place].text if self._place < len(self._tokens) else ""

    def _is(self, text: str) -> bool:
        return self._text() == text and self._kind() == "sign"


def leaves(alternatives: Sequence[Alternative]) -> list[Item]:
    """The items without parts inside alternatives, those of nested grammars too."""
    found: list[Item] = []
    for item in (item for each in alternatives for item in each.items):
        if isinstance(item.inner, Leaf):
            found.append(item)
        elif isinstance(item.inner, Grammar):
            found += [leaf for rule in item.inner.rules.values() for leaf in leaves(rule)]
        else:
            found += leaves(item.inner)
    return found
