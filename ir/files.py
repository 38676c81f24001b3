"""Modules on disk: `save` writes one, `load` reads one back and refuses to load host code that nobody agreed to run.

A file holds either form of the IR; `load` tells them apart by their content, whatever the file is called.
"""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from .codec import MAGIC, decode, encode
from .core import Module, Op
from .errors import DecodeError, UntrustedCode
from .parser import parse
from .printer import print_module
from .verify import verify

_HOST_CODE = ("py.expr", "py.block", "py.call", "flow.invoke")
_EXCERPTS = 5
_EXCERPT_WIDTH = 80


def save(module: Module, path: str | os.PathLike[str]) -> None:
    """Write the module: as text with spans if the name ends in `.ir`, else in the binary form.

    The file appears whole or not at all. Raises VerifyError for a module that could not be loaded again.
    """
    verify(module)
    target = Path(path)
    data = print_module(module, spans=True).encode() if target.suffix == ".ir" else encode(module)
    temporary = target.with_name(f".{target.name}.{secrets.token_hex(4)}")
    try:
        temporary.write_bytes(data)
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)


def load(path: str | os.PathLike[str], *, trust: bool = False) -> Module:
    """Read and verify a module; with `trust`, also one that holds host code, which running the module executes.

    Raises UntrustedCode for host code without `trust`; ParseError, DecodeError or VerifyError for a file that holds no
    valid module; OSError for one that cannot be read.
    """
    return loads(Path(path).read_bytes(), os.fspath(path), trust=trust)


def loads(data: bytes, name: str, *, trust: bool = False) -> Module:
    """The same for what a file holds. name: of where it comes from, for errors."""
    module = _decoded(data, name)
    verify(module)
    if not trust:
        _refuse_host_code(module, name)
    return module


def host_code(module: Module) -> list[tuple[str, Op]]:
    """The ops that run Python, each with its function's name: host code, and calls of what a value is or has."""
    return [
        (name, op)
        for name, function in module.functions.items()
        for op in function.body.walk()
        if op.name in _HOST_CODE or (op.name == "flow.call" and "method" in op.attrs)
    ]


def _decoded(data: bytes, name: str) -> Module:
    if data[:1] == MAGIC[:1]:  # a byte that no UTF-8 text starts with
        return decode(data)
    try:
        text = data.decode()
    except UnicodeDecodeError:
        raise DecodeError(f"{name} holds neither binary IR nor text: it starts with {data[:10]!r}") from None
    return parse(text, name)


def _refuse_host_code(module: Module, path: str) -> None:
    pieces = host_code(module)
    if not pieces and not module.sources and not module.imports:
        return
    lines = [f"{path} holds host code, which loading it would let run: {_summary(module, len(pieces))}"]
    lines += [f"    @{_printable(name)}: {_code_excerpt(op)}" for name, op in pieces[:_EXCERPTS]]
    if len(pieces) > _EXCERPTS:
        lines.append(f"    ... and {len(pieces) - _EXCERPTS} more")
    help_text = f"if you trust where it comes from, load({path!r}, trust=True)"
    raise UntrustedCode("\n".join(lines), help=help_text)


def _summary(module: Module, num_pieces: int) -> str:
    parts = ["1 piece of Python" if num_pieces == 1 else f"{num_pieces} pieces of Python"]
    if module.sources:
        parts.append(f"the source of {', '.join(module.sources)}")
    if module.imports:
        parts.append(f"imports of {', '.join(module.imports.values())}")
    return _printable("; ".join(parts))


def _code_excerpt(op: Op) -> str:
    if op.name == "py.call":
        return f"the whole body of {_printable(op.attrs['callee'])}"
    if op.name == "flow.invoke":
        return "a call of a value"
    if op.name == "flow.call":
        return f"a call of the method {_printable(op.attrs['method'])}"
    lines = [line.strip() for line in op.attrs["code"].strip().split("\n")]
    more = f" ... ({len(lines)} lines)" if len(lines) > 1 else " ..." if len(lines[0]) > _EXCERPT_WIDTH else ""
    return _printable(lines[0][:_EXCERPT_WIDTH]) + more


def _printable(text: str) -> str:
    """The text, a stranger's, with escapes for what could rewrite the terminal that shows it."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)
