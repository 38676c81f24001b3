"""Tools: schemas, calls in programs and outside, what goes wrong, and who waits for whom."""

from __future__ import annotations

import asyncio
import gc
import pickle
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Annotated, Any, Literal

import msgspec
import pytest
import ramify as rf
from ramify.backends.scripted import ScriptedBackend
from ramify.lang.docstrings import parse_docstring
from ramify.lang.tools import registered
from ramify.runtime.schema import schema_of

from . import comparing

WAYS = pytest.mark.parametrize("eager", [True, False], ids=["eager", "compiled"])


def run(program: rf.Program, eager: bool, *args: Any, **options: Any) -> rf.Run:
    (done,) = program.options(**options).run_batch(
        [dict(zip(program.signature.parameters, args, strict=True))], backend=ScriptedBackend(), eager=eager
    )
    return done


@pytest.fixture
def gate() -> Iterator[threading.Event]:
    """What hanging tools wait for; opened at the end, so that no thread is left behind."""
    event = threading.Event()
    yield event
    event.set()


# Schemas.


@dataclass
class Place:
    name: str
    zip: int | None = None


@rf.tool
def weather(
    place: Place,
    day: Literal["today", "tomorrow"] = "today",
    scale: Annotated[str, msgspec.Meta(pattern="^[CF]$", description="C or F")] = "C",
    *,
    notes: list[str] = [],  # noqa: B006 (must not be shared with the calls)
    other=None,  # type: ignore[no-untyped-def]
) -> str:
    """The weather
    at a place.

    It is always nice.

    Args:
        place: where,
            with its name
        day (str): when: today or tomorrow
        scale: not this, but the annotation's own text
    Returns:
        A sentence.
    """
    return f"{place.name} {place.zip} {day} {scale} {notes} {other}"


def test_a_schema_comes_from_the_signature_and_the_docstring() -> None:
    function = weather.schema["function"]
    assert weather.schema["type"] == "function"
    assert function["name"] == "weather"
    assert function["description"] == "The weather\nat a place.\n\nIt is always nice."
    parameters = function["parameters"]
    assert parameters["required"] == ["place"]
    assert parameters["additionalProperties"] is False
    assert parameters["properties"] == {
        "place": {"$ref": "#/$defs/Place", "description": "where, with its name"},
        "day": {"enum": ["today", "tomorrow"], "default": "today", "description": "when: today or tomorrow"},
        "scale": {"type": "string", "pattern": "^[CF]$", "description": "C or F", "default": "C"},
        "notes": {"type": "array", "items": {"type": "string"}, "default": []},
        "other": {"default": None},
    }
    assert parameters["$defs"]["Place"]["required"] == ["name"]


GOOGLE = """Does it.

    Even twice.

    Args:
        a (int, optional): first: with a colon
            and a second line
        *rest: the rest

    Raises:
        b: no parameter
    """
NUMPY = """Does it.

    Even twice.

    Parameters
    ----------
    a : int, optional
        first: with a colon
        and a second line
    rest
        the rest

    Returns
    -------
    b : int
        no parameter
    """
SPHINX = """Does it.

    Even twice.

    :param int a: first: with a colon
        and a second line
    :type a: int
    :param rest: the rest
    :returns: b
    """


@pytest.mark.parametrize("text", [GOOGLE, NUMPY, SPHINX], ids=["google", "numpy", "sphinx"])
def test_docstrings_of_the_usual_styles(text: str) -> None:
    description, parameters = parse_docstring(text)
    assert description == "Does it.\n\nEven twice."
    assert parameters == {"a": "first: with a colon and a second line", "rest": "the rest"}


@pytest.mark.parametrize(
    ("text", "description"),
    [
        (None, ""),
        ("", ""),
        ("One line.", "One line."),
        ("Note: this stays.\n\nSo: does this", "Note: this stays.\n\nSo: does this"),
        ("Args: in a sentence", "Args: in a sentence"),
        ("Parameters\n\nare nice", "Parameters\n\nare nice"),
        ("Time is written 12:30: always.\n:half: an hour", "Time is written 12:30: always.\n:half: an hour"),
    ],
)
def test_docstrings_without_sections(text: str | None, description: str) -> None:
    assert parse_docstring(text) == (description, {})


