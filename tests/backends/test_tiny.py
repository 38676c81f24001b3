"""The embedded model: its tokenizer, its files, its generators, and what it gets right on held-out draws."""

import json
from collections.abc import Iterable
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ramify.backends.tiny import model_dir
from ramify.backends.tiny.debate import answer_in
from ramify.backends.tiny.evaluate import accuracy
from ramify.backends.tiny.example import Example, Message, random_for
from ramify.backends.tiny.tasks import DEMO_TASKS, TASKS, draw, draw_task
from ramify.backends.tiny.tokenizer import CHAT_TEMPLATE, encode_example, render
from safetensors import safe_open
from tokenizers import Tokenizer

TOKENIZER = Tokenizer.from_file(str(model_dir() / "tokenizer.json"))
SETTINGS = json.loads((model_dir() / "tokenizer_config.json").read_text())


def encode(text: str) -> list[int]:
    return TOKENIZER.encode(text, add_special_tokens=False).ids


def texts(examples: Iterable[Example]) -> list[list[Message]]:
    return [list(example.messages) for example in examples]


@given(st.text())
def test_any_text_survives_the_tokenizer(text: str) -> None:
    assert TOKENIZER.decode(encode(text), skip_special_tokens=False) == text


@pytest.mark.parametrize(
    "text", ["naïve café", "日本語", "\U0001f600\n\n\t x", "12345", "<|im_end|>", "  two  spaces  "]
)
def test_chosen_texts_survive_the_tokenizer(text: str) -> None:
    assert TOKENIZER.decode(encode(text), skip_special_tokens=False) == text


def test_digits_and_newlines_are_single_tokens() -> None:
    assert len(encode("2048")) == 4
    assert encode("a.\n\nb") == encode("a.") + encode("\n") + encode("\n") + encode("b")


def test_the_template_writes_chatml() -> None:
    jinja2 = pytest.importorskip("jinja2")
    chat = [{"role": "system", "content": "S"}, {"role": "user", "content": "U"}]
    rendered = jinja2.Template(SETTINGS["chat_template"]).render(messages=chat, add_generation_prompt=True)
    assert rendered == "<|im_start|>system\nS<|im_end|>\n<|im_start|>user\nU<|im_end|>\n<|im_start|>assistant\n"
    assert SETTINGS["chat_template"] == CHAT_TEMPLATE
    assert rendered.startswith(render(Message("system", "S")))


def test_the_turn_marks_are_single_tokens_and_the_end_mark_ends_generation() -> None:
    config = json.loads((model_dir() / "config.json").read_text())
    assert [len(encode(mark)) for mark in ("<|im_start|>", "<|im_end|>", "<|endoftext|>")] == [1, 1, 1]
    assert encode(SETTINGS["eos_token"]) == [config["eos_token_id"]]
    assert config["vocab_size"] == TOKENIZER.get_vocab_size()


def test_the_weights_are_small_and_bfloat16() -> None:
    path = model_dir() / "model.safetensors"
    assert path.stat().st_size < 25_000_000
    with safe_open(path, framework="pt") as tensors:
        assert {tensors.get_slice(name).get_dtype() for name in tensors.keys()} == {"BF16"}  # noqa: SIM118


@pytest.mark.parametrize("task", TASKS)
def test_a_draw_depends_on_its_split_and_index_alone(task: str) -> None:
    assert texts([draw_task(task, "train", 3)]) == texts([draw_task(task, "train", 3)])
    train = texts(draw_task(task, "train", index) for index in range(20))
    held_out = texts(draw_task(task, "held-out", index) for index in range(20))
    assert train != held_out


def test_the_splits_share_no_seed() -> None:
    train = {random_for("train", index).getstate() for index in range(2000)}
    held_out = {random_for("held-out", index).getstate() for index in range(2000)}
    assert not train & held_out


@pytest.mark.parametrize("task", TASKS)
def test_a_generator_accepts_its_own_reference_and_not_nonsense(task: str) -> None:
    for index in range(50):
        example = draw_task(task, "held-out", index)
        assert example.accepts(example.answer)
        assert not example.accepts("zzz")


def test_the_judge_cannot_know_from_the_position() -> None:
    verdicts = [draw_task("debate-judge", "held-out", index).answer.split("\n")[2] for index in range(400)]
    assert 160 < verdicts.count("negative") < 240


def test_every_mixture_draw_ends_in_a_reply() -> None:
    assert {draw("held-out", index).messages[-1].role for index in range(300)} == {"assistant", "text"}


def test_answer_in_reads_only_the_trained_form() -> None:
    assert answer_in("I disagree. The answer is 14, because 7 + 8 = 14.") == "14"
    assert answer_in("It is 14.") is None


class Uncut(Random):
    """A generator with which no text is cut before it is encoded."""

    def random(self) -> float:
        return 1.0


@pytest.mark.parametrize("task", TASKS)
def test_training_sees_the_rendered_text_and_learns_the_assistants_words(task: str) -> None:
    example = draw_task(task, "held-out", 0)
    ids, weights = encode_example(TOKENIZER, example, Uncut())
    end = "<|endoftext|>" if example.messages[-1].role == "text" else ""
    assert TOKENIZER.decode(ids, skip_special_tokens=False) == "".join(map(render, example.messages)) + end
    learnt = TOKENIZER.decode([token for token, weight in zip(ids, weights, strict=True) if weight == 1.0])
    said = [turn.content for turn in example.messages if turn.role in ("assistant", "text") and turn.learn]
    assert learnt == "".join(said)


@given(st.integers(0, 500), st.integers(0, 500))
def test_cutting_a_text_before_encoding_keeps_it(index: int, seed: int) -> None:
    example = draw("train", index)
    ids, _ = encode_example(TOKENIZER, example, Random(seed))
    assert TOKENIZER.decode(ids) == TOKENIZER.decode(encode_example(TOKENIZER, example, Uncut())[0])


@pytest.mark.parametrize("task", DEMO_TASKS)
def test_held_out_debate_turns_are_mostly_right(task: str) -> None:
    assert accuracy(task, 40) >= 0.8
