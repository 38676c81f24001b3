"""The checker: `verify` raises a VerifyError for the first rule of the IR that a module breaks.

The rules are those of `ops.py`'s table (operands, results, attributes, regions), of SSA (each value defined once,
before its uses, in a region that encloses them), of control flow (what may end a region, and with what values), and
the few extra ones that an op names as its `rule`. An error shows the user's line and the IR around the op.
"""

from __future__ import annotations

import ast
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NoReturn

from .core import Attr, Function, Module, Op, Region, Value
from .errors import VerifyError
from .ops import OPS, OpDef
from .printer import Names, excerpt, function_lines, print_attr
from .types import CELL, KINDS, OBJ, PROMPT, TEXT, Type

_TYPES = {"prompt": PROMPT, "text": TEXT, "obj": OBJ, "cell": CELL}
_LOOP_ENDS = ("flow.yield", "flow.continue", "flow.break")


def verify(module: Module, *, after: str | None = None) -> None:
    """Raise VerifyError if the module breaks a rule; `after` names the pass that made it."""
    _check_module(module, after)
    for function in module.functions.values():
        try:
            _FunctionChecker(module, function, after).check()
        except RecursionError:
            raise VerifyError(f"@{function.name} nests regions too deeply{_after(after)}") from None


def _check_module(module: Module, after: str | None) -> None:
    def fail(message: str) -> NoReturn:
        raise VerifyError(f"{message}{_after(after)}")

    if module.entry not in module.functions:
        fail(f"the entry function @{module.entry} does not exist; the module has {_functions(module)}")
    for key, function in module.functions.items():
        if key != function.name:
            fail(f"the module lists @{function.name} under the name @{key}")
    for name, value in module.constants.items():
        if not _is_json(value):
            fail(f"the constant {name} is {_shown(value)}, which a module cannot hold")
    for table in (module.sources, module.imports):
        for name, text in table.items():
            if not isinstance(text, str):
                fail(f"the source or import of {name} is {_shown(text)}, not a str")


@dataclass(frozen=True, slots=True)
class _Place:
    """What may end a region: terminator -> the types of the values it passes on (None: its signature says it all)."""

    what: str
    ends: dict[str, Sequence[Type] | None]


