"""The text of one generation as it grows: stops across token boundaries, and what may be streamed when.

Nothing is released that belongs to a stop or may still become part of one. Of several stops the one that is complete
first counts (the longest of those that end together), so the result does not depend on how the text falls into tokens.
For a pattern that means: the text ends at the first character after which the pattern is found in the text so far
(`$` stands there), and what is kept is the text before the match. A pattern whose matches have no longest length, or
that looks ahead, holds everything back until the end.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence
from functools import lru_cache
from re import _constants, _parser
from typing import Any, Protocol

from .request import Delta, TokenLogprob, compiled


class TextStream(Protocol):
    """Incremental detokenization; text that was returned is never taken back."""

    def step(self, token_id: int, /) -> str:
        """The text that became final with this token."""

    def flush(self) -> str:
        """The text that was held back to the end, such as U+FFFD for half a character; the stream starts afresh."""


class Output:
    """Collects generated tokens, finds the stop, and hands out what became final.

    matched: the stop string or the pattern that was found, if any; after that nothing more may be pushed.
    keeps_half: whether bytes at the end that never became a character are U+FFFD; else these tokens are dropped.
    """

    __slots__ = (
        "_ends", "_has_logprobs", "_held", "_is_plain", "_keeps_half", "_logprobs", "_num_detokenized", "_num_kept",
        "_num_taken", "_patterns", "_pieces", "_pieces_taken", "_probe", "_released", "_stops", "_stream", "_token_ids",
        "matched",
    )  # fmt: skip

    def __init__(
        self,
        new_stream: Callable[[], TextStream],
        stops: tuple[str, ...],
        patterns: tuple[str, ...] = (),
        *,
        keeps_half: bool = True,
    ) -> None:
        self.matched: str | None = None
        self._stream = new_stream()
        self._probe = new_stream()
        self._stops = stops
        self._patterns = patterns
        self._keeps_half = keeps_half
        self._is_plain = keeps_half and not (stops or patterns)
        self._has_logprobs = False
        self._token_ids: list[int] = []
        self._logprobs: list[TokenLogprob | None] = []
        self._ends: list[int] = []
        self._pieces: list[str] = []
        self._held = ""
        self._released = 0
        self._num_detokenized = 0
        self._num_kept = 0
        self._num_taken = 0
        self._pieces_taken = 0

    @property
    def text(self) -> str:
        """The released text: all of it once the generation has ended."""
        self._detokenize()
        return "".join(self._pieces)

    @property
    def token_ids(self) -> tuple[int, ...]:
        """The released tokens: those whose text lies wholly within the released text."""
        return tuple(self._token_ids[: self._num_kept])

    @property
    def logprobs(self) -> tuple[TokenLogprob, ...]:
        """The log-probabilities of `token_ids`, where they were asked for."""
        return self._known_logprobs(0)

    @property
    def tail(self) -> str:
        """The released text that no released token stands for: a stop or half a character began inside a token."""
        if self.matched is None and self._keeps_half:
            return ""
        return self.text[self._ends[self._num_kept - 1] if self._num_kept else 0 :]

    def push(self, token_id: int, logprob: TokenLogprob | None = None) -> None:
        """Adds the next token; sets `matched` when that completes a stop."""
        if logprob is not None or self._has_logprobs:
            self._add_logprob(logprob)
        self._token_ids.append(token_id)
        if self._is_plain:
            self._num_kept += 1
            return
        piece = self._stream.step(token_id)
        if self._ends_in_character():
            end = self._released + len(self._held) + len(piece)
            self._ends += [end] * (len(self._token_ids) - len(self._ends))
        self._add_text(piece)

    def _detokenize(self) -> None:
        """Makes the text of what was pushed. Where nothing is looked for in it, that waits until somebody asks."""
        if self._is_plain:
            num_known = self._num_detokenized
            self._pieces += [self._stream.step(token_id) for token_id in self._token_ids[num_known:]]
            self._num_detokenized = len(self._token_ids)

    def _add_logprob(self, logprob: TokenLogprob | None) -> None:
        """That of the token which comes next; those before the first have none."""
        self._has_logprobs = True
        self._logprobs += [None] * (len(self._token_ids) - len(self._logprobs))
        self._logprobs.append(logprob)

    def finish(self) -> None:
        """No token follows: releases what was held back. Even now a stop may be found in it."""
        self._detokenize()
        half = self._stream.flush()
        if self.matched is None and self._keeps_half:
            self._add_text(half)
        if self.matched is None:
            self._release(len(self._held))
        if self.matched is None and self._keeps_half:
            self._num_kept = len(self._token_ids)

    def take(self) -> Delta | None:
        """What was released since the last call, if anything was."""
        self._detokenize()
        pieces, token_ids = self._pieces[self._pieces_taken :], self._token_ids[self._num_taken : self._num_kept]
        text = pieces[0] if len(pieces) == 1 else "".join(pieces)
        if not text and not token_ids:
            return None
        logprobs = self._known_logprobs(self._num_taken) if self._has_logprobs else ()
        self._pieces_taken, self._num_taken = len(self._pieces), self._num_kept
        return Delta(text, tuple(token_ids), logprobs)

    def _known_logprobs(self, start: int) -> tuple[TokenLogprob, ...]:
        return tuple(logprob for logprob in self._logprobs[start : self._num_kept] if logprob is not None)

    def _add_text(self, piece: str) -> None:
        num_searched = len(self._held)
        self._held += piece
        found = self._find(num_searched) if piece else None
        if found is None:
            self._release(len(self._held) - self._num_undecided())
            return
        start, self.matched = found
        self._release(start)

    def _find(self, num_searched: int) -> tuple[int, str] | None:
        """Where in the held text the first stop begins, and which it is. A match begins in no released text."""
        if not self._patterns:
            return find_stop(self._held, self._stops)
        text = self.text + self._held
        found = find_first(text, self._stops, self._patterns, self._released, self._released + num_searched)
        return None if found is None else (found[0] - self._released, found[1])

    def _num_undecided(self) -> int:
        """How many characters at the end may still become part of a stop."""
        undecided = longest_start(self._held, self._stops)
        for pattern in self._patterns:
            longest = longest_match(pattern)
            undecided = max(undecided, len(self._held) if longest is None else min(longest - 1, len(self._held)))
        return undecided

    def _release(self, length: int) -> None:
        """Releases the first `length` characters that were held, and the tokens whose text that completes."""
        if length:
            self._pieces.append(self._held[:length])
            self._held = self._held[length:]
            self._released += length
        self._num_kept = bisect_right(self._ends, self._released)

    def _ends_in_character(self) -> bool:
        """Whether the last token's bytes end where a character does.

        A stop may begin with a character whose first bytes came with the text before it. So tokens up to the
        next such end share that end, and are kept or dropped together.
        """
        for token_id in self._token_ids[len(self._ends) :]:
            self._probe.step(token_id)
        return not self._probe.flush()


def find_stop(text: str, stops: Sequence[str]) -> tuple[int, str] | None:
    """Where the stop string that is complete first begins in `text`, and which it is."""
    starts = ((text.find(stop), stop) for stop in stops)
    found = [(start + len(stop), start, stop) for start, stop in starts if start >= 0]
    if not found:
        return None
    _, start, stop = min(found)
    return start, stop


def find_first(
    text: str, stops: Sequence[str], patterns: Sequence[str], start: int = 0, num_searched: int = 0
) -> tuple[int, str] | None:
    """Where the stop that is complete first begins in `text`, and which stop string or pattern it is.

    start: no match begins before it. num_searched: no match ends at or before this position.
    """
    found = find_stop(text[start:], stops)
    candidates = [] if found is None else [(start + found[0] + len(found[1]), start + found[0], found[1])]
    for pattern in patterns:
        place = _first_match(pattern, text, start, num_searched)
        if place is not None:
            candidates.append((*place, pattern))
    return min(candidates)[1:] if candidates else None


def _first_match(pattern: str, text: str, start: int, num_searched: int) -> tuple[int, int] | None:
    """The length of the shortest beginning of `text` that has a match, and where that begins."""
    search = compiled(pattern).search
    if not _looks_ahead(pattern) and search(text, start) is None:
        return None  # then no shorter text has one either
    ends = range(num_searched + 1, len(text) + 1)
    return next(((end, match.start()) for end in ends if (match := search(text, start, end)) is not None), None)


# What depends on more than the matched characters: anchors, lookaround, and what may not give back what it took.
_SURROUNDINGS = (
    _constants.AT, _constants.ASSERT, _constants.ASSERT_NOT, _constants.ATOMIC_GROUP, _constants.POSSESSIVE_REPEAT,
)  # fmt: skip


@lru_cache(maxsize=256)
def longest_match(pattern: str) -> int | None:
    """The most characters that a match can depend on; None where there is no bound."""
    if _looks_ahead(pattern):
        return None
    _, most = _parser.parse(pattern).getwidth()
    return None if most >= _constants.MAXREPEAT else int(most)


@lru_cache(maxsize=256)
def _looks_ahead(pattern: str) -> bool:
    """Whether a match may depend on what follows it, or on where the text ends."""
    todo: list[Any] = [_parser.parse(pattern)]
    while todo:
        part = todo.pop()
        if isinstance(part, _parser.SubPattern | list | tuple):
            todo.extend(part)
        elif any(part is op for op in _SURROUNDINGS):
            return True
    return False


def longest_start(text: str, stops: Sequence[str]) -> int:
    """Length of the longest end of `text` with which a stop string begins."""
    lengths = (
        length
        for stop in stops
        for length in range(1, min(len(stop), len(text) + 1))
        if text.endswith(stop[:length])
    )  # fmt: skip
    return max(lengths, default=0)
