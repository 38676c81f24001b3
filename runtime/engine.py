"""The engine: token requests in, events out, one model forward per step for everything that runs.

A step takes in what was submitted or cancelled, admits, builds one batch, runs the model, samples, and tells each
request's sink what is new. With `start` a daemon thread steps while there is work; tests may call `step` themselves.
All state belongs to the thread that steps; `submit` and `cancel` only leave a note for it.
"""

from __future__ import annotations

import atexit
import logging
import math
import secrets
import threading
import time
import weakref
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal, ParamSpec, Protocol, TypeVar, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..ir.errors import BackendError, Cancelled, RamifyError, RequestError, Unsupported, UsageError
from .background import complete
from .constraint import Constraint
from .copies import copy_queue
from .faults import located
from .host_tier import HostTier
from .inbox import Inbox
from .inflight import Computes, InFlight, Outcome, launch
from .kv_file import ModelIdentity
from .lookup import Lookup
from .matcher import Grammars, Matcher
from .memory import default_kv_tokens
from .output import Output, TextStream
from .plan import Chunk, build_batch
from .pool import KVLayout, KVPool
from .radix import common_len
from .request import Done, EngineRequest, Event, Failed, FinishReason, SamplingParams, TokenLogprob
from .sampler import Sample
from .saved_cache import load_tree, save_tree
from .scheduler import AdmissionOrder, Scheduler
from .sequence import Sequence, token_array
from .speculation import Expected, Speculation

_log = logging.getLogger(__name__)
# Logits of scored tokens are kept to about this many numbers a step (64 MiB in float32).
_SCORE_LOGITS = 1 << 24
# How much real work may be delayed by speculative prefill, in parts of the time that it takes: half of what is allowed,
# since what telling of hints and a larger tree cost is not counted.
_SPECULATION_SHARE = 0.01
# What a step may take that decodes and prefills. Programs end sooner with larger chunks: on two cores a 0.6B model
# computes a prompt a quarter faster in chunks of 400 tokens than of 64.
STEP_SECONDS = 1.0
_REQUEST_FAILED = "the request failed"
_ADAPTERS = "adapters are loaded with the model: --adapter NAME=DIR, or LocalBackend(..., adapters={name: DIR})"
_T = TypeVar("_T")
_P = ParamSpec("_P")


class ModelShape(Protocol):
    """What the engine asks of a model's configuration."""

    @property
    def vocab_size(self) -> int:
        """Number of token ids."""

    @property
    def context_length(self) -> int:
        """The most tokens of one sequence."""


class LanguageModel(Computes, Protocol):
    """What the engine asks of a model."""

    @property
    def config(self) -> ModelShape:
        """Its sizes."""

    @property
    def layout(self) -> KVLayout:
        """The shape of its KV."""

    @property
    def identity(self) -> ModelIdentity:
        """What tells its KV from that of other models."""


@dataclass(frozen=True, slots=True)
class EngineStats:
    """Counts of the moment (up to on_host) and since the engine was made (the rest). Tokens unless said otherwise.

    speculated: computed ahead of their requests, which is no part of computed_tokens; speculation_hits: those of them
    that a request has used. drafted_tokens: computed as drafts, which is no part of computed_tokens either;
    accepted_tokens: those of them that were generated, which is (runtime/lookup.py). on_host: kept in host memory;
    offloaded_tokens: copied there; restored_tokens: copied back for a request, which counts as hit_tokens too.
    discarded_tokens: computed behind tokens that turned out to be a request's last, or other ones, which is no part of
    computed_tokens either (runtime/inflight.py). nodes: how many the radix tree has. prompt_tokens: of the requests
    that were begun; hit_tokens of them were in the cache.
    """

    running: int
    waiting: int
    capacity: int
    used: int
    free: int
    cached: int
    nodes: int
    bytes_per_token: int
    on_host: int
    steps: int
    prompt_tokens: int
    hit_tokens: int
    computed_tokens: int
    generated_tokens: int
    evicted_tokens: int
    speculated_tokens: int
    speculation_hits: int
    drafted_tokens: int
    accepted_tokens: int
    offloaded_tokens: int
    restored_tokens: int
    discarded_tokens: int


