"""What is left of a run: its value, its text and variables, what it used, and the error it ended with."""

from __future__ import annotations

import pickle
import traceback
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import IO, TYPE_CHECKING, Any, TypeVar

from ..ir.errors import RecordedError, UsageError, nearest
from ..runtime.context import Context, Usage
from ..runtime.generation import GenRecord
from ..runtime.pending import Pending
from ..runtime.prompt import CALLS, Prompt, UnknownVariable
from ..runtime.toolcall import ToolRecord
from .state import State

if TYPE_CHECKING:
    from ..backends.replay.reuse import Reuse
    from .arguments import Arguments
    from .options import Options
    from .program import Program
    from .timeline import Timeline
    from .tree import PromptTrees

T = TypeVar("T")
Record = GenRecord | ToolRecord


class Run:
    """A finished run. With an `error`, text, messages and vars show how far it came; value is None then.

    row: its number in a batch. A run can be pickled, if its value and variables can.
    """

    __slots__ = ("_source", "error", "row", "value")

    def __init__(
        self, source: Live | Snapshot, value: Any, error: BaseException | None, row: int | None = None
    ) -> None:
        self._source = source
        self.value = value
        self.error = error
        self.row = row

    @property
    def ok(self) -> bool:
        """Whether it ended without an error."""
        return self.error is None

    @property
    def is_whole(self) -> bool:
        """Whether all of it is known: messages and trace are not written to a batch's output file."""
        return isinstance(self._source, Live) or self._source.trace is not None

    @property
    def unread(self) -> bool:
        """Whether the error is that of a generation which the program has not looked at."""
        return self._source.unread

    @property
    def traceback(self) -> str:
        """The error as Python shows it, with the user's lines; empty when there is none."""
        return "" if self.error is None else self._source.traceback(self.error)

    @property
    def state(self) -> State:
        """The program's state. Raises UsageError for a run of another process, of which only data are left."""
        if isinstance(self._source, Live):
            return self._source.state
        raise UsageError(
            "the state of a run stays in the process that ran it", help="text, messages, vars and trace are here"
        )

    @property
    def text(self) -> str:
        """The state's whole text, role marks included."""
        return self._source.text

    @property
    def messages(self) -> list[dict[str, Any]]:
        """The state's chat messages, as dicts of "role" and "content"."""
        return _known(self._source.messages, "messages")

    @property
    def vars(self) -> dict[str, Any]:
        """The state's variables and their values."""
        return self._source.vars

    def __getitem__(self, name: str) -> Any:
        """A variable's value. Raises UnknownVariable (a KeyError), or what made it fail."""
        return self._source.variable(name)

    def __contains__(self, name: object) -> bool:
        return name in self.vars

    __iter__ = None

    @property
    def usage(self) -> Usage:
        """Tokens, calls and time used."""
        return self._source.usage

    @property
    def trace(self) -> list[Record]:
        """A record of each generation, choice, score and tool call (`kind` says which), in program order."""
        return _known(self._source.trace, "trace")

    @property
    def timeline(self) -> Timeline:
        """When its requests, tool calls and host code ran. Raises UsageError for a run of another process."""
        from .timeline import timeline

        return timeline([self])

    @property
    def tree(self) -> PromptTrees:
        """The tree of its prompts. Raises UsageError for a run of another process."""
        from .tree import PromptTrees

        return PromptTrees([self])

    def get_meta_info(self, name: str) -> Any:
        """What is known of a variable's generation."""
        return self._source.meta_info(name)

    @property
    def reuse(self) -> Reuse | None:
        """How much of a run that was edited, or played from a recording, was asked anew; None for others."""
        return self._source.reuse

    @property
    def origin(self) -> Origin | None:
        """What it was made from, if it was recorded by this process."""
        return self._source.origin

    def edit(self, node: int | str, new: Any) -> Run:
        """The run made again with another answer at one place; what does not depend on that is taken from this run.

        node: the number of a record in `trace`, from 1, or the name of a variable or tool: "answer", "answer#2" where
        there are several. new: a text (or the value, of typed gens), one of a select's choices, a tool's value.
        Raises UsageError for what cannot be edited so, and what the program raises.
        """
        from .editing import edited

        return checked(edited(self, node, new))

    def retry(self, node: int | str, **params: Any) -> Run:
        """The same where the model, or a tool, is asked once more; params: other sampling parameters, for a gen."""
        from .editing import retried

        return checked(retried(self, node, params))

    def show(self, file: IO[str] | None = None) -> None:
        """Print messages, variables, value, each generation and what was used, or the error; in colour on a terminal.

        file: None is stdout.
        """
        from .showing import print_run

        print_run(self, file)

    def __repr__(self) -> str:
        row = "" if self.row is None else f" of row {self.row}"
        if self.error is not None:
            return f"<Run{row} failed: {_short(self.error)}>"
        return f"<Run{row} value={_short(self.value)} vars={list(self.vars)}>"

    def _repr_html_(self) -> str:
        from .html_views import run_html

        return run_html(self)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle what can be asked for, as data. Raises PicklingError that names what cannot be pickled."""
        snapshot, error = self._source.snapshot(self.error), self.error
        return _unpickled, (
            {name: _pickled(value, f"the variable {name!r}") for name, value in snapshot.vars.items()},
            _pickled(self.value, "the value"),
            replace(snapshot, vars={}),
            None if error is None else _portable(error),
            self.row,
        )


@dataclass(frozen=True, slots=True)
class Origin:
    """What a recorded run was made from."""

    program: Program
    arguments: Arguments
    options: Options


class Live:
    """What a run of this process is asked: its context and its state. origin: see Run."""

    __slots__ = ("context", "origin", "state")

    def __init__(self, context: Context, state: State, origin: Origin | None = None) -> None:
        self.context = context
        self.state = state
        self.origin = origin

    @property
    def reuse(self) -> Reuse | None:
        track: Any = self.context.track
        return None if track is None else track.reuse

    @property
    def text(self) -> str:
        return str(self._complete().text_value())

    @property
    def messages(self) -> list[dict[str, Any]]:
        return self._complete().messages_value()  # type: ignore[no-any-return]

    @property
    def vars(self) -> dict[str, Any]:
        values = {name: node.bound_value() for name, node in self._complete().names().items()}
        return {name: value for name, value in values.items() if not isinstance(value, Pending)}

    def variable(self, name: str) -> Any:
        return self.state[name]

    @property
    def usage(self) -> Usage:
        return self.context.usage

    @property
    def trace(self) -> list[Record]:
        return self.context.trace()

    @property
    def unread(self) -> bool:
        return self.context.unread

    def meta_info(self, name: str) -> Any:
        return self.state.get_meta_info(name)

    def traceback(self, error: BaseException) -> str:
        return "".join(traceback.format_exception(error))

    def snapshot(self, error: BaseException | None) -> Snapshot:
        """All of it as data, with the traceback of the error it ended with."""
        nodes = self._complete().names()
        meta = {
            name: self.meta_info(name) for name, node in nodes.items() if node.kind in CALLS and node.value.is_whole
        }
        trace = [_portable_record(record) for record in self.trace]
        shown = "" if error is None else self.traceback(error)
        return Snapshot(self.text, self.messages, self.vars, self.usage, trace, meta, shown, self.unread, self.reuse)

    def _complete(self) -> Prompt:
        """The longest part of the state's prompt that has arrived: all of it, unless the run failed."""
        prompt = self.state.prompt
        if prompt.arrived() is None:
            return prompt
        return next(node for node in _whole(prompt))


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What a run of another process is asked. None is what was not written down; shown: its traceback."""

    text: str
    messages: list[dict[str, Any]] | None
    vars: dict[str, Any]
    usage: Usage
    trace: list[Record] | None
    meta: dict[str, dict[str, Any]] | None
    shown: str
    unread: bool
    reuse: Reuse | None = None
    origin: None = None

    def variable(self, name: str) -> Any:
        if name not in self.vars:
            known = ", ".join(map(repr, self.vars)) or "none"
            raise UnknownVariable(
                f"the run has no variable {name!r}; it has: {known}", help=nearest(name, self.vars) or None
            )
        return self.vars[name]

    def meta_info(self, name: str) -> Any:
        self.variable(name)
        known = _known(self.meta, "trace")
        if name not in known:
            raise UsageError(f"variable {name!r} was assigned, not generated, so there is nothing to tell of it")
        return known[name]

    def traceback(self, error: BaseException) -> str:
        return self.shown

    def snapshot(self, error: BaseException | None) -> Snapshot:
        """Itself."""
        return self


def _whole(prompt: Prompt) -> Iterator[Prompt]:
    return (node for node in prompt.upwards() if node.arrived() is None)


def _known(value: T | None, name: str) -> T:
    if value is None:
        raise UsageError(f"the {name} of a run that was read from an output file were not written to it")
    return value


def _pickled(value: Any, what: str) -> bytes:
    """The value pickled by itself, so that the one that cannot be is named."""
    try:
        return pickle.dumps(value)
    except Exception as error:
        kind = type(value).__name__
        raise pickle.PicklingError(f"{what} of the run ({kind}) cannot be pickled: {error}") from None


def _unpickled(
    variables: dict[str, bytes], value: bytes, snapshot: Snapshot, error: BaseException | None, row: int | None
) -> Run:
    values = {name: pickle.loads(data) for name, data in variables.items()}
    return Run(replace(snapshot, vars=values), pickle.loads(value), error, row)


def _portable_record(record: Record) -> Record:
    return record if record.error is None else replace(record, error=_portable(record.error))


def _portable(error: BaseException) -> BaseException:
    """The error, if another process can read it; else what it says."""
    try:
        same = pickle.loads(pickle.dumps(error))
    except Exception:
        same = None
    if type(same) is type(error) and str(same) == str(error):
        return error
    return RecordedError(str(error), kind=type(error).__name__)


def checked(run: Run) -> Run:
    """The run. Raises the error that it ended with."""
    if run.error is not None:
        raise run.error
    return run


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
