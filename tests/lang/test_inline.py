"""The pass `inline`: what calls mean stays the same where they are ops no more, and what is gained by it."""

from __future__ import annotations

import linecache
import traceback
from pathlib import Path
from typing import Any

import pytest
import ramify as rf
from ramify.backends.scripted import ScriptedBackend
from ramify.compiler.pipeline import run_pipeline
from ramify.lang.compiled import Compiled

GREETING = "Hello"
WAYS = [{"eager": True}, {}, {"disable": ["inline"]}]


def failing_read(s):
    s += "Say more."
    return s["missing"]


def failing_host(s, number):
    s += GREETING
    return 1 / number


def between(s, number):
    return failing_host(
        s,
        number,
    )


def unassigned(s, flag):
    if flag:
        found = 1
    s += "x"
    return found


@rf.program
def reads(s):
    s += rf.user("Hi")
    return failing_read(s)


@rf.program
def divides(s, number=0):
    s += rf.user("Hi")
    return between(s, number) + 1


@rf.program
def returns_nothing(s):
    return unassigned(s, False)


@rf.program
def passes_nothing(s, flag=False):
    if flag:
        number = 1
    return between(s, number)


@rf.program
def catches(s):
    try:
        between(s, 0)
    except ZeroDivisionError as error:
        return [(entry.name, entry.lineno) for entry in traceback.extract_tb(error.__traceback__)]


def entries(error: BaseException) -> list[tuple[str, str]]:
    """The functions and lines of the user's that an error has passed."""
    found = [(entry.name, entry.line or "") for entry in traceback.extract_tb(error.__traceback__)]
    return [(name, line) for name, line in found if name in globals() and not name.startswith(("test", "failure"))]


def failure(program: rf.Program, options: dict[str, Any]) -> BaseException:
    eager, options = options.get("eager", False), {k: v for k, v in options.items() if k != "eager"}
    with pytest.raises(Exception) as caught:
        program.options(backend=ScriptedBackend(), **options).run(eager=eager)
    return caught.value


@pytest.mark.parametrize("program", [reads, divides, returns_nothing, passes_nothing], ids=lambda each: each.name)
def test_errors_name_each_function_and_line(program: rf.Program) -> None:
    eager, inlined, called = (failure(program, options) for options in WAYS)
    assert type(eager) is type(inlined) is type(called)
    assert str(eager) == str(inlined) == str(called)
    assert entries(eager) == entries(inlined)
    assert entries(called) == entries(inlined)
    assert getattr(inlined, "__notes__", []) == getattr(called, "__notes__", [])


def test_a_caught_error_has_come_through_every_function() -> None:
    eager, inlined, called = (
        catches.options(disable=options.get("disable", [])).run(eager=options.get("eager", False)).value
        for options in WAYS
    )
    assert [name for name, _ in inlined] == ["catches", "between", "failing_host"]
    assert eager == inlined == called


def accumulate(s, item, items=[]):  # noqa: B006
    items.append(item)
    s += f"{len(items)} "
    return items


@rf.program
def keeps_its_default(s):
    first = accumulate(s, "a")
    second = accumulate(s, "b")
    return first is second and first is accumulate.__defaults__[0]


@pytest.mark.parametrize("options", WAYS, ids=str)
def test_defaults_are_the_functions_own_objects(options: dict[str, Any]) -> None:
    accumulate.__defaults__[0].clear()
    program = keeps_its_default.options(disable=options.get("disable", []))
    run = program.run(eager=options.get("eager", False))
    assert run.value is True
    assert run.text == "1 2 "


def made(word):
    def helper(s):
        nonlocal word
        s += word
        word += "!"
        return [word for _ in range(2)]

    return helper


def test_closures_and_globals_are_those_of_the_inlined_function() -> None:
    helper = made("one")
    space: dict[str, Any] = {"__name__": "elsewhere", "GREETING": "Salut", "rf": rf}
    source = "def greet(s):\n    s += GREETING\n    return __name__\n"
    linecache.cache["<elsewhere>"] = (len(source), None, source.splitlines(True), "<elsewhere>")
    exec(compile(source, "<elsewhere>", "exec"), space)
    greet = space["greet"]

    @rf.program
    def program(s):
        first = helper(s)
        return first, greet(s), GREETING

    compiled = program.compile()
    assert "flow.call" not in compiled.ir and "in @greet" in compiled.ir
    run = program.run()
    assert run.value == (["one!", "one!"], "elsewhere", "Hello")
    assert run.text == "oneSalut"
    again = program.run(eager=True)
    assert again.value == (["one!!", "one!!"], "elsewhere", "Hello")


def early(s, number):
    if number > 1:
        s += "many"
        return "many"
    elif number == 1:
        if s.text():
            return "one"
        s += "first"
    else:
        return None
    s += rf.gen("it", max_tokens=4)
    return s["it"]


