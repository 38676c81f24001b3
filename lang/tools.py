"""`@tool` makes a function a tool: something that a program or a model calls by name with checked arguments.

A tool is its function with a schema. Inside a program it runs off the interpreter's loop and off the host pool
(runtime/toolcall.py), with a timeout, and each call has a record in the run's trace.
"""

from __future__ import annotations

import inspect
import pickle
import sys
from collections.abc import Callable, Coroutine, Mapping
from functools import partial, update_wrapper
from importlib import import_module
from types import FunctionType, MethodType
from typing import Any, Literal, get_type_hints, overload
from weakref import WeakValueDictionary

import msgspec

from ..ir.errors import UsageError
from ..runtime.context import running
from ..runtime.expression import Spot
from ..runtime.schema import schema_of
from ..runtime.toolcall import ToolCall, ToolError
from .docstrings import parse_docstring
from .tool_parameters import Parameters, function_span

_KINDS: dict[Any, str] = {str: "text", int: "scalar", float: "scalar", bool: "scalar"}
Errors = Literal["raise", "value"]
_registry: WeakValueDictionary[str, Tool] = WeakValueDictionary()


class Tool:
    """A function that programs and models call. `fn` is the function, which may be async; `name` the tool's name.

    description: what the docstring says. parameters: the JSON schema of its arguments. timeout: in seconds, None is no
    limit. errors: whether a call that fails raises, or gives a ToolError as its value. pure: whether it neither has
    effects nor depends on any, so that calls may change places with what else the program does.
    """

    __ramify__ = "tool"

    def __init__(
        self,
        function: Callable[..., Any],
        *,
        name: str | None = None,
        timeout: float | None = None,
        errors: Errors = "raise",
        pure: bool = False,
    ) -> None:
        """Raises UsageError for what cannot be a tool, and for options that are none."""
        if not isinstance(function, FunctionType | MethodType) or inspect.isasyncgenfunction(function):
            raise UsageError(f"a tool is a function or a method, not {type(function).__name__}: {function!r}")
        check_options(function, name, timeout, errors)
        self.fn = function
        self.name = name or function.__name__
        self.timeout = timeout
        self.errors = errors
        self.pure = pure
        self.is_async = inspect.iscoroutinefunction(function)
        self.description, texts = parse_docstring(function.__doc__)
        self._parameters = Parameters(function, texts)
        self._value_kind = _KINDS.get(get_type_hints(function).get("return"), "object")
        update_wrapper(self, function)

    @property
    def value_kind(self) -> str:
        """What the function says that it returns: a "text", a "scalar" (number or bool), else an "object"."""
        return self._value_kind

    @property
    def parameters(self) -> dict[str, Any]:
        """The JSON schema of the arguments."""
        return self._parameters.schema

    @property
    def arguments_type(self) -> type[msgspec.Struct]:
        """What the arguments of a call decode to: `gen(schema=tool.arguments_type)` has the model write them."""
        return self._parameters.type

    @property
    def arguments_schema(self) -> dict[str, Any]:
        """The JSON schema that arguments match which `gen(tools=...)` generates: as narrow as their types.

        Raises TypeError for types whose JSON a schema cannot tell.
        """
        schema = msgspec.json.decode(schema_of(self.arguments_type).constraint.source)
        definitions = schema["$defs"]
        arguments: dict[str, Any] = definitions.pop(schema["$ref"].removeprefix("#/$defs/"))
        return {**arguments, "$defs": definitions} if definitions else arguments

    def check(self, arguments: Mapping[str, Any]) -> None:
        """Raises ValueError that says what is wrong with arguments by name, as JSON says them."""
        try:
            self._parameters.convert(arguments)
        except msgspec.ValidationError as error:
            raise ValueError(f"{self.name}: {error}") from None

    @property
    def schema(self) -> dict[str, Any]:
        """The tool as chat APIs and chat templates describe one to a model."""
        function = {"name": self.name, "description": self.description, "parameters": self.parameters}
        return {"type": "function", "function": function}

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the function, an async one too, and wait for its value.

        Raises what the function raises, and ToolError for arguments that do not fit and at the timeout; with
        errors="value" all of these are the call's value, a ToolError.
        """
        where = spot_of_caller()
        try:
            given = self._bind(args, kwargs)
            if running.get() is None and not self.is_async and self.timeout is None:
                return self.fn(**self._convert(given))
            return waited(self.begin(given, where))
        except Exception as error:
            return self._failed(error)

    def acall(self, *args: Any, **kwargs: Any) -> Coroutine[Any, Any, Any]:
        """The same, awaited inside asyncio; an async function runs on the caller's own event loop."""
        return self._acall(spot_of_caller(), args, kwargs)

    async def _acall(self, where: Spot, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        try:
            call = self.begin(self._bind(args, kwargs), where, here=True)
            return await call.arrival()
        except Exception as error:
            return self._failed(error)

    def begin(self, given: Mapping[str, Any], where: Spot | None, *, here: bool = False) -> ToolCall:
        """Start a call; whatever is wrong with the arguments is its outcome. Raises why the run was cancelled.

        here: run an async function on the asyncio loop of the caller.
        """
        arguments, wrong = dict(given), None
        try:
            arguments = self._convert(given)
        except ToolError as error:
            wrong = error
        work = partial(self.fn, **arguments)
        call = ToolCall(self.name, arguments, work, is_async=self.is_async, timeout=self.timeout, where=where)
        if (context := running.get()) is not None:
            context.add_tool(call)
        if wrong is not None:
            call.give_up(wrong)
        elif context is not None and context.track is not None and context.track.call(call):
            pass  # the recording has answered
        elif here and self.is_async:
            call.start_here()
        else:
            call.start()
        return call

    def __get__(self, instance: object, owner: type | None = None) -> Tool:
        """A tool in a class is a method: asked of an instance, it is the tool that works on the instance."""
        if instance is None:
            return self
        bound = MethodType(self.fn, instance)
        return Tool(bound, name=self.name, timeout=self.timeout, errors=self.errors, pure=self.pure)

    def __set_name__(self, owner: type, name: str) -> None:
        if _registry.get(self.name) is self:  # only the tools of instances can be called by name
            del _registry[self.name]

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        """Pickled by reference, as functions are. Raises PicklingError if the name does not lead here."""
        if isinstance(self.fn, MethodType):
            return getattr, (self.fn.__self__, self.fn.__name__)
        home, name = self.fn.__module__, self.fn.__qualname__
        if _named(home, name) is not self:
            raise pickle.PicklingError(f"tool {name} cannot be pickled: it is not what {home}.{name} names")
        return _named, (home, name)

    def __repr__(self) -> str:
        return f"<tool {self.name}({', '.join(self.parameters['properties'])})>"

    def _bind(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
        try:
            return self._parameters.bind(args, kwargs)
        except TypeError as error:
            raise ToolError(self.name, "InvalidArguments", str(error)) from None

    def _convert(self, given: Mapping[str, Any]) -> dict[str, Any]:
        try:
            return self._parameters.convert(given)
        except msgspec.ValidationError as error:
            raise ToolError(self.name, "InvalidArguments", str(error)) from None

    def _failed(self, error: Exception) -> ToolError:
        context = running.get()
        if self.errors == "raise" or (context is not None and error is context.cancelled):
            raise error
        return ToolError.of(self.name, error)


def _named(home: str, name: str) -> Any:
    """What a dotted name in a module means; None when it means nothing."""
    found: Any = import_module(home)
    for part in name.split("."):
        found = getattr(found, part, None)
    return found


def check_options(function: Callable[..., Any] | None, name: object, timeout: object, errors: object) -> None:
    """Raises UsageError for options that no tool has, at the function that was to be one."""
    span = None if function is None else function_span(function)
    if name is not None and not (isinstance(name, str) and name):
        raise UsageError(f"a tool's name is a text, not {name!r}", span=span)
    if timeout is not None and not (isinstance(timeout, int | float) and timeout > 0):
        raise UsageError(f"timeout is a number of seconds above 0, or None for no limit; got {timeout!r}", span=span)
    if errors not in ("raise", "value"):
        raise UsageError(f'errors is "raise" or "value", not {errors!r}', span=span)


def waited(call: ToolCall) -> Any:
    """The value of a call that has begun; a wait that is interrupted gives the call up."""
    try:
        return call.pending.wait()
    except BaseException as error:
        call.give_up(error)
        raise


def spot_of_caller() -> Spot:
    """Where the caller of the tool stands."""
    frame = sys._getframe(2)
    return Spot(frame.f_code, frame.f_lasti)


def registered() -> dict[str, Tool]:
    """The tools that `@tool` has made and that are still in use, by name; of two with one name the later one."""
    return dict(_registry)


@overload
def tool(function: Callable[..., Any], /) -> Tool: ...
@overload
def tool(
    *, name: str | None = None, timeout: float | None = None, errors: Errors = "raise", pure: bool = False
) -> Callable[[Callable[..., Any]], Tool]: ...
def tool(function: Any = None, /, **options: Any) -> Any:
    """Make a function a Tool and register it: `@tool`, or `@tool(timeout=5, errors="value", name=..., pure=...)`."""
    if unknown := sorted(options.keys() - {"name", "timeout", "errors", "pure"}):
        raise UsageError(f"a tool has no option {unknown[0]!r}", help="its options are name, timeout, errors and pure")
    if function is None:
        return lambda function: tool_of(function, **options)
    return tool_of(function, **options)


def tool_of(function: Callable[..., Any], **options: Any) -> Tool:
    """A new tool, registered under its name."""
    made = Tool(function, **options)
    _registry[made.name] = made
    return made
