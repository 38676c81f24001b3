"""The frame of all pages: a file that needs nothing from elsewhere, with a light and a dark theme and a switch."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape
from importlib.resources import files
from string import Template

from ..explain_text import printable
from .colours import page_colours


def document(title: str, heading: str, subtitle: str, body: str, *, style: str = "", script: str = "") -> str:
    """A whole page, which is XML as well. title, heading, subtitle: text; body: HTML.

    style, script: files of this folder that it needs besides those of all pages; no "<" or "&" may be in them.
    """
    return Template(_file("page.html")).substitute(
        title=escape(printable(title)),
        heading=escape(printable(heading)),
        subtitle=escape(printable(subtitle)),
        colours=page_colours(),
        style=_file("page.css") + (_file(style) if style else ""),
        body=body,
        script=_file("page.js") + (_file(script) if script else ""),
    )


def figures(told: Iterable[tuple[str, str]]) -> str:
    """Numbers, each with what it is of."""
    inner = "".join(f'<div class="figure"><b>{escape(value)}</b>{escape(name)}</div>' for value, name in told)
    return f'<div class="figures">{inner}</div>'


def legend(entries: Iterable[tuple[str, str]], *, before: str = "", kind: str = "legend") -> str:
    """What colours mean: the class of each with its meaning."""
    swatch = '<svg width="14" height="14" aria-hidden="true"><rect class="{}" width="14" height="14" rx="3"/></svg>'
    inner = "".join(f"<span>{swatch.format(name)}{escape(text)}</span>" for name, text in entries)
    return f'<div class="{kind}">{f"<span>{escape(before)}</span>" if before else ""}{inner}</div>'


def framed(page: str) -> str:
    """A page as a piece of HTML that a notebook can show."""
    return f'<iframe srcdoc="{escape(page)}" style="width:100%;height:560px;border:0"></iframe>'


def _file(name: str) -> str:
    return files(__package__).joinpath(name).read_text(encoding="utf-8")
