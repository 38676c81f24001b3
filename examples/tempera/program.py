"""The LM program of prompt editing (TEMPERA, arXiv 2211.11890): every edit of a prompt is a branch.

    ramify run examples/tempera --arg query="The lamp was bri."

The branches run at once and share what their prompts begin with. Training, the other editors and real data:
`python -m ramify.examples.tempera --help`.
"""

from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

import ramify as rf

from .environment import EditState
from .problem import Problem, Source
from .tasks import UNLABELLED, Row, read_rows

QUERY = "The lamp was bri."


@rf.program
def edit(s, query: str = QUERY, steps: int = 2):
    """Edit a query's prompt greedily: of all edits, take the one after which the model is surest of its label."""
    problem = invented()
    words = problem.prompts.task.label_words
    state = EditState.first(problem.prompts.task, Row(query, UNLABELLED), problem.exemplars)
    for _ in range(steps):
        edits = problem.actions.reach(problem.prompts, [state])
        branches = s.fork(len(edits))
        for branch, prompt in zip(branches, edits, strict=True):
            branch += prompt + rf.score("scores", words)
        margins = [margin(branch["scores"]) for branch in branches]
        state = list(edits.values())[margins.index(max(margins))]
    s += problem.prompts.write(state) + rf.select("label", words)
    return s["label"].strip()


def margin(scores: list[float]) -> float:
    """How much likelier the likeliest is than the next one, in log-probability."""
    *_, second, first = sorted(scores)
    return first - second


@lru_cache
def invented() -> Problem:
    """The invented reviews' exemplars, templates and edits."""
    return Source().problem(0)


def load_rows(path: Path) -> Iterator[dict[str, str]]:
    """Rows for `ramify run --data`: the texts of a file of a k-shot folder."""
    for row in read_rows(path):
        yield {"query": str(row.text)}
