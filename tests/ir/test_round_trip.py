"""I4: the text and the binary form give back the module that they were made of."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from ramify.ir.codec import decode, encode, equal
from ramify.ir.core import Attr, Function, Module, Op, Region, Value, clone
from ramify.ir.ops import OPS
from ramify.ir.parser import parse
from ramify.ir.printer import print_module
from ramify.ir.types import OBJ
from ramify.ir.verify import verify

from .strategies import modules

_SETTINGS = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))


@_SETTINGS
@given(modules())
def test_generated_modules_are_valid_and_round_trip(module: Module) -> None:
    verify(module)
    text = print_module(module, spans=True)
    again = parse(text)
    assert equal(again, module)
    assert print_module(again, spans=True) == text
    assert equal(parse(print_module(module)), module, spans=False)
    decoded = decode(encode(module))
    assert equal(decoded, module)
    assert print_module(decoded, spans=True) == text
    assert equal(clone(module), module)


def test_the_strategy_reaches_every_op() -> None:
    reached: set[str] = set()

    @settings(_SETTINGS, max_examples=300, derandomize=True, database=None, phases=[Phase.generate])
    @given(modules())
    def collect(module: Module) -> None:
        reached.update(op.name for op in module.walk())

    collect()
    assert reached == set(OPS)


def _constant(value: Attr) -> Module:
    op = Op("py.const", [], [Value(OBJ, "c")], {"value": value})
    return Module({"f": Function("f", Region([], [op, Op("flow.return", op.results)]), [])}, "f")


_HUGE = 10**5000
_SAME = [_HUGE, -_HUGE, 2**64, -(2**63) - 1, 0.1 + 0.2, 5e-324, {"": {"b": 1, "a": 2}, "\ud800": ["\ud800\udc00"]}]


@pytest.mark.parametrize("index", range(len(_SAME)))
def test_values_come_back_exactly(index: int) -> None:
    module = _constant(_SAME[index])
    for again in (parse(print_module(module)), decode(encode(module))):
        (found,) = (op.attrs["value"] for op in again.walk() if op.name == "py.const")
        assert (type(found), found == _SAME[index]) == (type(_SAME[index]), True)


_DISTINCT = [
    None,
    False,
    True,
    0,
    1,
    0.0,
    -0.0,
    1.0,
    float("nan"),
    float("inf"),
    "",
    "0",
    [],
    {},
    [None],
    "\n",
    "\r\n",
    {"a": 1, "b": 2},
    {"b": 2, "a": 1},
    2**64,
    float(2**64),
]


def test_equal_tells_values_apart() -> None:
    for first, value in enumerate(_DISTINCT):
        for second, other in enumerate(_DISTINCT):
            assert equal(_constant(value), _constant(other)) == (first == second)
    assert equal(_constant(float("nan")), _constant(-float("nan")))


_BASE = """module @f
func @f(%a: obj, %b: obj) loc("f.py":1:0-2:0) {
  %c = py.box %a {name = "n"} : obj
  flow.return %c
}
"""


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("box %a", "box %b"),
        ('"n"', '"m"'),
        ("%c = py.box", "%c = py.boy"),
        ("%b: obj", "%b: cell"),
        ("@f", "@g"),
        ("return %c", "return %a"),
        ("%a: obj", "%a as z: obj"),
        ("\nfunc", "\nconstant k = 1 func"),
        ("1:0", "1:1"),
        ("\nfunc", '\nsource k = "" func'),
        ("\nfunc", '\nimport k = "" func'),
        ("  flow", "  %d = py.list : obj flow"),
    ],
)
def test_equal_sees_every_part(old: str, new: str) -> None:
    assert old in _BASE
    assert not equal(parse(_BASE), parse(_BASE.replace(old, new)))


def test_equal_ignores_names_attribute_order_and_if_asked_spans() -> None:
    assert equal(parse(_BASE), parse(_BASE.replace("%c", "%other")))
    assert equal(parse(_BASE), parse(_BASE.replace("1:0", "1:1")), spans=False)
    text = "module @f\nfunc @f() {\n  %c = py.expr {X} : obj\n  flow.return %c\n}\n"
    first = parse(text.replace("X", 'code = "1", inputs = []'))
    second = parse(text.replace("X", 'inputs = [], code = "1"'))
    assert equal(first, second)
    assert print_module(first) == print_module(second)
