"""Programs among everything else that Python has: classes, pickles, threads, wrappers, code without source."""

from __future__ import annotations

import copy
import functools
import pickle
import subprocess
import sys
from abc import ABC, abstractmethod
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import ramify as rf
from ramify.backends.scripted import ScriptedBackend
from ramify.ir.errors import CompileError, UsageError
from ramify.lang.loading import load_file

from . import comparing
from .comparing import Waves

BOTH = pytest.mark.parametrize("eager", [True, False], ids=["eager", "compiled"])


def echo(text: str, _: Any) -> str:
    return f"<{text[-6:]}>"


def same(program: Any, **arguments: Any) -> Any:
    """What a program gives on its arguments, which must be the same eagerly and compiled."""
    seen = []
    for eager in (True, False):
        row = copy.deepcopy(arguments)
        (run,) = program.run_batch([row], backend=ScriptedBackend(echo), eager=eager)
        seen.append(comparing.outcome(run, lambda file: file == __file__))
    assert seen[0] == seen[1]
    return seen[0]["value"] if seen[0]["error"] is type(None) else seen[0]["error"]


def ops(program: rf.Program, name: str) -> list[Any]:
    return [op for op in program.compile().module.walk() if op.name == name]


# Methods.


@rf.program
def outside(s: Any, word: str) -> str:
    s += word + rf.gen("o")
    return s.text()


class Judge:
    tag = "judge"
    held = outside

    def __init__(self, tone: str = "kind") -> None:
        self.tone = tone

    @rf.program
    def ask(self, s, question, *, end="?"):
        s += f"{self.tag} {self.tone}: {question}{end}" + rf.gen("answer")
        return s["answer"]

    def remark(self, state, word):
        state += word + rf.gen("remark")
        return state["remark"]

    @rf.program(max_tokens=7)
    def both(this, prompt, question):
        answer = this.ask(prompt, question, end="!")
        return answer, this.remark(prompt.copy(), answer), prompt.text()

    @staticmethod
    @rf.program
    def free(s, word):
        s += "free " + word + rf.gen("f")
        return s["f"]

    @rf.program
    @staticmethod
    def free_too(s, word):
        s += "free too " + word
        return s.text()

    @classmethod
    @rf.program
    def named(cls, s, word):
        s += cls.tag + word + rf.gen("n")
        return cls.free(s, "x"), s.text()

    @rf.program
    @classmethod
    def named_too(cls, s, word):
        s += cls.tag + word
        return s.text()


class Strict(Judge):
    tag = "strict"

    @rf.program
    def ask(self, s, question, *, end="?"):
        s += "Be strict. "
        return super().ask(s, question, end=end) + "|"

    def remark(self, state, word):
        state += "no remark"
        return None


@rf.program
def asks_any(s: Any, judge: Any) -> Any:
    return (
        judge.ask(s, "a"),
        Judge.ask(judge, s, "b"),
        judge.named_too(s, "c"),
        Judge.free(s, "d"),
        judge.remark(s, "e"),
    )


@BOTH
@pytest.mark.parametrize("judge", [Judge("warm"), Strict("cold")], ids=["own", "inherited"])
def test_methods(judge: Judge, eager: bool) -> None:
    options = {"backend": ScriptedBackend(echo), "eager": eager}
    start = "Be strict. strict cold: q" if isinstance(judge, Strict) else "judge warm: q"
    assert judge.ask.run("q", **options).text.startswith(start + "?")
    assert judge.ask.run(question="q", end=".", **options).text.startswith(start + ".")
    assert Judge.ask.run(judge, "q", **options).text.startswith(f"{judge.tag} {judge.tone}: q")
    assert judge.both.run("q", **options).text.startswith(start + "!")
    assert judge.ask("q", backend=options["backend"], eager=eager).text.startswith(start)
    texts = [run.text for run in judge.ask.run_batch([{"question": "1"}, {"question": "2"}], **options)]
    assert [text[len(start) - 1 :][:2] for text in texts] == ["1?", "2?"]
    assert judge.named.run("w", **options).value[1].startswith(judge.tag + "w")
    assert type(judge).named_too.run("w", **options).text == judge.tag + "w"
    assert judge.free.run("w", **options).text.startswith("free w") and Judge.free_too.run("w", **options).ok


