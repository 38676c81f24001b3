"""One run's part of a cassette: what it asks is answered from the recording, or answered anew and written down.

What is played has to be what was recorded: place, prompt and parameters of a generation, name and arguments of a tool
call. The first thing, in the program's order, that is not so ends the run, whatever its handlers do. A partial replay
asks anew what is not there, and what follows from that, because its prompt is another then.
"""

from __future__ import annotations

import threading
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from time import perf_counter
from typing import TYPE_CHECKING, Any

import msgspec

from ...ir.core import Op
from ...ir.errors import Cancelled, RecordingError, ReplayMismatch
from ...runtime.backend import Backend, Handle
from ...runtime.expression import span_of
from ...runtime.generation import Generation
from ...runtime.host import HostOp
from ...runtime.loop import loop
from ...runtime.prompt import Prompt
from ...runtime.request import Delta, Done, Event, Failed
from ...runtime.sharing import is_deterministic
from ...runtime.toolcall import ToolCall
from .asked import PromptText, PromptTexts, request_difference, request_of, short, text_difference, whole_text
from .edit import Anew, Editing, Value
from .events import EndRecord, HostRecord, LMRecord, OrderRecord, Times, ToolRecord, digest, place_text, where_of
from .hosting import HostEvent, Place, host_key, key_of, run_hosted
from .recorder import Recorder
from .recording import LMPlace, RecordedRun, Recording, place_of
from .reuse import Reuse
from .values import Unencodable, Unknown, decode, decode_error, described, encode, encode_error

if TYPE_CHECKING:
    from .cassette import Cassette
    from .edit import Edit

# A program that catches every error and tries again would go on for ever.
_MOST_MISMATCHES = 100
_counting = threading.Lock()
_ANEW = "record again, or replay partially (--partial, partial=True), which runs what is new"


@dataclass(slots=True)
class _Asked:
    """What is known of a request when the program makes it, and once its prompt is complete."""

    id: str
    before: str | None
    reads: tuple[str, ...]
    prompt: PromptText | None = None
    request: dict[str, Any] | None = None


class _Played:
    """An answer that comes from the recording: there is nothing to cancel."""

    def cancel(self) -> None:
        """See Handle."""


_PLAYED = _Played()


