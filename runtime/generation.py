"""One generation, choice or score of a run: from the prompt that asks for it to its last event."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from time import perf_counter
from typing import TYPE_CHECKING, Any, Literal, cast

from ..ir.errors import RamifyError
from ..ir.span import Span
from .backend import Handle, Scorer, Selector
from .choices import NamedMethod, choose, needs_unconditional
from .closing import end_cut
from .expression import Call, Gen, Score, Select, Where, span_of
from .hostpool import host_pool
from .meta import meta_info
from .pending import Pending, PendingObject, PendingText, gather
from .request import Delta, Done, Event, Failed, SamplingParams, Scored, TokenLogprob
from .sharing import Sharing, is_deterministic
from .uses import Use
from .values import read_value
from .warming import take_back

if TYPE_CHECKING:
    from .context import Context
    from .prompt import Prompt


@dataclass(frozen=True, slots=True)
class StreamEvent:
    """Something became part of a prompt, told while the run goes on.

    branch: the path of fork numbers, () for the first state. kind "text" is text of the program, "role" a mark (name
    is "begin" or "end", text the role), "gen" a newly generated piece of variable `name`, "select" a choice. written:
    what the prompt's text grew by, which for a role is its mark. sample: which of a gen's samples it is of; only the
    first is part of the prompt.
    """

    branch: tuple[int, ...]
    name: str | None
    text: str
    kind: Literal["text", "role", "gen", "select"]
    written: str = ""
    sample: int = 0


@dataclass(frozen=True, slots=True)
class GenRecord:
    """One generation, choice or score of a run, for the trace. Times in milliseconds; error is set if it failed.

    sample: the number among a gen's samples. logprobs: of the generated tokens, where they were asked for. scores: of
    the texts of a choice or score. shared: an equal request was answered, and nothing computed for this one.
    """

    kind: Literal["gen", "select", "score"]
    name: str | None
    branch: tuple[int, ...]
    sample: int
    span: Span | None
    text: str
    finish_reason: str
    prompt_tokens: int
    cached_tokens: int
    generated_tokens: int
    queue_ms: float
    wall_ms: float
    logprobs: tuple[TokenLogprob, ...]
    scores: tuple[Scored, ...]
    shared: bool
    error: BaseException | None

    @classmethod
    def of(
        cls,
        kind: Literal["gen", "select", "score"],
        name: str | None,
        branch: tuple[int, ...],
        sample: int,
        span: Span | None,
        done: Done | None,
        error: BaseException | None,
    ) -> GenRecord:
        """The record of a request that was answered so, or without an answer was given up."""
        done = done or Done("", (), "cancelled")
        return cls(
            kind,
            name,
            branch,
            sample,
            span,
            done.text,
            done.finish_reason,
            done.prompt_tokens,
            done.cached_tokens,
            done.generated_tokens,
            done.queue_ms,
            done.wall_ms,
            done.logprobs,
            done.scores,
            done.shared,
            error,
        )


class Generation:
    """A request to the backend and its sink. `pending` is done when the text is there; `done` holds it then.

    heard: the pieces that have come so far, in runs that are streamed. sample: the number among a gen's samples.
    samples: all of them, where there are several; the first speaks for all, and the prompt goes on with it. sent_at,
    ended_at: when it was sent and when its last event came, by `time.perf_counter`. is_played: whether a recording has
    answered it.
    """

    __slots__ = (
        "_handle", "_started", "_value", "_value_error", "_values", "context", "done", "ended_at", "expression",
        "heard", "is_played", "params", "pending", "prompt", "sample", "samples", "sent_at", "where",
    )  # fmt: skip

    def __init__(
        self,
        context: Context,
        prompt: Prompt,
        expression: Call,
        params: SamplingParams | None,
        where: Where,
        sample: int = 0,
    ) -> None:
        self.context = context
        self.prompt = prompt
        self.expression = expression
        self.params = params
        self.where = where
        self.sample = sample
        self.samples: tuple[Generation, ...] = (self,)
        self.pending: Pending[Done] = Pending()
        self.done: Done | None = None
        self.heard: list[Delta] = []
        self.sent_at: float | None = None
        self.ended_at: float | None = None
        self.is_played = False
        self._handle: Handle | None = None
        self._started = False
        self._value: Any = None
        self._values: Pending[Any] | None = None
        self._value_error: Exception | None = None

    @property
    def is_of_calls(self) -> bool:
        """Whether its text is calls of tools in a form of the backend's own."""
        return self.params is not None and self.params.constraint is not None and self.params.constraint.kind == "calls"

    @property
    def wants_deltas(self) -> bool:
        """Whether somebody looks at the text while it grows."""
        return self.context.streams

    @property
    def sharing(self) -> Sharing | None:
        """Where its answer may be found, if that of an equal request will do."""
        if not self.expression.hints.share or (self.params is not None and not is_deterministic(self.params)):
            return None
        return self.context.sharing

    @property
    def use(self) -> Use:
        """What it means to the run: a score adds nothing that a next request could follow."""
        expression, branch = self.expression, self.prompt.branch
        hints = expression.hints
        if isinstance(expression, Score):
            return Use(self.context.owner, None, None, hints.plan)
        return Use(self.context.owner, (branch, self.sample), hints.keep and not self.sample, hints.plan)

    @property
    def error(self) -> BaseException | None:
        """Why it failed, or why its text does not stand for a value of the type asked for."""
        return self.pending.error or self._value_error

    def parent_arrived(self, blocker: Pending[Any]) -> None:
        """Start now that the prompt is complete; if something in it failed, fail with the same error."""
        if blocker.error is not None:
            self.pending.set_error(blocker.error)
        else:
            self.start()

    def start(self) -> None:
        """Send the request. On the loop thread."""
        context = self.context
        if context.cancelled is not None:
            self.pending.set_error(context.cancelled)
            return
        self._started = True
        self.sent_at = perf_counter()
        context.in_flight += 1
        if context.told_ahead:
            take_back(context, self.prompt.branch)
        if context.streams:
            self._tell_what_waited()
        try:
            track = context.track
            self._handle = self.send() if track is None else track.send(self)
        except Exception as error:
            self(Failed(error))
        if self.pending.done and self._started and self._handle is not None:
            self._handle.cancel()  # the run was cancelled while the request was being sent

    def send(self) -> Handle:
        """Ask the backend."""
        backend, expression = self.context.backend, self.expression
        if isinstance(expression, Score):
            return cast(Scorer, backend).score(self.prompt, expression.texts, self)
        if isinstance(expression, Select):
            if "score" not in backend.features:
                return cast(Selector, backend).select(self.prompt, expression.choices, self)
            unconditional = needs_unconditional(expression.method)
            return cast(Scorer, backend).score(self.prompt, expression.choices, self, unconditional=unconditional)
        assert self.params is not None
        return backend.generate(self.prompt, self.params, self)

    def __call__(self, event: Event) -> None:
        """Take an event of the request. On the loop thread."""
        if self.context.track is not None and self._started:
            self.context.track.heard(self, event)
        if isinstance(event, Delta):
            if self.context.streams and not self.pending.done:
                self.heard.append(event)
                self._tell(event.text)
        elif self._started:
            self._started = False
            self.ended_at = perf_counter()
            self._handle = None
            if isinstance(event, Done):
                self._complete(event)
            else:
                self._fail(event.error)
            self.context.released()

    def answered(self, done: Done, value: Any) -> Generation:
        """The same request, as if it had been answered so; nobody is asked."""
        made = Generation(self.context, self.prompt, self.expression, self.params, self.where, self.sample)
        made.done, made._value = done, value
        made.pending.set_result(done)
        return made

    def cancel(self, error: BaseException) -> None:
        """Give up the result; the backend is asked to stop and still sends its last event."""
        handle = self._handle
        self.pending.set_error(error)  # first: some backends send the last event at once
        if handle is not None:
            handle.cancel()

    def _tell_what_waited(self) -> None:
        """Stream the text that was held back until it was known that the model goes on."""
        if not isinstance(self.expression, Score):
            text = self.prompt.writing().waiting("generated" if isinstance(self.expression, Gen) else "text")
            if text:
                self.context.emit(StreamEvent(self.prompt.branch, None, "", "text", text))

    def _tell(self, text: str) -> None:
        expression = self.expression
        if text and not isinstance(expression, Score):
            written = "" if self.sample else text
            event = StreamEvent(self.prompt.branch, expression.name, text, expression.kind, written, self.sample)
            self.context.emit(event)

    def _complete(self, done: Done) -> None:
        self.context.count(done)
        if self.pending.done:
            return
        expression = self.expression
        if isinstance(expression, Select) and done.scores:
            self._choose(done, expression)
        elif done.finish_reason == "length" and self.params is not None and self.params.constraint is not None:
            ended = host_pool().submit(partial(end_cut, done, self.params.constraint, close=self.params.close))
            ended.add_callback(self._take_ended)
        else:
            self._arrive(done)

    def _choose(self, done: Done, expression: Select) -> None:
        """Apply the choice method: on a host thread, if it is the user's."""
        method = expression.method
        if isinstance(method, NamedMethod):
            self._arrive(_chosen(done, choose(method, done.scores)))
            return
        choice = partial(self.context.run_host, choose, method, done.scores)
        host_pool().submit(choice).add_callback(partial(self._take_choice, done))

    def _take_choice(self, done: Done, index: Pending[int]) -> None:
        if index.error is not None:
            self._fail(index.error)
        else:
            self._arrive(_chosen(done, index.result()))

    def _take_ended(self, ended: Pending[Done]) -> None:
        if self.pending.done:
            return
        if ended.error is not None:
            self._fail(ended.error)
            return
        done = ended.result()
        if self.context.streams and done.closing:
            self.heard.append(Delta(done.closing))
            self._tell(done.closing)
        self._arrive(done)

    def _arrive(self, done: Done) -> None:
        expression = self.expression
        self.done = done
        if isinstance(expression, Gen):
            self._read(done, expression)
        elif isinstance(expression, Select):
            self._value = done.text
            if self.context.streams:
                self._tell(done.text)
        else:
            totals = [scored.total for scored in done.scores]
            self._value = totals[0] if expression.single else totals
        self.pending.set_result(done)

    def _read(self, done: Done, expression: Gen) -> None:
        try:
            self._value = read_value(expression, done, self.params)
        except Exception as error:  # a class of the user's may raise what it likes while it is decoded
            self._value_error = error
            self._locate(error)

    def _fail(self, error: BaseException) -> None:
        self._locate(error)
        self.pending.set_error(error)

    def _locate(self, error: BaseException) -> None:
        span = span_of(self.where)
        if span is None:
            return
        if isinstance(error, RamifyError):
            error.span = error.span or span
        else:
            error.add_note(f"in the generation at {span}")

    @property
    def is_whole(self) -> bool:
        """Whether all samples have arrived."""
        return all(sample.done is not None for sample in self.samples)

    def late(self) -> Pending[Any] | None:
        """What the value waits for and the text after it does not: a score, or the samples after the first."""
        samples = self.samples if isinstance(self.expression, Score) else self.samples[1:]
        return next((sample.pending for sample in samples if not sample.pending.done), None)

    def value(self) -> Any:
        """The variable's value (a list of several samples' values), or a Pending of it (also when it has failed)."""
        if self.context.track is not None:
            self.context.track.read(self)
        if len(self.samples) == 1:
            return self._own_value()
        # One that waits, though all is there: whoever is told first of the last sample reads before it is.
        is_late = self._values is not None and not self._values.done and self.is_whole
        if self._values is None or is_late:
            self._values = gather([sample._own_value() for sample in self.samples]).then(_same, PendingObject())
        return self._values.result() if self._values.done and self._values.error is None else self._values

    def _own_value(self) -> Any:
        if self.done is not None and self._value_error is None:
            return self._value
        return self.pending.then(self._arrived_value, self._new_pending())

    def _new_pending(self) -> Pending[Any] | None:
        """A Pending that says of the value what is known before it arrives."""
        expression = self.expression
        if isinstance(expression, Score):
            return None if expression.single else PendingObject()
        if isinstance(expression, Gen) and expression.schema is not None:
            return PendingObject()
        is_text = isinstance(expression, Select) or expression.dtype in (None, str)
        return PendingText() if is_text else None

    def _arrived_value(self, _: Done) -> Any:
        if self._value_error is not None:
            raise self._value_error
        return self._value

    def meta_info(self) -> Pending[Any]:
        """What the backend told about it (a list for several samples), once it is done."""
        arrived = gather([sample.pending for sample in self.samples])
        if len(self.samples) == 1:
            return arrived.then(lambda _: self.own_meta_info())
        return arrived.then(lambda _: [sample.own_meta_info() for sample in self.samples])

    def own_meta_info(self) -> dict[str, Any]:
        """What the backend told about this one; it must be done."""
        assert self.done is not None
        return meta_info(self.expression, self.done)

    def record(self) -> GenRecord:
        """Its line in the trace."""
        asked, span = self.expression, span_of(self.where)
        return GenRecord.of(asked.kind, asked.name, self.prompt.branch, self.sample, span, self.done, self.error)


def _same(value: Any) -> Any:
    return value


def _chosen(done: Done, index: int) -> Done:
    return replace(done, text=done.scores[index].text)