@pytest.mark.parametrize("judge", [Judge("warm"), Strict("cold")], ids=["own", "inherited"])
def test_methods_do_the_same_compiled(judge: Judge) -> None:
    for program in (judge.both, judge.ask, Strict("x").ask, type(judge).named, judge.named_too, judge.free):
        name = next(iter(program.signature.parameters))
        assert same(program, **{name: "w"})
    assert same(asks_any, judge=judge)
    assert same(Judge.both, this=judge, question="q")


def test_methods_of_self_are_compiled_too() -> None:
    calls = ops(Judge.both, "flow.call")
    assert [(op.attrs["callee"], op.attrs["method"]) for op in calls] == [("ask", "ask"), ("remark", "remark")]
    assert not Judge.both.compile().eager
    assert Judge().both.compile() is Judge.both.compile() is not Strict().both.compile()
    assert [op.name for op in Strict.ask.compile().module.walk()].count("flow.invoke") == 1
    assert not Strict.ask.compile().eager


class Debater:
    def __init__(self, name: str) -> None:
        self.name = name

    @rf.program
    def speak(self, s, said):
        s += f"{self.name}: {said}" + rf.gen("word")
        return s["word"]

    def listen(self, s, word):
        s += word
        return self.name


@rf.program
def debate(s, debaters, rounds=2):
    words = ["none"] * len(debaters)
    branches = s.fork(len(debaters))
    for _ in range(rounds):
        spoken = [debater.speak(branch, words[-1]) for debater, branch in zip(debaters, branches, strict=True)]
        words = spoken
    listener = debaters[0].listen(s, said=words[0]) if rounds == 0 else debaters[0].listen(word=words[0], s=s)
    table = {"speak": debaters[-1].speak, "free": Judge.free, "plain": lambda t: t.text()}
    speak = table["speak"]
    return words, listener, speak(s, "end"), table["free"](s, word="f"), table["plain"](s), [b.text() for b in branches]


@rf.program
def everyone(s, debaters):
    for debater, branch in zip(debaters, s.fork(len(debaters)), strict=True):
        word = debater.speak(branch, said="first")
        s += word
    return s.text()


@rf.program
def at_once(s, words):
    asked = {w: ask_short(s.copy(), w) for w in words}
    s += ", ".join(ask_short(b, w) for b, w in zip(s.fork(3), words, strict=True))
    return asked


@rf.program
def wrongly_dynamic(s, debater):
    s += "a"
    debater.speak(s)


def test_programs_that_only_the_run_knows() -> None:
    debaters = [Debater(name) for name in "abc"]
    assert same(debate, debaters=debaters)[1] == "a"
    assert len(ops(debate, "flow.invoke")) == 6 and not debate.compile().eager
    assert everyone.run(debaters, backend=Waves(3, echo), timeout=20).ok  # they speak at once
    assert list(at_once.run("abc", backend=Waves(6, echo), timeout=20).value) == ["a", "b", "c"]
    assert same(wrongly_dynamic, debater=debaters[0]) is TypeError


def test_a_method_that_an_instance_replaces() -> None:
    judge = Judge()
    assert judge.both.compile()
    judge.remark = lambda state, word: f"mine {word}"  # type: ignore[method-assign]
    assert same(judge.both, question="q")[1].startswith("mine <")

    class Late(Judge):
        def __getattribute__(self, name: str) -> Any:
            return (lambda *_: "late") if name == "remark" else super().__getattribute__(name)

    late = Late()
    assert [late.both.run("q", backend=ScriptedBackend(), eager=eager).value[1] for eager in (True, False)] == [
        "late",
        "late",
    ]


def test_a_method_that_a_class_replaces(monkeypatch: pytest.MonkeyPatch) -> None:
    assert same(Judge("x").both, question="q")[1].startswith("<")
    monkeypatch.setattr(Judge, "remark", lambda self, state, word: "patched")
    assert same(Judge("x").both, question="q")[1] == "patched"


