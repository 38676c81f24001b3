"""Walking over Python's syntax trees. Front ends spend much of their time here, so this is ast.walk made quick."""

from __future__ import annotations

import ast

# What has nothing below it that anybody looks for.
_LEAVES = frozenset({ast.Name, ast.Constant, ast.Pass, ast.Break, ast.Continue, ast.alias})


def walk(root: ast.AST) -> list[ast.AST]:
    """The node and all nodes below it, parents first, without the Load, Store and Del marks."""
    found = [root]
    for node in found:
        if type(node) not in _LEAVES:
            found += children(node)
    return found


def children(node: ast.AST) -> list[ast.AST]:
    """The nodes right below one, without the Load, Store and Del marks."""
    below: list[ast.AST] = []
    for name in node._fields:
        if name == "ctx":
            continue
        value = getattr(node, name, None)
        if isinstance(value, ast.AST):
            below.append(value)
        elif isinstance(value, list):
            below += [item for item in value if isinstance(item, ast.AST)]
    return below
