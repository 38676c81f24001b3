"""The text that every run of a program begins with, so that its KV can be computed before the first one.

Read off the compiled program: its ops are followed from the start as far as they need no argument.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...ir.core import Op, Value
from ...ir.types import CELL
from ...runtime.host import HostOp
from ...runtime.prompt import Prompt
from ..compiled import Compiled

_TEXT = (str, int, float, bool, type(None))


def constant_prefix(compiled: Compiled, root: Prompt, bound: Mapping[str, Any]) -> Prompt:
    """What is appended to `root` before the program needs an argument, generates, or decides.

    bound: arguments that are known.
    """
    function = compiled.module.functions[compiled.module.entry]
    parameters = function.body.args
    named = zip(parameters, function.param_names, strict=True)
    known: dict[Value, Any] = {value: bound[name] for value, name in named if name in bound}
    cell = next(value for value in parameters if value.type == CELL)
    known[cell] = root
    prompt = root
    for op in function.body.ops:
        values = [known[value] for value in op.operands if value in known]
        if not _follow(compiled, op, values, known, complete=len(values) == len(op.operands)):
            break
        prompt = known[cell]
    return prompt


def _follow(compiled: Compiled, op: Op, values: list[Any], known: dict[Value, Any], *, complete: bool) -> bool:
    """Note what an op gives. False where the prefix ends."""
    match op.name:
        case "py.const":
            known[op.result] = op.attrs["value"]
        case "py.expr" if complete and op.attrs.get("lazy") and all(isinstance(value, _TEXT) for value in values):
            home = op.inlined[0].callee if op.inlined else compiled.module.entry
            known[op.result] = HostOp(op, compiled.lowered.python[home])(values)
        case "py.expr" | "py.block" | "py.unbound" | "py.list" if not any(map(_holds_state, op.operands)):
            pass
        case "prompt.part":  # checks what is appended later
            pass
        case "cell.load":
            known[op.result] = values[0]
        case "cell.store":
            known[op.operands[0]] = values[1]
        case "prompt.role" if complete:
            known[op.result] = values[0].role(op.attrs["role"], op.attrs["mark"])
        case "prompt.append" if complete and isinstance(values[1], str):
            known[op.result] = values[0].append_text(values[1])
        case _:
            return False
    return True


def _holds_state(value: Value) -> bool:
    """Whether host code that gets the value may change a state."""
    return value.type.kind in ("cell", "prompt")