class _FunctionChecker:
    """Checks one function, op by op, in the order of execution."""

    def __init__(self, module: Module, function: Function, after: str | None) -> None:
        self.module = module
        self.function = function
        self.after = after
        self.defined: set[Value] = set()
        self.visible: set[Value] = set()
        self.scope: list[Value] = []

    def check(self) -> None:
        names, args = self.function.param_names, self.function.body.args
        if len(names) != len(args):
            self.fail(None, f"{_count(len(names), 'parameter name')} for {_count(len(args), 'parameter')}")
        if len(set(names)) != len(names):
            self.fail(None, f"two parameters of the same name in {', '.join(names)}")
        self.region(None, self.function.body, _Place("the body of a function", {"flow.return": None}))

    def region(self, owner: Op | None, region: Region, place: _Place) -> None:
        """Check a region; the values that it defines are visible in it and below only."""
        outer, self.scope = self.scope, []
        for arg in region.args:
            self.define(owner, arg)
        if not region.ops or not self.is_terminator(region.ops[-1]):
            last = region.ops[-1] if region.ops else owner
            self.fail(last, f"{place.what} must end in {_any_of(place.ends)}")
        for op in region.ops[:-1]:
            self.op(op, place)
            if self.is_terminator(op):
                self.fail(op, f"{op.name} must be the last op of its region")
        self.op(region.ops[-1], place)
        self.end(region.ops[-1], place)
        self.visible.difference_update(self.scope)
        self.scope = outer

    def is_terminator(self, op: Op) -> bool:
        return op.name in OPS and OPS[op.name].terminator

    def end(self, op: Op, place: _Place) -> None:
        """Check that this terminator may end the region, and passes on what the op around expects."""
        if op.name not in place.ends:
            outside = " outside of any loop" if op.name in ("flow.break", "flow.continue") else ""
            self.fail(op, f"{op.name} cannot end {place.what}{outside}; that ends in {_any_of(place.ends)}")
        expected = place.ends[op.name]
        if expected is not None:
            passed = op.operands[1:] if op.name == "flow.condition" else op.operands
            self.types(op, f"{op.name} to {place.what}", expected, [value.type for value in passed])

    def op(self, op: Op, place: _Place) -> None:
        if op.name not in OPS:
            self.fail(op, f"there is no op {op.name}")
        declared = OPS[op.name]
        self.operands(op, declared)
        self.results(op, declared)
        self.attributes(op, declared)
        if len(op.regions) != declared.regions:
            self.fail(op, f"{op.name} has {_count(len(op.regions), 'region')}, not {declared.regions}")
        if declared.rule:
            _RULES[declared.rule](self, op, place)
        for result in op.results:
            self.define(op, result)

    def operands(self, op: Op, declared: OpDef) -> None:
        for number, value in enumerate(op.operands, 1):
            if value not in self.visible:
                why = (
                    "is not visible here: the region that defines it has ended"
                    if value in self.defined
                    else ("is used before any op defines it")
                )
                self.fail(op, f"operand {number} of {op.name} ({self.shown(value)}) {why}")
        fixed, repeated = _signature(declared.operands)
        if len(op.operands) < len(fixed) or (repeated is None and len(op.operands) > len(fixed)):
            at_least = "" if repeated is None else "at least "
            wanted = f"{at_least}{_count(len(fixed), 'operand')}"
            self.fail(op, f"{op.name} takes {wanted} ({declared.operands or 'none'}), not {len(op.operands)}")
        for number, value in enumerate(op.operands, 1):
            expected = fixed[number - 1] if number <= len(fixed) else repeated
            assert expected is not None
            if not expected.accepts(value.type):
                self.fail(op, f"operand {number} of {op.name} must be {expected}, not {value.type}")

    def results(self, op: Op, declared: OpDef) -> None:
        if declared.results == "*":
            return
        expected = [str(type_) for type_ in _signature(declared.results)[0]]
        actual = [str(result.type) for result in op.results]
        if expected != actual:
            self.fail(op, f"{op.name} gives {', '.join(expected) or 'no result'}, not {', '.join(actual) or 'none'}")

    def attributes(self, op: Op, declared: OpDef) -> None:
        for name in op.attrs:
            if name not in declared.attrs:
                self.fail(op, f"{op.name} has no attribute {name}; it has {', '.join(declared.attrs) or 'none'}")
        for name, kind in declared.attrs.items():
            if name not in op.attrs:
                if not kind.endswith("?"):
                    self.fail(op, f"{op.name} lacks its attribute {name}")
                continue
            wanted, holds = _KINDS[kind.rstrip("?")]
            if not holds(op.attrs[name]):
                self.fail(op, f"attribute {name} of {op.name} must be {wanted}, not {_shown(op.attrs[name])}")

    def types(self, op: Op | None, what: str, expected: Sequence[Type], actual: Sequence[Type]) -> None:
        """Fail unless values of the `actual` types may be used as the `expected` ones, one to one."""
        fits = len(expected) == len(actual) and all(a.accepts(b) for a, b in zip(expected, actual, strict=True))
        if not fits:
            self.fail(op, f"{what} passes ({_list(actual)}) where ({_list(expected)}) is expected")

    def define(self, op: Op | None, value: Value) -> None:
        if not _is_type(value.type):
            self.fail(op, f"{self.shown(value)} has the unknown type {value.type}")
        if value in self.defined:
            self.fail(op, f"the value {self.shown(value)} is defined twice")
        self.defined.add(value)
        self.visible.add(value)
        self.scope.append(value)

    def shown(self, value: Value) -> str:
        """The value's name as the error's excerpt prints it."""
        names = Names()
        function_lines(self.function, names)
        return names.of(value)

    def fail(self, op: Op | None, message: str) -> NoReturn:
        """Raise the error, with the IR around the op."""
        lines = excerpt(function_lines(self.function), op)
        span = self.function.span if op is None else op.span
        where = f"  in @{self.function.name}{_after(self.after)}:"
        raise VerifyError("\n".join([message, where, *(f"  {line}" for line in lines)]), span=span)


