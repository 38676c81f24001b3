"""The interpreter on modules built by hand: what each op means, and what waits for what."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from ramify.backends.scripted import ScriptedBackend
from ramify.ir.builder import Builder
from ramify.ir.core import Function, Module, Region, Value
from ramify.ir.errors import BackendError
from ramify.ir.span import Span
from ramify.ir.types import CELL, OBJ
from ramify.ir.verify import verify
from ramify.lang.state import ForkGroup, State
from ramify.runtime.context import Context
from ramify.runtime.interpreter import Interpreter
from ramify.runtime.request import SamplingParams
from ramify.runtime.routine import spawn


class Script:
    """A function under construction: `s` is the state, `p` the prompt it holds at the start."""

    def __init__(self, *parameters: str, name: str = "program") -> None:
        self.name = name
        self.names = ["s", *parameters]
        self.region = Region([Value(CELL, "s"), *(Value(OBJ, p) for p in parameters)])
        self.s, *self.args = self.region.args
        self.builder = Builder(self.region, Span("<script>", 1, 0, 1, 4))
        self.p = self.op("cell.load", self.s)

    def op(self, op_name: str, *operands: Value, **attrs: Any) -> Value:
        return self.builder.value(op_name, *operands, **attrs)

    def do(self, op_name: str, *operands: Value, **rest: Any) -> Any:
        return self.builder.op(op_name, operands, **rest)

    def const(self, value: Any) -> Value:
        return self.op("py.const", value=value)

    def append(self, prompt: Value, value: Any) -> Value:
        return self.op("prompt.append", prompt, value if isinstance(value, Value) else self.const(value))

    def gen(self, prompt: Value, name: str, **params: Any) -> Value:
        return self.op("lm.gen", prompt, name=name, params=params or None)

    def host(self, code: str, **inputs: Value) -> Value:
        return self.op("py.expr", *inputs.values(), code=code, inputs=list(inputs))

    def loop(self, name: str, operands: Sequence[Value], results: int, regions: Sequence[Region]) -> list[Value]:
        made = self.builder.op(name, operands, results=[OBJ] * results, regions=regions)
        return list(made.results)

    def give(self, value: Value) -> None:
        self.do("flow.return", value)

    def function(self) -> Function:
        return Function(self.name, self.region, self.names)


def module_of(*scripts: Script) -> Module:
    module = Module({script.name: script.function() for script in scripts}, scripts[0].name)
    verify(module)
    return module


def python_of(*names: str, body: Callable[..., Any] | None = None) -> Any:
    """A Python function with these parameters."""
    namespace: dict[str, Any] = {"body": body}
    exec(f"def program({', '.join(names)}): return body({', '.join(n.split('=')[0] for n in names)})", namespace)
    return namespace["program"]


def run(
    script: Script, *args: Any, others: Sequence[Script] = (), backend: Any = None, python: Any = None
) -> tuple[Any, Context, State]:
    """Run a script; gives the value, or raises what the run ends with."""
    module = module_of(script, *others)
    functions = {each.name: python_of(*each.names) for each in (script, *others)} | (python or {})
    interpreter = Interpreter(module, functions, State, ForkGroup)
    context = Context(backend or ScriptedBackend(lambda text, _: f"<{len(text)}>"), SamplingParams())
    state = State(context.root())

    async def body() -> Any:
        value, error = None, None
        try:
            value = await interpreter.run(context.strand, [state, *args])
        except Exception as raised:
            error = raised
        error = await context.conclude(error)
        if error is not None:
            raise error
        return value

    return spawn(body()).wait(20), context, state


def test_append_generate_read_store() -> None:
    script = Script("q")
    prompt = script.gen(script.append(script.append(script.p, "Q: "), script.args[0]), "x")
    script.do("cell.store", script.s, prompt)
    script.give(script.op("prompt.get", prompt, name="x"))
    value, _, state = run(script, "hello")
    assert value == "<8>"
    assert state.text() == "Q: hello<8>"


def test_pending_text_is_appended_before_it_arrives() -> None:
    script = Script()
    first = script.gen(script.append(script.p, "a"), "x")
    read = script.op("prompt.get", first, name="x")
    wrapped = script.op("py.expr", read, code="f'[{x}]'", inputs=["x"], lazy=True)
    second = script.gen(script.append(script.op("prompt.empty"), wrapped), "y")
    script.give(script.op("prompt.text", second))
    value, context, _ = run(script, backend=ScriptedBackend(lambda text, _: f"<{len(text)}>", delay=0.02))
    assert value == "[<1>]<5>"
    assert [generation.expression.name for generation in context.calls] == ["x", "y"]


def test_independent_generations_run_at_once() -> None:
    script = Script()
    reads = []
    for number in range(20):
        prompt = script.gen(script.append(script.op("prompt.empty"), f"{number}"), "x")
        reads.append(script.op("prompt.get", prompt, name="x"))
    items = script.op("py.list")
    for read in reads:
        script.do("py.push", items, read)
    script.give(script.op("py.collect", items))
    backend = Together(20)
    value, _, _ = run(script, backend=backend)
    assert value == ["together"] * 20


class Together(ScriptedBackend):
    """Answers only once `count` requests are waiting."""

    def __init__(self, count: int) -> None:
        super().__init__(lambda text, _: "together")
        self._count = count
        self._held: list[Callable[[], Any]] = []

    def _run(self, *args: Any) -> None:
        self._held.append(lambda: super(Together, self)._run(*args))
        if len(self._held) == self._count:
            for answer in self._held:
                answer()


def test_if_carries_values_and_waits_for_its_condition() -> None:
    script = Script()
    prompt = script.gen(script.append(script.p, "abc"), "x")
    condition = script.host("x == '<3>'", x=script.op("prompt.get", prompt, name="x"))
    yes, no = Region(), Region()
    for region, text in ((yes, "yes"), (no, "no")):
        with script.builder.inside(region):
            script.do("flow.yield", script.const(text))
    (chosen,) = script.loop("flow.if", [condition], 1, [yes, no])
    script.give(chosen)
    assert run(script)[0] == "yes"


def test_for_carries_values_breaks_and_continues() -> None:
    script = Script("items")
    total, item = Value(OBJ, "total"), Value(OBJ, "item")
    body, none, some = Region([item, total]), Region(), Region()
    with script.builder.inside(body):
        with script.builder.inside(none):
            script.do("flow.break", total)
        with script.builder.inside(some):
            script.do("flow.yield", script.host("a + b", a=total, b=item))
        (added,) = script.loop("flow.if", [script.host("i < 0", i=item)], 1, [none, some])
        odd, even = Region(), Region()
        with script.builder.inside(odd):
            script.do("flow.continue", total)
        with script.builder.inside(even):
            script.do("flow.yield")
        script.loop("flow.if", [script.host("i % 2", i=item)], 0, [odd, even])
        script.do("flow.yield", added)
    (result,) = script.loop("flow.for", [script.args[0], script.const(0)], 1, [body])
    script.give(result)
    assert run(script, [2, 3, 4, -1, 100])[0] == 6
    assert run(script, iter(()))[0] == 0
    assert run(script, (n for n in (2, 2)))[0] == 4


def test_return_leaves_a_loop() -> None:
    script = Script("items")
    item = Value(OBJ, "item")
    body = Region([item])
    with script.builder.inside(body):
        script.give(item)
    script.loop("flow.for", [script.args[0]], 0, [body])
    script.give(script.const("none"))
    assert run(script, ["first", "second"])[0] == "first"
    assert run(script, [])[0] == "none"


def test_while_counts() -> None:
    script = Script("n")
    count, again = Value(OBJ), Value(OBJ)
    test, body = Region([count]), Region([again])
    with script.builder.inside(test):
        script.do("flow.condition", script.host("i < n", i=count, n=script.args[0]), count)
    with script.builder.inside(body):
        script.do("flow.yield", script.host("i + 1", i=again))
    (result,) = script.loop("flow.while", [script.const(0)], 1, [test, body])
    script.give(result)
    assert run(script, 1000)[0] == 1000


def countdown() -> Script:
    script = Script("n")
    end, go = Region(), Region()
    with script.builder.inside(end):
        script.do("flow.yield", script.const(0))
    with script.builder.inside(go):
        less = script.host("n - 1", n=script.args[0])
        script.do("flow.yield", script.op("flow.call", script.s, less, callee="program"))
    (result,) = script.loop("flow.if", [script.host("n == 0", n=script.args[0])], 1, [end, go])
    script.give(script.host("r + 1", r=result))
    return script


def test_calls_go_deeper_than_pythons_stack() -> None:
    assert run(countdown(), 5_000)[0] == 5_001


def test_endless_recursion_is_an_error() -> None:
    with pytest.raises(RecursionError, match="levels deep"):
        run(countdown(), 1_000_000)


def test_call_binds_as_python_does() -> None:
    helper = Script("a", "b", name="helper")
    helper.give(helper.host("(a, b)", a=helper.args[0], b=helper.args[1]))
    python = {"helper": python_of("s", "a", "b='default'")}

    def call(*operands: Any, keywords: list[str] | None = None) -> Script:
        script = Script()
        script.give(script.op("flow.call", script.s, *map(script.const, operands), callee="helper", keywords=keywords))
        return script

    assert run(call(1), others=[helper], python=python)[0] == (1, "default")
    assert run(call(2, 1, keywords=["b", "a"]), others=[helper], python=python)[0] == (1, 2)
    with pytest.raises(TypeError, match="missing 1 required positional argument: 'a'"):
        run(call(2, keywords=["b"]), others=[helper], python=python)


def test_fork_gives_states_of_their_own() -> None:
    script = Script()
    base = script.append(script.p, "base")
    script.do("cell.store", script.s, base)
    group = script.op("prompt.fork", base, script.const(3))
    item = Value(OBJ)
    body = Region([item])
    with script.builder.inside(body):
        cell = script.op("cell.of", item)
        script.do("cell.store", cell, script.gen(script.op("cell.load", cell), "x"))
        script.do("flow.yield")
    script.loop("flow.for", [group], 0, [body])
    script.give(group)
    value, _, state = run(script)
    assert isinstance(value, ForkGroup) and [branch["x"] for branch in value] == ["<4>"] * 3
    assert state.text() == "base"
    assert [branch.prompt.branch for branch in value] == [(0,), (1,), (2,)]


def test_boxes_share_a_variable() -> None:
    script = Script()
    box = script.op("py.box", script.const(1), name="n")
    block = script.builder.op(
        "py.block", [box], results=[OBJ], code="def f():\n    return n", inputs=[], captures=["n"], outputs=["f"]
    )
    script.builder.op("py.block", [box], results=[], code="n = 5", inputs=[], captures=["n"], outputs=[])
    script.give(script.host("(f(), n)", f=block.result, n=script.op("py.unbox", box)))
    assert run(script)[0] == (5, 5)


def test_an_unassigned_variable_raises_where_it_is_used() -> None:
    script = Script()
    script.give(script.op("prompt.text", script.append(script.p, script.op("py.unbound", name="word"))))
    with pytest.raises(UnboundLocalError, match="'word'"):
        run(script)


def test_a_failed_generation_raises_at_the_read_with_its_cause_and_span() -> None:
    script = Script()
    prompt = script.gen(script.append(script.p, "a"), "x")
    script.give(script.host("x + 'b'", x=script.op("prompt.get", prompt, name="x")))
    with pytest.raises(BackendError, match="no power") as caught:
        run(script, backend=ScriptedBackend(lambda text, _: BackendError("no power")))
    assert caught.value.span == Span("<script>", 1, 0, 1, 4)


def test_an_error_that_was_read_first_is_reported_first() -> None:
    script = Script()
    prompt = script.gen(script.append(script.p, "a"), "x")
    read = script.op("prompt.get", prompt, name="x")
    script.op("py.expr", read, code="f'{x}'", inputs=["x"], lazy=True)
    script.give(script.host("1 / 0"))
    with pytest.raises(BackendError, match="slow"):
        run(script, backend=ScriptedBackend(lambda text, _: BackendError("slow"), delay=0.05))


def test_host_code_with_effects_does_not_run_after_a_read_that_has_failed() -> None:
    done: list[int] = []
    script = Script("done")
    prompt = script.gen(script.append(script.p, "a"), "x")
    script.op("prompt.get", prompt, name="x")
    script.host("__import__('time').sleep(0.05)")
    script.give(script.host("done.append(print)", done=script.args[0]))
    with pytest.raises(BackendError, match="early"):
        run(script, done, backend=ScriptedBackend(lambda text, _: BackendError("early"), delay=0.01))
    assert done == []


def test_host_errors_carry_a_note_with_the_program_and_the_line() -> None:
    script = Script()
    script.give(script.host("{}['key']"))
    with pytest.raises(KeyError) as caught:
        run(script)
    assert caught.value.__notes__ == ["in program program, <script>:1"]


def test_host_code_that_blocks_does_not_stop_the_loop() -> None:
    gate = threading.Event()
    waiting = Script("gate")
    waiting.give(waiting.host("gate.wait(10)", gate=waiting.args[0]))
    opening = Script("gate")
    opening.give(opening.host("gate.set()", gate=opening.args[0]))
    results: list[Any] = []
    thread = threading.Thread(target=lambda: results.append(run(waiting, gate)[0]))
    thread.start()
    run(opening, gate)
    thread.join(10)
    assert results == [True]


def test_wrong_parameters_raise_when_the_op_runs() -> None:
    script = Script()
    script.give(script.op("prompt.text", script.gen(script.p, "x", nonsense=1)))
    with pytest.raises(TypeError, match="nonsense"):
        run(script)


def test_select_and_dynamic_arguments() -> None:
    script = Script("choices", "limit")
    chosen = script.op("lm.select", script.append(script.p, "pick"), script.args[0], name="c")
    prompt = script.op("lm.gen", chosen, script.args[1], name="x", dynamic=["max_tokens"])
    script.give(script.op("prompt.text", prompt))
    backend = ScriptedBackend(lambda text, params: "w " * 10, score=lambda text, choice: len(choice))
    value, context, _ = run(script, ["a", "bbb", "cc"], 2, backend=backend)
    assert value == "pickbbbw w"
    assert context.trace()[0].kind == "select" and context.trace()[1].generated_tokens == 2