class RunTrack:
    """The track of one run (runtime/track.py). backend: what the run asks. program: for what is said.

    cassette: what it is a track of. parent: that of the run whose program began this one. recorder, number: where it is
    written down, as which run. recording, recorded: what it is played from; recorded is None where the recording has no
    such run. is_partial: whether what is missing there may be asked anew. is_same_form: whether both runs are eager or
    both compiled, which ask for the same. missing: why the run cannot be played at all. cancel: ends the run.
    arguments: the run's, as they were when it began (values.told). edit: what one of its events becomes. reuse: how
    much was played.
    """

    def __init__(
        self,
        program: str,
        backend: Backend,
        cassette: Cassette,
        parent: RunTrack | None = None,
        *,
        recorder: Recorder | None = None,
        number: int = 0,
        recording: Recording | None = None,
        recorded: RecordedRun | None = None,
        is_partial: bool = False,
        is_same_form: bool = True,
        missing: RecordingError | None = None,
        arguments: Sequence[tuple[Any, bool]] = (),
        edit: Edit | None = None,
    ) -> None:
        self.backend = backend
        self.cassette = cassette
        self.number = number
        self.recorded = recorded
        self.missing = missing
        self.arguments = arguments
        self.reuse = None if recording is None else Reuse()
        self.cancel: Callable[[BaseException], object] = lambda error: None
        self._parent = parent
        self._program = program
        self._recorder = recorder
        self._recording = recording
        self._is_strict = recording is not None and not is_partial
        self._is_same_form = is_same_form
        self._lock = threading.Lock()
        self._num_asked = 0
        self._last: str | None = None
        self._reads: list[str] = []
        self._texts = PromptTexts()
        self._has_read: set[str] = set()
        self._ids: dict[Generation | ToolCall, str] = {}
        self._anew: set[Generation] = set()
        self._new_answers: set[Generation] = set()
        self._was_read: set[Generation] = set()
        self._has_read_new = False
        self._asked: dict[Generation, _Asked] = {}
        self._deltas: dict[Generation, list[Delta]] = defaultdict(list)
        self._num_calls: Counter[Hashable] = Counter()
        self._mismatches: dict[object, RecordingError] = {}
        self._unanswered: RecordingError | None = None
        self._used: set[str] = set()
        self._answers: dict[LMPlace, list[LMRecord]] = defaultdict(list)
        self._calls: dict[Hashable, list[ToolRecord]] = defaultdict(list)
        for answer in recorded.answers if recorded is not None else ():
            self._answers[place_of(answer)].append(answer)
        for call in recorded.calls if recorded is not None else ():
            self._calls[call.name, key_of(call.arguments)].append(call)
        for calls in self._calls.values():
            calls.sort(key=lambda call: call.number)
        self._orders = (
            {(each.branch, each.number, each.items): list(each.order) for each in recorded.orders}
            if recorded is not None
            else {}
        )
        self._hosts = {host_key(host): host for host in recorded.hosts} if recorded is not None else {}
        self._editing = Editing(edit, recorded) if edit is not None and recorded is not None else None

    # What the runtime tells.

    def ask(self, samples: Sequence[Generation]) -> None:
        """See Track."""
        with self._lock:
            before, reads = self._since()
            for generation in samples:
                asked = self._asked[generation] = _Asked(self._new_id(), before, reads)
                self._ids[generation] = asked.id

    def read(self, generation: Generation) -> None:
        """See Track."""
        with self._lock:
            for sample in generation.samples:
                id = self._ids.get(sample)
                if id is not None and id not in self._has_read:
                    self._has_read.add(id)
                    self._reads.append(id)
            self._was_read.add(generation)
            is_new = not self._new_answers.isdisjoint(generation.samples)
        if is_new:
            self.read_new()

    def send(self, generation: Generation) -> Handle:
        """See Track."""
        asked = self._asked[generation]
        asked.prompt, asked.request = self._texts.of(generation.prompt), request_of(generation)
        if self._recording is None:
            return generation.send()
        self._count("generations")
        if self._is_edited(generation, asked.prompt, asked.request):
            return self._send_edited(generation)
        answer = self._answer(generation, asked.prompt, asked.request)
        if answer is None and not self._is_strict:
            return self._send_anew(generation)
        if answer is None:
            loop().soon(generation, Failed(self._wrong(generation, asked.prompt, asked.request)))
        else:
            self._used.add(answer.id)
            loop().soon(self._play, generation, answer)
        return _PLAYED

    def heard(self, generation: Generation, event: Event) -> None:
        """See Track."""
        if isinstance(event, Delta):
            self._deltas[generation].append(event)
            return
        if generation in self._anew and isinstance(event, Done):
            self._count("prompt_tokens", event.prompt_tokens)
            self._count("cached_tokens", event.cached_tokens)
        asked, deltas = self._asked.pop(generation, None), tuple(self._deltas.pop(generation, ()))
        recorder = self._recorder
        if recorder is None or asked is None or asked.prompt is None or asked.request is None:
            return
        if isinstance(event, Failed) and isinstance(event.error, RecordingError):
            return
        prompt, after = asked.prompt, self._ids.get(asked.prompt.after) if asked.prompt.after is not None else None
        place = generation.prompt
        record = LMRecord(
            asked.id,
            self.number,
            generation.expression.kind,
            generation.expression.name,
            place.branch,
            place.num_gens,
            generation.sample,
            prompt.tail if (after is None) == (prompt.after is None) else whole_text(place),
            prompt.hash,
            asked.request,
            where_of(span_of(generation.where)),
            after,
            before=asked.before,
            reads=asked.reads,
            deltas=deltas,
            done=event if isinstance(event, Done) else None,
            error=None if isinstance(event, Done) else encode_error(event.error),
            times=None if generation.is_played else self.times(generation.sent_at),
        )
        if place.message is not None and place.message.tools:
            recorder.declared(self.backend, [tool.schema for tool in place.message.tools])
        recorder.add_lm(record, self._program)

    def call(self, call: ToolCall) -> bool:
        """See Track."""
        arguments = described(call.arguments)
        key = call.name, key_of(arguments)
        with self._lock:
            before, reads = self._since()
            number = self._num_calls[key]
            self._num_calls[key] += 1
            id = self._ids[call] = self._new_id()
        if self._recorder is not None:
            where = where_of(span_of(call.where))
            record = ToolRecord(id, self.number, call.name, arguments, number, where, before, reads)
            call.pending.add_callback(lambda _: self._write_call(record, call))
        if self._recording is None:
            return False
        self._count("tool_calls")
        known = self._calls.get(key, ())
        is_played = self._play_call(call, known[number] if number < len(known) else None, arguments)
        if not is_played:
            self._count("rerun_tool_calls")
            self.read_new()
        return is_played

    def _play_call(self, call: ToolCall, found: ToolRecord | None, arguments: Any) -> bool:
        """Give a call its recorded outcome; False where it has to be made."""
        if self._editing is not None and self._editing.takes_call(found):
            self.read_new()
            if isinstance(self._editing.by, Value):
                call.play(decode(self._editing.by.data), None)
            return isinstance(self._editing.by, Value)
        if found is None:
            if not self._is_strict:
                return False
            call.play(None, self._wrong_call(call, arguments))
            return True
        self._used.add(found.id)
        try:
            value, error = self._outcome(found, call)
        except _Lost as lost:
            if not self._is_strict:
                return False
            value, error = None, self._mismatch(call, RecordingError(str(lost), span=span_of(call.where), help=_ANEW))
        call.play(value, error, found.ms)
        return True

    async def arranged(
        self, start: Prompt, texts: Sequence[str], arrange: Callable[[], Awaitable[list[int]]]
    ) -> list[int]:
        """See Track. A run that is played, and was recorded without an order, has its items as written."""
        order = self.recorded_order(start, texts)
        if order is None:
            order = list(range(len(texts))) if self._is_strict else await arrange()
        if self._recorder is not None and order != list(range(len(texts))):
            self._recorder.add(OrderRecord(self.number, *_group(start, texts), tuple(order)))
        return order

    def recorded_order(self, start: Prompt, texts: Sequence[str]) -> list[int] | None:
        """See Track."""
        return self._orders.get(_group(start, texts)) if self._orders else None

    def hosted(self, op: Op, host: HostOp, branch: tuple[int, ...]) -> Callable[[Sequence[Any]], Any]:
        """See Track."""
        return partial(run_hosted, self, op, host, branch)

    def host_event(self, place: Place) -> HostEvent:
        """Host code at this place begins. Thread-safe."""
        with self._lock:
            before, reads = self._since()
            number = self._num_calls[place]
            self._num_calls[place] += 1
            return HostEvent(self._new_id(), number, before, reads, self._hosts.get((place, number)))

    @property
    def has_read_new(self) -> bool:
        """Whether the program, or one that it is a part of, has looked at what was not recorded. Thread-safe.

        What its own code gives then may be something else than what was recorded, by ways that nobody sees.
        """
        return self._has_read_new or (self._parent is not None and self._parent.has_read_new)

    def times(self, begun_at: float | None, ended_at: float | None = None) -> Times | None:
        """When something began and ended (None: now), as it is written down; None where nothing is."""
        if self._recorder is None or begun_at is None:
            return None
        return self._recorder.ms(begun_at), self._recorder.ms(ended_at or perf_counter())

    def write_host(self, record: HostRecord) -> None:
        """Write down what host code gave."""
        if self._recorder is not None:
            self._recorder.add(record)

    # What is asked of it later.

    def event_of(self, asked: Generation | ToolCall) -> str | None:
        """The id of the event that was recorded for it; None where there is none."""
        return self._ids.get(asked) if self._recorder is not None else None

    # What the end of the run is told.

    def begin(self) -> None:
        """Raises RecordingError where the run cannot be played at all."""
        if self.missing is not None:
            raise self._mismatch(self, self.missing)

    def end(self, error: BaseException | None, leaves: Iterable[object]) -> BaseException | None:
        """The run has ended, with an error or not; gives the error that it ends with. leaves: what it asked for."""
        found = self._verdict(error, leaves)
        if isinstance(found, RecordingError) and self._is_strict and self._parent is not None:
            self._parent._mismatch(self, found)  # whose handlers cannot hide it either
        self.cassette.ended()
        if self._recorder is not None:
            error_told = None if found is None else encode_error(found)
            self._recorder.add(EndRecord(self.number, error_told, self._recorder.ms(perf_counter())))
            try:
                self._recorder.check()
            except RecordingError as raised:
                return found or raised
        return found

    def _verdict(self, error: BaseException | None, leaves: Iterable[object]) -> BaseException | None:
        if self._mismatches:
            first = next((self._mismatches[leaf] for leaf in leaves if leaf in self._mismatches), None)
            return first or next(iter(self._mismatches.values()))
        if self._editing is not None:
            return self._editing.missed(error)
        if error is not None or not self._is_strict or self.recorded is None:
            return error
        if self.recorded.end is not None and self.recorded.end.error is not None:
            text = decode_error(self.recorded.end.error)
            return self._unanswered or ReplayMismatch(
                f"{self._program} ended well, and the run that was recorded failed with {type(text).__name__}: "
                f"{getattr(text, 'message', text)}",
                help=_ANEW,
            )
        return self._left_over() if self._is_same_form and self.recorded.ended_well else None

    def _left_over(self) -> RecordingError | None:
        assert self.recorded is not None
        events: list[LMRecord | ToolRecord] = [*self.recorded.answers, *self.recorded.calls]
        for record in events:
            if record.id not in self._used:
                return ReplayMismatch(
                    f"{self._program} has ended, and the run that was recorded went on with {_named(record)} at "
                    f"{place_text(record.where)}",
                    help=_ANEW,
                )
        return None

    # Generations.

    def _answer(self, generation: Generation, prompt: PromptText, request: dict[str, Any]) -> LMRecord | None:
        """What was recorded for a request; None where there is no such thing."""
        place = generation.prompt
        key = (generation.expression.kind, place.branch, place.num_gens, generation.sample)
        equal = [each for each in self._answers.get(key, ()) if self._is_equal(each, generation, prompt, request)]
        if equal:
            return next((each for each in equal if each.id not in self._used), equal[0])
        if self._is_strict or self.recorded is None:
            return None
        draws = generation.params is not None and not is_deterministic(generation.params)
        return next(
            (
                each
                for each in self.recorded.answers
                if each.kind == key[0]
                and not (draws and each.id in self._used)
                and self._is_equal(each, generation, prompt, request)
            ),
            None,
        )

    def _is_equal(self, answer: LMRecord, generation: Generation, prompt: PromptText, request: dict[str, Any]) -> bool:
        if answer.hash != prompt.hash or key_of(answer.request) != key_of(request):
            return False
        if self._is_strict:
            return answer.name == generation.expression.name
        return answer.done is not None and answer.done.finish_reason != "cancelled"  # what failed is tried again

    def _is_edited(self, generation: Generation, prompt: PromptText, request: dict[str, Any]) -> bool:
        place = generation.prompt
        at = generation.expression.kind, place.branch, place.num_gens, generation.sample
        event = None if self._editing is None else self._editing.comes_to(at)
        if self._editing is None or event is None:
            return False
        if self._editing.takes(event, prompt.hash, request):
            return True
        self._editing.differs(self._how(event, generation, prompt, request))
        return False

    def _send_edited(self, generation: Generation) -> Handle:
        assert self._editing is not None
        by = self._editing.by
        self._answered_anew(generation)
        if isinstance(by, Done):
            loop().soon(self._tell, generation, (), by)
            return _PLAYED
        assert isinstance(by, Anew)
        # What is written down is what the program asked, so that this answer is played where it asks that again.
        generation.params = by.changed(generation.params)
        return self._send_anew(generation)

    def _send_anew(self, generation: Generation) -> Handle:
        self._count("rerun_generations")
        self._anew.add(generation)
        self._answered_anew(generation)
        return generation.send()

    def _answered_anew(self, generation: Generation) -> None:
        """A request has another answer than was recorded, or was not recorded."""
        with self._lock:
            self._new_answers.add(generation)
            was_read = generation.samples[0] in self._was_read
        if was_read:
            self.read_new()
        if self._parent is not None:
            self._parent.read_new()  # its code has the value of this run

    def read_new(self) -> None:
        """Something was new to the program's code, which in a run that is all played nothing is."""
        if self._is_strict:
            return
        self._has_read_new = True
        if self._parent is not None:
            self._parent.read_new()

    def _play(self, generation: Generation, answer: LMRecord) -> None:
        generation.is_played = True
        if answer.done is None:
            generation(Failed(decode_error(answer.error)))
        elif answer.done.finish_reason == "cancelled":
            error = Cancelled("the run that was recorded ended before this was answered")
            generation(Failed(error))
        else:
            self._tell(generation, answer.deltas, answer.done)

    def _tell(self, generation: Generation, deltas: Sequence[Delta], done: Done) -> None:
        if not deltas and done.text:
            deltas = (Delta(done.text, done.token_ids, done.logprobs),)
        for delta in deltas if generation.wants_deltas and generation.expression.kind == "gen" else ():
            generation(delta)
        generation(done)

    def _wrong(self, generation: Generation, prompt: PromptText, request: dict[str, Any]) -> BaseException:
        """What a request fails with that is not in the recording."""
        assert self._recording is not None
        place, expression = generation.prompt, generation.expression
        what = f"this {expression.kind}" if expression.name is None else f"the {expression.kind} {expression.name!r}"
        known = self._answers.get((expression.kind, place.branch, place.num_gens, generation.sample))
        if not known:
            if self.recorded is not None and not self.recorded.ended_well:
                return self._beyond(what)
            told = f"{what} is not in the recording: its run asks for no {expression.kind} here"
        else:
            then = next((each for each in known if each.id not in self._used), known[0])
            how = self._how(then, generation, prompt, request)
            told = f"{what} is not what was recorded at {place_text(then.where)}: {how}"
        return self._mismatch(generation, ReplayMismatch(told, span=span_of(generation.where), help=_ANEW))

    def _beyond(self, what: str) -> RecordingError:
        """What is asked for where the recorded run had failed already: that it fails again will have to show."""
        assert self.recorded is not None
        if self.recorded.end is None:
            error = RecordingError(f"{what} is not in the recording, which stops before the end of the run", help=_ANEW)
            return self._mismatch(self, error)
        if self._unanswered is None:
            told = f"{what} is not in the recording, whose run had failed before"
            self._unanswered = RecordingError(told, help=_ANEW)
        return self._unanswered

    def _how(self, then: LMRecord, generation: Generation, prompt: PromptText, request: dict[str, Any]) -> str:
        if (told := request_difference(then.request, request)) is not None:
            return told
        if then.hash == prompt.hash:
            return f"its name was {then.name!r}"
        assert self._recording is not None
        recorded = self._recording.prompt(then)
        now = whole_text(generation.prompt)
        return "it declares other tools" if recorded == now else text_difference(recorded, now)

    # Tools.

    def _write_call(self, record: ToolRecord, call: ToolCall) -> None:
        error, value, lost, data = call.pending.error, None, None, None
        assert self._recorder is not None
        if isinstance(error, RecordingError):
            return
        if isinstance(error, Cancelled):
            lost = "the run ended before it did"
        elif error is not None:
            data = encode_error(error)
        else:
            try:
                value = encode(call.pending.result())
            except Unencodable as why:
                lost = f"its value is {why}, which no file can hold"
                self._recorder.note(f"{place_text(record.where)}: the tool {record.name} cannot be replayed: {lost}")
        times = None if call.began_at is None else self.times(call.began_at, call.began_at + call.ms / 1000)
        self._recorder.add(msgspec.structs.replace(record, ms=call.ms, value=value, error=data, lost=lost, times=times))

    def _outcome(self, found: ToolRecord, call: ToolCall) -> tuple[Any, BaseException | None]:
        """A recorded call's value or error. Raises _Lost."""
        if found.lost is not None:
            if self.recorded is not None and not self.recorded.ended_well:
                return None, Cancelled("the run that was recorded ended before this call")
            raise _Lost(f"the call of {call.name} cannot be replayed: {found.lost}")
        if found.error is not None:
            return None, decode_error(found.error)
        try:
            return decode(found.value), None
        except Unknown as error:
            raise _Lost(f"the call of {call.name} cannot be replayed: {error}") from None

    def _wrong_call(self, call: ToolCall, arguments: Any) -> BaseException:
        assert self.recorded is not None
        if not self.recorded.ended_well:
            return self._beyond(f"the call of {call.name}")
        left = (each for each in self.recorded.calls if each.name == call.name and each.id not in self._used)
        told = f"this call of {call.name} is not in the recording"
        if (then := next(left, None)) is not None:
            were = f"{short(then.arguments)} at {place_text(then.where)}"
            told = f"{told}: its arguments are {short(arguments)}, and were {were}"
        return self._mismatch(call, ReplayMismatch(told, span=span_of(call.where), help=_ANEW))

    # Both.

    def _count(self, name: str, number: int = 1) -> None:
        """Add to what is known of how much was played, also of the runs that this one is a part of."""
        track: RunTrack | None = self
        with _counting:
            while track is not None and track.reuse is not None:
                setattr(track.reuse, name, getattr(track.reuse, name) + number)
                track = track._parent

    def _mismatch(self, of: Any, error: RecordingError) -> RecordingError:
        """Remember it: the first in the program's order is what the run ends with."""
        with self._lock:
            self._mismatches[of] = error
            is_enough = len(self._mismatches) == _MOST_MISMATCHES
        if is_enough:
            self.cancel(error)
        return error

    def _since(self) -> tuple[str | None, tuple[str, ...]]:
        """What was asked for last, and what was read since."""
        before, reads = self._last, tuple(self._reads)
        self._reads.clear()
        return before, reads

    def _new_id(self) -> str:
        self._num_asked += 1
        self._last = f"{self.number}.{self._num_asked}"
        return self._last


class _Lost(Exception):
    """A recorded call has no outcome."""


def _group(start: Prompt, texts: Sequence[str]) -> tuple[tuple[int, ...], int, str]:
    """Where an unordered group stands, with a hash of its items."""
    return start.branch, start.num_gens, digest([key_of(list(texts))])


def _named(record: LMRecord | ToolRecord) -> str:
    if isinstance(record, ToolRecord):
        return f"a call of {record.name}"
    return f"a {record.kind}" if record.name is None else f"the {record.kind} {record.name!r}"
