"""From logits to tokens: greedy choice, or one draw per row by inverse transform, with each row's own parameters.

A draw needs one uniform number, which is a hash of the request's seed and of how many tokens it has generated, so a
row's result depends on its seed, its position and its logits, and never on the rest of the batch. The order of the
edits is: processors (on the raw logits), penalties, min_tokens, constraint, temperature, top-k, top-p (of what top-k
left), min-p. Log-probabilities are those of the raw logits.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from ..ir.errors import BackendError
from .matcher import Matcher
from .processing import Processed, process
from .request import SamplingParams, TokenLogprob

_GAMMA = 0x9E3779B97F4A7C15
_MASK = (1 << 64) - 1
# The largest number of 52 bits below 1: its product with any total is rounded to less than the total.
_BELOW_ONE = 1 - 2.0**-52
_BLOCK = 128
# Filters look at so many of the likeliest tokens before they rank a whole vocabulary.
_CANDIDATES = 512
_NO_MAXIMUM = "the model's logits hold no finite maximum to choose a token by"


class SampleRow(NamedTuple):
    """What the sampler has to know of the sequence that a row of logits belongs to.

    token_ids: prompt and generation so far, the first prompt_len of them prompt. stop_ids: the token ids that would
    end the generation, which are suppressed until params.min_tokens are there. matcher: follows the constraint, if
    there is one; stop_ids without text are then allowed only where it is complete.
    """

    params: SamplingParams
    seed: int
    token_ids: NDArray[np.int64]
    prompt_len: int
    stop_ids: tuple[int, ...] = ()
    matcher: Matcher | None = None

    @property
    def num_generated(self) -> int:
        """How many tokens were generated before this one."""
        return len(self.token_ids) - self.prompt_len

    @property
    def suppressed_ids(self) -> tuple[int, ...]:
        """Token ids that may not be chosen now."""
        return self.stop_ids if self.num_generated < self.params.min_tokens else ()

    @property
    def has_penalties(self) -> bool:
        """Whether tokens that were seen before are made less (or more) likely."""
        params = self.params
        return bool(params.frequency_penalty or params.presence_penalty) or params.repetition_penalty != 1

    @property
    def is_edited(self) -> bool:
        """Whether other logits than the raw ones decide."""
        if self.matcher is not None or self.params.processors or self.has_penalties:
            return True
        return self.params.min_tokens > 0 and bool(self.suppressed_ids)


class Sample(NamedTuple):
    """A chosen token; `logprob` only where it was asked for."""

    token_id: int
    logprob: TokenLogprob | None = None


def sample(logits: Tensor, rows: Sequence[SampleRow], bits: Tensor | None = None) -> list[Sample | BackendError | None]:
    """Chooses a token for every row of `logits` (len(rows), vocab), float32, which are left as they are.

    bits: what the rows' matchers allow, as `Grammars.fill` gives it; None if no row has one.
    A row without a usable maximum (NaN, or infinite, or everything suppressed), or whose processors or constraint
    failed, gets a BackendError in its place; None is for one whose constraint is fulfilled and allows nothing more.
    """
    choices: list[int | BackendError | None] = []
    edited, drawn, asked = [], [], []
    for i, (row, token_id) in enumerate(zip(rows, _largest(logits), strict=True)):
        choices.append(BackendError(_NO_MAXIMUM) if token_id is None else token_id)
        if token_id is not None and row.is_edited:
            edited.append(i)
        elif token_id is not None and row.params.temperature > 0:
            drawn.append(i)
        if row.params.logprobs is not None:
            asked.append(i)
    if edited:
        chosen = _choose(logits[edited].float(), [rows[i] for i in edited], None if bits is None else bits[edited])
        for i, choice in zip(edited, chosen, strict=True):
            choices[i] = choice
    if drawn:
        _draw_where(choices, logits, rows, drawn)
    samples: list[Sample | BackendError | None] = [
        Sample(choice) if isinstance(choice, int) else choice for choice in choices
    ]
    told = {i: sample.token_id for i in asked if isinstance(sample := samples[i], Sample)}
    if told:
        tops = [rows[i].params.logprobs or 0 for i in told]
        for i, logprob in zip(told, token_logprobs(logits[list(told)], list(told.values()), tops), strict=True):
            samples[i] = Sample(logprob.token_id, logprob)
    return samples


def token_logprobs(logits: Tensor, token_ids: Sequence[int], num_top: Sequence[int]) -> list[TokenLogprob]:
    """The log-probability of one token per row of `logits` (n, vocab), and of the num_top[i] likeliest of row i."""
    logprobs = logits.float().log_softmax(dim=-1)
    ids = torch.tensor(token_ids, dtype=torch.int64, device=logits.device)
    chosen: list[float] = logprobs.gather(1, ids[:, None])[:, 0].tolist()
    top = logprobs.topk(min(max(num_top, default=0), logprobs.shape[1]), dim=-1)
    top_ids, top_values = top.indices.tolist(), top.values.tolist()
    return [
        TokenLogprob(token_id, chosen[i], tuple(zip(top_ids[i][:count], top_values[i][:count], strict=True)))
        for i, (token_id, count) in enumerate(zip(token_ids, num_top, strict=True))
    ]


def logprobs_of(logits: Tensor, token_ids: Sequence[int], others: Sequence[Sequence[int]]) -> list[TokenLogprob]:
    """The log-probability of one token per row of `logits` (n, vocab), and as `top` those of others of each row."""
    wanted = [(token_id, *more) for token_id, more in zip(token_ids, others, strict=True)]
    rows = torch.tensor([i for i, row in enumerate(wanted) for _ in row], device=logits.device)
    ids = torch.tensor([token_id for row in wanted for token_id in row], device=logits.device)
    values = iter(logits.float().log_softmax(dim=-1)[rows, ids].tolist())
    found = [[(token_id, next(values)) for token_id in row] for row in wanted]
    return [TokenLogprob(token_id, logprob, tuple(top)) for (token_id, logprob), *top in found]


def uniforms(seeds: Sequence[int], counters: Sequence[int]) -> NDArray[np.float64]:
    """One number from 0 to _BELOW_ONE for each pair: output `counter` of the SplitMix64 stream with that seed."""
    seed = _mix(np.array([int(seed) & _MASK for seed in seeds], dtype=np.uint64) + np.uint64(_GAMMA))
    counter = np.array(counters, dtype=np.uint64) + np.uint64(1)
    bits = _mix(seed + counter * np.uint64(_GAMMA))
    return (bits >> np.uint64(12)).astype(np.float64) * 2.0**-52


def _mix(state: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The finalizer of SplitMix64 (Steele, Lea and Flood, OOPSLA 2014)."""
    state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return state ^ (state >> np.uint64(31))


