"""The command line: `python -m ramify.examples.gorilla run|score|retrieve|measure` (docs/gorilla.md)."""

import argparse
import json
import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ramify.backends import open_backend
from ramify.backends.local import LocalBackend
from ramify.examples.command import add_run_options, run_rows
from ramify.ir.errors import RamifyError, UsageError
from ramify.lang.run import Run

from .data import (
    Question,
    Record,
    Response,
    document_in,
    hub_of,
    load_database,
    load_questions,
    load_references,
    load_responses,
)
from .evaluate import Score, Scorer, Verdict, tally
from .hubs import HUBS, hub_rules
from .measure import Accuracy, Sharing, accuracies, as_json, draw, sharings
from .program import call_api
from .retrieve import DENSE_MODEL, RETRIEVERS, retrieve
from .template import ORDERS, load_template

HEADER = f"{'replies':44} {'number':>6} {'correct':>8} {'hallucinated':>13} {'no call':>8} {'same call':>10}"
QUESTIONS_HELP = "questions; without it those of --eval, or on the invented hub"


def main(arguments: Sequence[str] | None = None) -> int:
    """Read the command line and do what it says; returns the exit code."""
    given = parser().parse_args(arguments)
    try:
        return int(given.command(given))
    except RamifyError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


def parser() -> argparse.ArgumentParser:
    """The commands and their options."""
    found = argparse.ArgumentParser(prog="python -m ramify.examples.gorilla", description="Tool calling with Gorilla.")
    commands = found.add_subparsers(required=True, metavar="run|score|retrieve|measure")
    run_options(commands.add_parser("run", help="answer questions with API calls, and judge them with references"))
    score_options(commands.add_parser("score", help="judge files of replies"))
    retrieve_options(commands.add_parser("retrieve", help="measure a retriever without any model"))
    measure_options(commands.add_parser("measure", help="each retriever, free and constrained; what prompts share"))
    return found


def run_options(options: argparse.ArgumentParser) -> None:
    """The options of `run`."""
    add_run_options(options)
    add_data_options(options)
    add_retriever_options(options)
    options.add_argument("--template", default="chat", help="chat, apibench, user-assistant, or a file")
    options.add_argument("--order", choices=ORDERS, default=ORDERS[0], help="question-first is the paper's")
    options.add_argument("--constrained", action="store_true", help="only calls of the database can be written")
    options.add_argument("--max-tokens", type=int, default=128, help="of a reply")
    options.set_defaults(command=run_command)


def score_options(options: argparse.ArgumentParser) -> None:
    """The options of `score`."""
    options.add_argument("responses", type=Path, nargs="+", help="files of replies")
    add_data_options(options)
    options.add_argument("--out", type=Path, help="write a line for each verdict here")
    options.set_defaults(command=score_command)


def retrieve_options(options: argparse.ArgumentParser) -> None:
    """The options of `retrieve`."""
    options.add_argument("--data", type=Path, help=QUESTIONS_HELP)
    add_data_options(options)
    add_retriever_options(options)
    options.add_argument("--against", type=Path, help="questions that end with a document: how often it is first here")
    options.add_argument("--out", type=Path, help="write what is found for each question here")
    options.set_defaults(command=retrieve_command)


def measure_options(options: argparse.ArgumentParser) -> None:
    """The options of `measure`."""
    options.add_argument("--data", type=Path, help=QUESTIONS_HELP)
    add_data_options(options)
    options.add_argument("--model", default="tiny", help="a model in this process; the default is tiny")
    options.add_argument("--limit", type=int, metavar="N", help="only the first N questions")
    options.add_argument("--sharing-only", action="store_true", help="read the prompts and answer none")
    options.add_argument("--out", type=Path, help="write all figures here, as JSON")
    options.add_argument("--svg", type=Path, help="draw the shares here")
    options.set_defaults(command=measure_command)