def starred(*names: str) -> None: ...
def open_ended(**names: str) -> None: ...
def by_position(name: str, /) -> None: ...
def odd_type(a: int, thread: threading.Thread) -> None: ...


@pytest.mark.parametrize(
    ("function", "words"),
    [
        (starred, r"starred takes \*names: a tool's arguments are given by name"),
        (open_ended, r"open_ended takes \*\*names"),
        (by_position, "takes name by position only"),
        (odd_type, "parameter thread of the tool odd_type has a type that no JSON stands for"),
        (len, "a tool is a function or a method"),
        ("text", "a tool is a function or a method"),
    ],
)
def test_what_cannot_be_a_tool_is_refused(function: Any, words: str) -> None:
    with pytest.raises(rf.RamifyError, match=words) as caught:
        rf.tool(function)
    if isinstance(function, type(starred)):
        assert caught.value.span is not None
        assert caught.value.span.file == __file__


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"timeout": 0}, "timeout is a number of seconds above 0"),
        ({"timeout": "5"}, "timeout is a number"),
        ({"errors": "ignore"}, 'errors is "raise" or "value"'),
        ({"name": ""}, "a tool's name is a text"),
        ({"retries": 2}, "no option 'retries'"),
    ],
)
def test_wrong_options_are_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(rf.RamifyError, match=words):

        @rf.tool(**options)
        def fine() -> None: ...


# Calls.


@rf.tool
def divide(a: float, b: float = 2) -> float:
    """Divide."""
    return a / b


@rf.tool(errors="value")
def careful(a: int, b: int) -> float:
    """Divide, and say so when that does not work."""
    return a / b


@rf.tool
async def double(x: int) -> int:
    await asyncio.sleep(0)
    return 2 * x


def test_calling_a_tool_is_calling_its_function() -> None:
    assert divide(1) == 0.5
    assert divide(3, b=4) == 0.75
    assert divide("3", "4") == 0.75
    assert weather({"name": "Ulm", "zip": "89073"}, scale="F") == "Ulm 89073 today F [] None"
    assert weather(Place("Ulm"), notes=("a",)) == "Ulm None today C ['a'] None"
    assert double(4) == 8
    with pytest.raises(ZeroDivisionError):
        divide(1, 0)
    assert divide.__doc__ == "Divide."
    assert repr(divide) == "<tool divide(a, b)>"


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: divide(), "divide failed with InvalidArguments: missing a required argument: 'a'"),
        (lambda: divide(1, 2, 3), "divide failed with InvalidArguments: too many positional arguments"),
        (lambda: divide("x"), r"divide failed with InvalidArguments: Expected `float`, got `str` - at `\$.a`"),
        (lambda: divide(1, c=3), "got an unexpected keyword argument 'c'"),
        (lambda: weather({"name": "Ulm"}, scale="K"), "matching regex"),
    ],
)
def test_arguments_that_do_not_fit(call: Callable[[], Any], words: str) -> None:
    with pytest.raises(rf.ToolError, match=words) as caught:
        call()
    assert caught.value.type == "InvalidArguments"


def test_errors_may_be_values() -> None:
    assert careful(1, 4) == 0.25
    error = careful(1, 0)
    assert isinstance(error, rf.ToolError)
    assert (error.tool, error.type, error.reason) == ("careful", "ZeroDivisionError", "division by zero")
    assert str(error) == "careful failed with ZeroDivisionError: division by zero"
    assert isinstance(error.cause, ZeroDivisionError)
    assert careful("x", 0).type == careful().type == "InvalidArguments"


def test_the_defaults_of_a_function_are_its_own() -> None:
    unknown = object()

    @rf.tool
    def has(x: int = 0, y: Any = unknown) -> bool:
        return y is unknown

    assert has(1)
    assert has.parameters["properties"] == {"x": {"type": "integer", "default": 0}, "y": {}}


class Counter:
    def __init__(self) -> None:
        self.count = 0

    @rf.tool
    def add(self, amount: int = 1) -> int:
        """Count."""
        self.count += amount
        return self.count

    def plain(self, amount: int) -> int:
        return self.add(amount)


