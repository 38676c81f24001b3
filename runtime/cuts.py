"""Where a text can be cut so that tokenizing grows with it: the proof behind `Tokenizer.extend`.

A cut is a position between a visible character and a space. It is safe when nothing in the tokenizer can reach
across it, whatever is appended later: no added token, no match of a pre-tokenizer's regular expression, no merge.
`cut_rule` reads that off the parts of tokenizer.json once, and returns None where it cannot prove it; then the whole
run is tokenized again at each append, which is slower and always right.

The regular expressions are read by a small abstract interpreter that knows three kinds of characters (visible,
space, other white space) and errs on the safe side: what it does not know may match anything.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

METASPACE = "▁"
_VISIBLE, _SPACE, _BLANK = "visible", "space", "blank"
_ANY = frozenset({_VISIBLE, _SPACE, _BLANK})
_BLANKS = "".join(chr(code) for code in range(0x3001) if chr(code).isspace() and code != 0x20)
_ESCAPES = {
    "s": frozenset({_SPACE, _BLANK}),
    "S": frozenset({_VISIBLE}),
    "d": frozenset({_VISIBLE}),
    "w": frozenset({_VISIBLE}),
    "D": _ANY,
    "W": _ANY,
    **dict.fromkeys("rntfv", frozenset({_BLANK})),
}
_COVERED = {"s": frozenset({_SPACE, _BLANK}), "S": frozenset({_VISIBLE})}
"""The kinds that an escape matches wholly; for `[^...]`, which matches what is left."""


@dataclass(frozen=True, slots=True)
class CutRule:
    """Says which positions of a text are safe cuts; `no_cut_after` holds added tokens that swallow the space."""

    no_cut_after: tuple[str, ...] = ()

    def is_cut(self, text: str, position: int) -> bool:
        """Whether `text` may be cut before `text[position]`, now and after any append."""
        if position <= 0 or position >= len(text) or text[position] != " ":
            return False
        before = text[position - 1]
        visible = before != METASPACE and not before.isspace() and before.isprintable()
        return visible and not text.endswith(self.no_cut_after, 0, position)

    def last(self, text: str, start: int, stop: int) -> int | None:
        """The last cut in `[start, stop)`, or None."""
        position = text.rfind(" ", start, stop)
        while position >= 0 and not self.is_cut(text, position):
            position = text.rfind(" ", start, position)
        return position if position >= 0 else None


def cut_rule(spec: Mapping[str, Any], vocabulary: Iterable[str]) -> CutRule | None:
    """The rule for a tokenizer, or None when no position can be proved safe.

    spec: the parts `normalizer`, `pre_tokenizer`, `model` and `added_tokens` of tokenizer.json (of the model only
    its options are read); vocabulary: the model's tokens, without added ones.
    """
    added = spec.get("added_tokens") or ()
    normalizers = _flatten(spec.get("normalizer"), "normalizers")
    if any(_reaches_over_space(token, normalizers) for token in added) or not all(map(_is_local, normalizers)):
        return None
    splits = _splits_at_cuts(_flatten(spec.get("pre_tokenizer"), "pretokenizers"), normalizers)
    if splits is None or not _model_stays_inside(spec.get("model") or {}, splits, vocabulary):
        return None
    return CutRule(tuple(token["content"] for token in added if token.get("rstrip")))


def _flatten(part: Mapping[str, Any] | None, members: str) -> list[Mapping[str, Any]]:
    if part is None:
        return []
    if part["type"] != "Sequence":
        return [part]
    return [leaf for member in part[members] for leaf in _flatten(member, members)]


def _reaches_over_space(token: Mapping[str, Any], normalizers: list[Mapping[str, Any]]) -> bool:
    """Whether an added token could match across a cut, or match differently because of one."""
    content: str = token["content"]
    if token.get("single_word") and content[:1] in (" ", METASPACE):
        return True
    if token.get("normalized") and any(part["type"] in ("Prepend", "Replace") for part in normalizers):
        content = content.replace(METASPACE, " ")
    return any(left != " " and right == " " for left, right in pairwise(content))


def _is_local(normalizer: Mapping[str, Any]) -> bool:
    """Whether normalizing both sides of a cut alone gives the whole, up to a mark put before the text."""
    kind = normalizer["type"]
    return kind in ("NFC", "Prepend") or (kind == "Replace" and _replaces_space(normalizer))


def _replaces_space(part: Mapping[str, Any]) -> bool:
    return part.get("pattern") == {"String": " "} and part.get("content") == METASPACE


def _splits_at_cuts(stages: list[Mapping[str, Any]], normalizers: list[Mapping[str, Any]]) -> bool | None:
    """True: some stage always splits at a cut. False: none does, but none joins across it. None: cannot tell."""
    spaces_left = not any(part["type"] == "Replace" for part in normalizers)
    for stage in stages:
        verdict = _stage_splits(stage, spaces_left)
        if verdict is not False:
            return verdict
        spaces_left = spaces_left and stage["type"] != "Metaspace"
    return None if spaces_left else False


def _stage_splits(stage: Mapping[str, Any], spaces_left: bool) -> bool | None:
    kind = stage["type"]
    if kind == "Metaspace":
        return bool(stage.get("split", True)) if stage.get("replacement") == METASPACE else None
    if kind == "Digits":
        return False
    if kind == "Split" and not spaces_left:
        return False if stage["pattern"] == {"String": " "} else None
    if kind == "Split":
        return _regex_splits(stage)
    if kind == "ByteLevel":
        return bool(stage.get("use_regex", True)) if spaces_left else None
    return None


def _regex_splits(stage: Mapping[str, Any]) -> bool | None:
    keeps_matches = stage["behavior"] == "Isolated" or (stage["behavior"] == "Removed" and stage["invert"])
    pattern = stage["pattern"].get("Regex")
    if pattern is None or not keeps_matches or matches_over_space(pattern):
        return None
    # An alternative that takes any white space makes sure that the space itself lies in a match.
    takes_spaces = pattern.rsplit("|", 1)[-1] in (r"\s", r"\s+")
    if stage["behavior"] == "Removed" and not takes_spaces:
        return None
    return takes_spaces


def _model_stays_inside(model: Mapping[str, Any], splits: bool, vocabulary: Iterable[str]) -> bool:
    """Whether the model never joins across a cut; BPE without a split needs a vocabulary without such tokens."""
    if model.get("dropout"):
        return False
    if splits:
        return True
    if model.get("type") != "BPE" or model.get("continuing_subword_prefix") or model.get("end_of_word_suffix"):
        return False
    tokens = list(vocabulary)
    return METASPACE in tokens and not any(METASPACE in token.lstrip(METASPACE) for token in tokens)


def matches_over_space(pattern: str) -> bool:
    """Whether a match of `pattern`, or its lookahead, may hold a visible character followed by a space."""
    try:
        return _Reader(pattern).whole().joins
    except _Unreadable:
        return True


class _Unreadable(Exception):
    """The pattern uses something that the reader does not know."""


@dataclass(frozen=True, slots=True)
class _Shape:
    """What a part of a pattern may match: kinds at its ends, whether it may be empty, whether it may hold a cut."""

    first: frozenset[str] = frozenset()
    last: frozenset[str] = frozenset()
    empty: bool = True
    joins: bool = False

    def then(self, other: _Shape) -> _Shape:
        return _Shape(
            self.first | other.first if self.empty else self.first,
            self.last | other.last if other.empty else other.last,
            self.empty and other.empty,
            self.joins or other.joins or (_VISIBLE in self.last and _SPACE in other.first),
        )

    def either(self, other: _Shape) -> _Shape:
        empty, joins = self.empty or other.empty, self.joins or other.joins
        return _Shape(self.first | other.first, self.last | other.last, empty, joins)

    def optional(self) -> _Shape:
        return _Shape(self.first, self.last, True, self.joins)


class _Reader:
    """Reads a regular expression (Oniguruma's syntax) into its shape; raises _Unreadable."""

    def __init__(self, pattern: str) -> None:
        self.pattern = pattern
        self.at = 0

    def whole(self) -> _Shape:
        shape = self._alternatives()
        if self.at < len(self.pattern):
            raise _Unreadable
        return shape

    def _next(self) -> str:
        if self.at >= len(self.pattern):
            raise _Unreadable
        self.at += 1
        return self.pattern[self.at - 1]

    def _take(self, text: str) -> bool:
        found = self.pattern.startswith(text, self.at)
        self.at += len(text) if found else 0
        return found

    def _until(self, end: str) -> str:
        stop = self.pattern.find(end, self.at)
        if stop < 0:
            raise _Unreadable
        start, self.at = self.at, stop + len(end)
        return self.pattern[start:stop]

    def _alternatives(self) -> _Shape:
        shape = self._sequence()
        while self._take("|"):
            shape = shape.either(self._sequence())
        return shape

    def _sequence(self) -> _Shape:
        shape = _Shape()
        while self.at < len(self.pattern) and self.pattern[self.at] not in "|)":
            shape = shape.then(self._repeated())
        return shape

    def _repeated(self) -> _Shape:
        shape = self._atom()
        while self.at < len(self.pattern) and self.pattern[self.at] in "?*+{":
            mark = self._next()
            bounds = self._until("}").split(",") if mark == "{" else []
            if not all(bound.isdecimal() or not bound for bound in bounds):
                raise _Unreadable
            if mark != "?" and bounds != ["1"]:
                shape = shape.either(shape.then(shape))
            if mark in "?*" or (bounds and bounds[0] in ("", "0")):
                shape = shape.optional()
        return shape

    def _atom(self) -> _Shape:
        character = self._next()
        if character == "(":
            return self._group()
        if character == "[":
            return _one(self._set())
        if character == ".":
            return _one(_ANY)
        if character == "\\":
            return _one(self._escape()[0])
        if character in "^$":
            raise _Unreadable
        return _one(_kinds(character, character))

    def _group(self) -> _Shape:
        looks_ahead = self._take("?=") or self._take("?!")
        if not (looks_ahead or self._take("?:") or self._take("?i:") or self._take("?>")) and self._take("?"):
            raise _Unreadable
        shape = self._alternatives()
        if not self._take(")"):
            raise _Unreadable
        return shape.optional() if looks_ahead else shape

    def _escape(self) -> tuple[frozenset[str], frozenset[str], str | None]:
        """The kinds that an escape may match, those that it matches wholly, and the character if it is but one."""
        character = self._next()
        if character in "pP":
            return (self._property(negated=character == "P"), frozenset(), None)
        if character in _ESCAPES:
            return (_ESCAPES[character], _COVERED.get(character, frozenset()), None)
        if character.isalnum():
            raise _Unreadable
        return (_kinds(character, character), frozenset(), character)

    def _property(self, *, negated: bool) -> frozenset[str]:
        if not self._take("{"):
            raise _Unreadable
        name = self._until("}")
        known = name[:1] in set("LNMPS") and (len(name) == 1 or (len(name) == 2 and name[1].islower()))
        return frozenset({_VISIBLE}) if known and not negated else _ANY

    def _set(self) -> frozenset[str]:
        """The kinds that `[...]` may match; the opening bracket is read already."""
        negated = self._take("^")
        may: frozenset[str] = frozenset()
        covered: frozenset[str] = frozenset()
        first = True
        while first or not self._take("]"):
            first = False
            kinds, wholly = self._member()
            may, covered = may | kinds, covered | wholly
        return _ANY - covered if negated else may

    def _member(self) -> tuple[frozenset[str], frozenset[str]]:
        low = self._next()
        if low == "[" or (low == "&" and self._take("&")):
            raise _Unreadable
        kinds, wholly, single = self._escape() if low == "\\" else (_kinds(low, low), frozenset(), low)
        is_range = self.pattern[self.at : self.at + 1] == "-" and self.pattern[self.at + 1 : self.at + 2] != "]"
        if not is_range:
            return kinds, wholly | (kinds if single == " " else frozenset())
        if single is None:
            raise _Unreadable
        self._take("-")
        high = self._next()
        high = self._escape()[2] or "\U0010ffff" if high == "\\" else high
        return _kinds(single, high), frozenset()


def _one(kinds: frozenset[str]) -> _Shape:
    return _Shape(kinds, kinds, empty=False)


def _kinds(low: str, high: str) -> frozenset[str]:
    """The kinds of the characters from `low` to `high`."""
    kinds = {_SPACE} if low <= " " <= high else set()
    if any(low <= blank <= high for blank in _BLANKS):
        kinds.add(_BLANK)
    if low < high or not kinds:
        kinds.add(_VISIBLE)
    return frozenset(kinds)
