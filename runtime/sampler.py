"""From logits to tokens: greedy choice, or one draw per row by inverse transform, with each row's own parameters.

A draw needs one uniform number, which is a hash of the request's seed and of how many tokens it has generated, so a
row's result depends on its seed, its position and its logits, and never on the rest of the batch. The order of the
edits is: processors (on the raw logits), penalties, min_tokens, constraint, temperature, top-k, top-p (of what top-k
left), min-p. Log-probabilities are those of the raw logits.

A Choice launches on the logits' device all that needs nothing of the host, and its `result` does the rest, so that a
GPU's choices can go into its next step before the host knows them. What is launched waits for nothing: rows are told
apart by their parameters, never by what the logits hold.
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
from .transfer import Download, upload

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


class Choice:
    """Chooses a token for every row of `logits` (len(rows), vocab), float32, which are left as they are.

    Without `rows` all take the largest logit. To make one launches it. is_free: whether the device chooses all tokens,
    without the host. late: after `result`, the rows that chose otherwise than `token_ids` says.
    """

    def __init__(self, logits: Tensor, rows: Sequence[SampleRow]) -> None:
        drawn: list[int] = []
        self._edited: list[int] = []
        self._asked: list[int] = []
        for i, row in enumerate(rows):
            if row.is_edited:
                self._edited.append(i)
            elif row.params.temperature > 0:
                drawn.append(i)
            if row.params.logprobs is not None:
                self._asked.append(i)
        self.is_free = not self._edited and not self._asked
        self.late: set[int] = set()
        self._rows = rows
        self._logits = None if self.is_free else logits
        self._plain = _Plain(logits, rows, drawn)

    @property
    def token_ids(self) -> Tensor:
        """What the rows choose as far as the device knows, which is all but what is late: int64 (rows,)."""
        return self._plain.token_ids.clamp(min=0)

    def result(self, bits: Tensor | None = None) -> list[Sample | BackendError | None]:
        """Waits for the tokens. bits: what the rows' matchers allow, as `Grammars.fill` gives it; None if none has one.

        A row without a usable maximum (NaN, or infinite, or everything suppressed), or whose processors or constraint
        failed, gets a BackendError in its place; None is for one whose constraint is fulfilled and allows nothing more.
        """
        token_ids, self.late = self._plain.result()
        samples: list[Sample | BackendError | None] = [
            BackendError(_NO_MAXIMUM) if token_id < 0 else Sample(token_id) for token_id in token_ids
        ]
        if self._edited:
            self._choose_edited(samples, bits)
        if self._asked:
            self._add_logprobs(samples)
        return samples

    def _choose_edited(self, samples: list[Sample | BackendError | None], bits: Tensor | None) -> None:
        edited = [i for i in self._edited if isinstance(samples[i], Sample)]
        if edited:
            assert self._logits is not None
            logits = self._logits[edited].float()
            chosen = _choose(logits, [self._rows[i] for i in edited], None if bits is None else bits[edited])
            for i, choice in zip(edited, chosen, strict=True):
                samples[i] = choice

    def _add_logprobs(self, samples: list[Sample | BackendError | None]) -> None:
        told = {i: sample.token_id for i in self._asked if isinstance(sample := samples[i], Sample)}
        if told:
            assert self._logits is not None
            tops = [self._rows[i].params.logprobs or 0 for i in told]
            logprobs = token_logprobs(self._logits[list(told)], list(told.values()), tops)
            for i, logprob in zip(told, logprobs, strict=True):
                samples[i] = Sample(logprob.token_id, logprob)


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


class _Plain:
    """Choices by logits as they are: the largest, and draws for the rows `drawn`. What is launched waits for nothing.

    token_ids: int64 (rows,) on the logits' device, -1 where a row has no usable maximum.
    """

    def __init__(self, logits: Tensor, rows: Sequence[SampleRow], drawn: list[int]) -> None:
        self.token_ids = _largest(logits)
        self._ranked: list[int] = []
        self._draws: _RankedDraws | None = None
        if drawn:
            self._ranked = [i for i in drawn if _is_filtered(rows[i].params)]
            unfiltered = [i for i in drawn if not _is_filtered(rows[i].params)] if self._ranked else drawn
            if unfiltered:
                self._put(unfiltered, _draw(_picked(logits, unfiltered).float(), [rows[i] for i in unfiltered]))
            if self._ranked:
                self._draws = _RankedDraws(_picked(logits, self._ranked).float(), [rows[i] for i in self._ranked])
                self._put(self._ranked, self._draws.token_ids)
        self._told = Download(self.token_ids)

    def result(self) -> tuple[list[int], set[int]]:
        """The rows' tokens, -1 where there is none; and those for which `token_ids` says otherwise, or nothing."""
        token_ids: list[int] = self._told.result().tolist()
        late = {i for i, token_id in enumerate(token_ids) if token_id < 0} if min(token_ids) < 0 else set()
        for place, token_id in self._draws.late().items() if self._draws is not None else ():
            i = self._ranked[place]
            if token_id != token_ids[i] >= 0:
                token_ids[i] = token_id
                late.add(i)
        return token_ids, late

    def _put(self, places: list[int], drawn: Tensor) -> None:
        """Replaces those choices, where there are any."""
        placed = drawn if len(places) == len(self.token_ids) else _placed(drawn, places, self.token_ids)
        self.token_ids = torch.where(self.token_ids < 0, self.token_ids, placed)


