"""docs/ir.md says what the code does: its grammar, its op table and its examples are checked."""

from __future__ import annotations

import re
from pathlib import Path

from ramify.ir.reference import op_table

_ROOT = Path(__file__).parents[2]
_PAGE = (_ROOT / "docs" / "ir.md").read_text(encoding="utf-8")


def _block(language: str) -> str:
    (found,) = re.findall(rf"```{language}\n(.*?)```", _PAGE, re.DOTALL)
    return str(found)


def test_the_op_table_is_current() -> None:
    assert op_table() in _PAGE, "replace the table in docs/ir.md with what ramify.ir.reference.op_table() returns"


def test_the_grammar_is_the_parsers() -> None:
    assert _block("lark").strip() in (_ROOT / "ir" / "grammar.lark").read_text(encoding="utf-8")


def test_the_examples_run() -> None:
    exec(_block("py"), {"text": _block("ir")})
