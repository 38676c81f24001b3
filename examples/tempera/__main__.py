"""The command line of prompt editing: python -m ramify.examples.tempera train|evaluate|edit|plot|rate."""

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random

import msgspec
from ramify.examples.command import add_run_options
from ramify.ir.errors import RamifyError, UsageError

from .editors import Beam, Editor, Greedy, Learnt, RandomEditor, Unedited
from .evaluate import Evaluated, evaluate, table
from .figure import draw
from .policy import load_policy
from .ppo import Settings
from .problem import INVENTED, TEMPLATES, Problem, Source
from .rate import measure
from .tasks import UNLABELLED, Row
from .training import POLICY, train
from .writing import edit_rows, write_rows

EDITORS = ("none", "random", "learnt", "greedy", "beam", "greedy-label")
RUNS = Path("tempera-runs")


def parser() -> argparse.ArgumentParser:
    """The subcommands and their options."""
    top = argparse.ArgumentParser(prog="python -m ramify.examples.tempera", description=__doc__)
    commands = top.add_subparsers(dest="command", required=True)
    for name, about in (
        ("train", "train the learnt editor by PPO, one policy for each seed"),
        ("evaluate", "compare editors on held-out queries"),
        ("edit", "edit the prompts of queries and label them"),
        ("rate", "label probabilities per second, with and without shared prefixes"),
    ):
        command = commands.add_parser(name, help=about, description=about)
        if name != "rate":
            add_run_options(command)
        add_problem_options(command)
    training, evaluation, editing, rating = (commands.choices[name] for name in ("train", "evaluate", "edit", "rate"))
    for command in (training, evaluation):
        command.add_argument("--seeds", type=int, nargs="+", default=[0], help="one run for each (0)")
    training.add_argument("--ppo", type=Path, help="JSON with PPO's settings, or with a block `ppo` of them")
    training.add_argument("--env-steps", type=int, help="how many edits to learn from")
    evaluation.add_argument("--editors", nargs="+", choices=EDITORS, default=["none", "random", "learnt"])
    evaluation.add_argument("--runs", type=Path, default=RUNS, help=f"where `train` wrote ({RUNS})")
    editing.add_argument("--editor", choices=EDITORS, default="greedy", help="which (greedy)")
    editing.add_argument("--runs", type=Path, default=RUNS, help=f"where `train` wrote, for the learnt one ({RUNS})")
    editing.add_argument("--seed", type=int, default=0, help="of the invented reviews and of the policy (0)")
    editing.add_argument("--query", action="append", help="a text to label, instead of the test rows; may be repeated")
    rating.add_argument("--data", type=Path, help="a k-shot folder; without it, invented reviews")
    rating.add_argument("--model", help="a model directory, or `tiny` (tiny)")
    rating.add_argument("--queries", type=int, default=8, help="every edit of so many queries' prompts (8)")
    plotting = commands.add_parser("plot", help="draw the curves of `train` as an SVG")
    plotting.add_argument("--runs", type=Path, default=RUNS, help=f"where `train` wrote ({RUNS})")
    plotting.add_argument("--svg", type=Path, default=Path("tempera.svg"), help="where to draw (tempera.svg)")
    return top


def add_problem_options(command: argparse.ArgumentParser) -> None:
    """The options that say what is edited; --data is a k-shot folder."""
    command.add_argument("--task", default=INVENTED, help=f"the task's name in --tasks ({INVENTED})")
    command.add_argument("--tasks", type=Path, help="settings of tasks, in the paper's form")
    command.add_argument("--templates", type=Path, default=TEMPLATES, help="a PromptSource file, or a folder of them")
    command.add_argument("--edit-instruction", action="store_true", help="edit the instruction's phrases, too")
    command.add_argument("--paraphrases", type=Path, help="the same, with other wordings of phrases, as JSON")


def source_of(given: argparse.Namespace) -> Source:
    """What is to be edited."""
    return Source(given.data, given.task, given.tasks, given.templates, given.edit_instruction, given.paraphrases)


def run_train(given: argparse.Namespace) -> None:
    """Train a policy for each seed."""
    for seed in given.seeds:
        train(
            source_of(given),
            seed,
            (given.out or RUNS) / f"seed-{seed}",
            settings_of(given),
            given.model,
            resume=given.resume,
            overwrite=given.overwrite,
            tell=teller(given),
        )


