"""`rf.record` and `rf.replay`: everything that runs inside is recorded to a file, or played from one."""

from __future__ import annotations

import contextlib
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ..ir.errors import RecordingWarning
from ..runtime.context import running
from .identity import code_identity

if TYPE_CHECKING:
    from ..backends.replay.cassette import Cassette
    from .options import Options

_here: ContextVar[Cassette | None] = ContextVar("ramify_cassette", default=None)
# Those that are in use, also for threads that were started in a `with` and have no context variables of it.
_open: list[Cassette] = []


def in_use(given: Cassette | None = None) -> Cassette | None:
    """What records or plays a run that begins now: what it was given itself, else what does the run that begins it,
    else that of the `with` around.
    """
    if given is not None:
        return given
    above = running.get()
    if above is not None and above.track is not None:
        return above.track.cassette  # type: ignore[no-any-return]
    return _here.get() or (_open[-1] if _open else None)


def plays(given: Cassette | None = None) -> bool:
    """Whether a run that begins now is played from a recording."""
    cassette = in_use(given)
    return cassette is not None and cassette.recording is not None


@contextmanager
def opened(options: Options) -> Iterator[Cassette | None]:
    """The cassette that a run's own options ask for; None for none, or for one of its own in memory (`in_memory`)."""
    has_file = options.replay is not None or options.partial or options.record not in (None, True)
    if options.cassette is not None or not has_file:
        yield options.cassette
        return
    from ..backends.replay.cassette import Cassette

    record: Any = options.record
    with _closing(
        Cassette(code_identity, record=record, replay=options.replay, is_partial=options.partial)
    ) as cassette:
        yield cassette


def in_memory() -> Cassette:
    """One that keeps what is recorded as long as its run is kept."""
    from ..backends.replay.cassette import Cassette

    return Cassette(code_identity, record=True)


@contextmanager
def record(path: str | PathLike[str]) -> Iterator[Cassette]:
    """Records what runs inside to a new file: `with rf.record("runs.rec"): ...`. Raises RecordingError if it exists.

    What could not be recorded is a RecordingWarning at the end.
    """
    from ..backends.replay.cassette import Cassette

    with _closing(Cassette(code_identity, record=path)) as cassette, used(cassette):
        yield cassette


@contextmanager
def replay(
    path: str | PathLike[str],
    *,
    partial: bool = False,
    once: bool = False,
    record: str | PathLike[str] | Literal[True] | None = None,
) -> Iterator[Cassette]:
    """Plays what runs inside from a recording, without a model or tools: `with rf.replay("runs.rec"): ...`.

    partial: what is not in the recording is asked anew. once: a file that is not there is recorded first; it appears
    when the block has ended without an error. record: where what runs inside is recorded to, played or not;
    True: in memory, so that it can be edited.
    Raises RecordingError for a file that cannot be played; runs that differ from it end with a ReplayMismatch.
    """
    from ..backends.replay.cassette import Cassette

    path = Path(path)
    if once and not path.exists():
        with recorded_as(path) as cassette:
            yield cassette
        return
    with _closing(Cassette(code_identity, record=record, replay=path, is_partial=partial)) as cassette, used(cassette):
        yield cassette


@contextmanager
def recorded_as(path: Path) -> Iterator[Cassette]:
    """Records to a file that has its name only once it is whole, and replaces what was there."""
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    part.unlink(missing_ok=True)
    try:
        with record(part) as cassette:
            yield cassette
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


@contextmanager
def _closing(cassette: Cassette) -> Iterator[Cassette]:
    try:
        yield cassette
    except BaseException:
        with contextlib.suppress(Exception):
            cassette.close()
        raise
    for note in cassette.close():
        warnings.warn(note, RecordingWarning, stacklevel=4)


@contextmanager
def used(cassette: Cassette) -> Iterator[None]:
    """Everything that runs inside is recorded to it, or played from it."""
    token = _here.set(cassette)
    begin_use(cassette)
    try:
        yield
    finally:
        end_use(cassette)
        _here.reset(token)


def begin_use(cassette: Cassette) -> None:
    """Runs that begin from now on, outside of a `with`, are recorded to it, or played from it."""
    _open.append(cassette)


def end_use(cassette: Cassette) -> None:
    """They no longer are."""
    _open.remove(cassette)
