"""Classification tasks: label words, instruction and affixes, and their rows in the paper's k-shot folders."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ramify.ir.errors import UsageError

__all__ = ["UNLABELLED", "Row", "Split", "Task", "choose_exemplars", "load_split", "load_task", "read_rows"]

# The label of a row that has none.
UNLABELLED = -1
HERE = Path(__file__).parent


@dataclass(frozen=True, slots=True)
class Row:
    """A text (or its fields, where a task has several) and the number of its label."""

    text: str | tuple[tuple[str, str], ...]
    label: int

    @property
    def fields(self) -> str | dict[str, str]:
        """What a template shows."""
        return self.text if isinstance(self.text, str) else dict(self.text)


@dataclass(frozen=True, slots=True)
class Task:
    """How prompts of a task are written: an instruction, and an affix before each text and before each label.

    `templates_from` is the data set whose templates the task uses.
    """

    name: str
    labels: tuple[str, ...]
    instruction: str
    before_text: str
    before_label: str
    templates_from: str = ""

    @property
    def label_words(self) -> list[str]:
        """The labels as they stand behind a prompt, which ends without the blank before them."""
        blank = self.before_label[len(self.before_label.rstrip(" ")) :]
        return [blank + label for label in self.labels]


@dataclass(frozen=True, slots=True)
class Split:
    """The rows of one k-shot folder: few for training, few for development, and the test set beside it."""

    train: tuple[Row, ...]
    dev: tuple[Row, ...]
    test: tuple[Row, ...]


def load_task(name: str, path: Path | None = None) -> Task:
    """A task of a file of settings in the form of tasks.json, which is the default.

    Raises UsageError for a task that is not there.
    """
    path = path or HERE / "tasks.json"
    tasks = json.loads(path.read_text(encoding="utf-8"))
    if not is_task(tasks.get(name)):
        known = ", ".join(other for other, settings in tasks.items() if is_task(settings))
        raise UsageError(f"{path}: no task {name!r}", help=f"it has {known}")
    settings = tasks[name]
    prefix = str(settings["prefix"])
    if prefix.startswith("(same as "):
        prefix = load_task(prefix[len("(same as ") : -1], path).instruction
    templates_from = str(settings.get("templates_from", name))
    return Task(name, tuple(settings["labels"]), prefix, settings["q"], settings["a"], templates_from)


def is_task(settings: Any) -> bool:
    """Whether an entry of a settings file describes a task."""
    return isinstance(settings, dict) and {"labels", "prefix", "q", "a"} <= settings.keys()


def load_split(folder: Path) -> Split:
    """The rows of a k-shot folder: train.tsv, dev.tsv and, in it or in the folder above if there, test.tsv."""
    tests = [path for path in (folder / "test.tsv", folder.parent / "test.tsv") if path.exists()]
    return Split(
        train=tuple(read_rows(folder / "train.tsv")),
        dev=tuple(read_rows(folder / "dev.tsv")),
        test=tuple(read_rows(tests[0])) if tests else (),
    )


def read_rows(path: Path) -> Iterator[Row]:
    """The rows of one file: columns between tabs under a header, of which `label` is the label's number.

    Quotation marks are text, as in the paper's release.
    """
    try:
        lines = path.read_bytes().decode("utf-8").split("\n")
    except OSError as error:
        raise UsageError(f"cannot read the rows: {error}", help="a k-shot folder has train.tsv and dev.tsv") from error
    header, *records = (line.removesuffix("\r").split("\t") for line in lines if line)
    columns = [name for name in header if name != "label"]
    for number, record in enumerate(records, 2):
        values = dict(zip(header, record, strict=False))
        if len(record) != len(header) or not values.get("label", "").isdigit():
            raise UsageError(f"{path}:{number}: not a text and the number of its label, between tabs")
        text = values[columns[0]] if len(columns) == 1 else tuple((name, values[name]) for name in columns)
        yield Row(text, int(values["label"]))


def choose_exemplars(rows: Sequence[Row], count: int) -> list[Row]:
    """The first rows of each label, as many of each as go into `count`, in the rows' order."""
    labels = {row.label for row in rows}
    return [
        row
        for number, row in enumerate(rows)
        if sum(earlier.label == row.label for earlier in rows[:number]) < count // len(labels)
    ]
