"""A step between its launch and its collection.

`launch` builds the batch, has the device begin the forward pass and the choice of tokens, and waits for nothing;
`InFlight.result` waits. While a step is in flight the next one may be launched: its rows take the tokens that they go
on from out of the first one's choices, on the device.

Meanwhile the host frees, splits, trims and moves extents that a step in flight reads and writes. That is safe, because
addresses are read at launch alone and the device does what it was given in order, on one stream: whatever becomes of
the memory later (a copy is made of it, or it has another owner, to whom torch's allocator gives it on that stream only)
is done after the steps that were launched before. So the row of a sequence that has ended is left to itself: it writes
behind what is kept of the sequence. Who uses another stream has it wait for this one first. On a CPU, a step is over
when it was launched.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from itertools import islice
from typing import Protocol

import torch
from torch import Tensor

from ..ir.errors import BackendError
from .batch import Batch
from .plan import Chosen, Chunk, Round
from .request import TokenLogprob
from .sampler import Choice, Sample, SampleRow, logprobs_of, token_logprobs
from .sequence import Sequence
from .transfer import Download, upload

Outcome = Sample | BackendError | None
BuildBatch = Callable[[list[Chunk], Chosen | None], Batch]


class Computes(Protocol):
    """What a step has a model do."""

    def forward(self, batch: Batch, /) -> Tensor:
        """Runs a batch: writes KV, reads KV, returns float32 logits (len(batch.logit_rows), vocab)."""

    def hidden(self, batch: Batch, /) -> Tensor:
        """The same up to the hidden states behind the final norm, (len(batch.logit_rows), hidden_size).

        They may be overwritten by the next batch.
        """

    def logits(self, hidden: Tensor, /) -> Tensor:
        """The logits of such hidden states, of any number of rows."""


class InFlight:
    """A step that was launched, or whose launch failed.

    num_prefilled: how many of its tokens are of prompts. begun: when it was launched, by `time.perf_counter`. drawing:
    the chunks that choose tokens. void: sequences whose choice does not count, since they went on from a wrong token.
    """

    def __init__(self, chunks: list[Chunk], num_prefilled: int) -> None:
        self.chunks = chunks
        self.num_prefilled = num_prefilled
        self.begun = time.perf_counter()
        self.drawing: list[Chunk] = []
        self.void: set[Sequence] = set()
        self.error: Exception | None = None
        self._scores: list[tuple[Sequence, Callable[[], list[TokenLogprob]]]] = []
        self._embedded: list[Chunk] = []
        self._sums: Download | None = None
        self._masks: Future[Tensor] | None = None
        self._choice: Choice | None = None
        self._over: Download | None = None
        self._has_drafts = False

    @property
    def is_free(self) -> bool:
        """Whether the next step can be planned and launched before this one's tokens are known."""
        if self.error is not None or self._scores or self._has_drafts:
            return False
        return self._choice is None or self._choice.is_free

    def chosen(self) -> Chosen | None:
        """Its choices, for the next step's rows."""
        if self._choice is None:
            return None
        return Chosen(self._choice.token_ids, {chunk.sequence: place for place, chunk in enumerate(self.drawing)})

    def sums(self) -> list[tuple[Chunk, Tensor]]:
        """Waits for the sum of each chunk's hidden states, where they are wanted: float64 (hidden_size,)."""
        return [] if self._sums is None else list(zip(self._embedded, self._sums.result(), strict=True))

    def result(self) -> tuple[list[tuple[Sequence, list[TokenLogprob]]], list[tuple[Chunk, list[Outcome]]]]:
        """Waits for the log-probabilities of next tokens that are known already, and the choices of those that are not.

        Raises what the model or the sampler raised.
        """
        if self.error is not None:
            raise self.error
        # The masks come before the first wait for a GPU, which is still computing the logits.
        bits = None if self._masks is None else self._masks.result()
        scores = [(sequence, logprobs()) for sequence, logprobs in self._scores]
        choices = [] if self._choice is None else self._choice.result(bits)
        if self._over is not None:
            self._over.result()
        if not self._has_drafts:
            return scores, list(zip(self.drawing, ([choice] for choice in choices), strict=True))
        chosen = iter(choices)
        return scores, [(chunk, list(islice(chosen, 1 + len(chunk.draft)))) for chunk in self.drawing]

    def late(self) -> set[Sequence]:
        """Whose next row, if it was launched, which only follows a free step, went on from a wrong token."""
        if self._choice is None or not self.is_free:
            return set()
        return {self.drawing[place].sequence for place in self._choice.late}

    def launch(self, model: Computes, build: BuildBatch, before: InFlight | None) -> None:
        """Has everything begun."""
        self._masks = _begin_masks(self.chunks)
        batch = build(self.chunks, None if before is None else before.chosen())
        self._embedded = [chunk for chunk in self.chunks if chunk.sequence.is_embedding and chunk.num_logits]
        logits = model.logits(self._others(model.hidden(batch))) if self._embedded else model.forward(batch)
        if isinstance(self.chunks, Round):
            self.drawing = self.chunks
            self._choice = Choice(logits, [] if self.chunks.is_greedy else _rows_of(self.chunks))
            return
        rows: list[int] = []
        stop = 0
        for chunk in self.chunks:
            if chunk.sequence.is_embedding:
                continue
            start, stop = stop, stop + chunk.num_logit_rows
            first = stop
            if chunk.draws and stop > start:
                first -= 1 + len(chunk.draft)
                self.drawing.append(chunk)
                rows += range(first, stop)
            if first > start:
                self._scores.append((chunk.sequence, _next_logprobs(chunk, logits[start:first])))
        self._has_drafts = len(rows) > len(self.drawing)
        if self.drawing:
            is_all = len(rows) == len(logits)
            wanted = logits if is_all else logits.index_select(0, upload(rows, torch.int64, logits.device))
            self._choice = Choice(wanted, _rows_of(self.drawing))
        elif not (self._scores or self._embedded):
            # Nothing of it comes to the host, which has to know when it is over all the same.
            self._over = Download(logits)

    def _others(self, hidden: Tensor) -> Tensor:
        """Sums the hidden states that are wanted themselves, and returns those of which logits are wanted.

        In float64, so that it is of no account how a prompt was cut into chunks.
        """
        sizes = [chunk.num_logit_rows for chunk in self.chunks]
        parts = dict(zip(self.chunks, hidden.split_with_sizes(sizes), strict=True))
        sums = [parts[chunk].sum(0, dtype=torch.float64) for chunk in self._embedded]
        self._sums = Download(torch.stack(sums))
        return torch.cat([hidden[:0], *(part for chunk, part in parts.items() if not chunk.sequence.is_embedding)])