def add_data_options(options: argparse.ArgumentParser) -> None:
    """Add --api, --eval and --hub."""
    options.add_argument("--api", default="", help="the API database; without it, the invented hub")
    options.add_argument("--eval", type=Path, help="APIBench's evaluation file: which API answers each question")
    options.add_argument("--hub", choices=list(HUBS), help="whose rules judge; else told from the database's file name")


def add_retriever_options(options: argparse.ArgumentParser) -> None:
    """Add --retriever, --k and --dense-model."""
    options.add_argument("--retriever", choices=RETRIEVERS, default="bm25")
    options.add_argument("--k", type=int, default=1, help="how many documents")
    options.add_argument("--dense-model", default=DENSE_MODEL, help="a name or a directory for sentence-transformers")


def references_of(given: argparse.Namespace) -> list[Record]:
    """The API that answers each question, or nothing where that is not known."""
    if given.eval is not None:
        return load_references(given.eval)
    return [] if given.api or getattr(given, "data", None) is not None else load_references(None)


def questions_of(given: argparse.Namespace) -> list[Question]:
    """The questions of --data, else of --eval, else the invented ones. Raises UsageError for those on another hub."""
    path = given.data or given.eval
    if path is None and given.api:
        raise UsageError(f"there are no questions for {given.api}", help="give --data, or --eval, or both")
    return load_questions(path)


def reference_for(question_id: int, references: Sequence[Record]) -> Record:
    """The API that answers a question. Raises UsageError for a question that the evaluation file has not."""
    if not 1 <= question_id <= len(references):
        raise UsageError(
            f"question {question_id} has no reference: there are {len(references)}",
            help="give the evaluation file that belongs to these questions (--eval)",
        )
    return references[question_id - 1]


def run_command(given: argparse.Namespace) -> int:
    """Run the program over questions and judge its replies where that can be done."""
    references = references_of(given)
    rows = [row_of(question, given, references) for question in questions_of(given)]
    # What is wrong for every row is said once, and before anything runs.
    load_template(given.template)
    scorer = scorer_of(given) if references else None
    if rows:
        retrieve(rows[0]["question"], given.retriever, given.k, given.api, rows[0].get("reference"), given.dense_model)
    runs = run_rows(call_api, rows, given)
    if scorer is not None:
        print_scores({str(given.out or "this run"): judge(map(response_of, runs, rows), scorer, references)})
    elif given.out is None:
        for run in runs:
            print(json.dumps(asdict(run.value) if run.error is None else {"error": str(run.error)}))
    return 1 if any(run.error is not None for run in runs) else 0


def row_of(question: Question, given: argparse.Namespace, references: Sequence[Record]) -> dict[str, Any]:
    """The program's arguments for a question."""
    named = ("retriever", "k", "api", "constrained", "template", "order", "max_tokens", "dense_model")
    row = {name: getattr(given, name) for name in named}
    if given.retriever == "oracle" and references:
        row["reference"] = reference_for(question.question_id, references)
    return row | {"question": question.text, "question_id": question.question_id}


def response_of(run: Run, row: dict[str, Any]) -> Response:
    """What a run replied."""
    return Response(row["question_id"], None if run.error is not None else run["reply"])


def score_command(given: argparse.Namespace) -> int:
    """Judge files of replies."""
    references = references_of(given)
    if not references:
        raise UsageError("judging needs to know which API answers each question", help="give --eval beside --api")
    scorer = scorer_of(given)
    judged = {path.name: judge(load_responses(path), scorer, references) for path in given.responses}
    print_scores(judged)
    if given.out is not None:
        given.out.write_text("".join(verdict_lines(judged)), encoding="utf-8")
    return 0


def scorer_of(given: argparse.Namespace) -> Scorer:
    """The scorer of the database and hub that are given."""
    return Scorer(load_database(given.api), hub_rules(given.hub or hub_of(given.api)))


def judge(responses: Iterable[Response], scorer: Scorer, references: Sequence[Record]) -> list[tuple[int, Verdict]]:
    """The verdict on each reply, with its question's number."""
    return [
        (response.question_id, scorer.judge(response.text, reference_for(response.question_id, references)))
        for response in responses
    ]


