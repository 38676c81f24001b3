"""Drafts by lookup: what a generation says next, guessed from where it said the same before.

Much of what is generated stands in the text already: fields that are copied, code that is edited, a speaker who is
quoted. So the tokens that followed the last occurrence of a sequence's end are computed beside its newest token, and
those are kept that the sampler chooses anyway: the tokens are the same, in fewer steps (after prompt lookup decoding,
Saxena 2023, and LLMA, arXiv 2304.04487; with one draw per position that depends on nothing but seed and position, it
holds for sampling too). Where the same prompt was gone on from before, what is cached of that is the guess.

Every guess is judged by what comes, whether it was computed or not. So a sequence whose guesses are wrong costs nothing
but the guessing, and one that begins to repeat is noticed.
"""

from __future__ import annotations

from collections.abc import Sequence as Items
from dataclasses import dataclass, field, replace

from .draft_costs import MOST_DRAFTED, DraftCosts
from .matcher import Matcher
from .plan import Chunk
from .radix import RadixTree
from .repeats import RepeatIndex
from .sequence import Sequence

# A sequence for which nothing was drafted in so many looks is looked at once in two tokens, then in three, and so on.
_LOOKS, _MOST_REST = 8, 4
# Of the steps without drafts one in so many is timed.
_TIMED = 4
# How likely the next token of a guess is thought to be right before any was seen.
_FIRST_LIKELY = 0.3
# How much one token says about a sequence, and about those to come.
_NEWEST, _NEWEST_OF_ALL = 0.2, 0.01


@dataclass(slots=True)
class Drafting:
    """What is known about one sequence.

    likely: how likely the next token of a guess is right. is_cached: whether what was generated may stand in the prefix
    tree below the prompt. guess: the last one, for the tokens after the first guessed_at. vain: how many looks in a row
    have given no draft and no guess that was right. next_look: how many tokens it will have then.
    """

    index: RepeatIndex
    likely: float
    is_cached: bool = True
    guess: list[int] = field(default_factory=list)
    guessed_at: int = 0
    vain: int = 0
    next_look: int = 0


class Lookup:
    """Drafts for the sequences of an engine. Not thread-safe: the engine's thread owns it.

    tree: where to look for earlier generations, if anywhere. max_rows: drafts add no rows to a step that has so many.
    forces: whether constraints force tokens. is_eager: draft all that was found, whatever it costs. drafted_tokens:
    computed as drafts so far. accepted_tokens: how many of those were generated.
    """

    def __init__(self, tree: RadixTree | None, *, max_rows: int, forces: bool = True, is_eager: bool = False) -> None:
        self.costs = DraftCosts()
        self.drafted_tokens = 0
        self.accepted_tokens = 0
        self._tree = tree
        self._max_rows = max_rows
        self._forces = forces
        self._is_eager = is_eager
        self._likely = _FIRST_LIKELY
        self._is_drafted = False
        self._num_plain = 0

    def add(self, chunks: list[Chunk]) -> list[Chunk]:
        """The chunks of a step, with drafts."""
        self._is_drafted = False
        able = [number for number, chunk in enumerate(chunks) if _may_draft(chunk)]
        if not able or not (self._is_eager or self.costs.can_win(len(chunks))):
            return chunks
        chunks = list(chunks)
        room = self._max_rows - sum(chunk.count for chunk in chunks)
        for number in able:
            guess = self._guess(chunks[number].sequence, room)
            if guess and (count := self._worth(chunks[number].sequence, len(guess), len(chunks))):
                chunks[number] = self._drafted(chunks[number], guess[:count], room)
                room -= len(chunks[number].draft)
                self._is_drafted = True
        return chunks

    def record(self, chunk: Chunk, accepted: int) -> None:
        """So many tokens of a chunk's draft were generated."""
        self.drafted_tokens += len(chunk.draft)
        self.accepted_tokens += accepted

    def took(self, chunks: Items[Chunk], seconds: float) -> None:
        """The step that was last added to took so long. What it computed of prompts says nothing about drafts."""
        self._num_plain = 0 if self._is_drafted else self._num_plain + 1
        if self._num_plain % _TIMED == 0 and all(chunk.count == 1 for chunk in chunks):
            drafts = [len(chunk.draft) for chunk in chunks if chunk.draft]
            self.costs.took(len(chunks), len(drafts), sum(drafts), seconds)

    def _guess(self, sequence: Sequence, room: int) -> list[int]:
        """What may follow, after the last guess was judged."""
        drafting, num_tokens = sequence.drafting, sequence.num_tokens
        if drafting is None:
            index = RepeatIndex(sequence.tokens, num_tokens)
            drafting = sequence.drafting = Drafting(index, self._likely)
        else:
            drafting.index.advance(num_tokens)
            self._judge(drafting, sequence)
        most = min(MOST_DRAFTED, room, sequence.num_left - 1)
        guess = self._cached(sequence, drafting, most) if most > 0 else []
        drafting.guess = guess or (drafting.index.continuation(most) if most > 0 else [])
        drafting.guessed_at = num_tokens
        drafting.vain += 1
        drafting.next_look = num_tokens + min(1 + drafting.vain // _LOOKS, _MOST_REST)
        return drafting.guess

    def _cached(self, sequence: Sequence, drafting: Drafting, most: int) -> list[int]:
        """What the tree has after all that the sequence has so far."""
        if self._tree is None or not drafting.is_cached or sequence.tail_start != sequence.prompt_len:
            return []
        generated = sequence.tokens[sequence.prompt_len : sequence.num_tokens]
        found = self._tree.continuation(sequence.node, generated, most)
        drafting.is_cached = found is not None
        return found or []

    def _judge(self, drafting: Drafting, sequence: Sequence) -> None:
        """Compares the last guess with what came."""
        came = sequence.tokens[drafting.guessed_at : sequence.num_tokens].tolist()
        for guessed, token_id in zip(drafting.guess, came, strict=False):
            is_right = guessed == token_id
            drafting.likely += _NEWEST * (is_right - drafting.likely)
            self._likely += _NEWEST_OF_ALL * (is_right - self._likely)
            if not is_right:
                break
            drafting.vain = 0

    def _worth(self, sequence: Sequence, most: int, num_sequences: int) -> int:
        """How many tokens of a guess to compute."""
        assert sequence.drafting is not None
        return most if self._is_eager else self.costs.best_len(sequence.drafting.likely, num_sequences, most)

    def _drafted(self, chunk: Chunk, guess: list[int], room: int) -> Chunk:
        """The chunk with as much of a guess as its constraint allows."""
        sequence = chunk.sequence
        matchers: list[Matcher] = []
        if sequence.matcher is not None:
            most = min(room, sequence.num_left - 1)
            guess, matchers = sequence.matcher.ahead(guess, most=most, forces=self._forces)
        # Where they are read as if they were known, and overwritten by what is.
        sequence.tokens[sequence.num_tokens : sequence.num_tokens + len(guess)] = guess
        return replace(chunk, draft=tuple(guess), draft_matchers=tuple(matchers))


def _may_draft(chunk: Chunk) -> bool:
    """Whether the step chooses a token after which more may follow, and it is time to look for that.

    Processors see only what was generated. The log-probabilities of forced tokens come from the step that computes
    them after they were forced.
    """
    sequence, drafting = chunk.sequence, chunk.sequence.drafting
    if drafting is not None and sequence.num_tokens < drafting.next_look:
        return False
    is_free = sequence.matcher is None or sequence.params.logprobs is None
    is_free = is_free and not sequence.params.processors
    return is_free and sequence.num_left > 1 and not sequence.is_prefilling and chunk.draws