def _placed(values: Tensor, places: list[int], among: Tensor) -> Tensor:
    """The numbers of `among` with others at these places."""
    return among.index_copy(0, upload(places, torch.int64, among.device), values)


def _picked(logits: Tensor, places: list[int]) -> Tensor:
    return logits if len(places) == len(logits) else logits.index_select(0, upload(places, torch.int64, logits.device))


def _largest(logits: Tensor) -> Tensor:
    """The token of the largest logit of each row, the first of equal ones, int64 (rows,); -1 where that is not finite.

    On a CPU numpy finds them ten times faster than torch.
    """
    if logits.device.type == "cpu" and logits.dtype == torch.float32:
        array = logits.numpy()
        places = array.argmax(axis=-1)
        places[~np.isfinite(array[np.arange(len(array)), places])] = -1
        return torch.from_numpy(places)
    largest = logits.max(dim=-1)
    return torch.where(largest.values.isfinite(), largest.indices, -1)


def _choose(logits: Tensor, rows: list[SampleRow], bits: Tensor | None) -> list[Sample | BackendError | None]:
    """Choices for rows that are edited, as `Choice.result` gives them. Overwrites `logits`, the caller's copy."""
    settled = _edit_all(logits, rows, bits)
    drawn = [i for i, row in enumerate(rows) if row.params.temperature > 0 and i not in settled]
    token_ids, _ = _Plain(logits, rows, drawn).result()
    choices: list[Sample | BackendError | None] = [
        BackendError(_nothing_left(row)) if token_id < 0 else Sample(token_id)
        for row, token_id in zip(rows, token_ids, strict=True)
    ]
    for i, choice in settled.items():
        choices[i] = choice
    return choices


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


def _draw(logits: Tensor, rows: list[SampleRow]) -> Tensor:
    """Draws from softmax(logits / temperature), one token per row."""
    return _invert(_weights(logits, rows), _points(rows, logits.device))


class _RankedDraws:
    """Draws from what top-k, top-p and min-p leave of each row (n, vocab), by the rank of its tokens.

    Only the likeliest tokens are ranked of a row of which they may be enough. Where that turns out to be wrong, the row
    is drawn again from all, which is late. token_ids: int64 (n,), without that.
    """

    def __init__(self, logits: Tensor, rows: list[SampleRow]) -> None:
        self._rows = rows
        self._weights = _weights(logits, rows)
        self._totals = self._weights.sum(dim=-1, dtype=torch.float64)
        self._suffices: Download | None = None
        likeliest = self._weights.topk(min(_CANDIDATES, logits.shape[1]), dim=-1)
        wide = self._too_few(likeliest.values) if logits.shape[1] > _CANDIDATES else []
        if len(wide) < len(rows):
            self.token_ids = _draw_ranked(*_ranked(self._weights, likeliest.indices), self._totals, rows)
        if wide:
            drawn = self._drawn_from_all(wide)
            self.token_ids = drawn if len(wide) == len(rows) else _placed(drawn, wide, self.token_ids)

    def late(self) -> dict[int, int]:
        """The tokens of rows whose likeliest tokens were too few. Waits."""
        if self._suffices is None:
            return {}
        late = _places_of_false(self._suffices.result())
        return dict(zip(late, self._drawn_from_all(late).tolist(), strict=True)) if late else {}

    def _too_few(self, likeliest: Tensor) -> list[int]:
        """The rows whose likeliest tokens (n, ranks) are too few, as far as the host knows without waiting."""
        if any(not row.params.top_k for row in self._rows):
            suffices = Download(_suffices(likeliest, self._totals, self._rows))
            if suffices.known is not None:
                return _places_of_false(suffices.known)
            self._suffices = suffices
        return [i for i, row in enumerate(self._rows) if row.params.top_k > _CANDIDATES]

    def _drawn_from_all(self, places: list[int]) -> Tensor:
        weights, totals = _picked(self._weights, places), _picked(self._totals, places)
        return _draw_ranked(*_ranked(weights, None), totals, [self._rows[i] for i in places])


def _places_of_false(values: Tensor) -> list[int]:
    return [i for i, value in enumerate(values.tolist()) if not value]


