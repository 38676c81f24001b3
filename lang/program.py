"""`@program` turns a Python function into a Program, which is run, run over rows, compiled, or called with a state.

A program that is defined in the body of a class is a method: its state is the second parameter.
"""

from __future__ import annotations

import asyncio
import importlib
import inspect
import pickle
import threading
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence, Sized
from contextlib import ExitStack
from functools import update_wrapper
from os import PathLike
from pathlib import Path
from types import FunctionType
from typing import TYPE_CHECKING, Any, Literal, Unpack, overload

from ..ir.errors import ChangedFileWarning, UsageError
from ..ir.types import CELL
from ..runtime.arranging import Arranger
from ..runtime.generation import StreamEvent
from ..runtime.hosttask import PrivateLoop
from ..runtime.loop import loop
from ..runtime.sharing import Sharing
from .arguments import Arguments, Signature
from .batch import MAX_IN_FLIGHT, Batch, BatchKeywords, BatchOptions, BoundRow, OnError
from .cassettes import opened, plays
from .execution import Execution, is_async
from .identity import identity, row_key
from .journal import How, Journal, check_output, open_journal
from .mailbox import Mailbox
from .options import RUN_OPTIONS, Options
from .ordering import depth_first
from .progress import Progress
from .restored import return_type
from .run import Run, checked
from .state import State

if TYPE_CHECKING:
    from ..backends.replay.cassette import Cassette
    from ..compiler.frontend import Lowered
    from ..compiler.rebound import Rebound
    from ..runtime.interpreter import Interpreter
    from .compiled import Compiled
    from .explain import ExplainKeywords, Explanation

Row = Mapping[str, Any]
# What a compiled form is made for: the class of the receiver, and the passes to leave out.
_Form = tuple[type | None, tuple[str, ...]]


