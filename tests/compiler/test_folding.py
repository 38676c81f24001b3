"""What is told of host code without running it."""

from __future__ import annotations

import ast
from typing import Any

import pytest
from ramify.compiler.folding import UNKNOWN, leading_text, may_take_long, value_of
from ramify.ir.core import Op


def expression(code: str) -> Op:
    return Op("py.expr", attrs={"code": code, "inputs": []})


def block(code: str) -> Op:
    return Op("py.block", attrs={"code": code, "inputs": []})


@pytest.mark.parametrize(
    ("code", "value"),
    [
        ("a == 'yes'", True),
        ("a != 'yes' or n in (1, 2)", True),
        ("not (a == 'yes' and n in [3])", True),
        ("a not in {'no', 'yes'}", False),
        ('["yes", "no"]', ["yes", "no"]),
        ("(a ==\n    'no')", False),
    ],
)
def test_values(code: str, value: Any) -> None:
    assert value_of(expression(code), {"a": "yes", "n": 2}) == value


@pytest.mark.parametrize("code", ["b == 1", "a.upper() == 'YES'", "1 < n < 3", "1 in n", "+".join(["n"] * 5000)])
def test_values_that_cannot_be_told(code: str) -> None:
    with pytest.raises(UNKNOWN):
        value_of(expression(code), {"a": "yes", "n": 2})


@pytest.mark.parametrize(
    ("case", "value"),
    [('"yes"', True), ('"no" | "yes"', True), ('"no"', False), ("_", True), ('["yes"]', None), ('"yes" if b', None)],
)
def test_cases_of_a_match(case: str, value: bool | None) -> None:
    op = block(f"found = False\nmatch subject:\n    case {case}:\n        found = True")
    if value is None:
        with pytest.raises(UNKNOWN):
            value_of(op, {"subject": "yes"})
    else:
        assert value_of(op, {"subject": "yes"}) is value


@pytest.mark.parametrize(
    ("code", "pieces", "is_all"),
    [
        ("'one ' + a + b", ["one ", "yes", "<b>"], True),
        ("f'one {a} two {b}{f(b)} three'", ["one ", "yes", " two ", "<b>"], False),
        ("f'{b!r} one'", [], False),
        ("f'{b:>5} one'", [], False),
        ("'one ' * 3", [], False),
        ("'one ' + f(b) + 'two'", ["one "], False),
        ("(" + "+".join(["'x'"] * 3000) + ")", [], False),
    ],
)
def test_how_a_text_begins(code: str, pieces: list[str], is_all: bool) -> None:
    told, told_all = leading_text(expression(code), {"a": "yes"})
    assert [f"<{piece.id}>" if isinstance(piece, ast.Name) else piece for piece in told] == pieces
    assert told_all is is_all


@pytest.mark.parametrize(
    ("code", "is_long"),
    [
        ("a.strip() == str(n)", False),
        ("len(a) > max(1, 2)", False),
        ("search(a)", True),
        ("client.search(a)", True),
        ("input(a)", True),
        ("(lambda: 1)()", True),
        ("await a", True),
    ],
)
def test_what_may_take_long(code: str, is_long: bool) -> None:
    assert may_take_long(expression(code)) is is_long


def test_indented_statements() -> None:
    assert may_take_long(block("\n    x = 1\n    y = search(x)"))
    assert not may_take_long(block("    x = 1\n    y = x.real"))
