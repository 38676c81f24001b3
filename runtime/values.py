"""What a generated text stands for: itself, a value of a `dtype`, an object (`schema`) or calls of tools (`tools`)."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ..ir.errors import OutputError
from .constraint import Constraint
from .request import Done, SamplingParams

if TYPE_CHECKING:
    from .expression import Gen

DTYPES: dict[str, type] = {"int": int, "float": float, "bool": bool, "str": str}
_TRUE, _FALSE = ("true", "yes", "1"), ("false", "no", "0")
# What a text of a dtype looks like, for backends that can hold a model to it. A line break ends a number and is no part
# of it: models without chat training go on to the next line rather than end.
_WHOLE = r" ?[-+]?(0|[1-9][0-9]{0,17})"
_FORMS: dict[type, Constraint] = {
    int: Constraint("regex", rf"{_WHOLE}\n?"),
    float: Constraint("regex", rf"{_WHOLE}(\.[0-9]{{1,17}})?\n?"),
    bool: Constraint("regex", " ?(true|false|True|False|yes|no|Yes|No)"),
}


def typed(params: SamplingParams, dtype: type | None) -> SamplingParams:
    """The parameters of a generation whose text is to stand for a value of a dtype."""
    if dtype not in _FORMS:
        return params
    stop = params.stop if dtype is bool else (*params.stop, "\n")
    return replace(params, constraint=_FORMS[dtype], stop=stop)


def read_value(expression: Gen, done: Done, params: SamplingParams | None = None) -> Any:
    """The value of a finished generation. Raises OutputError, which carries the text."""
    schema, dtype = expression.schema, expression.dtype or str
    if schema is None and dtype is str:
        if done.is_cut:
            raise _cut_off(expression, done, params)
        return done.text
    try:
        return _convert(done.text, dtype) if schema is None else schema.decode(done.text)
    except ValueError as error:
        asked, kind = (schema.asked, schema.name) if schema else (f"dtype={dtype.__name__}", dtype.__name__)
        message = f"gen({expression.name!r}, {asked}) generated {_short(done.text)}, which is no {kind}"
        message += f" ({error})" if schema is not None else ""
        is_cut = done.finish_reason == "length"
        raise OutputError(
            f"{message}: max_tokens cut it off" if is_cut else message,
            text=done.text,
            help=_help(expression, params) if is_cut else None,
        ) from None


def _cut_off(expression: Gen, done: Done, params: SamplingParams | None) -> OutputError:
    constraint = params.constraint if params is not None else None
    asked = f", {constraint.label}=..." if constraint is not None else ""
    message = f"gen({expression.name!r}{asked}) generated {_short(done.text)}, which does not match"
    return OutputError(f"{message}: max_tokens cut it off", text=done.text, help=_help(expression, params))


def _help(expression: Gen, params: SamplingParams | None) -> str:
    """What to do about a text that was cut off."""
    if params is not None and params.close:
        return "raise max_tokens: no short way to end the text was found"
    return (
        "raise max_tokens" if expression.dtype else "raise max_tokens, or end the text in the shortest way: close=True"
    )


def _convert(text: str, dtype: type) -> Any:
    """A text as a value of a dtype. Raises ValueError."""
    stripped = text.strip()
    if dtype is not bool:
        return dtype(stripped)
    if stripped.lower() not in _TRUE + _FALSE:
        raise ValueError(text)
    return stripped.lower() in _TRUE


def _short(text: str) -> str:
    return repr(text) if len(text) <= 200 else f"{text[:150]!r}...{text[-30:]!r}"