def launch(
    model: Computes,
    build: BuildBatch,
    chunks: list[Chunk],
    num_prefilled: int,
    before: InFlight | None,
) -> InFlight:
    """Launches a step. build: makes its batch, see `plan.build_batch`.

    before: the step in flight, if there is one, which the chunks may go on from.
    """
    step = InFlight(chunks, num_prefilled)
    try:
        step.launch(model, build, before)
    except Exception as error:
        step.error = error
    return step


def _begin_masks(chunks: list[Chunk]) -> Future[Tensor] | None:
    """Has the masks of the tokens that are drawn in this step computed beside the forward pass, if there are any."""
    constrained = (chunk.sequence.matcher for chunk in chunks if chunk.sequence.matcher is not None and chunk.draws)
    first = next(constrained, None)
    if first is None:
        return None
    return first.grammars.begin([matcher for chunk in chunks if chunk.draws for matcher in chunk.matchers])


def _rows_of(chunks: list[Chunk]) -> list[SampleRow]:
    return [row for chunk in chunks for row in _sample_rows(chunk)]


def _sample_rows(chunk: Chunk) -> list[SampleRow]:
    """The rows that choose the token after what is known, and after each token of the draft.

    Where the last token is not known itself, the array has some other one there: only rows that do not look are in
    flight then.
    """
    sequence = chunk.sequence
    params, seed, tokens, prompt_len = sequence.params, sequence.seed, sequence.tokens, sequence.prompt_len
    if not chunk.draft:
        known = tokens[: sequence.num_placed]
        return [SampleRow(params, seed, known, prompt_len, sequence.stop_ids, sequence.matcher)]
    return [
        SampleRow(params, seed, tokens[:end], prompt_len, sequence.stop_ids, matcher)
        for end, matcher in enumerate(chunk.matchers, sequence.num_tokens)
    ]


def _next_logprobs(chunk: Chunk, logits: Tensor) -> Callable[[], list[TokenLogprob]]:
    """Gives the log-probabilities of the known tokens that follow the first rows of a chunk that want logits."""
    sequence = chunk.sequence
    first = sequence.computed + chunk.count - chunk.num_logits + 1
    token_ids = sequence.tokens[first : first + len(logits)].tolist()
    if sequence.request.also:
        start = first - (sequence.first_logits + 1)
        return partial(logprobs_of, logits, token_ids, sequence.request.also[start : start + len(token_ids)])
    return partial(token_logprobs, logits, token_ids, [sequence.params.logprobs or 0] * len(token_ids))
