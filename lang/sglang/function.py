"""`@function` as SGLang has it: a Program with SGLang's calls and defaults."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import update_wrapper
from typing import TYPE_CHECKING, Any, Literal, overload

from ...ir.errors import UsageError
from ...runtime.context import Context
from ...runtime.expression import build_gen
from ..batch import MAX_IN_FLIGHT, Batch
from ..cassettes import plays
from ..options import Options
from ..program import Program
from ..run import Run
from ..state import State
from .process import global_config
from .program_state import ProgramState
from .settings import DEFAULTS, options, sort_out
from .stream import Stream

if TYPE_CHECKING:
    from ..compiled import Compiled


class SglFunction:
    """A program under SGLang's interface; `program` is the Program itself. Bound arguments come with every call.

    Given to another program's state, `function(s, ...)` runs as a part of that; without a state, calling is `run`.
    """

    def __init__(self, program: Program, bound: Mapping[str, Any] | None = None) -> None:
        self.program = program
        self.bind_arguments = dict(bound or {})
        update_wrapper(self, program.fn)

    @property
    def __ramify__(self) -> str | None:
        """The front end compiles calls of programs; with bound arguments, a call is one of any object."""
        return None if self.bind_arguments else "program"

    @property
    def fn(self) -> Callable[..., Any]:
        """The Python function."""
        return self.program.fn

    @property
    def arg_names(self) -> list[str]:
        """The names of the parameters after the state."""
        return list(self.program.signature.parameters)

    def bind(self, **arguments: Any) -> SglFunction:
        """The same function with some of its arguments given. Raises UsageError for names it does not have."""
        if unknown := [name for name in arguments if name not in self.program.signature.parameters]:
            raise UsageError(
                f"{self.program.name} has no argument {unknown[0]!r}", help=f"it is {self.program.signature}"
            )
        return SglFunction(self.program, self.bind_arguments | arguments)

    def run(self, *args: Any, **kwargs: Any) -> ProgramState:
        """Run on a new state and wait; with stream=True, return at once.

        Takes what SGLang's does (max_new_tokens, n, stop, stop_token_ids, temperature, top_p, top_k, min_p, penalties,
        ignore_eos, return_logprob, top_logprobs_num, stream, backend), eager and timeout; a parameter of the program
        goes before a setting of that name. Raises what the program itself raises; a generation that failed and that
        nobody has read is left in `error()`.
        """
        program = self.program
        settings = sort_out(kwargs, program.signature.parameters)
        arguments = program.signature.bind(args, self.bind_arguments | settings.arguments)
        run_options = program.run_options.updated(settings.options)
        if settings.stream:
            stream = Stream()
            return ProgramState.start(program.execution(arguments, run_options, stream), stream)
        state = ProgramState.of(_checked(program.finish(arguments, run_options)))
        if global_config.verbosity >= 2:
            print(state.text())
        return state

    def run_batch(
        self,
        batch_kwargs: Sequence[Any],
        *,
        backend: Any = None,
        num_threads: int | str = "auto",
        progress_bar: bool = False,
        generator_style: bool = False,
        **settings: Any,
    ) -> Any:
        """Run over rows: dicts of arguments, or lists of them in order. A list of ProgramStates in the rows' order.

        num_threads: how many rows run at a time. generator_style: an iterator, which gives each as soon as it and
        those before it have ended. A row that fails has its `error()`, and the others go on.
        """
        program = self.program.options(**options({**settings, "backend": backend}))
        rows = [self._row(number, row) for number, row in enumerate(batch_kwargs)]
        num_at_once = MAX_IN_FLIGHT if num_threads == "auto" else int(num_threads)
        batch = program.run_batch(rows, as_completed=True, progress=progress_bar, max_in_flight=num_at_once)
        return _in_order(batch) if generator_style else list(_in_order(batch))

    def trace(self, *, backend: Any = None, **arguments: Any) -> Compiled:
        """What is there to see of the program before it runs: its compiled form, for any arguments."""
        return self.program.compile()

    def cache(self, backend: Any = None) -> None:
        """Compute now what every run begins with: the text before anything that an unbound argument decides."""
        from .prefix import constant_prefix

        if plays():
            return  # no model is asked
        context = Context(self.program.run_options.updated(options({"backend": backend})).open_backend())
        prefix = constant_prefix(self.program.compile(), context.root(), self.bind_arguments)
        if prefix.text():
            prefix.append_value(build_gen(None, {"max_tokens": 1})).sync()

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if isinstance(self.program.signature.given_state(args, kwargs), State):
            return self.program(*args, **(self.bind_arguments | kwargs))
        return self.run(*args, **kwargs)

    def part(self, args: Sequence[Any], kwargs: dict[str, Any], is_stepped: bool = False) -> Any:
        """See Program."""
        return self.program.part(args, kwargs, is_stepped)

    @property
    def binds(self) -> Literal["nothing", "instance", "class"]:
        """See Program."""
        return self.program.binds

    def __set_name__(self, owner: type, name: str) -> None:
        self.program.__set_name__(owner, name)

    def __reduce__(self) -> tuple[Any, ...]:
        return SglFunction, (self.program, self.bind_arguments)

    def __get__(self, instance: object, owner: type | None = None) -> Any:
        bound = self.program.__get__(instance, owner)
        return self if bound is self.program else SglFunction(bound, self.bind_arguments)

    def __repr__(self) -> str:
        return f"<function {self.program.signature}>"

    def _row(self, number: int, row: Any) -> dict[str, Any]:
        """A row as a dict of arguments."""
        if isinstance(row, Mapping):
            return self.bind_arguments | dict(row)
        where = f"{self.program.name}: row {number}"
        if not isinstance(row, list | tuple):
            raise UsageError(f"{where} is {type(row).__name__}, not a dict or a list of arguments")
        names = [name for name in self.arg_names if name not in self.bind_arguments]
        if len(row) > len(names):
            raise UsageError(
                f"{where} has {len(row)} arguments, at most {len(names)} are taken",
                help=f"its arguments are {self.program.signature}",
            )
        return self.bind_arguments | dict(zip(names, row, strict=False))


def _checked(run: Run) -> Run:
    """Raise what the program itself raised; the error of a generation that nobody has read stays in the run."""
    if run.error is not None and not run.unread:
        raise run.error
    return run


def _in_order(batch: Batch) -> Iterator[ProgramState]:
    """The rows' states in their order, each as soon as it and those before it have ended."""
    early: dict[int | None, Run] = {}
    number = 0
    with batch:
        for run in batch:
            early[run.row] = run
            while number in early:
                yield ProgramState.of(early.pop(number))
                number += 1


@overload
def function(func: Callable[..., Any], /) -> SglFunction: ...
@overload
def function(*, num_api_spec_tokens: int | None = None) -> Callable[[Callable[..., Any]], SglFunction]: ...
def function(func: Any = None, /, num_api_spec_tokens: int | None = None) -> Any:
    """SGLang's decorator. As there, gens sample at temperature 1 unless something else is said.

    num_api_spec_tokens is the option speculative_tokens (docs/backends.md).
    """
    given = {**DEFAULTS, "speculative_tokens": num_api_spec_tokens or 0}

    def decorate(function: Callable[..., Any]) -> SglFunction:
        return SglFunction(Program(function, Options().updated(given)))

    return decorate if func is None else decorate(func)
