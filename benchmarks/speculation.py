"""What speculative prefill gains where programs wait, and what it costs where the engine never does.

`python -m benchmarks.speculation [--quick] [--timed] [--only NAME] [--json FILE]`. Every workload runs with the pass
`speculate` and without it in turn, on an engine each, the cache emptied before each run. The ratio is the median of the
rounds' ratios; tokens, hits and delays are those of all rounds. Delay is what the engine's ledger counts
(runtime/speculation.py). The model is the embedded one, or, with `--timed`, one that only waits as long as a step of
that takes on a free core, so that other work on the machine matters less.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import ramify as rf
import torch
from ramify.backends.local import LocalBackend
from ramify.backends.tiny import model_dir
from ramify.runtime.batch import Batch

from .report import Bar, machine, median, paired, say, write

TOOL_SECONDS = 0.05
ADVICE = (
    "The tool has looked this up. Read all of it before you answer, and compare it with what was said before. If two "
    "numbers differ, the later one counts. If a name is missing, say so and do not make one up. Keep the answer short, "
    "name the source at the end, and do not repeat the question. The result is: "
)
MATH = (
    ". This is about numbers. Write down what is given and what is asked for, choose a unit, work in small steps, and "
    "check every step by doing it backwards. In the end give one number with its unit and nothing else. Answer: "
)
WORDS = (
    ". This is about words. Look at how the word is written, where it comes from and how people use it today, then "
    "say in one sentence what it means, in words that a child of ten years knows. Answer: "
)


def tool(value: str) -> str:
    """Something that takes a while elsewhere."""
    time.sleep(TOOL_SECONDS)
    return value


@rf.program
def agent(s, question):
    """Three turns with a tool, each followed by the same long text."""
    s += rf.user(question)
    s += rf.assistant(rf.gen("call", max_tokens=8, ignore_eos=True))
    for _ in range(3):
        result = tool(s["call"])
        s += rf.user(ADVICE + result)
        s += rf.assistant(rf.gen("call", max_tokens=8, ignore_eos=True))
    return s["call"]


@rf.program
def route(s, question):
    """A choice, a look at something outside, and a long text that depends on the choice."""
    s += question + " This is a question about " + rf.select("kind", ["numbers", "words"])
    tool(s["kind"])
    if s["kind"] == "numbers":
        s += MATH + rf.gen("answer", max_tokens=8, ignore_eos=True)
    else:
        s += WORDS + rf.gen("answer", max_tokens=8, ignore_eos=True)
    return s["answer"]


class TimedModel:
    """Waits as long as the embedded model computes on one core: 4.2 ms a step and 0.21 ms a token."""

    def __init__(self, model: Any) -> None:
        self.config = model.config
        self.layout = model.layout

    def forward(self, batch: Batch) -> torch.Tensor:
        """The same logits for every row."""
        time.sleep(0.0042 + 0.00021 * len(batch.token_ids))
        logits = torch.zeros(len(batch.logit_rows), self.config.vocab_size)
        logits[:, 100] = 1.0
        return logits


@rf.program
def doubt(s, question):
    """What may come next never comes: all that is computed ahead is wasted."""
    s += question
    judge = s.copy()
    s += " Answer: " + rf.gen("answer", max_tokens=32, ignore_eos=True)
    if s["answer"] == "I doubt it":
        judge += WORDS + rf.gen("judgement", max_tokens=8)
    return s["answer"]


@dataclass(frozen=True)
class Workload:
    """A program and its rows, which run one after the other or all at once."""

    name: str
    program: rf.Program
    rows: list[dict[str, Any]]
    at_once: bool


@dataclass(frozen=True)
class Measured:
    """One run of a workload. Tokens; delayed: seconds by which real work was late, worked: seconds that it took."""

    config: str
    seconds: float
    computed: int
    speculated: int
    hits: int
    delayed: float
    worked: float
    values: list[Any]


def workloads(scale: int) -> list[Workload]:
    """Two where the engine waits for tools, the same with so many rows that it never does, and one without any gain."""
    rows = [{"question": f"Question {row}: how many are {3 * row} and {row + 8}?"} for row in range(16 * scale)]
    return [
        Workload("agents, one by one", agent, rows[: 2 * scale], at_once=False),
        Workload("branches, one by one", route, rows[: 4 * scale], at_once=False),
        Workload("agents, saturated", agent, rows[: 8 * scale], at_once=True),
        Workload("branches, saturated", route, rows, at_once=True),
        Workload("wasted, saturated", doubt, rows, at_once=True),
    ]


def measure(workload: Workload, config: str, program: rf.Program, backend: LocalBackend) -> Measured:
    """Run all rows from an empty cache."""
    backend.clear_cache()
    backend.engine.check_idle()
    speculation: Any = backend.engine._speculation
    before, delayed, worked = backend.stats(), speculation.delayed_seconds, speculation.worked_seconds
    begun = time.perf_counter()
    if workload.at_once:
        values = [run.value for run in program.run_batch(workload.rows, backend=backend)]
    else:
        values = [program.run(**row, backend=backend).value for row in workload.rows]
    seconds = time.perf_counter() - begun
    backend.engine.check_idle()
    stats = backend.stats()
    return Measured(
        config=config,
        seconds=seconds,
        computed=stats.computed_tokens - before.computed_tokens,
        speculated=stats.speculated_tokens - before.speculated_tokens,
        hits=stats.speculation_hits - before.speculation_hits,
        delayed=speculation.delayed_seconds - delayed,
        worked=speculation.worked_seconds - worked,
        values=values,
    )


def new_backend(*, is_timed: bool) -> LocalBackend:
    """The embedded model, or as long a wait."""
    backend = LocalBackend(model_dir(), dtype=torch.float32)
    if is_timed:
        engine: Any = backend.engine
        engine._model = TimedModel(backend.model)
    return backend


def measure_all(workload: Workload, rounds: int, *, is_timed: bool) -> list[Measured]:
    """With the pass and without it, in turn."""
    configs = {"on": workload.program, "off": workload.program.options(disable=["speculate"])}
    backends = {name: new_backend(is_timed=is_timed) for name in configs}
    runs = []
    try:
        for number in range(rounds + 1):
            order = list(configs.items()) if number % 2 else list(configs.items())[::-1]
            measured = [measure(workload, name, program, backends[name]) for name, program in order]
            if number:  # the first round warms everything up
                runs += measured
    finally:
        for backend in backends.values():
            backend.close()
    assert all(run.values == runs[0].values for run in runs), "speculation has changed a result"
    return runs


def seconds(runs: Sequence[Measured], config: str) -> list[float]:
    """Those of a configuration, in the order of the rounds."""
    return [run.seconds for run in runs if run.config == config]


def total(runs: Sequence[Measured], name: str) -> float:
    """The sum over the runs with the pass."""
    return sum(getattr(run, name) for run in runs if run.config == "on")


def bars(runs: dict[str, list[Measured]]) -> dict[str, Bar]:
    """What was named beforehand."""
    found: dict[str, Bar] = {}
    for name, measured in runs.items():
        ratio, error = paired(seconds(measured, "on"), seconds(measured, "off"))
        found[f"{name}: seconds on / off"] = Bar(ratio, 1.02 if "saturated" in name else 1.0, "x", error=error)
        found[f"{name}: delay / work"] = Bar(total(measured, "delayed") / total(measured, "worked"), 0.02, "s/s")
    return found


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description="what speculative prefill gains and costs")
    parser.add_argument("--quick", action="store_true", help="few rows and rounds")
    parser.add_argument("--timed", action="store_true", help="a model that only waits")
    parser.add_argument("--only", metavar="NAME", help="workloads whose name has this in it")
    parser.add_argument("--json", metavar="FILE", help="write the figures here")
    arguments = parser.parse_args()
    about = machine()
    runs: dict[str, list[Measured]] = {}
    print(f"{'':22} {'on':>7} {'off':>7} {'computed on':>12} {'off':>7} {'ahead':>7} {'hits':>7}")
    for workload in workloads(1 if arguments.quick else 2):
        if arguments.only is not None and arguments.only not in workload.name:
            continue
        say(f"{workload.name}: {len(workload.rows)} rows")
        measured = runs[workload.name] = measure_all(
            workload, rounds=5 if arguments.quick else 40, is_timed=arguments.timed
        )
        off = sum(run.computed for run in measured if run.config == "off")
        print(
            f"{workload.name:22} {median(seconds(measured, 'on')):7.2f} {median(seconds(measured, 'off')):7.2f} "
            f"{total(measured, 'computed'):12.0f} {off:7} {total(measured, 'speculated'):7.0f} "
            f"{total(measured, 'hits'):7.0f}"
        )
    write(arguments.json, {name: list(map(asdict, each)) for name, each in runs.items()}, bars(runs), about)


if __name__ == "__main__":
    main()
