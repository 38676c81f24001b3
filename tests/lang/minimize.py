"""Makes a failing program smaller: drops statements and parts of them as long as it still fails."""

from __future__ import annotations

import ast
import copy
import time
from collections.abc import Callable, Iterator


def minimize(source: str, fails: Callable[[str], bool], *, seconds: float = 20.0) -> str:
    """The smallest variant found in that time of a module's source for which `fails` still holds."""
    until = time.monotonic() + seconds
    if not _still(ast.parse(source), fails):
        return source  # it fails for its layout, which unparsing loses
    tree = ast.parse(source)
    while (smaller := _smaller(tree, fails, until)) is not None:
        tree = smaller
    return ast.unparse(tree)


def _smaller(tree: ast.Module, fails: Callable[[str], bool], until: float) -> ast.Module | None:
    """One pass of all reductions; None when none applies any more."""
    changed = False
    index = 0
    while True:
        variant = copy.deepcopy(tree)
        edits = list(_edits(variant))
        if index >= len(edits) or time.monotonic() > until:
            return tree if changed and time.monotonic() < until else None
        edits[index]()
        if _still(variant, fails):
            tree, changed = variant, True
        else:
            index += 1


def _still(tree: ast.Module, fails: Callable[[str], bool]) -> bool:
    if not all(_ends(node) for node in ast.walk(tree) if isinstance(node, ast.While)):
        return False
    try:
        source = ast.unparse(ast.fix_missing_locations(tree))
        compile(source, "<variant>", "exec")
    except (SyntaxError, ValueError):
        return False
    return fails(source)


def _ends(loop: ast.While) -> bool:
    """Whether the loop still counts its turns up to a bound, as all generated ones do."""
    test = loop.test.values[0] if isinstance(loop.test, ast.BoolOp) and isinstance(loop.test.op, ast.And) else loop.test
    match test, loop.body[:1]:
        case (
            ast.Compare(left=ast.Name(id=name), ops=[ast.Lt()], comparators=[ast.Constant()]),
            [ast.AugAssign(target=ast.Name(id=counter), op=ast.Add(), value=ast.Constant(value=1))],
        ):
            return name == counter
    return False


def _edits(tree: ast.AST) -> Iterator[Callable[[], None]]:
    """Ways to make the tree smaller, the largest first; each changes the tree in place."""
    for node in ast.walk(tree):
        for name in ("body", "orelse", "finalbody", "handlers", "cases"):
            block = getattr(node, name, None)
            if isinstance(block, list):
                yield from (_without(block, index) for index in reversed(range(len(block))))
                yield from (_unwrapped(block, index) for index in reversed(range(len(block))))
    for node in ast.walk(tree):
        for name, value in ast.iter_fields(node):
            if isinstance(value, ast.expr) and not isinstance(value, ast.Constant | ast.Name):
                yield from (_put(node, name, part) for part in _parts(value))
            elif isinstance(value, list):
                for index, item in enumerate(value):
                    if isinstance(item, ast.expr) and not isinstance(item, ast.Constant | ast.Name):
                        yield from (_put_item(value, index, part) for part in _parts(item))


def _parts(node: ast.expr) -> list[ast.expr]:
    children = [child for child in ast.iter_child_nodes(node) if isinstance(child, ast.expr)]
    return [*children, ast.Constant("c"), ast.Constant(1)]


def _without(block: list[ast.AST], index: int) -> Callable[[], None]:
    def edit() -> None:
        lone = len(block) == 1 and isinstance(block[0], ast.stmt)
        block[index : index + 1] = [ast.Pass()] if lone and not isinstance(block[0], ast.Pass) else []

    return edit


def _unwrapped(block: list[ast.AST], index: int) -> Callable[[], None]:
    def edit() -> None:
        inner = getattr(block[index], "body", None)
        if isinstance(inner, list) and not isinstance(block[index], ast.FunctionDef | ast.ClassDef):
            block[index : index + 1] = inner

    return edit


def _put(node: ast.AST, name: str, value: ast.expr) -> Callable[[], None]:
    return lambda: setattr(node, name, value)


def _put_item(items: list[ast.expr], index: int, value: ast.expr) -> Callable[[], None]:
    return lambda: items.__setitem__(index, value)
