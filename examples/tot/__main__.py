"""The command line of the tip-of-the-tongue example: `python -m ramify.examples.tot --help` (docs/tot.md)."""

import argparse
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
from ramify.examples.command import add_run_options, reported, run_rows
from ramify.ir.errors import UsageError

from .birco import is_birco, load_birco
from .catalogue import Catalogue, Query, invented, load, save
from .evaluate import Report, evaluate_clues, whole_query
from .experts import retriever
from .figure import draw
from .metrics import evaluate
from .mixture import EXPERTS, make_experts
from .program import SHOTS, decompose, rerank
from .prompts import FIELDS, FOLDER, heads


def options() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m ramify.examples.tot", description="Find a book from what a reader remembers of it."
    )
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run", help="the clues of every test query")
    evaluation = commands.add_parser("evaluate", help="measure decomposed queries beside whole ones")
    reranking = commands.add_parser("rerank", help="have the model score what the whole query finds, by criteria")
    for command in (run, evaluation, reranking):
        add_run_options(command)
    for command in (run, evaluation):
        add_prompt_options(command)
    evaluation.add_argument("--expert", action="append", default=[], metavar="FIELD=KIND", help="bm25, dense:DIR, ...")
    evaluation.add_argument("--plot", type=Path, metavar="FILE.svg", help="draw recall over the cutoff")
    for command in (evaluation, reranking):
        command.add_argument("--retriever", default="bm25", help="of the whole query: bm25 (default) or dense[:MODEL]")
        command.add_argument("--json", action="store_true", help="print the report as JSON")
    reranking.add_argument("--top", type=int, default=20, metavar="N", help="how many books are scored (20)")
    measures = commands.add_parser("metrics", help="measure rankings that are there: {query id: [book ids]}")
    measures.add_argument("--data", type=Path, required=True, help="the folder with the queries")
    measures.add_argument("runs", type=Path, nargs="+", metavar="RUN.json")
    writing = commands.add_parser("catalogue", help="write the invented catalogue and its queries")
    writing.add_argument("--out", type=Path, required=True, metavar="DIR")
    writing.add_argument("--books", type=int, default=800)
    writing.add_argument("--queries", type=int, default=400, help="test queries; half as many are for weights")
    return parser


def add_prompt_options(parser: argparse.ArgumentParser) -> None:
    """Add --prompts, --shots, --chat and --copied."""
    parser.add_argument("--prompts", type=Path, metavar="DIR", help="prompts in the paper's format, used whole")
    parser.add_argument(
        "--shots", type=int, metavar="N", help=f"worked examples of each field ({SHOTS} of our own, else all)"
    )
    parser.add_argument("--chat", action="store_true", help="send each prompt as a user message, not as raw text")
    parser.add_argument("--copied", action="store_true", help="hold clues to words of the query, by a grammar")


def read_data(folder: Path | None) -> Catalogue:
    """The catalogue of a folder, ours or BIRCO's; without one, the invented one."""
    if folder is None:
        return invented()
    return load_birco(folder) if is_birco(folder) else load(folder)


def clues_of(queries: Sequence[Query], fields: Sequence[str], given: argparse.Namespace) -> dict[str, dict[str, str]]:
    """The clues of these fields of queries, by the queries' ids. Raises UsageError if any query failed."""
    own = given.prompts is None
    prompts = heads(FOLDER if own else given.prompts, SHOTS if own and given.shots is None else given.shots)
    prompts = {field: prompts[field] for field in fields}
    how = {"heads": prompts, "chat": given.chat, "copied": given.copied}
    rows = [{"query": query.text, "posted": query.posted, **how} for query in queries]
    return dict(zip((query.id for query in queries), values(decompose, rows, given), strict=False))


def values(program: Any, rows: list[dict[str, Any]], given: argparse.Namespace) -> list[Any]:
    """The program's value of each row. Raises UsageError if any row failed."""
    runs = run_rows(program, rows, given)
    if any(run.error is not None for run in runs):
        raise UsageError("some rows failed, so nothing is measured", help="mend the cause, then use --resume")
    return [run.value for run in runs]


def run_command(given: argparse.Namespace) -> None:
    """Print the clues of the test queries as JSON lines, unless they go to a file."""
    for query, clues in clues_of(read_data(given.data).test, FIELDS, given).items():
        if given.out is None:
            print(json.dumps({"id": query, "clues": clues}, ensure_ascii=False))