def _largest(logits: Tensor) -> list[int | None]:
    """The token of the largest logit of each row, the first of equal ones; None where that is not finite.

    On a CPU numpy finds them ten times faster than torch.
    """
    if logits.device.type == "cpu" and logits.dtype == torch.float32:
        array = logits.numpy()
        places = array.argmax(axis=-1)
        usable = np.isfinite(array[np.arange(len(array)), places])
        return [place if fine else None for place, fine in zip(places.tolist(), usable.tolist(), strict=True)]
    largest = logits.max(dim=-1)
    is_usable: list[bool] = largest.values.isfinite().tolist()
    return [place if fine else None for place, fine in zip(largest.indices.tolist(), is_usable, strict=True)]


def _choose(logits: Tensor, rows: list[SampleRow], bits: Tensor | None) -> list[int | BackendError | None]:
    """Choices for rows that are edited, as `sample` gives them. Overwrites `logits`, the caller's copy."""
    settled = _edit_all(logits, rows, bits)
    choices: list[int | BackendError | None] = [
        BackendError(_nothing_left(row)) if token_id is None else token_id
        for row, token_id in zip(rows, _largest(logits), strict=True)
    ]
    for i, choice in settled.items():
        choices[i] = choice
    drawn = [i for i, row in enumerate(rows) if row.params.temperature > 0 and isinstance(choices[i], int)]
    if drawn:
        _draw_where(choices, logits, rows, drawn)
    return choices


def _draw_where(
    choices: list[int | BackendError | None], logits: Tensor, rows: Sequence[SampleRow], drawn: list[int]
) -> None:
    """Replaces those choices by draws."""
    filtered = [i for i in drawn if _is_filtered(rows[i].params)]
    unfiltered = [i for i in drawn if not _is_filtered(rows[i].params)] if filtered else drawn
    for draw, places in ((_draw, unfiltered), (_draw_filtered, filtered)):
        if places:
            wanted = logits if len(places) == len(logits) else logits[places]
            for i, token_id in zip(places, draw(wanted.float(), [rows[i] for i in places]), strict=True):
                choices[i] = token_id