def test_methods_are_tools_of_their_instances() -> None:
    first, second = Counter(), Counter()
    assert (first.add(), first.add(2), second.plain(5)) == (1, 3, 5)
    assert first.add.schema["function"]["parameters"]["properties"].keys() == {"amount"}
    assert "add" not in registered()
    (result,) = rf.call_tools({"name": "add", "arguments": {"amount": 4}}, [first.add])
    assert (result.value, first.count) == (7, 7)
    assert rf.call_tools({"name": "plain", "arguments": {"amount": 1}}, [first.plain])[0].value == 8


def test_acall_in_asyncio() -> None:
    loops = []

    @rf.tool
    async def here() -> int:
        loops.append(asyncio.get_running_loop())
        return 1

    @rf.tool(timeout=0.05)
    async def slow() -> None:
        await asyncio.sleep(60)

    async def main() -> None:
        assert await here.acall() == 1
        assert loops == [asyncio.get_running_loop()]
        assert await divide.acall(1) == 0.5
        with pytest.raises(ZeroDivisionError):
            await divide.acall(1, 0)
        assert (await careful.acall(1, 0)).type == "ZeroDivisionError"
        with pytest.raises(rf.ToolError, match="no answer within"):
            await slow.acall()
        task = asyncio.create_task(slow.acall())
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())


def test_tools_are_pickled_by_name() -> None:
    assert pickle.loads(pickle.dumps(divide)) is divide

    @rf.tool
    def local() -> None: ...

    with pytest.raises(pickle.PicklingError, match=r"tool .*local cannot be pickled"):
        pickle.dumps(local)
    counter = Counter()
    counter.add(3)
    assert pickle.loads(pickle.dumps(counter.add))() == 4


def test_a_model_may_be_held_to_a_tools_arguments() -> None:
    schema = schema_of(weather.arguments_type)
    arguments = schema.decode('{"place": {"name": "Ulm", "zip": null}, "day": "tomorrow"}')
    (result,) = rf.call_tools(SimpleNamespace(name="weather", arguments=arguments), [weather])
    assert result.value == "Ulm None tomorrow C [] None"


# Programs.


@rf.program
def uses_tools(s, n):
    s += rf.user("How much?") + rf.assistant(rf.gen("words", max_tokens=2))
    half = divide(n)
    s += f" {half} {double(n)} {careful(n, 0)}"
    s["length"] = divide(len(s["words"]), 1)
    return half


@rf.program
def fails(s, n):
    s += "before"
    quotient = divide(1, n)
    s += f"{quotient}"


@rf.program
def misuses(s, n):
    s += "before"
    if n > 0:
        s += str(divide("many"))


@rf.program
def catches(s, n):
    try:
        s += str(divide(1, n))
    except ZeroDivisionError as error:
        s += f"no: {error}"
    try:
        divide("x")
    except rf.ToolError as error:
        s += f"no: {error}"
    return s.text()


@rf.program
async def awaits(s, n):
    s += rf.gen("g", max_tokens=2)
    first = await double.acall(n)
    second = await asyncio.gather(double.acall(n + 1), divide.acall(n))
    s += f"{first} {second} {double(n)}"
    return await careful.acall(n, 0)


CASES = [(uses_tools, 6), (fails, 0), (fails, 1), (misuses, 1), (catches, 0), (awaits, 3)]


@pytest.mark.parametrize(("program", "n"), CASES)
def test_eager_equals_compiled(program: rf.Program, n: int) -> None:
    eager, compiled = (run(program, way, n) for way in (True, False))
    mine = lambda file: file == __file__  # noqa: E731
    assert comparing.outcome(eager, mine) == comparing.outcome(compiled, mine)
    described = [[(r.kind, r.name, r.span and r.span.line) for r in each.trace] for each in (eager, compiled)]
    assert described[0] == described[1]


@WAYS
def test_the_value_of_a_tool_in_a_program(eager: bool) -> None:
    done = run(uses_tools, eager, 6)
    assert done.ok
    assert done.text.endswith("3.0 12 careful failed with ZeroDivisionError: division by zero")
    assert done["length"] == float(len(done["words"]))


