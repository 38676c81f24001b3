"""The grammar of calls of tools in a chat template's format: Lark, with the tools' schemas inside.

Marks that are single tokens of the model are named by their ids, so that they are generated as these tokens. For
looking at a text without the model, byte by byte, they are text.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import msgspec

from .call_format import CallFormat
from .grammar import SPACE
from .schema_lowering import bounded, lowered


class CallRequest(msgspec.Struct, frozen=True):
    """What is to be written: `least` to `most` calls; where none will do, words instead.

    tools: name, description and parameters (a JSON schema) of each. follows_text: whether the message has text before.
    """

    form: CallFormat
    tools: list[dict[str, Any]]
    least: int
    most: int
    follows_text: bool = False


def call_grammar(source: str, *, has_space: bool = False, is_bounded: bool = False, with_tokens: bool = False) -> str:
    """The Lark grammar of a CallRequest, given as JSON. is_bounded: as in Constraint.grammar.

    Raises RequestError for a schema that cannot be enforced.
    """
    request = msgspec.json.decode(source, type=CallRequest)
    form = request.form
    tokens = dict(form.tokens) if with_tokens else {}
    most = request.most if form.separator is not None else 1
    more = (
        f" ({_terms(form.separator or '', tokens)} call){{{max(request.least, 1) - 1},{most - 1}}}" if most > 1 else ""
    )
    leads = ("", form.lead) if request.follows_text and form.lead else ("",)
    ways = [f"{_terms(lead + form.opening, tokens)} call{more} {_terms(form.closing, tokens)}" for lead in leads]
    rules = [f"call: {' | '.join(f'call{index}' for index in range(len(request.tools)))}"]
    if request.least == 0:
        ways.append("WORDS")
        rules.append(f"WORDS: /{_without(form.mark)}/")
    if form.has_ids:
        rules.append(f"ID: /{form.id_pattern}/")
    for index, tool in enumerate(request.tools):
        rules.append(f"call{index}: {' '.join(_call(form, tool, index, tokens))}")
        rules.append(f"arguments{index}: %json {_schema(tool['parameters'], form, has_space, is_bounded)}")
    return "\n".join([f"start: {' | '.join(ways)}", *rules, ""])


def _call(form: CallFormat, tool: dict[str, Any], index: int, tokens: dict[str, int]) -> Iterator[str]:
    rules = {"name": _quoted(tool["name"]), "arguments": f"arguments{index}", "id": "ID"}
    for text, slot in zip(("", *form.between), form.slots, strict=True):
        yield from filter(None, (_terms(text, tokens), rules[slot]))


def _schema(schema: Any, form: CallFormat, has_space: bool, is_bounded: bool) -> str:
    """A tool's schema with how its JSON is written, as llguidance takes both inside of a grammar."""
    found = lowered(schema)
    found = bounded(found) if is_bounded else found
    item, key = form.json_separators
    written: dict[str, Any] = {"whitespace_flexible": False, "item_separator": item, "key_separator": key}
    if has_space:
        written = {"whitespace_pattern": SPACE}
    return json.dumps({**found, "x-guidance": written})


def _terms(text: str, tokens: dict[str, int]) -> str:
    """A fixed text as terms of a rule: the names of tokens by their ids, what stands between as it is."""
    if not tokens:
        return _quoted(text) if text else ""
    names = re.compile("|".join(map(re.escape, sorted(tokens, key=len, reverse=True))))
    terms, place = list[str](), 0
    for found in names.finditer(text):
        terms += [_quoted(text[place : found.start()])] if found.start() > place else []
        terms.append(f"<[{tokens[found[0]]}]>")
        place = found.end()
    return " ".join([*terms, *([_quoted(text[place:])] if place < len(text) else [])])


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def _without(mark: str) -> str:
    """A regular expression of the texts that do not hold a mark, whose first character occurs in it once.

    A text is made of other characters, and of beginnings of the mark that go on otherwise; a beginning may break off
    with the first character of another, or with the text.
    """
    first, length = mark[0], len(mark)
    if length == 1:
        return f"{_not(mark)}*"
    again = "|".join(_literal(mark[1:end] + first) for end in range(1, length))
    broken = "|".join(_literal(mark[1:end]) + _not(first + mark[end]) for end in range(1, length))
    cut = "|".join(_literal(mark[1:end]) for end in range(2, length))
    start = f"{_literal(first)}({again})*"
    return (
        f"({_not(first)}|{start}({broken}))*({start}({cut})?)?"
        if cut
        else f"({_not(first)}|{start}({broken}))*({start})?"
    )


def _literal(text: str) -> str:
    return "".join(f"\\x{{{ord(character):x}}}" for character in text)


def _not(characters: str) -> str:
    return f"[^{_literal(characters)}]"
