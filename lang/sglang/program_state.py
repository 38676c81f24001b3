"""What `run` of a function gives: the run's state, to be read from outside, finished or still on its way."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any

from ...runtime.loop import loop
from ...runtime.pending import Pending
from ..execution import Execution
from ..run import Run
from .stream import Stream, TextReader, VariableReader, iterate, iterate_async, value_of


class ProgramState:
    """A run's state. Reading waits until the run has ended; the text iterators follow it while it goes on.

    A run that failed raises what made it fail where a variable is read that it did not get to; `error()` gives it.
    """

    __slots__ = ("_execution", "_outcome", "_stream")

    def __init__(self, outcome: Pending[Run], execution: Execution | None = None, stream: Stream | None = None) -> None:
        self._outcome = outcome
        self._execution = execution
        self._stream = stream

    @classmethod
    def of(cls, run: Run) -> ProgramState:
        """The state of a finished run."""
        outcome: Pending[Run] = Pending()
        outcome.set_result(run)
        return cls(outcome)

    @classmethod
    def start(cls, execution: Execution, stream: Stream) -> ProgramState:
        """Start a run, and do not wait for it. stream: what the execution tells its events."""
        execution.ended.add_callback(stream.wake)
        loop().soon(execution.start)
        return cls(execution.ended, execution, stream)

    @property
    def run(self) -> Run:
        """All that is known of the run: value, usage, trace, error. Waits for it."""
        return self._outcome.wait()

    @property
    def ret_value(self) -> Any:
        """What the function returned; None if it failed."""
        return self.run.value

    def sync(self) -> None:
        """Wait until the run has ended."""
        self._outcome.wait()

    def error(self) -> BaseException | None:
        """What the run failed with, or None."""
        return self.run.error

    def cancel(self) -> None:
        """End a streamed run early; what has not arrived fails with Cancelled. Thread-safe."""
        if self._execution is not None:
            self._execution.cancel()

    def __getitem__(self, name: str) -> Any:
        """A variable's value. Raises UnknownVariable (a KeyError), or what made it fail."""
        return value_of(self.run, name)

    def get_var(self, name: str) -> Any:
        """The same as `self[name]`."""
        return self[name]

    def __setitem__(self, name: str, value: Any) -> None:
        """Bind a variable."""
        self.run.state[name] = value

    def set_var(self, name: str, value: Any) -> None:
        """The same as `self[name] = value`."""
        self[name] = value

    def __contains__(self, name: object) -> bool:
        """Whether the variable has a value."""
        return name in self.run

    __iter__ = None

    def get_meta_info(self, name: str) -> Any:
        """What is known of a variable's generation. Raises what made it fail."""
        value_of(self.run, name)
        return self.run.get_meta_info(name)

    def text(self) -> str:
        """The whole text, role marks included; of a run that failed, as far as it came."""
        return self.run.text

    def messages(self) -> list[dict[str, Any]]:
        """The chat messages, as dicts of "role" and "content"; of a run that failed, as far as it came."""
        return self.run.messages

    def text_iter(self, var_name: str | None = None) -> Iterator[str]:
        """The text, or a variable's, in pieces as it is generated; of a run without stream=True all at once.

        A variable that is generated several times is followed the first time, of several samples the first. Raises what
        made it fail.
        """
        if self._stream is None:
            return iter([self._all(var_name)])
        return iterate(self._stream, self._reader(self._stream, var_name, with_meta=False))

    async def text_async_iter(self, var_name: str | None = None, return_meta_data: bool = False) -> AsyncIterator[Any]:
        """`text_iter` for asyncio. return_meta_data: pairs of a variable's piece and what is known of its generation.

        The last pair's piece may be empty; it holds all that `get_meta_info` does.
        """
        if self._stream is None:
            text = self._all(var_name)
            yield (text, self.get_meta_info(var_name)) if return_meta_data and var_name is not None else text
            return
        reader = self._reader(self._stream, var_name, with_meta=return_meta_data)
        async for item in iterate_async(self._stream, reader):
            yield item

    def _all(self, var_name: str | None) -> str:
        run = self.run
        if run.error is not None and var_name is None:
            raise run.error
        return run.text if var_name is None else str(self[var_name])

    def _reader(self, stream: Stream, var_name: str | None, *, with_meta: bool) -> TextReader | VariableReader:
        if var_name is None:
            return TextReader(stream, self._outcome)
        assert self._execution is not None
        return VariableReader(stream, self._execution.context, self._outcome, var_name, with_meta=with_meta)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickled as its finished run is."""
        return ProgramState.of, (self.run,)

    def __repr__(self) -> str:
        return repr(self.run).replace("<Run", "<ProgramState", 1) if self._outcome.done else "<ProgramState running>"
