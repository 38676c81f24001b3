"""One execution of a program: what it runs on, what it has asked for, what it has used, and how it ends.

Both ways of running a program, eagerly on a host thread and compiled on the loop, share this. Everything but `request`
happens on the loop thread.
"""

from __future__ import annotations

import asyncio
import contextvars
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, replace
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from ..ir.errors import Cancelled, RamifyError
from ..ir.span import Span
from .backend import Backend, Handle
from .call_format import CallFormat
from .expression import Call, Gen, Spot, Where, sampling, span_of, with_calls_in
from .features import require
from .generation import Generation, GenRecord, StreamEvent
from .loop import loop, post
from .pending import Pending, Settled
from .prompt import Prompt
from .request import Done, SamplingParams
from .routine import Routine
from .seeds import gen_seed, sample_seed
from .sharing import Sharing
from .strand import Strand
from .tool_schema import CallSchema
from .toolcall import ToolCall, ToolRecord
from .track import Track
from .uses import Owner
from .values import typed
from .warming import take_back

if TYPE_CHECKING:
    from .stepping import Stepper

_RELEASE_SECONDS = 5.0
# Host code is noted that takes at least so long, and so many times at most: a loop may run it millions of times.
_LEAST_HOST_SECONDS = 1e-4
_MOST_HOST_TIMES = 20_000
T = TypeVar("T")
_branch_numbers = threading.Lock()
# Gens that were looked at before, with their parameters: for an expression, defaults, features and the form of its
# calls, by their ids.
_Served = tuple[Call, SamplingParams | None]
_served: dict[tuple[int, int, int, int, bool], tuple[tuple[Any, ...], _Served]] = {}
_MOST_SERVED = 4096
_entering = threading.Lock()
running: contextvars.ContextVar[Context | None] = contextvars.ContextVar("ramify_running", default=None)
"""The run whose host code this is; None outside of programs."""
_place_in_trace: contextvars.ContextVar[list[ToolCall] | None] = contextvars.ContextVar("ramify_place", default=None)


