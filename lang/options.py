"""How a program is run: on which backend, eagerly or compiled, with which sampling defaults."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..ir.errors import UsageError, nearest
from ..runtime.backend import Backend
from ..runtime.expression import SAMPLING_NAMES
from ..runtime.generation import StreamEvent
from ..runtime.request import SamplingParams
from ..runtime.weight_format import FORMATS

if TYPE_CHECKING:
    from ..backends.replay.cassette import Cassette

RUN_OPTIONS = ("backend", "eager", "stream", "timeout", "disable", "record", "replay", "partial")
_default: str | Path | Backend | None = None


@dataclass(frozen=True, slots=True)
class Options:
    """Options of a run. backend None is the default one; timeout in seconds; sampling is what gens do not say.

    disable: passes of the compiler to leave out. record, replay, partial: see docs/replay.md. cassette: what records
    and plays the run, in place of those three; no option of users'.
    stream is called with each StreamEvent on the thread that called `run`, and may raise to end the run.
    """

    backend: str | Path | Backend | None = None
    eager: bool = False
    stream: Callable[[StreamEvent], None] | None = None
    timeout: float | None = None
    disable: tuple[str, ...] = ()
    record: str | PathLike[str] | bool | None = None
    replay: str | PathLike[str] | None = None
    partial: bool = False
    cassette: Cassette | None = None
    sampling: SamplingParams = SamplingParams()  # noqa: RUF009 (frozen)

    def updated(self, given: Mapping[str, Any]) -> Options:
        """These options with others on top. Raises UsageError for names that are none, RequestError for bad values."""
        sampling = {name: given[name] for name in given if name in SAMPLING_NAMES}
        for name in ("stop", "stop_regex", "stop_token_ids", "processors"):
            if name in sampling:
                value = sampling[name]
                sampling[name] = (value,) if isinstance(value, str) else tuple(value)
        options = {name: given[name] for name in given if name in RUN_OPTIONS}
        if options.get("record") is False:
            options["record"] = None
        if "disable" in options:
            options["disable"] = _pass_names(options["disable"])
        if unknown := sorted(given.keys() - sampling.keys() - options.keys()):
            known = [*RUN_OPTIONS, *sorted(SAMPLING_NAMES)]
            raise UsageError(f"there is no option {unknown[0]!r}", help=nearest(unknown[0], known, "the options are"))
        _check(options)
        params = replace(self.sampling, **sampling)
        params.check()
        return replace(self, **options, sampling=params)

    def open_backend(self) -> Backend:
        """The backend to run on; what only holds one (an Engine) has it as `endpoint`."""
        given = default_backend() if self.backend is None else self.backend
        given = getattr(given, "endpoint", given)
        if hasattr(given, "generate"):
            return given  # type: ignore[return-value]
        from ..backends import open_backend

        return open_backend(given)


def _pass_names(disable: object) -> tuple[str, ...]:
    """The passes to leave out, in the pipeline's order. Raises UsageError for a name that is none."""
    from ..compiler.pipeline import PIPELINE, check_names

    if not isinstance(disable, str | Collection):
        raise UsageError(f"disable takes the name of a pass or a list of names, not {type(disable).__name__}")
    names = {disable} if isinstance(disable, str) else set(disable)
    check_names(names)
    return tuple(each.name for each in PIPELINE if each.name in names)


def _check(options: dict[str, Any]) -> None:
    """Raises UsageError for a run option that cannot work; found only while running, it could not be told where."""
    timeout, stream = options.get("timeout"), options.get("stream")
    if timeout is not None and not (isinstance(timeout, int | float) and timeout > 0):
        raise UsageError(f"timeout is a number of seconds above 0, or None for no limit; got {timeout!r}")
    if stream is not None and not callable(stream):
        raise UsageError(
            f"stream is a function that is called with each StreamEvent, not {type(stream).__name__}: {stream!r}",
            help="to see a run as it goes: stream=lambda event: print(event.text, end='')",
        )


def approximation(options: Options) -> str:
    """What to say of a model whose weights are rounded; empty for others. Nothing is loaded."""
    given = default_backend() if options.backend is None else options.backend
    given = getattr(given, "endpoint", given)
    weights = str(given).rpartition(":")[2] if isinstance(given, str | Path) else getattr(given, "weights", None)
    return f"{weights} weights: results are approximate" if weights in FORMATS else ""


def set_default_backend(backend: str | Path | Backend | None) -> None:
    """What programs run on from now on when nothing else is said; None is the environment's choice again."""
    global _default
    _default = backend


def default_backend() -> str | Path | Backend:
    """What programs run on when nothing else is said: RAMIFY_MODEL if set, else the embedded model."""
    return _default if _default is not None else os.environ.get("RAMIFY_MODEL") or "tiny"
