"""Python's private names: inside a class, `__name` means `_Class__name`."""

from __future__ import annotations

from itertools import pairwise


def private_prefix(qualname: str) -> str:
    """What private names in a function begin with, from the function's qualified name; empty outside of classes."""
    around = [*qualname.split(".")[:-1], ""]
    for part, after in reversed(list(pairwise(around))):
        if part != "<locals>" and after != "<locals>":
            stripped = part.lstrip("_")
            return f"_{stripped}" if stripped else ""
    return ""


def mangled(name: str, prefix: str) -> str:
    """The name as Python's own tables have it."""
    return prefix + name if prefix and name.startswith("__") and not name.endswith("__") else name


def unmangled(name: str, prefix: str) -> str:
    """The name as it is written."""
    return name.removeprefix(prefix) if prefix and name.startswith(f"{prefix}__") else name
