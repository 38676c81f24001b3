"""What drafts by lookup save where texts are copied, and cost where nothing repeats.

`python -m benchmarks.lookup [--quick] [--only NAME] [--json FILE]`. A small model does not copy as a large one would,
so the embedded model computes everything in float32 as always, and what it then says is given: the answers that large
models gave in published debates and to published instructions, fields copied out of articles, and articles with a few
words changed. Each workload runs with and without drafts in turn, one request at a time and eight together, from an
empty cache. Seconds are those of the engine's thread, so that other work on the machine matters little; prefill is
among them. The ratio is the median of the rounds' ratios; steps and tokens are the same in all rounds but for what
costs decide. `random` are tokens without any order, `own` is what the embedded model says itself after an article.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from ramify.backends.tiny import model_dir
from ramify.runtime.batch import Batch
from ramify.runtime.engine import Engine
from ramify.runtime.models import load_model
from ramify.runtime.request import Done, EngineRequest, Event, SamplingParams
from ramify.runtime.tokens import Tokenizer

from .report import DATA, Bar, machine, median, say, write

PROMPT_TOKENS = 900
ANSWER_TOKENS = 160
BATCHES = (1, 8)
# The workloads in which much is copied, and those in which it is not.
COPYING = ("extraction", "editing", "debate")
PLAIN = ("answers", "random")
# Another text's words, to change some of an article's.
_CHANGED_WORD = 20


@dataclass(frozen=True)
class Task:
    """A prompt and what is answered, in tokens; None: whatever the model says."""

    prompt: list[int]
    answer: list[int] | None


@dataclass(frozen=True)
class Measured:
    """One run of a workload."""

    workload: str
    batch: int
    config: str
    seconds: float
    steps: int
    generated: int
    drafted: int
    accepted: int


class TaughtModel:
    """Computes what the model computes, and then says what stands in the answers."""

    def __init__(self, model: Any) -> None:
        self.config = model.config
        self.layout = model.layout
        self.identity = model.identity
        self._model = model
        self.answers: dict[int, list[int]] = {}
        self.engine: Any = None

    def forward(self, batch: Batch) -> torch.Tensor:
        """See LanguageModel."""
        logits: torch.Tensor = self._model.forward(batch)
        of_extent = {
            id(extent): sequence
            for sequence in self.engine._scheduler.running
            for extent in (sequence.prompt_extent, sequence.generated_extent)
        }
        rows = batch.logit_rows.tolist()
        positions = batch.positions.tolist()
        for write_ in batch.writes:
            sequence = of_extent[id(write_.extent)]
            answer = self.answers.get(id(sequence.request))
            for place, row in enumerate(rows):
                if answer is not None and write_.start <= row < write_.stop:
                    at = positions[row] + 1 - sequence.prompt_len
                    if at < len(answer):
                        logits[place, answer[at]] = 1e4
        return logits


def debates(tokenizer: Tokenizer) -> list[Task]:
    """The last answers of the debaters, the moderator and the judge, each after all that was said to it."""
    tasks = []
    for path in sorted((DATA / "debate" / "logs").glob("*.json")):
        for messages in json.loads(path.read_text())["players"].values():
            last = max(i for i, message in enumerate(messages) if message["role"] == "assistant")
            before = "".join(f"{message['role']}: {message['content']}\n" for message in messages[:last])
            tasks.append(_task(tokenizer, before + "assistant: ", messages[last]["content"]))
    return tasks


def articles() -> list[str]:
    """Texts of a page each."""
    return [json.loads(line) for line in (DATA / "workloads" / "llm_judge" / "articles.jsonl").read_text().splitlines()]


def extractions(tokenizer: Tokenizer) -> list[Task]:
    """The title and four sentences of an article as JSON."""
    tasks = []
    for article in articles():
        article = article[:2000]
        title, _, body = article.partition("\n")
        sentences = [part.strip() for part in body.replace("\n", " ").split(". ") if len(part) > 20]
        fields = {"title": title, "opening": sentences[0], "claims": sentences[2:7:2], "closing": sentences[-1]}
        tasks.append(_task(tokenizer, f"{article}\n\nAs JSON: ", json.dumps(fields, ensure_ascii=False)))
    return tasks


def edits(tokenizer: Tokenizer) -> list[Task]:
    """An article again, one word in twenty replaced."""
    tasks, choices = [], random.Random(1)
    for article in articles():
        words = article[:1500].split(" ")
        others = sorted(set(words))
        changed = [choices.choice(others) if choices.random() < 1 / _CHANGED_WORD else word for word in words]
        tasks.append(_task(tokenizer, f"{' '.join(words)}\n\nEdited: ", " ".join(changed)))
    return tasks


def answers(tokenizer: Tokenizer) -> list[Task]:
    """Instructions and what was answered."""
    path = DATA / "ifeval" / "input_response_data_gpt4_20231107_145030.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()][:200]
    return [
        _task(tokenizer, line["prompt"] + "\n\n", line["response"]) for line in lines if len(line["response"]) > 400
    ]


def noise(vocab_size: int) -> list[Task]:
    """Tokens in no order."""
    choices = random.Random(2)
    return [
        Task([choices.randrange(vocab_size) for _ in range(300)], [choices.randrange(vocab_size) for _ in range(160)])
        for _ in range(40)
    ]


def _task(tokenizer: Tokenizer, prompt: str, answer: str) -> Task:
    return Task(list(tokenizer.encode(prompt))[-PROMPT_TOKENS:], list(tokenizer.encode_after(answer))[:ANSWER_TOKENS])


def workloads(tokenizer: Tokenizer, count: int) -> dict[str, list[Task]]:
    """`count` tasks of each kind."""
    copied = extractions(tokenizer)
    found = {
        "extraction": copied,
        "editing": edits(tokenizer),
        "debate": debates(tokenizer),
        "answers": answers(tokenizer),
        "random": noise(tokenizer.vocab_size),
        "own": [Task(task.prompt, None) for task in copied],
    }
    return {name: tasks[:count] for name, tasks in found.items()}


class Bench:
    """One model, and a fresh engine for each run."""

    def __init__(self) -> None:
        self.tokenizer = Tokenizer.load(Path(model_dir()))
        self.model = TaughtModel(load_model(model_dir(), dtype=torch.float32))

    def run(self, name: str, tasks: Sequence[Task], batch: int, config: str) -> tuple[Measured, list[Done]]:
        """All tasks, so many at a time; the lookup's price is learned anew."""
        engine = Engine(self.model, self.tokenizer.decode_stream, kv_tokens=100_000, lookup=config == "on")
        self.model.engine = engine
        begun = time.thread_time()
        done = [
            one for start in range(0, len(tasks), batch) for one in self._serve(engine, tasks[start : start + batch])
        ]
        seconds, stats = time.thread_time() - begun, engine.stats()
        engine.close()
        measured = Measured(
            name,
            batch,
            config,
            seconds,
            stats.steps,
            stats.generated_tokens,
            stats.drafted_tokens,
            stats.accepted_tokens,
        )
        return measured, done

    def _serve(self, engine: Engine, tasks: Sequence[Task]) -> list[Done]:
        events: list[list[Event]] = [[] for _ in tasks]
        self.model.answers = {}
        requests = []
        for task, told in zip(tasks, events, strict=True):
            length = ANSWER_TOKENS if task.answer is None else len(task.answer)
            request = EngineRequest(task.prompt, SamplingParams(max_tokens=length, ignore_eos=True), told.append)
            if task.answer is not None:
                self.model.answers[id(request)] = task.answer
            requests.append(request)
            engine.submit(request)
        while engine.step():
            pass
        return [done for told in events if isinstance(done := told[-1], Done)]


