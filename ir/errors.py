"""Every error that ramify raises on purpose, in one tree.

    RamifyError
    ├── CompileError            the front end cannot compile the user's function (points at the line)
    ├── IRError
    │   ├── VerifyError         a module breaks the IR's rules (names the op, and the pass that made it)
    │   ├── ParseError          textual IR that does not parse (line and column)
    │   ├── DecodeError         binary IR that is damaged or of another version
    │   └── UntrustedCode       loading a module would run its host code, and nobody said `trust=True`
    ├── ModelError              a model directory that cannot be loaded (names the file, tensor or key)
    ├── CacheError              a saved KV cache that cannot be written, or is damaged or of another model
    ├── RequestError            a request that no backend could serve as asked
    │   ├── ArgumentError       an argument of the wrong type, found before anything runs; also a TypeError
    │   ├── ContextOverflow     prompt and max_tokens do not fit the model's context
    │   └── Unsupported         this backend cannot do what was asked
    ├── BackendError            the backend failed while it served a request
    │   └── ServerError         a server answered with an error, wrongly or not at all (its HTTP status)
    ├── OutputError             a generated text is not the value that was asked for; also a ValueError
    ├── ToolError               a tool call failed (runtime/toolcall.py); also a value that programs and models see
    ├── Cancelled               the run was cancelled
    ├── RecordingError          a recording that is damaged, of another version, or does not hold what is asked of it
    │   └── ReplayMismatch      a run is not the one that was recorded (names the first op that differs)
    ├── RecordedError           what is left of an error that was written down (see its `kind`)
    └── UsageError              the command line, the REPL or an API was called wrongly

Exceptions raised by the user's own host code are never wrapped: they reach the caller as they are, with a note
that names the program and the line.
"""

from __future__ import annotations

from collections.abc import Iterable

from .span import Span


def order_matters(kind: str, span: Span | None) -> UsageError:
    """The refusal of a request ("gen", "select", "score") in an unordered group."""
    return UsageError(
        f"a {kind} inside `unordered()` depends on the order of what stands before it",
        span=span,
        help="move it behind the block, or generate on a copy (`s.copy()`) and append what that gives",
    )


def nearest(name: str, known: Iterable[str], listing: str = "") -> str:
    """A help line for a name that is none: the one that is probably meant, else (after `listing`, if given) all."""
    import difflib  # only for errors

    names = list(known)
    near = difflib.get_close_matches(name, names, 1, 0.6)
    if near:
        return f"did you mean {near[0]!r}?"
    return f"{listing} {', '.join(names)}" if listing else ""


class ChangedFileWarning(UserWarning):
    """A batch is resumed whose finished rows were given a file that holds something else now."""


class ReboundStateWarning(UserWarning):
    """The name of a state is given a text, which is appended to nothing."""


class RamifyError(Exception):
    """Base of all errors ramify raises on purpose; `span` is the user's source, `help` says what to do."""

    def __init__(self, message: str, *, span: Span | None = None, help: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.span = span
        self.help = help

    def __str__(self) -> str:
        """The message with the user's source line and carets under the span, where one is known."""
        if self.span is None:
            return self.message if self.help is None else f"{self.message}\n  help: {self.help}"
        lines = [f"{self.span.file}:{self.span.line}", *self.span.excerpt(), f"error: {self.message}"]
        if self.help is not None:
            lines.append(f"help: {self.help}")
        return "\n".join(lines)


class CompileError(RamifyError):
    """The front end cannot compile the user's function."""


class IRError(RamifyError):
    """Something is wrong with a module of IR."""


class VerifyError(IRError):
    """A module breaks the IR's rules."""


class ParseError(IRError):
    """Textual IR that does not parse."""


class DecodeError(IRError):
    """Binary IR that is damaged or of another version."""


class UntrustedCode(IRError):
    """Loading the module would run host code that the caller has not agreed to."""


class ModelError(RamifyError):
    """A model directory cannot be loaded."""


class CacheError(RamifyError):
    """A saved KV cache cannot be written, or cannot be used here."""


class RequestError(RamifyError):
    """A request that cannot be served as asked."""


class ArgumentError(RequestError, TypeError):
    """A constant argument is of the wrong type; where it is found only while running, that is a TypeError."""


class ContextOverflow(RequestError):
    """Prompt and generation do not fit the model's context."""


class Unsupported(RequestError):
    """The backend cannot do what was asked."""


class BackendError(RamifyError):
    """The backend failed while it served a request."""


class ServerError(BackendError):
    """A server answered with an error, wrongly or not at all; `status` is the HTTP status, None without an answer."""

    def __init__(
        self, message: str, *, status: int | None = None, span: Span | None = None, help: str | None = None
    ) -> None:
        super().__init__(message, span=span, help=help)
        self.status = status


class OutputError(RamifyError, ValueError):
    """A generated text does not stand for the value that the gen asked for; `text` is what was generated."""

    def __init__(self, message: str, *, text: str, span: Span | None = None, help: str | None = None) -> None:
        super().__init__(message, span=span, help=help)
        self.text = text


class Cancelled(RamifyError):
    """The run was cancelled before it finished."""


class RecordingError(RamifyError):
    """A recording cannot be written or read, or does not hold what is asked of it."""


class ReplayMismatch(RecordingError):
    """A run is not the one that was recorded."""


class RecordingWarning(UserWarning):
    """Something that a run did could not be recorded, so it cannot be replayed."""


class RecordedError(RamifyError):
    """What is left of an error that was written to a file or sent to another process; `kind` names its type."""

    def __init__(self, message: str, *, kind: str = "") -> None:
        super().__init__(message)
        self.kind = kind

    def __str__(self) -> str:
        return f"{self.kind}: {self.message}"


class UsageError(RamifyError):
    """The command line, the REPL or an API was called wrongly."""
