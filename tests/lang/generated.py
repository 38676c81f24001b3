"""Random programs as Python source, a function of a seed: every construct of the language in odd combinations.

`source_of(seed)` gives a module's text with a program `main(state, log, words, n, flag)`, its helpers before it. All of
them terminate. Host code logs to `log`, so that evaluation order can be seen. Names are used where they may be unbound
and change kind now and then, on purpose: a program that fails must fail the same way eagerly and compiled.
"""

from __future__ import annotations

import asyncio
import itertools
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from random import Random
from typing import Any

import msgspec
import ramify as rf

TAB = "\x01"  # one level of indentation, until the program's own is put in
LIMIT = 2
_KINDS = ("state", "group", "ranked", "int", "text", "list", "maker", "dict")
Lines = list[str]


# What generated programs call. `log` is a list that tests compare.


def note(log: list[Any], value: Any) -> Any:
    """Log a value and give it back."""
    log.append(value)
    return value


def told(log: list[Any], error: BaseException) -> None:
    """Log what an exception says, where it came from, and whether it is the one that is being handled."""
    name = "NameError" if isinstance(error, NameError) else type(error).__name__
    said = getattr(error, "message", None) or ("" if isinstance(error, NameError) else str(error).split("\n")[0])
    above = error.__context__
    log.append((name, said, type(above).__name__, error.__suppress_context__, sys.exc_info()[1] is error))


class Guard:
    """A context manager that logs, and swallows ValueErrors when asked to."""

    def __init__(self, log: list[Any], swallow: bool = False) -> None:
        self.log = log
        self.swallow = swallow

    def __enter__(self) -> int:
        self.log.append("enter")
        return len(self.log)

    def __exit__(self, kind: Any, *_: Any) -> bool:
        self.log.append(("exit", kind and issubclass(kind, Exception)))
        return self.swallow and kind is ValueError


def keep(function: Callable[..., Any]) -> Callable[..., Any]:
    """A decorator."""
    return function


def ask(s: Any, question: str, *, limit: int = 2, name: str = "x") -> str:
    """A helper that makes a chat turn on its state."""
    s += rf.user(question) + rf.assistant(rf.gen(name, max_tokens=limit))
    return s[name]


def pick(first: Any, second: Any, flag: Any = True) -> Any:
    """A helper that gives one of its states back."""
    return first if flag else second


def both(first: Any, second: Any) -> None:
    """A helper that may be called with the same state twice."""
    first += "<1"
    second += "2>" + rf.gen("x", max_tokens=1)
    first["both"] = second["x"]


def countdown(s: Any, depth: int) -> int:
    """A recursive helper."""
    s += f"[{depth}" + rf.gen("x", max_tokens=1)
    below = countdown(s, depth - 1) if depth > 0 else 0
    s += "]"
    return below + 1


@rf.program
def sub(s, word: str = "sub", times: int = 1):
    """A program that others call."""
    for i in range(times):
        s += f"{word}{i}" + rf.gen("y", max_tokens=1)
    return s["y"]


@rf.program
def ping(s, depth):
    """A program that calls another, which calls it."""
    s += f"ping{depth}" + rf.gen("x", max_tokens=1)
    return s["x"] if depth <= 0 else pong(s.copy(), depth - 1)


@rf.program
def pong(s, depth):
    """The other."""
    with s.user():
        s += f"pong{depth}" + rf.gen("y", max_tokens=1)
    return ping(s, depth - 1) + s["y"]


class Speaker:
    """An object with a program and a method that take states."""

    def __init__(self, log: list[Any], tone: str = "calm") -> None:
        self.log = log
        self.tone = tone

    @rf.program
    def speak(self, s, word="hm"):
        """A method that is a program."""
        s += f"{self.tone} {word}" + rf.gen("x", max_tokens=1)
        return self.repeat(s)

    def repeat(self, s: Any) -> str:
        """A method that is none."""
        s += s["x"]
        self.log.append(s["x"])
        return s["x"] + self.tone


def made(number: int, name: str = "x") -> Any:
    """An expression, for somebody else to append."""
    return rf.user(f"made {number}") + rf.assistant(rf.gen(name, max_tokens=number))


def last_choice(choices: Any) -> int:
    """A choice method."""
    return len(choices) - 1


class Item(msgspec.Struct):
    """What JSON is generated of."""

    name: str
    count: int


@rf.tool
def look_up(word: str, times: int = 1) -> str:
    """A tool.

    Args:
        word: what is looked up
        times: how often it is said
    """
    return "/".join([word] * times)


@rf.tool(pure=True)
def shorten(word: str) -> str:
    """A pure tool.

    Args:
        word: what is shortened
    """
    if "a" not in word:
        raise LookupError(f"no a in {word}")
    return word[:4]


async def fetch(what: Any) -> str:
    """What a coroutine waits for."""
    await asyncio.sleep(0)
    return f"[{what}]"


async def ask_later(s: Any, question: str) -> str:
    """A helper that is a coroutine."""
    s += await fetch(question) + rf.gen("x", max_tokens=1)
    return s["x"]


async def numbers(count: int) -> AsyncIterator[int]:
    """What `async for` goes over."""
    for number in range(count):
        await asyncio.sleep(0)
        yield number


@asynccontextmanager
async def noting(log: list[Any]) -> AsyncIterator[int]:
    """An asynchronous context manager."""
    log.append("in")
    try:
        yield len(log)
    finally:
        await asyncio.sleep(0)
        log.append("out")


GLOBALS: dict[str, Any] = {
    "__name__": __name__,
    "asyncio": asyncio,
    "itertools": itertools,
    "rf": rf,
    **{each.__name__: each for each in (note, told, Guard, keep, ask, pick, both, countdown, made, last_choice)},
    **{each.__name__: each for each in (Speaker, Item, fetch, ask_later, numbers, noting)},
    **{each.name: each for each in (sub, ping, pong, look_up, shorten)},
    "TABLE": {"sub": sub, "ask": ask},
    "LIMIT": LIMIT,
}


