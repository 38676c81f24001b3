"""What there is to edit: a task with its templates, the exemplars of its prompts, and the queries."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ramify.ir.errors import UsageError
from ramify.runtime.backend import Backend

from .environment import NUM_POOL, NUM_SLOTS, Actions, Prompts
from .episodes import Environment
from .features import Features
from .instruction import InstructionEdits, read_paraphrases
from .invented import draw_split
from .labelling import LabelModel
from .rewards import Scoring
from .tasks import Row, Split, Task, choose_exemplars, load_split, load_task
from .templates import load_templates

__all__ = ["INVENTED", "TEMPLATES", "Problem", "Source"]

INVENTED = "reviews"
TEMPLATES = Path(__file__).parent / "templates.yaml"


@dataclass(frozen=True, slots=True)
class Source:
    """Where a problem comes from: a k-shot folder, or (without one) invented reviews; the task and its files."""

    folder: Path | None = None
    task: str = INVENTED
    tasks: Path | None = None
    templates: Path = TEMPLATES
    edits_instruction: bool = False
    paraphrases: Path | None = None

    def problem(self, seed: int) -> "Problem":
        """The problem; the seed draws the invented reviews. Raises UsageError for what does not fit together."""
        task = load_task(self.task, self.tasks)
        split = load_split(self.folder) if self.folder else draw_split(seed)
        check_labels(task, [*split.train, *split.dev, *split.test])
        templates = load_templates(self.template_file(task), task.labels)
        exemplars = choose_exemplars(split.train, NUM_SLOTS + NUM_POOL)
        actions = Actions(NUM_SLOTS, len(exemplars) - NUM_SLOTS, len(templates), self.instruction_edits())
        return Problem(Prompts(task, templates), actions, split, tuple(exemplars))

    def instruction_edits(self) -> InstructionEdits | None:
        """The edits of the instruction, where there are to be any."""
        if self.paraphrases is not None:
            return InstructionEdits(read_paraphrases(self.paraphrases))
        return InstructionEdits() if self.edits_instruction else None

    def template_file(self, task: Task) -> Path:
        """The file of the task's templates; of a folder in PromptSource's layout, that of its data set."""
        if self.templates.is_dir():
            return self.templates / task.templates_from / "templates.yaml"
        return self.templates


@dataclass(frozen=True, slots=True)
class Problem:
    """A task's prompts and their edits, and its rows."""

    prompts: Prompts
    actions: Actions
    split: Split
    exemplars: tuple[Row, ...]

    @property
    def queries(self) -> list[Row]:
        """The rows to learn from: those of the training set that are no exemplars."""
        return [row for row in self.split.train if not any(row is exemplar for exemplar in self.exemplars)]

    def environment(self, backend: str | Path | Backend | None, scoring: Scoring | None = None) -> Environment:
        """The editing environment on a language model."""
        model = LabelModel(self.prompts.task, backend)
        return Environment(self.prompts, self.actions, model, scoring or Scoring())

    def features(self, backend: str | Path | Backend | None) -> Features:
        """What the learnt editor sees."""
        return Features(self.prompts, backend)


def check_labels(task: Task, rows: Sequence[Row]) -> None:
    """Raise UsageError for a row whose label the task does not have."""
    largest = max((row.label for row in rows), default=0)
    if largest >= len(task.labels):
        raise UsageError(
            f"the data have label {largest}, and the task {task.name!r} has only {', '.join(task.labels)}",
            help="name the data's own task (--task, --tasks)",
        )