def _nothing_left(row: SampleRow) -> str:
    if not row.params.processors:
        return _NO_MAXIMUM
    allowed = "" if row.matcher is None else " that the constraint allows"
    return f"the processors left no token{allowed} with a finite logit"


def _is_filtered(params: SamplingParams) -> bool:
    return params.top_p < 1 or params.top_k > 0 or params.min_p > 0


def _edit_all(logits: Tensor, rows: list[SampleRow], bits: Tensor | None) -> dict[int, BackendError | None]:
    """Applies processors, penalties, min_tokens and constraints, in place; returns rows for which nothing is chosen."""
    processed = [
        Processed(i, row.params.processors, row.token_ids) for i, row in enumerate(rows) if row.params.processors
    ]
    settled: dict[int, BackendError | None] = {**process(processed, logits)}
    for i, row in enumerate(rows):
        if i in settled:
            continue
        try:
            _edit(logits[i], row)
            if row.matcher is not None:
                row.matcher.check()
        except BackendError as error:
            settled[i] = error
    if bits is not None:
        _constrain(logits, rows, bits, settled)
    return settled


def _constrain(logits: Tensor, rows: list[SampleRow], bits: Tensor, settled: dict[int, BackendError | None]) -> None:
    """Takes from the rows' logits what their constraints do not allow; notes those where that is everything."""
    constrained = [(i, row, row.matcher) for i, row in enumerate(rows) if row.matcher is not None and i not in settled]
    if not constrained:
        return
    indices = [i for i, _, _ in constrained]
    is_all = len(indices) == len(rows)
    allowed = constrained[0][2].grammars.allowed(bits if is_all else bits[indices], logits.device)
    goes_on: list[bool] = allowed.any(dim=-1).tolist()
    for (i, row, matcher), mask, any_text in zip(constrained, allowed, goes_on, strict=True):
        if any_text:
            _allow_ends(mask, row, matcher)
        else:
            settled[i] = None
    forbidden = allowed.logical_not_()
    if is_all:
        logits.masked_fill_(forbidden, -torch.inf)
        return
    for i, mask in zip(indices, forbidden, strict=True):
        logits[i].masked_fill_(mask, -torch.inf)


def _allow_ends(allowed: Tensor, row: SampleRow, matcher: Matcher) -> None:
    """Adds the end to the tokens that a row may choose of (vocab,), in place, where its text is complete.

    min_tokens holds back what ends the generation, if that leaves anything.
    """
    if row.suppressed_ids:
        text = allowed.clone()
        text[list(row.suppressed_ids)] = False
        if text.any():
            allowed.copy_(text)
    elif matcher.is_complete:
        for token_id in matcher.end_ids:
            allowed[token_id] = True


def _edit(logits: Tensor, row: SampleRow) -> None:
    """Applies penalties and (without a constraint) min_tokens to one row's logits (vocab,), in place.

    The repetition penalty looks at prompt and generation, the other two at the generation alone.
    """
    params = row.params
    if params.repetition_penalty != 1:
        seen = torch.from_numpy(np.unique(row.token_ids)).to(logits.device)
        values = logits[seen]
        logits[seen] = torch.where(values > 0, values / params.repetition_penalty, values * params.repetition_penalty)
    if (params.frequency_penalty or params.presence_penalty) and row.num_generated:
        ids, counts = np.unique(row.token_ids[row.prompt_len :], return_counts=True)
        penalty = torch.from_numpy(params.frequency_penalty * counts + params.presence_penalty)
        logits[torch.from_numpy(ids).to(logits.device)] -= penalty.to(logits)
    if row.suppressed_ids and row.matcher is None:
        logits[list(row.suppressed_ids)] = -torch.inf


def _draw(logits: Tensor, rows: list[SampleRow]) -> list[int]:
    """Draws from softmax(logits / temperature), one token per row."""
    token_ids: list[int] = _invert(_weights(logits, rows), _points(rows, logits.device)).tolist()
    return token_ids


def _draw_filtered(logits: Tensor, rows: list[SampleRow]) -> list[int]:
    """Draws from what top-k, top-p and min-p leave of each row."""
    weights = _weights(logits, rows)
    totals = weights.sum(dim=-1, dtype=torch.float64)
    likeliest = weights.topk(min(_CANDIDATES, weights.shape[1]), dim=-1)
    shares: list[float] = (likeliest.values.sum(dim=-1, dtype=torch.float64) / totals).tolist()
    smallest: list[float] = likeliest.values[:, -1].tolist()
    token_ids = [-1] * len(rows)
    for enough in (True, False):
        group = [i for i, row in enumerate(rows) if _suffices(row.params, shares[i], smallest[i]) == enough]
        if group:
            ranked = _ranked(weights[group], likeliest.indices[group] if enough else None)
            for i, token_id in zip(group, _draw_ranked(*ranked, totals[group], [rows[i] for i in group]), strict=True):
                token_ids[i] = token_id
    return token_ids