@dataclass
class Names:
    """The names of one function at one place: those certainly bound, by kind, and those that may be."""

    sure: dict[str, list[str]] = field(default_factory=lambda: {kind: [] for kind in _KINDS})
    maybe: dict[str, list[str]] = field(default_factory=lambda: {kind: [] for kind in _KINDS})

    def branch(self) -> Names:
        """The same names, to go on from."""
        copies = [{kind: list(names) for kind, names in each.items()} for each in (self.sure, self.maybe)]
        return Names(*copies)

    def merge(self, inner: Names) -> None:
        """After a branch: what it has bound may be bound."""
        for kind in _KINDS:
            new = [n for n in inner.sure[kind] + inner.maybe[kind] if n not in self.sure[kind] + self.maybe[kind]]
            self.maybe[kind] += new

    def bind(self, name: str, kind: str) -> None:
        """A name now holds a value of a kind."""
        for each in _KINDS:
            for names in (self.sure[each], self.maybe[each]):
                if name in names:
                    names.remove(name)
        self.sure[kind].append(name)


class Generator:
    """Writes one program. Methods named after kinds give expressions, those of the tables below statements."""

    def __init__(self, seed: str) -> None:
        self.random = Random(seed)
        self.names = Names()
        self.number = 0
        self.budget = 26
        self.loops = 0
        self.function_depth = 0
        self.in_main = True
        self.is_async = False
        self.helpers: list[tuple[str, str]] = []
        self.prefix = ""
        self.root = "s"

    # Choosing.

    def chance(self, probability: float) -> bool:
        return self.random.random() < probability

    def one_of(self, *options: Any) -> Any:
        return self.random.choice(options)

    def fresh(self, kind: str) -> str:
        """A name to assign: a new one, or one in use, now and then of another kind."""
        own = [n for n in self.names.sure[kind] if n.startswith(self.prefix)] if self.prefix else self.names.sure[kind]
        if own and self.chance(0.3):
            return str(self.random.choice(own))
        if not self.prefix and self.chance(0.02):
            others = [n for each in _KINDS for n in self.names.sure[each] if n not in ("log", "words")]
            if others:
                return str(self.random.choice(others))
        self.number += 1
        letters = {"state": "t", "group": "g", "ranked": "r", "int": "k", "text": "w", "maker": "f", "dict": "d"}
        letter = letters.get(kind, "items")
        odd = "é" if self.chance(0.03) else ""
        return f"{self.prefix}{letter}{odd}{self.number}"

    def name(self, kind: str) -> str | None:
        """A name of a kind, sometimes one that may be unbound; None when there is none."""
        sure, maybe = self.names.sure[kind], self.names.maybe[kind]
        if maybe and (self.chance(0.02) or (not sure and self.chance(0.15))):
            return str(self.random.choice(maybe))
        return str(self.random.choice(sure)) if sure else None

    # Expressions.

    def state_name(self) -> str:
        return self.name("state") or self.root

    def state(self, depth: int = 2) -> str:
        """An expression that gives a state."""
        base = self.state_name()
        if depth <= 0 or self.chance(0.6):
            return base
        group, mapping = self.name("group"), self.name("dict")
        options = [
            f"{base}.copy()",
            f"({self.state(depth - 1)} if {self.condition(depth - 1)} else {base})",
            f"pick({base}, {self.state_name()}, {self.condition(0)})",
            f"[{base}, {self.state_name()}][{self.one_of(0, 1, -1)}]",
        ]
        if group:
            options += [f"{group}[{self.one_of(0, 1, -1)}]"] * 3
        if mapping:
            options.append(f'{mapping}["a"]')
        if self.chance(0.1):
            options.append(f"({self.fresh_bound('state', base)} := {base})")
        return str(self.random.choice(options))

    def fresh_bound(self, kind: str, _: str) -> str:
        """A name for a walrus, which binds it here (or, in code that may not run, perhaps)."""
        name = self.fresh(kind)
        if name not in self.names.sure[kind]:
            self.names.maybe[kind].append(name)
        return name

    def variable(self) -> str:
        return str(self.one_of('"x"', '"x"', '"x"', '"y"', "'x'", '"zz"' if self.chance(0.03) else '"x"'))

    def text(self, depth: int = 2) -> str:
        """An expression that gives a str."""
        options: list[Callable[[int], str]] = [self._constant_text, self._name_text]
        if depth > 0:
            options += [
                self._read,
                self._read,
                self._format,
                self._format,
                self._whole_text,
                self._joined,
                self._method,
                self._sum_text,
                self._conditional_text,
                self._ask,
                self._logged_text,
                self._walrus_text,
                self._or_text,
                self._program_text,
                self._tool_text,
            ]
            if self.can_await:
                options += [self._awaited_text] * 3  # fmt: skip
        return str(self.random.choice(options)(depth - 1))

    def _constant_text(self, _: int) -> str:
        return str(
            self.one_of('"a"', "' b'", '"naïve — ü "', '"c\\n"', "''", 'r"\\d"', '"p" "q"', '"""long\nstring"""')
        )

    def _name_text(self, _: int) -> str:
        return self.name("text") or '"none"'

    def _read(self, _: int) -> str:
        state = self.state_name() if self.chance(0.8) else self.state(1)
        if self.chance(0.15):
            return f"{state}.get_var({self.variable()})"
        return f"{state}[{self.variable()}]"

    def _format(self, depth: int) -> str:
        fields = "".join(self._field(depth) for _ in range(self.random.randint(1, 3)))
        return f'f"{fields}"'

    def _field(self, depth: int) -> str:
        inside = str(self.one_of(self._read, self._name_text, self._number_name)(0)).replace('"', "'")
        if "\\" in inside or "\n" in inside:
            inside = "LIMIT"
        if self.chance(0.1):
            inside = f"note(log, {inside})"
        return (
            "é " * self.chance(0.1) + "{" + inside + self.one_of("", "", "", "!r", "!s:>6", "!s:>{LIMIT}", " = ") + "}"
        )

    def _number_name(self, _: int) -> str:
        return self.name("int") or "n"

    def _whole_text(self, _: int) -> str:
        return f"{self.state_name()}.text()[-{self.random.randint(3, 9)}:]"

    def _joined(self, depth: int) -> str:
        if self.chance(0.5):
            return f'", ".join({self.texts(depth)})'
        return f'"-".join(str({self.whole(depth)}) for _ in range(2))'

    def _method(self, depth: int) -> str:
        return f"{self.text(depth)}{self.one_of('.strip()', '.strip().upper()', '[:3]', '.replace(chr(32), chr(46))')}"

    def _sum_text(self, depth: int) -> str:
        return f"({self.text(depth)}{self.one_of(' + ', ' + ', chr(10) + TAB + TAB + '+ ')}{self.text(depth)})"

    def _conditional_text(self, depth: int) -> str:
        return f"({self.text(depth)} if {self.condition(depth)} else {self.text(depth)})"

    def _or_text(self, depth: int) -> str:
        state = self.state_name()
        return f'({self.variable()} in {state} and {state}["x"] or {self.text(depth)})'

    def _ask(self, depth: int) -> str:
        state = self.state_name() if self.chance(0.7) else self.state(1)
        text = self.text(0)
        return str(
            self.one_of(
                f"ask({state}, {text})",
                f'ask({state}.copy(), {text}, name="y", limit=1)',
                f"ask(limit={self.whole(0)} % 3 + 1, question={text}, s={state})",
                f"ask(*[{state}, {text}])",
                f'ask({state}, **{{"question": {text}}})',
                f"sub({state}, {text})[:5]",
                f"sub({state}, times=2)",
            )
        )

    def _program_text(self, _: int) -> str:
        """A call of a program, or of what only the run knows."""
        state, text = self.state(1), self.text(0)
        return str(
            self.one_of(
                f"ping({state}, {self.random.randint(0, 2)})",
                f"pong({state}, 1)",
                f'Speaker(log, "loud").speak({state}, {text})',
                f"Speaker(log).repeat({state})",
                f'TABLE["{self.one_of("sub", "ask")}"]({state}, {text})',
                f"(sub if flag else ask)({state}, {text})",
                f"sub({state}, word={text})",
            )
        )

    def _tool_text(self, depth: int) -> str:
        """A call of a tool."""
        return str(
            self.one_of(
                f"look_up({self.text(depth)}, times={self.whole(0)})",
                f"look_up({self.text(0)})",
                f"shorten({self.text(depth)} + 'a')",
                f"shorten({self._read(0)})" if self.chance(0.3) else f"shorten('a' + {self._read(0)})",
            )
        )

    @property
    def can_await(self) -> bool:
        """Whether code here belongs to a coroutine."""
        return self.is_async and self.function_depth == 0

    def _awaited_text(self, depth: int) -> str:
        state = self.state_name()
        return str(
            self.one_of(
                f"(await fetch({self.text(depth)}))",
                f"(await fetch({self._read(0)}))[1:]",
                f"(await ask_later({state}, {self.text(depth)}))",
                f"''.join(await asyncio.gather(*(ask_later({state}.copy(), w) for w in words)))",
                f"''.join([await fetch(w) for w in words if {self.condition(0)}])",
                f"''.join([str(i) async for i in numbers({self.whole(0)})])",
            )
        )

    def _logged_text(self, depth: int) -> str:
        return f"note(log, {self.text(depth)})"

    def _walrus_text(self, depth: int) -> str:
        value = self.text(depth)
        return f"({self.fresh_bound('text', value)} := {value})"

    def whole(self, depth: int = 2) -> str:
        """An expression that gives an int."""
        options = [lambda: str(self.random.randint(0, 3)), lambda: self._number_name(0), lambda: "LIMIT"]
        if depth > 0:
            options += [
                lambda: f"len({self.text(depth - 1)})",
                lambda: f"len({self.any_list()})",
                lambda: f"({self.whole(depth - 1)} {self.one_of('+', '-', '*')} {self.whole(depth - 1)})",
                lambda: f"note(log, {self.whole(depth - 1)})",
                lambda: f"sum(len(str(v)) for v in {self.texts(depth - 1)})",
                lambda: f"({self.whole(depth - 1)} if {self.condition(depth - 1)} else {self.whole(depth - 1)})",
                lambda: f"countdown({self.state_name()}, {self.one_of(0, 1)})",
                lambda: f"len({self.state_name()}.messages())",
                lambda: f'{self.state_name()}.get_meta_info("x")["completion_tokens"]',
                lambda: self._call_maker(),
                self._walrus_int,
                lambda: f"{self.whole(0)} // {self.whole(0)}" if self.chance(0.15) else "7 // 2",
            ]
        return str(self.random.choice(options)())

    def _walrus_int(self) -> str:
        value = self.whole(1)
        return f"({self.fresh_bound('int', value)} := {value})"

    def _call_maker(self) -> str:
        maker = self.name("maker")
        return f"{maker}({self.whole(0)})" if maker else "1"

    def condition(self, depth: int = 2) -> str:
        """An expression used for its truth."""
        state = self.state_name()
        options = [lambda: "flag", lambda: f"{self._number_name(0)} > 1", lambda: "not flag"]
        if depth > 0:
            options += [
                lambda: f"{self.variable()} in {state}",
                lambda: f'len({state}["x"]) > {self.random.randint(3, 9)}',
                lambda: f"{self.condition(depth - 1)} and {self.condition(depth - 1)}",
                lambda: f"({self.condition(depth - 1)} or {self.condition(depth - 1)})",
                lambda: f"0 < {self.whole(depth - 1)} <= {self.whole(depth - 1)}",
                lambda: f"{self.text(depth - 1)} in {state}.text()",
                lambda: f"{self.state(1)} is {state}",
                lambda: f"not {self.condition(depth - 1)}",
                lambda: f"note(log, {self.condition(depth - 1)})",
                lambda: self.text(depth - 1),
                lambda: f"isinstance({self.any_value()}, str)",
                lambda: f"{self.any_list()}",
                lambda: f"({self.fresh_bound('text', '')} := {self.text(depth - 1)})",
                lambda: f"({self.fresh_bound('int', '')} := {self.whole(depth - 1)}) > 1",
            ]
        return str(self.random.choice(options)())

    def any_list(self) -> str:
        return self.name("list") or "words"

    def any_value(self) -> str:
        """An expression of any kind, mostly a name."""
        kind = self.random.choice(_KINDS[:5])
        return self.name(kind) or self.whole(0)

    def texts(self, depth: int) -> str:
        """An expression that gives a list of texts."""
        group = self.name("group")
        options = [
            "words",
            f"[{self.text(0)}, {self.text(depth)}]",
            f"[v for v in words if v != {self.text(0)}]",
            f"[w + {self.text(0)} for w in words]",
            f"[{self.state_name()}[{self.variable()}] for _ in range(2) if {self.condition(0)}]",
            f"[ask({self.state_name()}.copy(), w) for w in words[:2]]",
            "sorted({len(v): v for v in words}.values())",
            "[y for v in words if (y := v.strip())]",
            f"[a + b for a in words[:2] for b in {self.text(0)}]",
            "[(note(log, i), w)[1] for i, w in enumerate(words)]",
            f"[{self.fresh_bound('text', '')} := w for w in words if {self.condition(0)}]",
        ]
        if group:
            options += [
                f'[b["x"] for b in {group}]',
                f"[b.text()[-4:] for b in {group} if {self.condition(0)}]",
                f"[b.text()[-4:] + w for b, w in zip({group}, words)]",
                f"list(b.text()[-5:] for b in {group})",
            ]
        return str(self.random.choice(options))

    def content(self, depth: int = 2) -> str:
        """What is appended: texts, generations, choices and role marks joined by +."""
        parts = [self._part(depth) for _ in range(self.random.choice((1, 1, 2, 3)))]
        if self.chance(0.12):
            return "(\n" + TAB + ("\n" + TAB + "+ ").join(parts) + "\n)"
        return " + ".join(parts)

    def _part(self, depth: int) -> str:
        if depth > 0 and self.chance(0.4):
            return self.generation()
        if depth > 1 and self.chance(0.12):
            role = self.one_of("user", "assistant", "system")
            return f"rf.{role}({self.content(depth - 1) if self.chance(0.7) else self.text(1)})"
        return self.text(depth)

    def generation(self) -> str:
        """A gen or a select."""
        name = self.one_of(
            '"x"', '"x"', '"x"', '"y"', f"'x' if flag else {self.text(0)}", f'"x" + str({self.whole(0)})'
        )
        tokens = self.random.randint(1, 3)
        return str(
            self.one_of(
                f"rf.gen({name}, max_tokens={tokens})",
                f"rf.gen({name}, max_tokens={tokens})",
                f'rf.gen({name}, max_tokens=n + 1, stop=["e", {self.text(0)} or "i"])',
                f'rf.gen("x", max_tokens=2, temperature=0.9, seed={self.whole(0)})',
                f"rf.gen(max_tokens={tokens})",
                f'rf.select({name}, ["tea", "milk"])',
                f'rf.select("x", choices=[{self.text(0)} + "1", "2"])',
                'rf.gen("x", max_tokens=1, stop="a")',
                'rf.gen(**{"name": "x", "max_tokens": 1})',
                f'rf.gen_string("x", max_tokens={tokens})',
                f"made({self.whole(0)} + 1)" if self.chance(0.5) else f"made({self.whole(0)}, {name})",
                *(self._rarer_generation(name) for _ in range(3)),
                'rf.gen("x", dtype=int, max_tokens=1)' if self.chance(0.2) else f'rf.gen("x", max_tokens={tokens})',
            )
        )

    def _rarer_generation(self, name: str) -> str:
        tokens = self.random.randint(1, 3)
        return str(
            self.one_of(
                f'"#" + rf.gen_int({name}, max_tokens={tokens})',
                f'"#" + rf.gen("y", dtype={self.one_of("int", "float", "str")}, max_tokens=2)',
                'rf.gen("x", n=2, max_tokens=1)' if self.chance(0.3) else 'rf.gen("many", n=2, max_tokens=1)',
                'rf.gen("x", regex="[ab]{2}", max_tokens=4)',
                'rf.gen("item", schema=Item, max_tokens=60)',
                f'rf.score("score", {self.text(0)} or "a")',
                f'rf.score("scores", ["a", {self.text(0)} + "b"])',
                f'rf.select({name}, ["tea", "milk"], choices_method={self.one_of(*_METHODS)})',
                f'rf.gen({name}, choices=["a", "b" + str(n)])',
                'rf.gen("x", max_tokens=3, stop_regex="[aeiou]r")',
                f'rf.gen("x", max_tokens={tokens}, logprobs=1, temperature=0.5)',
                f"rf.separate_reasoning(rf.gen({name}, max_tokens={tokens}))",
                f"rf.tool_message({self.text(0)})" if self.chance(0.3) else f"rf.system({self.text(0)})",
                f'rf.user_begin() + {self.text(0)} + rf.gen("x", max_tokens=1) + rf.user_end()',
            )
        )

    # Statements. Each method gives lines; TAB stands for a level of indentation.

    def block(self, size: int, names: Names | None = None) -> Lines:
        """A few statements, indented; the names they bind may be bound afterwards."""
        outer = self.names
        self.names = names or outer.branch()
        lines = self.statements(size)
        outer.merge(self.names)
        self.names = outer
        return indented(lines or ["pass"])

    def statements(self, size: int) -> Lines:
        lines: Lines = []
        for _ in range(size):
            if self.budget <= 0:
                break
            self.budget -= 1
            lines += self.random.choices(self.makers(), self.weights())[0](self)
        return lines

    def makers(self) -> list[Callable[[Generator], Lines]]:
        return [maker for maker, _ in STATEMENTS]

    def weights(self) -> list[int]:
        return [weight for _, weight in STATEMENTS]

    def append(self) -> Lines:
        target = self.state_name()
        group, mapping = self.name("group"), self.name("dict")
        if group and self.chance(0.25):
            target = f"{group}[{self.one_of(0, 1, -1)}]"
        elif mapping and self.chance(0.2):
            target = f'{mapping}["a"]'
        lines = f"{target} += {self.content()}".split("\n")
        return lines

    def log(self) -> Lines:
        value = self.one_of(self.text, self.whole, self.condition)()
        return f"{self.one_of('note(log, ', 'log.append(')}{value})".split("\n")

    def assign_text(self) -> Lines:
        return self._assign("text", self.text())

    def assign_int(self) -> Lines:
        return self._assign("int", self.whole())

    def assign_state(self) -> Lines:
        return self._assign("state", self.state())

    def assign_list(self) -> Lines:
        value = self.texts(1) if self.chance(0.8) else f"[{self.any_value()}, {self.any_value()}]"
        return self._assign("list", f"list({value})" if value == "words" else value)

    def _assign(self, kind: str, value: str) -> Lines:
        name = self.fresh(kind)
        form = self.one_of("{} = {}", "{} = {}", "{} = {}", "{}: object = {}", "{} = last = {}")
        self.names.bind(name, kind)
        return str(form).format(name, value).split("\n")

    def mutate(self) -> Lines:
        number = self.name("int")
        target = self.name("list")
        lines = [f"log += [{self.whole(1)}]"]
        if number and (self.in_main or number.startswith(self.prefix)) and number != "LIMIT":
            lines.append(f"{number} {self.one_of('+=', '-=')} {self.whole(1)}")
        if target:
            lines.append(f"{target}.append({self.text(1)})")
            lines.append(f"{target}[0:1] = [{self.text(0)}]")
        return str(self.random.choice(lines)).split("\n")

    def mutate_states(self) -> Lines:
        """Change a list or dict of states: aliases, swaps, replacements."""
        mapping, group = self.name("dict"), self.name("group")
        lines = ["pass"]
        if mapping:
            lines += [
                f'{mapping}["a"], {mapping}["b"] = {mapping}["b"], {mapping}["a"]',
                f'{mapping}["{self.one_of("a", "c")}"] = {self.state(1)}',
                f"{mapping}.update(a={self.state_name()})",
                f'{mapping}.pop("c", None)',
                f'for key in {mapping}: {mapping}[key] += "m"',
            ]
        if group:
            lines += [
                f"{group}[0], {group}[-1] = {group}[-1], {group}[0]",
                f"if len({group}) < 5: {group}.append({self.state_name()})",
                f"if len({group}) < 5: {group}.insert(0, {self.state(1)})",
                f"{group}[0] = {self.state_name()}",
                f"{group}.reverse()",
                f"{group} = {group}[:2]",
                f"{group}.pop()",
            ]
        return str(self.random.choice(lines)).split("\n")

    def gather(self) -> Lines:
        """A list of states, with aliases among them."""
        name = self.fresh("group")
        lines = [f"{name} = [{self.state(1)}, {self.state_name()}]"]
        self.names.bind(name, "group")
        return "\n".join(lines).split("\n")

    def rank(self) -> Lines:
        """A list of pairs of a number and a state: made, changed, looked at, and now and then spoilt."""
        ranked = self.name("ranked")
        if ranked is None or self.chance(0.2):
            name = self.fresh("ranked")
            self.names.bind(name, "ranked")
            pairs = [f"({self.whole(0)}, {self.state(1)})" for _ in range(self.random.randint(0, 2))]
            group = self.name("group")
            made = f"[{', '.join(pairs)}]" if group is None or self.chance(0.6) else f"list(enumerate({group}))"
            return f"{name} = {made}".split("\n")
        number, state, other = self.fresh("int"), self.fresh("state"), self.fresh("ranked")
        key = "key=lambda pair: pair[0]"
        best = self.one_of(f"max({ranked}, {key})", f"{ranked}[0]", f"{ranked}.pop()")
        lines = [
            f"{ranked}.append((len({self.text(1)}), {self.state_name()}))",
            f"{ranked}.append(({self.whole(1)}, {self.state(1)}))",
            f"{ranked} += [({self.whole(0)}, {self.state(0)})]",
            f"{ranked}.sort({key})",
            f"{other} = {self.one_of(f'sorted({ranked}, {key})[:2]', ranked, f'{ranked}[1:]')}",
            f"if {ranked}: {number}, {state} = {best}",
            f"if {ranked}: {state} = {ranked}[-1][1]",
            f"log.append([{number} for {number}, {state} in {ranked}])",
            f"{self.fresh('group')} = [{state} for _, {state} in {ranked}]",
            self.one_of(f"{ranked}.append((0, 'z'))", f"{ranked}[:1] = [(1, 'z')]", f"log.append({ranked})"),
            *[f"for {number}, {state} in {ranked}[:3]: {state} += 'r' + {self.content(0)}"] * 3,
        ]
        return str(self.random.choice(lines)).split("\n")

    def bind_variable(self) -> Lines:
        value = self.one_of(self.text, self.whole, self.any_value)()
        name = self.variable()
        state = self.state_name()
        return str(self.one_of(f"{state}[{name}] = {value}", f"{state}.set_var({name}, {value})")).split("\n")

    def branch(self) -> Lines:
        lines = [f"if {self.condition()}:".replace("\n", " "), *self.block(2)]
        if self.chance(0.3):
            lines += [f"elif {self.condition()}:".replace("\n", " "), *self.block(2)]
        if self.chance(0.5):
            lines += ["else:", *self.block(2)]
        return lines

    def for_loop(self) -> Lines:
        inside = self.names.branch()
        if self.can_await and self.chance(0.3):
            number = self.fresh("int")
            inside.bind(number, "int")
            return self._loop([f"async for {number} in numbers({self.random.randint(0, 2)}):"], inside)
        header = self._for_header(inside)
        return self._loop([header], inside)

    def _for_header(self, inside: Names) -> str:
        group, parent = self.name("group"), self.state_name()
        choice = self.random.randrange(8 if group else 5)
        state, number, text = (self.fresh(kind) for kind in ("state", "int", "text"))
        simple = [
            (f"{number} in range({self.random.randint(0, 3)})", [(number, "int")]),
            (f"{text} in {self.one_of('words', '[*words]', 'words[1:]', '()')}", [(text, "text")]),
            (f"{number}, {text} in enumerate(words)", [(number, "int"), (text, "text")]),
            (f"{state} in {self.state_name()}.fork({self.random.randint(0, 2)})", [(state, "state")]),
            (f"{state}, {text} in zip({parent}.fork(len(words)), words)", [(state, "state"), (text, "text")]),
            (f"{state} in {group}", [(state, "state")]),
            (f"{number}, {state} in enumerate({group})", [(number, "int"), (state, "state")]),
            (f"{number}, ({state}, {text}) in enumerate(zip({group}, words))",
             [(number, "int"), (state, "state"), (text, "text")]),
        ]  # fmt: skip
        header, bound = simple[choice]
        for name, kind in bound:
            inside.bind(name, kind)
        return f"for {header}:"

    def _loop(self, header: Lines, inside: Names, tail: Lines | None = None) -> Lines:
        self.loops += 1
        lines = [*header, *indented(tail or []), *self.block(self.random.randint(1, 3), inside)]
        self.loops -= 1
        if self.chance(0.15):
            lines += ["else:", *self.block(1)]
        return lines

    def while_loop(self) -> Lines:
        self.number += 1
        counter = f"{self.prefix}c{self.number}"
        condition = f"{counter} < {self.random.randint(1, 3)}"
        if self.chance(0.5):
            condition += f" and ({self.condition()})".replace("\n", " ")
        return [f"{counter} = 0", *self._loop([f"while {condition}:"], self.names.branch(), [f"{counter} += 1"])]

    def leave(self) -> Lines:
        """A break, continue, return or raise, mostly under a condition."""
        options = [self._return(), f"raise {self.one_of('ValueError', 'KeyError', 'RuntimeError')}({self.text(1)})"]
        if self.loops:
            options += ["break", "continue"] * 3
        lines = str(self.random.choice(options)).split("\n")
        if self.chance(0.9):
            return [f"if {self.condition(1)}:".replace("\n", " "), *indented(lines)]
        return lines

    def _return(self) -> str:
        values = ", ".join(
            self.one_of(self.text, self.whole, self.any_value)() for _ in range(self.random.randint(1, 2))
        )
        return f"return {values}" if self.chance(0.9) else "return"

    def try_block(self) -> Lines:
        lines = ["try:", *self.block(self.random.randint(1, 3))]
        kinds = self.random.sample(_HANDLED, self.random.choice((0, 1, 1, 1, 2)))
        for kind in sorted(kinds, key=len, reverse=True):  # a bare except comes last
            lines += self._handler(kind)
        if kinds and self.chance(0.25):
            lines += ["else:", *self.block(1)]
        if not kinds or self.chance(0.3):
            lines += ["finally:", *self.block(1)]
            if self.chance(0.25):
                lines += indented(self.leave())
        return lines

    def _handler(self, kind: str) -> Lines:
        self.number += 1
        name = self.one_of("error", f"{self.prefix}e{self.number}") if kind and self.chance(0.6) else None
        body = self.block(self.random.randint(0, 2))
        more = ["pass"]
        if name is not None:
            more += [f"told(log, {name})"] * 4 + [
                f"raise RuntimeError('again') from {name}",
                f"raise {name}",
                f"del {name}",
            ]
        if self.chance(0.15):
            more = ["raise", "raise LookupError('other')", self._return()]
        head = f"except {kind}{f' as {name}' if name else ''}:" if kind else "except:"
        return [head, *indented(str(self.random.choice(more)).split("\n")), *body]

    def with_block(self) -> Lines:
        inside = self.names.branch()
        if self.can_await and self.chance(0.3):
            return ["async with noting(log) as entered:", *self.block(2, inside)]
        items = [self._scope(inside) for _ in range(self.random.choice((1, 1, 1, 2)))]
        return [f"with {', '.join(items)}:", *self.block(2, inside)]

    def _scope(self, inside: Names) -> str:
        state, fresh = self.state_name(), self.fresh("state")
        options = [
            (f"{state}.user()", None),
            (f"{state}.assistant()", None),
            (f"{state}.role({self.one_of(repr('user'), repr('system') + ' if flag else ' + repr('user'))})", None),
            (f'{state}.var_scope("y")', None),
            (f'{state}.var_scope("x" + str({self.whole(0)}))', None),
            (f"{state}.unordered()", None),
            (f"{state}.user() as {fresh}", fresh),
            (f"{state}.copy() as {fresh}", fresh),
            (f"{state} as {fresh}", fresh),
            (f"Guard(log, {self.condition(0)}) as entered", None),
        ]
        item, bound = self.random.choice(options)
        if bound:
            inside.bind(bound, "state")
        return str(item)

    def match_block(self) -> Lines:
        subject = self.one_of(
            f"({self.text(1)}, {self.whole(0)})", f'{{"k": {self.whole(1)}}}', self.text(1), self.any_value()
        ).replace("\n", "")
        lines = [f"match {subject}:"]
        for _ in range(self.random.randint(1, 4)):
            lines += indented(self._case())
        if self.chance(0.5):
            lines += indented(["case _:", *self.block(1)])
        return lines

    def _case(self) -> Lines:
        self.number += 1
        name = f"{self.prefix}m{self.number}"
        patterns = (
            f"({name}, 1 | 2)", f'{{"k": {name}}}', f'{{"k": 1 | 3 as {name}, **others}}', f"str({name})",
            f"[{name}, *_]", f"[_, int() as {name}]", f"int({name})", f"rf.State() as {name}", "None | True",
        )  # fmt: skip
        guard = f" if {self.condition(2)}".replace("\n", " ") if self.chance(0.4) else ""
        irrefutable = f"case {name}{guard}:" if guard and self.chance(0.2) else None
        head = irrefutable or f"case {self.random.choice(patterns)}{guard}:"
        inside = [f"note(log, {name})"] if f"{name}" in head.split(" if ")[0] and self.chance(0.3) else []
        return [head, *indented(inside), *self.block(1)]

    def fork(self) -> Lines:
        name, state = self.fresh("group"), self.state_name()
        form = self.random.randrange(5)
        if form == 0:
            first, second = self.fresh("state"), self.fresh("state")
            self.names.bind(first, "state")
            self.names.bind(second, "state")
            return [f"{first}, {second} = {state}.fork(2)"]
        if form == 1:
            head, rest = self.fresh("state"), self.fresh("group")
            self.names.bind(head, "state")
            self.names.bind(rest, "group")
            return [f"{head}, *{rest} = {state}.fork(3)"]
        if form == 2:
            self.names.bind(name, "group")
            return [f"{name} = [{state}.copy() for _ in range(2)]"]
        self.names.bind(name, "group")
        lines = [f"{name} = {state}.fork({self.random.randint(1, 2)})"]
        if form == 4:
            lines += [f'{name} += lambda i: f"b{{i}}" + rf.gen("x", max_tokens=1)']
            lines += [f"{name}.join({self.one_of('', repr('concate_and_append'))})"]
        if form == 3 and self.chance(0.5):
            lines += [f"for b, w in zip({name}, words): b += {self.content(1)}".replace("\n", " ")]
            lines += [f"{name}.join({self.one_of('', repr('concate_and_append'), repr('gather_variable'))})"]
        return lines

    def box(self) -> Lines:
        name = self.fresh("dict")
        lines = [f'{name} = {{"a": {self.state()}, "b": {self.state()}}}']
        self.names.bind(name, "dict")
        return "\n".join(lines).split("\n")

    def swap(self) -> Lines:
        first, second = self.state_name(), self.state_name()
        own = not self.prefix or (first.startswith(self.prefix) and second.startswith(self.prefix))
        return [f"{first}, {second} = {second}, {first}"] if own else ["pass"]

    def delete(self) -> Lines:
        kind = self.one_of("int", "text")
        names = [n for n in self.names.sure[kind] if n not in ("n", "flag") and n.startswith(self.prefix)]
        if not names:
            return ["pass"]
        name = self.random.choice(names)
        self.names.sure[kind].remove(name)
        self.names.maybe[kind].append(name)
        return [f"del {name}"]

    def call(self) -> Lines:
        first, second = self.state(1), self.state(1)
        options = [
            f"both({first}, {second})",
            f"both({self.state_name()}, second={self.state_name()})",
            f"ask({first}, {self.text(1)})",
            f"countdown({first}, {self.whole(0)} % 3)",
            f"pick({first}, {second}).set_var('x', {self.text(1)})",
        ]
        options += [form.format(self.state(1), self.state_name(), self.whole(0)) for _, form in self.helpers] * 2
        return str(self.random.choice(options)).split("\n")

    def define(self) -> Lines:
        """A nested function, lambda or class, and a use of it."""
        if self.function_depth > 1:
            return ["pass"]
        return self.random.choice([self._nested, self._nested, self._lambda, self._class])()

    def _nested(self) -> Lines:
        name = self.fresh("maker")
        shared = [n for kind in ("int", "text", "state") for n in self.names.sure[kind] if n not in ("n", "flag", "s")]
        shared = [n for n in shared if n.startswith(self.prefix)]
        nonlocals = self.random.sample(shared, min(len(shared), self.random.choice((0, 1, 2))))
        body = self._function_body("v", "int", nonlocals)
        lines = ["@keep"] * self.chance(0.2) + [f"def {name}(v, w=LIMIT, *rest, key=1):", *body]
        self.names.bind(name, "maker")
        return lines

    def _function_body(self, parameter: str, kind: str, nonlocals: Lines) -> Lines:
        outer = self.names, self.loops, self.prefix, self.in_main
        self.number += 1
        self.names, self.loops, self.prefix, self.in_main = self.names.branch(), 0, f"i{self.number}_", False
        self.function_depth += 1
        self.names.bind(parameter, kind)
        body = [f"nonlocal {', '.join(nonlocals)}"] if nonlocals else []
        for name in nonlocals:
            body.append(self._change(name))
        body += self.statements(self.random.randint(1, 3))
        body.append(f"return {self.whole(1)}".replace("\n", " "))
        self.function_depth -= 1
        self.names, self.loops, self.prefix, self.in_main = outer
        return indented(body)

    def _change(self, name: str) -> str:
        if name in self.names.sure["state"]:
            return str(self.one_of(f'{name} += "n" + rf.gen("x", max_tokens=1)', f"{name} = {name}.copy()"))
        return f"{name} += 1" if name in self.names.sure["int"] else f'{name} += "n"'

    def _lambda(self) -> Lines:
        name = self.fresh("maker")
        body = self.whole(1).replace("\n", " ")
        if ":=" in body:
            body = "len(words)"
        self.names.bind(name, "maker")
        return [f"{name} = lambda v, w=LIMIT: v + {body}"]

    def _class(self) -> Lines:
        number = self.fresh("int")
        name = f"C{self.number}"
        lines = [f"class {name}:"]
        lines += indented(
            [f"size = {self.whole(1)}".replace("\n", " "), "def get(self, v=1):", TAB + "return self.size + v"]
        )
        self.names.bind(number, "int")
        return [*lines, f"{number} = {name}().get()"]

    def on_one_line(self) -> Lines:
        parts = [
            f"{self.state_name()} += {self.text(1)}",
            f"log.append({self.whole(1)})",
            f"{self.state_name()} += 'q'",
        ]
        parts = [part.replace("\n", " ") for part in parts if '"""' not in part]
        self.random.shuffle(parts)
        return ["; ".join(parts[: self.random.randint(1, 3)])] if parts else ["pass"]

    def odd(self) -> Lines:
        """Statements of no great importance that a front end may get wrong."""
        group = self.name("group")
        options = [
            ["assert n >= 0, 'no'"],
            ["import math as maths; log.append(maths.floor(1.5))"],
            ["'''a text\nalone'''"],
            ["k0: int"],
            [f"first, *others = {self.texts(1)} or ['z']"],
            ["# a comment", ""],
            [f"log.append({{w: {self.text(1)} for w in words}})"],
            [f"log.append(sorted({{len({self.text(1)}) for w in words}}))"],
            [f"{self.state_name()}.user_begin(); {self.state_name()}.user_end()"],
            ["LIMIT"],
            [f"if len({group or 'log'}) < 40: {group or 'log'}.append({self.any_value()})"],
            [f"{group or 'log'}[0] = {self.any_value()}"],
            [f"{self.fresh('group') if group is None else group} = {group or '[1]'}"],
            [f"zip = {self.one_of('enumerate', 'pick')}" if self.chance(0.3) else "pass"],
            [f"list = {self.any_value()}" if self.chance(0.3) else "pass"],
            [f"{group or 'log'}.reverse()"],
            [f"log.append([{self.state_name()} for {self.state_name()} in {group or '()'}])"],
            [f"for {self.state_name()} in {group or '()'}: pass"],
            [f"log.append({{b: {self.state_name()}.text()[-3:] for b in words}})"],
            [f"if (late := {self.text(1)}): log.append(late)".replace("\n", " ")],
            [f"log.append([{self.any_value()}, {self.any_value()}])"],
            [f"for log[-1:] in [[1], [2]]: {self.state_name()} += 'z'"],
            [f"({self.state_name()})"],
            [f"{self.state_name()}.{self.one_of('sync', 'text', 'messages')}()"],
            [f"log.append((lambda z=1: {self.state_name()}['x'])())"],
            [f"log.append(list(v + {self.text(0)} for v in words))"],
            [f"log.append(list(map(lambda b: b.text()[-3:], {group or '[]'})))"],
            [f'if "item" in {self.state_name()}: log.append({self.state_name()}["item"].count)'],
            [f'log.append({self.state_name()}.get("{self.one_of("score", "scores", "many", "item")}"))'],
            [f"log.append({{w: ask({self.state_name()}.copy(), w) for w in words[:2]}})"],
            [f"log.append(tuple(ask({self.state_name()}, w) for w in words[:2]))"],
            [f"{self.state_name()} += (made(1) if {self.condition(1)} else {self.text(0)})".replace("\n", " ")],
            [f"parts = made(1) + {self.text(0)}", f"{self.state_name()} += parts", f"{self.state_name()} += parts"],
            ["speaker = Speaker(log)", f"log.append(speaker.speak({self.state_name()}))", "speaker.tone = 'odd'"],
            [f"method = Speaker(log).{self.one_of('speak', 'repeat')}", f"method({self.state_name()})"],
            [f"log.append(max({group or '[1]'}, key=lambda b: {'len(b.text())' if group else 'b'}) is None)"],
        ]
        return "\n".join(self.random.choice(options)).split("\n")

    # Whole functions.

    def helper(self) -> Lines:
        """A global function that takes a state (and another, perhaps) and may give it back."""
        self.number += 1
        name = f"helper{self.number}"
        self.names, self.budget, self.in_main = Names(), 6, True
        two = self.chance(0.4)
        parameters = "t, log, words, flag" + (", u, *, n=1" if two else ", n=2")
        self.root = "t"
        self._parameters([("t", "state")] + [("u", "state")] * two)
        body = self.statements(self.random.randint(2, 4))
        body.append(f"return {self.one_of(self.state_name, self.text, self.whole, self.any_value)()}")
        form = f"{name}({{0}}, log, words, flag" + (", u={1}, n={2})" if two else ", {2})")
        self.helpers.append((name, form))
        return [f"def {name}({parameters}):", *indented("\n".join(body).split("\n")), "", ""]

    def _parameters(self, more: list[tuple[str, str]]) -> None:
        for name, kind in [("n", "int"), ("words", "list"), *more]:
            self.names.bind(name, kind)
        self.names.sure["list"].remove("words")

    def main(self) -> Lines:
        self.names, self.budget = Names(), 26
        state = self.root = str(self.one_of("s", "s", "state", "prompt", "größe"))
        self._parameters([(state, "state")])
        self.is_async = self.chance(0.15)
        define = "async def" if self.is_async else "def"
        header = f"{define} main({state}, log, words, n{self.one_of('', ': int = 2')}, flag=True):"
        body = [f'{state} += {self.text(0)} + rf.gen("x", max_tokens=2)'] if self.chance(0.9) else []
        if self.chance(0.8):
            body.append(f'{state}["y"] = {self.text(1)}')
        body += self.statements(self.random.randint(3, 9))
        if self.chance(0.8):
            body.append(self._return())
        return [header, *indented("\n".join(body or ["pass"]).split("\n"))]


