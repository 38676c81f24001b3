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
        self.probabilities(after)
        scores = zip(self.scores(states), self.scores(after), strict=True)
        return after, [self.scoring.reward(earlier, later) for earlier, later in scores]

    def probabilities(self, states: Sequence[EditState]) -> list[tuple[float, ...]]:
        """The label probabilities of each state's prompt."""
        return self.model.probabilities([self.prompts.write(state) for state in states])

    def judged(self, states: Sequence[EditState]) -> list[tuple[EditState, tuple[float, ...]]]:
        """Each state with its label probabilities, looked at once more."""
        probabilities = self.model.recall([self.prompts.write(state) for state in states])
        return list(zip(states, probabilities, strict=True))

    def scores(self, states: Sequence[EditState]) -> list[float]:
        """The score of each state by its right label."""
        return [self.scoring.score(each, state.query.label) for state, each in self.judged(states)]

    def confidences(self, states: Sequence[EditState]) -> list[float]:
        """The score of each state as if the likeliest label were right."""
        return [self.scoring.score(each, each.index(max(each))) for _, each in self.judged(states)]

    def is_right(self, states: Sequence[EditState]) -> list[bool]:
        """Whether the right label is the likeliest in each state."""
        return [each.index(max(each)) == state.query.label for state, each in self.judged(states)]