class Program:
    """A program: a Python function whose first parameter is the state. `fn` is the function, `name` its name.

    Given to another program's state, `program(s, ...)` runs as a part of that; without a state, calling is `run`
    (`arun` for an `async def`). Defined in the body of a class, it is a method, and `instance.program` is the program
    bound to the instance.
    """

    __ramify__ = "program"

    def __init__(
        self,
        function: Callable[..., Any] | Program,
        options: Options,
        cache: _Cache | None = None,
        receiver: tuple[Any, ...] = (),
    ) -> None:
        """Of another program it becomes one more, with other options, which shares its compiled form."""
        if isinstance(function, Program):
            cache, receiver = function._cache, function._receiver
        self._cache: _Cache = _Cache.of(function) if cache is None else cache
        self.fn = self._cache.function
        self.name = self.fn.__name__
        self._options = options
        self._receiver: tuple[Any, ...] = receiver
        self._signature: Signature | None = None
        update_wrapper(self, self.fn)

    @property
    def signature(self) -> Signature:
        """The parameters after the state; of an unbound method, the receiver too."""
        if not self._receiver:
            return self._cache.signature
        if self._signature is None:
            self._signature = Signature(self.fn, is_method=True, receiver=self._receiver)
        return self._signature

    @property
    def run_options(self) -> Options:
        """The options that its runs have."""
        return self._options

    def options(self, **given: Any) -> Program:
        """The same program with options set: backend, eager, stream, timeout, disable, and any sampling parameter.

        Raises UsageError for names that are none.
        """
        return Program(self.fn, self._options.updated(given), self._cache, self._receiver)

    def run(self, *args: Any, **kwargs: Any) -> Run:
        """Run on a new state and wait for everything in it. Raises what the program raised.

        backend=, eager=, stream=, timeout=, record=, replay= and partial= are options here too, unless the program has
        a parameter of that name.
        """
        arguments, options = self._split(args, kwargs)
        return checked(self.finish(arguments, options))

    def finish(self, arguments: Arguments, options: Options) -> Run:
        """Run and wait; what the program raised stays in the run."""
        with opened(options) as cassette:
            mailbox = Mailbox()
            execution = self.execution(arguments, options, _stream_to(mailbox, options), cassette=cassette)
            if options.eager and options.stream is None and options.timeout is None and not execution.is_async:
                return execution.run_here()
            loop().soon(execution.start)
            mailbox.wait(execution.ended, execution.cancel)
            return execution.ended.result()

    async def arun(self, *args: Any, **kwargs: Any) -> Run:
        """`run` for programs that live in asyncio: waits without blocking the caller's event loop.

        What an `async def` program awaits is awaited on that loop, in the caller's own task.
        """
        arguments, options = self._split(args, kwargs)
        return checked(await self.afinish(arguments, options))

    async def afinish(self, arguments: Arguments, options: Options) -> Run:
        """The same inside asyncio."""
        here = asyncio.get_running_loop()
        relay = None if options.stream is None else _Relay(here, options.stream)
        with opened(options) as cassette:
            execution = self.execution(arguments, options, relay, here, cassette)
            if relay is not None:
                relay.cancel = execution.cancel
            try:
                run = await (_serve(execution) if execution.is_async else _follow(execution, here))
            except BaseException:
                execution.cancel()
                raise
            finally:
                if relay is not None:
                    relay.close()
        return run

    @overload
    def run_batch(
        self, rows: Iterable[Row], *, as_completed: Literal[False] = False, **options: Unpack[BatchKeywords]
    ) -> list[Run]: ...
    @overload
    def run_batch(
        self, rows: Iterable[Row], *, as_completed: Literal[True], **options: Unpack[BatchKeywords]
    ) -> Batch: ...
    def run_batch(
        self,
        rows: Iterable[Row],
        *,
        as_completed: bool = False,
        backend: Any = None,
        eager: bool | None = None,
        stream: Callable[[StreamEvent], None] | None = None,
        timeout: float | None = None,
        deadline: float | None = None,
        progress: Progress = False,
        on_result: Callable[[int, Run], None] | None = None,
        max_in_flight: int = MAX_IN_FLIGHT,
        on_error: OnError = "keep",
        out: str | PathLike[str] | None = None,
        resume: bool = False,
        overwrite: bool = False,
        record: str | PathLike[str] | bool | None = None,
        replay: str | PathLike[str] | None = None,
        partial: bool = False,
    ) -> list[Run] | Batch:
        """Run over rows (dicts of arguments); the runs come in the rows' order, or with `as_completed` as they end.

        A row that fails keeps its error in `run.error`, and the others go on. on_error="raise" raises an ExceptionGroup
        of the rows' errors when all rows are done, "stop" cancels the others and raises the first error. timeout is
        each row's, deadline the whole batch's, in seconds. on_result(row number, run) and progress(done, total) are
        called on this thread as rows end, in any order; progress=True shows a bar.

        out: a file that each row is written to as it ends; `resume` skips the rows that are finished there, `overwrite`
        replaces it. A list of rows is checked before anything runs (raises UsageError); any other iterable is read as
        rows are needed, at most `2 * max_in_flight` ahead, and what is wrong with a row of it becomes the row's error.

        record, replay, partial: see docs/replay.md.
        """
        given = {"backend": backend, "eager": eager, "stream": stream, "timeout": timeout}
        given |= {"record": record, "replay": replay, "partial": partial or None}
        options = self._options.updated({name: value for name, value in given.items() if value is not None})
        how = BatchOptions(max_in_flight, deadline, on_error, on_result, not as_completed, return_type(self.fn))
        how.check()
        check_output(out, resume, overwrite)
        bound = self._bound_rows(rows, has_keys=out is not None)
        mailbox = Mailbox()
        emit = _stream_to(mailbox, options)
        compiled = self._form(options)
        with ExitStack() as held:
            cassette = held.enter_context(opened(options))
            # A replay needs no model; else it is opened once.
            ready = options if plays(cassette) else options.updated({"backend": options.open_backend()})
            journal = None
            if out is not None:
                mode: How = "resume" if resume else "overwrite" if overwrite else "new"
                keys = [row.key for row in bound] if isinstance(bound, list) else None
                journal = open_journal(Path(out), identity(self.fn, self._receiver, options), mode, keys)
                _warn_of_changes(journal)
            # The rows of an `async def` program share a loop; eagerly each has its own, for it blocks where it reads.
            sharing = Sharing(Arranger())
            home = PrivateLoop() if compiled is not None and is_async(self.fn) else None
            batch = Batch(
                bound,
                len(rows) if isinstance(rows, Sized) else None,
                self._row_order(compiled, bound, max_in_flight),
                lambda arguments: Execution(
                    self.fn, compiled, arguments, ready, emit, home.asyncio if home else None, sharing, cassette, self
                ),
                how,
                mailbox,
                journal,
                progress,
                home,
            )
            batch.when_closed(held.pop_all().close)
        return batch if as_completed else batch.all()

    def explain(self, rows: Iterable[Row] | None = None, **options: Unpack[ExplainKeywords]) -> Explanation:
        """What the program costs to run over rows (dicts of arguments), predicted without asking the model.

        Without rows, that of one run; of a program that takes arguments only what its IR tells.

        actual: also run it, and show what was measured beside the prediction; the backend's cache is emptied first.
        run_host: run all of the program's own code, tools included; otherwise only code that computes and changes
        nothing is run, and the prediction ends where other code stands. passes: also predict without each pass of the
        compiler, to tell what it saves. backend: another one than the program's.

        Raises UsageError for a row that does not fit the program, which it names, before anything runs.
        """
        from .explain import explain

        return explain(self, rows, **options)

    def compile(self) -> Compiled:
        """The program's compiled form; made again when a name that it uses has been rebound since.

        That of a method holds for instances of the class that it is bound to, or was defined in.
        """
        return self._cache.compiled(self._receiver_type, self._options.disable)

    def stepped(self) -> Compiled:
        """The form that is run step by step: as written, before any pass. Raises as `compile` does."""
        return self._cache.stepped(self._receiver_type)

    def lower(self) -> Lowered:
        """What the front end makes of the program, before any pass. Raises CompileError."""
        from ..compiler.frontend import compile_function

        return compile_function(self.fn, position=int(self._cache.is_method), receiver=self._receiver_type)

    @property
    def _receiver_type(self) -> type | None:
        cache = self._cache
        return type(self._receiver[0]) if self._receiver and not cache.is_of_class else cache.owner

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        state = self.signature.given_state(args, kwargs)
        if not isinstance(state, State):
            return (self.arun if is_async(self.fn) else self.run)(*args, **kwargs)
        args = (*self._receiver, *args)
        if is_async(self.fn) and state.prompt.context.is_compiled:
            return self._coroutine(state, args, kwargs)
        return self.fn(*args, **kwargs)

    def part(
        self, args: Sequence[Any], kwargs: dict[str, Any], is_stepped: bool = False
    ) -> tuple[Interpreter, tuple[Any, ...]] | None:
        """What a call in a compiled run runs instead of Python, and its arguments: one for each parameter.

        None for a call that is given no state, or that Python refuses, and for an `async def`. is_stepped: whether the
        run is gone through step by step.
        """
        is_part = isinstance(self.signature.given_state(args, kwargs), State) and not is_async(self.fn)
        return self._as_part((*self._receiver, *args), kwargs, is_stepped) if is_part else None

    def _as_part(
        self, args: Sequence[Any], kwargs: dict[str, Any], is_stepped: bool
    ) -> tuple[Interpreter, tuple[Any, ...]] | None:
        try:
            bound = inspect.signature(self.fn).bind(*args, **kwargs)
        except TypeError:
            return None
        bound.apply_defaults()
        # The state may be one that others hold, too, so it is looked into at each step.
        if is_stepped:
            compiled = self.stepped()
        else:
            compiled = self._cache.compiled(self._receiver_type, ("promote",), is_part=True)
        return compiled.interpreter, tuple(bound.arguments.values())

    def _coroutine(self, state: State, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """A coroutine that runs the compiled form as a part of a compiled run."""
        from .parts import run_part

        part = self._as_part(args, kwargs, state.prompt.context.stepper is not None)
        if part is None:
            return self.fn(*args, **kwargs)  # Python says what is wrong
        coroutine: Any = run_part(part[0], state, part[1])
        coroutine.__name__, coroutine.__qualname__ = self.fn.__name__, self.fn.__qualname__
        return coroutine

    @property
    def binds(self) -> Literal["nothing", "instance", "class"]:
        """What a class's attribute that holds this program passes on, as its first argument."""
        if self._receiver or not self._cache.is_method:
            return "nothing"
        return "class" if self._cache.is_of_class else "instance"

    def __set_name__(self, owner: type, name: str) -> None:
        self._cache.place_in(owner)

    def __get__(self, instance: object, owner: type | None = None) -> Program:
        """A method bound to its instance, or class. A program from elsewhere that a class holds stays what it is."""
        cache = self._cache
        if isinstance(instance, type) and instance is owner:  # what `@classmethod` above `@program` asks for
            cache.is_of_class = cache.is_method = any(map(cache.is_defined_in, instance.__mro__))
        if self.binds == "nothing":
            return self
        receiver = (owner or type(instance)) if cache.is_of_class else instance
        return self if receiver is None else Program(self.fn, self._options, cache, (receiver,))

    def __repr__(self) -> str:
        return f"<program {self.signature}>"

    def __copy__(self) -> Program:
        return self

    def __deepcopy__(self, _: object) -> Program:
        return self

    def __reduce__(self) -> tuple[Callable[..., Program], tuple[Any, ...]]:
        """Pickled by reference, as functions are. Raises PicklingError if the name does not lead here."""
        home, name = self.fn.__module__, self.fn.__qualname__
        found = _find(home, name)
        if found is None or found._cache is not self._cache:
            raise pickle.PicklingError(
                f"program {name} cannot be pickled: it is not what {home}.{name} names; only programs at the top "
                "level of a module that can be imported, and methods of classes there, are pickled (by name)"
            )
        options = None if self._options is found._options else self._options
        return _restored, (home, name, options, self._receiver)

    def _split(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Arguments, Options]:
        """Tell the program's arguments from the run's options."""
        parameters = self.signature.parameters
        mine = {name: kwargs[name] for name in RUN_OPTIONS if name in kwargs and name not in parameters}
        rest = {name: value for name, value in kwargs.items() if name not in mine} if mine else kwargs
        return self.signature.bind(args, rest), self._options.updated(mine) if mine else self._options

    def _bound_rows(self, rows: Iterable[Row], *, has_keys: bool) -> Iterable[BoundRow]:
        """The rows ready to run: all of them where they are a sequence, else each when it is asked for.

        Raises UsageError for a wrong row of a sequence.
        """
        if isinstance(rows, Mapping | str) or not isinstance(rows, Iterable):
            raise UsageError(
                f"{self.name}: rows is {type(rows).__name__}, not dicts of arguments, one for each row",
                help=f"its arguments are {self.signature}",
            )
        bound = (self._bound_row(number, row, row_key(row) if has_keys else "") for number, row in enumerate(rows))
        if not isinstance(rows, Sequence):
            return bound
        checked = list(bound)
        for row in checked:
            if isinstance(row.arguments, UsageError):
                raise row.arguments
        return checked

    def _row_order(
        self, compiled: Compiled | None, rows: Iterable[BoundRow], max_in_flight: int
    ) -> Sequence[int] | None:
        """In which order rows begin: as they come, unless they are known, are more than run at once, and may share."""
        if compiled is None or not isinstance(rows, list) or len(rows) <= max_in_flight:
            return None
        return depth_first(compiled.module, [row.arguments for row in rows])

    def _bound_row(self, number: int, row: Row, key: str) -> BoundRow:
        try:
            return BoundRow(self.bind_row(number, row), key)
        except UsageError as error:
            return BoundRow(error, key)

    def bind_row(self, number: int, row: Row) -> Arguments:
        """The arguments that a row of data gives. Raises UsageError, which names the row."""
        if not isinstance(row, Mapping):
            raise UsageError(
                f"{self.name}: row {number} is {type(row).__name__}, not a dict of arguments",
                help=f"its arguments are {self.signature}",
            )
        return self.signature.bind((), row, number)

    def _form(self, options: Options) -> Compiled | None:
        """What a run with these options runs: the compiled form, or None for the function itself."""
        if options.eager and not _yields(self.fn):
            self._cache.warn_rebound()
            return None
        return self.compile()  # which refuses generators

    def execution(
        self,
        arguments: Arguments,
        options: Options,
        emit: Callable[[StreamEvent], None] | None,
        home: asyncio.AbstractEventLoop | None = None,
        cassette: Cassette | None = None,
    ) -> Execution:
        """One run in the making; `emit` takes its stream events, on any thread. home, cassette: see Execution."""
        compiled = self._form(options)
        return Execution(self.fn, compiled, arguments, options, emit, home, cassette=cassette, program=self)


def _yields(function: Callable[..., Any]) -> bool:
    """Whether a call only makes a generator."""
    function = inspect.unwrap(function)
    return inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function)


