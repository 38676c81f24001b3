"""The front end: golden IR for each construct, exact error texts, and where it runs things eagerly."""

from __future__ import annotations

import linecache
from pathlib import Path
from types import FunctionType

import pytest
from ramify.compiler.frontend import compile_function
from ramify.ir.errors import CompileError
from ramify.ir.printer import print_module
from ramify.ir.verify import verify

from . import programs


@pytest.mark.parametrize("function", programs.GOLDEN, ids=lambda f: f.__name__)
def test_golden(function: FunctionType, golden) -> None:
    lowered = compile_function(function)
    verify(lowered.module)
    golden(Path("frontend") / f"{function.__name__}.ir", print_module(lowered.module))


def refusal(function: FunctionType) -> str:
    with pytest.raises(CompileError) as caught:
        compile_function(function)
    return str(caught.value).replace(programs.__file__, "programs.py")


def line_of(text: str) -> int:
    lines = Path(programs.__file__).read_text(encoding="utf-8").splitlines()
    return next(number for number, line in enumerate(lines, 1) if text in line)


def test_generator_is_refused_with_the_caret_under_non_ascii_text() -> None:
    line = line_of("yield größe")
    assert refusal(programs.generator).splitlines() == [
        f"programs.py:{line}",
        '            x = ("größe", (yield größe))',
        "                           ^^^^^^^^^^^",
        "error: `yield` cannot stand in a program",
        "help: collect the values in a list and return it; stream with `options(stream=...)`",
    ]


def test_a_program_needs_a_state() -> None:
    assert "program no_parameters has no parameters" in refusal(programs.no_parameters)


def test_what_has_no_source_of_its_own_runs_eagerly() -> None:
    space: dict[str, FunctionType] = {}
    exec("def f(s):\n    s += 'x'\n", space)
    for function, why in (
        (lambda s: s, "test_what_has_no_source_of_its_own_runs_eagerly.<locals>.<lambda> is not written with `def`"),
        (space["f"], "the source of f cannot be found; define it in a file, in `ramify repl` or in a notebook"),
        (programs.wrapped, "wrapped is wrapped by a decorator, which runs as Python"),
    ):
        lowered = compile_function(function)  # type: ignore[arg-type]
        verify(lowered.module)
        (note,) = lowered.eager
        assert note.reason == why
        assert "py.call" in print_module(lowered.module)
    assert (note.span.file, note.span.line) == (programs.__file__, line_of("@programs_decorator"))


def test_a_source_that_has_changed_since() -> None:
    file = "<changed>"
    for text in ("def f(s, a):\n    s += a\n", "def f(s, b):\n    s += b\n"):
        linecache.cache[file] = (len(text), None, text.splitlines(True), file)
        if "s, a" in text:
            space: dict[str, FunctionType] = {}
            exec(compile(text, file, "exec"), space)
    (note,) = compile_function(space["f"]).eager
    assert note.reason == "the source of f has changed since it was defined"


def test_source_typed_into_a_repl() -> None:
    text = "def f(s):\n    s += 'x'\n"
    linecache.cache["<typed-1>"] = (len(text), None, text.splitlines(True), "<typed-1>")
    space: dict[str, FunctionType] = {}
    exec(compile(text, "<typed-1>", "exec"), space)
    module = compile_function(space["f"]).module
    assert [op.name for op in module.walk()].count("prompt.append") == 1
    span = next(op.span for op in module.walk() if op.name == "prompt.append")
    assert span is not None and (span.file, span.line, span.source_line()) == ("<typed-1>", 2, "    s += 'x'")


def test_eager_parts_are_said_with_reason_and_line() -> None:
    (note,) = compile_function(programs.eager_statement).eager
    assert note.reason == "`with` around a state" and note.span.source_line().strip().startswith("with open")
    (note,) = compile_function(programs.eager_whole).eager
    assert note.reason == "`locals` needs the function's own frame"


def test_what_is_defined_around_a_state_is_named_as_it_is_written() -> None:
    def program(s):
        def plain():
            nonlocal s
            s += "a"

        async def waits():
            nonlocal s
            s += "b"

        class Holder:
            state = s

    reasons = [note.reason for note in compile_function(program).eager]
    assert reasons == ["`def` around a state", "`async def` around a state", "`class` around a state"]


def test_indented_functions_keep_their_columns() -> None:
    def inner(s):
        s += "deep"

    append = next(op for op in compile_function(inner).module.walk() if op.name == "prompt.append")
    assert append.span is not None
    assert append.span.excerpt()[1].strip() == "^" * len('"deep"')


def test_every_op_has_a_span() -> None:
    for function in programs.GOLDEN:
        for op in compile_function(function).module.walk():
            assert op.span is not None and op.span.file == programs.__file__, op.name


def test_rebinding_a_global_makes_the_result_out_of_date(monkeypatch) -> None:
    lowered = compile_function(programs.helpers)
    assert lowered.current()
    monkeypatch.setattr(programs, "ask", lambda s, question: None)
    assert not lowered.current()