def _check_dynamic(checker: _FunctionChecker, op: Op, place: _Place) -> None:
    fixed = len(_signature(OPS[op.name].operands)[0])
    names, extra = op.attrs.get("dynamic", []), len(op.operands) - fixed
    if len(names) != extra:
        checker.fail(op, f"{op.name} names {_count(len(names), 'dynamic operand')} but has {extra}")


def _check_named(checker: _FunctionChecker, op: Op, place: _Place) -> None:
    """The op's first attribute is given, or an operand stands for it."""
    _check_dynamic(checker, op, place)
    attribute = next(iter(OPS[op.name].attrs))
    if [attribute] != [*(name for name in op.attrs if name == attribute), *op.attrs.get("dynamic", [])]:
        checker.fail(op, f"{op.name} needs its {attribute} once, as an attribute or as a dynamic operand")


def _check_host(checker: _FunctionChecker, op: Op, place: _Place) -> None:
    names = [*op.attrs["inputs"], *op.attrs.get("captures", []), *op.attrs.get("writes", [])]
    if len(names) != len(op.operands):
        given = _count(len(op.operands), "operand")
        checker.fail(op, f"{op.name} names {_count(len(names), 'input')}, captures and writes, but has {given}")
    for name in op.attrs.get("writes", []):
        if name not in op.attrs["outputs"]:
            checker.fail(op, f"{op.name} writes {name}, which is none of its outputs")
    if op.name == "py.block":
        expected = len(op.attrs["outputs"]) + (2 if op.attrs.get("signals") else 0)
        if expected != len(op.results):
            checker.fail(
                op,
                f"py.block must give {_count(expected, 'result')}, one for each output and two for "
                f"signals, not {len(op.results)}",
            )
        checker.types(op, "py.block", [result.type for result in op.results], [OBJ] * expected)
    problem = python_problem(op.attrs["code"], "expression" if op.name == "py.expr" else "statements")
    if problem is not None:
        checker.fail(op, f"the code of {op.name} is not Python: {problem}")


# What leaves more than the region it ends: an op inside may be left by it if the op itself may.
_EXITS = ("flow.return", "flow.leave", "flow.raise", "flow.break", "flow.continue")


def _exits(place: _Place, names: Sequence[str] = _EXITS) -> dict[str, Sequence[Type] | None]:
    return {name: place.ends[name] for name in names if name in place.ends}


def _check_if(checker: _FunctionChecker, op: Op, place: _Place) -> None:
    ends = {"flow.yield": [result.type for result in op.results], **_exits(place)}
    for region in op.regions:
        if region.args:
            checker.fail(op, "the regions of flow.if take no arguments")
        checker.region(op, region, _Place("a region of flow.if", ends))


def _check_try(checker: _FunctionChecker, op: Op, place: _Place) -> None:
    words = ("the body", "the handlers", "the else region", "the final region")
    for index, (word, region) in enumerate(zip(words, op.regions, strict=True)):
        wanted = [OBJ] if index == 1 else []
        if [arg.type for arg in region.args] != wanted:
            checker.fail(op, f"{word} of flow.try takes {'the exception, an obj' if wanted else 'no arguments'}")
        ends: dict[str, Sequence[Type] | None] = {"flow.yield": [], "flow.leave": None}
        if index == 1:
            ends["flow.raise"] = None
        checker.region(op, region, _Place(f"{word} of flow.try", ends))


def _check_leave(checker: _FunctionChecker, op: Op, place: _Place) -> None:
    kind = op.attrs["kind"]
    if kind not in ("return", "break", "continue"):
        checker.fail(op, f"flow.leave is for a return, break or continue, not {_shown(kind)}")
    wanted = 1 if kind == "return" else 0
    if len(op.operands) != wanted:
        checker.fail(op, f"flow.leave for a {kind} takes {_count(wanted, 'operand')}, not {len(op.operands)}")


