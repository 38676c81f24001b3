"""Pass `constrain`: arguments of requests that are constant become part of their ops.

What is part of an op is looked at once, when the module is linked, and not in every run; and constraints among it (a
regex, a JSON schema, a grammar) are checked before anything runs (lang/constraints.py). Behind `inline` that is so for
what a helper is given by its caller, too.
"""

from __future__ import annotations

from ..ir.core import Attr, Module, Op, Value
from .asking import MODEL_OPS, definitions

_SCALARS = (str, bool, int, float, type(None))


def constrain(module: Module) -> None:
    """Take constant arguments into the ops of the model, in place."""
    defined = definitions(module)
    for op in module.walk():
        if op.name in MODEL_OPS or op.name == "lm.call":
            _take_constants(op, defined)


def _take_constants(op: Op, defined: dict[Value, Op]) -> None:
    names: list[str] = op.attrs.get("dynamic", [])
    first = len(op.operands) - len(names)
    params: dict[str, Attr] = dict(op.attrs.get("params", {}))
    left: list[tuple[str, Value]] = []
    for name, value in zip(names, op.operands[first:], strict=True):
        maker = defined.get(value)
        if name == "call" and maker is not None and not maker.attrs.get("dynamic"):
            continue  # that checks what this op has as well
        if maker is None or not _is_constant(maker, name):
            left.append((name, value))
        elif name == "name":
            op.attrs = op.attrs | {"name": maker.attrs["value"]}
        else:
            params[name] = maker.attrs["value"]
    if len(left) == len(names):
        return
    op.operands[first:] = [value for _, value in left]
    kept = {key: value for key, value in op.attrs.items() if key not in ("dynamic", "params")}
    op.attrs = kept | ({"params": params} if params else {}) | ({"dynamic": [name for name, _ in left]} if left else {})


def _is_constant(op: Op, name: str) -> bool:
    """Whether an op makes a constant that an attribute of this name can hold."""
    value = op.attrs.get("value")
    return op.name == "py.const" and isinstance(value, str if name == "name" else _SCALARS)