class Engine:
    """Serves EngineRequests with one model.

    stream: makes a detokenizer for one request, which may show special tokens. kv_tokens: how many tokens of KV are
    kept at most (None: see `memory.default_kv_tokens`: 80 % of a GPU's free memory, a quarter of a machine's).
    host_kv_tokens: of how many tokens host memory keeps what is evicted, see runtime/host_tier.py; 0: of none.
    max_running: the most sequences in one step. chunk_tokens: about how many tokens a step computes. prefix_cache:
    whether KV is shared and kept. tree_attention: whether what several sequences share is read once for all of them in
    a step, which changes no result. order: whose requests come first, see runtime/scheduler.py. step_seconds: how
    long a step may take in which some decode while prompts are computed (None: no bound), see runtime/pace.py.
    eos_token_ids: what ends a generation unless it ignores them. grammars: compiles constraints; without it,
    requests with one are refused. adapters: the model's, by name, with what tells their KV from that of others.
    fast_forward: whether tokens that a constraint forces are taken together instead of one a step; the result is the
    same. lookup: whether what generations repeat is drafted, which gives the same
    tokens in fewer steps where that is worth it ("always": wherever anything is found). pipelined: whether a step is
    planned and launched while the one before runs, which changes no result (None: on a GPU; never with lookup, which
    guesses from the newest token). speculation_share: how much
    `prefill` may delay requests, in parts of the time that they take. check: verify all accounting whenever idle.
    Raises UsageError for a number that is too small, an order there is not, or host memory there is not.
    """

    def __init__(
        self,
        model: LanguageModel,
        stream: Callable[..., TextStream],
        *,
        kv_tokens: int | None = None,
        host_kv_tokens: int = 0,
        max_running: int = 256,
        chunk_tokens: int = 512,
        prefix_cache: bool = True,
        tree_attention: bool = True,
        order: AdmissionOrder = "prefix",
        step_seconds: float | None = STEP_SECONDS,
        eos_token_ids: tuple[int, ...] = (),
        grammars: Grammars | None = None,
        adapters: Mapping[str, int] | None = None,
        fast_forward: bool = True,
        lookup: bool | Literal["always"] = False,
        pipelined: bool | None = None,
        speculation_share: float = _SPECULATION_SHARE,
        check: bool = False,
    ) -> None:
        for name, value in (("kv_tokens", kv_tokens), ("max_running", max_running), ("chunk_tokens", chunk_tokens)):
            if value is not None and value < 1:
                raise UsageError(f"{name} must be at least 1, got {value}")
        if host_kv_tokens < 0:
            raise UsageError(f"host_kv_tokens must be at least 0, got {host_kv_tokens}")
        if host_kv_tokens and not prefix_cache:
            raise UsageError("host_kv_tokens keeps what the prefix cache evicts: there is none with prefix_cache=False")
        if order not in get_args(AdmissionOrder):
            raise UsageError(f"order must be 'prefix' or 'service', got {order!r}")
        shape = model.config
        capacity = kv_tokens or default_kv_tokens(model.layout, shape.context_length, max_running)
        self._inbox = Inbox()
        self._model = model
        self._stream = stream
        self._eos_token_ids = eos_token_ids
        self._grammars = grammars
        self._adapters = adapters or {}
        self._prefix_cache = prefix_cache
        self._build_batch = partial(build_batch, device=model.layout.device, tree_attention=tree_attention)
        self._fast_forward = fast_forward
        self._check = check
        max_logit_rows = max(1, _SCORE_LOGITS // shape.vocab_size)
        self._scheduler = Scheduler(
            KVPool(model.layout, capacity),
            max_running=max_running,
            chunk_tokens=chunk_tokens,
            prefix_cache=prefix_cache,
            max_logit_rows=max_logit_rows,
            order=order,
            step_seconds=step_seconds,
            host=HostTier(model.layout, host_kv_tokens, copy_queue(model.layout.device)) if host_kv_tokens else None,
            later=self._inbox.put,
        )
        self._lookup: Lookup | None = None
        if lookup:
            self._lookup = Lookup(
                self._scheduler.tree if prefix_cache else None,
                max_rows=min(chunk_tokens, max_logit_rows),
                forces=fast_forward,
                is_eager=lookup == "always",
            )
        # Drafts are guessed from the newest token, which a step that is planned ahead does not know.
        self._pipelined = not lookup and (model.layout.device.type == "cuda" if pipelined is None else pipelined)
        self._in_flight: InFlight | None = None
        self._collected_at = 0.0
        self._speculation = Speculation(
            self._scheduler.tree, self._scheduler.pool, share=speculation_share, chunk_tokens=chunk_tokens
        )
        self._sequences: dict[int, Sequence] = {}
        self._num_arrived = 0
        self._num_steps = 0
        self._num_generated = 0
        weakref.finalize(self, self._inbox.close).atexit = False
        self._thread: threading.Thread | None = None
        self._crash: Exception | None = None

    def submit(self, request: EngineRequest) -> None:
        """Queues a request and returns at once; its events, errors too, go to its sink. Thread-safe."""
        if not self._inbox.put(partial(self._add, request, _now_ms())):
            _call_sink(request, Failed(_engine_closed()))

    def cancel(self, request: EngineRequest) -> None:
        """Ends a request early: it gets Done with finish_reason "cancelled", unless it is over already. Thread-safe."""
        self._inbox.put(partial(self._cancel, request))

    def prefill(self, expected: Expected) -> None:
        """Has a prompt's KV computed when nothing real needs the engine; nobody is told of it. Thread-safe.

        What cannot be computed, such as a prompt beyond the context, is left undone. See runtime/speculation.py.
        """
        if self._prefix_cache:
            self._inbox.put(partial(self._speculation.add, expected))

    def cancel_prefill(self, expected: Expected) -> None:
        """Wants a prompt no more; what was computed of it stays cached. Thread-safe."""
        self._inbox.put(partial(self._speculation.cancel, expected))

    def start(self) -> None:
        """Starts the thread that steps; it ends when nobody uses the engine. Raises UsageError on a closed engine."""
        if self._inbox.is_closed:
            raise UsageError("the engine was closed", help="make a new one")
        if self._thread is None:
            _started.add(self)
            arguments = (weakref.ref(self), self._inbox)
            self._thread = threading.Thread(target=_serve, args=arguments, name="ramify-engine", daemon=True)
            self._thread.start()

    def close(self) -> None:
        """Ends the thread after its current step; what is unfinished fails with Cancelled. Thread-safe, repeatable.

        With check=True, raises what went wrong inside the engine, if anything did.
        """
        self._inbox.close()
        if self._is_engine_thread():
            return
        if self._thread is None:
            self._fail_all(_engine_closed)
        else:
            self._thread.join()
        crash, self._crash = self._crash, None
        if crash is not None and self._check:
            raise crash

    def step(self) -> bool:
        """Does one step in the caller's thread, for use without `start`; returns whether work is left."""
        if self._runs_elsewhere():
            raise UsageError("the engine's thread is running", help="call step() only on an engine not started")
        return self._step()

    def clear_cache(self) -> None:
        """Drops all cached KV that nothing running uses."""
        self._on_engine(self._clear_cache)

    def cached_len(self, token_ids: list[int]) -> int:
        """How many of these tokens, from the first on, are in the cache. Changes nothing, and waits for the step."""
        return self._on_engine(lambda: self._scheduler.tree.match_len(np.array(token_ids, dtype=np.int64)))

    def save_cache(self, path: str | Path, *, max_tokens: int | None = None) -> int:
        """Writes the cached prefixes with their KV to a file, which is replaced at the end; returns their tokens.

        max_tokens: those used last, at most so many; None is all. Nothing is computed meanwhile. Raises CacheError.
        """
        if max_tokens is not None and max_tokens < 1:
            raise UsageError(f"max_tokens must be at least 1, got {max_tokens}")
        return self._on_engine(partial(self._save_cache, Path(path), max_tokens))

    def load_cache(self, path: str | Path) -> int:
        """Adds the prefixes of a saved cache as far as there is free room; returns how many tokens that are.

        Nothing is computed meanwhile. Raises CacheError, which leaves everything as it was: for a file that is damaged,
        or of another model or dtype; UsageError without a prefix cache.
        """
        if not self._prefix_cache:
            raise UsageError("this engine keeps no KV: it was made with prefix_cache=False")
        return self._on_engine(partial(self._load_cache, Path(path)))

    def check_idle(self) -> None:
        """Raises AssertionError unless nothing is queued or running and all KV is free or cached, unlocked, and nothing
        is expected of runs that have ended.
        """
        self._on_engine(self._check_idle)
        self._on_engine(self._scheduler.uses.check)

    def stats(self) -> EngineStats:
        """What the engine is doing and has done. Thread-safe; the counts may be of slightly different moments."""
        scheduler, host = self._scheduler, self._scheduler.host
        return EngineStats(
            running=len(scheduler.running),
            waiting=len(scheduler.waiting) + len(self._inbox),
            capacity=scheduler.pool.capacity,
            used=scheduler.pool.used,
            free=scheduler.pool.free,
            cached=scheduler.tree.num_tokens,
            nodes=scheduler.tree.num_nodes,
            bytes_per_token=scheduler.pool.layout.bytes_per_token,
            on_host=0 if host is None else host.tree.num_tokens,
            steps=self._num_steps,
            prompt_tokens=scheduler.prompt_tokens,
            hit_tokens=scheduler.hit_tokens,
            computed_tokens=scheduler.computed_tokens,
            generated_tokens=self._num_generated,
            evicted_tokens=scheduler.tree.evicted_tokens,
            speculated_tokens=self._speculation.computed_tokens,
            speculation_hits=scheduler.speculation_hits,
            drafted_tokens=0 if self._lookup is None else self._lookup.drafted_tokens,
            accepted_tokens=0 if self._lookup is None else self._lookup.accepted_tokens,
            offloaded_tokens=0 if host is None else host.offloaded_tokens,
            restored_tokens=0 if host is None else host.restored_tokens,
            discarded_tokens=scheduler.discarded_tokens,
        )

    def _on_engine(self, function: Callable[[], _T]) -> _T:
        """Runs a function where the state may be touched, and returns its result."""
        done: Future[_T] = Future()
        if self._runs_elsewhere() and self._inbox.put(partial(complete, done, function)):
            return done.result()
        if self._thread is not None and not self._is_engine_thread():
            self._thread.join()
        return function()

    def _is_engine_thread(self) -> bool:
        return threading.current_thread() is self._thread

    def _runs_elsewhere(self) -> bool:
        """Whether another thread than this one does the steps."""
        return self._thread is not None and self._thread.is_alive() and not self._is_engine_thread()

    def work_off(self) -> None:
        """Steps while there is work. On the engine's thread."""
        while not self._inbox.is_closed and self._step_or_fail():
            pass

    def end(self) -> None:
        """Lets nobody wait for ever. On the engine's thread, when it ends."""
        self._inbox.close()
        self._fail_all(_engine_closed)

    def _step_or_fail(self) -> bool:
        try:
            return self._step()
        except Exception as error:
            # Only a fault of the engine itself gets here: nothing that runs can be trusted any more.
            _log.exception("an engine step failed")
            self._crash = error
            self._fail_all(partial(_as_ramify, error, "the engine failed"))
            return False

    @torch.inference_mode()
    def _step(self) -> bool:
        self._inbox.carry_out()
        for sequence in self._scheduler.admit():
            sequence.admitted_ms = _now_ms()
        while self._scheduler.refused:
            sequence = self._scheduler.refused.pop()
            self._fail(sequence, _no_memory(sequence), _REQUEST_FAILED)
        chunks = self._scheduler.plan()
        if self._lookup is not None:
            chunks = self._lookup.add(chunks)
        if chunks or self._in_flight is not None:
            self._run(chunks)
        elif self._scheduler.has_work:
            self._inbox.wait(self._scheduler.holds_off_seconds)
        speculates = self._speculate()
        busy = self._scheduler.has_work or self._in_flight is not None or speculates or bool(self._inbox)
        if self._check and not busy:
            self._check_idle()
        return busy

    def _speculate(self) -> bool:
        """Computes a chunk of what may be asked for next, if nothing real is delayed by it; whether it did."""
        scheduler, is_idle = self._scheduler, not self._scheduler.running
        if self._inbox or scheduler.is_prefilling:
            return False
        if is_idle and (seconds := self._speculation.seconds_to_wait(time.perf_counter())) > 0:
            self._inbox.wait(seconds)
            return True
        begun = time.perf_counter()
        chunk = self._speculation.next_chunk(self._new_prefill, is_idle=is_idle)
        if chunk is None:
            return False
        begun += self._collect_all()
        try:
            self._model.forward(self._build_batch([chunk]))
            self._wait_for_device()
        except Exception:
            _log.exception("speculative prefill failed")
            self._speculation.clear()
            return False
        now = time.perf_counter()
        self._speculation.advance(chunk, ended_at=now, seconds=now - begun, is_idle=is_idle)
        return True

    def _wait_for_device(self) -> None:
        if self._model.layout.device.type == "cuda":
            torch.cuda.synchronize(self._model.layout.device)

    def _new_prefill(self, token_ids: list[int]) -> Sequence:
        return self._new_sequence(EngineRequest(token_ids, SamplingParams(max_tokens=0), _tell_nobody), _now_ms())

    def _save_cache(self, path: Path, max_tokens: int | None) -> int:
        scheduler = self._scheduler
        return save_tree(
            scheduler.tree, self._model.identity, path, host=scheduler.tree_on_host(), max_tokens=max_tokens
        )

    @torch.inference_mode()
    def _load_cache(self, path: Path) -> int:
        return load_tree(self._scheduler.tree, self._model.identity, path, host=self._scheduler.tree_on_host())

    def _clear_cache(self) -> None:
        self._speculation.clear()
        self._scheduler.clear_cache()

    def _add(self, request: EngineRequest, submitted_ms: float) -> None:
        try:
            sequence = self._new_sequence(request, submitted_ms)
            self._speculation.has_arrived(sequence.keys, submitted_ms / 1000)
            if not sequence.needs_nothing:
                self._scheduler.add(sequence)
        except Exception as error:
            _call_sink(request, Failed(_as_ramify(error, "the request cannot be taken")))
            return
        self._sequences[id(request)] = sequence
        if sequence.needs_nothing:
            self._guarded(sequence, self._finish, sequence, "stop" if sequence.is_score else "length")
        else:
            self._guarded(sequence, self._force, sequence)

    def _tag(self, adapter: str | None) -> int:
        """What tells an adapter's KV from that of others. Raises RequestError for one that is not there."""
        if adapter is not None and adapter not in self._adapters:
            there = ", ".join(self._adapters) or "none"
            raise RequestError(f"the model has no adapter {adapter!r}; it has {there}", help=_ADAPTERS)
        return 0 if adapter is None else self._adapters[adapter]

    def _new_sequence(self, request: EngineRequest, submitted_ms: float) -> Sequence:
        shape, params = self._model.config, request.params
        tokens = token_array(request, vocab_size=shape.vocab_size, context_length=shape.context_length)
        stop_ids = params.stop_token_ids if params.ignore_eos else (*self._eos_token_ids, *params.stop_token_ids)
        self._num_arrived += 1
        return Sequence(
            request=request,
            tokens=tokens,
            output=Output(
                self._new_stream(params.constraint),
                params.stop,
                params.stop_regex,
                keeps_half=params.constraint is None,
            ),
            seed=secrets.randbits(64) if params.seed is None else params.seed,
            stop_ids=stop_ids,
            arrival=self._num_arrived,
            submitted_ms=submitted_ms,
            tag=self._tag(params.adapter),
            matcher=None if params.constraint is None else self._new_matcher(params.constraint, stop_ids),
        )

    def _new_stream(self, constraint: Constraint | None) -> Callable[[], TextStream]:
        """Makes detokenizers for a request: tokens that its constraint names are text in it."""
        shown = constraint.token_ids if constraint is not None else None
        return partial(self._stream, shown) if shown else self._stream

    def _new_matcher(self, constraint: Constraint, stop_ids: tuple[int, ...]) -> Matcher:
        if self._grammars is None:
            raise Unsupported("this engine has no tokenizer to follow a constraint with")
        return self._grammars.matcher(constraint, stop_ids)

    def _cancel(self, request: EngineRequest) -> None:
        sequence = self._sequences.get(id(request))
        if sequence is not None:
            self._guarded(sequence, self._finish, sequence, "cancelled")

    def _run(self, chunks: list[Chunk]) -> None:
        """Launches a step, if there is anything to compute, and then collects what is in flight.

        The step that was launched stays in flight where nothing that the next one needs is known to the host alone.
        """
        before, self._in_flight = self._in_flight, self._launch(chunks) if chunks else None
        if before is not None:
            self._collect(before)
        if (launched := self._in_flight) is not None and not (self._pipelined and launched.is_free):
            self._in_flight = None
            self._collect(launched)

    def _collect_all(self) -> float:
        """Collects what is in flight; returns how many seconds that took."""
        begun = time.perf_counter()
        self._run([])
        return time.perf_counter() - begun

    def _launch(self, chunks: list[Chunk]) -> InFlight:
        self._num_steps += 1
        num_prefilled = self._scheduler.num_prefilled(chunks)
        step = launch(self._model, self._build_batch, chunks, num_prefilled, self._in_flight)
        if step.error is None:
            self._scheduler.advance_all(chunks)
            for chunk in step.drawing if self._pipelined else ():
                chunk.sequence.num_pending += 1
        return step

    def _collect(self, step: InFlight) -> None:
        """Waits for a step, and does what follows from its logits for each sequence that has not ended meanwhile."""
        try:
            sums = step.sums()
            scores, choices = step.result()
        except Exception as error:
            for chunk in step.chunks:
                if self._is_alive(chunk.sequence):
                    self._fail(chunk.sequence, error, "the model failed")
            return
        self._has_taken(step)
        for chunk, hidden_sum in sums:
            if self._is_alive(chunk.sequence):
                self._guarded(chunk.sequence, self._take_sum, chunk, hidden_sum)
        for sequence, logprobs in scores:
            self._guarded(sequence, self._take_scores, sequence, logprobs)
        late = step.late() if self._pipelined else set()
        for chunk, chosen in choices:
            sequence = chunk.sequence
            if self._pipelined and not self._arrives(sequence, step, late):
                continue
            try:
                if chunk.draft:
                    self._accept_all(chunk, chosen)
                else:
                    self._accept(sequence, chosen[0])
            except Exception as error:
                self._fail(sequence, error, _REQUEST_FAILED)
            if sequence.num_pending and not self._is_alive(sequence):
                self._scheduler.take_back(sequence)

    def _has_taken(self, step: InFlight) -> None:
        """Notes what a step took, now that it is over: a device began it when it was done with the one before."""
        now = time.perf_counter()
        seconds = now - max(step.begun, self._collected_at)
        self._collected_at = now
        self._speculation.has_worked(seconds)
        self._scheduler.has_taken(step.chunks, step.num_prefilled, seconds)
        if self._lookup is not None:
            self._lookup.took(step.chunks, seconds)

    def _arrives(self, sequence: Sequence, step: InFlight, late: set[Sequence]) -> bool:
        """Whether a sequence takes the token that a step chose for it.

        late: whose next row, if it was launched, has to be done again, since it went on from another token.
        """
        if not self._is_alive(sequence) or sequence in step.void:
            return False
        sequence.num_pending -= 1
        if sequence in late and sequence.num_pending and self._in_flight is not None:
            self._in_flight.void.add(sequence)
            self._scheduler.take_back(sequence)
        return True

    def _take_sum(self, chunk: Chunk, hidden_sum: Tensor) -> None:
        """Notes the hidden states of a chunk; with those of the last one the request is done."""
        sequence = chunk.sequence
        sequence.hidden_sum = hidden_sum if sequence.hidden_sum is None else sequence.hidden_sum + hidden_sum
        sequence.num_summed += chunk.num_logits
        if sequence.num_summed < sequence.prompt_len - sequence.first_logits:
            return
        if not bool(sequence.hidden_sum.isfinite().all()):
            raise located(BackendError("the model's hidden states are NaN or infinite"), sequence)
        self._finish(sequence, "stop")

    def _take_scores(self, sequence: Sequence, logprobs: list[TokenLogprob]) -> None:
        """Notes the log-probabilities of the next tokens that were known before."""
        if sequence.is_score:
            sequence.scores += logprobs
            if not sequence.is_prefilling:
                self._finish_score(sequence)
        elif all(self._tell(sequence, logprob) for logprob in logprobs):
            self._emit_new(sequence)

    def _accept_all(self, chunk: Chunk, choices: list[Outcome]) -> None:
        """Adds the token chosen after what is known, and those after a draft as far as it foretold them."""
        sequence, known, accepted = chunk.sequence, chunk.sequence.num_tokens, 0
        self._accept(sequence, choices[0])
        while self._is_alive(sequence):
            foretold = _num_foretold(chunk, known)
            self._scheduler.keep(sequence, foretold - accepted)
            accepted = foretold
            if known + accepted < sequence.num_tokens:
                break
            self._accept(sequence, choices[accepted])
        if self._lookup is not None:
            self._lookup.record(chunk, _num_foretold(chunk, known))

    def _accept(self, sequence: Sequence, choice: Outcome) -> None:
        """Adds the chosen token to a sequence and what its constraint forces then, and ends it if that was its last."""
        if not self._is_alive(sequence):
            return
        if not isinstance(choice, Sample):
            if choice is not None:
                raise located(choice, sequence)
            self._finish(sequence, "stop")
            return
        if sequence.first_ms is None:
            sequence.first_ms = _now_ms()
        token_id, logprob = choice
        self._append(sequence, token_id)
        if token_id in sequence.stop_ids:
            sequence.num_told += 1
            self._finish(sequence, "stop", token_id)
        elif self._tell(sequence, logprob) and (sequence.matcher is not None or sequence.request.wants_deltas):
            self._force(sequence)

    def _force(self, sequence: Sequence) -> None:
        """Adds the tokens that a sequence's constraint leaves no choice about."""
        matcher = sequence.matcher
        if matcher is None:
            self._emit_new(sequence)
            return
        if matcher.is_finished and not sequence.num_generated:
            self._finish(sequence, "stop")
            return
        # Processors see every token: one may forbid what the constraint demands.
        if self._fast_forward and not sequence.params.processors:
            for token_id in matcher.forced()[: sequence.num_left]:
                if token_id in sequence.stop_ids:
                    break
                self._append(sequence, token_id)
                if sequence.params.logprobs is None and not self._tell(sequence, None):
                    return
        self._emit_new(sequence)

    def _append(self, sequence: Sequence, token_id: int) -> None:
        matcher = sequence.matcher
        sequence.append(token_id)
        self._num_generated += 1
        if matcher is not None and token_id not in sequence.stop_ids:
            matcher.consume(token_id)

    def _tell(self, sequence: Sequence, logprob: TokenLogprob | None) -> bool:
        """Gives the output the next token; returns whether the sequence goes on."""
        output, matcher, num_told = sequence.output, sequence.matcher, sequence.num_told
        output.push(sequence.tokens.item(sequence.prompt_len + num_told), logprob)
        sequence.num_told = num_told = num_told + 1
        is_last = matcher is not None and matcher.is_finished and num_told == sequence.num_generated
        if is_last and output.matched is None:
            self._finish(sequence, "stop")
        elif output.matched is not None or num_told == sequence.params.max_tokens:
            self._finish(sequence, "length")
        else:
            return True
        return False

    def _finish_score(self, sequence: Sequence) -> None:
        if any(math.isnan(score.logprob) for score in sequence.scores):
            raise located(BackendError("the model's logits hold NaN"), sequence)
        self._finish(sequence, "stop")

    def _finish(self, sequence: Sequence, reason: FinishReason, matched: int | None = None) -> None:
        """Releases a sequence and sends its last events. A stop string that was found overrides the reason."""
        output = sequence.output
        output.finish()
        if reason == "cancelled":
            self._scheduler.release(sequence)
        else:
            self._scheduler.finish(sequence)
        if self._emit_new(sequence):
            self._speculation.has_served((_now_ms() - sequence.submitted_ms) / 1000)
            self._end(sequence, _done(sequence, "stop" if output.matched is not None else reason, matched))

    def _is_alive(self, sequence: Sequence) -> bool:
        return self._sequences.get(id(sequence.request)) is sequence

    def _guarded(self, sequence: Sequence, action: Callable[_P, None], *args: _P.args, **kwargs: _P.kwargs) -> None:
        """Runs an action of one sequence whose failure must not touch the others."""
        try:
            action(*args, **kwargs)
        except Exception as error:
            self._fail(sequence, error, _REQUEST_FAILED)

    def _fail(self, sequence: Sequence, error: Exception, what: str) -> None:
        self._scheduler.release(sequence)
        self._end(sequence, Failed(_as_ramify(error, what)))

    def _fail_all(self, new_error: Callable[[], RamifyError]) -> None:
        """Takes in what is queued and fails it and everything else."""
        self._inbox.carry_out()
        self._speculation.clear()
        self._in_flight = None
        for sequence in list(self._sequences.values()):
            self._scheduler.release(sequence)
            self._end(sequence, Failed(new_error()))

    def _end(self, sequence: Sequence, event: Event) -> None:
        """Sends a request's last event."""
        if self._sequences.pop(id(sequence.request), None) is not None:
            _call_sink(sequence.request, event)

    def _emit_new(self, sequence: Sequence) -> bool:
        """Streams what is new; a request whose sink raises is dropped. Returns whether it goes on."""
        delta = sequence.output.take() if sequence.request.wants_deltas else None
        if delta is None or _call_sink(sequence.request, delta):
            return True
        self._sequences.pop(id(sequence.request), None)
        self._scheduler.release(sequence)
        return False

    def _check_idle(self) -> None:
        scheduler = self._scheduler
        self._speculation.pause()
        scheduler.check()
        busy = len(scheduler.running) + len(scheduler.waiting) + len(self._sequences)
        assert busy == 0, f"{busy} requests are still running or waiting"


def _num_foretold(chunk: Chunk, known: int) -> int:
    """How many of the tokens after the first `known` of a sequence are those of the chunk's draft."""
    sequence = chunk.sequence
    return common_len(sequence.tokens[known : sequence.num_tokens], np.array(chunk.draft))


def _done(sequence: Sequence, reason: FinishReason, matched: int | None) -> Done:
    output, now = sequence.output, _now_ms()
    queued_until = now if sequence.admitted_ms is None else sequence.admitted_ms
    return Done(
        text=output.text,
        token_ids=output.token_ids,
        finish_reason=reason,
        tail=output.tail,
        matched=matched if output.matched is None else output.matched,
        logprobs=tuple(sequence.scores) if sequence.is_score else output.logprobs,
        prompt_tokens=sequence.prompt_len,
        cached_tokens=sequence.cached,
        generated_tokens=sequence.num_told,
        queue_ms=queued_until - sequence.submitted_ms,
        first_ms=_first_ms(sequence, now),
        wall_ms=now - sequence.submitted_ms,
        embedding=_embedding(sequence) if sequence.is_embedding and reason != "cancelled" else None,
    )


def _first_ms(sequence: Sequence, now: float) -> float | None:
    """Milliseconds from a sequence's submission to its first token; what generates none is computed at its end."""
    if sequence.is_score or sequence.is_embedding:
        return now - sequence.submitted_ms
    return None if sequence.first_ms is None else sequence.first_ms - sequence.submitted_ms


def _embedding(sequence: Sequence) -> NDArray[np.float32]:
    """The mean of a sequence's hidden states that were asked for."""
    assert sequence.hidden_sum is not None, "a request for hidden states ended without any"
    return (sequence.hidden_sum / sequence.num_summed).float().numpy()


def _call_sink(request: EngineRequest, event: Event) -> bool:
    """Hands an event to a request's sink; whatever that raises is logged. Returns whether it took it."""
    try:
        request.sink(event)
    except Exception:
        _log.exception("the sink of request %s raised", request.id)
        return False
    return True


def _tell_nobody(event: Event) -> None:
    """The sink of what nobody asked for."""


def _as_ramify(error: Exception, what: str) -> RamifyError:
    """The error itself if it is one of ramify's, else a BackendError caused by it."""
    if isinstance(error, RamifyError):
        return error
    wrapped = BackendError(f"{what}: {type(error).__name__}: {error}")
    wrapped.__cause__ = error
    return wrapped


def _serve(engine_of: weakref.ref[Engine], inbox: Inbox) -> None:
    """The thread of an engine, which it holds only while there is work."""
    try:
        while not inbox.is_closed:
            engine = engine_of()
            if engine is not None:
                engine.work_off()
            del engine
            inbox.wait()
    finally:
        engine = engine_of()
        if engine is not None:
            engine.end()


@atexit.register
def _close_engines() -> None:
    """Python must not end in the middle of a step: it stops the thread in a place where C++ then aborts."""
    for engine in list(_started):
        engine.close()


_started: weakref.WeakSet[Engine] = weakref.WeakSet()


def _no_memory(sequence: Sequence) -> BackendError:
    num_tokens = sequence.target + sequence.generated_room
    return BackendError(
        f"the device has no memory for the KV of the request's {num_tokens} tokens, though nothing else runs",
        help="give the engine a smaller kv_tokens, lower max_tokens, or end what else uses the device's memory",
    )


def _engine_closed() -> Cancelled:
    return Cancelled("the engine was closed")


def _now_ms() -> float:
    return time.perf_counter() * 1000
