"""Editors: what chooses the edits of prompts. Each takes unedited states and gives edited ones.

The searching editors ask the model about every edit of every prompt in one batch. Their `goal` says what they climb:
`confidence`, the margin of the likeliest label, which needs no label; or `label`, the right label's, which is an upper
bound that no editor of unlabelled queries can count on.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Literal, Protocol

from .environment import HORIZON, EditState
from .episodes import Environment

__all__ = ["Beam", "Editor", "Goal", "Greedy", "RandomEditor", "Unedited"]

Goal = Literal["confidence", "label"]


class Editor(Protocol):
    """Edits prompts."""

    name: str

    def edit(self, environment: Environment, states: Sequence[EditState]) -> list[EditState]:
        """The edited states, in the order of the unedited ones."""


@dataclass(frozen=True, slots=True)
class Unedited:
    """Changes nothing."""

    name: str = "none"

    def edit(self, environment: Environment, states: Sequence[EditState]) -> list[EditState]:
        """See Editor."""
        return list(states)


@dataclass(frozen=True, slots=True)
class RandomEditor:
    """Takes random edits up to a stop or the horizon."""

    rng: Random
    steps: int = HORIZON
    name: str = "random"

    def edit(self, environment: Environment, states: Sequence[EditState]) -> list[EditState]:
        """See Editor."""
        edited = list(states)
        for _ in range(self.steps):
            edited = [environment.actions.apply(s, self.rng.randrange(len(environment.actions))) for s in edited]
        return edited


@dataclass(frozen=True, slots=True)
class Beam:
    """Keeps the best `width` prompts of each query, step by step, and gives the best of all that were met."""

    width: int = 3
    steps: int = 2
    goal: Goal = "confidence"
    name: str = "beam"

    def edit(self, environment: Environment, states: Sequence[EditState]) -> list[EditState]:
        """See Editor."""
        beams = [[state] for state in states]
        for _ in range(self.steps):
            candidates = [self.candidates(environment, beam) for beam in beams]
            values = iter(environment.values([state for group in candidates for state in group], self.goal))
            ranked = [[(next(values), state) for state in group] for group in candidates]
            beams = [best(group, self.width) for group in ranked]
        return [beam[0] for beam in beams]

    def candidates(self, environment: Environment, beam: Sequence[EditState]) -> list[EditState]:
        """The states of a beam and all that one edit makes of them, without those whose prompt is the same."""
        actions = environment.actions
        found: dict[str, EditState] = {}
        for state in [*beam, *(actions.apply(state, action) for state in beam for action in range(len(actions)))]:
            found.setdefault(environment.prompts.write(state), state)
        return list(found.values())


@dataclass(frozen=True, slots=True)
class Greedy(Beam):
    """Takes the best edit of all, step by step."""

    width: int = 1
    name: str = field(default="greedy")


def best(group: list[tuple[float, EditState]], width: int) -> list[EditState]:
    """The states of the largest values; of equal ones, those that were met first."""
    return [state for _, state in sorted(group, key=lambda pair: -pair[0])[:width]]
