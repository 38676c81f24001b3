"""score and the choice methods, beside a direct float32 computation with `transformers`, and without a model."""

from __future__ import annotations

import json
import math
import pickle
from collections.abc import Iterator, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import ramify as rf
import torch
from ramify.backends import open_backend
from ramify.backends.local import LocalBackend
from ramify.backends.scripted import ScriptedBackend
from ramify.backends.tiny import model_dir
from ramify.ir.errors import RequestError
from ramify.runtime.request import Scored, TokenLogprob

from .test_checkpoints import checkpoint

transformers = pytest.importorskip("transformers")

# "s" and "house" join the prompt's last token where it ends in a letter; others share tokens, or one begins another.
PROMPTS = ["The colour of the green", "What is 3 + 4? The answer is ", "Say:\n"]
CHOICES = ["s", "house", " house and garden", " house", "7", "77", "7 or 8", "\n", " red", "blue whale"]


@pytest.fixture(scope="module", params=["random", "random with bos", "embedded"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    if request.param == "embedded":
        return model_dir()
    folder = checkpoint(tmp_path_factory.mktemp("scored"), "Qwen3")
    if request.param == "random with bos":
        config = json.loads((folder / "tokenizer_config.json").read_text())
        config |= {"bos_token": "<|endoftext|>", "add_bos_token": True}
        (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return folder


@pytest.fixture(scope="module")
def backend(folder: Path) -> Iterator[LocalBackend]:
    opened = LocalBackend(folder, dtype=torch.float32, device="cpu", check=True)
    yield opened
    opened.engine.check_idle()
    opened.close()


class Direct:
    """Scores with `transformers`: one forward pass over each whole sequence."""

    def __init__(self, folder: Path, backend: LocalBackend) -> None:
        self.model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
        self.tokenizer = backend.tokenizer
        self.bos = [] if self.tokenizer.bos_id is None else [self.tokenizer.bos_id]

    def score(self, prompt: str, text: str) -> tuple[list[int], list[float], list[float]]:
        """The text's token ids, and their log-probabilities after the prompt and without it."""
        before = self.bos + list(self.tokenizer.encode(prompt))
        whole = self.bos + list(self.tokenizer.encode(prompt + text))
        start = next((i for i, (a, b) in enumerate(zip(before, whole, strict=False)) if a != b), len(before))
        ids = whole[start:]
        return ids, self._tail(whole, len(ids)), self._tail(self.bos + ids, len(ids))

    @torch.inference_mode()
    def _tail(self, ids: list[int], count: int) -> list[float]:
        logprobs = self.model(torch.tensor([ids])).logits[0].float().log_softmax(-1)
        places = range(len(ids) - count, len(ids))
        return [logprobs[i - 1, ids[i]].item() if i else 0.0 for i in places]


@pytest.fixture(scope="module")
def direct(folder: Path, backend: LocalBackend) -> Direct:
    return Direct(folder, backend)


def greedy(scored: Sequence[tuple[list[int], list[float], list[float]]]) -> int:
    """Greedy decoding among the choices by its definition, one step at a time."""
    rows = [(ids, logprobs, sum(logprobs) / len(logprobs)) for ids, logprobs, _ in scored]
    left = list(range(len(rows)))
    for step in range(max(len(ids) for ids, _, _ in rows)):
        options = {i: rows[i][1][step] if step < len(rows[i][0]) else rows[i][2] for i in left}
        winner = max(left, key=lambda i: options[i])
        same = [i for i in left if rows[i][0][: step + 1] == rows[winner][0][: step + 1]]
        left = same if step < len(rows[winner][0]) else [winner]
    return left[0]


@rf.program
def scores_and_chooses(s, prompt, texts):
    s += prompt
    s += rf.score("all", texts) + rf.score("one", texts[0])
    picks = s.fork(4)
    picks[0] += rf.select("pick", texts)
    picks[1] += rf.select("pick", texts, choices_method=rf.greedy_token_selection)
    picks[2] += rf.gen("pick", choices=texts, choices_method="unconditional_likelihood_normalized")
    picks[3] += rf.select("pick", texts, 0.0, lambda choices: min(range(len(choices)), key=lambda i: choices[i].total))
    s += "|"
    return s["all"], s["one"], [pick["pick"] for pick in picks], s.text()


@pytest.mark.parametrize("eager", [True, False])
@pytest.mark.parametrize("prompt", PROMPTS)
def test_scores_and_choices_are_those_of_transformers(
    direct: Direct, backend: LocalBackend, prompt: str, eager: bool
) -> None:
    run = scores_and_chooses.run(prompt, CHOICES, backend=backend, eager=eager)
    totals, one, picks, text = run.value
    theirs = [direct.score(prompt, choice) for choice in CHOICES]
    assert totals == pytest.approx([sum(logprobs) for _, logprobs, _ in theirs], abs=2e-3)
    assert one == pytest.approx(totals[0], abs=1e-4) and isinstance(one, float)
    assert text == prompt + "|"

    tokens = run.get_meta_info("all")["input_token_logprobs"]
    assert [[token_id for _, token_id, _ in each] for each in tokens] == [ids for ids, _, _ in theirs]
    for ours, (_, logprobs, _) in zip(tokens, theirs, strict=True):
        assert [logprob for logprob, _, _ in ours] == pytest.approx(logprobs, abs=5e-4)
    assert run.get_meta_info("all")["token_counts"] == [len(ids) for ids, _, _ in theirs]

    means = [sum(logprobs) / len(logprobs) for _, logprobs, _ in theirs]
    gains = [(sum(logprobs) - sum(alone)) / len(ids) for ids, logprobs, alone in theirs]
    totals = [sum(logprobs) for _, logprobs, _ in theirs]
    assert picks == [
        CHOICES[means.index(max(means))],
        CHOICES[greedy(theirs)],
        CHOICES[gains.index(max(gains))],
        CHOICES[totals.index(min(totals))],
    ]


def test_the_unconditional_pass_is_told(direct: Direct, backend: LocalBackend) -> None:
    @rf.program(backend=backend)
    def pick(s):
        s += "One " + rf.select("x", ["two", " three four"], choices_method=rf.unconditional_likelihood_normalized)

    info = pick.run().get_meta_info("x")
    for ours, text in zip(info["unconditional_logprobs"], ["two", " three four"], strict=True):
        assert ours == pytest.approx(direct.score("One ", text)[2], abs=5e-4)
    assert len(info["normalized_unconditional_prompt_logprobs"]) == 2


def test_scores_after_generated_tokens_continue_those_tokens(direct: Direct, backend: LocalBackend) -> None:
    @rf.program(backend=backend)
    def after(s):
        s += "Count:" + rf.gen("x", max_tokens=3, ignore_eos=True)
        s += rf.score("y", [" and", "s"])

    run = after.run()
    generated = run.trace[0]
    before = direct.bos + list(direct.tokenizer.encode("Count:")) + list(run.get_meta_info("x")["token_ids"])
    assert generated.generated_tokens == 3
    for text, total in zip([" and", "s"], run["y"], strict=True):
        ids = list(direct.tokenizer.encode(text))
        assert total == pytest.approx(sum(direct._tail(before + ids, len(ids))), abs=1e-3)


def test_scoring_computes_the_prompt_once(backend: LocalBackend) -> None:
    @rf.program(backend=backend)
    def shared(s):
        s += "word " * 60 + rf.score("x", [" a", " b", " c"])

    usage = shared.run().usage
    assert usage.calls == 1 and usage.generated_tokens == 0
    assert usage.prompt_tokens <= len(backend.tokenizer.encode("word " * 60)) + 4, "one pass for all three"


KINDS = [("red", "blue", "black"), ("round", "square"), ("car", "cat", "dog")]
LONG = [f" the {' '.join(words)}" for words in product(*KINDS)]
LONG += [" the", " the red", " the red", " a", " something else altogether"]
TOLD = {
    "token_length_normalized": "normalized_prompt_logprobs",
    "greedy_token_selection": "normalized_prompt_logprobs",
    "unconditional_likelihood_normalized": "normalized_unconditional_prompt_logprobs",
}


@pytest.mark.parametrize("eager", [True, False])
@pytest.mark.parametrize("method", TOLD)
def test_texts_of_a_long_list_score_as_each_would_alone(backend: LocalBackend, method: str, eager: bool) -> None:
    @rf.program(backend=backend)
    def best_of(s, texts):
        s += "What is it? It is" + rf.select("best", texts, choices_method=method)
        return s["best"]

    run = best_of.run(LONG, eager=eager)
    alone = [best_of.run([text], eager=eager).get_meta_info("best") for text in LONG]
    expected = [info[TOLD[method]][0] for info in alone]
    assert run.get_meta_info("best")[TOLD[method]] == pytest.approx(expected, abs=1e-3)
    assert len(set(expected)) > 15, "the texts differ"
    if method == "token_length_normalized":
        assert run.value == LONG[expected.index(max(expected))]


def test_what_texts_begin_with_is_computed_once(backend: LocalBackend) -> None:
    @rf.program(backend=backend)
    def scores(s, texts):
        s += "What is it? It is" + rf.score("x", texts)
        return s["x"]

    backend.clear_cache()
    before = backend.stats().computed_tokens
    together = scores.run(LONG).value
    token_ids = [tuple(backend.tokenizer.encode("What is it? It is" + text)) for text in LONG]
    needed = {ids[:length] for ids in token_ids for length in range(1, len(ids))}
    assert backend.stats().computed_tokens - before <= len(needed) + 2, "and the last tokens never"
    assert together == pytest.approx([scores.run([text]).value[0] for text in LONG], abs=1e-3)


def test_nothing_before_a_text_is_an_error_without_a_first_token() -> None:
    @rf.program(backend="tiny")
    def first(s):
        s += rf.score("x", "word")
        return s["x"]

    with pytest.raises(RequestError, match="nothing stands before it") as caught:
        first.run()
    assert caught.value.span is not None and "rf.score" in caught.value.span.source_line()


# The methods themselves, on scores made by hand.


def scored(*rows: Sequence[tuple[int, float]], alone: Sequence[Sequence[float]] | None = None) -> list[Scored]:
    return [
        Scored(
            str(index),
            tuple(TokenLogprob(token_id, logprob) for token_id, logprob in row),
            None if alone is None else tuple(alone[index]),
        )
        for index, row in enumerate(rows)
    ]


def test_greedy_goes_by_the_first_token_whatever_follows() -> None:
    choices = scored([(1, -1.0), (2, -9.0)], [(3, -1.5)])
    assert rf.greedy_token_selection(choices) == 0
    assert rf.token_length_normalized(choices) == 1


def test_greedy_keeps_shared_beginnings_together_in_spite_of_rounding() -> None:
    choices = scored([(1, -1.0), (2, -3.0)], [(1, -1.0000001), (4, -2.0)])
    assert rf.greedy_token_selection(choices) == 1


def test_greedy_compares_a_choice_that_has_ended_by_its_mean() -> None:
    longer = [(1, -1.0), (2, -2.0), (3, -0.5)]
    assert rf.greedy_token_selection(scored([(1, -1.0), (2, -2.0)], longer)) == 1  # -1.5 and -0.5
    assert rf.greedy_token_selection(scored([(1, -1.0), (2, -2.0)], [*longer[:2], (3, -1.6)])) == 0


def test_greedy_does_not_mix_up_equal_tokens_after_different_ones() -> None:
    choices = scored([(1, -1.0), (5, -3.0)], [(2, -1.0), (5, -2.0)])
    assert rf.greedy_token_selection(choices) == 1


def test_the_first_of_equal_choices_is_taken() -> None:
    choices = scored([(1, -1.0)], [(2, -1.0)], [(1, -1.0)])
    for method in (rf.token_length_normalized, rf.greedy_token_selection):
        assert method(choices) == 0


def test_unconditional_normalization_prefers_what_the_prompt_makes_likelier() -> None:
    choices = scored([(1, -1.0)], [(2, -3.0), (3, -3.0)], alone=[[-1.0], [-6.0, -4.0]])
    assert rf.unconditional_likelihood_normalized(choices) == 1
    assert [choice.mean_gain for choice in choices] == [0.0, 2.0]


# Methods of one's own, and what the expressions refuse.


@rf.program
def picks_by(s, method):
    s += "Which?" + rf.select("x", ["a b", "c", "d e f"], choices_method=method)
    return s["x"]


class Longest:
    """A choice method that looks at the unconditional scores too."""

    unconditional = True

    def __call__(self, choices: Sequence[Scored]) -> int:
        assert all(choice.unconditional is not None for choice in choices)
        return max(range(len(choices)), key=lambda i: len(choices[i].tokens))


@pytest.mark.parametrize("eager", [True, False])
def test_a_method_of_ones_own(eager: bool) -> None:
    backend = ScriptedBackend()
    assert picks_by.run(Longest(), backend=backend, eager=eager).value == "d e f"
    assert picks_by.run(lambda choices: 1, backend=backend, eager=eager).value == "c"
    assert picks_by.run("greedy_token_selection", backend=backend, eager=eager).ok


@pytest.mark.parametrize("eager", [True, False])
@pytest.mark.parametrize(
    ("answer", "error", "message"),
    [(3, ValueError, "returned 3 for 3 choices"), (True, TypeError, "returned True"), ("a", TypeError, "returned 'a'")],
)
def test_a_method_that_returns_no_index(answer: Any, error: type[Exception], message: str, eager: bool) -> None:
    with pytest.raises(error, match=message):
        picks_by.run(lambda choices: answer, backend=ScriptedBackend(), eager=eager)


@pytest.mark.parametrize("eager", [True, False])
def test_an_error_of_the_method_reaches_the_reader(eager: bool) -> None:
    def broken(choices: Sequence[Scored]) -> int:
        raise LookupError("no idea")

    with pytest.raises(LookupError, match="no idea"):
        picks_by.run(broken, backend=ScriptedBackend(), eager=eager)


def test_a_method_may_run_programs_itself() -> None:
    @rf.program
    def judge(s, text):
        s += text + rf.gen("x", max_tokens=1)
        return len(s["x"])

    def method(choices: Sequence[Scored]) -> int:
        runs = judge.run_batch([{"text": choice.text} for choice in choices], backend="scripted")
        return max(range(len(choices)), key=lambda i: runs[i].value)

    runs = picks_by.run_batch([{"method": method}] * 12, backend="scripted")
    assert len({run.value for run in runs}) == 1 and all(run.ok for run in runs)


def test_what_is_no_method_or_no_text_is_refused() -> None:
    with pytest.raises(ValueError, match="unknown choices_method 'best'"):
        rf.select("x", ["a"], choices_method="best")
    with pytest.raises(TypeError, match="only together with choices"):
        rf.gen("x", choices_method="greedy_token_selection")
    with pytest.raises(TypeError, match="variable name"):
        rf.score(None, "a")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="texts takes texts, not int"):
        rf.score("x", [1])  # type: ignore[list-item]


@rf.program
def scores(s, texts):
    s += "before" + rf.score("x", texts) + rf.gen("y", max_tokens=1)
    return s["x"]


@pytest.mark.parametrize("eager", [True, False])
def test_scores_without_a_model(eager: bool) -> None:
    backend = ScriptedBackend(score=lambda text, continuation: -2.0)
    assert scores.run(["a b", "", "c"], backend=backend, eager=eager).value == [-4.0, 0.0, -2.0]
    assert scores.run("a b c", backend=backend, eager=eager).value == -6.0
    run = scores.run([], backend=backend, eager=eager)
    assert run.value == [] and run.text.startswith("before")
    assert [record.kind for record in run.trace] == ["score", "gen"]
    assert [scored.total for scored in scores.run("a", backend=backend).trace[0].scores] == [-2.0]


@pytest.mark.parametrize("eager", [True, False])
def test_empty_texts_and_lists_on_a_model(eager: bool) -> None:
    backend = open_backend("tiny")
    assert scores.run([], backend=backend, eager=eager).value == []
    assert scores.run([""], backend=backend, eager=eager).value == [0.0]


@pytest.mark.parametrize("eager", [True, False])
def test_a_score_is_not_waited_for_by_what_follows(eager: bool) -> None:
    """A score that fails does so where it is read; the text after it does not depend on it."""

    def fails(text: str, continuation: str) -> float:
        raise LookupError("no scores today")

    @rf.program(backend=ScriptedBackend(score=fails), eager=eager)
    def goes_on(s):
        s += "a" + rf.score("x", "b") + rf.gen("y", max_tokens=1)
        text = s.text()
        try:
            return s["x"]
        except LookupError:
            return text

    run = goes_on.run()
    assert run.value == run.text and run.text.startswith("a ")


def test_scores_are_finite_sums(backend: LocalBackend) -> None:
    run = scores.run([" one", " one two"], backend=backend)
    assert all(math.isfinite(value) and value < 0 for value in run.value)
    assert run.value[1] < run.value[0]


def test_a_failed_run_with_a_failed_score_can_be_pickled() -> None:
    def fails(text: str, continuation: str) -> float:
        raise LookupError("no scores today")

    @rf.program
    def unread(s):
        s += "a" + rf.score("x", "b") + rf.gen("y", max_tokens=1)

    (run,) = unread.run_batch([{}], backend=ScriptedBackend(score=fails))
    again = pickle.loads(pickle.dumps(run))
    assert isinstance(again.error, LookupError) and list(again.vars) == ["y"]
    assert again.get_meta_info("y")["completion_tokens"] == 1


@pytest.mark.parametrize("eager", [True, False])
def test_equal_scores_are_not_shared_with_those_that_need_more(eager: bool) -> None:
    """Choices of one token on a model without a first token: the same requests, but another answer is needed."""

    @rf.program(backend="tiny", eager=eager)
    def twice(s):
        s += "The answer is "
        a, b = s.fork(2)
        a += rf.select("x", ["3", "4"])
        b += rf.select("x", ["3", "4"], choices_method=rf.unconditional_likelihood_normalized)
        return a["x"], b["x"], b.get_meta_info("x")["unconditional_logprobs"]

    assert twice.run().value[2] == [[0.0], [0.0]]
