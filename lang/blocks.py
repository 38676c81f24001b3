"""Block-wise best-of-K: controlled decoding in blocks of several tokens (arXiv 2310.17022, section 3.2)."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from functools import wraps
from typing import Any

from ..ir.errors import UsageError
from ..runtime.expression import Spot, build_gen
from ..runtime.prompt import Prompt
from ..runtime.seeds import gen_seed
from .state import State

# What may be said of how blocks are sampled. What looks at a whole generation means nothing to a block.
_SAMPLING = ("temperature", "top_p", "top_k", "min_p", "processors", "stop_token_ids", "ignore_eos", "seed")


def _best_of_k(
    s: State,
    name: str,
    value: Callable[[State], float],
    *,
    k: int = 4,
    block_tokens: int = 16,
    max_tokens: int = 128,
    **sampling: Any,
) -> None:
    """Generate block by block: of k samples of the next block the one that `value` gives most is appended.

    value: called with a state of its own in which `name` is the text so far with a sample; it may ask the model. Among
    equals the first sample is taken. The generation ends where a block that was taken ended by itself, or after
    max_tokens; then `name` is the whole text. With k=1 that is plain sampling. sampling: temperature, top_p, top_k,
    min_p, processors, stop_token_ids, ignore_eos, seed. The samples of a block share the prompt. Raises UsageError for
    other arguments and for numbers below 1, ValueError for a value that is no number.
    """
    _check({"k": k, "block_tokens": block_tokens, "max_tokens": max_tokens}, sampling)
    if not callable(value):
        raise UsageError(f"value is a function of a state, not {type(value).__name__}: {value!r}")
    frame = sys._getframe(2)
    where = Spot(frame.f_code, frame.f_lasti)
    seed = sampling.pop("seed", None)
    start = s.prompt
    for number, done in enumerate(range(0, max_tokens, block_tokens)):
        origin, samples = s.prompt, s.fork(k).states
        for branch, sample in enumerate(samples):
            given = sampling | {"max_tokens": min(block_tokens, max_tokens - done)}
            if seed is not None:
                given["seed"] = gen_seed(seed, (branch,), number)
            sample += build_gen(name, given, where)
        best = samples[0] if k == 1 else max(samples, key=lambda sample: _valued(sample, name, value, start))
        s.prompt = origin.replay(best.prompt.since(origin))
        if s.get_meta_info(name)["finish_reason"] != "length":
            break
    s.prompt = s.prompt.bind(name, s.prompt.text_value(start))


def _valued(sample: State, name: str, value: Callable[[State], float], start: Prompt) -> float:
    """What a sample is worth; `value` may append to the state that it gets."""
    judged = sample.copy()
    judged[name] = judged.prompt.text_value(start)
    worth = value(judged)
    try:
        number = float(worth)
    except (TypeError, ValueError):
        number = math.nan
    if math.isnan(number):
        raise ValueError(f"value() gave {worth!r} for {judged[name]!r}, which is no number")
    return number


def _check(numbers: dict[str, int], sampling: dict[str, Any]) -> None:
    if unknown := sorted(sampling.keys() - set(_SAMPLING)):
        raise UsageError(f"best_of_k() takes no {unknown[0]!r}", help=f"it takes {', '.join(_SAMPLING)}")
    for name, number in numbers.items():
        if not isinstance(number, int) or number < 1:
            raise UsageError(f"{name} must be a whole number, at least 1; got {number!r}")


@wraps(_best_of_k)
def best_of_k(*args: Any, **kwargs: Any) -> None:
    # Wrapped, so that it runs as Python in compiled programs too: it sets a state to the prompt of another.
    _best_of_k(*args, **kwargs)


best_of_k.__name__ = best_of_k.__qualname__ = "best_of_k"
