"""Calls of tools as text that a generation writes, and the text back as the calls: `gen(tools=[...])`.

As JSON a call is an object of the tool's name and its arguments, in this order; of several tools one is an alternative
of the schema. In a message of the assistant a backend may have a form of its own for calls, such as that of the model's
chat template (call_format.py). What the tool itself says of the arguments is checked when the text is decoded.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeGuard

import msgspec

from ..ir.errors import Unsupported
from .call_format import CallFormat, WrittenCall
from .call_grammar import CallRequest
from .constraint import Constraint

MOST_CALLS = 8
"""How many calls `num_calls="any"` allows."""
_Json = dict[str, Any]


class Writable(Protocol):
    """A tool, as far as calls of it are written."""

    @property
    def name(self) -> str: ...

    @property
    def schema(self) -> _Json:
        """The tool as chat APIs and chat templates describe one to a model."""

    @property
    def arguments_schema(self) -> _Json:
        """The JSON schema that the arguments of a call match."""

    def check(self, arguments: Mapping[str, Any]) -> None:
        """Raises ValueError that says what is wrong with the arguments."""


@dataclass(frozen=True, slots=True)
class RequestedCall:
    """A call of a tool as a model has written it: `rf.call_tools` runs it.

    arguments: as JSON says them. id: which call it is, where the form that it was written in says so.
    """

    name: str
    arguments: dict[str, Any]
    tool: Writable = field(compare=False, repr=False)
    id: str | None = field(default=None, compare=False, repr=False)


@dataclass(frozen=True)
class CallSchema:
    """Tools with the constraint under which calls of them are generated.

    bounds: the least and the most calls of a list of them; None for one call. form: how calls are written; None is
    JSON.
    """

    tools: Mapping[str, Writable]
    bounds: tuple[int, int] | None
    constraint: Constraint
    form: CallFormat | None = None
    _written: dict[tuple[CallFormat, bool], CallSchema] = field(default_factory=dict, compare=False, repr=False)

    @property
    def is_list(self) -> bool:
        """Whether the calls are a list."""
        return self.bounds is not None

    @property
    def asked(self) -> str:
        """What the gen says."""
        return f"tools=[{', '.join(self.tools)}]"

    @property
    def name(self) -> str:
        """What the text is."""
        return "list of calls of them" if self.is_list else "call of them"

    def decode(self, text: str) -> Any:
        """The call, or the list of them, that a text holds. Raises ValueError that says what is wrong."""
        if self.form is not None:
            return self._read(self.form, text)
        try:
            if self.is_list:
                found = msgspec.json.decode(text, type=list[_Call])
                return [self._call(each.name, each.arguments) for each in found]
            call = msgspec.json.decode(text, type=_Call)
            return self._call(call.name, call.arguments)
        except msgspec.MsgspecError as error:
            raise ValueError(str(error)) from None

    def written_in(self, form: CallFormat, *, follows_text: bool) -> CallSchema:
        """The same in a backend's own form. follows_text: whether the message has text before the calls.

        Raises Unsupported for more calls than the form has room for, and what is wrong with the tools' schemas.
        """
        found = self._written.get((form, follows_text))
        if found is None:
            found = self._written[form, follows_text] = self._in_form(form, follows_text)
        return found

    def _in_form(self, form: CallFormat, follows_text: bool) -> CallSchema:
        self.constraint.check()
        least, most = self.bounds or (1, 1)
        if form.separator is None and least > 1:
            raise Unsupported(
                f"the model's chat template has one call in a message, and num_calls asks for {least} or more",
                help='ask for one call, or at most some: num_calls="any"',
            )
        tools = [
            {**tool.schema["function"], "parameters": _described(tool.arguments_schema, tool.schema)}
            for tool in self.tools.values()
        ]
        source = msgspec.json.encode(CallRequest(form, tools, least, most, follows_text)).decode()
        return CallSchema(self.tools, self.bounds, Constraint("calls", source), form)

    def written(self, text: str) -> list[WrittenCall]:
        """The calls in a text of the form; none in one that is words. Raises ValueError."""
        return (self.form.read(text) if self.form is not None else None) or []

    def _read(self, form: CallFormat, text: str) -> Any:
        calls = [self._call(*each) for each in self.written(text)]
        least, most = self.bounds or (1, 1)
        if not least <= len(calls) <= most:
            wanted = str(least) if least == most else f"{least} to {most}"
            raise ValueError(f"{len(calls)} calls where there are to be {wanted}")
        return calls if self.is_list else calls[0]

    def _call(self, name: str, arguments: Any, id: str | None = None) -> RequestedCall:
        tool = self.tools.get(name)
        if tool is None:
            raise ValueError(f"there is no tool {name!r}")
        if not isinstance(arguments, dict):
            raise ValueError(f"the arguments are an object of names and values, not {arguments!r:.60}")
        tool.check(arguments)
        return RequestedCall(name, arguments, tool, id)


class _Call(msgspec.Struct, forbid_unknown_fields=True):
    """A call as it is written."""

    name: str
    arguments: dict[str, Any]


def call_schema(tools: object, num_calls: object = None) -> CallSchema:
    """The schema of `gen(tools=..., num_calls=...)`.

    num_calls: None is one call; else a list of them, of which it says the length: a number, the least and the most, or
    "any", which is 0 to MOST_CALLS. Raises TypeError and ValueError for what is none of these, and for tools that are
    none, of the same name, or none at all.
    """
    known = tools_by_name(tools)
    bounds = _bounds(num_calls)
    schema = _one_of(known)
    if bounds is not None:
        definitions = schema.pop("$defs")
        least, most = bounds
        schema = {"type": "array", "items": schema, "minItems": least, "maxItems": most, "$defs": definitions}
    return CallSchema(known, bounds, Constraint("json_schema", msgspec.json.encode(schema).decode()))


def tools_by_name(tools: object) -> dict[str, Writable]:
    """The tools of a list, by their names. Raises TypeError and ValueError as call_schema does."""
    if not isinstance(tools, Iterable) or isinstance(tools, str | bytes | Mapping):
        raise TypeError(f"tools takes a list of tools, not {type(tools).__name__}: {tools!r:.60}")
    known: dict[str, Writable] = {}
    for each in tools:
        if not _is_tool(each):
            what = getattr(each, "__name__", None) or f"{each!r:.60}"
            raise TypeError(f"tools takes tools, and {what} is none; @rf.tool makes a function one")
        if each.name in known:
            raise ValueError(f"tools holds two tools of the name {each.name!r}; @rf.tool(name=...) gives one another")
        known[each.name] = each
    if not known:
        raise ValueError("tools is empty: there is nothing to call; leave it out where no tool may be called")
    return known


def _is_tool(value: object) -> TypeGuard[Writable]:
    return getattr(value, "__ramify__", None) == "tool"


def _bounds(num_calls: object) -> tuple[int, int] | None:
    """The least and the most calls; None when it is one that is no list."""
    match num_calls:
        case None:
            return None
        case "any":
            return 0, MOST_CALLS
        case int() if not isinstance(num_calls, bool) and num_calls > 0:
            return num_calls, num_calls
        case [int() as least, int() as most] if 0 <= least <= most and most > 0:
            return least, most
    raise TypeError(f'num_calls is a number above 0, the least and the most as (0, 3), or "any"; got {num_calls!r:.60}')


def _one_of(tools: Mapping[str, Writable]) -> _Json:
    """The schema of one call, with those of the arguments in "$defs"."""
    ways, definitions = list[_Json](), _Json()
    for index, (name, tool) in enumerate(tools.items()):
        place = f"arguments{index}"
        definitions[place] = _moved(tool.arguments_schema, f"#/$defs/{place}")
        properties = {"name": {"type": "string", "const": name}, "arguments": {"$ref": f"#/$defs/{place}"}}
        required = list(properties)
        ways.append({"type": "object", "properties": properties, "required": required, "additionalProperties": False})
    return {**(ways[0] if len(ways) == 1 else {"anyOf": ways}), "$defs": definitions}


def _moved(schema: Any, place: str) -> Any:
    """A schema that now stands at a place inside another, where its references lead to itself again."""
    if isinstance(schema, list):
        return [_moved(each, place) for each in schema]
    if not isinstance(schema, dict):
        return schema
    return {
        key: place + part[1:]
        if key == "$ref" and isinstance(part, str) and part.startswith("#")
        else _moved(part, place)
        for key, part in schema.items()
    }


def _described(arguments: _Json, schema: _Json) -> _Json:
    """The schema of a tool's arguments with what the tool says of each in words."""
    told = schema["function"]["parameters"].get("properties", {})
    texts = {
        name: part["description"] for name, part in told.items() if isinstance(part, dict) and "description" in part
    }
    properties = {
        name: {**part, "description": texts[name]} if name in texts and isinstance(part, dict) else part
        for name, part in arguments.get("properties", {}).items()
    }
    return {**arguments, "properties": properties} if texts else arguments