def settings_of(given: argparse.Namespace) -> Settings:
    """PPO's settings: the example's own, or those of a file."""
    settings = json.loads(given.ppo.read_text(encoding="utf-8")) if given.ppo else {}
    steps = {"env_steps": given.env_steps} if given.env_steps else {}
    return Settings.of(settings.get("ppo", settings) | steps)


def teller(given: argparse.Namespace) -> Callable[[str], None]:
    """How progress is told."""
    return (lambda line: None) if given.quiet else (lambda line: print(line, file=sys.stderr, flush=True))


def run_evaluate(given: argparse.Namespace) -> None:
    """Compare editors on the test rows of each seed."""
    rows: list[Evaluated] = []
    if given.out and given.out.exists() and not given.overwrite:
        raise UsageError(f"{given.out} is there already", help="--overwrite replaces it")
    for seed in given.seeds:
        problem = source_of(given).problem(seed)
        environment = problem.environment(given.model)
        states = environment.start(test_rows(problem, given), problem.exemplars)
        for name in given.editors:
            rows.append(evaluate(environment, editor_of(name, problem, given, seed), states, seed))
            teller(given)(f"seed {seed}  {name}: {rows[-1].right:.3f} right")
        teller(given)(f"seed {seed}  {environment.model.counts}")
    if given.out:
        given.out.write_bytes(b"".join(msgspec.json.encode(row) + b"\n" for row in rows))
    print(table(rows))


def test_rows(problem: Problem, given: argparse.Namespace) -> Sequence[Row]:
    """The rows to label. Raises UsageError where there are none."""
    if not problem.split.test:
        raise UsageError(f"{given.data} has no test.tsv, nor has the folder above", help="put the held-out rows there")
    return problem.split.test[: given.limit]


def editor_of(name: str, problem: Problem, given: argparse.Namespace, seed: int) -> Editor:
    """The editor of this name; the learnt one is read from the folder of the seed's run."""
    if name == "learnt":
        path = given.runs / f"seed-{seed}" / POLICY
        if not path.exists():
            raise UsageError(f"there is no policy {path}", help="train one: python -m ramify.examples.tempera train")
        return Learnt(load_policy(path), problem.features(given.model))
    others: dict[str, Editor] = {
        "none": Unedited(),
        "random": RandomEditor(Random(f"random/{seed}")),
        "greedy": Greedy(),
        "beam": Beam(),
        "greedy-label": Greedy(goal="label", name="greedy-label"),
    }
    return others[name]


def run_edit(given: argparse.Namespace) -> None:
    """Edit the prompts of the queries and write, or print, what became of them."""
    problem = source_of(given).problem(given.seed)
    environment = problem.environment(given.model)
    queries = [Row(text, UNLABELLED) for text in given.query] if given.query else test_rows(problem, given)
    if given.query and given.editor == "greedy-label":
        raise UsageError("greedy-label goes by the right label, and --query has none", help="take greedy or beam")
    editor = editor_of(given.editor, problem, given, given.seed)
    if given.out:
        rows = write_rows(
            given.out,
            environment,
            editor,
            queries,
            problem.exemplars,
            resume=given.resume,
            overwrite=given.overwrite,
        )
        teller(given)(f"{given.out}: {len(rows)} rows")
    else:
        for edited in edit_rows(environment, editor, queries, problem.exemplars):
            print(f"{edited.prompt} {edited.label}  ({edited.probability:.2f})\n{'-' * 40}")
    teller(given)(str(environment.model.counts))


def run_rate(given: argparse.Namespace) -> None:
    """Print label probabilities per second with and without shared prefixes."""
    problem = source_of(given).problem(0)
    for line in measure(problem, given.model, given.queries):
        print(line)


def run_plot(given: argparse.Namespace) -> None:
    """Draw the curves."""
    draw(given.runs, given.svg)
    print(f"{given.svg} shows {given.runs}")


COMMANDS = {"train": run_train, "evaluate": run_evaluate, "edit": run_edit, "rate": run_rate, "plot": run_plot}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a subcommand; the exit code."""
    given = parser().parse_args(arguments)
    try:
        COMMANDS[given.command](given)
    except RamifyError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