_MOST_FORMS = 64


class _Cache:
    """What copies of a program share, bound or with other options: its function, what it is, its compiled forms.

    is_method: the state is the second parameter. is_of_class: what stands before it is the class. owner: the class in
    whose body a method was defined.
    """

    def __init__(self, function: FunctionType, *, is_of_class: bool = False, is_static: bool = False) -> None:
        self.function = function
        self.is_method = self.is_of_class = is_of_class
        self.owner: type | None = None
        self._is_static = is_static
        self._is_loaded = False
        self._signatures = {self.is_method: Signature(function, is_method=self.is_method)}
        self._compiled: dict[_Form, Compiled] = {}
        self._stepped: dict[type | None, Compiled] = {}
        self._rebound: list[Rebound] | None = None
        self._compiling = threading.Lock()

    @classmethod
    def of(cls, function: object) -> _Cache:
        """What `@program` makes of a function. Raises UsageError if it is none, or takes no state."""
        is_of_class, is_static = isinstance(function, classmethod), isinstance(function, staticmethod)
        if isinstance(function, classmethod | staticmethod):
            function = function.__func__
        if not isinstance(function, FunctionType):
            raise UsageError(f"@program takes a function, not {type(function).__name__}")
        return cls(function, is_of_class=is_of_class, is_static=is_static)

    @classmethod
    def loaded(cls, compiled: Compiled) -> _Cache:
        """That of a program that was read from a file."""
        entry = compiled.module.functions[compiled.module.entry]
        cache = cls(compiled.lowered.python[entry.name])
        cache.is_method = entry.body.args[0].type != CELL
        cache._compiled[None, ()] = compiled
        cache._is_loaded = True
        return cache

    def place_in(self, owner: type) -> None:
        """The program is assigned in the body of a class; a function that was defined there is a method."""
        if self.is_defined_in(owner) and not self._is_static:
            self.is_method = True
            self.owner = None if self.is_of_class else owner

    def is_defined_in(self, owner: type) -> bool:
        """Whether the function was defined in the body of a class."""
        function = self.function
        name = f"{owner.__qualname__}.{function.__name__}"
        return (function.__module__, function.__qualname__) == (owner.__module__, name)

    @property
    def signature(self) -> Signature:
        """The parameters without the state. Raises UsageError for a method that takes none."""
        if self.is_method not in self._signatures:
            self._signatures[self.is_method] = Signature(self.function, is_method=self.is_method)
        return self._signatures[self.is_method]

    def warn_rebound(self) -> None:
        """Warn of texts that are assigned to the state's name in the function itself, as compiling it does."""
        if self._rebound is None:
            from ..compiler.rebound import rebound_in

            self._rebound = rebound_in(self.function, int(self.is_method))
        if self._rebound:
            from ..compiler.rebound import warn_rebound

            warn_rebound(self._rebound, self.function)

    def stepped(self, receiver: type | None) -> Compiled:
        """The form that is run step by step, for receivers of a class."""
        compiled = self.compiled(receiver, ())  # which finds what is wrong, and warns
        with self._compiling:
            known = self._stepped.get(receiver)
            if known is None or not known.current():
                from .compiled import Compiled

                known = (
                    compiled.stepping()
                    if self._is_loaded
                    else Compiled.for_stepping(self.function, position=int(self.is_method), receiver=receiver)
                )
                self._stepped[receiver] = known
            return known

    def compiled(self, receiver: type | None, disable: tuple[str, ...], *, is_part: bool = False) -> Compiled:
        """The form for receivers of a class, without some passes. is_part: for states that others may hold, too."""
        if disable and self._is_loaded and not is_part:
            raise UsageError("a program from a file has been through the passes; `disable` comes too late")
        form = (receiver, disable)
        with self._compiling:
            known = self._compiled.get(form)
            if known is None or not known.current():
                from .compiled import Compiled

                position = int(self.is_method)
                known = Compiled.of(self.function, position=position, receiver=receiver, disable=disable)
                self._compiled[form] = known
                if len(self._compiled) > _MOST_FORMS:
                    del self._compiled[next(iter(self._compiled))]
            return known


