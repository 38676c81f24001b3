"""Classification tasks: label words, instruction and affixes, and their rows in the paper's k-shot folders."""

import csv
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ramify.ir.errors import UsageError

__all__ = ["Row", "Split", "Task", "load_split", "load_task", "read_rows"]

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
    """How prompts of a task are written: an instruction, and an affix before each text and before each label."""

    name: str
    labels: tuple[str, ...]
    instruction: str
    before_text: str
    before_label: str


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
    return Task(name, tuple(settings["labels"]), prefix, settings["q"], settings["a"])


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
    """The rows of one file: tab-separated columns under a header, of which `label` is the label's number."""
    try:
        file = path.open(encoding="utf-8", newline="")
    except OSError as error:
        raise UsageError(f"cannot read the rows: {error}", help="a k-shot folder has train.tsv and dev.tsv") from error
    with file:
        reader = csv.reader(file, delimiter="\t")
        header = next(reader, [])
        columns = [name for name in header if name != "label"]
        for record in reader:
            if len(record) != len(header) or "label" not in header or not record[header.index("label")].isdigit():
                raise UsageError(f"{path}:{reader.line_num}: not a text and the number of its label, between tabs")
            values = dict(zip(header, record, strict=True))
            text = values[columns[0]] if len(columns) == 1 else tuple((name, values[name]) for name in columns)
            yield Row(text, int(values["label"]))
