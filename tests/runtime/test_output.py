"""Stop strings and streaming, against a direct search in the whole text."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from ramify.runtime.output import Output, find_stop, longest_start

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
