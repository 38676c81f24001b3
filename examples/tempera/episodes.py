"""Episodes of editing: states, edits and rewards of many queries at once."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from .environment import Actions, EditState, Prompts
from .labelling import LabelModel
from .rewards import Scoring
from .tasks import Row

__all__ = ["Environment"]


@dataclass(frozen=True, slots=True)
class Environment:
    """Prompts, the edits that there are, the model that labels, and how a prompt is scored."""

    prompts: Prompts
    actions: Actions
    model: LabelModel
    scoring: Scoring = field(default_factory=Scoring)

    def start(self, queries: Sequence[Row], exemplars: Sequence[Row]) -> list[EditState]:
        """The unedited state of each query."""
        return [EditState.first(self.prompts.task, query, exemplars) for query in queries]

    def step(self, states: Sequence[EditState], actions: Sequence[int]) -> tuple[list[EditState], list[float]]:
        """Take an edit in each state: the states after it, and the rewards."""
        after = [self.actions.apply(state, action) for state, action in zip(states, actions, strict=True)]
        scores = self.values([*states, *after], "label")
        pairs = zip(scores[: len(states)], scores[len(states) :], strict=True)
        return after, [self.scoring.reward(earlier, later) for earlier, later in pairs]

    def probabilities(self, states: Sequence[EditState]) -> list[tuple[float, ...]]:
        """The label probabilities of each state's prompt."""
        return self.model.probabilities([self.prompts.write(state) for state in states])

    def values(self, states: Sequence[EditState], goal: str) -> list[float]:
        """The score of each state: by the right label, or (`confidence`) by the likeliest."""
        return [
            self.scoring.score(each, state.query.label if goal == "label" else each.index(max(each)))
            for state, each in zip(states, self.probabilities(states), strict=True)
        ]

    def is_right(self, states: Sequence[EditState]) -> list[bool]:
        """Whether the right label is the likeliest in each state."""
        return [
            each.index(max(each)) == state.query.label
            for state, each in zip(states, self.probabilities(states), strict=True)
        ]
