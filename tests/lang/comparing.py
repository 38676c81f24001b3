"""What the tests of invariant I1 share: running a program eagerly or compiled, and what is compared of a run."""

from __future__ import annotations

import itertools
import math
import re
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FunctionType
from typing import Any

import ramify as rf
from ramify.backends.scripted import Reply, ScriptedBackend, hash_reply
from ramify.ir.errors import OutputError
from ramify.lang.arguments import Signature
from ramify.lang.execution import Execution
from ramify.lang.options import Options
from ramify.lang.run import Run
from ramify.lang.state import ForkGroup
from ramify.runtime.backend import Backend
from ramify.runtime.features import OWN
from ramify.runtime.interpreter import Interpreter
from ramify.runtime.loop import loop
from ramify.runtime.pending import Pending
from ramify.runtime.prompt import Prompt
from ramify.runtime.request import SamplingParams

TIMEOUT = 20.0


class Linked:
    """A module ready to run: what an execution needs of a compiled program."""

    def __init__(self, interpreter: Interpreter, is_async: bool = False) -> None:
        self.interpreter = interpreter
        self.is_async = is_async


def run_once(
    function: FunctionType,
    compiled: Linked | None,
    arguments: dict[str, Any],
    backend: Backend,
    sampling: SamplingParams | None = None,
) -> Run:
    """Run a function as a program: eagerly, or as the compiled module."""
    bound = Signature(function).bind((), arguments)
    options = Options(backend=backend, sampling=sampling or SamplingParams())
    execution = Execution(function, compiled, bound, options)  # type: ignore[arg-type]
    if not execution.is_async and compiled is None:
        return execution.run_here()
    outcome: Pending[Run] = Pending()
    loop().soon(lambda: execution.start().then(lambda run: run, outcome))
    return outcome.wait(TIMEOUT)


def comparable(value: Any) -> Any:
    """A value with the states in it replaced by their texts, so that two runs can be compared."""
    if isinstance(value, rf.State):
        return ("state", _text(value))
    if isinstance(value, ForkGroup):
        return ("group", [comparable(state) for state in value])
    if isinstance(value, dict):
        return {comparable(key): comparable(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(comparable(item) for item in value)
    if isinstance(value, float):
        return Near(value)
    if isinstance(value, str):
        return _without_addresses(value)
    return value if isinstance(value, int | set | None) else type(value).__name__


@dataclass(frozen=True, slots=True)
class Near:
    """A number that may differ by rounding: a log-probability depends a little on what else is in the batch."""

    value: float

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Near) and math.isclose(self.value, other.value, rel_tol=1e-4, abs_tol=1e-4)


def _without_addresses(text: str) -> str:
    """A text without the addresses of the objects in it."""
    return re.sub(r" at 0x[0-9a-f]+", "", text)


def _text(state: rf.State) -> str:
    """A state's text, or the type of the error that kept it from arriving."""
    try:
        return _without_addresses(state.text())
    except Exception as error:
        return f"<{type(error).__name__}>"


def outcome(run: Run, is_own: Callable[[str], bool]) -> dict[str, Any]:
    """Everything of a run that must be the same eagerly and compiled. is_own: whether a file is the user's."""
    error = run.error
    return {
        "value": comparable(run.value),
        "text": comparable(run.text),
        "vars": comparable(run.vars),
        "error": type(error),
        "message": comparable(getattr(error, "message", None) or str(error)),
        "line": place_of(error, is_own) if error is not None else None,
    }


def place_of(error: BaseException, is_own: Callable[[str], bool]) -> tuple[str, int] | None:
    """The user's line that an error names: that of the generation, in the traceback, by its span, or in a note."""
    if isinstance(error, OutputError) and error.span is not None:
        return Path(error.span.file).name, error.span.line
    notes = getattr(error, "__notes__", ())
    if found := _noted(notes, "in the generation at ", is_own):
        return found
    frames = [f for f in traceback.extract_tb(error.__traceback__) if is_own(f.filename) and f.lineno is not None]
    if frames:
        return Path(frames[-1].filename).name, frames[-1].lineno or 0
    if isinstance(error, rf.RamifyError) and error.span is not None:
        return Path(error.span.file).name, error.span.line
    return _noted(notes, "in program ", is_own)


def _noted(notes: Any, beginning: str, is_own: Callable[[str], bool]) -> tuple[str, int] | None:
    for note in notes:
        found = re.search(r"(?:at|,) (\S+):(\d+)", note)
        if note.startswith(beginning) and found and is_own(found[1]):
            return Path(found[1]).name, int(found[2])
    return None


class Waves(ScriptedBackend):
    """Answers when so many requests wait, so that only programs that go on at once ever end.

    sizes: how many there must be each time; one number for any time.
    """

    def __init__(self, sizes: int | Sequence[int], reply: Reply = hash_reply) -> None:
        super().__init__(reply)
        self._sizes = itertools.repeat(sizes) if isinstance(sizes, int) else iter(sizes)
        self._size = next(self._sizes)
        self.waiting: list[Any] = []

    def _run(self, *request: Any) -> None:
        self.waiting.append(request)
        if len(self.waiting) == self._size:
            waiting, self.waiting = self.waiting, []
            self._size = next(self._sizes, 0)
            for each in waiting:
                super()._run(*each)


class Hearing(ScriptedBackend):
    """A scripted backend that is told what may come next. told: the texts, and whether they are open."""

    def __init__(self, reply: Reply = hash_reply, delay: float = 0.0) -> None:
        super().__init__(reply, delay=delay, features=OWN | {"prefill"})
        self.told: list[tuple[str, bool]] = []
        self.num_taken_back = 0
        self.num_brief = 0

    def prefill(self, prompt: Prompt, *, is_open: bool, is_brief: bool) -> Hearing:
        """See Prefiller."""
        self.num_brief += is_brief
        self.told.append(("".join(prompt.segments()), is_open))
        return self

    def cancel(self) -> None:
        """See Handle."""
        self.num_taken_back += 1
