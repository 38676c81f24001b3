"""`:record` and `:replay`: the session's runs go to a file, or come from one."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from ...ir.errors import UsageError
from ..cassettes import begin_use, end_use
from ..identity import code_identity
from ..session import Session
from ..tape import Tape
from .command import Command
from .files import complete_path

_OFF = "off"


def _record(session: Session, rest: str) -> None:
    if rest in ("", _OFF):
        _end_or_tell(session, "recorded to", rest)
        return
    from ...backends.replay.cassette import Cassette

    _check_free(session)
    path = Path(rest).expanduser()
    _begin(session, Tape(path, "recorded to", Cassette(code_identity, record=path)))


def _replay(session: Session, rest: str) -> None:
    words = rest.split()
    is_partial = "--partial" in words
    rest = " ".join(word for word in words if word != "--partial")
    if rest in ("", _OFF):
        if is_partial:
            raise UsageError(":replay takes the file of a recording", help=REPLAY.form)
        _end_or_tell(session, "played from", rest)
        return
    from ...backends.replay.cassette import Cassette
    from ...backends.replay.recording import Recording, summary

    _check_free(session)
    recording = Recording(Path(rest).expanduser())
    for line in summary(recording) or ["no run"]:
        session.print(line)
    # What is played is kept as well, so that it can be edited.
    cassette = Cassette(code_identity, replay=recording, record=True, is_partial=is_partial, is_endless=True)
    assert recording.path is not None
    _begin(session, Tape(recording.path, "played from", cassette))


def _begin(session: Session, tape: Tape) -> None:
    begin_use(tape.cassette)
    session.tape = tape
    session.print(tape.told)


def _check_free(session: Session) -> None:
    if session.tape is not None:
        raise UsageError(session.tape.told, help=f"end that first: {session.tape.ends}")


def _end_or_tell(session: Session, how: str, rest: str) -> None:
    tape = session.tape
    if tape is None or tape.how != how:
        raise UsageError(f"no runs are {how} a file", help=(RECORD if how == "recorded to" else REPLAY).form)
    session.print(tape.told if not rest else end_tape(session))


def end_tape(session: Session) -> str:
    """End what runs are recorded to or played from; says what it was. Raises RecordingError."""
    tape, session.tape = session.tape, None
    assert tape is not None
    end_use(tape.cassette)
    return "\n".join([f"runs are no longer {tape.how} {tape.path}", *tape.cassette.close()])


def _complete(session: Session, words: Sequence[str]) -> Iterable[str]:
    return [*([_OFF] if len(words) == 1 and session.tape is not None else []), *complete_path(session, words)]


RECORD = Command(":record", "FILE | off", "record the runs from now on to a new file", _record, _complete)
REPLAY = Command(":replay", "FILE [--partial] | off", "play the runs from now on from a file", _replay, _complete)
