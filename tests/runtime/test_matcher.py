"""Matchers against real schemas with instances known to be valid or not, and the vocabularies they spell with."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from ramify.backends.tiny import model_dir
from ramify.ir.errors import BackendError, RequestError
from ramify.runtime import grammar
from ramify.runtime.constraint import Constraint, json_schema_constraint
from ramify.runtime.matcher import Grammars, Matcher
from ramify.runtime.tokens import Tokenizer

TOKENIZER = Tokenizer.load(Path(model_dir()))
CPU = torch.device("cpu")


def allowed(grammars: Grammars, *matchers: Matcher | None) -> torch.Tensor:
    return grammars.allowed(grammars.fill(matchers), CPU)


def accepts(grammars: Grammars, constraint: Constraint, text: str) -> bool:
    """Whether a generation could have said a text, token by token as the engine goes."""
    matcher = grammars.matcher(constraint)
    token_ids = list(TOKENIZER.encode_after(text))
    forcing = []
    for place, token_id in enumerate(token_ids):
        forced = matcher.forced()
        forcing.append(forced == token_ids[place : place + len(forced)])
        (mask,) = allowed(grammars, matcher)
        matcher.check()
        if not mask[token_id]:
            return False
        matcher.consume(token_id)
    assert all(forcing), "what is forced are the tokens that the tokenizer gives the whole text"
    return matcher.is_complete


def test_a_text_that_exhausts_the_lexer_fails_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grammar, "_LEXER_FUEL", 20_000)
    grammars = Grammars(TOKENIZER, TOKENIZER.vocab_size)
    constraint = json_schema_constraint({"type": "string", "pattern": r"^(?:\S+\s+){0,49}\S+$", "maxLength": 500})
    exhausting, modest = grammars.matcher(constraint), grammars.matcher(constraint)
    modest.consume(TOKENIZER.encode('"')[0])

    def go_on() -> None:
        for token_id in TOKENIZER.encode_after('"' + "a b c " * 80):
            exhausting.consume(token_id)
            allowed(grammars, exhausting)
            exhausting.check()

    with pytest.raises(BackendError, match="too many expressions"):
        go_on()
    assert allowed(grammars, modest).any()
    modest.check()
    assert allowed(grammars, grammars.matcher(constraint)).any()


class Words:
    """A vocabulary that changes what it encodes, lacks bytes, and has a token that stands for nothing."""

    tokens = (b"ab", b"a", b"b", b"c", b"", b"<end>", b"\xff", "é".encode(), b"abc")
    vocab_size = len(tokens)
    special_ids = frozenset({5})

    def token_bytes(self, token_id: int, /) -> bytes:
        return b"" if token_id in self.special_ids or token_id >= len(self.tokens) else self.tokens[token_id]

    def token_text(self, token_id: int, /) -> str:
        return self.tokens[token_id].decode("utf-8", "backslashreplace")

    def encode_after(self, text: str, /) -> tuple[int, ...]:
        return (1,) * len(text)  # whatever the text, it is a row of a's


def names(grammars: Grammars, matcher: Matcher) -> set[str]:
    return {Words().token_text(token) for token in allowed(grammars, matcher)[0].nonzero()[:, 0].tolist()}


def test_vocabularies_that_do_not_spell_everything() -> None:
    grammars = Grammars(Words(), 12)
    any_text = grammars.matcher(Constraint("regex", "[a-zé]*"))
    assert names(grammars, any_text) == {"ab", "a", "b", "c", "é", "abc"}, "no special, no empty, no broken token"
    forced = grammars.matcher(Constraint("regex", "abcb"))
    said = b""
    while not forced.is_finished:
        token_id = int(allowed(grammars, forced)[0].nonzero()[0, 0])
        said += Words.tokens[token_id]
        forced.consume(token_id)
    assert said == b"abcb", "although the tokenizer would say something else"
    with pytest.raises(RequestError, match="no text matches it that this model's tokens can spell"):
        grammars.matcher(Constraint("regex", "xyz"))


def test_rows_without_a_matcher_have_no_bits() -> None:
    grammars = Grammars(TOKENIZER, TOKENIZER.vocab_size + 7)
    digits, letters = (grammars.matcher(Constraint("regex", regex)) for regex in ("[0-9]", "[xy]"))
    masks = allowed(grammars, digits, None, letters)
    assert masks.shape == (3, TOKENIZER.vocab_size + 7)
    assert [int(mask.sum()) for mask in masks] == [10, 0, 2]


def test_a_token_that_is_not_allowed_is_an_error() -> None:
    grammars = Grammars(TOKENIZER, TOKENIZER.vocab_size)
    matcher = grammars.matcher(Constraint("regex", "[0-9]+"))
    with pytest.raises(BackendError, match="regex: "):
        matcher.consume(TOKENIZER.encode("x")[0])