@WAYS
def test_each_call_has_a_record_in_the_trace(eager: bool) -> None:
    trace = run(uses_tools, eager, 6).trace
    assert [(r.kind, r.name) for r in trace] == [
        ("gen", "words"), ("tool", "divide"), ("tool", "double"), ("tool", "careful"), ("tool", "divide"),
    ]  # fmt: skip
    half, twice, wrong, _ = trace[1:]
    assert (half.arguments, twice.arguments, wrong.arguments) == ({"a": 6.0}, {"x": 6}, {"a": 6, "b": 0})
    assert (half.error, type(wrong.error)) == (None, ZeroDivisionError)
    assert half.ms >= 0
    assert half.span.line == uses_tools.fn.__code__.co_firstlineno + 3


@WAYS
def test_an_error_of_a_tool_names_the_line_of_its_call(eager: bool) -> None:
    done = run(misuses, eager, 1)
    assert isinstance(done.error, rf.ToolError)
    assert done.error.span is not None
    assert done.error.span.line == misuses.fn.__code__.co_firstlineno + 4


@WAYS
def test_a_tool_runs_while_the_model_generates(eager: bool) -> None:
    asked = threading.Event()

    @rf.tool
    def waits_for_the_model() -> str:
        assert asked.wait(20)
        return "done"

    def reply(text: str, params: rf.SamplingParams) -> str:
        asked.set()
        return "yes"

    @rf.program
    def program(s):
        s += rf.gen("answer")
        return waits_for_the_model()

    assert program.run(backend=ScriptedBackend(reply), eager=eager).value == "done"


@WAYS
def test_tools_in_an_async_program(eager: bool) -> None:
    done = run(awaits, eager, 3)
    assert done.text.endswith("6 [8, 1.5] 6")
    line = awaits.fn.__code__.co_firstlineno
    assert [(r.name, r.span and r.span.line - line) for r in done.trace] == [
        ("g", 2), ("double", 3), ("double", 4), ("divide", 4), ("double", 5), ("careful", 6),
    ]  # fmt: skip


mark: ContextVar[str] = ContextVar("mark", default="none")


@WAYS
def test_tools_see_the_context_variables_of_the_run(eager: bool) -> None:
    @rf.tool
    def sync() -> str:
        return mark.get()

    @rf.tool
    async def later() -> str:
        return mark.get()

    @rf.program
    def program(s):
        return sync(), later()

    token = mark.set("outside")
    try:
        assert program.run(backend=ScriptedBackend(), eager=eager).value == ("outside", "outside")
    finally:
        mark.reset(token)


@WAYS
def test_a_tool_may_run_a_program(eager: bool) -> None:
    @rf.program
    def inner(s, n):
        s += rf.gen("x")
        return divide(n)

    @rf.tool
    def ask(n: int) -> float:
        return inner.run(n, backend=ScriptedBackend()).value

    @rf.program
    def outer(s):
        return ask(4)

    done = outer.run(backend=ScriptedBackend(), eager=eager)
    assert done.value == 2.0
    assert [record.name for record in done.trace] == ["ask"]


# Pure tools.


@rf.tool(pure=True)
def shout(text: str, times: int = 1) -> str:
    return text.strip().upper() + "!" * times


@rf.tool(pure=True)
def count(text: str) -> int:
    return len(text)


@rf.tool(pure=True)
def letters(text: str):  # type: ignore[no-untyped-def]
    return sorted(set(text))


@rf.tool(pure=True, errors="value")
def inverse(n: float) -> str:
    return str(1 / n)


@rf.tool(pure=True)
def misannotated(n: int) -> str:
    return n  # type: ignore[return-value]


@rf.program
def pure_everywhere(s, words):
    for branch, word in zip(s.fork(len(words)), words, strict=True):
        branch += rf.user(word) + rf.assistant(rf.gen("reply", max_tokens=2))
        branch += rf.user(shout(branch["reply"], times=count(word)))
        branch += rf.assistant(rf.gen("again", max_tokens=2))
        found = letters(branch["again"])
        found.append("z")
        s += f"{shout(branch['again'])} {found} " + str(count(word))
    loud = [shout(word) for word in words if count(word) > 1]
    quiet = shout(words[0]).lower() if count(words[0]) else shout("never")
    nested = shout(shout(words[-1]), count(shout("ab")))
    return loud, quiet, nested, letters(words[0])[0]