def evaluate_command(given: argparse.Namespace) -> None:
    """Find the clues of the dev and test queries, and measure."""
    catalogue = read_data(given.data)
    experts = make_experts(catalogue.books, EXPERTS | dict(map(named_kind, given.expert)))
    if given.limit is not None:
        catalogue = Catalogue(catalogue.books, catalogue.dev[: given.limit], catalogue.test[: given.limit])
        given.limit = None
    clues = clues_of([*catalogue.dev, *catalogue.test], list(experts), given)
    report = evaluate_clues(catalogue, clues, experts, retriever(given.retriever))
    print(msgspec.json.encode(report).decode() if given.json else shown(report))
    if given.plot is not None:
        draw(report, given.plot)


def named_kind(text: str) -> tuple[str, str]:
    """FIELD=KIND, read."""
    field, equals, kind = text.partition("=")
    if field not in FIELDS or not equals:
        raise UsageError(f"--expert {text}: not FIELD=KIND", help=f"FIELD is one of {', '.join(FIELDS)}")
    return field, kind


def rerank_command(given: argparse.Namespace) -> None:
    """Score the books that the whole query finds first, and measure the two rankings."""
    catalogue = read_data(given.data)
    asked = catalogue.test[: given.limit]
    whole = whole_query(catalogue, retriever(given.retriever))
    found = {query.id: whole[query.id][: given.top] for query in asked}
    documents = {book.id: book.document for book in catalogue.books}
    rows = [{"query": query.text, "passages": [documents[name] for name in found[query.id]]} for query in asked]
    scores = dict(zip(found, values(rerank, rows, given), strict=True))
    reranked = {query: by_score(names, scores[query]) for query, names in found.items()}
    measured = measure(asked, {"whole query": found, "reranked": reranked})
    print(json.dumps({"measures": measured, "rankings": reranked}) if given.json else table(measured))


def by_score(names: list[str], scores: list[float]) -> list[str]:
    """Names, those with the highest scores first; of equal ones in the order that they have."""
    return [names[index] for index in sorted(range(len(names)), key=lambda index: -scores[index])]


def measure(queries: Sequence[Query], rankings: Mapping[str, dict[str, list[str]]]) -> dict[str, dict[str, float]]:
    """The measures of each ranking."""
    relevant = {query.id: set(query.relevant) for query in queries}
    return {name: evaluate(run, relevant) for name, run in rankings.items()}


def metrics_command(given: argparse.Namespace) -> None:
    """Measure rankings that were made elsewhere."""
    queries = read_data(given.data).test
    print(table(measure(queries, {path.stem: read_run(path) for path in given.runs})))


def read_run(path: Path) -> dict[str, list[str]]:
    """Rankings by query id. Raises UsageError for a file that holds something else."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=dict[str, list[str]])
    except msgspec.DecodeError as error:
        raise UsageError(f"{path} is no run: {error}", help="it must be one object, {query id: [book ids]}") from None


def catalogue_command(given: argparse.Namespace) -> None:
    """Write the invented catalogue."""
    save(invented(given.books, given.queries), given.out)
    print(f"{given.out}: {given.books} books, {given.queries // 2} dev and {given.queries} test queries")


def table(systems: Mapping[str, Mapping[str, float]]) -> str:
    """Measures in percent, a line for each system."""
    names = list(next(iter(systems.values())))
    width = max(map(len, systems))
    rows = [
        f"{name:{width}}" + "".join(f"{100 * measured[n]:9.2f}" for n in names) for name, measured in systems.items()
    ]
    return "\n".join([" " * width + "".join(f"{name:>9}" for name in names), *rows])


def shown(report: Report) -> str:
    """A report for reading."""
    parts = [
        f"{report.num_books} books, {report.num_dev} dev and {report.num_test} test queries; measures in percent",
        table(report.systems),
        f"decomposed less whole query, Recall@5: {100 * report.margin.value:+.1f} (standard error "
        f"{100 * report.margin.error:.1f}, paired bootstrap)",
        "weights: " + ", ".join(f"{field} {weight:g}" for field, weight in report.weights["decomposed"].items()),
    ]
    if report.clue_accuracy:
        lines = ["field         clues that are exactly right   Recall@5 if they all were"]
        for field, share in report.clue_accuracy.items():
            lines.append(f"{field:13} {100 * share:28.1f} {100 * report.with_gold[field]:27.1f}")
        parts.append("\n".join(lines))
    return "\n\n".join(parts)


COMMANDS: dict[str, Callable[[argparse.Namespace], None]] = {
    "run": run_command,
    "evaluate": evaluate_command,
    "rerank": rerank_command,
    "metrics": metrics_command,
    "catalogue": catalogue_command,
}


def main() -> int:
    """Read the command line, do what it says, and give the exit code."""
    given = options().parse_args()
    return reported(lambda: COMMANDS[given.command](given))


if __name__ == "__main__":
    sys.exit(main())
