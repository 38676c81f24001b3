"""Tools known by the JSON schema of their arguments alone: a server's, or functions that are only described."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Mapping
from typing import Any, cast

from ..ir.errors import UsageError
from ..runtime.toolcall import ToolError
from .tools import Errors, Tool, check_options

__all__ = ["SchemaTool"]


class SchemaTool(Tool):
    """A tool described by a JSON schema. Arguments are passed on as they are, by name.

    parameters: the schema of the arguments. function: what a call runs, a function of named arguments, which may be
    async (is_async); without it a call fails with a ToolError.
    """

    def __init__(
        self,
        name: str,
        description: str,
        parameters: Mapping[str, Any],
        function: Callable[..., Any] | None = None,
        *,
        is_async: bool = False,
        timeout: float | None = None,
        errors: Errors = "raise",
    ) -> None:
        """Raises UsageError for options that no tool has."""
        check_options(None, name, timeout, errors)
        # Not Tool's own: there is no Python signature to read anything from.
        self.name = self.__name__ = self.__qualname__ = name
        self.fn = cast(Any, function or _absent(name))
        self.timeout = timeout
        self.errors = errors
        self.pure = False
        self.is_async = is_async
        self.description = self.__doc__ = description
        self._parameters: Any = _Parameters(name, parameters)
        self._value_kind = "object"

    @property
    def arguments_schema(self) -> dict[str, Any]:
        """The schema of the arguments, as it was given."""
        return self.parameters

    def __get__(self, instance: object, owner: type | None = None) -> Tool:
        return self

    def __reduce__(self) -> Any:
        raise pickle.PicklingError(f"tool {self.name} cannot be pickled: no name of a module leads to it")


def _absent(name: str) -> Callable[..., Any]:
    def call(**_: Any) -> Any:
        raise ToolError(name, "NotImplemented", "the tool is only described; there is no function to run")

    call.__name__ = call.__qualname__ = name
    return call


class _Parameters:
    """The parameters of a tool by a JSON schema, which is for whoever runs the call to check."""

    def __init__(self, tool: str, schema: Mapping[str, Any]) -> None:
        self._tool = tool
        self.schema = {**schema, "properties": schema.get("properties", {})}

    @property
    def type(self) -> Any:
        raise UsageError(
            f"the tool {self._tool} is known by a JSON schema, so its arguments have no Python type",
            help="gen(tools=[tool]) has the model write a call, gen(json_schema=tool.parameters) the arguments",
        )

    def bind(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
        """The arguments of a Python call: those by position in the order of the schema's properties."""
        names = list(self.schema["properties"])
        if len(args) > len(names):
            raise TypeError(f"{self._tool} takes {len(names)} arguments, got {len(args)}")
        given = dict(zip(names, args, strict=False))
        if twice := given.keys() & kwargs.keys():
            raise TypeError(f"{self._tool} got two values for {min(twice)!r}")
        return given | kwargs

    def convert(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """As they are."""
        return dict(given)