def test_a_program_that_a_class_only_holds_stays_what_it_is() -> None:
    Judge.added = outside  # type: ignore[attr-defined]
    for program in (Judge.held, Judge().held, Judge.added, Judge().added):  # type: ignore[attr-defined]
        assert program is outside
    assert same(Judge().held, word="w").startswith("w<")
    del Judge.added  # type: ignore[attr-defined]


@dataclass
class Notes:
    words: list[str] = field(default_factory=list)

    @rf.program
    def add(self, s, word):
        self.words.append(word)
        s += ", ".join(self.words) + rf.gen("x")
        self.words += [s["x"]]
        return len(self.words)


@BOTH
def test_a_dataclass_as_self(eager: bool) -> None:
    notes = Notes()
    program = notes.add.options(backend=ScriptedBackend(echo), eager=eager)
    assert [program.run(word).value for word in "ab"] == [2, 4]
    assert notes.words == ["a", "<a>", "b", "<<a>, b>"]


def test_abstract_methods_and_other_receivers() -> None:
    class Base(ABC):
        @rf.program
        @abstractmethod
        def ask(self, s): ...

    class Done(Base):
        __slots__ = ()

        @rf.program
        def ask(self, s):
            s += "done"
            return s.text()

    with pytest.raises(TypeError, match="abstract"):
        Base()  # type: ignore[abstract]
    assert same(Done().ask) == "done"


def test_a_method_without_a_state() -> None:
    class Wrong:
        @rf.program
        def ask(self): ...

    with pytest.raises(UsageError, match="program ask takes no state") as caught:
        Wrong().ask.run()
    assert "the second parameter of a method is the state" in str(caught.value)
    with pytest.raises(UsageError, match="missing argument 'question'") as caught:
        Judge().ask.run()
    assert "ask(question, *, end='?')" in str(caught.value)


def test_a_state_given_by_keyword() -> None:
    @rf.program
    def by_keyword(s):
        t = s.copy()
        return outside(word="w", s=t), Judge("k").ask(question="q", s=t), t.text()

    assert same(by_keyword)[0].startswith("w<")


@pytest.mark.parametrize(
    "call",
    [
        lambda: wrong_count,
        lambda: wrong_name,
        lambda: wrong_method,
    ],
)
def test_wrong_arguments_of_helpers(call: Any) -> None:
    assert same(call()) is TypeError


def two(s: Any, word: str, *, end: str = ".") -> None:
    s += word + end


@rf.program
def wrong_count(s: Any) -> None:
    s += "a"
    two(s)  # type: ignore[call-arg]


@rf.program
def wrong_name(s: Any) -> None:
    two(s, "w", start=1)  # type: ignore[call-arg]


class WrongMethod:
    @rf.program
    def ask(self, s, word): ...

    @rf.program
    def outer(self, s):
        self.ask(s, "a", "b")


wrong_method = WrongMethod().outer


# Pickles and copies.


def test_programs_are_pickled_by_name() -> None:
    for program in (outside, Judge.ask, Judge.free, Judge.held):
        assert pickle.loads(pickle.dumps(program)) is program
    set_up = pickle.loads(pickle.dumps(outside.options(seed=3)))
    assert set_up._options.sampling.seed == 3 and set_up._cache is outside._cache
    bound = pickle.loads(pickle.dumps(Judge("pickled").ask.options(eager=True)))
    assert bound.run("q", backend=ScriptedBackend()).text.startswith("judge pickled: q")
    assert pickle.loads(pickle.dumps(Strict.named_too)).run("q").text == "strictq"
    assert copy.deepcopy({"p": outside})["p"] is outside is copy.copy(outside)


def test_programs_that_have_no_name_are_not_pickled() -> None:
    @rf.program
    def nested(s): ...

    with pytest.raises(
        pickle.PicklingError, match=r"program .*nested cannot be pickled: it is not what .*nested names"
    ):
        pickle.dumps(nested)
    assert copy.deepcopy(nested) is nested