@rf.program
def pure_fails(s, n):
    s += "before"
    text = inverse(n)
    other = misannotated(n)
    s += f" {text} {other}"
    s += rf.user(text) + rf.assistant(rf.gen("a", max_tokens=1))
    s += rf.user(misannotated(n))
    s += "behind" + rf.gen("b", max_tokens=1)
    return s.text()


@rf.program
def pure_raises(s, n):
    s += rf.gen("a", max_tokens=2)
    left = shout(s["a"], times=n)
    s += "behind" + rf.gen("b", max_tokens=2)
    s["c"] = left
    return 1


@rf.program
def pure_in_a_try(s, words):
    try:
        s += shout(words[0])
        s += shout(words)
    except rf.ToolError as error:
        s += f" no: {error.type}"
    finally:
        s += shout("end")
    match words:
        case [first, *_]:
            s += shout(first)
    while count(s.text()) < 60:
        s += shout(words[-1])
    return [shout(word) for word in words]


@rf.program
async def pure_in_async(s, words):
    s += rf.gen("a", max_tokens=2)
    s += shout(s["a"]) + f" {count(s['a'])}"
    return [await shout.acall(word) for word in words] + [shout(word) for word in words]


PURE = [
    (pure_everywhere, ["one", "two", "three"]),
    (pure_fails, 4),
    (pure_fails, 0),
    (pure_raises, 2),
    (pure_raises, "many"),
    (pure_in_a_try, ["one", "two"]),
    (pure_in_async, ["one", "two"]),
]


@pytest.mark.parametrize(("program", "argument"), PURE)
def test_pure_tools_mean_the_same_eagerly_and_compiled(program: rf.Program, argument: Any) -> None:
    eager, compiled = (run(program, way, argument) for way in (True, False))
    mine = lambda file: file == __file__  # noqa: E731
    assert comparing.outcome(eager, mine) == comparing.outcome(compiled, mine)
    if eager.ok:
        described = [[(r.kind, r.name, r.span and r.span.line) for r in each.trace] for each in (eager, compiled)]
        assert described[0] == described[1]


def test_what_a_pure_tool_compiles_to() -> None:
    calls = [line for line in pure_everywhere.compile().ir.splitlines() if "pure = " in line]
    assert len(calls) == 15
    assert not any("pure = " in line for line in uses_tools.compile().ir.splitlines())


def test_pure_calls_of_branches_and_lists_run_at_once() -> None:
    barrier = threading.Barrier(3)

    @rf.tool(pure=True)
    def meet(n: str) -> str:
        barrier.wait(20)
        return n

    @rf.program
    def program(s, words):
        for branch, word in zip(s.fork(3), words, strict=True):
            branch += rf.gen("x", max_tokens=1)
            branch += rf.user(meet(word)) + rf.assistant("{" + branch["x"])
            s += rf.gen("y", max_tokens=1) + f"{meet(word)}"
        return [meet(word) for word in words]

    done = program.run(["a", "b", "c"], backend=ScriptedBackend())
    assert done.value == ["a", "b", "c"]


ran: list[str] = []


@rf.tool(pure=True)
def noted(text: str) -> str:
    ran.append("pure")
    return text


@rf.tool
def noted_too(text: str) -> str:
    ran.append("not pure")
    return text


@rf.program
def notes(s, text):
    s += rf.user(noted(text)) + rf.assistant(rf.gen("a", max_tokens=2, ignore_eos=True))
    s += rf.user(noted_too(s["a"])) + rf.assistant(rf.gen("b", max_tokens=2, ignore_eos=True))


def test_a_prediction_runs_tools_only_when_it_may() -> None:
    ran.clear()
    (stop,) = notes.explain([{"text": "x"}]).stops
    assert "the call of noted()" in str(stop.error)
    assert ran == []
    found = notes.explain([{"text": "x"}], run_host=True)
    assert (found.stops, [line.name for line in found.lines], ran) == ([], ["a", "b"], ["pure", "not pure"])


def test_a_rebound_tool_is_compiled_again() -> None:
    source = textwrap.dedent("""
        import ramify as rf

        @rf.tool(pure=True)
        def name() -> str:
            return "first"

        @rf.program
        def program(s):
            s += "I am "
            s += name()
    """)
    space: dict[str, Any] = {"__name__": "rebound"}
    exec(_with_source(source).replace("{'__name__': 'script'}", "space"), {"space": space})
    assert space["program"].run(backend=ScriptedBackend()).text == "I am first"
    space["name"] = lambda: "second"
    assert space["program"].run(backend=ScriptedBackend()).text == "I am second"


