"""From a Python function to its syntax tree, with the true line and column of every node.

Source is found through `inspect` and `linecache`, so functions from files, the REPL and notebooks all work. An indented
function is parsed under `if True:` rather than dedented, so that columns are the file's and strings stay as they are.
"""

from __future__ import annotations

import ast
import inspect
import linecache
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, field
from types import FunctionType

from ..ir.errors import CompileError
from ..ir.span import Span


@dataclass(frozen=True, slots=True)
class Source:
    """A function's syntax tree; node positions are those of `file`.

    in_texts: identities of the nodes inside f-strings, whose positions Python does not always tell right.
    """

    file: str
    tree: ast.FunctionDef
    in_texts: frozenset[int] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        texts = (node for node in ast.walk(self.tree) if isinstance(node, ast.JoinedStr))
        inner = frozenset(id(node) for text in texts for node in ast.walk(text) if node is not text)
        object.__setattr__(self, "in_texts", inner)

    def span(self, node: ast.AST) -> Span:
        """The span of a node of this function."""
        return Span.from_node(node, self.file)

    def segment(self, nodes: Sequence[ast.AST]) -> str:
        """The source text from the first node to the last, dedented where that cannot change a string literal."""
        first, last = nodes[0], nodes[-1]
        if id(first) in self.in_texts:
            return ast.unparse(first)
        start_line, start = first.lineno, first.col_offset  # type: ignore[attr-defined]
        end_line, end = last.end_lineno, last.end_col_offset  # type: ignore[attr-defined]
        lines = [linecache.getline(self.file, n).encode() for n in range(start_line, end_line + 1)]
        lines[-1] = lines[-1][:end]
        lead = lines[0][:start]
        lines[0] = (lead if lead.isspace() else b" " * start) + lines[0][start:]
        text = b"".join(lines).decode()
        return text if any(map(_has_long_string, nodes)) else textwrap.dedent(text)

    def group_span(self, nodes: Sequence[ast.AST]) -> Span:
        """The span of several nodes that follow each other."""
        return self.span(nodes[0]).merge(self.span(nodes[-1]))


def function_source(function: FunctionType) -> Source:
    """Parse the source of a function. Raises CompileError when it is not to be had or is a lambda."""
    code = function.__code__
    file = inspect.getsourcefile(function) or code.co_filename
    try:
        lines, first = inspect.getsourcelines(function)
    except (OSError, TypeError) as error:
        raise CompileError(
            f"the source of {function.__qualname__} cannot be found ({error})",
            help="define it in a file, in `ramify repl` or in a notebook; functions made by exec() have no source",
        ) from None
    indented = lines[0][:1].isspace()
    text = "if True:\n" + "".join(lines) if indented else "".join(lines)
    tree = ast.parse(text, filename=file)
    ast.increment_lineno(tree, first - (2 if indented else 1))
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name == function.__name__:
            return _plain(Source(file, node))  # type: ignore[arg-type]
    raise CompileError(f"{function.__qualname__} is not a def statement", help="a program is written with `def`")


def _plain(source: Source) -> Source:
    """The source itself; raises CompileError for coroutines and generators, which are no programs."""
    tree: ast.AST = source.tree
    if isinstance(tree, ast.AsyncFunctionDef):
        raise CompileError(
            "`async def` cannot be a program",
            span=_header(source),
            help="write `def`: gens already run at once, and `await program.arun(...)` waits for a program",
        )
    for node in own_nodes(source.tree):
        if isinstance(node, ast.Yield | ast.YieldFrom | ast.Await):
            raise CompileError(
                f"`{'await' if isinstance(node, ast.Await) else 'yield'}` cannot stand in a program",
                span=source.span(node),
                help="collect the values in a list and return it; stream with `options(stream=...)`",
            )
    return source


def _header(source: Source) -> Span:
    tree = source.tree
    end = tree.col_offset + len(f"async def {tree.name}")
    return Span(source.file, tree.lineno, tree.col_offset, tree.lineno, end)


def own_nodes(root: ast.AST) -> list[ast.AST]:
    """The nodes below `root` that belong to its own scope: nested functions and classes are listed, not entered."""
    found: list[ast.AST] = []
    pending = list(ast.iter_child_nodes(root))
    while pending:
        node = pending.pop()
        found.append(node)
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda | ast.ClassDef):
            pending.extend(ast.iter_child_nodes(node))
    return found


def _has_long_string(root: ast.AST) -> bool:
    """Whether a string literal below `root` covers several lines (dedenting would change it)."""
    return any(
        isinstance(node, ast.JoinedStr | ast.Constant) and node.end_lineno != node.lineno for node in ast.walk(root)
    )
