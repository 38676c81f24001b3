"""Host code: the user's source run as CPython would run it in its function, wherever it was cut out."""

from __future__ import annotations

import linecache
import traceback
from collections.abc import Callable
from types import CellType, FunctionType
from typing import Any

import pytest
from ramify.ir.core import Op, Value
from ramify.ir.span import Span
from ramify.ir.types import OBJ
from ramify.runtime.host import Escaped, HostOp, Unbound

GREETING = "hello"


def owner() -> None:
    """The function that host code in these tests is taken from."""


def make(
    code: str, inputs: str = "", *, name: str = "py.block", python: Callable[..., Any] = owner, **attrs: Any
) -> HostOp:
    outputs = attrs.pop("outputs", "").split()
    span = attrs.pop("span", Span("<test>", 1, 0, 1, 1))
    names = inputs.split()
    captures = attrs.get("captures", [])
    operands = [Value(OBJ, n) for n in [*names, *captures]]
    if name == "py.block":
        attrs["outputs"] = outputs
    assert isinstance(python, FunctionType)
    return HostOp(Op(name, operands, attrs={"code": code, "inputs": names, **attrs}, span=span), python)


def expr(code: str, inputs: str = "", **attrs: Any) -> HostOp:
    return make(code, inputs, name="py.expr", **attrs)


def test_an_expression_sees_inputs_globals_and_builtins() -> None:
    assert expr("GREETING + name.upper() * len(name)", "name")(["ab"]) == "helloABAB"


def test_an_expression_over_several_lines_with_a_comment() -> None:
    assert expr("a +  # first\n    b", "a b")([1, 2]) == 3


def test_a_block_gives_its_outputs() -> None:
    block = make("total = 0\nfor x in xs:\n    total += x\n", "xs", outputs="total x")
    assert block([[1, 2, 3]]) == [6, 3]
    total, x = block([[]])
    assert total == 0 and isinstance(x, Unbound) and x.name == "x"


def test_an_indented_block() -> None:
    block = make("        a = '''x\n  y'''\n        b = a\n", outputs="a b", span=Span("<test>", 5, 8, 7, 13))
    assert block([]) == ["x\n  y", "x\n  y"]


def test_an_unassigned_input_raises_only_when_it_is_used() -> None:
    block = make("if flag:\n    b = a\nelse:\n    b = 0\n", "flag a", outputs="a b")
    a, b = block([False, Unbound("a")])
    assert b == 0 and isinstance(a, Unbound)
    with pytest.raises(UnboundLocalError, match="'a'"):
        block([True, Unbound("a")])
    assert block([True, 7]) == [7, 7]


def test_del_takes_an_output_away() -> None:
    a, b = make("del a\nb = 1", "a", outputs="a b")([5])
    assert isinstance(a, Unbound) and b == 1


def test_the_name_of_an_exception_is_unassigned_after_its_clause() -> None:
    (error,) = make("try:\n    1 / 0\nexcept ZeroDivisionError as error:\n    pass", outputs="error")([])
    assert isinstance(error, Unbound)


def test_captures_are_shared_with_nested_functions() -> None:
    box = CellType(1)
    (bump,) = make("def bump():\n    nonlocal n\n    n += 1\n    return n", captures=["n"], outputs="bump")([box])
    assert (bump(), bump(), box.cell_contents) == (2, 3, 3)
    assert make("n = 10", captures=["n"])([box]) == [] and bump() == 11
    assert expr("n + 1", captures=["n"])([box]) == 12


def test_two_runs_of_one_block_have_boxes_of_their_own() -> None:
    block = make("f = lambda: n", captures=["n"], outputs="f")
    (first,), (second,) = block([CellType("a")]), block([CellType("b")])
    assert (first(), second()) == ("a", "b")


def test_an_annotated_capture() -> None:
    box = CellType()
    make("n: int = 3", captures=["n"])([box])
    assert box.cell_contents == 3


def test_an_empty_box_is_an_unassigned_variable() -> None:
    with pytest.raises(NameError, match="'n'"):
        expr("n", captures=["n"])([CellType()])


