"""What a generation's text must match: a regular expression, a JSON schema, or a grammar.

A Constraint is the request's half: text that is checked without a model. Regular expressions are those of Rust's regex
crate (no look-around, no back-references) and match the whole text; grammars are in llguidance's Lark dialect. What
llguidance cannot enforce is an error, never relaxed.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from ..ir.errors import RequestError
from .call_grammar import CallRequest, call_grammar
from .forcing import forces_long_in_lark, is_counted_high
from .grammar import brief, byte_matcher, is_stuck, json_grammar, problem_in, unforced
from .lark_lowering import lowered_lark
from .schema_blame import located
from .schema_lowering import bounded, lowered

if TYPE_CHECKING:
    from llguidance import LLMatcher

ConstraintKind = Literal["regex", "json_schema", "lark", "calls"]
_LABELS: dict[ConstraintKind, str] = {
    "regex": "regex",
    "json_schema": "json_schema",
    "lark": "grammar",
    "calls": "tools",
}
_HELP = {
    "regex": "the syntax is that of Rust's regex crate: no look-around, no back-references",
    "lark": "the syntax is llguidance's Lark dialect: rules in lower case, terminals in upper case, `start` first",
}


@dataclass(frozen=True, slots=True)
class Constraint:
    """source: the regular expression, the JSON schema as text, the Lark grammar, or the JSON of a CallRequest.
    has_space: whether JSON may hold white space."""

    kind: ConstraintKind
    source: str
    has_space: bool = False

    @property
    def label(self) -> str:
        """The argument of gen() that asks for it."""
        return _LABELS[self.kind]

    def check(self) -> None:
        """Raises RequestError for a source that does not parse, or that asks for what cannot be enforced."""
        _check(self)

    @property
    def token_ids(self) -> frozenset[int]:
        """The tokens of the model that stand for text in it: special ones too, which show nothing elsewhere."""
        if self.kind != "calls":
            return frozenset()
        form = msgspec.json.decode(self.source, type=CallRequest).form
        return frozenset(token_id for _, token_id in form.tokens)

    @property
    def forces_long(self) -> bool:
        """Whether what has to follow somewhere may be very long, or have no end, so that it is not worked out."""
        return _forces_long(self)

    def grammar(self, *, is_bounded: bool = False, with_tokens: bool = False) -> str:
        """The grammar that llguidance compiles. is_bounded: with bounds on what would have none in JSON. with_tokens:
        with the model's tokens that it names, which for a look at a text byte by byte are text.

        Raises RequestError for a JSON schema that cannot be enforced, and for a Lark grammar of no texts.
        """
        grammar = self.written(is_bounded=is_bounded, with_tokens=with_tokens)
        return unforced(grammar) if self.forces_long else grammar

    def written(self, *, is_bounded: bool = False, with_tokens: bool = False) -> str:
        """`grammar`, where text that has to follow is always worked out."""
        from llguidance import LLMatcher  # slow to import

        if self.kind == "regex":
            return LLMatcher.grammar_from_regex(self.source)
        if self.kind == "lark":
            return LLMatcher.grammar_from_lark(lowered_lark(self.source, is_bounded=is_bounded))
        if self.kind == "calls":
            grammar = call_grammar(
                self.source, has_space=self.has_space, is_bounded=is_bounded, with_tokens=with_tokens
            )
            return LLMatcher.grammar_from_lark(grammar)
        schema = lowered(msgspec.json.decode(self.source))
        return json_grammar(bounded(schema) if is_bounded else schema, has_space=self.has_space)


@lru_cache(maxsize=1024)
def _check(constraint: Constraint) -> None:
    problem = problem_in(constraint.written()) or _emptiness(constraint)
    if problem is not None and constraint.kind == "json_schema":
        raise located(msgspec.json.decode(constraint.source), problem)
    if problem is not None:
        raise RequestError(f"{constraint.label}: {problem}", help=_HELP.get(constraint.kind))


@lru_cache(maxsize=1024)
def _forces_long(constraint: Constraint) -> bool:
    source = constraint.source if constraint.kind in ("regex", "lark") else constraint.source.replace("\\\\", "\\")
    return is_counted_high(source) or (constraint.kind == "lark" and forces_long_in_lark(source))


def _emptiness(constraint: Constraint) -> str | None:
    """That no text matches, where that shows at its beginning. Grammars that name special tokens cannot be asked."""
    return "no text matches it" if is_stuck(_byte_matcher(constraint).deep_copy()) else None


def matches(constraint: Constraint, text: str) -> bool:
    """Whether a text fulfils a constraint. White space in JSON does not count, the order of its properties does.

    Raises RequestError for a constraint that cannot be compiled, or that names a model's special tokens.
    """
    if constraint.kind != "json_schema":
        return _takes(constraint, text)
    try:
        return _takes(constraint, msgspec.json.encode(msgspec.json.decode(text)).decode())
    except msgspec.DecodeError:  # of numbers too large for a float as well
        return any(_takes(replace(constraint, has_space=has_space), text) for has_space in (False, True))


def violation(constraint: Constraint, text: str) -> str | None:
    """Where a text leaves a constraint, in words; None where it fulfils it. Raises RequestError as `matches` does."""
    if matches(constraint, text):
        return None
    is_json = constraint.kind == "json_schema"
    matcher = _byte_matcher(replace(constraint, has_space=True) if is_json else constraint).deep_copy()
    data = text.encode()
    rest = data[matcher.try_consume_tokens(list(data)) :].decode(errors="ignore")
    if rest:
        return f"nothing that matches has {rest!r:.60} behind {text.removesuffix(rest)[-40:]!r}"
    return "nothing that matches ends so" if not matcher.is_accepting() else "it does not match"


def _takes(constraint: Constraint, text: str) -> bool:
    matcher = _byte_matcher(constraint).deep_copy()
    if matcher.is_error():
        raise RequestError(f"{constraint.label}: {brief(matcher.get_error())}")
    token_ids = list(text.encode())
    return matcher.try_consume_tokens(token_ids) == len(token_ids) and matcher.is_accepting()


def follower(constraint: Constraint, text: str) -> LLMatcher:
    """A matcher, for which every byte is a token, that has followed a text. Raises RequestError if none can."""
    spaced = [replace(constraint, has_space=True)] if constraint.kind == "json_schema" else []
    for each in (constraint, *spaced):
        matcher = _byte_matcher(each).deep_copy()
        token_ids = list(text.encode())
        if not matcher.is_error() and matcher.try_consume_tokens(token_ids) == len(token_ids):
            return matcher
    raise RequestError(f"{constraint.label}: no text that matches begins with {text!r:.60}")


@lru_cache(maxsize=256)
def _byte_matcher(constraint: Constraint) -> LLMatcher:
    return byte_matcher(constraint.grammar())


def regex_constraint(regex: object) -> Constraint:
    """The constraint of `gen(regex=...)`. Raises TypeError, and RequestError for what is no UTF-8 text."""
    if not isinstance(regex, str):
        raise TypeError(f"regex takes a text, not {type(regex).__name__}: {regex!r:.60}")
    return Constraint("regex", _utf8("regex", regex))


def _utf8(label: str, text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise RequestError(f"{label}: half of a surrogate pair, {text[error.start]!r}, is no character") from None
    return text


def json_schema_constraint(schema: object) -> Constraint:
    """The constraint of `gen(json_schema=...)`: a dict, True (any JSON), or the text of one.

    The order of properties is kept: it is the order in which they are generated. Raises TypeError, RequestError.
    """
    if isinstance(schema, str):
        _utf8("json_schema", schema)
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
        source = msgspec.json.encode(schema).decode()
    except TypeError as error:
        raise TypeError(f"json_schema holds what is no JSON: {error}") from None
    except UnicodeEncodeError as error:
        raise RequestError(
            f"json_schema: half of a surrogate pair, {error.object[error.start]!r}, is no character"
        ) from None
    if not _is_finite(schema):
        raise TypeError("json_schema holds what is no JSON: a number that is infinite or none")
    return Constraint("json_schema", source)


def _is_finite(value: object) -> bool:
    """Whether there is no number in a JSON value that JSON has no form for."""
    if isinstance(value, Mapping):
        return all(map(_is_finite, value.values()))
    if isinstance(value, list | tuple):
        return all(map(_is_finite, value))
    return not isinstance(value, float) or math.isfinite(value)


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
    return Constraint("lark", _utf8("grammar", grammar))


def _is_path(text: str) -> bool:
    return text.endswith(".lark") and "\n" not in text


_MAKERS = {"regex": regex_constraint, "json_schema": json_schema_constraint, "grammar": grammar_constraint}


def take_constraint(given: dict[str, Any]) -> Constraint | None:
    """Takes the argument of a gen that constrains it, if there is one, out of `given`."""
    for name, make in _MAKERS.items():
        if name in given:
            return make(given.pop(name))
    return None
