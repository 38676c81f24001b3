"""Stop strings, stop patterns and streaming, against a direct search in the whole text."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ramify.ir.errors import RequestError
from ramify.runtime.output import Output, find_stop, longest_match, longest_start
from ramify.runtime.request import compiled

from .fakes import ToyStream, toy_decode

A, B, C = 0, 1, 2
FIRST_BYTE, SECOND_BYTE, SILENT = 26, 27, 28


class PairStream:
    """Every token is two letters, for stops that begin inside a token: token 10 * x + y is the letters x and y."""

    def step(self, token_id: int, /) -> str:
        return "abcdefghij"[token_id // 10] + "abcdefghij"[token_id % 10]

    def flush(self) -> str:
        return ""


def test_find_stop_takes_what_is_complete_first_and_the_longest_of_those() -> None:
    assert find_stop("xaby", ["xaby", "ab"]) == (1, "ab")
    assert find_stop("xab", ["b", "ab", "xab"]) == (0, "xab")
    assert find_stop("abab", ["ab"]) == (0, "ab")
    assert find_stop("abc", ["d"]) is None and find_stop("abc", []) is None


def test_longest_start() -> None:
    assert longest_start("xxab", ["abc", "bcd"]) == 2
    assert longest_start("aaa", ["aaab"]) == 3
    assert longest_start("abc", ["abc"]) == 0
    assert longest_start("", ["abc"]) == 0


def test_text_that_may_become_a_stop_is_held_back_and_released_when_it_does_not() -> None:
    output = Output(ToyStream, ("abc",))
    output.push(A)
    output.push(B)
    assert output.take() is None
    output.push(A)
    delta = output.take()
    assert delta is not None and delta.text == "ab" and delta.token_ids == (A, B)
    output.finish()
    delta = output.take()
    assert delta is not None and delta.text == "a" and delta.token_ids == (A,)
    assert output.text == "aba" and output.tail == ""


def test_a_stop_inside_a_token_leaves_a_tail() -> None:
    output = Output(PairStream, ("cd",))
    for token in (1, 2, 34):
        output.push(token)
    assert output.matched == "cd"
    output.finish()
    assert (output.text, output.token_ids, output.tail) == ("aba", (1,), "a")


def test_a_token_with_the_first_byte_of_a_stop_is_not_kept() -> None:
    output = Output(ToyStream, ("é",))
    for token in (A, SILENT, FIRST_BYTE, SECOND_BYTE):
        output.push(token)
    output.finish()
    assert (output.matched, output.text, output.token_ids, output.tail) == ("é", "a", (A, SILENT), "")


def test_a_stop_may_be_in_the_flushed_text() -> None:
    output = Output(ToyStream, ("�",))
    output.push(A)
    output.push(FIRST_BYTE)
    output.finish()
    assert (output.matched, output.text, output.token_ids) == ("�", "a", (A,))


TOKENS = st.lists(st.sampled_from([A, B, C, FIRST_BYTE, SECOND_BYTE, SILENT]), max_size=12)
STOPS = st.lists(st.text(alphabet="abcé�", min_size=1, max_size=4), max_size=3)


@settings(max_examples=300, deadline=None)
@given(tokens=TOKENS, stops=STOPS)
def test_streaming_agrees_with_a_search_in_the_whole_text(tokens: list[int], stops: list[str]) -> None:
    output = Output(ToyStream, tuple(stops))
    deltas = []
    for token in tokens:
        output.push(token)
        deltas.append(output.take())
        streamed = "".join(delta.text for delta in deltas if delta)
        assert find_stop(streamed, stops) is None
        if output.matched is not None:
            break
    output.finish()
    deltas.append(output.take())
    whole = toy_decode(tokens)
    found = find_stop(whole, stops)
    want = whole if found is None else whole[: found[0]]
    assert output.text == want
    assert output.matched == (found[1] if found else None)
    assert "".join(delta.text for delta in deltas if delta) == want
    assert tuple(token for delta in deltas if delta for token in delta.token_ids) == output.token_ids
    assert toy_decode(output.token_ids) + output.tail == want
    assert output.token_ids == tuple(tokens[: len(output.token_ids)])
    assert found is not None or len(output.token_ids) == len(tokens)


@settings(max_examples=200, deadline=None)
@given(
    tokens=st.lists(st.sampled_from([0, 1, 10, 11, 22, 12]), max_size=8),
    stops=st.lists(st.text(alphabet="abc", min_size=1, max_size=4), min_size=1, max_size=3),
)
def test_tokens_of_several_letters(tokens: list[int], stops: list[str]) -> None:
    output = Output(PairStream, tuple(stops))
    for token in tokens:
        output.push(token)
        if output.matched is not None:
            break
    output.finish()
    whole = "".join(map(PairStream().step, tokens))
    found = find_stop(whole, stops)
    want = whole if found is None else whole[: found[0]]
    assert output.text == want
    assert len(output.token_ids) == len(want) // 2
    assert output.tail == want[2 * len(output.token_ids) :]


# Patterns.

PATTERNS = ["ab", "a+b", "b.*a", "[ab]c{2,3}", "c|ab", "a$", r"\bb", "a(?=b)", "(?<=a)b", "^ab", "a(?!c)", "(?:ab|c)+a"]


def by_definition(text: str, stops: tuple[str, ...], patterns: tuple[str, ...]) -> tuple[str, str | None]:
    """The text before the stop that the shortest beginning holds; of several there the one that begins first."""
    for end in range(1, len(text) + 1):
        found = [(text[:end].index(stop), stop) for stop in stops if stop in text[:end]]
        found += [(m.start(), pattern) for pattern in patterns if (m := re.search(pattern, text[:end]))]
        if found:
            start, matched = min(found)
            return text[:start], matched
    return text, None


@given(
    st.lists(st.sampled_from([0, 1, 2, 10, 11, 12, 20, 21, 22]), max_size=12),
    st.lists(st.sampled_from(PATTERNS), min_size=1, max_size=2, unique=True),
    st.lists(st.sampled_from(["ca", "bbb"]), max_size=1),
)
@settings(max_examples=400, deadline=None)
def test_patterns_end_the_text_as_defined(tokens: list[int], patterns: list[str], stops: list[str]) -> None:
    output = Output(PairStream, tuple(stops), tuple(patterns))
    streamed = ""
    for token in tokens:
        output.push(token)
        delta = output.take()
        streamed += delta.text if delta is not None else ""
        if output.matched is not None:
            break
    output.finish()
    delta = output.take()
    streamed += delta.text if delta is not None else ""
    stream = PairStream()
    text, matched = by_definition("".join(map(stream.step, tokens)), tuple(stops), tuple(patterns))
    assert (output.text, output.matched) == (text, matched)
    assert streamed == text
    kept = "".join(map(stream.step, output.token_ids))
    assert kept + output.tail == text


def test_what_a_pattern_holds_back() -> None:
    assert [longest_match(pattern) for pattern in ("ab{2,3}", r"\d", "a+", r"\n(?=Q)", r"\d$", "a{1,4}")] == [
        4, 1, None, None, None, 4,
    ]  # fmt: skip
    output = Output(ToyStream, (), ("bc",))
    for token in (A, B):
        output.push(token)
    delta = output.take()
    assert delta is not None and delta.text == "a"
    output.push(C)
    assert output.matched == "bc" and output.text == "a"


def test_patterns_that_are_none() -> None:
    with pytest.raises(RequestError, match="is no regular expression: "):
        compiled("(")
    with pytest.raises(RequestError, match="matches the empty text"):
        compiled("a*")
