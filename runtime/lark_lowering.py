"""Lark grammars in which whatever is begun can end, with their JSON schemas in llguidance's words.

Alternatives that no finite text matches (a rule that contains itself in every case, a terminal that nothing matches)
are taken out, which leaves the texts of a grammar as they are: a model would otherwise begin what cannot end. Where
nothing is left, that is an error which names the rule.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import lru_cache

import msgspec

from ..ir.errors import RequestError
from .grammar import SPACE, byte_matcher, is_stuck, problem_of, unforced
from .lark_syntax import Alternative, Grammar, Item, Leaf, leaves, read
from .schema_blame import located
from .schema_lowering import bounded, lowered

# Matches nothing.
_NOTHING = r"/[^\s\S]/"
_LAYOUT = ("whitespace_flexible", "whitespace_pattern", "item_separator", "key_separator")
_HELP = "let a part of the cycle be optional, or give it an alternative"


def lowered_lark(source: str, *, is_bounded: bool = False) -> str:
    """The grammar that llguidance compiles. is_bounded: as for schemas. Raises RequestError where no text matches, or
    for a `%json` that cannot be enforced."""
    grammar = read(source)
    if grammar is None:
        return source
    changes = sorted(_changes(grammar, source, is_bounded), key=lambda change: change[0], reverse=True)
    for start, stop, text in changes:
        source = source[:start] + text + "\n" * source.count("\n", start, stop) + source[stop:]
    return source


def _changes(grammar: Grammar, source: str, is_bounded: bool) -> Iterator[tuple[int, int, str]]:
    """What is to be replaced: (start, stop, text)."""
    rules = _Rules(grammar)
    if "start" in grammar.rules and not rules.can_end("start"):
        raise RequestError(f"grammar: {rules.reason('start')}", help=_HELP)
    for alternatives in grammar.rules.values():
        pruned = list(rules.pruned(alternatives))
        yield from ((start, stop, _NOTHING) for start, stop in pruned)
        for item in leaves(alternatives):
            if isinstance(item.inner, Leaf) and item.inner.kind == "json" and not _is_within(item, pruned):
                yield item.start, item.stop, _with_schema(item, source, is_bounded)


def _is_within(item: Item, spans: list[tuple[int, int]]) -> bool:
    return any(start <= item.start and item.stop <= stop for start, stop in spans)


def _with_schema(item: Item, source: str, is_bounded: bool) -> str:
    """A `%json` with its schema lowered; what may stand behind it (how often) is kept."""
    assert isinstance(item.inner, Leaf)
    given = item.inner.value
    try:
        schema = lowered(given)
        problem = problem_of(schema)
        if problem is not None:
            raise located(given, problem)
    except RequestError as error:
        line = source.count("\n", 0, item.start) + 1
        cause = error.message.removeprefix("json_schema: ")
        raise RequestError(f"grammar: line {line}: %json {cause}", help=error.help) from None
    if not isinstance(schema, dict):
        return f"%json {msgspec.json.encode(schema).decode()}"
    if is_bounded:
        schema = bounded(schema)
    options = given.get("x-guidance", {})
    layout = {name: options[name] for name in _LAYOUT if isinstance(options, dict) and name in options}
    if is_bounded and layout.get("whitespace_flexible", True):
        layout.setdefault("whitespace_pattern", SPACE)
    return f"%json {msgspec.json.encode({**schema, 'x-guidance': layout}).decode()}"


class _Rules:
    """Which rules of a grammar some finite text matches."""

    def __init__(self, grammar: Grammar) -> None:
        self._grammar = grammar
        context = "\n".join((*grammar.imports, *grammar.terminals.values()))
        self._is_empty: Callable[[str], bool] = lambda text: _is_empty(text, context)
        self._ending: set[str] = set()
        while found := {
            name
            for name, alternatives in grammar.rules.items()
            if name not in self._ending and any(map(self._can_match, alternatives))
        }:
            self._ending |= found

    def can_end(self, name: str) -> bool:
        return name in self._ending or name not in self._grammar.rules

    def pruned(self, alternatives: list[Alternative]) -> Iterator[tuple[int, int]]:
        """The places of what no finite text matches."""
        for alternative in alternatives:
            if not self._can_match(alternative):
                yield alternative.start, alternative.stop
                continue
            for item in alternative.items:
                if isinstance(item.inner, list):
                    yield from self.pruned(item.inner)
                elif isinstance(item.inner, Grammar) and self._has_text(item):
                    inner = _Rules(item.inner)
                    yield from (span for each in item.inner.rules.values() for span in inner.pruned(each))
                elif not self._has_text(item):
                    yield item.start, item.stop

    def reason(self, name: str) -> str:
        """Why nothing matches a rule: the names that lead from it to what cannot end."""
        trail = [name]
        while True:
            blamed = self._blamed(self._grammar.rules[trail[-1]])
            if blamed.kind != "name":
                break
            trail.append(blamed.text)
            if blamed.text in trail[:-1]:
                break
        line = self._grammar.lines[trail[-1] if trail[-1] in self._grammar.lines else trail[-2]]
        way = f" (from {' -> '.join(trail)})" if len(trail) > 1 else ""
        if blamed.kind == "name":
            return f"line {line}: no finite text matches the rule {trail[-1]!r}: it contains itself in every case{way}"
        return f"line {line}: no text matches {blamed.text} in the rule {trail[-1]!r}{way}"

    def _blamed(self, alternatives: list[Alternative]) -> Leaf:
        """What of the first alternative no text matches."""
        item = next(item for item in alternatives[0].items if item.least and not self._has_text(item))
        if isinstance(item.inner, list):
            return self._blamed(item.inner)
        if isinstance(item.inner, Grammar):
            return Leaf("other", "%lark")
        return item.inner

    def _can_match(self, alternative: Alternative) -> bool:
        return all(item.least == 0 or self._has_text(item) for item in alternative.items)

    def _has_text(self, item: Item) -> bool:
        """Whether some text matches an item that comes once."""
        match item.inner:
            case list():
                return any(map(self._can_match, item.inner))
            case Grammar():
                return _Rules(item.inner).can_end("start")
            case Leaf("name", text):
                return self.can_end(text)
            case Leaf("terminal" | "regex", text):
                return not self._is_empty(text)
        return True


@lru_cache(maxsize=4096)
def _is_empty(text: str, context: str) -> bool:
    """Whether no text matches a terminal (its opposite may match what is no UTF-8). context: what it may refer to."""
    return is_stuck(byte_matcher(unforced(f"start: RAMIFY_ASKS\nRAMIFY_ASKS: ({text}) & /(?s:.*)/\n{context}")))