def _suffices(likeliest: Tensor, totals: Tensor, rows: list[SampleRow]) -> Tensor:
    """Whether nothing is left of a row but its likeliest tokens, which have these weights (n, ranks): bool (n,)."""
    top_k = upload([row.params.top_k for row in rows], torch.int64, likeliest.device)
    top_p = upload([row.params.top_p for row in rows], torch.float64, likeliest.device)
    min_p = upload([row.params.min_p for row in rows], torch.float64, likeliest.device)
    shares = likeliest.sum(dim=-1, dtype=torch.float64) / totals
    is_enough = (shares >= top_p) | (likeliest[:, -1] < min_p)
    return torch.where(top_k > 0, top_k <= _CANDIDATES, is_enough)


def _ranked(weights: Tensor, candidates: Tensor | None) -> tuple[Tensor, Tensor]:
    """The weights and the token ids of the candidates (None: all) by falling weight, ties by token id."""
    if candidates is None:
        ranked = weights.sort(dim=-1, descending=True, stable=True)
        return ranked.values, ranked.indices
    token_ids = candidates.sort(dim=-1).values
    ranked = weights.gather(1, token_ids).sort(dim=-1, descending=True, stable=True)
    return ranked.values, token_ids.gather(1, ranked.indices)


def _draw_ranked(weights: Tensor, token_ids: Tensor, totals: Tensor, rows: list[SampleRow]) -> Tensor:
    """Filters and draws. `weights` and `token_ids` (n, ranks), the weights' `totals` (n,) over the whole vocabulary."""
    ranks = torch.arange(weights.shape[1], device=weights.device)
    top_k = _column([row.params.top_k or weights.shape[1] for row in rows], weights)
    weights = weights.masked_fill(ranks >= top_k, 0.0)
    sums = weights.cumsum(dim=-1, dtype=torch.float64)
    limited = upload([row.params.top_k > 0 for row in rows], torch.bool, weights.device)
    mass = torch.where(limited, sums[:, -1], totals)[:, None]
    top_p = _column([row.params.top_p for row in rows], sums)
    min_p = _column([row.params.min_p for row in rows], weights)
    cut = ((sums - weights >= top_p * mass) & (top_p < 1)) | (weights < min_p)
    places = _invert(weights.masked_fill(cut, 0.0), _points(rows, weights.device))
    return token_ids.gather(1, places[:, None])[:, 0]


def _weights(logits: Tensor, rows: list[SampleRow]) -> Tensor:
    """exp(logits / temperature), scaled so that the largest weight of each row is 1."""
    # The largest logit becomes 0 first: however small the temperature, nothing overflows to infinity. Nor does the
    # temperature itself in float32, which would make NaN of what is suppressed.
    centred = logits - logits.amax(dim=-1, keepdim=True)
    return centred.div_(_column([min(max(row.params.temperature, 1e-6), 1e30) for row in rows], logits)).exp_()


def _column(values: Sequence[float], like: Tensor) -> Tensor:
    return upload(values, like.dtype, like.device)[:, None]


def _points(rows: list[SampleRow], device: torch.device) -> Tensor:
    points = uniforms([row.seed for row in rows], [row.num_generated for row in rows])
    return upload(points, torch.float64, device)


def _invert(weights: Tensor, points: Tensor) -> Tensor:
    """For each row of `weights` (n, size) the place at which its running sum passes that fraction `points` (n,) of all.

    In two levels, first among blocks and then inside one, because running sums over whole rows are slow.
    """
    num_rows, size = weights.shape
    padded = functional.pad(weights, (0, -size % _BLOCK)) if size % _BLOCK else weights
    blocks = padded.view(num_rows, -1, _BLOCK)
    # How a GPU takes sums may depend on the number of rows, and in float32 so would the token. A CPU sums each row by
    # itself, and takes longer to widen numbers than to sum them.
    dtype = torch.float32 if weights.device.type == "cpu" else torch.float64
    block, inside = _locate(blocks.sum(dim=-1, dtype=dtype), points)
    place, _ = _locate(blocks[torch.arange(num_rows, device=weights.device), block], inside)
    return block * _BLOCK + place


def _locate(weights: Tensor, points: Tensor) -> tuple[Tensor, Tensor]:
    """The first places where running sums exceed the fractions `points` of the totals, and how far inside they fall."""
    sums = weights.cumsum(dim=-1, dtype=torch.float64)
    targets = points[:, None] * sums[:, -1:]
    # A row with NaN finds no place, and has to be read all the same.
    places = torch.searchsorted(sums, targets, right=True).clamp_(max=weights.shape[1] - 1)
    weight = weights.gather(1, places)
    inside = (targets - sums.gather(1, places) + weight) / weight
    return places[:, 0], inside[:, 0].clamp(0.0, _BELOW_ONE)
