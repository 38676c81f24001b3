"""The textual form: what the printer writes, exactly, and what the parser says of text that is wrong."""

from __future__ import annotations

import pytest
from ramify.ir.builder import Builder
from ramify.ir.codec import equal
from ramify.ir.core import Function, Op, Region, Value
from ramify.ir.errors import ParseError
from ramify.ir.parser import parse
from ramify.ir.printer import Names, print_function, print_module, print_op
from ramify.ir.span import Span
from ramify.ir.types import CELL, OBJ, PROMPT, Type

_TEXT = """module @debate

source debate =
  | def debate(s, question):
  |     s += "größe"
  |

import np = "numpy"

constant LIMITS = [1, -0.0, inf, None, {max = 1, "two words" = True}]

func @debate(%s: cell, %s1 as "state 2": cell, %q as question: obj) {
  %p = cell.load %s : prompt
  %p1 = prompt.append %p, %q : prompt
  %x, %y = py.block %q {inputs = ["question"], outputs = ["x", "y"], code =
      | x = [question,
      |
      | \t"\\n"]
      | y = 2
    } : obj, obj
  %p2 = flow.if %y : prompt {
    %0 = lm.gen %p1 {name = "r", params = {max_tokens = 3, stop = ["\\n"]}} : prompt
    flow.yield %0
  } else {
    flow.break
  }
  %1 = flow.for %x, %p2 : prompt do (%item: list<obj>, %p3: prompt) {
    flow.continue %p3
  }
  flow.while test {
    flow.condition %x
  } do {
  }
  flow.return %x
}

func @"f.<locals>.g"() {
}
"""


def test_text_prints_back_as_it_was_read() -> None:
    assert print_module(parse(_TEXT)) == _TEXT


def test_layout_and_comments_are_free() -> None:
    squeezed = "// a comment\nmodule @m func @m(%x:obj){%y=py.unbox %x:obj // another\nflow.return %y}"
    assert print_module(parse(squeezed)) == (
        "module @m\n\nfunc @m(%x: obj) {\n  %y = py.unbox %x : obj\n  flow.return %y\n}\n"
    )
    assert equal(parse(_TEXT.replace("\n", "\r\n")), parse(_TEXT))


def test_spans_print_as_locations() -> None:
    region = Region([Value(OBJ, "x")])
    Builder(region, Span('a "b".py', 3, 4, 5, 6)).op("flow.return", region.args)
    function = Function("f", region, ["x"], Span("größe.py", 1, 0, 9, 0))
    text = print_function(function, spans=True)
    assert text == ('func @f(%x: obj) loc("größe.py":1:0-9:0) {\n  flow.return %x loc("a \\"b\\".py":3:4-5:6)\n}\n')
    again = parse(f"module @f {text}").functions["f"]
    assert (again.span, again.body.ops[0].span) == (function.span, region.ops[0].span)
    assert "loc" not in print_function(function)


def test_names_are_unique_and_numbers_start_anew() -> None:
    values = [Value(OBJ, hint) for hint in ("p", "p1", "p", "", "7", "p", "a b", "größe", "%")]
    names = Names()
    assert [names.of(value) for value in values] == ["%p", "%p1", "%p2", "%0", "%1", "%p3", "%a_b", "%größe", "%_"]
    assert names.of(values[2]) == "%p2"


def test_one_op_prints_alone() -> None:
    cell = Value(CELL, "s")
    op = Op("cell.load", [cell], [Value(PROMPT, "p")], span=Span("f.py", 1, 2, 1, 3))
    assert print_op(op) == "%p = cell.load %s : prompt"
    assert print_op(op, spans=True) == '%p = cell.load %s : prompt loc("f.py":1:2-1:3)'


def test_broken_ops_print_for_error_messages() -> None:
    op = Op("no.such", [], [Value(Type("list"), "l")], {"a": object, 3: b""}, [Region(), Region(), Region()])
    assert print_op(op) == "%l = no.such {a = <<class 'object'>>, <3> = <b''>} : list {\n} else {\n} else {\n}"


def _parse_error(text: str, file: str = "") -> str:
    with pytest.raises(ParseError) as caught:
        parse(text, file)
    return str(caught.value)


