"""`@program` turns a Python function into a Program, which is run, run over rows, compiled, or called with a state."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterable, Mapping
from functools import partial, update_wrapper
from os import PathLike
from types import FunctionType
from typing import TYPE_CHECKING, Any, overload

from ..ir.errors import UsageError
from ..runtime.generation import StreamEvent
from ..runtime.loop import loop
from ..runtime.pending import Pending
from .arguments import Arguments, Signature
from .batch import OnError, Progress, run_rows
from .execution import Execution
from .mailbox import Mailbox
from .options import RUN_OPTIONS, Options
from .run import Run
from .state import State

if TYPE_CHECKING:
    from .compiled import Compiled

MAX_IN_FLIGHT = 256
Row = Mapping[str, Any]


class Program:
    """A program: a Python function whose first parameter is the state. `fn` is the function, `name` its name.

    Given to another program's state, `program(s, ...)` runs as a part of that; without a state, calling is `run`.
    """

    __ramify__ = "program"

    def __init__(self, function: Callable[..., Any], options: Options, cache: _Cache | None = None) -> None:
        if not isinstance(function, FunctionType):
            raise UsageError(f"@program takes a function, not {type(function).__name__}")
        self.fn = function
        self.name = function.__name__
        self._options = options
        self._cache = cache or _Cache(function)
        update_wrapper(self, function)

    @property
    def signature(self) -> Signature:
        """The parameters after the state."""
        return self._cache.signature

    @property
    def run_options(self) -> Options:
        """The options that its runs have."""
        return self._options

    def options(self, **given: Any) -> Program:
        """The same program with options set: backend, eager, stream, timeout, and any sampling parameter.

        Raises UsageError for names that are none.
        """
        return Program(self.fn, self._options.updated(given), self._cache)

    def run(self, *args: Any, **kwargs: Any) -> Run:
        """Run on a new state and wait for everything in it. Raises what the program raised.

        backend=, eager=, stream= and timeout= are options here too, unless the program has a parameter of that name.
        """
        arguments, options = self._split(args, kwargs)
        return _checked(self.finish(arguments, options))

    def finish(self, arguments: Arguments, options: Options) -> Run:
        """Run and wait; what the program raised stays in the run."""
        mailbox = Mailbox()
        execution = self.execution(arguments, options, _stream_to(mailbox, options))
        if options.eager and options.stream is None and options.timeout is None:
            return execution.run_here()
        outcome: Pending[Run] = Pending()
        loop().soon(lambda: execution.start().then(lambda run: run, outcome))
        mailbox.wait(outcome, execution.cancel)
        return outcome.result()

    async def arun(self, *args: Any, **kwargs: Any) -> Run:
        """`run` for programs that live in asyncio: waits without blocking the caller's event loop."""
        arguments, options = self._split(args, kwargs)
        here = asyncio.get_running_loop()
        future: asyncio.Future[Run] = here.create_future()
        emit = None if options.stream is None else _Relay(here, options.stream, future)
        execution = self.execution(arguments, options, emit)

        def arrive(run: Run) -> None:
            if not future.done():
                future.set_result(run)

        def start() -> None:
            execution.start().add_callback(lambda done: _tell(here, arrive, done.result()))

        loop().soon(start)
        try:
            return _checked(await future)
        except BaseException:
            execution.cancel()
            raise

    def run_batch(
        self,
        rows: Iterable[Row],
        *,
        backend: Any = None,
        eager: bool | None = None,
        stream: Callable[[StreamEvent], None] | None = None,
        timeout: float | None = None,
        progress: Progress = False,
        on_result: Callable[[int, Run], None] | None = None,
        max_in_flight: int = MAX_IN_FLIGHT,
        on_error: OnError = "keep",
    ) -> list[Run]:
        """Run over rows (dicts of arguments); the runs come in the rows' order.

        A row that fails keeps its error in `run.error`, and the others go on; on_error="raise" cancels and raises it.
        on_result(row number, run) and progress(done, total) are called on this thread as rows end, in any order;
        progress=True shows a bar. timeout is each row's. Raises UsageError, which names a wrong row, before anything
        runs.
        """
        given = {"backend": backend, "eager": eager, "stream": stream, "timeout": timeout}
        options = self._options.updated({name: value for name, value in given.items() if value is not None})
        if max_in_flight < 1:
            raise UsageError(f"max_in_flight must be at least 1, got {max_in_flight}")
        if on_error not in ("keep", "raise"):
            raise UsageError(f'on_error is "keep" or "raise", not {on_error!r}')
        bound = [self._bind_row(number, row) for number, row in enumerate(rows)]
        mailbox = Mailbox()
        emit = _stream_to(mailbox, options)
        compiled = None if options.eager else self.compile()
        options = options.updated({"backend": options.open_backend()})
        executions = [partial(Execution, self.fn, compiled, each, options, emit) for each in bound]
        return run_rows(
            executions,
            mailbox,
            max_in_flight=max_in_flight,
            progress=progress,
            on_result=on_result,
            on_error=on_error,
        )

    def compile(self) -> Compiled:
        """The program's compiled form; made again when a name that it uses has been rebound since."""
        return self._cache.compiled()

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if args and isinstance(args[0], State):
            return self.fn(*args, **kwargs)
        return self.run(*args, **kwargs)

    def __get__(self, instance: object, owner: type | None = None) -> Any:
        """Programs are no methods: a class may hold one, and it stays what it is."""
        return self

    def __repr__(self) -> str:
        return f"<program {self.signature}>"

    def _split(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Arguments, Options]:
        """Tell the program's arguments from the run's options."""
        parameters = self.signature.parameters
        mine = {name: kwargs[name] for name in RUN_OPTIONS if name in kwargs and name not in parameters}
        rest = {name: value for name, value in kwargs.items() if name not in mine} if mine else kwargs
        return self.signature.bind(args, rest), self._options.updated(mine) if mine else self._options

    def _bind_row(self, number: int, row: Row) -> Arguments:
        if not isinstance(row, Mapping):
            raise UsageError(f"{self.name}: row {number} is {type(row).__name__}, not a dict of arguments")
        return self.signature.bind((), row, number)

    def execution(
        self, arguments: Arguments, options: Options, emit: Callable[[StreamEvent], None] | None
    ) -> Execution:
        """One run in the making; `emit` takes its stream events, on any thread."""
        compiled = None if options.eager else self.compile()
        return Execution(self.fn, compiled, arguments, options, emit)


