"""The Python blocks of README and docs run: those of one file one after the other, in one namespace.

Blocks fenced as ```python are executed; fragments are fenced as ```py and only have to parse.
"""

from __future__ import annotations

import ast
import linecache
import re
import textwrap
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
FENCE = re.compile(r"^```(python|py)\n(.*?)^```", re.MULTILINE | re.DOTALL)


def blocks(page: Path) -> list[tuple[str, int, str]]:
    """Each block's language, first line and code."""
    text = page.read_text(encoding="utf-8")
    return [(m[1], text[: m.start(2)].count("\n") + 1, m[2]) for m in FENCE.finditer(text)]


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_python_blocks_run(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    space: dict[str, object] = {"__name__": "docs"}
    for language, line, code in blocks(page):
        if language == "py":
            ast.parse(textwrap.dedent(code))
            continue
        name = f"<{page.name}:{line}>"
        linecache.cache[name] = (len(code), None, code.splitlines(keepends=True), name)
        exec(compile(code, name, "exec", dont_inherit=True), space)


def test_links_lead_somewhere() -> None:
    for page in PAGES:
        text = re.sub(r"`[^`\n]+`", "", page.read_text(encoding="utf-8"))  # in code it is a call
        for target in re.findall(r"\]\((?!http)([^)#]+)", text):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_the_readme_shows_a_program() -> None:
    assert any("@rf.program" in code for _, _, code in blocks(ROOT / "README.md"))
