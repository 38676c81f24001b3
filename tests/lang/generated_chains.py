"""Random programs that ask on several branches at once: straight-line code, loops, tries and calls on copies.

`source_of(seed)` gives a module's text with a program `main(s, log, words, n, flag)`. No state gets out of sight, so
that the pass `parallelize` puts off what it can. Host code logs, changes lists that several names hold, and gives a
global another value; some of it cannot be seen through.
"""

from __future__ import annotations

from random import Random

Lines = list[str]
_MAX_DEPTH = 5

_HELPERS = """
WORD = "w"
NOTES = []


def rename(value):
    global WORD
    WORD = str(value)[:4]
    return WORD


def remember(value):
    NOTES.append(value)
    return len(NOTES)


def parse(log, text):
    log.append(("parse", text, WORD, len(NOTES)))
    if len(text) % 7 == 6:
        raise ValueError("too long")
    return text.split()


def words_of(text):
    found = []
    for word in text.split():
        if word:
            found.append(word.strip().lower())
    return found


def again(t, log, depth):
    t += f"Again {depth}." + rf.gen("x", max_tokens=2)
    try:
        return 6 // (len(t["x"]) % 3)
    except ZeroDivisionError:
        log.append(("again", depth))
        return again(t, log, depth - 1) if depth else 0


def check(t, log, question):
    t += question + rf.gen("x", max_tokens=2)
    if len(t["x"]) % 2:
        t += "Why?" + rf.gen("y", max_tokens=2, temperature=1.0)
        log.append(t["y"])
        return t["y"]
    return t["x"]
"""