def _check_for(checker: _FunctionChecker, op: Op, place: _Place) -> None:
    carried = _carried(checker, op, op.operands[1:])
    (body,) = op.regions
    item = op.operands[0].type.element
    if not body.args or body.args[0].type not in (OBJ, item):
        checker.fail(op, "the first argument of flow.for's body is the item, an obj")
    _same(checker, op, "flow.for's body", body.args[1:], carried)
    checker.region(op, body, _loop_body("the body of flow.for", carried, place))


def _check_while(checker: _FunctionChecker, op: Op, place: _Place) -> None:
    carried = _carried(checker, op, op.operands)
    test, body = op.regions
    _same(checker, op, "flow.while's test", test.args, carried)
    _same(checker, op, "flow.while's body", body.args, carried)
    checker.region(op, test, _Place("the test of flow.while", {"flow.condition": carried}))
    checker.region(op, body, _loop_body("the body of flow.while", carried, place))


def _carried(checker: _FunctionChecker, op: Op, start: Sequence[Value]) -> list[Type]:
    """The types of a loop's carried values, which are those of its results."""
    carried = [result.type for result in op.results]
    checker.types(op, f"the start of {op.name}", carried, [value.type for value in start])
    return carried


def _same(checker: _FunctionChecker, op: Op, what: str, args: Sequence[Value], carried: Sequence[Type]) -> None:
    if [arg.type for arg in args] != list(carried):
        actual = _list([arg.type for arg in args])
        checker.fail(op, f"{what} takes ({actual}), but the loop carries ({_list(carried)})")


def _loop_body(what: str, carried: Sequence[Type], place: _Place) -> _Place:
    return _Place(what, {**dict.fromkeys(_LOOP_ENDS, carried), **_exits(place, ("flow.return", "flow.leave"))})


def _check_callee(checker: _FunctionChecker, op: Op, place: _Place) -> None:
    if op.attrs["callee"] not in checker.module.functions:
        has = _functions(checker.module)
        checker.fail(op, f"{op.name} calls @{op.attrs['callee']}, which does not exist; the module has {has}")


def _check_keywords(checker: _FunctionChecker, op: Op, place: _Place) -> None:
    keywords = op.attrs.get("keywords", [])
    given = len(op.operands) - len(_signature(OPS[op.name].operands)[0])
    if len(keywords) > given:
        checker.fail(op, f"{op.name} names {_count(len(keywords), 'keyword')} but has {_count(given, 'operand')}")


def _check_call(checker: _FunctionChecker, op: Op, place: _Place) -> None:
    _check_callee(checker, op, place)
    _check_keywords(checker, op, place)
    keywords, callee = op.attrs.get("keywords", []), checker.module.functions[op.attrs["callee"]]
    positional = len(op.operands) - len(keywords)
    for name, value in zip([*callee.param_names[:positional], *keywords], op.operands, strict=False):
        expected = dict(zip(callee.param_names, callee.body.args, strict=False)).get(name)
        if expected is not None and not expected.type.accepts(value.type):
            checker.fail(op, f"@{callee.name} takes {expected.type} as {name}, not {value.type}")
    names = [*callee.param_names[:positional], *keywords]
    is_clear = positional <= len(callee.param_names) >= len({*callee.param_names, *names})
    if op.attrs.get("direct") and not (is_clear and len(set(names)) == len(names)):
        checker.fail(op, f"a direct flow.call of @{callee.name} gives each of its parameters one value at most")


def _check_fork(checker: _FunctionChecker, op: Op, place: _Place) -> None:
    source = op.operands[0].type
    if source not in (PROMPT, CELL):
        checker.fail(op, f"prompt.fork forks a prompt or a cell, not {source}")


_MARKS = ({"role", "mark"}, {"global"}, {"global", "of"}, {"choice"})


def _check_warm(checker: _FunctionChecker, op: Op, place: _Place) -> None:
    parts = op.attrs["parts"]
    if not isinstance(parts, list):
        checker.fail(op, "the parts of hint.warm are a list")
    for index, part in enumerate(parts):
        is_operand = type(part) is int and 0 <= part < len(op.operands) - 1
        is_mark = isinstance(part, dict) and part.keys() in _MARKS[: 4 if index == 0 else 3]
        if not (isinstance(part, str) or is_operand or is_mark):
            checker.fail(op, f"{_shown(part)} is no part of a prompt: a text, an operand's index, a name or a mark")


