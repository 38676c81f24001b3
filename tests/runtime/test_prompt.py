"""Prompts: persistence, variables, roles, pending contents, and the tokens they stand for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import ramify
import ramify as rf
from ramify.backends.scripted import ScriptedBackend
from ramify.ir.errors import UsageError
from ramify.runtime.chat import DEFAULT_CHAT
from ramify.runtime.context import Context
from ramify.runtime.loop import loop
from ramify.runtime.pending import Pending, PendingText
from ramify.runtime.prompt import Prompt, UnknownVariable
from ramify.runtime.prompt_tokens import PromptTokens
from ramify.runtime.tokens import Tokenizer


def answer(text: str, _: Any) -> str:
    return f"<{len(text)}>"


@pytest.fixture
def context() -> Context:
    return Context(ScriptedBackend(answer))


@pytest.fixture
def root(context: Context) -> Prompt:
    return context.root()


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.load(Path(ramify.__file__).parent / "backends" / "tiny" / "weights")


def test_appending_leaves_the_old_prompt_as_it_was(root: Prompt) -> None:
    first = root.append_text("a")
    left, right = first.append_text("b"), first.append_text("c")
    assert (first.text(), left.text(), right.text()) == ("a", "ab", "ac")


def test_a_generation_sees_what_stands_before_it(root: Prompt) -> None:
    prompt = root.append_value("abc" + rf.gen("x") + "d" + rf.gen("y"))
    assert prompt["x"] == "<3>"
    assert prompt["y"] == "<7>"
    assert prompt.text() == "abc<3>d<7>"
    assert list(prompt.names()) == ["x", "y"]


def test_reading_an_unknown_variable_names_the_known_ones(root: Prompt) -> None:
    prompt = root.bind("a", 1).bind("b", 2)
    with pytest.raises(UnknownVariable, match=r"no variable 'c'; it has: 'a', 'b'"):
        prompt["c"]
    with pytest.raises(KeyError):
        root["c"]
    assert "a" in prompt and "c" not in prompt


def test_the_last_binding_counts_and_branches_do_not_share(root: Prompt) -> None:
    base = root.bind("a", 1)
    changed = base.bind("a", 2)
    assert (base["a"], changed["a"]) == (1, 2)


@pytest.mark.parametrize("value", [5, 1.5, None, ["a"], {"a": 1}, b"a"])
def test_only_text_and_expressions_are_appended(root: Prompt, value: object) -> None:
    with pytest.raises(TypeError, match="text and expressions"):
        root.append_value(value)


def test_roles(root: Prompt) -> None:
    prompt = root.append_value(rf.system("S") + rf.user("U" + rf.gen("x")) + rf.assistant_begin() + "open")
    assert prompt.messages() == [
        {"role": "system", "content": "S"},
        {"role": "user", "content": "U<26>"},
        {"role": "assistant", "content": "open"},
    ]
    assert prompt.text() == "<system>S</system>\n<user>U<26></user>\n<assistant>open"


def test_an_assistant_message_that_the_program_writes_looks_like_a_generated_one() -> None:
    root = Context(ScriptedBackend(lambda *_: " Hi.", chat=DEFAULT_CHAT)).root()
    written = root.append_value(rf.user("Hello") + rf.assistant("Hi."))
    generated = root.append_value(rf.user("Hello") + rf.assistant(rf.gen("x")))
    assert written.text() == generated.text() == "USER: Hello\nASSISTANT: Hi.\n"
    assert written.messages()[1] == {"role": "assistant", "content": "Hi."}


def test_roles_do_not_nest_and_ends_need_beginnings(root: Prompt) -> None:
    with pytest.raises(UsageError, match="begins inside one of user"):
        root.append_value(rf.user(rf.system("x")))
    with pytest.raises(UsageError, match="none is open"):
        root.append_value(rf.user_end())
    with pytest.raises(UsageError, match="the message of user is open"):
        root.append_value(rf.user_begin() + rf.system_end())


def test_text_that_is_on_its_way(root: Prompt) -> None:
    late = PendingText()
    prompt = root.append_text("a").append_text(late).append_text("c")
    assert isinstance(prompt.text_value(), Pending)
    after = prompt.append_value(rf.gen("x"))
    loop().soon(late.set_result, "bb")
    assert after["x"] == "<4>"
    assert after.text() == "abbc<4>"


def test_a_failed_text_fails_what_follows_and_nothing_else(root: Prompt) -> None:
    late = PendingText()
    base = root.append_value(rf.gen("ok"))
    prompt = base.append_text(late).append_value(rf.gen("x"))
    error = ValueError("no text")
    loop().soon(late.set_error, error)
    with pytest.raises(ValueError, match="no text"):
        prompt["x"]
    assert prompt["ok"] == "<0>"
    with pytest.raises(ValueError, match="no text"):
        prompt.text()


def test_ten_thousand_appends(root: Prompt) -> None:
    late = PendingText()
    prompt = root.append_text(late)
    for number in range(10_000):
        prompt = prompt.append_text("x") if number % 2 else prompt.append_text(late)
    prompt = prompt.append_value(rf.gen("g"))
    loop().soon(late.set_result, "yy")
    assert prompt["g"] == f"<{5_000 + 2 * 5_001}>"
    assert repr(prompt).startswith("<prompt of 10003 segments")


def test_replaying_a_branch_keeps_texts_variables_and_waits_for_them(root: Prompt) -> None:
    left, right = root.append_text("base").fork(2)
    left = left.append_value(" l" + rf.gen("x"))
    right = right.append_value(rf.gen("late") + " r")
    assert right.replay([]) is right
    joined = right.replay(left.since(None)[2:])
    assert joined.text() == "base<4> r l<6>"
    assert joined["x"] == "<6>"


def test_since_refuses_a_stranger(root: Prompt, context: Context) -> None:
    with pytest.raises(UsageError, match="did not grow"):
        root.append_text("a").since(context.root())


def test_iterating_a_prompt_is_refused(root: Prompt) -> None:
    with pytest.raises(TypeError):
        iter(root)  # type: ignore[call-overload]


PIECES = ["The", " quick", "er", " brown\n\n", "  fox", "es ju", "mp é", "漢", "字 done", ".", "." * 300, " tail"]


def test_tokens_do_not_depend_on_how_text_was_appended(root: Prompt, tokenizer: Tokenizer) -> None:
    tokens = PromptTokens(tokenizer)
    prompt = root
    for piece in PIECES:
        prompt = prompt.append_text(piece)
        assert tokens.prompt_tokens(prompt) == with_bos(tokenizer, prompt.text())
    assert PromptTokens(tokenizer).prompt_tokens(prompt) == tokens.prompt_tokens(prompt)


def with_bos(tokenizer: Tokenizer, text: str) -> list[int]:
    return ([] if tokenizer.bos_id is None else [tokenizer.bos_id]) + tokenizer.encode(text)


def test_generated_spans_keep_their_own_tokens(root: Prompt, tokenizer: Tokenizer) -> None:
    tokens = PromptTokens(tokenizer)
    prompt = root.append_value("ab" + rf.gen("x") + "cd")
    prompt.sync()
    generated = list(prompt.find("x").value.done.token_ids)
    expected = [*with_bos(tokenizer, "ab"), *generated, *tokenizer.encode("cd")]
    assert tokens.prompt_tokens(prompt) == expected


def test_branches_share_the_tokens_of_their_beginning(root: Prompt, tokenizer: Tokenizer) -> None:
    tokens = PromptTokens(tokenizer)
    base = root.append_text("Some shared text. " * 50)
    branches = [branch.append_text(f"{n}") for n, branch in enumerate(base.fork(4))]
    for branch in branches:
        assert tokens.prompt_tokens(branch) == with_bos(tokenizer, branch.text())
    assert base.tokens is not None and tokens.prepare(branches[0]).nodes == []
    fresh = base.append_text("fresh")
    assert [node.text_value(base) for node in tokens.prepare(fresh).nodes] == ["fresh"]


def test_images_are_refused_where_they_cannot_be_taken(root: Prompt, tokenizer: Tokenizer) -> None:
    with pytest.raises(rf.RamifyError, match="the backend 'scripted' cannot take images"):
        root.append_value(rf.image(b"png"))
    node = Prompt(root.context, root, "image", rf.image(b"png"))
    with pytest.raises(rf.RamifyError, match="this backend cannot take images"):
        PromptTokens(tokenizer).prompt_tokens(node)


def test_backends_that_share_a_prompt_do_not_mix_up_their_tokens(root: Prompt, tokenizer: Tokenizer) -> None:
    mine, other = PromptTokens(tokenizer), PromptTokens(tokenizer)
    prompt = root.append_text("The colour is gre")
    known = mine.prepare(prompt).run()
    other.begin(prompt, [1, 2, 3])
    assert known.with_text("en") == with_bos(tokenizer, "The colour is green")
    assert mine.prompt_tokens(prompt) == known.token_ids == with_bos(tokenizer, "The colour is gre")
