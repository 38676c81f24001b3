"""Edits of the instruction, phrase by phrase: delete one, swap two, add a deleted one again, paraphrase one."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations
from pathlib import Path

import msgspec
from ramify.ir.errors import UsageError

__all__ = ["MAX_PHRASES", "InstructionEdits", "Phrases", "read_paraphrases"]

MAX_PHRASES = 8
# Behind punctuation, and before a conjunction that does not follow another one.
BOUNDARY = re.compile(r"(?<=[,.;:?!]) (?=\S)|(?<!\bor)(?<!\band)(?<=\w|\W) (?=(?:and|or|if|as|that|from)\b)")


@dataclass(frozen=True, slots=True)
class Phrases:
    """An instruction as phrases, those that were deleted, and the white space at its end."""

    shown: tuple[str, ...]
    deleted: tuple[str, ...]
    ending: str

    @classmethod
    def of(cls, instruction: str) -> "Phrases":
        """Cut an instruction into phrases; at most MAX_PHRASES, the last one takes the rest."""
        body = instruction.rstrip()
        parts = BOUNDARY.split(body, maxsplit=MAX_PHRASES - 1) if body else []
        return cls(tuple(parts), (), instruction[len(body) :])

    @property
    def text(self) -> str:
        """The instruction; that of unedited phrases is the one that was cut. Nothing is left of no phrases."""
        return " ".join(self.shown) + self.ending if self.shown else ""


@dataclass(frozen=True, slots=True)
class InstructionEdits:
    """The numbered edits: delete phrase i, swap phrases i < j, put what was deleted last before phrase i, paraphrase i.

    An edit of a phrase that is not there changes nothing. `paraphrases` gives other wordings of a phrase, which are
    taken in turn.
    """

    paraphrases: Mapping[str, Sequence[str]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.edits)

    @property
    def edits(self) -> list[tuple[Callable[..., Phrases], tuple[int, ...]]]:
        """Each edit's function and the phrases that it is about."""
        single = [(index,) for index in range(MAX_PHRASES)]
        pairs = list(combinations(range(MAX_PHRASES), 2))
        table = ((delete, single), (swap, pairs), (add, single), (self.paraphrase, single))
        return [(edit, indices) for edit, places in table for indices in places]

    def apply(self, phrases: Phrases, number: int) -> Phrases:
        """The phrases after an edit."""
        edit, indices = self.edits[number]
        return edit(phrases, *indices)

    def describe(self, number: int) -> str:
        """An edit in words."""
        edit, indices = self.edits[number]
        return f"{edit.__name__} instruction phrase {' and '.join(map(str, indices))}"

    def paraphrase(self, phrases: Phrases, index: int) -> Phrases:
        """Word a phrase in the next of its ways."""
        if index >= len(phrases.shown):
            return phrases
        wordings = next((ways for ways in self.rings() if phrases.shown[index] in ways), [phrases.shown[index]])
        following = wordings[(wordings.index(phrases.shown[index]) + 1) % len(wordings)]
        return replace(phrases, shown=(*phrases.shown[:index], following, *phrases.shown[index + 1 :]))

    def rings(self) -> list[list[str]]:
        """Each phrase of the table with its other wordings."""
        return [[phrase, *others] for phrase, others in self.paraphrases.items()]


def read_paraphrases(path: Path) -> dict[str, list[str]]:
    """Phrases with their other wordings, from a JSON object of lists. Raises UsageError for a file that is none."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=dict[str, list[str]])
    except (OSError, msgspec.DecodeError) as error:
        raise UsageError(
            f"{path} cannot be read: {getattr(error, 'strerror', None) or error}",
            help='paraphrases are JSON: {"Read each review,": ["Look at each review,"], ...}',
        ) from None


def delete(phrases: Phrases, index: int) -> Phrases:
    """Take a phrase out."""
    if index >= len(phrases.shown):
        return phrases
    shown = (*phrases.shown[:index], *phrases.shown[index + 1 :])
    return replace(phrases, shown=shown, deleted=(*phrases.deleted, phrases.shown[index]))


def swap(phrases: Phrases, left: int, right: int) -> Phrases:
    """Let two phrases change places."""
    if right >= len(phrases.shown):
        return phrases
    shown = list(phrases.shown)
    shown[left], shown[right] = shown[right], shown[left]
    return replace(phrases, shown=tuple(shown))


def add(phrases: Phrases, index: int) -> Phrases:
    """Put the phrase that was deleted last before another one, or at the end."""
    if not phrases.deleted or index > len(phrases.shown):
        return phrases
    shown = (*phrases.shown[:index], phrases.deleted[-1], *phrases.shown[index:])
    return replace(phrases, shown=shown, deleted=phrases.deleted[:-1])
