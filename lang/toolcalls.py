"""`call_tools`: the calls that a model asks for, run at once; what goes wrong comes back as a value it can be shown."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, cast

import msgspec

from ..ir.errors import UsageError
from ..runtime.context import running
from ..runtime.expression import RoleMark, Sequence, Spot
from ..runtime.tool_schema import RequestedCall
from ..runtime.toolcall import ToolCall, ToolError
from .tools import Tool, registered, spot_of_caller

# How models mark calls: Hermes and Qwen (one that is cut off or stopped has no end), Mistral, Llama 3.
_TAGGED = re.compile(r"<tool_call>\s*(.*?)\s*(?:</tool_call>|(?=<tool_call>)|\Z)", re.DOTALL)
_MARK = re.compile(r"\A\s*(?:\[TOOL_CALLS\]|<\|python_tag\|>)?\s*")
_DIVIDER = re.compile(r"[\s;]*")


@dataclass(frozen=True, slots=True)
class ToolResult:
    """What came of one call. id: the call's own id, if it came with one. ms: milliseconds."""

    name: str
    arguments: dict[str, Any]
    value: Any = None
    error: ToolError | None = None
    ms: float = 0.0
    id: str | None = None

    @property
    def ok(self) -> bool:
        """Whether it ended without an error."""
        return self.error is None

    @property
    def content(self) -> str:
        """The text for the model: a text as it is, an error as it says itself, any other value as JSON."""
        return content(self.value if self.error is None else self.error)


def content(value: object) -> str:
    """A value as the text of a tool message."""
    if isinstance(value, ToolResult):
        return value.content
    if isinstance(value, str | ToolError):
        return str(value)
    try:
        return msgspec.json.encode(value, enc_hook=str).decode()
    except (TypeError, ValueError, RecursionError):
        return str(value)


def tool_message(result: object) -> Sequence:
    """A message of the role "tool": a ToolResult, a text, or any value, which is written as JSON."""
    call = (result.name, result.id) if isinstance(result, ToolResult) else None
    return Sequence((RoleMark("tool", "begin", call=call), content(result), RoleMark("tool", "end")))


@dataclass(frozen=True, slots=True)
class _Asked:
    """A call as it was asked for; `wrong` is set when it cannot even be read.

    tool: the one that the call names, if `gen(tools=...)` has said which.
    """

    name: str
    arguments: Mapping[str, Any]
    id: str | None = None
    wrong: ToolError | None = None
    tool: Tool | None = None


def call_tools(calls: Any, tools: Iterable[Tool | Callable[..., Any]] | None = None) -> list[ToolResult]:
    """Run the calls that a model has written, all at once; the results are in the order of the calls.

    calls: one call or a list of them; a call is what `gen(tools=...)` has made, an object or dict with `name` and
    `arguments` (also inside `function`, as chat APIs write it; arguments may be JSON text), or JSON text that holds one
    or a list, also as models write it: in <tool_call> tags, behind [TOOL_CALLS] or <|python_tag|>, several divided by
    ";". tools: those that may be called; None is every registered one, and for what `gen(tools=...)` has made the tool
    that it names. An unknown tool, arguments that do not fit, an exception and a timeout are the `error` of the call's
    result. Raises UsageError for tools that are none.
    """
    known = _by_name(tools)
    where = spot_of_caller()
    begun: list[tuple[_Asked, ToolCall]] = []
    try:
        for asked in _read(calls):
            allowed = {asked.name: asked.tool} if tools is None and asked.tool is not None else known
            begun.append((asked, _begin(asked, allowed, where)))
        return [_result(asked, call) for asked, call in begun]
    except BaseException as error:
        for _, call in begun:
            call.give_up(error)
        raise


def describe_tools(tools: Iterable[Tool | Callable[..., Any]]) -> str:
    """What a model is told of tools: the JSON of each one's `schema` on a line of its own."""
    return "\n".join(content(each.schema) for each in _by_name(tools).values())


def _by_name(tools: Iterable[Tool | Callable[..., Any]] | None) -> dict[str, Tool]:
    if tools is None:
        return registered()
    made = [each if isinstance(each, Tool) else Tool(each) for each in tools]
    known = {each.name: each for each in made}
    if len(known) < len(made):
        names = [each.name for each in made]
        twice = next(name for name in names if names.count(name) > 1)
        raise UsageError(f"there are two tools of the name {twice!r}", help="give one of them another: @tool(name=...)")
    return known


