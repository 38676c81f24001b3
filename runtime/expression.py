"""What the primitives build and `prompt += ...` takes: text, generations, choices, role marks and sequences of them.

Expressions are inert values: nothing runs before one is appended to a prompt. `lang/primitives.py` builds them for the
user's code, the interpreter builds the same ones from `lm.*` ops, so both reject the same arguments in the same way.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from functools import lru_cache
from types import CodeType
from typing import Any, ClassVar, Literal

from ..ir.errors import RamifyError, UsageError
from ..ir.span import Span
from .call_format import CallFormat
from .choices import CHOICE_METHODS, ChoiceMethod, token_length_normalized
from .constraint import Constraint, take_constraint
from .request import SamplingParams
from .schema import Schema, schema_of
from .tool_schema import CallSchema, Writable, call_schema, tools_by_name
from .values import DTYPES

# What a gen says of its sampling by name; its constraint is built from other arguments.
SAMPLING_NAMES = frozenset(f.name for f in fields(SamplingParams)) - {"constraint"}
_EXCLUSIVE = ("choices", "dtype", "regex", "json_schema", "schema", "grammar", "tools")


@dataclass(frozen=True, slots=True)
class Spot:
    """A place in running code (code object and instruction offset); cheap to take, turned into a Span on demand."""

    code: CodeType
    instruction: int

    def span(self) -> Span | None:
        """The source range of the instruction, if the code object knows it."""
        positions = list(self.code.co_positions())
        index = self.instruction // 2
        if index >= len(positions):
            return None
        line, end_line, column, end_column = positions[index]
        if line is None or end_line is None or column is None or end_column is None:
            return None
        place = ast.expr(lineno=line, end_lineno=end_line, col_offset=column, end_col_offset=end_column)
        return Span.from_node(place, self.code.co_filename)


Where = Spot | Span | None


def span_of(where: Where) -> Span | None:
    """The span of a place."""
    return where.span() if isinstance(where, Spot) else where


@dataclass(frozen=True, slots=True)
class Hints:
    """What the compiler knows of a request; nothing of it changes the result.

    share: the answer of an equal request will do (runtime/sharing.py). keep: whether a generation or choice goes on
    from where this one ends (runtime/uses.py); None when nobody knows. plan: whether it is planned with the requests
    that come at the same time (runtime/scheduler.py); None when the compiler has no say.
    """

    share: bool = False
    keep: bool | None = None
    plan: bool | None = None


class Expression:
    """Base of all expressions: `+` joins them with one another and with text."""

    __slots__ = ()

    def __add__(self, other: object) -> Sequence:
        return _join(self, other)

    def __radd__(self, other: object) -> Sequence:
        return _join(other, self)

    def __pos__(self) -> Expression:
        raise UsageError("an expression has no unary +", help="to append it, write `s += ...`, not `s =+ ...`")

    def __format__(self, spec: str) -> str:
        """Refused: the text would hold a description of the call, and nothing would be generated."""
        kind = type(self).__name__
        raise UsageError(
            f"an expression ({kind}) cannot be formatted into text",
            help='join them with +, as in "The answer is " + rf.gen("x"); {...!r} shows an expression',
        )


@dataclass(frozen=True, slots=True)
class Gen(Expression):
    """A generation. `params` holds the sampling parameters that were given; the others come from the run.

    dtype or schema: what the text stands for, if not for itself; a CallSchema where it is calls of tools.
    """

    kind: ClassVar[Literal["gen"]] = "gen"
    name: str | None
    params: tuple[tuple[str, Any], ...] = ()
    dtype: type | None = None
    schema: Schema | CallSchema | None = None
    where: Where = field(default=None, compare=False, repr=False)
    hints: Hints = field(default=Hints(), compare=False, repr=False)


def with_calls_in(form: CallFormat, expression: Gen, *, follows_text: bool) -> Gen:
    """A gen of calls that are written in a form of the backend's own. Raises as CallSchema.written_in."""
    assert isinstance(expression.schema, CallSchema)
    schema, given = expression.schema.written_in(form, follows_text=follows_text), dict(expression.params)
    constraint = replace(schema.constraint, has_space=given["constraint"].has_space)
    return replace(expression, schema=schema, params=tuple((given | {"constraint": constraint}).items()))