class _Cache:
    """What copies of a program with other options share."""

    def __init__(self, function: FunctionType, compiled: Compiled | None = None) -> None:
        self.signature = Signature(function)
        self._function = function
        self._compiled = compiled
        self._compiling = threading.Lock()

    def compiled(self) -> Compiled:
        with self._compiling:
            if self._compiled is None or not self._compiled.current():
                from .compiled import Compiled

                self._compiled = Compiled.of(self._function)
            return self._compiled


class _Relay:
    """Calls the user's stream function on the user's event loop; what it raises ends the run."""

    def __init__(
        self, home: asyncio.AbstractEventLoop, stream: Callable[[StreamEvent], None], future: asyncio.Future[Run]
    ) -> None:
        self._home = home
        self._stream = stream
        self._future = future

    def __call__(self, event: StreamEvent) -> None:
        _tell(self._home, self._deliver, event)

    def _deliver(self, event: StreamEvent) -> None:
        if self._future.done():
            return
        try:
            self._stream(event)
        except Exception as error:
            self._future.set_exception(error)


def _tell(home: asyncio.AbstractEventLoop, callback: Callable[[Any], None], value: Any) -> None:
    """Call back on the user's event loop; one that is closed by now waits for nothing."""
    try:
        home.call_soon_threadsafe(callback, value)
    except RuntimeError:
        if not home.is_closed():
            raise


def _stream_to(mailbox: Mailbox, options: Options) -> Callable[[StreamEvent], None] | None:
    stream = options.stream
    if stream is None:
        return None

    def deliver(event: StreamEvent) -> None:
        if not mailbox.is_closing:
            stream(event)

    return lambda event: mailbox.post(deliver, event)


def _checked(run: Run) -> Run:
    if run.error is not None:
        raise run.error
    return run


def load(path: str | PathLike[str], *, trust: bool = False) -> Program:
    """A program that `program.compile().save(path)` wrote; the options it had are not saved.

    Loading runs the host code in the file, so without `trust` it raises UntrustedCode, which lists that code.
    """
    from .compiled import Compiled

    compiled = Compiled.load(path, trust=trust)
    function = compiled.lowered.python[compiled.module.entry]
    return Program(function, Options(), _Cache(function, compiled))


@overload
def program(function: Callable[..., Any], /) -> Program: ...
@overload
def program(**options: Any) -> Callable[[Callable[..., Any]], Program]: ...
def program(function: Any = None, /, **options: Any) -> Any:
    """Make a function a Program: `@program`, or `@program(max_tokens=32, backend=..., ...)` with options set."""
    given = Options().updated(options)
    if function is not None:
        return Program(function, given)
    return lambda function: Program(function, given)
