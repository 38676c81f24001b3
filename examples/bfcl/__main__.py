"""Run BFCL's questions on a model and judge the answers: `python -m ramify.examples.bfcl run|score|compare`."""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import msgspec
from ramify.examples.command import add_run_options, run_rows
from ramify.ir.errors import RamifyError, UsageError
from ramify.lang.records import run_record
from ramify.lang.rows import read_objects

from .comparison import Records, answer, compare, ordered, summaries
from .data import CATEGORIES, Question, load_questions
from .evaluate import outcomes, summary, table, turn_outcomes
from .multi_turn import Task, load_tasks
from .own import OWN, own_questions
from .picture import draw_picture
from .program import SYSTEM, converse

MULTI_TURN = "multi_turn"
OWN_DRAWS = 200


def main(arguments: Sequence[str] | None = None) -> int:
    """Read the command line and do what it says. Returns the exit code."""
    given = parser().parse_args(arguments)
    try:
        commands = {"run": run_command, "score": score_command, "compare": compare_command}
        return commands[given.command](given)
    except RamifyError as error:
        print(error, file=sys.stderr)
        return 2


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(prog="python -m ramify.examples.bfcl", description=__doc__)
    commands = made.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run", help="ask a model, and judge what it says")
    add_run_options(run)
    add_categories(run)
    run.add_argument("--unconstrained", action="store_true", help="let the model write what it likes")
    run.add_argument("--underscores", action="store_true", help='name functions with "_" for ".", for servers that do')
    run.add_argument("--prompts", type=Path, help='a JSON file with the instruction as "system"')
    score = commands.add_parser("score", help="judge an output of `run` again")
    score.add_argument("file", type=Path)
    score.add_argument("--data", type=Path, help="the folder of questions that were run over")
    score.add_argument("--underscores", action="store_true", help="as in the run")
    score.add_argument("--reasons", action="store_true", help="say of each wrong answer what is wrong")
    compared = commands.add_parser("compare", help="the same questions with and without constraints")
    add_run_options(compared)
    add_categories(compared)
    compared.add_argument("--picture", type=Path, help="draw the result as SVG")
    return made


def add_categories(made: argparse.ArgumentParser) -> None:
    """Add --category, --order and --max-tokens."""
    made.add_argument(
        "--category",
        action="append",
        choices=[*CATEGORIES, MULTI_TURN, OWN],
        help="what to run, may be repeated; unless said, simple, multiple, parallel, parallel_multiple and relevance, "
        "or without --data own: questions of the embedded model's own world",
    )
    made.add_argument(
        "--order",
        choices=["shared", "file"],
        default="shared",
        help="of a question's functions: those that most questions have first, for shared prefixes, or as in the file",
    )
    made.add_argument("--max-tokens", type=int, default=256, metavar="N", help="of one answer; 256")


def run_command(given: argparse.Namespace) -> int:
    """Ask, judge, print."""
    if MULTI_TURN in (given.category or []):
        return converse_command(given)
    questions = asked(given)
    system, constrained = instruction(given.prompts), not given.unconstrained
    records = answer(questions, given, system=system, constrained=constrained, underscores=given.underscores)
    print(table(summaries(records, questions, underscores=given.underscores)))
    return exit_code(records)


def asked(given: argparse.Namespace) -> list[Question]:
    """The questions that are meant, so many of each category; without --data, of the embedded model's own world."""
    categories = given.category or ([OWN] if given.data is None else CATEGORIES)
    questions = [question for category in categories for question in of_category(given.data, category)[: given.limit]]
    given.limit = None
    return questions


def of_category(data: Path | None, category: str) -> list[Question]:
    """All questions of a category. Raises UsageError where there are none."""
    if category == OWN:
        return own_questions(OWN_DRAWS)
    if data is None:
        raise UsageError("--category needs --data, BFCL's folder")
    return load_questions(data, category)


def instruction(prompts: Path | None) -> str:
    """The system text. Raises UsageError for a file without one."""
    if prompts is None:
        return SYSTEM
    try:
        text = json.loads(prompts.read_text(encoding="utf-8"))["system"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UsageError(
            f"{prompts} has no prompts: {error!r}", help='it is a JSON object with "system", a text'
        ) from None
    return str(text)


def converse_command(given: argparse.Namespace) -> int:
    """Run the multi-turn tasks, whose conversations are another program's."""
    if given.category != [MULTI_TURN]:
        raise UsageError("multi_turn is a program of its own", help="run it without other categories")
    if given.data is None:
        raise UsageError("multi_turn needs --data", help="BFCL's folder, with multi_turn/tasks inside")
    if given.unconstrained or given.underscores:
        raise UsageError("--unconstrained and --underscores are for questions of one turn")
    tasks = load_tasks(given.data)
    arguments = {"system": instruction(given.prompts), "max_tokens": given.max_tokens}
    rows = [
        {"task": {**msgspec.to_builtins(task), "functions": functions}, **arguments}
        for task, functions in zip(tasks, ordered([task.functions for task in tasks], given), strict=True)
    ]
    records = [run_record(run) for run in run_rows(converse, rows, given)]
    print(turns_table(records, tasks))
    return exit_code(records)


def exit_code(records: Records) -> int:
    """1 where a row failed otherwise than by its length."""
    errors = [record["error"]["type"] for record in records if record["error"] is not None]
    return int(any(error != "ContextOverflow" for error in errors))


def turns_table(records: Records, tasks: Sequence[Task]) -> str:
    """How many multi-turn tasks passed, failed and cannot be decided by the recorded traces."""
    found = [verdict.outcome for verdict in turn_outcomes(records, tasks)]
    failed = [record["error"]["type"] for record in records if record["error"] is not None]
    counts = ", ".join(f"{found.count(outcome)} {outcome}" for outcome in ("passed", "failed", "undecided"))
    return f"multi_turn: {counts}; {failed.count('ContextOverflow')} too long for the model, {len(failed)} rows failed"


def score_command(given: argparse.Namespace) -> int:
    """Judge an output again."""
    records = list(read_objects(given.file))
    values = [record["value"] for record in records if record["error"] is None]
    if values and "turns" in values[0]:
        if given.data is None:
            raise UsageError("multi-turn answers need --data, BFCL's folder")
        print(turns_table(records, load_tasks(given.data)))
        return 0
    known = [question for category in (OWN, *CATEGORIES) for question in questions_if_any(given.data, category)]
    judged = outcomes(records, known, underscores=given.underscores)
    found = dict.fromkeys(outcome.category for outcome in judged)
    print(table(summary(category, [each for each in judged if each.category == category]) for category in found))
    if len(values) < len(records):
        print(f"{len(records) - len(values)} rows have failed and are not judged")
    if given.reasons:
        for outcome in judged:
            if not outcome.verdict.valid:
                print(f"{outcome.id}: {outcome.verdict.kind}: {outcome.verdict.reason}")
    return 0


def questions_if_any(data: Path | None, category: str) -> list[Question]:
    """The questions of a category that the folder may be without."""
    try:
        return of_category(data, category)
    except UsageError:
        return []


def compare_command(given: argparse.Namespace) -> int:
    """Ask twice, print both, draw."""
    found = compare(asked(given), given)
    for way, lines in found.items():
        print(f"{way}:\n{table(lines)}")
    if given.picture is not None:
        draw_picture(given.picture, found)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
