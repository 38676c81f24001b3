"""Which constraints may leave no choice for very long, or for ever.

llguidance works out at once all text that has to follow. Behind `/a+/ "a"`, whose first terminal takes every letter
that the second wants, there is no end of that, and of `a{1000000}` it takes seconds. Such a constraint is followed
token by token instead. What is said here errs on the side of caution.
"""

from __future__ import annotations

import re

_COUNT = re.compile(r"\{\s*[0-9]{5,}|\"min(?:Items|Length|Properties)\":\s*[0-9]{4,}")
_MAX_COUNT = 10_000
_NESTED = re.compile(r"\\.|(?P<open>\()|(?P<close>\))?\{(?P<count>[0-9]+)[,}]|\)")
# A regular expression's atoms, as far as it matters which of them can stand for several bytes.
_ATOM = re.compile(r"\[(?:\\.|\[[^\]]*\]|[^\]\\])*\]|\\[pPxuU](?:\{[^}]*\}|.)|\\.|\(\?[a-zA-Z-]*[:)]|.", re.DOTALL)
_ENDLESS = re.compile(r"[*+]|\{[0-9]+,\}")
_MANY = re.compile(r"\.|\\[dDwWsSpP].*|\[\^.*|\[.*(?:[^\\[]-[^\]]|\\[dDwWsSpP]).*|\[[^\\].+\]", re.DOTALL)
_TERMINAL = re.compile(
    r"""(?P<regex>/(?:\\.|[^/\\])+/[imslux]*)|"(?:\\.|[^"\\\n])*"i?|(?:\#|//)[^\n]*|(?P<sign>[&~])|(?P<other>.)""",
    re.VERBOSE | re.DOTALL,
)


def is_counted_high(source: str) -> bool:
    """Whether something has to come so often that working it out takes long; counts inside of counts multiply."""
    if _COUNT.search(source) is not None:
        return True
    most = [1]
    for sign in _NESTED.finditer(source):
        if sign[0].startswith("\\"):
            continue
        if sign["open"]:
            most.append(1)
        elif sign["count"] is not None:
            here = int(sign["count"] or 1) * (most.pop() if sign["close"] and len(most) > 1 else 1)
            most[-1] = max(most[-1], here)
            if here >= _MAX_COUNT:
                return True
        elif len(most) > 1:
            most[-2:] = [max(most[-2:])]
    return False


def has_endless_path(regex: str) -> bool:
    """Whether a regular expression may repeat a part without end in which there is no choice."""
    opened, atoms = [0], _ATOM.findall(regex)
    is_many = [_MANY.fullmatch(atom) is not None for atom in atoms]
    for index, atom in enumerate(atoms):
        first = index
        if atom.startswith("("):
            opened.append(index)
        elif atom == ")" and len(opened) > 1:
            first = opened.pop()
        if _is_repeated(atoms, index) and not any(is_many[first : index + 1]):
            return True
    return False


def _is_repeated(atoms: list[str], index: int) -> bool:
    """Whether the atom at an index may come without end."""
    return _ENDLESS.match("".join(atoms[index + 1 : index + 12])) is not None


def forces_long_in_lark(source: str) -> bool:
    """Whether text in a Lark grammar may be forced for ever, or for long.

    Terminals decide that: how often rules are repeated is counted by llguidance.
    """
    lines = re.split(r"\n(?!\s*\|)", source)
    many = {name for line in lines for name in re.findall(r"^_?[A-Z][_A-Z0-9-]*", line) if _has_choice(line)}
    return is_counted_high(source) or any(_forces_long(line, many) for line in lines)


def _forces_long(line: str, many: set[str]) -> bool:
    """Whether a statement may. many: the terminals in which there is a choice."""
    parts = list(_TERMINAL.finditer(line))
    plain = "".join(part["other"] or ("/" if part["regex"] else '"') for part in parts)
    if any(has_endless_path(_inside(part["regex"])) for part in parts if part["regex"]):
        return True
    if any(part["sign"] for part in parts) and _ENDLESS.search(line):
        return True
    repeated = re.findall(r"(\"|\)|_?[A-Z][_A-Z0-9-]*)\s*(?:[*+]|\{[0-9]+,\}|~)", plain)
    return re.match(r"_?[A-Z]", line) is not None and any(name not in many for name in repeated)


def _has_choice(line: str) -> bool:
    """Whether a statement has a regular expression with more than one letter to choose from."""
    regexes = [_inside(part["regex"]) for part in _TERMINAL.finditer(line) if part["regex"]]
    return any(_MANY.fullmatch(atom) for regex in regexes for atom in _ATOM.findall(regex))


def _inside(literal: str) -> str:
    """What stands between the slashes of a regular expression in a grammar."""
    return literal[1 : literal.rindex("/")]