class Old:
    @rf.function
    def ask(self, s, word):
        s += type(self).__name__ + word + rf.gen("x")
        return s["x"]

    @rf.function
    def twice(self, s, word):
        return self.ask(s, word) + self.ask(s, word=word)


def test_methods_under_the_interface_of_sglang() -> None:
    backend = ScriptedBackend(echo)
    assert Old().ask.run("w", backend=backend).ret_value == "<Oldw>"
    for eager in (True, False):
        assert Old().twice.run("w", backend=backend, eager=eager).ret_value == "<Oldw><w>Oldw>"
    assert pickle.loads(pickle.dumps(Old.ask)).program is Old.ask.program


# Functions that the compiler cannot see into.


def shouting(function: Any) -> Any:
    @functools.wraps(function)
    def wrapper(s: Any, *args: Any, **kwargs: Any) -> Any:
        value = function(s, *args, **kwargs)
        s += "!"
        return value

    return wrapper


@rf.program
@shouting
def decorated_below(s, word="w"):
    s += word + rf.gen("x")
    return s["x"]


@shouting
@rf.program
def decorated_above(s, word="w"):
    s += word + rf.gen("x")
    return s["x"]


@shouting
def decorated_helper(s, word):
    s += word + rf.gen("y")
    return s["y"]


@rf.program
def calls_decorated(s):
    return decorated_above(s), decorated_below(s, "b"), decorated_helper(s, "h"), s.text()


def made_by_exec() -> Any:
    space: dict[str, Any] = {"rf": rf}
    exec(
        "def made(s, n, *rest, key=1, **more):\n    s += f'{n}{rest}{key}{more}' + rf.gen('x')\n    return s['x']",
        space,
    )
    return space["made"]


no_source = made_by_exec()
short = lambda s, word: ask_short(s, word)  # noqa: E731


def ask_short(s: Any, word: str) -> Any:
    s += word + rf.gen("z")
    return s["z"]


@rf.program
def calls_no_source(s):
    return no_source(s, 1, 2, key=3, other=4), short(s, "lambda"), (lambda t: t.text())(s)


def test_decorated_programs_and_helpers() -> None:
    assert same(decorated_below) == "<w>" and same(calls_decorated)[3].endswith("!")
    assert decorated_below.run("q", backend=ScriptedBackend(echo)).text == "q<q>!"
    (note,) = decorated_below.compile().eager
    assert note.reason == "decorated_below is wrapped by a decorator, which runs as Python"


def test_functions_without_source() -> None:
    assert same(calls_no_source)[0]
    program = rf.program(no_source)
    assert same(program, n=1, key=5, other=6)
    (note,) = program.compile().eager
    assert note.reason.startswith("the source of made cannot be found")
    assert same(rf.program(lambda s, a: ask_short(s, a)), a="b") == "<b>"
    other, note = calls_no_source.compile().eager
    assert other.reason == "made does not take all of the arguments by name"
    assert note.reason == "<lambda> is not written with `def`" and note.span.source_line().startswith("short = ")