# Timeouts and cancellation.


@WAYS
def test_a_tool_that_hangs_is_given_up(eager: bool, gate: threading.Event) -> None:
    @rf.tool(timeout=0.05, errors="value")
    def hangs() -> None:
        gate.wait()

    @rf.tool(timeout=0.05)
    async def hangs_too() -> None:
        await asyncio.get_running_loop().create_future()

    @rf.program
    def program(s):
        first = hangs()
        try:
            hangs_too()
        except rf.ToolError as error:
            return first, error

    done = program.run(backend=ScriptedBackend(), eager=eager)
    assert [each.type for each in done.value] == ["Timeout", "Timeout"]
    assert str(done.value[0]) == "hangs failed with Timeout: no answer within 0.05 s"
    assert all(record.error is not None and record.ms >= 50 for record in done.trace)


def test_an_async_tool_that_blocks_does_not_stop_the_others(gate: threading.Event) -> None:
    @rf.tool(timeout=0.05)
    async def blocks() -> None:
        gate.wait()

    with pytest.raises(rf.ToolError, match="Timeout"):
        blocks()
    assert double(3) == 6


def test_hanging_tools_do_not_use_up_the_threads(gate: threading.Event, monkeypatch: pytest.MonkeyPatch) -> None:
    from ramify.runtime import toolcall
    from ramify.runtime.hostpool import HostPool

    monkeypatch.setattr(toolcall, "_pool", HostPool(2))

    @rf.tool(timeout=0.02, errors="value")
    def hangs() -> None:
        gate.wait()

    calls = [{"name": "hangs"}] * 6 + [{"name": "divide", "arguments": {"a": 1}}]
    *given_up, last = rf.call_tools(calls, [hangs, divide])
    assert [result.error.type for result in given_up if result.error] == ["Timeout"] * 6
    assert last.value == 0.5


@WAYS
def test_cancelling_a_run_does_not_wait_for_a_tool(eager: bool, gate: threading.Event) -> None:
    seen = []

    @rf.tool(errors="value")
    def hangs() -> None:
        gate.wait()

    @rf.program
    def program(s):
        try:
            hangs()
        except BaseException as error:
            seen.append(type(error).__name__)
            raise
        finally:
            released.set()

    released = threading.Event()
    done = run(program, eager, timeout=0.05)
    assert type(done.error).__name__ == "Cancelled"
    assert released.wait(10)
    assert seen == ["Cancelled"]


def test_a_hanging_tool_does_not_keep_python_from_ending() -> None:
    code = """
        import asyncio, threading
        import ramify as rf
        from ramify.backends.scripted import ScriptedBackend

        @rf.tool(timeout=0.05, errors="value")
        def hangs():
            threading.Event().wait()

        @rf.tool(timeout=0.05, errors="value")
        async def hangs_too():
            await asyncio.sleep(10_000)

        @rf.program
        def program(s):
            return hangs(), hangs_too()

        print(*program.run(backend=ScriptedBackend()).value, sep="|")
    """
    command = [sys.executable, "-c", _with_source(textwrap.dedent(code))]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert ended.stderr == ""
    assert ended.stdout == (
        "hangs failed with Timeout: no answer within 0.05 s|hangs_too failed with Timeout: no answer within 0.05 s\n"
    )


def _with_source(script: str) -> str:
    """Code for `python -c` that runs a script whose functions have source lines, as programs need."""
    return (
        "import linecache; file = '<script>'; "
        f"text = {script!r}; linecache.cache[file] = (len(text), None, text.splitlines(True), file); "
        "exec(compile(text, file, 'exec'), {'__name__': 'script'})"
    )


# call_tools.


