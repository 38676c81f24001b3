"""Dependencies point one way: ir <- compiler; ir <- runtime <- backends; lang on top."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ALLOWED = {
    "ir": set(),
    "compiler": {"ir"},
    "runtime": {"ir"},
    "backends": {"ir", "runtime"},
    "lang": {"ir", "compiler", "runtime", "backends"},
}
FILES = sorted(path for layer in ALLOWED for path in (ROOT / layer).rglob("*.py"))
# The embedded model is trained and measured by scripts that are users of the language.
SCRIPTS = {"train.py", "evaluate.py"}


def imported_layers(path: Path) -> set[str]:
    """The layers that a file imports, wherever in the file."""
    here = path.relative_to(ROOT).parts
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.level:
            base = list(here[: len(here) - node.level])
            found.add((base + (node.module or "").split("."))[0])
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("ramify."):
            found.add((node.module or "").split(".")[1])
    return found & ALLOWED.keys()


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_a_file_imports_only_what_lies_below(path: Path) -> None:
    layer = path.relative_to(ROOT).parts[0]
    if layer == "backends" and path.name in SCRIPTS:
        pytest.skip("a script that uses the language")
    assert imported_layers(path) <= ALLOWED[layer] | {layer}


def test_the_test_sees_imports() -> None:
    assert imported_layers(ROOT / "compiler" / "frontend.py") == {"ir", "compiler"}
