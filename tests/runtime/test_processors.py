"""The user's processors: what they are given, what becomes of what they give, and what happens when they fail."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from ramify.backends.tiny import model_dir
from ramify.ir.errors import BackendError
from ramify.runtime.request import Failed
from ramify.runtime.sampler import Choice, Sample, SampleRow
from torch import Tensor

from .fakes import Call, call, expected_tokens, finish, new_engine, next_logits

PROMPT = [3, 1, 4, 1, 5]
SIZE = 29


def raw(history: list[int]) -> np.ndarray:
    return next_logits(history, SIZE).astype(np.float32)


def expected(count: int, change: Any, prompt: list[int] = PROMPT) -> tuple[int, ...]:
    """Greedy decoding by hand of logits that `change(history, logits)` changes."""
    history = list(prompt)
    for _ in range(count):
        history.append(int(np.argmax(change(history, raw(history)))))
    return tuple(history[len(prompt) :])


def test_a_processor_gets_the_tokens_so_far_and_the_raw_logits() -> None:
    seen: list[tuple[list[int], np.ndarray]] = []

    def note(token_ids: Tensor, logits: Tensor) -> None:
        assert token_ids.dtype == torch.int64 and token_ids.shape == (token_ids.numel(),)
        assert logits.dtype == torch.float32 and logits.shape == (SIZE,) and token_ids.device == logits.device
        seen.append((token_ids.tolist(), logits.numpy().copy()))

    (done,) = finish(new_engine(), call(PROMPT, max_tokens=6, processors=(note,), temperature=0.7, seed=1))
    assert [len(token_ids) for token_ids, _ in seen] == [5, 6, 7, 8, 9, 10]
    for number, (token_ids, logits) in enumerate(seen):
        assert token_ids == [*PROMPT, *done.token_ids[:number]]
        assert np.array_equal(logits, raw(token_ids))


def push_last(token_ids: Tensor, logits: Tensor) -> Tensor:
    """A new tensor: the last token again is a little likelier."""
    changed = logits.clone()
    changed[token_ids[-1]] += 3
    return changed


def ban_evens(token_ids: Tensor, logits: Tensor) -> None:
    """In place."""
    logits[::2] = -torch.inf


def by_hand(history: list[int], logits: np.ndarray) -> np.ndarray:
    logits[history[-1]] += np.float32(3)
    logits[::2] = -np.inf
    return logits


def test_results_are_exact_one_processor_after_another() -> None:
    (done,) = finish(new_engine(), call(PROMPT, max_tokens=12, processors=(push_last, ban_evens)))
    assert done.token_ids == expected(12, by_hand) != expected_tokens(PROMPT, 12)
    assert all(token % 2 for token in done.token_ids)


def test_processors_come_before_penalties() -> None:
    def penalized(history: list[int], logits: np.ndarray) -> np.ndarray:
        logits = by_hand(history, logits)
        for token in set(history):
            logits[token] = logits[token] / 2 if logits[token] > 0 else logits[token] * 2
        return logits

    wanted = call(PROMPT, max_tokens=12, processors=(push_last, ban_evens), repetition_penalty=2.0)
    (done,) = finish(new_engine(), wanted)
    assert done.token_ids == expected(12, penalized)


def test_drawing_is_from_the_changed_logits() -> None:
    logits = torch.randn(20, SIZE)
    given: dict[str, Any] = {"temperature": 0.9, "top_p": 0.8}

    def rows(**more: Any) -> list[SampleRow]:
        params = call(PROMPT, **given, **more).request.params
        return [SampleRow(params, seed, np.array(PROMPT), 3) for seed in range(20)]

    def halve(token_ids: Tensor, row: Tensor) -> Tensor:
        return row / 2

    with_processor = Choice(logits, rows(processors=(halve,), logprobs=1)).result()
    without = Choice(logits / 2, rows()).result()
    assert [one.token_id for one in with_processor] == [one.token_id for one in without]  # type: ignore[union-attr]
    scores = logits.log_softmax(-1)
    for one, row in zip(with_processor, scores, strict=True):
        assert isinstance(one, Sample) and one.logprob is not None
        assert one.logprob.logprob == pytest.approx(float(row[one.token_id]), abs=1e-6), "of the raw logits"


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16])
def test_another_dtype_is_converted(dtype: torch.dtype) -> None:
    def cast(token_ids: Tensor, logits: Tensor) -> Tensor:
        return logits.to(dtype)

    (done,) = finish(new_engine(), call(PROMPT, max_tokens=6, processors=(cast,)))
    wanted = expected(6, lambda _, logits: torch.from_numpy(logits).to(dtype).float().numpy())
    assert done.token_ids == wanted


def test_what_a_processor_keeps_is_an_ordinary_tensor() -> None:
    kept: list[Tensor] = []

    def keep(token_ids: Tensor, logits: Tensor) -> None:
        kept.append(logits)
        token_ids[:] = 0  # a copy: the engine's own tokens stay

    (done,) = finish(new_engine(), call(PROMPT, max_tokens=3, processors=(keep,)))
    assert done.token_ids == expected_tokens(PROMPT, 3)
    weight = torch.ones(SIZE, requires_grad=True)
    (weight * kept[0]).sum().backward()
    assert weight.grad is not None


def test_a_batched_processor_gets_all_rows_of_a_step_at_once() -> None:
    sizes: list[int] = []

    def push_all(token_ids: list[Tensor], logits: Tensor) -> None:
        assert logits.shape == (len(token_ids), SIZE)
        sizes.append(len(token_ids))
        for row, ids in zip(logits, token_ids, strict=True):
            row[ids[-1]] += 3

    push_all.batched = True  # type: ignore[attr-defined]
    prompts = [[first, 1, 4] for first in range(5)]
    together = [call(prompt, max_tokens=8, processors=(push_all, ban_evens)) for prompt in prompts]
    together.append(call([9], max_tokens=8))
    finish(new_engine(), *together)
    assert sizes == [5] * 8
    for prompt, one in zip(prompts, together[:5], strict=True):
        assert one.done.token_ids == expected(8, by_hand, prompt)
    assert together[5].done.token_ids == expected_tokens([9], 8)


def test_a_batched_processor_that_fails_ends_the_requests_that_have_it() -> None:
    def refuse(token_ids: list[Tensor], logits: Tensor) -> None:
        raise KeyError("no such bias")

    def spoil_second(token_ids: list[Tensor], logits: Tensor) -> None:
        logits[1, 3] = torch.nan

    refuse.batched = spoil_second.batched = True  # type: ignore[attr-defined]
    for processor, failing in ((refuse, {0, 1, 2}), (spoil_second, {1})):
        calls = [call([first, 1], max_tokens=1, processors=(processor, ban_evens)) for first in range(3)]
        calls.append(call([7, 7], max_tokens=8))
        finish(new_engine(), *calls)
        assert {i for i, one in enumerate(calls) if isinstance(one.events[-1], Failed)} == failing
        for i in failing:
            assert isinstance(calls[i].error, BackendError)
        assert calls[3].done.token_ids == expected_tokens([7, 7], 8)


def raises(token_ids: Tensor, logits: Tensor) -> None:
    raise KeyError("no such bias")


def raises_late(token_ids: Tensor, logits: Tensor) -> None:
    if len(token_ids) > 7:
        raise KeyError("no such bias")


def wrong_shape(token_ids: Tensor, logits: Tensor) -> Tensor:
    return logits[:5]


def no_tensor(token_ids: Tensor, logits: Tensor) -> Any:
    return [1.0] * SIZE


def leaves_nan(token_ids: Tensor, logits: Tensor) -> None:
    logits[3] = torch.nan


def leaves_nothing(token_ids: Tensor, logits: Tensor) -> None:
    logits[:] = -torch.inf


@pytest.mark.parametrize(
    ("processor", "message"),
    [
        (raises, "the processor raises raised KeyError: 'no such bias'"),
        (raises_late, "the processor raises_late raised KeyError"),
        (wrong_shape, r"returned a tensor of shape \(5,\) instead of logits of shape \(29,\)"),
        (no_tensor, r"the processor no_tensor returned \[1.0, 1.0"),
        (leaves_nan, "the processor leaves_nan left NaN in the logits"),
        (leaves_nothing, "the processors left no token with a finite logit"),
    ],
)
def test_a_processor_that_fails_ends_its_own_request_only(processor: Any, message: str) -> None:
    calls: list[Call] = [call(PROMPT, max_tokens=8, processors=(processor,)), call([7, 7], max_tokens=8)]
    calls.append(call([8], max_tokens=8, processors=(ban_evens,), temperature=1.0, seed=3))
    serving = new_engine()
    finish(serving, *calls)
    with pytest.raises(BackendError, match=message) as caught:
        raise calls[0].error
    if "raises" in processor.__name__:
        assert isinstance(caught.value.__cause__, KeyError)
    assert calls[1].done.token_ids == expected_tokens([7, 7], 8)
    assert all(token % 2 for token in calls[2].done.token_ids)
    serving.check_idle()


def test_a_constraint_comes_after_processors() -> None:
    import ramify as rf

    def only_letters(token_ids: Tensor, logits: Tensor) -> None:
        logits[:] = 0
        logits[letters] = 5

    @rf.program
    def choose(s, processors):  # type: ignore[no-untyped-def]
        s += "x: " + rf.gen("x", regex="[a-z]{3}|[0-9]{3}", processors=processors)
        return s["x"]

    from ramify.runtime.tokens import Tokenizer

    tokenizer = Tokenizer.load(model_dir())
    letters = [tokenizer.encode(letter)[0] for letter in "pqr"]
    for eager in (True, False):
        assert set(choose.run([only_letters], eager=eager).value) <= set("pqr")
    with pytest.raises(BackendError, match="no token that the constraint allows") as caught:
        choose.run([leaves_nothing])
    assert caught.value.span is not None and "rf.gen" in caught.value.span.source_line()


def test_what_a_constraint_demands_is_asked_of_processors_too() -> None:
    """A token that a processor forbids is never emitted, not even where the constraint leaves nothing else."""
    import ramify as rf
    from ramify.runtime.tokens import Tokenizer

    letter = Tokenizer.load(model_dir()).encode("q")[0]
    seen: list[int] = []

    def note(token_ids: Tensor, logits: Tensor) -> None:
        seen.append(len(token_ids))

    def forbid(token_ids: Tensor, logits: Tensor) -> None:
        logits[letter] = -torch.inf

    @rf.program
    def forced(s, *processors):  # type: ignore[no-untyped-def]
        s += "x: " + rf.gen("x", regex="zqz", processors=processors)
        return s["x"]

    assert forced.run(note).value == "zqz" and len(seen) >= 2
    with pytest.raises(BackendError, match="no token that the constraint allows"):
        forced.run(forbid)