def test_calls_in_every_form() -> None:
    as_object = SimpleNamespace(name="divide", arguments={"a": 4})
    of_an_api = SimpleNamespace(id="call_1", function=SimpleNamespace(name="divide", arguments='{"a": 6}'))

    class Typed(msgspec.Struct):
        name: str
        arguments: Place

    calls = [
        {"name": "divide", "arguments": {"a": 2}},
        as_object,
        of_an_api,
        {"id": "call_2", "type": "function", "function": {"name": "divide", "arguments": {"a": "8"}}},
        {"name": "divide", "parameters": {"a": 10}},
        '{"name": "divide", "arguments": {"a": 12}}',
        '[{"name": "double", "arguments": {"x": 7}}, {"name": "divide", "arguments": "{\\"a\\": 16}"}]',
        Typed("place", Place("Ulm")),
    ]

    @rf.tool
    def place(name: str, zip: int | None) -> str:
        return f"{name}{zip}"

    results = rf.call_tools(calls)
    assert [result.value for result in results] == [1, 2, 3, 4, 5, 6, 14, 8, "UlmNone"]
    assert [result.id for result in results][:4] == [None, None, "call_1", "call_2"]
    assert results[0].arguments == {"a": 2.0}
    assert all(result.ok for result in results)
    assert rf.call_tools([]) == rf.call_tools(None) == []


@pytest.mark.parametrize(
    ("call", "kind", "words"),
    [
        ({"name": "multiply", "arguments": {}}, "UnknownTool", "multiply .* the tools are: careful, divide"),
        ({"name": "divide"}, "InvalidArguments", "missing required field `a`"),
        ({"name": "divide", "arguments": {"a": 1, "c": 2}}, "InvalidArguments", "unknown field `c`"),
        ({"name": "divide", "arguments": {"a": 1, "b": 0}}, "ZeroDivisionError", "division by zero"),
        ({"name": "careful", "arguments": {"a": 1, "b": 0}}, "ZeroDivisionError", "division by zero"),
        ({"name": "divide", "arguments": "{"}, "InvalidCall", "the arguments are not JSON"),
        ({"name": "divide", "arguments": "[1]"}, "InvalidCall", r"an object of names and values, not \[1\]"),
        ({"name": "divide", "arguments": 3}, "InvalidCall", "not 3"),
        ({"arguments": {}}, "InvalidCall", "a call needs a name"),
        ({"name": 3, "arguments": {}}, "InvalidCall", "a call needs a name"),
        ("I would rather not", "InvalidCall", "the call is not JSON"),
        ("17", "InvalidCall", "a JSON object with name and arguments"),
        ("", "InvalidCall", "not JSON"),
        (7, "InvalidCall", "a call needs a name"),
    ],
)
def test_what_goes_wrong_is_a_value(call: Any, kind: str, words: str) -> None:
    good = {"name": "divide", "arguments": {"a": 1}}
    results = rf.call_tools([good, call, good], [divide, careful])
    assert [result.ok for result in results] == [True, False, True]
    error = results[1].error
    assert isinstance(error, rf.ToolError)
    assert error.type == kind
    with pytest.raises(rf.ToolError, match=words):
        raise error
    assert results[1].content == str(error)


def test_calls_run_at_once() -> None:
    barrier = threading.Barrier(5)

    @rf.tool(timeout=20)
    def meet(n: int) -> int:
        barrier.wait()
        return n

    @rf.tool(timeout=20)
    async def meet_too(n: int) -> int:
        await asyncio.to_thread(barrier.wait)
        return n

    calls = [{"name": "meet" if n < 3 else "meet_too", "arguments": {"n": n}} for n in range(5)]
    assert [result.value for result in rf.call_tools(calls, [meet, meet_too])] == [0, 1, 2, 3, 4]


def test_which_tools_may_be_called() -> None:
    def local(x: int) -> int:
        """No tool yet."""
        return x

    assert rf.call_tools({"name": "local", "arguments": {"x": 1}}, [local])[0].value == 1
    assert rf.call_tools({"name": "divide", "arguments": {"a": 1}}, [])[0].error.type == "UnknownTool"
    assert rf.call_tools({"name": "local", "arguments": {"x": 1}})[0].error.type == "UnknownTool"
    renamed = rf.tool(name="other")(local)
    assert rf.call_tools({"name": "other", "arguments": {"x": 1}})[0].value == 1
    with pytest.raises(rf.RamifyError, match="two tools of the name 'other'"):
        rf.call_tools([], [renamed, renamed, divide])
    del renamed
    gc.collect()
    assert "other" not in registered()


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("text", "text"),
        (3, "3"),
        (None, "null"),
        ({"a": [1, "é"]}, '{"a":[1,"é"]}'),
        (Place("Ulm"), '{"name":"Ulm","zip":null}'),
        (threading, str(threading)),
    ],
)
def test_the_content_of_a_result(value: Any, text: str) -> None:
    @rf.tool
    def give() -> Any:
        return value

    (result,) = rf.call_tools({"name": "give"}, [give])
    assert result.content == text or result.content == f'"{text}"'