def test_error_points_at_the_place_in_wide_text() -> None:
    assert _parse_error('module @m\nfunc @m(%x: obj) {\n  %ß = py.box {name = "日本" 7}\n}\n', "wide.ir") == (
        "wide.ir:3:28\n"
        '      %ß = py.box {name = "日本" 7}\n'
        "                                 ^\n"
        "error: expected `,` or `}`, not `7`"
    )


def _in_function(body: str) -> str:
    return f"module @m\nfunc @m(%x: obj) {{\n{body}\n}}\n"


_WRONG = {
    "": (1, 1, "the text ends where `module` should follow"),
    "\n\nmodul @m": (3, 1, "expected `module`, not `modul`"),
    "module m": (1, 8, "expected a function such as `@main`, not `m`"),
    "module @m\nfunc @m() {": (
        2,
        12,
        "the text ends where `}`, a value such as `%x` or an op such as `prompt.append` should follow",
    ),
    "module @m\nfunc @m(%x) {}": (2, 11, "expected `:` or `as`, not `)`"),
    "module @m\nfunc @m(%x: number) {}": (
        2,
        13,
        "there is no type number; the types are prompt, text, obj, cell and list<...>",
    ),
    "module @m\nfunc @m(%x: list) {}": (
        2,
        13,
        "there is no type list; the types are prompt, text, obj, cell and list<...>",
    ),
    "module @m\nfunc @m(%x: obj<obj>) {}": (
        2,
        13,
        "there is no type obj; the types are prompt, text, obj, cell and list<...>",
    ),
    "module @m\nfunc @m() {}\nfunc @m() {}": (3, 6, "the function @m is already defined"),
    "module @m\nfunc @m(%x: obj, %x: obj) {}": (2, 18, "%x is already defined in line 2"),
    "module @m\nimport np = 1": (2, 8, "the import of np must be a string"),
    "module @m\nconstant a = 1\nconstant a = 2": (3, 10, "there is already a constant line for a"),
    "module @m\nconstant a = {b = 1, b = 1}": (2, 22, "b is already given"),
    "module @m\nconstant a = [1, ]": (
        2,
        18,
        "expected `False`, `None`, `True`, `[`, `{`, a block of `| ` lines, a number or a string, not `]`",
    ),
    'module @m\nconstant a = "\\q"': (2, 14, "there is no escape \\q; write a backslash as \\\\"),
    'module @m\nconstant a = "\\u12"': (2, 14, "there is no escape \\u; write a backslash as \\\\"),
    'module @m\nconstant a = "\\U00110000"': (2, 14, "there is no character of the code 00110000"),
    'module @m\nconstant a = "open': (
        2,
        14,
        'expected `False`, `None`, `True`, `[`, `{`, a block of `| ` lines, a number or a string, not `"`',
    ),
    _in_function("  flow.return %y"): (3, 15, "%y is not defined before this use"),
    _in_function("  flow.return %y\n  %y = py.list : obj"): (3, 15, "%y is not defined before this use"),
    _in_function("  %x = py.list : obj"): (3, 3, "%x is already defined in line 2"),
    _in_function("  %y, %z = py.list : obj"): (3, 12, "py.list has 2 names before `=`, but 1 types after `:`"),
    _in_function("  flow.if %x {\n  %y = py.list : obj }\n  flow.return %y"): (
        5,
        15,
        "%y is not visible here: the region that defines it, in line 4, has ended",
    ),
    _in_function("  %y = list : obj"): (3, 8, "expected an op such as `prompt.append`, not `list`"),
    _in_function('  flow.return %x loc("f":1)'): (3, 25, "expected a range of line:column such as `:3:4-3:9`, not `:`"),
}


@pytest.mark.parametrize("text", _WRONG)
def test_what_is_wrong_with_text(text: str) -> None:
    line, column, message = _WRONG[text]
    error = _parse_error(text).split("\n")
    assert error[0] == f"line {line}, column {column}"
    assert error[-1] == f"error: {message}"


def test_decimal_int_too_long_for_cpython() -> None:
    assert "Exceeds the limit" in _parse_error(f"module @m constant a = {'9' * 5000}")


def test_too_deep_nesting() -> None:
    lists = f"module @m constant a = {'[' * 5000}{']' * 5000}"
    assert _parse_error(lists) == "the text nests regions or values too deeply to be read"
    assert _parse_error(lists, "deep.ir") == "deep.ir nests regions or values too deeply to be read"