@dataclass(slots=True)
class Usage:
    """What a run has used. wall_ms runs from its start to its end; calls counts generations, choices and scores.

    shared_calls: those of them that an equal request has answered, for which nothing was computed. cost: of its
    requests that were answered, where the backend knows its prices (`prices=` of OpenAI and Anthropic); else None.
    """

    prompt_tokens: int = 0
    cached_tokens: int = 0
    generated_tokens: int = 0
    calls: int = 0
    shared_calls: int = 0
    wall_ms: float = 0.0
    cost: float | None = None

    def __repr__(self) -> str:
        told = (f"{each.name}={getattr(self, each.name)!r}" for each in fields(self) if each.name != "cost")
        cost = () if self.cost is None else (f"cost={self.cost!r}",)
        return f"Usage({', '.join((*told, *cost))})"

    def add(self, other: Usage) -> None:
        """Count what another run has used, but for its time."""
        for name in ("prompt_tokens", "cached_tokens", "generated_tokens", "calls", "shared_calls"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        if other.cost is not None:
            self.cost = (self.cost or 0.0) + other.cost


@dataclass(frozen=True, slots=True)
class HostTime:
    """When host code ran, by `time.perf_counter`, and where it stands."""

    begun_at: float
    ended_at: float
    span: Span | None


class Context:
    """An execution on `backend`, with `defaults` for what its gens do not say.

    stream: called with each StreamEvent, on the loop thread or a host thread; must not block. cancelled: why it was
    cancelled, if it was. strand: its own line of execution. is_compiled: whether it is not run eagerly.
    unread: whether the error that it ended with is of a generation that the program had not looked at.
    here: the place in the trace, a list in the trace's list, for what is asked for now. apart: routines that go on
    beside the run's own, and end with it. sharing: the answers to this run's requests, or to those of all rows of a
    batch. told_ahead: what the backend was told may come next, by branch (runtime/warming.py). owner: the run as
    engines know it. run_guarded: in a prediction, what runs host code or refuses to. track: what records the run, or
    plays one that was recorded; None for most. overruns: what servers have written beyond what they were asked for
    (backends/overrun.py). num_groups: how many unordered groups are open eagerly whose items are
    told apart. began_at: when it began, by `time.perf_counter`. host_times: when host code ran on threads and tasks.
    stepper: who goes through the run step by step; None for most.
    """

    __slots__ = (
        "_branches", "_is_entered", "_released", "_told", "_trace", "apart", "backend", "began_at", "cancelled",
        "defaults", "here", "host_context", "host_times", "in_flight", "is_compiled", "num_groups", "on_cancel",
        "overruns", "owner", "run_guarded", "sharing", "stepper", "strand", "stream", "streams", "told_ahead", "track",
        "unread", "usage",
    )  # fmt: skip

    def __init__(
        self,
        backend: Backend,
        defaults: SamplingParams | None = None,
        stream: Callable[[StreamEvent], None] | None = None,
        sharing: Sharing | None = None,
    ) -> None:
        self.backend = backend
        self.sharing = sharing or Sharing()
        self.owner = Owner(batch=self.sharing)
        self.defaults = defaults or _DEFAULTS
        self.stream = stream
        self.streams = stream is not None
        self.track: Track | None = None
        self.stepper: Stepper | None = None
        self.cancelled: BaseException | None = None
        self.usage = Usage()
        self._trace: list[Any] = []
        self.here: list[Any] = self._trace
        self.apart: set[Routine[Any]] = set()
        self.strand = Strand(self)
        self.is_compiled = False
        self.in_flight = 0
        self.num_groups = 0
        self.overruns: list[Any] = []
        self.told_ahead: dict[tuple[int, ...], list[Handle]] = {}
        self.unread = False
        self.on_cancel: Callable[[BaseException], None] | None = None
        self.run_guarded: Callable[[Callable[..., Any], tuple[Any, ...]], Pending[Any]] | None = None
        self.host_context = contextvars.copy_context()
        self._is_entered = False
        self.host_context.run(running.set, self)
        self._branches: dict[tuple[int, ...], int] | None = None
        self._told: list[BaseException] | None = None
        self._released: Pending[None] | None = None
        self.began_at = time.perf_counter()
        self.host_times: list[HostTime] = []

    def root(self) -> Prompt:
        """A new empty prompt of this run."""
        return Prompt(self, None, "root")

    def request(self, prompt: Prompt, expression: Call, where: Where) -> Prompt:
        """The prompt after a generation, choice or score, which starts as soon as the prompt before it is complete.

        Thread-safe. Raises RequestError for sampling parameters out of range, Unsupported for what the backend lacks.
        """
        expression, params = self._as_served(expression, prompt, where)
        if params is not None:
            params = self._seeded(params, prompt, expression)
        samples = self._samples(prompt, expression, params, where)
        self.here.extend(samples)
        if self.track is not None:
            self.track.ask(samples)
        first = samples[0]
        before = prompt.arrived()
        added = None if expression.kind == "score" else first.pending  # a score adds nothing to wait for
        node = Prompt(self, prompt, expression.kind, first, expression.name, added)
        for sample in samples:
            if before is None:
                post(sample.start)
            else:
                before.add_callback(partial(post, sample.parent_arrived))
        return node

    def _samples(
        self, prompt: Prompt, expression: Call, params: SamplingParams | None, where: Where
    ) -> tuple[Generation, ...]:
        """One generation for each sample that is asked for; a seed is the first one's, the others' come from it."""
        if params is None or params.n == 1:
            return (Generation(self, prompt, expression, params, where),)
        samples = tuple(
            Generation(self, prompt, expression, _of_sample(params, number), where, number)
            for number in range(params.n)
        )
        for sample in samples:
            sample.samples = samples
        return samples

    def _as_served(self, expression: Call, prompt: Prompt, where: Where) -> _Served:
        """What is asked of the backend, with the parameters of a gen, which it can serve (None for choices, scores)."""
        features = self.backend.features
        form = prompt.call_form if isinstance(expression, Gen) and isinstance(expression.schema, CallSchema) else None
        follows_text = form is not None and prompt.follows_text
        key = (id(expression), id(self.defaults), id(features), id(form), follows_text)
        known = _served.get(key)
        if known is not None:
            return known[1]
        asked = expression
        if form is not None:
            assert isinstance(expression, Gen)
            asked = self._with_calls(form, expression, where, follows_text=follows_text)
        params = self._new_params(asked, where) if isinstance(asked, Gen) else None
        require(self.backend, asked, params, where)
        if not isinstance(expression.where, Spot):  # one that a compiled op makes once for all runs
            if len(_served) >= _MOST_SERVED:
                _served.clear()
            kept = (expression, self.defaults, features, form)  # so that the ids stay theirs
            _served[key] = kept, (asked, params)
        return asked, params

    def _with_calls(self, form: CallFormat, expression: Gen, where: Where, *, follows_text: bool) -> Gen:
        try:
            return with_calls_in(form, expression, follows_text=follows_text)
        except RamifyError as error:
            error.span = span_of(where)
            raise

    def _new_params(self, expression: Gen, where: Where) -> SamplingParams:
        try:
            params = sampling(self.defaults, expression.params)
            return typed(params, expression.dtype) if "dtype" in self.backend.features else params
        except RamifyError as error:
            error.span = span_of(where)
            raise

    def _seeded(self, params: SamplingParams, prompt: Prompt, expression: Call) -> SamplingParams:
        """The parameters with the seed that the run's own gives to this place, if the gen draws and has none."""
        seed = self.defaults.seed
        if seed is None or params.temperature == 0:  # greedy ones can still share an answer
            return params
        if isinstance(expression, Gen) and any(name == "seed" for name, _ in expression.params):
            return params
        return replace(params, seed=gen_seed(seed, prompt.branch, prompt.num_gens))

    def number_branches(self, path: tuple[int, ...], count: int) -> int:
        """The first of `count` fork numbers that are new below a path."""
        with _branch_numbers:
            if self._branches is None:
                self._branches = {}
            first = self._branches.get(path, 0)
            self._branches[path] = first + count
            return first

    def add_tool(self, call: ToolCall) -> None:
        """A tool call of this run is about to start. Thread-safe. Raises why the run was cancelled, if it was."""
        if self.cancelled is not None:
            raise self.cancelled
        place = _place_in_trace.get()
        if place is None:
            self.place_in_trace().append(call)
        else:
            place.append(call)

    def place_in_trace(self) -> list[Any]:
        """A place in the trace for what is asked for here or later."""
        place: list[Any] = []
        self.here.append(place)
        return place

    @property
    def calls(self) -> list[Generation]:
        """The generations, choices and scores that were asked for so far, in program order."""
        return [each for each in self.leaves() if isinstance(each, Generation)]

    def leaves(self) -> Iterator[Generation | ToolCall]:
        """All that was asked for so far, tool calls too, in program order."""
        return _leaves(self._trace)

    def replace(self, old: Generation, new: Generation) -> None:
        """Put one request in another's place in the trace."""
        todo = [self._trace]
        while todo:
            place = todo.pop()
            place[:] = [new if each is old else each for each in place]
            todo += [each for each in place if isinstance(each, list)]

    def run_apart(self, place: list[ToolCall], function: Callable[..., Any], *args: Any) -> Any:
        """Call host code that changes nothing while other host code may run; its tool calls belong to `place`."""
        context = self.host_context.copy()
        context.run(_place_in_trace.set, place)
        return context.run(function, *args)

    def run_host(self, function: Callable[..., Any], *args: Any) -> Any:
        """Call host code with the context variables of whoever started the run, and what the run has set of them."""
        with _entering:
            is_free, self._is_entered = not self._is_entered, True
        # What was abandoned may be in there still.
        context = self.host_context if is_free else self.host_context.copy()
        try:
            return context.run(function, *args)
        finally:
            if is_free:
                self._is_entered = False

    def time_host(self, done: Pending[T], span: Span | None) -> Pending[T]:
        """Note how long host code takes that was handed to a thread or task just now; gives `done`."""
        begun_at = time.perf_counter()
        done.add_callback(lambda _: self._has_hosted(begun_at, span))
        return done

    def _has_hosted(self, begun_at: float, span: Span | None) -> None:
        now = time.perf_counter()
        if now - begun_at >= _LEAST_HOST_SECONDS and len(self.host_times) < _MOST_HOST_TIMES:
            self.host_times.append(HostTime(begun_at, now, span))

    def emit(self, event: StreamEvent) -> None:
        """Hand an event to the stream."""
        if self.stream is not None:
            self.stream(event)

    def tell(self, node: Prompt) -> None:
        """Stream a node's text or mark, once all that stands before it has been."""
        blocker = node.arrived()
        if blocker is None:
            self.emit(_event(node))
        else:
            blocker.add_callback(lambda done: None if done.error else self.emit(_event(node)))

    def told(self, error: BaseException) -> None:
        """The program has seen this error (it was raised at a read), so what it does now is its own decision."""
        if self._told is None:
            self._told = []
        self._told.append(error)

    def count(self, done: Done) -> None:
        """Add a finished request to the usage."""
        usage = self.usage
        usage.calls += 1
        usage.shared_calls += done.shared
        usage.prompt_tokens += done.prompt_tokens
        usage.cached_tokens += done.cached_tokens
        usage.generated_tokens += done.generated_tokens
        prices = getattr(self.backend, "prices", None)
        if prices is not None:
            usage.cost = (usage.cost or 0.0) + prices.cost(done)

    def released(self) -> None:
        """A request has sent its last event."""
        self.in_flight -= 1
        if self.in_flight == 0 and self._released is not None:
            self._released.set_result(None)

    def cancel(self, error: BaseException | None = None) -> None:
        """End the run: pending values fail with `error`, requests are cancelled. On the loop thread."""
        if self.cancelled is not None:
            return
        self.cancelled = error or Cancelled("the run was cancelled")
        self._abandon(self.cancelled)
        if self.on_cancel is not None:
            self.on_cancel(self.cancelled)

    def _abandon(self, error: BaseException) -> None:
        for each in list(_leaves(self._trace)):
            if isinstance(each, ToolCall):
                each.give_up(error)
            elif not each.pending.done:
                each.cancel(error)
        for part in list(self.apart):
            part.cancel(error)

    async def conclude(self, error: BaseException | None) -> BaseException | None:
        """End the run after its body, which raised `error` or returned; gives the error that the run ends with.

        That is the one an eager run would have met first: of a value that was read, then the body's own, then that of
        a generation nobody has read, in program order. Outstanding requests are awaited, or cancelled on an error.
        """
        if self.cancelled is None and not isinstance(error, asyncio.CancelledError):
            error = await self.strand.read_error() or error
        if error is None:
            error = await self._call_error()
            self.unread = error is not None and self.cancelled is None
        if error is not None:
            self.cancelled = self.cancelled or Cancelled("the run ended with an error", help=str(error))
            self._abandon(self.cancelled)
            await self._release()
        self.usage.wall_ms = (time.perf_counter() - self.began_at) * 1000
        self.owner.end()
        for branch in list(self.told_ahead):
            take_back(self, branch)
        return error

    async def _call_error(self) -> BaseException | None:
        for generation in self.calls:
            await Settled(generation.pending)
            error = generation.error
            if error is not None and not self._was_told(generation):
                return error
        return self.cancelled

    def _was_told(self, generation: Generation) -> bool:
        """Whether the program has seen the error; of several samples' errors it sees one."""
        errors = [sample.error for sample in generation.samples]
        return any(error is told for error in errors for told in self._told or ())

    async def _release(self) -> None:
        """Wait until the backend has let go of every request, but not forever."""
        if self.in_flight:
            self._released = Pending()
            loop().later(_RELEASE_SECONDS, self._released.set_result, None)
            await self._released

    def trace(self) -> list[GenRecord | ToolRecord]:
        """A record of each generation, choice, score and tool call, in program order."""
        return [each.record() for each in _leaves(self._trace)]


_DEFAULTS = SamplingParams()


def _leaves(place: list[Any]) -> Iterator[Generation | ToolCall]:
    """What stands at a place in the trace, and in the places in it."""
    for each in place:
        if isinstance(each, list):
            yield from _leaves(each)
        else:
            yield each


def _of_sample(params: SamplingParams, number: int) -> SamplingParams:
    seed = None if params.seed is None else sample_seed(params.seed, number)
    return replace(params, n=1, seed=seed)


def _event(node: Prompt) -> StreamEvent:
    assert node.parent is not None
    own, generated, _ = node.write(node.parent.writing())
    written = own + generated
    if node.kind in ("gen", "select"):
        return StreamEvent(node.branch, node.name, node.value.done.text, node.kind, written)
    if node.kind == "role":
        return StreamEvent(node.branch, "begin" if node.open else "end", node.value.role, "role", written)
    text = node.value if isinstance(node.value, str) else node.value.result()
    return StreamEvent(node.branch, None, text, "text", written)