@rf.program
def returns_early(s, numbers):
    return [early(s, number) for number in numbers] + [early(s, number=numbers[0])]


@pytest.mark.parametrize("numbers", [[1, 0, 2, 1], [2], [0, 1, 1]])
def test_early_returns(numbers: list[int]) -> None:
    runs = [
        returns_early.options(backend=ScriptedBackend(), disable=options.get("disable", [])).run(
            numbers=numbers, eager=options.get("eager", False)
        )
        for options in WAYS
    ]
    assert runs[0].value == runs[1].value == runs[2].value
    assert runs[0].text == runs[1].text == runs[2].text
    assert "flow.call" not in returns_early.compile().ir


def question(s, text):
    s += rf.user("Question: " + text)
    s += rf.assistant(rf.gen("answer", max_tokens=8))
    return s["answer"]


@rf.program
def asks(s, texts):
    s += rf.system("Be brief.")
    for text in texts:
        reader = s.copy()
        question(reader, text)
    return s.text()


def test_records_name_the_line_of_the_gen() -> None:
    backend = ScriptedBackend()
    traces = [
        asks.options(backend=backend, disable=options.get("disable", []))
        .run(texts=["a", "b"], eager=options.get("eager", False))
        .trace
        for options in WAYS
    ]
    lines = [[record.span.source_line().strip() for record in trace] for trace in traces]
    assert lines[0] == lines[1] == lines[2] == ['s += rf.assistant(rf.gen("answer", max_tokens=8))'] * 2


def test_states_do_not_escape_into_helpers() -> None:
    """What a helper has generated, and nobody goes on from, need not be kept; without inlining nobody knows."""
    inlined, called = asks.compile(), Compiled.of(asks.fn, disable=["inline"])
    assert "cell.new" not in inlined.ir and "cell.new" in called.ir
    (known,) = (op for op in inlined.module.walk() if op.name == "lm.gen")
    (unknown,) = (op for op in called.module.walk() if op.name == "lm.gen")
    assert known.attrs["keep"] is False and unknown.attrs["keep"] is True


def field(s, name, value):
    s += name + ": "
    s += value
    s += ";"


@rf.program
def form(s, values):
    for value in values:
        field(s, "first", value)
        field(s, "second", "none")
        field(s, "third", "unknown")
    return s.text()


def test_texts_of_callers_and_callees_become_one() -> None:
    """Three fields of three texts each are three appends."""

    def num_segments(run: rf.Run) -> int:
        return sum(1 for node in run.state.prompt.upwards() if node.kind == "text")

    inlined, called = (form.options(disable=disable).run(values=["a", "b"]) for disable in ([], ["inline"]))
    assert inlined.value == called.value == form.run(values=["a", "b"], eager=True).value
    assert inlined.value == 2 * "first: {};second: none;third: unknown;".replace("{}", "%s") % ("a", "b")
    assert (num_segments(inlined), num_segments(called)) == (2 * 3, 2 * 9)


def test_a_module_with_inlined_functions_is_saved_and_loaded(tmp_path: Path) -> None:
    compiled = divides.compile()
    assert list(compiled.module.functions) == ["divides"]
    for name in ("divides.ir", "divides.bin"):
        compiled.save(tmp_path / name)
        loaded = rf.load(tmp_path / name, trust=True)
        assert loaded.run(number=1).value == 2.0
        with pytest.raises(ZeroDivisionError) as caught:
            loaded.run(number=0)
        assert [name for name, _ in entries(caught.value)] == ["divides", "between", "failing_host"]


def test_inlining_twice_changes_nothing() -> None:
    module = divides.compile().module
    again = run_pipeline(module, after="inline")
    assert [op.name for op in again.walk()] == [op.name for op in module.walk()]


def odd(s, n):
    s += "o"
    return False if n == 0 else even(s, n - 1)


def even(s, n):
    s += "e"
    return True if n == 0 else odd(s, n - 1)


@rf.program
def is_even(s, n):
    return even(s, n)


def test_functions_that_call_each_other_stay() -> None:
    assert "flow.call" in is_even.compile().ir
    assert is_even.run(n=7).value is False
    assert is_even.run(n=7).text == "eoeoeoeo" == is_even.run(n=7, eager=True).text


async def awaited(s, number):
    s += "x"
    if number == 0:
        raise StopIteration
    return number


@rf.program
async def awaits(s, number):
    return await awaited(s, number)


def test_coroutine_functions_stay() -> None:
    assert "flow.call" in awaits.compile().ir
    assert awaits.run(number=3).value == 3
    for eager in (True, False):
        with pytest.raises(RuntimeError, match="coroutine raised StopIteration"):
            awaits.run(number=0, eager=eager)
