"""The editing environment: what a prompt is made of, and what an edit does to it (TEMPERA, arXiv 2211.11890).

A state is a value: an edit gives another one. So all edits of a prompt can be looked at before one is taken.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import TypeVar

from .instruction import InstructionEdits, Phrases
from .tasks import Row, Task
from .templates import PromptTemplate

__all__ = ["HORIZON", "NUM_POOL", "NUM_SLOTS", "Actions", "EditState", "Prompts"]

HORIZON = 8
NUM_SLOTS = 4
NUM_POOL = 12


@dataclass(frozen=True, slots=True)
class EditState:
    """One query's prompt under editing: exemplars and a template for each slot, and a pool of further exemplars."""

    query: Row
    slots: tuple[Row, ...]
    pool: tuple[Row, ...]
    template_ids: tuple[int, ...]
    phrases: Phrases
    stopped: bool = False

    @classmethod
    def first(cls, task: Task, query: Row, exemplars: Sequence[Row]) -> "EditState":
        """The unedited prompt: the first exemplars fill the slots, worded by the first template, the rest the pool."""
        slots, pool = tuple(exemplars[:NUM_SLOTS]), tuple(exemplars[NUM_SLOTS:])
        return cls(query, slots, pool, (0,) * len(slots), Phrases.of(task.instruction))


@dataclass(frozen=True, slots=True)
class Prompts:
    """Writes states as prompts of a task."""

    task: Task
    templates: Sequence[PromptTemplate]

    def write(self, state: EditState) -> str:
        """The prompt, up to where the query's label has to follow."""
        shown = "".join(
            f"{self.unlabelled(row, template_id)}{self.task.labels[row.label]}\n\n"
            for row, template_id in zip(state.slots, state.template_ids, strict=True)
        )
        return state.phrases.text + shown + self.unlabelled(state.query, 0).rstrip(" ")

    def unlabelled(self, row: Row, template_id: int) -> str:
        """A row as a template words it, up to its label word."""
        text = self.templates[template_id].write(row.fields)
        return f"{self.task.before_text}{text}\n{self.task.before_label}"


@dataclass(frozen=True, slots=True)
class Actions:
    """The numbered edits, for a number of slots, of pool exemplars and of templates.

    In order: stop; swap two slots; as many stops as there are slots; swap a slot with a pool exemplar (slot by slot),
    which also stops where both have the same number; give a slot a template (template by template); and, if there are
    any, edits of the instruction.
    """

    num_slots: int
    num_pool: int
    num_templates: int
    instruction: InstructionEdits | None = None

    @property
    def first_swap(self) -> int:
        """The number of the first swap with the pool."""
        return 1 + len(self.slot_pairs) + self.num_slots

    @property
    def first_template(self) -> int:
        """The number of the first change of a template."""
        return self.first_swap + self.num_slots * self.num_pool

    @property
    def first_instruction_edit(self) -> int:
        """The number of the first edit of the instruction."""
        return self.first_template + self.num_slots * self.num_templates

    @property
    def slot_pairs(self) -> list[tuple[int, int]]:
        """Which slots the first actions after the stop swap."""
        return list(combinations(range(self.num_slots), 2))

    def __len__(self) -> int:
        return self.first_instruction_edit + (len(self.instruction) if self.instruction else 0)

    def apply(self, state: EditState, action: int) -> EditState:
        """The state after an action; one that has stopped stays as it is."""
        if not 0 <= action < len(self):
            raise IndexError(f"no action {action} of {len(self)}")
        if state.stopped:
            return state
        if 0 < action <= len(self.slot_pairs):
            return swap_slots(state, *self.slot_pairs[action - 1])
        if action < self.first_swap:
            return replace(state, stopped=True)
        if action < self.first_template:
            slot, other = divmod(action - self.first_swap, self.num_pool)
            return replace(swap_with_pool(state, slot, other), stopped=slot == other)
        if action < self.first_instruction_edit:
            template_id, slot = divmod(action - self.first_template, self.num_slots)
            return replace(state, template_ids=changed(state.template_ids, slot, template_id))
        assert self.instruction is not None
        return replace(state, phrases=self.instruction.apply(state.phrases, action - self.first_instruction_edit))

    def reach(self, prompts: Prompts, states: Sequence[EditState]) -> dict[str, EditState]:
        """The states and all that one edit makes of them, by their prompts: of equal prompts the first."""
        found: dict[str, EditState] = {}
        for state in [*states, *(self.apply(state, action) for state in states for action in range(len(self)))]:
            found.setdefault(prompts.write(state), state)
        return found

    def describe(self, action: int) -> str:
        """An action in words."""
        if 0 < action <= len(self.slot_pairs):
            return "swap slots {} and {}".format(*self.slot_pairs[action - 1])
        if action < self.first_swap:
            return "stop"
        if action < self.first_template:
            slot, other = divmod(action - self.first_swap, self.num_pool)
            return f"swap slot {slot} with pool exemplar {other}" + (" and stop" if slot == other else "")
        if action < self.first_instruction_edit:
            template_id, slot = divmod(action - self.first_template, self.num_slots)
            return f"give slot {slot} template {template_id}"
        assert self.instruction is not None
        return self.instruction.describe(action - self.first_instruction_edit)


def swap_slots(state: EditState, left: int, right: int) -> EditState:
    """Both exemplars change places; each takes the template of its new slot."""
    slots = changed(changed(state.slots, left, state.slots[right]), right, state.slots[left])
    return replace(state, slots=slots)


def swap_with_pool(state: EditState, slot: int, other: int) -> EditState:
    """A slot's exemplar and one of the pool change places; the slot keeps its template."""
    slots, pool = changed(state.slots, slot, state.pool[other]), changed(state.pool, other, state.slots[slot])
    return replace(state, slots=slots, pool=pool)


Item = TypeVar("Item")


def changed(items: tuple[Item, ...], index: int, item: Item) -> tuple[Item, ...]:
    """The items with another one at an index."""
    return (*items[:index], item, *items[index + 1 :])
