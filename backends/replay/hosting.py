"""Host code that may do more than compute: what it gave is recorded, and in a replay it gives the same.

The code runs in a replay too, since it may change what the program holds. What it gives then is made what it was: a
number that was drawn, a time, what a file held. That goes for code that is what it was, with all of the user's own that
it calls, and whose inputs are data and equal to those of then, as long as nothing before was new to the program's code:
so nothing new is ever hidden by what was recorded.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from ...ir.core import Op
from ...ir.errors import Cancelled, RecordingError
from ...runtime.host import Escaped, HostOp, Unbound
from .events import HostRecord, Where, digest, where_of
from .values import Unencodable, Unknown, decode, decode_error, encode, encode_error

if TYPE_CHECKING:
    from .track import RunTrack

_SHOWN = 60
_UNBOUND = {"$": "unbound"}
Place = tuple[Where | None, tuple[int, ...], str]
"""Where host code stands: its line, the branch of its strand, and a hash of its inputs."""


class HostEvent(NamedTuple):
    """Host code that begins: its number among equal ones, what was asked for before it and read since.

    recorded: what it gave when the run was recorded, if it is there.
    """

    id: str
    number: int
    before: str | None
    reads: tuple[str, ...]
    recorded: HostRecord | None


def key_of(data: Any) -> bytes:
    """Data as something that equal data share."""
    return msgspec.msgpack.encode(data, order="deterministic")


def host_key(record: HostRecord) -> tuple[Place, int]:
    """Where recorded host code stands."""
    return (record.where, record.branch, record.inputs), record.number


@dataclass(slots=True)
class _Outcome:
    """What host code gave: its outputs, or the error that it raised."""

    outputs: list[Any]
    error: BaseException | None = None


def run_hosted(track: RunTrack, op: Op, host: HostOp, branch: tuple[int, ...], values: Sequence[Any]) -> Any:
    """Run host code on its operands, on a host thread. Raises what it raises, or raised when it was recorded."""
    inputs = host.inputs(values)
    try:
        hashed = digest([key_of([_encoded(each) for each in inputs])])
    except (Unencodable, UnicodeError):
        return host(values)
    hashed = digest([hashed.encode(), track.cassette.identify(op.attrs["code"], host.owner).encode()])
    where, lists = where_of(op.span), {n: list(value) for n, value in enumerate(inputs) if type(value) is list}
    event = track.host_event((where, branch, hashed))
    is_one = op.name == "py.expr"
    begun_at = perf_counter()
    outcome = _run(host, values, is_one=is_one)
    times = track.times(begun_at)
    if event.recorded is None:
        track.read_new()
    elif not track.has_read_new:
        _play(event.recorded, outcome, host, values)
    if outcome.error is not None or outcome.outputs or lists:
        code = " ".join(op.attrs["code"].split())[:_SHOWN]
        record = HostRecord(
            event.id, track.number, code, branch, hashed, event.number, where, event.before, event.reads, times=times
        )
        track.write_host(_filled(record, outcome, {n: inputs[n] for n, old in lists.items() if inputs[n] != old}))
    if outcome.error is not None:
        raise outcome.error
    return outcome.outputs[0] if is_one else outcome.outputs


def _run(host: HostOp, values: Sequence[Any], *, is_one: bool) -> _Outcome:
    try:
        given = host(values)
    except (RecordingError, Cancelled, Escaped):
        raise  # of the run, not of the code
    except Exception as error:
        return _Outcome([], error)
    return _Outcome([given] if is_one else list(given))


def _play(recorded: HostRecord, outcome: _Outcome, host: HostOp, values: Sequence[Any]) -> None:
    """Make an outcome, and what the code has changed, what was recorded."""
    inputs = host.inputs(values)
    for n, data in recorded.lists.items():
        _put(inputs[n], data)
    if recorded.error is not None:
        then = decode_error(recorded.error)
        if type(outcome.error) is not type(then) or str(outcome.error) != str(then):
            outcome.error = then
        return
    if outcome.error is not None:
        if recorded.lost:
            return
        outcome.outputs = [None] * len(recorded.outputs)
        outcome.error = None
    if len(outcome.outputs) == len(recorded.outputs):
        for n, data in enumerate(recorded.outputs):
            if data == _UNBOUND:
                outcome.outputs[n] = Unbound(host.outputs[n])
            elif n not in recorded.lost:
                outcome.outputs[n] = _put(outcome.outputs[n], data)
        host.replace(values, outcome.outputs)


def _encoded(value: Any) -> Any:
    """A value, or a variable that has none, as data. Raises Unencodable."""
    return _UNBOUND if type(value) is Unbound else encode(value)


def _put(now: Any, data: Any) -> Any:
    """The value that was recorded: the one of now where it is equal, or can be made so."""
    try:
        if _encoded(now) == data:
            return now
    except Unencodable:
        pass
    try:
        then = decode(data)
    except Unknown:
        return now
    if type(now) is type(then) and isinstance(now, list | dict | set):
        # In place: others may hold it.
        now.clear()
        if isinstance(now, list):
            now.extend(then)
        else:
            now.update(then)
        return now
    return then


def _filled(record: HostRecord, outcome: _Outcome, changed: dict[int, Any]) -> HostRecord:
    """A record with what came of the code. changed: the lists that it has changed."""
    outputs, lost, lists = list[Any](), dict[int, str](), dict[int, Any]()
    for n, value in enumerate(outcome.outputs):
        try:
            outputs.append(_encoded(value))
        except Unencodable as why:
            outputs.append(None)
            lost[n] = f"{record.code!r} gives {why}"
    for n, value in changed.items():
        try:
            lists[n] = encode(value)
        except Unencodable as why:
            lost[-1 - n] = f"{record.code!r} changes a list, which then holds {why}"
    error = None if outcome.error is None else encode_error(outcome.error)
    return msgspec.structs.replace(record, outputs=tuple(outputs), lost=lost, lists=lists, error=error)
