"""What the learnt editor sees: hidden states of the language model, by `rf.embed`.

Of a state these are, in order, that of its whole prompt and, for each exemplar in a slot or in the pool, that of a
prompt with this exemplar alone before the query. So the model itself has compared exemplar and query. Each text is
embedded once.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import ramify as rf
import torch
from ramify.runtime.backend import Backend
from torch import Tensor

from .environment import EditState, Prompts
from .instruction import Phrases
from .tasks import Row

__all__ = ["Features"]


@dataclass(slots=True)
class Features:
    """Hidden states of states' prompts, remembered by their text."""

    prompts: Prompts
    backend: str | Path | Backend | None = None
    known: dict[str, Tensor] = field(default_factory=dict)

    def of(self, states: Sequence[EditState]) -> Tensor:
        """The hidden states of states, (number of states, 1 + exemplars, hidden size)."""
        texts = [self.texts(state) for state in states]
        new = list(dict.fromkeys(text for each in texts for text in each if text not in self.known))
        if new:
            vectors = rf.embed(new, backend=self.backend)
            self.known.update(zip(new, torch.from_numpy(np.ascontiguousarray(vectors)), strict=True))
        return torch.stack([torch.stack([self.known[text] for text in each]) for each in texts])

    def texts(self, state: EditState) -> list[str]:
        """The state's prompt, and one with each of its exemplars alone."""
        return [self.prompts.write(state), *(self.alone(state, row) for row in (*state.slots, *state.pool))]

    def alone(self, state: EditState, row: Row) -> str:
        """The unedited instruction, one exemplar by the first template, and the query."""
        phrases = Phrases.of(self.prompts.task.instruction)
        return self.prompts.write(replace(state, slots=(row,), pool=(), template_ids=(0,), phrases=phrases))