def print_scores(judged: dict[str, list[tuple[int, Verdict]]]) -> None:
    """A table with a line for each set of replies."""
    print(HEADER)
    for name, verdicts in judged.items():
        print(score_line(name, tally([verdict for _, verdict in verdicts])))


def score_line(name: str, score: Score) -> str:
    """A line of the table."""
    return (
        f"{name:44} {score.replies:6} {score.correct:8} {score.hallucinated:13} {score.no_call:8} {score.same:10}"
        f"   accuracy {score.accuracy:.4f}, hallucination {score.hallucination:.4f}"
    )


def verdict_lines(judged: dict[str, list[tuple[int, Verdict]]]) -> Iterable[str]:
    """Verdicts as JSON lines."""
    for name, verdicts in judged.items():
        for question_id, verdict in verdicts:
            yield json.dumps({"file": name, "question_id": question_id} | asdict(verdict)) + "\n"


def retrieve_command(given: argparse.Namespace) -> int:
    """Retrieve for each question, and say how often that finds the API that answers it."""
    references = references_of(given)
    questions = questions_of(given)
    found = [
        retrieve(
            question.text,
            given.retriever,
            given.k,
            given.api,
            reference_for(question.question_id, references) if references else None,
            given.dense_model,
        )
        for question in questions
    ]
    if references:
        print_recall(questions, found, references, given)
    if given.against is not None:
        print_agreement(found, given.against)
    if given.out is not None:
        lines = [
            json.dumps({"question_id": question.question_id, "documents": documents}) + "\n"
            for question, documents in zip(questions, found, strict=True)
        ]
        given.out.write_text("".join(lines), encoding="utf-8")
    return 0


def print_recall(
    questions: Sequence[Question],
    found: Sequence[list[Record]],
    references: Sequence[Record],
    given: argparse.Namespace,
) -> None:
    """How often the wanted call, and its domain, are among the documents."""
    wanted = [reference_for(question.question_id, references) for question in questions]
    for field in ("api_call", "domain"):
        hits = sum(
            any(document[field] == reference[field] for document in documents)
            for documents, reference in zip(found, wanted, strict=True)
        )
        print(f"{given.retriever}, k={given.k}: the same {field} for {hits} of {len(questions)} questions")


def print_agreement(found: Sequence[list[Record]], path: Path) -> None:
    """How often the first document is that of a file of questions."""
    theirs = [document_in(question.text) for question in load_questions(path)]
    if len(theirs) != len(found):
        raise UsageError(
            f"{path} has {len(theirs)} questions, the data {len(found)}", help="give files that belong together"
        )
    same = sum(bool(ours) and ours[0] == their for ours, their in zip(found, theirs, strict=True))
    print(f"the first document is that of {path.name} for {same} of {len(found)} questions")


def measure_command(given: argparse.Namespace) -> int:
    """Measure a model, and say and draw what was found."""
    references = references_of(given)
    asked = [(each, reference_for(each.question_id, references)) for each in questions_of(given)[: given.limit]]
    backend = open_backend(given.model)
    if not isinstance(backend, LocalBackend):
        raise UsageError(f"{given.model} does not run in this process, so what it shares cannot be measured")
    measured: list[Accuracy] = []
    if not given.sharing_only:
        print(HEADER)
        for each in accuracies(asked, given.api, scorer_of(given), backend):
            print(score_line(each.name, each.score))
            measured.append(each)
    shared: list[Sharing] = []
    for sharing in sharings(asked, given.api, backend):
        print(sharing)
        shared.append(sharing)
    if given.out is not None:
        given.out.write_text(json.dumps(as_json(measured, shared), indent=1), encoding="utf-8")
    if given.svg is not None:
        draw(measured, given.svg)
    return 0


if __name__ == "__main__":
    sys.exit(main())
