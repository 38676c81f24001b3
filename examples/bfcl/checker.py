"""BFCL's typed check of calls against the accepted answers, with a reason for whatever fails.

A call is right when it has the function's name, all required parameters, no parameter that the answer does not know,
values of the documented types (an int will do for a float), each among the accepted ones, and no parameter missing that
the answer does not mark by "" as one that may be left out. Texts are compared without case, spaces and ,./-_*^. Calls
that are wanted together may come in any order.
"""

import re
from typing import Any, Literal

import msgspec

from .calls import Call
from .data import Accepted, Question, described

__all__ = ["Kind", "Verdict", "check", "check_call", "standardized"]

Kind = Literal[
    "unreadable", "wrong_count", "wrong_name", "missing_required", "unexpected_parameter", "wrong_type", "wrong_value",
    "missing_parameter", "no_match", "unwanted_call", "no_description",
]  # fmt: skip
TYPES: dict[str, type] = {
    "string": str,
    "integer": int,
    "float": float,
    "boolean": bool,
    "array": list,
    "tuple": list,
    "dict": dict,
    "any": str,
}
_IGNORED = re.compile(r"[ ,./\-_*^]")


class Verdict(msgspec.Struct, frozen=True):
    """Whether calls are right. kind, reason: what is wrong first, and None where nothing is."""

    kind: Kind | None = None
    reason: str = ""

    @property
    def valid(self) -> bool:
        """Whether nothing is wrong."""
        return self.kind is None


RIGHT = Verdict()


def check(question: Question, calls: list[Call], *, underscores: bool = False) -> Verdict:
    """Judge the calls of a question. underscores: functions' names have "_" for "." (a server took no dots).

    A question without accepted answers, as all of the category `relevance`, wants no calls.
    """
    if question.accepted is None:
        return RIGHT if not calls else Verdict("unwanted_call", f"no call is wanted, and {calls[0].name} is called")
    if len(calls) != len(question.accepted):
        return Verdict("wrong_count", f"{len(question.accepted)} calls are wanted, and there are {len(calls)}")
    table = [
        [_judged(question, accepted, call, underscores) for call in calls] for accepted in question.accepted
    ]  # rows: accepted calls, columns: made ones
    unmatched = _unmatched([[verdict.valid for verdict in row] for row in table])
    if unmatched is None:
        return RIGHT
    if len(calls) == 1:
        return table[0][0]
    reasons = "; ".join(verdict.reason for verdict in table[unmatched])
    return Verdict("no_match", f"no call is the wanted {question.accepted[unmatched].name}: {reasons}")


def _judged(question: Question, accepted: Accepted, call: Call, underscores: bool) -> Verdict:
    function = described(accepted, question.functions)
    if function is None:
        return Verdict("no_description", f"the accepted answer calls {accepted.name}, which is not among the functions")
    return check_call(function, accepted.values, call, underscores=underscores)


def _unmatched(fits: list[list[bool]]) -> int | None:
    """A row without a column of its own, in the best assignment of columns to rows; None where each has one."""
    row_of: dict[int, int] = {}

    def assign(row: int, tried: set[int]) -> bool:
        for column, does in enumerate(fits[row]):
            if does and column not in tried:
                tried.add(column)
                if column not in row_of or assign(row_of[column], tried):
                    row_of[column] = row
                    return True
        return False

    return next((row for row in range(len(fits)) if not assign(row, set())), None)


def check_call(function: dict[str, Any], accepted: dict[str, Any], call: Call, *, underscores: bool = False) -> Verdict:
    """Judge one call of a documented function by the accepted values of its parameters."""
    name = function["name"].replace(".", "_") if underscores else function["name"]
    if call.name != name:
        return Verdict("wrong_name", f"{name} is to be called, not {call.name}")
    if call.positional:
        return Verdict("unexpected_parameter", f"{name} is called with {len(call.positional)} arguments without a name")
    properties = function["parameters"]["properties"]
    for parameter in function["parameters"].get("required", []):
        if parameter not in call.arguments:
            return Verdict("missing_required", f"{name} needs {parameter}")
    for parameter, value in call.arguments.items():
        if parameter not in properties or parameter not in accepted:
            return Verdict("unexpected_parameter", f"{name} is given {parameter}, which is not expected")
        verdict = _check_value(parameter, properties[parameter], value, accepted[parameter])
        if not verdict.valid:
            return verdict
    for parameter, values in accepted.items():
        if parameter not in call.arguments and "" not in values:
            return Verdict("missing_parameter", f"{name} is to be given {parameter}")
    return RIGHT


def _check_value(parameter: str, schema: dict[str, Any], value: Any, accepted: list[Any]) -> Verdict:
    kind = schema["type"]
    expected = TYPES[kind]
    items = schema.get("items", {}).get("type") if kind in ("array", "tuple") else None
    inner = TYPES[items] if items is not None else None
    if kind == "tuple" and isinstance(value, tuple):
        value = list(value)
    if expected is float and type(value) is int:
        value = float(value)
    fit = _type_fit(value, accepted, expected, inner)
    if fit is None:
        inside = f" of {items}" if items else ""
        return Verdict("wrong_type", f"{parameter} is to be {kind}{inside}, and is {value!r:.80}")
    if fit == "as accepted":
        found = value in accepted
    elif expected is dict:
        found = any(_dict_fits(value, option) for option in accepted)
    elif expected is list and inner is dict:
        found = any(_dicts_fit(value, option) for option in accepted)
    elif expected is str:
        found = standardized(value) in [standardized(option) for option in accepted if isinstance(option, str)]
    elif expected is list:
        found = _list(value) in [_list(option) for option in accepted if isinstance(option, list) or option == ""]
    else:
        found = value in accepted
    shown = ", ".join(repr(option) for option in accepted if option != "") or "nothing"
    return RIGHT if found else Verdict("wrong_value", f"{parameter} is {value!r:.80}; accepted: {shown:.160}")


def _type_fit(
    value: Any, accepted: list[Any], expected: type, inner: type | None
) -> Literal["as documented", "as accepted"] | None:
    """How a value's type fits: as documented, or else as the accepted values', which are then compared as they are.

    inner: the documented type of a list's items, which may be that of the accepted list's items instead.
    """
    told: type | None = next((type(option) for option in accepted if option != ""), None)
    given: type = type(value)
    if given is expected:
        fits = inner is None or any(
            not isinstance(option, list) or all(_type_fit(item, option, inner, None) for item in value)
            for option in accepted
        )
        if not fits:
            return None
        return "as documented" if told in (None, expected) else "as accepted"
    return "as accepted" if given is told else None


def standardized(text: str) -> str:
    """A text as texts are compared: no case, no spaces, none of ,./-_*^, one kind of quotes."""
    return _IGNORED.sub("", text).lower().replace("'", '"')


def _plain(value: Any) -> Any:
    return standardized(value) if isinstance(value, str) else value


def _list(value: Any) -> list[Any]:
    return [_plain(item) for item in value]


def _dict_fits(value: Any, accepted: Any) -> bool:
    """Whether an object has an accepted value at each key, and misses none that may not be left out."""
    if not isinstance(value, dict) or not isinstance(accepted, dict):
        return False
    known = all(key in accepted and _plain(item) in _list(accepted[key]) for key, item in value.items())
    return known and all(key in value or "" in options for key, options in accepted.items())


def _dicts_fit(value: list[Any], accepted: Any) -> bool:
    """Whether the objects of a list fit those of an accepted list, one by one."""
    return len(value) == len(accepted) and all(map(_dict_fits, value, accepted))