def _suffices(params: SamplingParams, share: float, smallest: float) -> bool:
    """Whether nothing is left of a row but its likeliest tokens, which have this share and these weights at least."""
    if params.top_k:
        return params.top_k <= _CANDIDATES
    return share >= params.top_p or smallest < params.min_p


def _ranked(weights: Tensor, candidates: Tensor | None) -> tuple[Tensor, Tensor]:
    """The weights and the token ids of the candidates (None: all) by falling weight, ties by token id."""
    if candidates is None:
        ranked = weights.sort(dim=-1, descending=True, stable=True)
        return ranked.values, ranked.indices
    token_ids = candidates.sort(dim=-1).values
    ranked = weights.gather(1, token_ids).sort(dim=-1, descending=True, stable=True)
    return ranked.values, token_ids.gather(1, ranked.indices)


def _draw_ranked(weights: Tensor, token_ids: Tensor, totals: Tensor, rows: list[SampleRow]) -> list[int]:
    """Filters and draws. `weights` and `token_ids` (n, ranks), the weights' `totals` (n,) over the whole vocabulary."""
    ranks = torch.arange(weights.shape[1], device=weights.device)
    top_k = _column([row.params.top_k or weights.shape[1] for row in rows], weights)
    weights = weights.masked_fill(ranks >= top_k, 0.0)
    sums = weights.cumsum(dim=-1, dtype=torch.float64)
    limited = torch.tensor([row.params.top_k > 0 for row in rows], device=weights.device)
    mass = torch.where(limited, sums[:, -1], totals)[:, None]
    top_p = _column([row.params.top_p for row in rows], sums)
    min_p = _column([row.params.min_p for row in rows], weights)
    cut = ((sums - weights >= top_p * mass) & (top_p < 1)) | (weights < min_p)
    places = _invert(weights.masked_fill(cut, 0.0), _points(rows, weights.device))
    chosen: list[int] = token_ids.gather(1, places[:, None])[:, 0].tolist()
    return chosen


def _weights(logits: Tensor, rows: list[SampleRow]) -> Tensor:
    """exp(logits / temperature), scaled so that the largest weight of each row is 1."""
    # The largest logit becomes 0 first: however small the temperature, nothing overflows to infinity. Nor does the
    # temperature itself in float32, which would make NaN of what is suppressed.
    centred = logits - logits.amax(dim=-1, keepdim=True)
    return centred.div_(_column([min(max(row.params.temperature, 1e-6), 1e30) for row in rows], logits)).exp_()


def _column(values: Sequence[float], like: Tensor) -> Tensor:
    return torch.tensor(values, dtype=like.dtype, device=like.device)[:, None]


def _points(rows: list[SampleRow], device: torch.device) -> Tensor:
    points = uniforms([row.seed for row in rows], [row.num_generated for row in rows])
    return torch.from_numpy(points).to(device)


def _invert(weights: Tensor, points: Tensor) -> Tensor:
    """For each row of `weights` (n, size) the place at which its running sum passes that fraction `points` (n,) of all.

    In two levels, first among blocks and then inside one, because running sums over whole rows are slow.
    """
    num_rows, size = weights.shape
    padded = functional.pad(weights, (0, -size % _BLOCK)) if size % _BLOCK else weights
    blocks = padded.view(num_rows, -1, _BLOCK)
    block, inside = _locate(blocks.sum(dim=-1), points)
    place, _ = _locate(blocks[torch.arange(num_rows, device=weights.device), block], inside)
    return block * _BLOCK + place


def _locate(weights: Tensor, points: Tensor) -> tuple[Tensor, Tensor]:
    """The first places where running sums exceed the fractions `points` of the totals, and how far inside they fall."""
    sums = weights.cumsum(dim=-1, dtype=torch.float64)
    targets = points[:, None] * sums[:, -1:]
    places = torch.searchsorted(sums, targets, right=True)
    weight = weights.gather(1, places)
    inside = (targets - sums.gather(1, places) + weight) / weight
    return places[:, 0], inside[:, 0].clamp(0.0, _BELOW_ONE)