def test_a_program_typed_into_python_itself() -> None:
    code = "\n".join(
        [
            "import ramify as rf",
            "@rf.program",
            "def p(s):",
            "    s += 'typed'",
            "    return s.text()",
            "",
            "print(p.run(backend='scripted').value, p.compile().eager[0].reason)",
        ]
    )
    done = subprocess.run([sys.executable], input=code, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("typed the source of p cannot be found; define it in a file")


def asked(s: Any, word: str) -> None:
    s += word


def lines_of(s: Any) -> Any:
    yield s.text()


@rf.program
def gives_states_away(s, words):
    asked(s, *words)
    first = [line for line in lines_of(s)] if words else asked(s, "")
    decorated_helper(s, "w") and asked(s, "x")
    len(s.text()), isinstance(s, object), str(s)
    return first, s.text()


def test_calls_that_run_as_python_are_said() -> None:
    assert same(gives_states_away, words=["a"])[1].startswith("aw")
    reasons = [note.reason for note in gives_states_away.compile().eager]
    assert reasons == [
        "asked is called with * or **",
        "lines_of is a generator",
        "decorated_helper is wrapped by a decorator",
        "asked is called in an expression that is not always evaluated",
    ]


def test_what_cannot_be_saved_is_named(tmp_path: Path) -> None:
    for program, why in (
        (decorated_below, "decorated_below is wrapped by a decorator, which cannot be saved"),
        (rf.program(no_source), "made has no `def` in a file"),
        (Strict.ask, "Strict.ask uses super"),
    ):
        with pytest.raises(CompileError, match=why):
            program.compile().save(tmp_path / "p.ir")


def test_a_method_is_saved_and_loaded_without_its_class(tmp_path: Path) -> None:
    Judge.both.compile().save(tmp_path / "both.ir")
    loaded = rf.load(tmp_path / "both.ir", trust=True)
    values = [p.run(Judge("x"), "q", backend=ScriptedBackend(echo)).value for p in (loaded, Judge.both)]
    assert values[0] == values[1]


# Files.

FILE = """# -*- coding: {encoding} -*-
import ramify as rf
\f
@rf.program
def program(s, words):
\ttotal = 0
\tfor word in words:
\t\ts += "größe" + \\
\t\t\tword
\t\t# a comment that is not indented
\t\ttotal += (len(word)
  +1)
\t\tif word == "b":
\t\t\tx = '''two
lines''' ; s += x
\ts += rf.gen("x")
\tvalue = (s["x"],
\t\tlen(s.text()),
\t\ttotal / (0 if "fail" in words else 1))
\treturn value
"""


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("encoding", ["utf-8", "latin-1"])
def test_files_of_every_kind(tmp_path: Path, end: str, encoding: str) -> None:
    path = tmp_path / f"odd_{encoding[0]}{len(end)}.py"
    path.write_bytes(FILE.format(encoding=encoding).replace("\n", end).encode(encoding))
    program = load_file(path).program("program")
    runs = [program.run(["a", "b"], backend=ScriptedBackend(echo), eager=eager) for eager in (True, False)]
    assert runs[0].value == runs[1].value and runs[0].text == runs[1].text
    assert not program.compile().eager
    for eager in (True, False):
        with pytest.raises(ZeroDivisionError) as caught:
            program.run(["fail"], backend=ScriptedBackend(echo), eager=eager)
        assert caught.traceback[-1].lineno + 1 == 19


# Processes and threads.

PROCESSES = """
import multiprocessing, threading
import ramify as rf

@rf.program(backend="scripted", max_tokens=2)
def ask(s, q):
    s += q + rf.gen("x")
    return s["x"]

@rf.program(backend="scripted", max_tokens=2)
async def later(s, q):
    return (await ask.arun(q)).value

class Judge:
    def __init__(self, tone):
        self.tone = tone

    @rf.program(backend="scripted")
    def ask(self, s, q):
        s += self.tone + q
        return s.text()

def work(job):
    program, q = job
    return program.run(q).value

if __name__ == "__main__":
    here = [work((ask, "a")), work((later, "a"))]
    jobs = [(ask, "a"), (ask.options(max_tokens=1), "a"), (Judge("j").ask, "b"), (later, "a")]
    jobs.append((Judge("k").ask.options(eager=True), "c"))
    for method in ("fork", "spawn"):
        with multiprocessing.get_context(method).Pool(2) as pool:
            first, short, bound, second, eager = pool.map(work, jobs)
            assert [first, second] == here and first.startswith(short) and (bound, eager) == ("jb", "kc")
    print("done", pool is not None)
"""


def test_processes(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(PROCESSES)
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=120)
    assert done.stdout == "done True\n" and done.returncode == 0, done.stderr


@BOTH
def test_many_threads(eager: bool) -> None:
    backend = ScriptedBackend(echo, delay=0.001)
    program = Judge("t").both.options(backend=backend, eager=eager)
    expected = program.run("q").text
    with ThreadPoolExecutor(32) as pool:
        texts = list(pool.map(lambda _: program.run("q").text, range(100)))
    assert set(texts) == {expected}