def measure(bench: Bench, name: str, tasks: Sequence[Task], rounds: int) -> list[Measured]:
    """With drafts and without, in turn. Raises AssertionError where the tokens differ."""
    runs = []
    for batch in BATCHES:
        for number in range(rounds):
            results = []
            for config in ("on", "off") if number % 2 else ("off", "on"):
                measured, done = bench.run(name, tasks, batch, config)
                runs.append(measured)
                results.append([one.token_ids for one in done])
            assert results[0] == results[1], f"{name}: drafts have changed a result"
    return runs


def seconds(runs: Sequence[Measured], batch: int, config: str) -> list[float]:
    """Those of a configuration, in the order of the rounds."""
    return [run.seconds for run in runs if (run.batch, run.config) == (batch, config)]


def ratio(runs: Sequence[Measured], batch: int) -> float:
    """The median of the rounds' ratios of seconds, with drafts to without."""
    return median(on / off for on, off in zip(seconds(runs, batch, "on"), seconds(runs, batch, "off"), strict=True))


def bars(runs: dict[str, list[Measured]]) -> dict[str, Bar]:
    """What was named beforehand: less time where much is copied, and never 2 % more."""
    found = {}
    for name, measured in runs.items():
        for batch in BATCHES:
            found[f"{name}, batch {batch}: seconds on / off"] = Bar(
                ratio(measured, batch), 0.8 if name in COPYING else 1.02, "x"
            )
    return found


def show(name: str, runs: Sequence[Measured]) -> None:
    """A line for each batch size."""
    for batch in BATCHES:
        on, off = (
            next(run for run in runs[::-1] if (run.batch, run.config) == (batch, each)) for each in ("on", "off")
        )
        print(
            f"{name:12} {batch:5} {off.steps:7} {on.steps:7} {on.drafted:8} {on.accepted:8} {on.generated:9} "
            f"{ratio(runs, batch):8.3f}"
        )


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description="what drafts by lookup save and cost")
    parser.add_argument("--quick", action="store_true", help="few tasks and rounds")
    parser.add_argument("--only", metavar="NAME", help="workloads whose name has this in it")
    parser.add_argument("--json", metavar="FILE", help="write the figures here")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    about, bench = machine(), Bench()
    runs: dict[str, list[Measured]] = {}
    print(f"{'':12} {'batch':>5} {'off':>7} {'on':>7} {'drafted':>8} {'accepted':>8} {'generated':>9} {'s on/off':>8}")
    for name, tasks in workloads(bench.tokenizer, 8 if arguments.quick else 16).items():
        if arguments.only is None or arguments.only in name:
            say(f"{name}: {len(tasks)} tasks")
            runs[name] = measure(bench, name, tasks, rounds=2 if arguments.quick else 3)
            show(name, runs[name])
    write(arguments.json, {name: list(map(asdict, each)) for name, each in runs.items()}, bars(runs), about)


if __name__ == "__main__":
    main()