@rf.program
def loop(s, question, tools):
    s += rf.system("Call tools with JSON.") + rf.user(question)
    for _ in range(4):
        s += rf.assistant(rf.gen("step"))
        step = s["step"]
        if not step.startswith("["):
            return step
        for result in rf.call_tools(step, tools):
            s += rf.tool_message(result)
    return None


def scripted_model(text: str, params: rf.SamplingParams) -> str:
    """Asks for two calls, then, shown an error, for one, then answers with what it was last told."""
    told = text.count("<tool>")
    if told == 0:
        return '[{"name": "divide", "arguments": {"a": 1, "b": 0}}, {"name": "double", "arguments": {"x": 4}}]'
    if told == 2:
        return '[{"name": "divide", "arguments": {"a": 1, "b": 8}}]'
    return text.rsplit("<tool>", 1)[1].split("</tool>")[0]


@WAYS
def test_a_tool_loop(eager: bool) -> None:
    done = loop.run("What?", [divide, double], backend=ScriptedBackend(scripted_model), eager=eager)
    assert done.value == "0.125"
    assert [message["role"] for message in done.messages] == [
        "system", "user", "assistant", "tool", "tool", "assistant", "tool", "assistant",
    ]  # fmt: skip
    assert [message["content"] for message in done.messages if message["role"] == "tool"] == [
        "divide failed with ZeroDivisionError: float division by zero", "8", "0.125",
    ]  # fmt: skip
    assert [record.name for record in done.trace] == ["step", "divide", "double", "step", "divide", "step"]


@WAYS
def test_a_cancelled_run_is_no_value_of_call_tools(eager: bool, gate: threading.Event) -> None:
    @rf.tool
    def hangs() -> None:
        gate.wait()

    @rf.program
    def program(s):
        return rf.call_tools([{"name": "hangs"}, {"name": "hangs"}], [hangs])

    assert type(run(program, eager, timeout=0.05).error).__name__ == "Cancelled"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('<tool_call>\n{"name": "twice", "arguments": {"n": 2}}\n</tool_call>', [4]),
        ('I look.\n<tool_call>{"name": "twice", "arguments": {"n": 1}}</tool_call>\n'
         '<tool_call>\n{"name": "twice", "arguments": {"n": 5}}', [2, 10]),
        ('<tool_call>{"name": "twice", "arguments": {"n": 1}}</tool_call><tool_call>{oh</tool_call>',
         [2, "InvalidCall"]),
        ('<tool_call>[]</tool_call>', []),
        ('<tool_call>oh <tool_call> oh', ["InvalidCall"] * 2),
        ('<tool_call>' * 3000, ["InvalidCall"] * 3000),
        ('[{"name": "twice", "arguments": {"n": "<tool_call>{}</tool_call>"}}]', ["InvalidArguments"]),
        ('[TOOL_CALLS] [{"name": "twice", "arguments": {"n": 3}}, {"name": "twice", "arguments": "{}"}]',
         [6, "InvalidArguments"]),
        ('<|python_tag|>{"name": "twice", "parameters": {"n": "4"}}', [8]),
        ('{"name": "twice", "parameters": {"n": 4}}; {"name": "twice", "parameters": {"n": 6}}\n', [8, 12]),
        ('{"name": "twice", "parameters": {"n": 4}}; and so on', ["InvalidCall"]),
        ('{"name": "twice", "parameters": {"n": "{\\"<\\"}; {"}}', ["InvalidArguments"]),
        ("There is nothing to call.", ["InvalidCall"]),
        ("[]", []),
        ("[TOOL_CALLS] []", []),
    ],
)  # fmt: skip
def test_calls_as_models_write_them(text: str, expected: list[Any]) -> None:
    def twice(n: int) -> int:
        return 2 * n

    results = rf.call_tools(text, [twice])
    assert [result.value if result.ok else result.error.type for result in results] == expected