def test_the_functions_own_closure_is_reachable() -> None:
    limit = 3

    def program() -> int:
        return limit

    code = expr("[x for x in xs if x < limit]", "xs", python=program)
    assert code([[1, 5]]) == [1]
    limit = 9
    assert code([[1, 5]]) == [1, 5]


SIGNALS = [
    ("if x: return x * 2\ny = 1", 5, ("return", 10)),
    ("if x: return\ny = 1", 5, ("return", None)),
    ("y = 1\nif x: break\ny = 2", True, ("break", None)),
    ("y = 1\nif x: continue\ny = 2", False, (None, None)),
    ("y = 1\nif x: continue\ny = 2", True, ("continue", None)),
    ("for i in x:\n    if i: break\nelse:\n    continue\ny = i", [0, 7], (None, None)),
    ("for i in x:\n    if i: break\nelse:\n    continue\ny = i", [0], ("continue", None)),
    ("y = [i for i in x]\nf = lambda: (yield)\ndef g():\n    return 1\nwhile True:\n    break", [1], (None, None)),
]


@pytest.mark.parametrize(("code", "x", "expected"), SIGNALS)
def test_signals(code: str, x: Any, expected: tuple[Any, Any]) -> None:
    *_, signal, value = make(code, "x", outputs="y", signals=True)([x])
    assert (signal, value) == expected


def test_outputs_of_a_left_block_are_those_after_finally_and_with() -> None:
    code = "try:\n    y = 1\n    break\nfinally:\n    y = y + 1"
    assert make(code, outputs="y", signals=True)([]) == [2, "break", None]


def test_a_signal_may_be_overruled_by_finally() -> None:
    code = "try:\n    return 1\nfinally:\n    continue"
    assert make(code, signals=True)([]) == ["continue", None]


def test_exceptions_pass_through_with_the_users_line(tmp_path: Any) -> None:
    source = "def program(s):\n    if True:\n        a = 1\n        b = a / zero\n"
    file = str(tmp_path / "program.py")
    linecache.cache[file] = (len(source), None, source.splitlines(True), file)
    namespace: dict[str, Any] = {}
    exec(compile(source, file, "exec"), namespace)
    block = make("a = 1\nb = a / zero", "zero", outputs="b", span=Span(file, 3, 8, 4, 20), python=namespace["program"])
    with pytest.raises(ZeroDivisionError) as caught:
        block([0])
    shown = "".join(traceback.format_tb(caught.value.__traceback__))
    assert f'File "{file}", line 4, in program\n    b = a / zero\n        ~~^~~~~~' in shown


def test_stop_iteration_is_carried() -> None:
    with pytest.raises(Escaped) as caught:
        expr("next(iter(xs))", "xs")([[]])
    assert isinstance(caught.value.error, StopIteration)


def test_future_annotations_of_the_users_module_hold() -> None:
    (function,) = make("def f(x: not_defined): return x", outputs="f")([])
    assert function.__annotations__ == {"x": "not_defined"}


def test_code_that_is_no_python() -> None:
    with pytest.raises(SyntaxError):
        make("a = = 1")


QUICK = [
    ("len(x) + 1", [1], True),
    ("f'{x!r} {GREETING}'", "a", True),
    ("', '.join(sorted(x))", ["b", "a"], True),
    ("x['a'][0].strip()", {"a": [" b"]}, True),
    ("print(x)", 1, False),
    ("x()", 1, False),
    ("owner", 1, False),
    ("x['a']", object(), False),
    ("x[0]", [object()], False),
    ("x[0]", ["a"] * 1000, False),
    ("[y for y in x if y]", [1], True),
    ("range(x)", 10**9, True),
    ("sum(range(x))", 10**9, False),
    ("[y for y in range(x)]", 10**9, False),
    ("sum(x)", range(10**9), False),
]


@pytest.mark.parametrize(("code", "value", "expected"), QUICK)
def test_only_harmless_code_on_plain_values_runs_on_the_loop(code: str, value: Any, expected: bool) -> None:
    assert expr(code, "x").is_quick([value]) is expected


def test_loops_and_shadowed_builtins_are_not_quick() -> None:
    assert not make("while x:\n    pass", "x").is_quick([0])
    assert not expr("len(x)", "x len").is_quick([[], print])
