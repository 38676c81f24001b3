"""A function's parameters as a tool's: their JSON schema, and the conversion of what a model gives for them.

The annotations say what may be given (anything that msgspec knows, `Annotated[..., msgspec.Meta(...)]` included), the
docstring what it is for. A parameter without annotation takes anything.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Annotated, Any, get_args, get_origin, get_type_hints

import msgspec

from ..ir.errors import UsageError
from ..ir.span import Span

_KINDS = {
    inspect.Parameter.VAR_POSITIONAL: "takes *{}",
    inspect.Parameter.VAR_KEYWORD: "takes **{}",
    inspect.Parameter.POSITIONAL_ONLY: "takes {} by position only",
}


class Parameters:
    """The parameters of a tool. `type` has a field for each; `schema` is its JSON schema, as models are shown it."""

    def __init__(self, function: Callable[..., Any], texts: Mapping[str, str]) -> None:
        """texts: what the docstring says of parameters. Raises UsageError for one that no model could give."""
        self._signature = inspect.signature(function)
        for parameter in self._signature.parameters.values():
            if parameter.kind in _KINDS:
                what = _KINDS[parameter.kind].format(parameter.name)
                raise UsageError(
                    f"{function.__name__} {what}: a tool's arguments are given by name",
                    span=function_span(function),
                    help="give each parameter a name of its own",
                )
        types = {name: _described(hint, texts.get(name)) for name, hint in self._hints(function).items()}
        fields = [
            (name, types[name]) if parameter.default is parameter.empty else (name, types[name], _left_out())
            for name, parameter in self._signature.parameters.items()
        ]
        self.type = msgspec.defstruct(function.__name__, fields, kw_only=True, forbid_unknown_fields=True)
        try:
            self.schema = self._schema()
        except TypeError:
            raise _no_schema(function, types) from None

    def bind(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
        """The arguments of a Python call by name. Raises TypeError as Python does."""
        return dict(self._signature.bind(*args, **kwargs).arguments)

    def convert(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Arguments as the annotations say; those with a default may be missing, "3" may stand for 3.

        Raises msgspec.ValidationError.
        """
        converted = msgspec.convert(given, self.type, strict=False)
        values = {name: getattr(converted, name) for name in self.type.__struct_fields__}
        return {name: value for name, value in values.items() if value is not msgspec.UNSET}

    def _hints(self, function: Callable[..., Any]) -> dict[str, Any]:
        hints = get_type_hints(function, include_extras=True)
        return {name: hints.get(name, Any) for name in self._signature.parameters}

    def _schema(self) -> dict[str, Any]:
        (reference,), components = msgspec.json.schema_components([self.type], ref_template="#/$defs/{name}")
        own = components.pop(reference["$ref"].removeprefix("#/$defs/"))
        own.pop("title", None)
        for name, parameter in self._signature.parameters.items():
            if parameter.default is not parameter.empty and _is_plain(parameter.default):
                own["properties"][name].setdefault("default", msgspec.to_builtins(parameter.default))
        return {**own, "$defs": components} if components else own


def function_span(function: Callable[..., Any]) -> Span | None:
    """Where a function begins, for errors about it."""
    code = getattr(inspect.unwrap(function), "__code__", None)
    return None if code is None else Span(code.co_filename, code.co_firstlineno, 0, code.co_firstlineno, 1)


def _left_out() -> Any:
    """A field that may be missing; its default is the function's own affair."""
    return msgspec.field(default_factory=lambda: msgspec.UNSET)


def _described(hint: Any, text: str | None) -> Any:
    """An annotation with the docstring's text; what the annotation itself says comes first."""
    if not text:
        return hint
    inner, metas = (get_args(hint)[0], get_args(hint)[1:]) if get_origin(hint) is Annotated else (hint, ())
    made: Any = Annotated[inner, msgspec.Meta(description=text)]
    for meta in metas:
        made = Annotated[made, meta]
    return made


def _is_plain(value: Any) -> bool:
    """Whether a default can be shown in a schema."""
    try:
        msgspec.json.encode(value)
    except (TypeError, ValueError, msgspec.MsgspecError):
        return False
    return True


def _no_schema(function: Callable[..., Any], types: Mapping[str, Any]) -> UsageError:
    for name, kind in types.items():
        try:
            msgspec.json.schema(kind)
        except TypeError as error:
            return UsageError(
                f"parameter {name} of the tool {function.__name__} has a type that no JSON stands for: {kind!r}",
                span=function_span(function),
                help=f"annotate it with builtin types, dataclasses, TypedDicts, enums or msgspec.Structs ({error})",
            )
    raise AssertionError("each parameter has a schema, but all together have none")