def _begin(asked: _Asked, known: Mapping[str, Tool], where: Spot) -> ToolCall:
    wrong = asked.wrong
    if wrong is None:
        if asked.name in known:
            return known[asked.name].begin(asked.arguments, where)
        names = ", ".join(sorted(known)) or "none"
        wrong = ToolError(asked.name, "UnknownTool", f"there is no such tool; the tools are: {names}")
    call = ToolCall(asked.name, dict(asked.arguments), _nothing, is_async=False, timeout=None, where=where)
    if (context := running.get()) is not None:
        context.add_tool(call)
    call.give_up(wrong)
    return call


def _nothing() -> None:
    """The work of a call that never starts."""


def _result(asked: _Asked, call: ToolCall) -> ToolResult:
    value, error = None, None
    try:
        value = call.pending.wait()
    except Exception as raised:
        context = running.get()
        if context is not None and raised is context.cancelled:
            raise
        error = ToolError.of(asked.name, raised)
    if isinstance(value, ToolError):
        value, error = None, value
    return ToolResult(asked.name, call.arguments, value, error, call.ms, asked.id)


def _read(calls: Any) -> list[_Asked]:
    """The calls in whatever form they came; ones that cannot be read carry the reason."""
    if calls is None:
        return []
    if isinstance(calls, str | bytes):
        try:
            calls = _decoded(calls)
        except (msgspec.DecodeError, UnicodeError) as error:
            if isinstance(calls, str) and (blocks := _TAGGED.findall(calls)):
                return [asked for block in blocks for asked in _read(block)]
            return [_unreadable(f"the call is not JSON: {error}")]
        if not isinstance(calls, dict | list):
            return [_unreadable("a call is a JSON object with name and arguments")]
    if isinstance(calls, list | tuple):
        return [asked for each in calls for asked in _read(each)]
    return [_read_one(calls)]


def _decoded(text: str | bytes) -> Any:
    """JSON, or several objects divided by ";" or line breaks as a list of them. Raises DecodeError, UnicodeError."""
    if isinstance(text, str):
        text = _MARK.sub("", text)
    try:
        return msgspec.json.decode(text)
    except msgspec.DecodeError:
        if not isinstance(text, str) or not text.startswith("{"):
            raise
        with suppress(ValueError, RecursionError):
            return _several(text)
        raise


def _several(text: str) -> list[Any]:
    """Objects one behind the other. Raises ValueError."""
    found: list[Any] = []
    place = 0
    while place < len(text):
        each, place = json.JSONDecoder().raw_decode(text, place)
        found.append(each)
        place = _DIVIDER.match(text, place).end()  # type: ignore[union-attr]
    return found


def _read_one(call: Any) -> _Asked:
    if isinstance(call, RequestedCall):
        return _Asked(call.name, call.arguments, call.id, tool=cast(Tool, call.tool))
    function = _part(call, "function")
    named = call if function is None else function
    name, given, id = _part(named, "name"), _part(named, "arguments"), _part(call, "id")
    if given is None:
        given = _part(named, "parameters")
    if not isinstance(name, str) or not name:
        return _unreadable(f"a call needs a name: {call!r:.200}")
    id = id if isinstance(id, str) else None
    try:
        return _Asked(name, _arguments(given), id)
    except ValueError as error:
        return _Asked(name, {}, id, ToolError(name, "InvalidCall", str(error)))


def _unreadable(reason: str) -> _Asked:
    return _Asked("", {}, wrong=ToolError("", "InvalidCall", reason))


def _part(call: Any, name: str) -> Any:
    return call.get(name) if isinstance(call, Mapping) else getattr(call, name, None)


def _arguments(given: Any) -> dict[str, Any]:
    """Arguments as a dict of names. Raises ValueError for what is none."""
    if given is None or given == "":
        return {}
    if isinstance(given, str | bytes):
        try:
            given = msgspec.json.decode(given)
        except msgspec.DecodeError as error:
            raise ValueError(f"the arguments are not JSON: {error}") from None
    elif not isinstance(given, Mapping):
        given = msgspec.to_builtins(given, enc_hook=lambda value: value)
    if not isinstance(given, Mapping) or not all(isinstance(name, str) for name in given):
        raise ValueError(f"the arguments are an object of names and values, not {given!r:.200}")
    return dict(given)
