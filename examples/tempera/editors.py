"""Editors: what chooses the edits of prompts. Each takes unedited states and gives edited ones.

The searching editors ask the model about every edit of every prompt in one batch. Their `goal` says what they climb:
`confidence`, the margin of the likeliest label, which needs no label; or `label`, the right label's, which is an upper
bound that no editor of unlabelled queries can count on.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Literal, Protocol

import torch

from .environment import HORIZON, EditState
from .episodes import Environment
from .features import Features
from .policy import AttentionPolicy

__all__ = ["Beam", "Editor", "Goal", "Greedy", "Learnt", "RandomEditor", "Unedited"]

Goal = Literal["confidence", "label"]


class Editor(Protocol):
    """Edits prompts."""

    @property
    def name(self) -> str:
        """What it is called."""

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
            reached = [environment.actions.reach(environment.prompts, beam) for beam in beams]
            values = iter(self.values(environment, [state for group in reached for state in group.values()]))
            ranked = [[(next(values), state) for state in group.values()] for group in reached]
            beams = [best(group, self.width) for group in ranked]
        return [beam[0] for beam in beams]

    def values(self, environment: Environment, states: Sequence[EditState]) -> list[float]:
        """How good states are for the goal; all are asked in one batch."""
        environment.probabilities(states)
        return environment.scores(states) if self.goal == "label" else environment.confidences(states)


@dataclass(frozen=True, slots=True)
class Greedy(Beam):
    """Takes the best edit of all, step by step."""

    width: int = 1
    name: str = field(default="greedy")


def best(group: list[tuple[float, EditState]], width: int) -> list[EditState]:
    """The states of the largest values; of equal ones, those that were met first."""
    return [state for _, state in sorted(group, key=lambda pair: -pair[0])[:width]]


@dataclass(frozen=True, slots=True)
class Learnt:
    """Takes the policy's likeliest edit, up to a stop or the horizon."""

    policy: AttentionPolicy
    features: Features
    steps: int = HORIZON
    name: str = "learnt"

    @torch.no_grad()
    def edit(self, environment: Environment, states: Sequence[EditState]) -> list[EditState]:
        """See Editor."""
        edited = list(states)
        for _ in range(self.steps):
            going = [number for number, state in enumerate(edited) if not state.stopped]
            if not going:
                break
            template_ids = torch.tensor([edited[number].template_ids for number in going])
            logits, _ = self.policy(self.features.of([edited[number] for number in going]), template_ids)
            for number, action in zip(going, logits.argmax(-1).tolist(), strict=True):
                edited[number] = environment.actions.apply(edited[number], action)
        return edited
