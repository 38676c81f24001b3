"""The colours of all pictures, for a light and a dark ground, as pages and as drawings that stand alone use them."""

from __future__ import annotations

from collections.abc import Iterable

# name: light, dark
_COLOURS = {
    "ground": ("#ffffff", "#12161c"), "panel": ("#f6f7f9", "#1a2029"), "ink": ("#1d2530", "#e3e8ef"),
    "dim": ("#5d6877", "#98a4b3"), "rule": ("#d9dee5", "#2f3844"), "link": ("#1f5fbf", "#7fb4f5"),
    "mark": ("#fff2c4", "#4a4014"), "once": ("#d5dbe3", "#3a4350"), "few": ("#9cc4e8", "#2c5a86"),
    "many": ("#3f8fd2", "#3f8fd2"), "most": ("#14599c", "#8cc4f5"), "generated": ("#f0b35a", "#a66a14"),
    "on-light": ("#1d2530", "#e3e8ef"), "on-dark": ("#ffffff", "#0d1116"),
    "prompt": ("#e4edf8", "#1e344d"), "gen": ("#ffe0ad", "#6d4a10"), "select": ("#fdd3c4", "#6b3321"),
    "host-box": ("#eceef1", "#2a323d"), "read": ("#e3f1e3", "#23402a"), "fork": ("#e9defa", "#41305f"),
    "edge": ("#8a94a3", "#6b7686"), "chain": ("#2f6db5", "#6aa5e8"), "hot": ("#d2480a", "#ff9a5c"),
    "wait": ("#d3d9e1", "#3b4552"), "prefill": ("#7db4e6", "#2c6aa5"), "decode": ("#f3bd6b", "#a56a15"),
    "model": ("#f0a58f", "#93472f"), "shared": ("#b9dcb7", "#2c5a34"), "replayed": ("#cdbfe8", "#54437c"),
    "tool": ("#d9a3d6", "#7c3f78"), "host": ("#a9bac0", "#4b626b"), "cached": ("#3f9a58", "#57bf74"),
    "computed": ("#7db4e6", "#2c6aa5"), "failed": ("#c62f2f", "#ff7b72"),
    "told": ("#c3cad4", "#4a5563"), "made": ("#8a5200", "#f0b35a"),
}  # fmt: skip


def page_colours() -> str:
    """The colours as properties of a page, in which `color-scheme` says which of each two it is."""
    values = "".join(f"--{name}:light-dark({light},{dark});" for name, (light, dark) in _COLOURS.items())
    return (
        f":root{{color-scheme:light dark;{values}}}"
        ":root[data-theme=light]{color-scheme:light}:root[data-theme=dark]{color-scheme:dark}"
    )


def drawing_style(kinds: Iterable[str]) -> str:
    """How a drawing looks that shows these kinds of things, each by its colour: ground, text, and what is filled."""
    kinds = list(kinds)
    fills = "".join(f".{kind}{{fill:var(--{kind})}}" for kind in kinds)
    return (
        f"{_drawing_colours(['ground', 'ink', 'dim', 'rule', 'failed', *kinds])}"
        "text{font:11px ui-monospace,'DejaVu Sans Mono',monospace;fill:var(--ink)}text.dim{fill:var(--dim)}"
        f".ground{{fill:var(--ground)}}{fills}"
    )


def _drawing_colours(names: Iterable[str]) -> str:
    """These colours as properties of a drawing; those on a dark ground where its reader prefers one."""
    names = list(names)
    light, dark = ("".join(f"--{name}:{_COLOURS[name][ground]};" for name in names) for ground in (0, 1))
    return f"svg{{{light}}}@media (prefers-color-scheme:dark){{svg{{{dark}}}}}"