@dataclass(frozen=True, slots=True)
class Select(Expression):
    """A choice among texts."""

    kind: ClassVar[Literal["select"]] = "select"
    name: str | None
    choices: tuple[str, ...]
    method: ChoiceMethod = token_length_normalized
    where: Where = field(default=None, compare=False, repr=False)
    hints: Hints = field(default=Hints(), compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Score(Expression):
    """The log-probabilities of texts, which are not appended. `single`: one text was given, not a list of one."""

    kind: ClassVar[Literal["score"]] = "score"
    name: str
    texts: tuple[str, ...]
    single: bool = False
    where: Where = field(default=None, compare=False, repr=False)
    hints: Hints = field(default=Hints(), compare=False, repr=False)


# What becomes a request to the backend.
Call = Gen | Select | Score


@dataclass(frozen=True, slots=True)
class RoleMark(Expression):
    """The beginning (`mark` "begin") or the end ("end") of a chat message.

    tools: those that a first message declares. call: the name and the id of the call of which a tool's message has the
    result.
    """

    role: str
    mark: str
    tools: tuple[Writable, ...] = ()
    call: tuple[str, str | None] | None = None


@dataclass(frozen=True, slots=True)
class Declared(Expression):
    """The end of the text of a message that declares tools: where they are told of if nothing else tells of them."""

    tools: tuple[Writable, ...]


@dataclass(frozen=True, slots=True)
class Sequence(Expression):
    """Parts one after another: texts and expressions."""

    parts: tuple[str | Expression, ...]


def role_message(role: str, body: object, tools: object = None) -> Sequence:
    """A whole chat message of a role, which may declare tools.

    Raises TypeError for a body that cannot be appended, TypeError and ValueError for tools that are none.
    """
    if tools is None:
        return Sequence((RoleMark(role, "begin"), as_part(body), RoleMark(role, "end")))
    known = tuple(tools_by_name(tools).values())
    return Sequence((RoleMark(role, "begin", known), as_part(body), Declared(known), RoleMark(role, "end")))


def hinted(expression: Expression, hints: Hints) -> Expression:
    """The expression with hints for the requests in it: what goes for the end goes for the last one only."""
    if isinstance(expression, Call):
        return replace(expression, hints=hints)
    if not isinstance(expression, Sequence):
        return expression
    inner = replace(hints, keep=None if hints.keep is None else True)
    parts = flatten(expression)
    last = max((index for index, part in enumerate(parts) if isinstance(part, Call)), default=-1)
    return Sequence(
        tuple(
            replace(part, hints=hints if index == last else inner) if isinstance(part, Call) else part
            for index, part in enumerate(parts)
        )
    )


def flatten(expression: Expression) -> list[str | Expression]:
    """The texts, calls and marks of an expression, in order."""
    flat: list[str | Expression] = []
    todo: list[str | Expression] = [expression]
    while todo:
        part = todo.pop()
        if isinstance(part, Sequence):
            todo.extend(reversed(part.parts))
        else:
            flat.append(part)
    return flat


def as_part(value: object) -> str | Expression:
    """The value, if it can be appended. Raises TypeError."""
    if isinstance(value, str | Expression):
        return value
    raise not_content(value)


def not_content(value: object) -> TypeError:
    """The error for a value that is neither text nor an expression."""
    if isinstance(mark := getattr(value, "__ramify__", None), str) and callable(value):
        return TypeError(f"a prompt takes text and expressions, not the {mark} itself; call it: {_called(value)}")
    hint = "" if value is not None else " (did a function forget to return?)"
    return TypeError(f"a prompt takes text and expressions, not {describe(value)}{hint}")


def _called(function: object) -> str:
    return f"{getattr(function, '__name__', 'it')}(...)"


def describe(value: object) -> str:
    """A value's type and the beginning of its text."""
    return f"{type(value).__name__}: {_short(value)}"


def _join(left: object, right: object) -> Sequence:
    parts: list[str | Expression] = []
    for side in (as_part(left), as_part(right)):
        parts.extend(side.parts if isinstance(side, Sequence) else (side,))
    return Sequence(tuple(parts))


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def build_gen(name: object = None, params: Mapping[str, Any] | None = None, where: Where = None) -> Gen | Select:
    """The expression of `gen(name, **params)`; a parameter that is None counts as not given.

    Raises TypeError for unknown parameters, for values of the wrong type and for two that exclude each other,
    ValueError for tools that cannot be told apart or are none, and RequestError for a constraint that cannot be read.
    """
    given = sampling_terms({key: value for key, value in (params or {}).items() if value is not None})
    _check_exclusive(given)
    dtype, choices, method = (given.pop(key, None) for key in ("dtype", "choices", "choices_method"))
    has_space = _whitespace(given)
    schema = take_schema(given)
    constraint = _constraint(given, where) if schema is None else schema.constraint
    if constraint is not None and has_space:
        constraint = replace(constraint, has_space=True)
    if given.get("close") and constraint is None and dtype in (None, str, "str"):
        raise TypeError(
            "gen() takes close together with what the text must match: regex, json_schema, schema, grammar, tools"
        )
    if unknown := [key for key in given if key not in SAMPLING_NAMES]:
        raise TypeError(f"gen() got an unexpected keyword argument {unknown[0]!r}")
    if choices is not None:
        if "adapter" in given:
            raise TypeError("gen(choices=...) scores texts, which takes no adapter")
        if given.get("n", 1) != 1:
            raise TypeError("gen(choices=...) makes one choice; it takes no n")
        return build_select(name, choices, method, where)
    if method is not None:
        raise TypeError("gen() takes a choices_method only together with choices")
    for key in ("stop", "stop_regex"):
        if key in given:
            given[key] = _strings(key, given[key])
    if "stop_token_ids" in given:
        given["stop_token_ids"] = tuple(given["stop_token_ids"])
    if "processors" in given:
        given["processors"] = _processors(given["processors"])
    if constraint is not None:
        given["constraint"] = constraint
    return Gen(_name("gen", name), tuple(given.items()), _dtype(dtype), schema, where)


# SGLang's names of sampling parameters.
ALIASES = ("max_new_tokens", "min_new_tokens", "return_logprob", "top_logprobs_num")


def sampling_terms(given: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments that may bear SGLang's names, under ramify's own. Raises TypeError for one that is given twice."""
    terms = dict(given)
    _rename(terms, "max_new_tokens", "max_tokens")
    _rename(terms, "min_new_tokens", "min_tokens")
    num_top, wanted = terms.pop("top_logprobs_num", None), terms.pop("return_logprob", None)
    if wanted and terms.get("logprobs") is None:
        terms["logprobs"] = num_top or 0
    if terms.get("logprob_start_len") == -1:  # SGLang's "none"
        del terms["logprob_start_len"]
    if terms.get("top_k") == -1:  # SGLang's "all"
        terms["top_k"] = 0
    return terms


def _rename(terms: dict[str, Any], alias: str, name: str) -> None:
    if alias in terms:
        if name in terms:
            raise TypeError(f"{alias} and {name} are the same; give one of them")
        terms[name] = terms.pop(alias)


def _constraint(given: dict[str, Any], where: Where) -> Constraint | None:
    try:
        return take_constraint(given)
    except RamifyError as error:
        error.span = span_of(where)
        raise


def take_schema(given: dict[str, Any]) -> Schema | CallSchema | None:
    """Takes what the text of a gen decodes to (`schema` or `tools`), if it is said, out of `given`.

    Raises TypeError and ValueError for what has no schema.
    """
    num_calls = given.pop("num_calls", None)
    if "tools" in given:
        return call_schema(given.pop("tools"), num_calls)
    if num_calls is not None:
        raise TypeError("gen() takes num_calls together with tools")
    return schema_of(given.pop("schema")) if "schema" in given else None


def _whitespace(given: dict[str, Any]) -> bool:
    """Takes `whitespace` out of a gen's arguments. Raises TypeError."""
    wanted = given.pop("whitespace", False)
    if not isinstance(wanted, bool):
        raise TypeError(f"whitespace must be True or False, got {wanted!r}")
    if wanted and given.keys().isdisjoint(("json_schema", "schema", "tools")):
        raise TypeError("gen() takes whitespace together with json_schema, schema or tools")
    return wanted


def _check_exclusive(given: Mapping[str, Any]) -> None:
    """Raises TypeError when a gen is told in two ways what its text is to be."""
    ways = [name for name in _EXCLUSIVE if name in given]
    if len(ways) > 1:
        raise TypeError(f"gen() takes only one of {', '.join(_EXCLUSIVE)}; it got {' and '.join(ways)}")


def build_select(
    name: object = None, choices: Iterable[str] | None = None, method: object = None, where: Where = None
) -> Select:
    """The expression of `select(name, choices)`. Raises TypeError or ValueError for what cannot be."""
    if choices is None or isinstance(choices, str):
        raise TypeError("select() needs `choices`, a list of texts")
    texts = _strings("choices", choices)
    if not texts or not all(texts):
        raise ValueError("select() needs at least one choice, and no empty ones")
    return Select(_name("select", name), texts, _method(method), where)


def _method(method: object) -> ChoiceMethod:
    if method is None:
        return token_length_normalized
    if callable(method):
        return method
    if not isinstance(method, str) or method not in CHOICE_METHODS:
        known = ", ".join(CHOICE_METHODS)
        raise ValueError(f"unknown choices_method {method!r}; known: {known}, and any function of the scored choices")
    return CHOICE_METHODS[method]


def build_score(name: object = None, texts: object = None, where: Where = None) -> Score:
    """The expression of `score(name, texts)`. Raises TypeError for what cannot be."""
    if not isinstance(name, str):
        raise TypeError(f"score() takes a variable name (str) first, not {describe(name)}")
    if texts is None:
        raise TypeError("score() needs `texts`, a text or a list of texts")
    return Score(name, _strings("texts", texts), isinstance(texts, str), where)


def _name(function: str, name: object) -> str | None:
    if name is None or isinstance(name, str):
        return name
    raise TypeError(f"{function}() takes a variable name (str) first, not {type(name).__name__}: {_short(name)}")


def _strings(parameter: str, value: object) -> tuple[str, ...]:
    if isinstance(value, str):
        return (value,)
    texts = tuple(value) if isinstance(value, Iterable) else (value,)
    for text in texts:
        if not isinstance(text, str):
            raise TypeError(f"{parameter} takes texts, not {type(text).__name__}: {_short(text)}")
    return texts


def _processors(value: object) -> tuple[Any, ...]:
    processors = tuple(value) if isinstance(value, Iterable) else (value,)
    for processor in processors:
        if not callable(processor):
            raise TypeError(f"processors takes functions, not {type(processor).__name__}: {_short(processor)}")
    return processors


def _dtype(dtype: object) -> type | None:
    if dtype is None or dtype in DTYPES.values():
        return dtype  # type: ignore[return-value]
    if isinstance(dtype, str) and dtype in DTYPES:
        return DTYPES[dtype]
    raise TypeError(f"dtype must be one of int, float, bool, str, not {_short(dtype)}")


def _checked(defaults: SamplingParams, given: tuple[tuple[str, Any], ...]) -> SamplingParams:
    params = replace(defaults, **dict(given))
    params.check()
    return params


_checked_once = lru_cache(maxsize=4096)(_checked)


def sampling(defaults: SamplingParams, given: tuple[tuple[str, Any], ...]) -> SamplingParams:
    """The run's defaults with what the program gave. Raises RequestError for values out of range, TypeError."""
    try:
        # Processors may be objects without a hash, and should not be kept alive.
        has_processors = defaults.processors or any(name == "processors" for name, _ in given)
        return (_checked if has_processors else _checked_once)(defaults, given)
    except TypeError as error:
        raise TypeError(f"a sampling parameter has a value of the wrong type: {dict(given)} ({error})") from None
