"""How many prompts a second a model labels, with the cache of prefixes and without it."""

import time
from collections.abc import Iterator
from pathlib import Path

from ramify.backends.local import LocalBackend
from ramify.backends.tiny import model_dir

from .problem import Problem

__all__ = ["measure"]


def measure(problem: Problem, model: str | None, num_queries: int) -> Iterator[str]:
    """Have every edit of the first queries' prompts judged as one batch; a line for each way, and one for both.

    The model is a directory, or `tiny`; raises UsageError for another one.
    """
    directory = model_dir() if model in (None, "tiny") else Path(str(model))
    rates = []
    for name, prefix_cache in (("prefixes shared", True), ("nothing shared", False)):
        backend = LocalBackend(directory, prefix_cache=prefix_cache)
        rate, told = rate_of(problem, backend, num_queries)
        backend.close()
        rates.append(rate)
        yield f"{name:16} {rate:7.1f} prompts a second; {told}"
    yield f"sharing prefixes: {rates[0] / rates[1]:.1f} times as fast"


def rate_of(problem: Problem, backend: LocalBackend, num_queries: int) -> tuple[float, str]:
    """Prompts a second, and what they were."""
    environment = problem.environment(backend)
    states = environment.start(problem.split.test[:num_queries], problem.exemplars)
    environment.probabilities(states[:1])
    edited = [problem.actions.apply(state, action) for state in states for action in range(len(problem.actions))]
    begin = time.perf_counter()
    environment.probabilities(edited)
    return len(edited) / (time.perf_counter() - begin), str(environment.model.counts)
