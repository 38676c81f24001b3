"""How likely each label is after prompts, asked of the language model in batches that share their prefixes."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import ramify as rf
from ramify.runtime.backend import Backend

from .tasks import Task

__all__ = ["Counts", "LabelModel"]

MAX_IN_FLIGHT = 1024


@rf.program
def label_scores(s, prompt: str, words: list[str]):
    """The log-probability of each label word after a prompt."""
    s += prompt
    s += rf.score("scores", words)
    return s["scores"]


@dataclass(slots=True)
class Counts:
    """What was asked so far: prompts in all, of them computed, and their tokens, of them served from the cache."""

    asked: int = 0
    computed: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0

    def __str__(self) -> str:
        repeats = 100 * (self.asked - self.computed) // max(1, self.asked)
        cached = 100 * self.cached_tokens // max(1, self.prompt_tokens)
        return (
            f"{self.asked:,} prompts asked, {self.computed:,} computed ({repeats}% were repeats), "
            f"{self.prompt_tokens:,} prompt tokens, {cached}% of them cached"
        )


@dataclass(slots=True)
class LabelModel:
    """A language model as a classifier: label words' probabilities at the end of a prompt, which add up to 1.

    Equal prompts are computed once, in a batch and from batch to batch.
    """

    task: Task
    backend: str | Path | Backend | None = None
    counts: Counts = field(default_factory=Counts)
    known: dict[str, tuple[float, ...]] = field(default_factory=dict)

    def probabilities(self, prompts: Sequence[str]) -> list[tuple[float, ...]]:
        """The probability of each label after each prompt; all that are new are one batch."""
        self.counts.asked += sum(prompt in self.known for prompt in prompts)
        return self.recall(prompts)

    def recall(self, prompts: Sequence[str]) -> list[tuple[float, ...]]:
        """The same for prompts that are looked at once more; those that are known do not count as asked again."""
        new = [prompt for prompt in prompts if prompt not in self.known]
        self.counts.asked += len(new)
        self.ask(list(dict.fromkeys(new)))
        return [self.known[prompt] for prompt in prompts]

    def ask(self, prompts: Sequence[str]) -> None:
        """Have the model score the label words after new prompts."""
        if not prompts:
            return
        rows = [{"prompt": prompt, "words": self.task.label_words} for prompt in prompts]
        runs = label_scores.run_batch(rows, backend=self.backend, on_error="raise", max_in_flight=MAX_IN_FLIGHT)
        self.counts.computed += len(prompts)
        for prompt, run in zip(prompts, runs, strict=True):
            self.known[prompt] = normalized(run.value)
            self.counts.prompt_tokens += run.usage.prompt_tokens
            self.counts.cached_tokens += run.usage.cached_tokens


def normalized(scores: Sequence[float]) -> tuple[float, ...]:
    """Log-probabilities as probabilities of these choices alone."""
    largest = max(scores)
    weights = [math.exp(score - largest) for score in scores]
    return tuple(weight / sum(weights) for weight in weights)