def indented(lines: Lines) -> Lines:
    """Lines one level deeper."""
    return [TAB + line for text in lines for line in text.split("\n")]


# What handlers catch; "" is a bare except.
_HANDLED = (
    "ValueError", "(KeyError, TypeError)", "ZeroDivisionError", "LookupError", "Exception", "rf.RamifyError",
    "(rf.RamifyError, ValueError)", "BaseException", "NameError", "note(log, KeyError)", "",
)  # fmt: skip

_METHODS = (
    "rf.greedy_token_selection", '"unconditional_likelihood_normalized"', "last_choice", "rf.token_length_normalized",
)  # fmt: skip

STATEMENTS: list[tuple[Callable[[Generator], Lines], int]] = [
    (Generator.append, 22),
    (Generator.log, 6),
    (Generator.assign_text, 7),
    (Generator.assign_int, 4),
    (Generator.assign_state, 5),
    (Generator.assign_list, 3),
    (Generator.mutate, 4),
    (Generator.mutate_states, 3),
    (Generator.gather, 2),
    (Generator.rank, 6),
    (Generator.bind_variable, 3),
    (Generator.branch, 9),
    (Generator.for_loop, 9),
    (Generator.while_loop, 4),
    (Generator.leave, 6),
    (Generator.try_block, 9),
    (Generator.with_block, 6),
    (Generator.match_block, 4),
    (Generator.fork, 5),
    (Generator.box, 2),
    (Generator.swap, 2),
    (Generator.delete, 2),
    (Generator.call, 5),
    (Generator.define, 5),
    (Generator.on_one_line, 3),
    (Generator.odd, 6),
]


def source_of(seed: int) -> str:
    """The text of the module with the program of this seed."""
    for attempt in itertools.count():
        source = _attempt(Generator(f"{seed}.{attempt}"))
        if _is_python(source):
            return source
    raise AssertionError("unreachable")


def _attempt(generator: Generator) -> str:
    lines: Lines = []
    for _ in range(generator.random.choice((0, 0, 1, 2))):
        lines += generator.helper()
    lines += generator.main()
    unit = generator.one_of("    ", "    ", "  ", "\t")
    return "\n".join(lines).replace(TAB, str(unit)) + "\n"


def _is_python(source: str) -> bool:
    """Whether it compiles: a few combinations do not (a walrus in a comprehension's iterable)."""
    try:
        compile(source, "<generated>", "exec")
    except SyntaxError:
        return False
    return True
