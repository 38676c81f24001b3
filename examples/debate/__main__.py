"""`python -m ramify.examples.debate`: debates over data, checks against published logs, and evaluation."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ramify.backends.local import LocalBackend
from ramify.examples.command import add_run_options, reported, run_rows
from ramify.ir.errors import UsageError
from ramify.lang.plain import to_json

from .cache import long_tiny, measure
from .check import check
from .data import load_rows, records
from .evaluate import bleu, ciar, known_questions, load_outputs, measured
from .picture import picture
from .program import VARIANTS, debate
from .recorded import load_logs


def main(words: Sequence[str] | None = None) -> int:
    """Do what the command line says; gives the exit code."""
    given = _parser().parse_args(words)
    return reported(lambda: given.does(given))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m ramify.examples.debate", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    run = commands.add_parser("run", help="debate over the questions of a file, or over one question")
    run.add_argument("--question", help="instead of --data: one question")
    _add_debate_options(run)
    add_run_options(run)
    run.set_defaults(does=_run)

    known = commands.add_parser("measure", help="accuracy on held-out questions of the embedded model's world")
    known.add_argument("--draws", type=int, default=200, help="how many questions (200)")
    known.add_argument("--wrong", action="store_true", help="begin each debate with a wrong answer")
    _add_debate_options(known)
    add_run_options(known)
    known.set_defaults(does=_measure)

    for name, does, help_text in (
        ("check", _check, "hold published debates again and compare all messages"),
        ("cache", _cache, "measure how much of their prompts the radix cache serves"),
    ):
        command = commands.add_parser(name, help=help_text)
        command.add_argument("--logs", type=Path, required=True, help="a folder with logs of debates (*.json)")
        command.add_argument("--templates", type=Path, required=True, help="the prompts that they were made with")
        command.set_defaults(does=does)
    command.add_argument("--model", help="a model directory; the default is the embedded model with a longer context")
    command.add_argument("--picture", type=Path, help="draw the longest debate to this file (SVG)")

    score = commands.add_parser("bleu", help="BLEU of translations")
    score.add_argument("outputs", type=Path, nargs="+", help="what `run --out` wrote, or a text of a line for each")
    score.add_argument("--reference", type=Path, required=True, help="a text of a line for each row")
    score.set_defaults(does=_bleu)

    score = commands.add_parser("ciar", help="accuracy over CIAR")
    score.add_argument("outputs", type=Path, nargs="+", help="what `run --out` wrote, or a text of a line for each")
    score.add_argument("--data", type=Path, required=True, help="CIAR.json")
    score.set_defaults(does=_ciar)
    return parser


def _add_debate_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--templates", default="", metavar="FILE", help="prompts; the default are this example's own")
    parser.add_argument("--variant", default="", choices=list(VARIANTS), help="rules; the default is the templates'")
    parser.add_argument("--rounds", type=int, default=0, metavar="N", help="at most so many rounds; the variant's")
    parser.add_argument("--debaters", type=int, default=2, metavar="N", help="how many debaters (2)")
    parser.add_argument("--level", type=int, default=2, metavar="0..3", help="of disagreement, from none to all (2)")
    parser.add_argument("--languages", default="", metavar="A-B", help="for translation: Chinese-English")
    parser.add_argument("--schema", action="store_true", help="hold the moderator's and the judge's replies to JSON")
    parser.add_argument("--max-tokens", type=int, default=512, metavar="N", help="of one turn (512)")


def _options(given: argparse.Namespace) -> dict[str, Any]:
    names = ("templates", "variant", "rounds", "debaters", "level", "languages", "schema")
    return {name: getattr(given, name) for name in names}


def _run(given: argparse.Namespace) -> int:
    if (given.question is None) == (given.data is None):
        raise UsageError("what to debate?", help="give --question TEXT or --data FILE")
    rows = [{"question": given.question}] if given.data is None else load_rows(given.data)
    runs = run_rows(debate.options(max_tokens=given.max_tokens), [row | _options(given) for row in rows], given)
    if given.out is None:
        for run in runs:
            if run.ok:
                print(to_json(run.value).decode())
    return int(any(not run.ok for run in runs))


def _measure(given: argparse.Namespace) -> int:
    questions = known_questions(given.draws)[: given.limit]
    claims = [question.rivals[0] if given.wrong else "" for question in questions]
    rows = [
        {"question": question.text, "claim": claim} | _options(given)
        for question, claim in zip(questions, claims, strict=True)
    ]
    runs = run_rows(debate.options(max_tokens=given.max_tokens), rows, given)
    for name, accuracy in measured(questions, runs).items():
        print(f"{name:7} {accuracy}")
    return 0


def _check(given: argparse.Namespace) -> int:
    return 0 if check(given.logs, given.templates) else 1


def _cache(given: argparse.Namespace) -> None:
    logs = load_logs(given.logs)
    if given.model is not None:
        model = LocalBackend(given.model)
        longest = measure(logs, given.templates, model)
    else:
        with long_tiny() as model:
            longest = measure(logs, given.templates, model)
    if given.picture is not None:
        given.picture.write_text(picture(longest), encoding="utf-8")


def _bleu(given: argparse.Namespace) -> None:
    references = given.reference.read_text(encoding="utf-8").splitlines()
    for path in given.outputs:
        outputs = load_outputs(path)
        _check_rows(path, [output.row for output in outputs], len(references), given.reference)
        chosen = [references[output.row] for output in outputs]
        print(f"{path.name}: BLEU {bleu([output.answer for output in outputs], chosen):.1f} of {len(outputs)} lines")


def _ciar(given: argparse.Namespace) -> None:
    known = list(records(given.data))
    for path in given.outputs:
        outputs = load_outputs(path)
        _check_rows(path, [output.row for output in outputs], len(known), given.data)
        chosen = [known[output.row] for output in outputs]
        print(f"{path.name}: {ciar([output.answer for output in outputs], chosen)} right")
        if any(output.base for output in outputs):
            print(f"{path.name}: {ciar([output.base for output in outputs], chosen)} right without the debate")


def _check_rows(path: Path, rows: Sequence[int], count: int, other: Path) -> None:
    """Raises UsageError for outputs that belong to other data."""
    if (path.suffix != ".jsonl" and len(rows) != count) or (rows and max(rows) >= count):
        raise UsageError(f"{path} has {len(rows)} answers and {other} {count} rows", help="they do not belong together")


if __name__ == "__main__":
    sys.exit(main())
