"""What a generation's text must match: a regular expression, a JSON schema, or a grammar.

A Constraint is the request's half: text that is checked without a model. Regular expressions are those of Rust's regex
crate (no look-around, no back-references) and match the whole text; grammars are in llguidance's Lark dialect. What
llguidance cannot enforce is an error, never relaxed.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from ..ir.errors import RequestError

if TYPE_CHECKING:
    from llguidance import LLMatcher

ConstraintKind = Literal["regex", "json_schema", "lark"]
_LABELS: dict[ConstraintKind, str] = {"regex": "regex", "json_schema": "json_schema", "lark": "grammar"}
_HELP: dict[ConstraintKind, str] = {
    "regex": "the syntax is that of Rust's regex crate: no look-around, no back-references",
    "json_schema": "leave out what the message names, or say it in other words: it could not be enforced",
    "lark": "the syntax is llguidance's Lark dialect: rules in lower case, terminals in upper case, `start` first",
}
# Grammars that name special tokens are checked where there is a tokenizer.
_NEEDS_TOKENIZER = "no tokenizer"


@dataclass(frozen=True, slots=True)
class Constraint:
    """source: the regular expression, the JSON schema as text, or the Lark grammar."""

    kind: ConstraintKind
    source: str

    @property
    def label(self) -> str:
        """The argument of gen() that asks for it."""
        return _LABELS[self.kind]

    def check(self) -> None:
        """Raises RequestError for a source that does not parse, or that asks for what cannot be enforced."""
        if (problem := _problem(self)) is not None:
            raise RequestError(f"{self.label}: {problem}", help=_HELP[self.kind])

    def grammar(self) -> str:
        """The grammar that llguidance compiles. Raises RequestError for a JSON schema that is no JSON object."""
        from llguidance import LLMatcher  # slow to import

        if self.kind == "regex":
            return LLMatcher.grammar_from_regex(self.source)
        if self.kind == "lark":
            return LLMatcher.grammar_from_lark(self.source)
        try:
            return LLMatcher.grammar_from_json_schema(self.source, overrides={"whitespace_flexible": False})
        except ValueError as error:
            raise RequestError(f"json_schema: {error}") from None


@lru_cache(maxsize=1024)
def _problem(constraint: Constraint) -> str | None:
    """What is wrong with a constraint, in one line."""
    from llguidance import LLMatcher

    failed, messages = LLMatcher.validate_grammar_with_warnings(constraint.grammar())
    problems = [message for message in messages if failed or not message.startswith(_NEEDS_TOKENIZER)]
    return brief(problems[0]) if problems else None


def matches(constraint: Constraint, text: str) -> bool:
    """Whether a text fulfils a constraint. White space in JSON does not count, the order of its properties does.

    Raises RequestError for a constraint that cannot be compiled, or that names a model's special tokens.
    """
    if constraint.kind == "json_schema":
        try:
            text = msgspec.json.encode(msgspec.json.decode(text)).decode()
        except msgspec.DecodeError:
            return False
    matcher = _byte_matcher(constraint).deep_copy()
    if matcher.is_error():
        raise RequestError(f"{constraint.label}: {brief(matcher.get_error())}")
    token_ids = list(text.encode())
    return matcher.try_consume_tokens(token_ids) == len(token_ids) and matcher.is_accepting()


@lru_cache(maxsize=256)
def _byte_matcher(constraint: Constraint) -> LLMatcher:
    """A matcher for which every byte is a token."""
    from llguidance import LLMatcher, LLTokenizer

    return LLMatcher(LLTokenizer("byte"), constraint.grammar(), log_level=0)


def brief(message: str) -> str:
    """What llguidance says, in one line: it adds the source, or the whole state of the parser."""
    lines = [line.strip() for line in message.splitlines() if line.strip()] or ["it cannot be compiled"]
    causes = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
    place = re.match(r"at (\d+)\((\d+)\): ", lines[0])
    if causes:  # a regular expression that does not parse, perhaps somewhere in a grammar
        return f"line {place[1]}: {causes[0]}" if place and place[1] != "1" else causes[0]
    text = lines[0].partition(" Enable ")[0]
    return f"line {place[1]}, column {place[2]}: {text[place.end() :]}" if place else text


def regex_constraint(regex: object) -> Constraint:
    """The constraint of `gen(regex=...)`. Raises TypeError."""
    if not isinstance(regex, str):
        raise TypeError(f"regex takes a text, not {type(regex).__name__}: {regex!r:.60}")
    return Constraint("regex", regex)


def json_schema_constraint(schema: object) -> Constraint:
    """The constraint of `gen(json_schema=...)`: a dict, True (any JSON), or the text of one.

    The order of properties is kept: it is the order in which they are generated. Raises TypeError, RequestError.
    """
    if isinstance(schema, str):
        try:
            schema = msgspec.json.decode(schema)
        except msgspec.DecodeError as error:
            raise RequestError(f"json_schema: the text is not JSON: {error}") from None
    if schema is False:
        raise RequestError("json_schema: the schema `false` accepts nothing")
    schema = {} if schema is True else schema
    if not isinstance(schema, Mapping):
        raise TypeError(f"json_schema takes a JSON schema (dict or text), not {type(schema).__name__}: {schema!r:.60}")
    try:
        return Constraint("json_schema", msgspec.json.encode(schema).decode())
    except TypeError as error:
        raise TypeError(f"json_schema holds what is no JSON: {error}") from None


def grammar_constraint(grammar: object) -> Constraint:
    """The constraint of `gen(grammar=...)`: a Lark grammar, or a path that ends in .lark. Raises TypeError and
    RequestError, for a file that cannot be read."""
    if isinstance(grammar, os.PathLike) or (isinstance(grammar, str) and _is_path(grammar)):
        try:
            return Constraint("lark", Path(grammar).read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError) as error:
            raise RequestError(f"grammar: {os.fspath(grammar)!r} cannot be read: {error}") from None
    if not isinstance(grammar, str):
        raise TypeError(f"grammar takes a Lark grammar (text or path), not {type(grammar).__name__}: {grammar!r:.60}")
    return Constraint("lark", grammar)


def _is_path(text: str) -> bool:
    return text.endswith(".lark") and "\n" not in text


_MAKERS = {"regex": regex_constraint, "json_schema": json_schema_constraint, "grammar": grammar_constraint}


def take_constraint(given: dict[str, Any]) -> Constraint | None:
    """Takes the argument of a gen that constrains it, if there is one, out of `given`."""
    for name, make in _MAKERS.items():
        if name in given:
            return make(given.pop(name))
    return None
