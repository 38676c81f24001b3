"""How a text that was cut off may end: the shortest way to fulfil its constraint."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from itertools import product
from typing import TYPE_CHECKING

from ..ir.errors import RequestError
from .constraint import Constraint, follower, matches
from .request import Done

if TYPE_CHECKING:
    from llguidance import LLMatcher

# How many ways are looked at, first by each search, then if none found any: more than long objects take. Each has a
# copy of the matcher.
_SOME_WAYS, _MAX_WAYS = 600, 12_000
# How many bytes those may add, all together: the longer a way, the more its copy costs.
_MAX_ADDED = 8_000_000
# A text is free where so many bytes may follow. There all letters count as alike, and all digits: one of each is tried.
_FREE = 48
_CLOSING, _SIGNS, _SPACES, _ESCAPE = b'"}],', b'"{}[],:', b" \t\r\n", ord("\\")
_NUMBER = frozenset(b"0123456789.eE+-")


def end_cut(done: Done, constraint: Constraint, *, close: bool) -> Done:
    """What a generation that max_tokens ended comes to, if its text does not match: cut off, or with an end added.

    A constraint that names a model's special tokens cannot be looked at without them; its text counts as it is.
    """
    try:
        if matches(constraint, done.text):
            return done
    except RequestError:
        return done
    if not close:
        return replace(done, is_cut=True)
    try:
        end = closing(constraint, done.text)
    except RequestError:
        return replace(done, is_cut=True)
    return replace(done, text=done.text + end, tail=done.tail + end, closing=end)


def closing(constraint: Constraint, text: str) -> str:
    """The shortest text, in bytes, that makes another match a constraint.

    Where free text has to be added, as little of it as possible. Raises RequestError if a text cannot be followed or
    nothing short is found.
    """
    matcher = follower(constraint, text)
    named = _named(bytes(set(constraint.source.encode())))
    choices = ((_few, True), (_kinds, False), (named, False), (_some, True), (_all, True))
    for most, (choose, is_alike) in product((_SOME_WAYS, _MAX_WAYS), choices):
        search = _Search(choose, most, is_alike=is_alike, can_force=not constraint.forces_long)
        found = search.shortest(matcher)
        if found is not None:
            return found.decode()
    raise RequestError(f"{constraint.label}: no short way to end {text[-40:]!r} was found")


@dataclass(order=True)
class _Way:
    """A way to go on. spare: how many bytes went on with what could have been closed instead."""

    spare: int
    cost: int
    added: bytes
    matcher: LLMatcher = field(compare=False)


@dataclass
class _Search:
    """choose: the bytes to try, of those that may follow. most: how many ways to look at. is_alike: whether ways that
    look alike are taken to be so, and what can be closed is closed first, as JSON ends soon. can_force: whether all
    text that has to follow may be asked for, which can be long."""

    choose: Callable[[bytes], bytes]
    most: int
    is_alike: bool
    can_force: bool
    _num_ways: int = 0
    _num_added: int = 0

    def shortest(self, start: LLMatcher) -> bytes | None:
        """Ways to go on in the order of their length, but those that close what they can first."""
        ways, seen = [_Way(0, 0, b"", start)], set[object]()
        while ways and self._num_ways < self.most and self._num_added < _MAX_ADDED:
            way = heapq.heappop(ways)
            if way.matcher.is_accepting() and _is_text(way.added):
                return way.added
            mark = (self._prospect(way.matcher), _place(way.added)) if self.is_alike else way.added
            if mark not in seen:
                seen.add(mark)
                for more in self._continued(way):
                    heapq.heappush(ways, more)
        return None

    def _continued(self, way: _Way) -> Iterator[_Way]:
        """The ways with one byte more, and whatever has to follow that."""
        allowed = _allowed(way.matcher)
        closing, chosen = _closing(allowed) if self.is_alike else b"", self.choose(allowed)
        self._num_ways += len(chosen)
        self._num_added += len(chosen) * len(way.added)
        for byte in chosen:
            matcher = way.matcher.deep_copy()
            if matcher.consume_token(byte):
                forced = self._forced(matcher)
                matcher.consume_tokens(list(forced))
                added = way.added + bytes((byte,)) + forced
                yield _Way(way.spare + bool(closing and byte not in closing), len(added), added, matcher)

    def _forced(self, matcher: LLMatcher) -> bytes:
        return matcher.compute_ff_bytes() if self.can_force else b""

    def _prospect(self, matcher: LLMatcher) -> tuple[object, ...]:
        """What may follow, and what may follow the end of a text or list: ways with the same are taken to be alike."""
        allowed = _allowed(matcher)
        after = []
        for byte in _CLOSING:
            if byte in allowed:
                ahead = matcher.deep_copy()
                ahead.consume_token(byte)
                after.append((byte, ahead.is_accepting(), self._forced(ahead), _allowed(ahead)))
        return (matcher.is_accepting(), allowed, *after)


def _allowed(matcher: LLMatcher) -> bytes:
    mask = matcher.compute_bitmask()
    return bytes(byte for byte in range(256) if mask[byte >> 3] >> (byte & 7) & 1)


def _closing(allowed: bytes) -> bytes:
    """The bytes that close something, if there are any: in free text a quotation mark, else brackets, behind numbers
    also a comma."""
    if len(allowed) > _FREE:
        return b'"' if b'"'[0] in allowed else b""
    brackets = bytes(byte for byte in allowed if byte in b"]}")
    return brackets or (b"," if b","[0] in allowed and not set(allowed) - _NUMBER - {b","[0]} else b"")


def _few(allowed: bytes) -> bytes:
    """The bytes to try first: no white space where something else may stand, and in free text an end or one letter."""
    allowed = allowed.translate(None, _SPACES) or allowed
    if len(allowed) <= _FREE:
        return allowed
    letters = [byte for byte in allowed if chr(byte).isalpha()]
    return bytes(byte for byte in (b'"'[0], *letters[:1]) if byte in allowed)


def _some(allowed: bytes) -> bytes:
    """In free text also digits and signs, of which a pattern may want one."""
    allowed = allowed.translate(None, _SPACES) or allowed
    if len(allowed) <= _FREE:
        return allowed
    letters = [byte for byte in allowed if chr(byte).isalpha()]
    return bytes([*letters[:1], *(byte for byte in allowed if byte < 128 and byte not in letters and byte != _ESCAPE)])


def _all(allowed: bytes) -> bytes:
    return allowed


def _kinds(allowed: bytes) -> bytes:
    """One byte of each kind: small and large letters, digits, white space, other alphabets, and each sign."""
    return bytes({_kind(byte): byte for byte in reversed(allowed)}.values())


def _kind(byte: int) -> object:
    char = chr(byte)
    if byte >= 128 or byte < 32:
        return byte >= 128
    return "a" if char.islower() else "A" if char.isupper() else "0" if char.isdigit() else char


def _named(letters: bytes) -> Callable[[bytes], bytes]:
    """The letters that stand in the constraint itself: what free text waits for may be made of them."""
    wanted = frozenset(byte for byte in letters if chr(byte).isalnum() or byte in b'"')

    def choose(allowed: bytes) -> bytes:
        kinds = b"" if len(allowed) > _FREE else _kinds(allowed)
        return kinds + bytes(byte for byte in allowed if byte in wanted and byte not in kinds)

    return choose


def _place(added: bytes) -> tuple[int, int]:
    """How many signs of JSON there are, and how much stands behind the last."""
    last = max(map(added.rfind, _SIGNS))
    return len(added) - len(added.translate(None, _SIGNS)), len(added) - last


def _is_text(added: bytes) -> bool:
    try:
        added.decode()
    except UnicodeDecodeError:
        return False
    return True
