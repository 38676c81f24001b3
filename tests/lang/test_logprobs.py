"""Log-probabilities of generated and of prompt tokens under SGLang's names, and stop patterns, in programs."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import ramify as rf
import torch
from ramify.backends.local import LocalBackend
from ramify.backends.scripted import ScriptedBackend
from ramify.ir.errors import RequestError
from ramify.runtime.request import TokenLogprob

from .test_checkpoints import checkpoint

transformers = pytest.importorskip("transformers")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return checkpoint(tmp_path_factory.mktemp("logprobs"), "Llama")


@pytest.fixture(scope="module")
def backend(folder: Path) -> Iterator[LocalBackend]:
    opened = LocalBackend(folder, dtype=torch.float32, device="cpu", check=True)
    yield opened
    opened.engine.check_idle()
    opened.close()


@rf.program
def says(s, before, **params):
    s += before + rf.gen("x", **params)
    return s["x"]


def test_logprobs_are_those_of_transformers(folder: Path, backend: LocalBackend) -> None:
    asked = dict(return_logprob=True, top_logprobs_num=2, logprob_start_len=0, return_text_in_logprobs=True)
    info = says.run("The colour is", max_new_tokens=5, ignore_eos=True, **asked, backend=backend).get_meta_info("x")
    prompt = list(backend.tokenizer.encode("The colour is"))
    ids = prompt + info["token_ids"]
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    with torch.inference_mode():
        theirs = model(torch.tensor([ids])).logits[0].float().log_softmax(-1)
    ours = info["input_token_logprobs"] + info["output_token_logprobs"]
    assert [token_id for _, token_id, _ in ours] == ids[1:]
    tops = info["input_top_logprobs"] + info["output_top_logprobs"]
    for place, ((logprob, token_id, text), top) in enumerate(zip(ours, tops, strict=True)):
        assert logprob == pytest.approx(theirs[place, token_id].item(), abs=5e-4)
        assert text == backend.tokenizer.decode([token_id])
        likeliest = theirs[place].topk(2)
        assert [value for value, _, _ in top] == pytest.approx(likeliest.values.tolist(), abs=5e-4)
        assert [text for _, _, text in top] == [backend.tokenizer.decode([token_id]) for _, token_id, _ in top]
    assert [token.logprob for token in info["logprobs"]] == [logprob for logprob, _, _ in info["output_token_logprobs"]]


def test_the_prompts_logprobs_begin_where_asked(backend: LocalBackend) -> None:
    length = len(backend.tokenizer.encode("The colour is"))

    def told(**params: Any) -> Any:
        run = says.run("The colour is", max_tokens=1, **params, backend=backend)
        return run.get_meta_info("x")["input_token_logprobs"]

    whole = told(logprob_start_len=0)
    assert [token_id for _, token_id, _ in told(logprob_start_len=2)] == [token_id for _, token_id, _ in whole[1:]]
    assert told(logprob_start_len=length) == told() == told(logprob_start_len=-1) == []
    with pytest.raises(RequestError, match=f"logprob_start_len is {length + 1}, and the prompt has {length} tokens"):
        told(logprob_start_len=length + 1)


@pytest.mark.parametrize("eager", [True, False])
def test_aliases_mean_the_same(eager: bool) -> None:
    backend = ScriptedBackend()
    ours = says.run("a", max_tokens=2, logprobs=1, backend=backend, eager=eager)
    theirs = says.run("a", max_new_tokens=2, return_logprob=True, top_logprobs_num=1, backend=backend, eager=eager)
    assert theirs.value == ours.value
    assert theirs.get_meta_info("x")["logprobs"] == ours.get_meta_info("x")["logprobs"]
    assert len(theirs.trace[0].logprobs) == 2
    off = says.run("a", return_logprob=False, top_logprobs_num=3, backend=backend, eager=eager)
    assert off.get_meta_info("x")["output_token_logprobs"] == []


def test_an_alias_beside_its_name_is_refused() -> None:
    with pytest.raises(TypeError, match="max_new_tokens and max_tokens are the same"):
        rf.gen("x", max_tokens=1, max_new_tokens=2)


def test_positions_are_sglangs() -> None:
    assert rf.gen("x", 8, 2) == rf.gen("x", max_tokens=8, min_tokens=2)
    assert rf.gen_int("x", 8) == rf.gen("x", max_tokens=8, dtype=int)


@pytest.mark.parametrize("eager", [True, False])
def test_scripted_logprobs_drive_branches(eager: bool) -> None:
    def certain(text: str, continuation: str) -> float:
        return -0.1 if "easy" in text else -3.0

    @rf.program(backend=ScriptedBackend(score=certain), eager=eager)
    def asks_again(s, question):
        s += question + rf.gen("x", max_tokens=3, logprobs=0)
        tokens = s.get_meta_info("x")["output_token_logprobs"]
        sure = math.exp(sum(logprob for logprob, _, _ in tokens) / len(tokens))
        if sure < 0.5:
            s += " Are you sure?" + rf.gen("again", max_tokens=2)
        return sure, "again" in s

    assert asks_again.run("an easy one").value == (pytest.approx(math.exp(-0.1)), False)
    assert asks_again.run("a hard one").value == (pytest.approx(math.exp(-3.0)), True)


def test_scripted_logprobs_depend_on_what_stands_before() -> None:
    backend = ScriptedBackend(lambda text, params: " same words")
    logprobs: list[tuple[TokenLogprob, ...]] = [
        says.run(before, logprobs=2, return_text_in_logprobs=True, backend=backend).trace[0].logprobs
        for before in ("a", "b")
    ]
    assert [token.text for token in logprobs[0]] == [" same", " words"]
    assert all(len(token.top) == len(token.top_texts) == 2 for token in logprobs[0])
    assert logprobs[0][1].logprob != logprobs[1][1].logprob
    info = says.run("a b c", logprob_start_len=0, backend=backend).get_meta_info("x")
    assert len(info["input_token_logprobs"]) == 2


# stop_regex


@pytest.mark.parametrize("eager", [True, False])
def test_a_pattern_ends_the_text_before_its_match(eager: bool) -> None:
    backend = ScriptedBackend(lambda text, params: "one two, 345 four.")
    run = says.run("q", stop_regex=r"\d+", stop=["four"], backend=backend, eager=eager)
    info = run.get_meta_info("x")
    assert (run.value, info["finish_reason"], info["matched"]) == ("one two, ", "stop", r"\d+")
    assert says.run("q", stop_regex=["x", "wo"], backend=backend, eager=eager).value == "one t"
    assert says.options(stop_regex=",").run("q", backend=backend, eager=eager).value == "one two"


def test_a_pattern_ends_a_models_text(backend: LocalBackend) -> None:
    whole = says.run("The colour is", max_tokens=24, ignore_eos=True, backend=backend).value
    letter = whole[len(whole) // 2]
    pattern = "[" + letter.replace("\\", "\\\\").replace("]", "\\]").replace("^", "\\^") + "]"
    pieces: list[Any] = []
    run = says.run(
        "The colour is", max_tokens=24, ignore_eos=True, stop_regex=pattern, backend=backend, stream=pieces.append
    )
    assert run.value == whole[: whole.index(letter)]
    assert "".join(piece.text for piece in pieces if piece.kind == "gen") == run.value


@pytest.mark.parametrize("eager", [True, False])
@pytest.mark.parametrize(("pattern", "message"), [("(", "is no regular expression"), ("a*", "matches the empty text")])
def test_a_bad_pattern_is_refused_at_the_append(pattern: str, message: str, eager: bool) -> None:
    with pytest.raises(RequestError, match=message) as caught:
        says.run("q", stop_regex=pattern, backend=ScriptedBackend(), eager=eager)
    assert caught.value.span is not None and "rf.gen" in caught.value.span.source_line()
