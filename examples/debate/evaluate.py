"""How good debates are: BLEU of translations, accuracy over CIAR and on questions that the embedded model knows."""

import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any

from ramify.backends.tiny.debate import Question, draw_question
from ramify.backends.tiny.example import random_for
from ramify.ir.errors import UsageError
from ramify.lang.run import Run

from .program import Verdict

__all__ = ["Accuracy", "Output", "bleu", "ciar", "is_right", "known_questions", "load_outputs", "measured"]

_PIECE = re.compile(r"\w+(?:[.,/:]\w+)*%?")


@dataclass(frozen=True, slots=True)
class Output:
    """The answer to a row of data, with and without a debate; empty where there is none."""

    row: int
    answer: str
    base: str = ""


@dataclass(frozen=True, slots=True)
class Accuracy:
    """How many of how many were right."""

    right: int
    total: int

    @classmethod
    def of(cls, verdicts: Sequence[bool]) -> "Accuracy":
        """Of a list of whether each is right."""
        return cls(sum(verdicts), len(verdicts))

    def __str__(self) -> str:
        share = self.right / max(1, self.total)
        error = math.sqrt(share * (1 - share) / max(1, self.total))
        return f"{self.right} of {self.total} ({share:.1%} +- {error:.1%})"


def load_outputs(path: Path) -> list[Output]:
    """Answers from what a run wrote with --out (.jsonl), or from a text with one on each line."""
    lines = path.read_text(encoding="utf-8").splitlines()
    if path.suffix != ".jsonl":
        return [Output(row, line) for row, line in enumerate(lines)]
    records = [json.loads(line) for line in lines]
    if any(not isinstance(record, dict) or not {"row", "value"} <= record.keys() for record in records):
        raise UsageError(f"{path} is not what `run --out` writes")
    return [_output(record) for record in records]


def _output(record: dict[str, Any]) -> Output:
    verdict = record["value"] or {"answer": "", "base": ""}
    return Output(record["row"], verdict["answer"], verdict["base"])


def bleu(outputs: Sequence[str], references: Sequence[str]) -> float:
    """BLEU as sacrebleu has it by default (13a, mixed case), of one reference each."""
    try:
        import sacrebleu
    except ImportError:
        raise UsageError(
            "BLEU needs sacrebleu, which is not installed", help="pip install 'ramify[examples]'"
        ) from None
    return float(sacrebleu.corpus_bleu(list(outputs), [list(references)]).score)


def ciar(outputs: Sequence[str], records: Sequence[dict[str, Any]]) -> Accuracy:
    """Accuracy over records of CIAR: see is_right."""
    pairs = zip(outputs, records, strict=True)
    return Accuracy.of([is_right(said, record["answer"], record["incorrect answer"]) for said, record in pairs])


def is_right(said: str, accepted: Sequence[str], wrong: Sequence[str]) -> bool:
    """Whether an accepted answer stands in what was said, and beside it none of the known wrong ones.

    Texts are compared piece by piece (numbers, fractions, percentages, words): 1 does not stand in 10, nor 50 in 50%.
    Case, thousands' commas and trailing zeros do not matter; other spellings of a number are not equal to it.
    """
    rest = _pieces(said)
    found = False
    for answer in accepted:
        rest, num_found = _without(rest, _pieces(answer))
        found = found or num_found > 0
    return found and not any(_without(rest, _pieces(answer))[1] for answer in wrong)


def _pieces(text: str) -> list[str]:
    return [_plain(piece) for piece in _PIECE.findall(text.casefold())]


def _plain(piece: str) -> str:
    """A number in its shortest form, anything else as it is."""
    number, percent = piece.removesuffix("%").replace(",", ""), "%" * piece.endswith("%")
    try:
        return f"{Decimal(number).normalize():f}{percent}"
    except InvalidOperation:
        return piece


def _without(pieces: list[str], part: list[str]) -> tuple[list[str], int]:
    """The pieces without the places where the part stands, and how many there were."""
    rest, found, at = list[str](), 0, 0
    while at < len(pieces):
        if part and pieces[at : at + len(part)] == part:
            # A mark stays, so that what stood before and behind does not come together.
            rest.append("")
            found, at = found + 1, at + len(part)
        else:
            rest.append(pieces[at])
            at += 1
    return rest, found


def known_questions(count: int) -> list[Question]:
    """Held-out questions of the kinds that the embedded model was trained on."""
    return [draw_question(random_for("held-out", index)) for index in range(count)]


def measured(questions: Sequence[Question], runs: Sequence[Run]) -> dict[str, Accuracy]:
    """The accuracy of the base answers and of the verdicts; a debate that failed has neither right."""
    nothing = Verdict("", "", "", 0, "", "")
    pairs = [(question, run.value if run.ok else nothing) for question, run in zip(questions, runs, strict=True)]
    return {
        "base": Accuracy.of([verdict.base == question.answer for question, verdict in pairs]),
        "debate": Accuracy.of([verdict.answer == question.answer for question, verdict in pairs]),
    }