def _find(home: str, name: str) -> Program | None:
    """The program that a module knows under a (dotted) name."""
    try:
        found: Any = importlib.import_module(home)
    except ImportError:
        return None
    for part in name.split("."):
        found = inspect.getattr_static(found, part, None)
    if isinstance(found, classmethod | staticmethod):
        found = found.__func__
    found = getattr(found, "program", found)  # one that is wrapped in another interface
    return found if isinstance(found, Program) else None


def _restored(home: str, name: str, options: Options | None, receiver: tuple[Any, ...]) -> Program:
    """The program that was pickled. Raises UnpicklingError if it is not to be had here."""
    program = _find(home, name)
    if program is None:
        raise pickle.UnpicklingError(f"there is no program {name} in the module {home}")
    if options is None and not receiver:
        return program
    return Program(program.fn, options or program._options, program._cache, receiver)


class _Relay:
    """Calls the user's stream function on the user's event loop; what it raises ends the run."""

    def __init__(self, home: asyncio.AbstractEventLoop, stream: Callable[[StreamEvent], None]) -> None:
        self.cancel: Callable[[], None] = lambda: None
        self._home = home
        self._stream = stream
        self._error: Exception | None = None
        self._is_closed = False

    def __call__(self, event: StreamEvent) -> None:
        _tell(self._home, self._deliver, event)

    def _deliver(self, event: StreamEvent) -> None:
        if self._is_closed or self._error is not None:
            return
        try:
            self._stream(event)
        except Exception as error:
            self._error = error
            self.cancel()

    def close(self) -> None:
        """No more events are delivered. Raises what the function raised."""
        self._is_closed = True
        if self._error is not None:
            raise self._error


