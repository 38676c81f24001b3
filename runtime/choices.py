"""How one of several scored texts is chosen.

A choice method is any callable that takes the choices as a sequence of `Scored` (runtime/request.py) and returns the
index of one. It may have an attribute `unconditional`: when that is true, each Scored also carries the
log-probabilities of the same tokens without the prompt. The three methods here are those of SGLang.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from .request import Scored


class ChoiceMethod(Protocol):
    """Chooses among scored texts."""

    def __call__(self, choices: Sequence[Scored], /) -> int:
        """The index of the chosen one."""


@dataclass(frozen=True, slots=True)
class NamedMethod:
    """A method that can also be asked for by its name. `unconditional` says what it needs, see above."""

    name: str
    choose: Callable[[Sequence[Scored]], int]
    unconditional: bool = False

    @property
    def __ramify_constant__(self) -> str:
        """What stands for it in compiled programs."""
        return self.name

    def __call__(self, choices: Sequence[Scored], /) -> int:
        return self.choose(choices)

    def __repr__(self) -> str:
        return f"rf.{self.name}"


def _by_mean(choices: Sequence[Scored]) -> int:
    return _likeliest([choice.mean for choice in choices])


def _by_gain(choices: Sequence[Scored]) -> int:
    return _likeliest([choice.mean_gain for choice in choices])


def _greedily(choices: Sequence[Scored]) -> int:
    """Goes through the positions, and keeps at each the choices whose next token is the likeliest.

    Choices that begin with the same tokens stay together, and so do tokens that are equally likely. A choice that has
    ended stands on with the mean of its tokens' log-probabilities. Of what is left at the end the first is taken.
    """
    left = list(range(len(choices)))
    for position in range(max(len(choice.tokens) for choice in choices)):
        beginnings = {index: choices[index].token_ids[: position + 1] for index in left}
        values: dict[tuple[int, ...], float] = {}
        for index, beginning in beginnings.items():  # of equal beginnings the log-probabilities differ by rounding
            values.setdefault(beginning, _logprob_at(choices[index], position))
        best = max(values.values())
        left = [index for index, beginning in beginnings.items() if values[beginning] == best]
        if len(left) == 1:
            break
    return left[0]


def _logprob_at(choice: Scored, position: int) -> float:
    return choice.tokens[position].logprob if position < len(choice.tokens) else choice.mean


def _likeliest(values: Sequence[float]) -> int:
    return max(range(len(values)), key=values.__getitem__)


token_length_normalized = NamedMethod("token_length_normalized", _by_mean)
greedy_token_selection = NamedMethod("greedy_token_selection", _greedily)
unconditional_likelihood_normalized = NamedMethod("unconditional_likelihood_normalized", _by_gain, unconditional=True)
CHOICE_METHODS = {
    method.name: method
    for method in (token_length_normalized, greedy_token_selection, unconditional_likelihood_normalized)
}


def needs_unconditional(method: ChoiceMethod) -> bool:
    """Whether a method looks at log-probabilities without the prompt."""
    return bool(getattr(method, "unconditional", False))


def choose(method: ChoiceMethod, choices: Sequence[Scored]) -> int:
    """The index that a method gives. Raises TypeError or ValueError, naming the method, if that is no index."""
    index = method(choices)
    name = getattr(method, "__qualname__", repr(method))
    if isinstance(index, bool) or not isinstance(index, int):
        raise TypeError(f"the choice method {name} returned {index!r}, not the index (int) of a choice")
    if not 0 <= index < len(choices):
        raise ValueError(f"the choice method {name} returned {index} for {len(choices)} choices")
    return index
