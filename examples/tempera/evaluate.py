"""How good edited prompts are: the share of queries whose right label is the likeliest, for each editor and seed."""

import math
import statistics
from collections.abc import Sequence

import msgspec

from .editors import Editor
from .environment import EditState
from .episodes import Environment

__all__ = ["Evaluated", "evaluate", "share_right", "table"]


class Evaluated(msgspec.Struct, frozen=True):
    """One editor on one seed's held-out queries. `score` is the mean weighted margin of the right label.

    `asked` counts the label probabilities that the editor itself looked at, per query.
    """

    editor: str
    seed: int
    queries: int
    right: float
    score: float
    asked: float


def evaluate(environment: Environment, editor: Editor, states: Sequence[EditState], seed: int) -> Evaluated:
    """Let an editor edit the prompts, and score what it made of them."""
    before = environment.model.counts.asked
    edited = editor.edit(environment, states)
    asked = environment.model.counts.asked - before
    right, scores = environment.is_right(edited), environment.scores(edited)
    count = len(states)
    return Evaluated(editor.name, seed, count, sum(right) / count, statistics.fmean(scores), asked / count)


def share_right(environment: Environment, editor: Editor, states: Sequence[EditState]) -> float:
    """The share of queries whose right label is the likeliest after an editor's edits."""
    return statistics.fmean(environment.is_right(editor.edit(environment, states)))


def table(rows: Sequence[Evaluated]) -> str:
    """The editors' means over the seeds with standard errors, and how far the learnt one is before each other."""
    editors = list(dict.fromkeys(row.editor for row in rows))
    found = {name: {row.seed: row for row in rows if row.editor == name} for name in editors}
    lines = [f"{'editor':24} {'right':>15} {'score':>15} {'asked a query':>14}"]
    for name, by_seed in found.items():
        right, score = ([getattr(row, key) for row in by_seed.values()] for key in ("right", "score"))
        asked = statistics.fmean(row.asked for row in by_seed.values())
        lines.append(f"{name:24} {with_error(right):>15} {with_error(score):>15} {asked:14.1f}")
    for name in editors if "learnt" in found else []:
        seeds = sorted(found["learnt"].keys() & found[name].keys())
        gains = [found["learnt"][seed].right - found[name][seed].right for seed in seeds]
        if name != "learnt" and len(seeds) > 1:
            lines.append(f"learnt - {name}: {with_error(gains)} over {len(seeds)} seeds")
    return "\n".join(lines)


def with_error(values: Sequence[float]) -> str:
    """A mean, and its standard error where there are several values."""
    mean = statistics.fmean(values)
    if len(values) < 2:
        return f"{mean:.3f}"
    return f"{mean:.3f} ± {statistics.stdev(values) / math.sqrt(len(values)):.3f}"