async def _follow(execution: Execution, here: asyncio.AbstractEventLoop) -> Run:
    """Start a run, and wait for its end."""
    future: asyncio.Future[Run] = here.create_future()

    def arrive(run: Run) -> None:
        if not future.done():
            future.set_result(run)

    execution.ended.add_callback(lambda done: _tell(here, arrive, done.result()))
    loop().soon(execution.start)
    return await future


async def _serve(execution: Execution) -> Run:
    """Start a run of an `async def` program, and make the calls that it asks for, until its end."""
    assert execution.task is not None
    loop().soon(execution.begin)
    await execution.task.serve(execution.ended)
    return execution.ended.result()


def _tell(home: asyncio.AbstractEventLoop, callback: Callable[[Any], None], value: Any) -> None:
    """Call back on the user's event loop; one that is closed by now waits for nothing."""
    try:
        home.call_soon_threadsafe(callback, value)
    except RuntimeError:
        if not home.is_closed():
            raise


def _warn_of_changes(journal: Journal) -> None:
    """A ChangedFileWarning for files that the finished rows had otherwise; the caller of run_batch is shown."""
    if names := journal.changed_files():
        told = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
        words = f"what finished rows of {journal.out} were given has changed since: {told}; they are not run again"
        warnings.warn(f"{words} (overwrite, or --overwrite, does that)", ChangedFileWarning, stacklevel=3)


def _stream_to(mailbox: Mailbox, options: Options) -> Callable[[StreamEvent], None] | None:
    stream = options.stream
    if stream is None:
        return None

    def deliver(event: StreamEvent) -> None:
        if not mailbox.is_closing:
            stream(event)

    return lambda event: mailbox.post(deliver, event)


def load(path: str | PathLike[str], *, trust: bool = False) -> Program:
    """A program that `program.compile().save(path)` wrote; the options it had are not saved.

    Loading runs the host code in the file, so without `trust` it raises UntrustedCode, which lists that code.
    """
    from .compiled import Compiled

    return of_compiled(Compiled.load(path, trust=trust))


def of_compiled(compiled: Compiled) -> Program:
    """A program that runs this compiled form."""
    cache = _Cache.loaded(compiled)
    return Program(cache.function, Options(), cache)


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