class Chains:
    """Writes one program. texts, states: the names that are certainly bound."""

    def __init__(self, seed: int) -> None:
        self._random = Random(f"chains {seed}")
        self._number = 0
        self._budget = 22
        self._loops = self._depth = 0
        self._texts = ["WORD"]
        self._states: list[str] = []

    def source(self) -> str:
        """The module's text."""
        body = ['rename("w")', "NOTES.clear()", "notes = []", "kept = notes", "count = 0", *self._draft()]
        while self._budget > 0:
            body += self._statement()
        body.append(f"return {self._one_of('notes', 'count', self._text(), 'len(notes)', '[notes, WORD, NOTES[:]]')}")
        return (
            "\n".join([_HELPERS.strip(), "", "", "def main(s, log, words, n=2, flag=True):", *_indented(body)]) + "\n"
        )

    def _one_of(self, *options: str) -> str:
        return self._random.choice(options)

    def _fresh(self, letter: str) -> str:
        self._number += 1
        return f"{letter}{self._number}"

    def _state(self) -> str:
        return self._random.choice(self._states)

    def _text(self) -> str:
        state = self._state()
        return self._one_of(f'{state}["x"]', f'{state}["x"]', self._random.choice(self._texts), '"k"')

    def _field(self) -> str:
        return "{" + self._text().replace('"', "'") + "}"

    def _condition(self) -> str:
        text = self._text()
        return self._one_of(
            f"len({text}) % 2", f"len({text}) % 2", f"len({text}) % 3", f'"e" in {text}', "len(notes) > 2", "flag",
            "len(kept) % 2", "count % 2", f"len({self._state()}.text()) % 2", "len(NOTES) % 2",
        )  # fmt: skip

    def _gen(self, name: str = "x") -> str:
        options = self._one_of("", "", ", temperature=1.0", ", temperature=1.0")
        return f'rf.gen("{name}", max_tokens={self._random.randint(1, 3)}{options})'

    def _statement(self) -> Lines:
        self._budget -= 1
        simple = [
            self._draft, self._append, self._read, self._note, self._note, self._opaque, self._call, self._main_state,
            self._leave, self._bind, self._copy,
        ]  # fmt: skip
        nested = [self._if, self._if, self._if, self._while, self._for, self._for, self._try]
        makers = [*simple, *simple, *nested] if self._depth < _MAX_DEPTH else simple
        return self._random.choice(makers)()

    def _block(self, size: int = 2) -> Lines:
        self._depth += 1
        texts, states = list(self._texts), list(self._states)
        lines = [line for _ in range(self._random.randint(1, size)) for line in self._statement()]
        self._texts, self._states = texts, states
        self._depth -= 1
        return _indented(lines)

    def _draft(self) -> Lines:
        state = self._fresh("t")
        lines = [f"{state} = s.copy()", f'{state} += f"Draft {self._number} {{WORD}}." + {self._gen()}']
        self._states.append(state)
        return lines

    def _copy(self) -> Lines:
        source, state = self._state(), self._fresh("t")
        self._states.append(state)
        return [f"{state} = {source}.copy()", f'{state} += "Copy {self._number}." + {self._gen()}']

    def _append(self) -> Lines:
        content = self._one_of(
            f'"More." + {self._gen()}', f'f"<{self._field()}>" + {self._gen()}',
            f'{self._text()} + "," + {self._gen()}', f"{self._text()}", f'rf.user("U") + rf.assistant({self._gen()})',
        )  # fmt: skip
        return [f"{self._state()} += {content}"]

    def _if(self) -> Lines:
        lines = [f"if {self._condition()}:", *self._block(3)]
        if self._random.random() < 0.3:
            lines += [f"elif {self._condition()}:", *self._block()]
        return [*lines, "else:", *self._block()] if self._random.random() < 0.4 else lines

    def _while(self) -> Lines:
        counter = self._fresh("c")
        more = f" and {self._condition()}" if self._random.random() < 0.6 else ""
        self._loops += 1
        lines = [f"{counter} = 0", f"while {counter} < {self._random.randint(1, 3)}{more}:"]
        lines += [f"    {counter} += 1", *self._block()]
        self._loops -= 1
        return lines

    def _for(self) -> Lines:
        text = self._fresh("w")
        header = self._one_of(
            f"{text} in words", f"{text} in ['p', 'q', 'r']", f"{text} in notes[:3]", f"{text} in map(str, range(3))",
            f"{text} in kept" if self._loops else f"{text} in 'abc'", f"{text} in words_of({self._text()})",
        )  # fmt: skip
        texts = list(self._texts)
        self._texts.append(text)
        self._loops += 1
        bound = (
            [f"    if len(notes) > 12 or count > 40:{self._one_of(' break', ' continue')}"] if "kept" in header else []
        )
        before = _indented(self._draft()) if self._random.random() < 0.5 else []
        lines = [f"for {header}:", *bound, f"    {text} = str({text})", *before, *self._block(4)]
        if before:
            self._states.pop()
        self._loops -= 1
        self._texts = texts
        return lines

    def _try(self) -> Lines:
        risky = self._one_of(
            f"count += 6 // (len({self._text()}) % 2)", f"parse(log, {self._text()})", f"int({self._text()})",
            f'{self._state()}["missing"]', f'words[len({self._text()})]',
        )  # fmt: skip
        kind = self._one_of("ZeroDivisionError", "Exception", "(ValueError, LookupError)")
        lines = ["try:", *self._block(1), f"    {risky}", f"except {kind} as error:", "    log.append(type(error))"]
        lines += self._block(1)
        return [*lines, "finally:", "    log.append(len(notes))"] if self._random.random() < 0.3 else lines

    def _read(self) -> Lines:
        text, value = self._fresh("w"), self._text()
        self._texts.append(text)
        return [f"{text} = {value}{self._one_of('', '.strip()', '[:3]', '.upper()')}"]

    def _note(self) -> Lines:
        line = self._one_of(
            f"notes.append({self._text()})",
            f"log.append({self._text()})",
            f"count += len({self._text()})",
            "log.append((len(notes), count))",
            f"kept.append(len({self._text()}))",
            "log.append(notes[-1:])",
            f"notes += words_of({self._text()})",
            "log.append(f'{WORD} {len(NOTES)}')",
        )
        return [line]

    def _opaque(self) -> Lines:
        text = self._fresh("w")
        value = self._one_of(
            f"rename({self._text()})", f"remember({self._text()})", f"parse(log, {self._text()})",
            f"note(log, {self._text()})", "str(remember(notes))", f"words_of({self._text()})",
        )  # fmt: skip
        if value.startswith(("rename", "note", "str")):
            self._texts.append(text)
        return [f"{text} = {value}"]

    def _call(self) -> Lines:
        text, state = self._fresh("w"), self._state()
        given = self._one_of(state, f"{state}.copy()", "s.copy()")
        called = self._one_of(f'check({given}, log, "Check {self._number}.")', f"again({given}, log, 2)")
        self._texts.append(text)
        return [f"{text} = str({called})"]

    def _main_state(self) -> Lines:
        return [self._one_of(f's += f"[{self._field()}]"', f's += "." + {self._gen()}')]

    def _leave(self) -> Lines:
        how = self._one_of("break", "continue") if self._loops else f"return {self._text()}"
        return [f"if {self._condition()}:", f"    {how}"] if self._random.random() < 0.5 else self._note()

    def _bind(self) -> Lines:
        state = self._state()
        return [f'{state}["list"] = notes', f'{state}["list"].append({self._text()})']


def _indented(lines: Lines) -> Lines:
    return ["    " + line for line in lines]


def source_of(seed: int) -> str:
    """The text of the module with the program of this seed."""
    return Chains(seed).source()