_Rule = Callable[[_FunctionChecker, Op, _Place], None]
_RULES: dict[str, _Rule] = {
    "dynamic": _check_dynamic,
    "named": _check_named,
    "fork": _check_fork,
    "warm": _check_warm,
    "host": _check_host,
    "if": _check_if,
    "for": _check_for,
    "while": _check_while,
    "try": _check_try,
    "leave": _check_leave,
    "call": _check_call,
    "keywords": _check_keywords,
    "callee": _check_callee,
}


def _is_json(value: Attr) -> bool:
    # Exact types: a subclass (an IntEnum, a numpy float) would come back from a file as something else.
    if type(value) is list:
        return all(_is_json(item) for item in value)
    if type(value) is dict:
        return all(type(key) is str and _is_json(item) for key, item in value.items())
    return value is None or type(value) in (bool, int, float, str)


def _is_strings(value: Attr) -> bool:
    return type(value) is list and all(type(item) is str for item in value)


_KINDS: dict[str, tuple[str, Callable[[Attr], bool]]] = {
    "str": ("a str", lambda value: type(value) is str),
    "int": ("an int", lambda value: type(value) is int),
    "bool": ("a bool", lambda value: type(value) is bool),
    "strs": ("a list of str", _is_strings),
    "dict": ("a dict with str keys and plain values", lambda value: type(value) is dict and _is_json(value)),
    "json": ("a plain value (None, bool, int, float, str, list, dict with str keys)", _is_json),
}


@lru_cache(maxsize=256)
def _signature(text: str) -> tuple[tuple[Type, ...], Type | None]:
    """The types of a signature's fixed entries, and the type of those that may follow (None: none may)."""
    entries = [entry.strip() for entry in text.split(",") if entry.strip()]
    repeated = _TYPES[entries.pop()[:-3]] if entries and entries[-1].endswith("...") else None
    return tuple(_TYPES[entry] for entry in entries), repeated


@lru_cache(maxsize=4096)
def python_problem(code: str, what: str) -> str | None:
    """Why the code is not a Python "expression", or "statements" (either may be indented); None if it is."""
    try:
        with warnings.catch_warnings():
            # What CPython warns of in the user's code, it has warned of when the user's file was loaded.
            warnings.simplefilter("ignore")
            _parse_expression(code) if what == "expression" else _parse_statements(code)
    except SyntaxError as error:
        return str(error.msg)
    except (ValueError, RecursionError, MemoryError) as error:
        return str(error) or type(error).__name__
    return None


def _parse_expression(code: str) -> None:
    # Brackets let the expression span lines; two kinds of them refuse `a) + (b`.
    ast.parse(f"(\n{code}\n)", mode="eval")
    inside = ast.parse(f"[\n{code}\n]", mode="eval").body
    if not isinstance(inside, ast.List) or not inside.elts:
        raise SyntaxError("it is not one expression")


def _parse_statements(code: str) -> None:
    first = next((line for line in code.split("\n") if line.strip()), "")
    if not first[:1].isspace():
        ast.parse(code)
        return
    wrapped = ast.parse(f"if True:\n{code}").body
    if len(wrapped) > 1 or not isinstance(wrapped[0], ast.If) or wrapped[0].orelse:
        raise SyntaxError("its lines are indented unevenly")


def _is_type(type_: Any) -> bool:
    while isinstance(type_, Type) and type_.kind == "list" and type_.element is not None:
        type_ = type_.element
    return isinstance(type_, Type) and type_.kind in KINDS and type_.kind != "list" and type_.element is None


def _after(after: str | None) -> str:
    return "" if after is None else f", after the pass `{after}`"


def _functions(module: Module) -> str:
    return ", ".join(f"@{name}" for name in module.functions) or "no functions"


def _any_of(names: dict[str, Any]) -> str:
    return " or ".join(names)


def _list(types: Sequence[Type]) -> str:
    return ", ".join(str(type_) for type_ in types)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _shown(value: Any) -> str:
    text = print_attr(value)
    return text if len(text) <= 60 else f"{text[:60]}..."
