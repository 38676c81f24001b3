"""Random valid modules, for tests of the IR's forms and of passes.

`modules()` draws a module with any of the ops, nested regions, loops that carry values, calls between functions, and
odd names, strings and numbers. The modules are meant to run, too: loops end, callees do not call back, host code uses
its inputs only. What a host value turns out to be is left to chance, so a run may well raise.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from hypothesis import strategies as st
from ramify.ir.builder import Builder
from ramify.ir.core import Function, Inlined, Module, Region, Value
from ramify.ir.span import Span
from ramify.ir.types import CELL, OBJ, PROMPT, TEXT, Type

ODD_STRINGS = (
    "",
    "\n",
    "\n\n",
    "a\nb",
    "  a\n\n\tb\n",
    "| a\n| b",
    "line\\\nline  \n x",
    "//",
    '"',
    '"""',
    "'",
    "\\",
    "\\n",
    "a\r\nb\rc",
    "größe",
    "日本語",
    "e\u0301",
    "\x00",
    "\u2028 \x85\nx",
    "\U0001f600",
    "\ud83d",
    "\ud83d\ude00",
    "{",
)
STRINGS = st.one_of(st.sampled_from(ODD_STRINGS), st.text(max_size=8))
HINTS = st.sampled_from(["", "p", "p1", "p2", "x", "12", "größe", "a b", "%", "\ud83d", "_", "else", "None"])
NUMBERS = st.one_of(
    st.integers(),
    st.sampled_from([0, -1, 2**63, 2**64, -(2**63) - 1, 10**400]),
    st.floats(),
    st.sampled_from([0.0, -0.0, 1e16, 5e-324, float("inf"), float("-inf"), float("nan"), 1.0]),
)
PLAIN = st.recursive(
    st.one_of(st.none(), st.booleans(), NUMBERS, STRINGS),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(STRINGS, inner, max_size=3)),
    max_leaves=4,
)
SPANS = st.one_of(
    st.none(),
    st.builds(Span, STRINGS, *[st.integers(0, 99)] * 4),
)
_VARIABLES = ("name", "größe", "x")


@st.composite
def modules(draw: st.DrawFn, max_ops: int = 6, max_depth: int = 2, runnable: bool = False) -> Module:
    """A valid module of one to three functions; `max_ops` limits each region, `max_depth` their nesting.

    `runnable` leaves out py.call and flow.invoke, which need Python functions.
    """
    names = draw(
        st.lists(
            st.sampled_from(["main", "debate.<locals>.f", "größe", "f", '"q"']), min_size=1, max_size=3, unique=True
        )
    )
    functions: dict[str, Function] = {}
    for name in names:  # each calls those before it only
        functions[name] = _Grower(draw, functions, max_ops, max_depth, runnable).function(name)
    module = Module(functions, names[-1])
    if draw(st.booleans()):
        module.sources = draw(st.dictionaries(STRINGS, STRINGS, max_size=2))
        module.imports = draw(st.dictionaries(STRINGS, STRINGS, max_size=2))
        module.constants = draw(st.dictionaries(STRINGS, PLAIN, max_size=2))
    return module


class _Grower:
    """Grows one function. `pools` holds the visible values by role; `loop` what a terminator in a loop passes on."""

    def __init__(
        self, draw: st.DrawFn, callees: dict[str, Function], max_ops: int, max_depth: int, runnable: bool
    ) -> None:
        self.draw = draw
        self.callees = dict(callees)
        self.max_ops = max_ops
        self.depth_left = max_depth
        self.runnable = runnable
        self.builder = Builder(Region())
        self.pools: dict[str, list[Value]] = {}
        self.loop: _Loop | None = None
        self.exits = ["flow.return"]

    def function(self, name: str) -> Function:
        roles = ["cell", *self.draw(st.lists(st.sampled_from(["obj", "cell"]), max_size=2))]
        body = self.builder.region
        body.args = [self.new(role) for role in roles]
        names = [self.hint(arg) for arg in body.args]
        unique = [name if name not in names[:index] else f"{name}.{index}" for index, name in enumerate(names)]
        self.ops()
        self.emit("flow.return", self.pick("obj"))
        return Function(name, body, unique, self.draw(SPANS))

    def hint(self, value: Value) -> str:
        return value.name if self.draw(st.booleans()) else self.draw(STRINGS)

    def new(self, role: str) -> Value:
        """A value for a region's argument, known under its role."""
        value = Value(_TYPE_OF[role], self.draw(HINTS))
        self.pools.setdefault(role, []).append(value)
        return value

    def emit(self, name: str, /, *operands: Value, roles: Sequence[str] = (), **more: Any) -> Value:
        """Append an op; returns its first result (or, without results, a value nobody may use)."""
        self.builder.span = self.draw(SPANS)
        op = self.builder.op(name, operands, hints=[self.draw(HINTS) for _ in roles], **more)
        if self.callees and not self.draw(st.integers(0, 9)):
            names = st.sampled_from(sorted(self.callees))
            op.inlined = tuple(self.draw(st.lists(st.builds(Inlined, names, SPANS), min_size=1, max_size=2)))
        for role, result in zip(roles, op.results, strict=True):
            self.pools.setdefault(role, []).append(result)
        return op.results[0] if op.results else Value(OBJ)

    def pick(self, role: str) -> Value:
        """A visible value of the role, or a fresh one."""
        if role == "obj":
            role = self.draw(st.sampled_from(["obj", "obj", "text", "prompt", "cell", "list", "strings"]))
        pool = self.pools.get(role)
        if pool and self.draw(st.integers(0, 4)):
            return self.draw(st.sampled_from(pool))
        return self.make(role)

    def make(self, role: str) -> Value:
        if role == "prompt":
            return self.emit("prompt.empty", roles=["prompt"])
        if role == "cell":
            return self.emit("cell.new", self.pick("prompt"), roles=["cell"])
        if role == "text":
            return self.emit("prompt.text", self.pick("prompt"), roles=["text"])
        if role == "list":
            return self.emit("py.list", roles=["list"])
        if role == "box":
            return self.emit("py.box", self.pick("obj"), roles=["box"], name=self.draw(STRINGS))
        if role == "variable":
            return self.emit("var.new", self.pick("obj"), roles=["variable"])
        if role == "forks":
            source = self.pick(self.draw(st.sampled_from(["prompt", "cell"])))
            joins = self.draw(st.sampled_from([None, True]))
            return self.emit("prompt.fork", source, self.constant(2), roles=["forks"], joins=joins)
        if role == "strings":
            return self.constant(self.draw(st.lists(STRINGS, min_size=1, max_size=3)), role)
        return self.constant(self.draw(PLAIN))

    def constant(self, value: Any, role: str = "obj") -> Value:
        return self.emit("py.const", roles=[role], value=value)

    def ops(self) -> None:
        for _ in range(self.draw(st.integers(0, self.max_ops))):
            self.draw(st.sampled_from(_SIMPLE if self.depth_left == 0 else _ALL))(self)

    @contextmanager
    def region(self, region: Region, loop: _Loop | None, exits: list[str] | None = None) -> Iterator[None]:
        """Grow a region: its values are forgotten at its end. exits: what may leave it and more, if not as around."""
        outer, outer_loop, outer_exits = {role: list(pool) for role, pool in self.pools.items()}, self.loop, self.exits
        self.loop, self.depth_left, self.exits = loop, self.depth_left - 1, self.exits if exits is None else exits
        with self.builder.inside(region):
            yield
        self.pools, self.loop, self.depth_left, self.exits = outer, outer_loop, self.depth_left + 1, outer_exits

    # One method for each op, or group of ops that differ in their names alone.

    def append(self) -> None:
        self.emit("prompt.append", self.pick("prompt"), self.pick("obj"), roles=["prompt"])

    def part(self) -> None:
        self.emit("prompt.part", self.pick("obj"))

    def image(self) -> None:
        self.emit("prompt.image", self.pick("prompt"), self.constant("cat.png"), roles=["prompt"])

    def video(self) -> None:
        self.emit("prompt.video", self.pick("prompt"), self.constant("cat.mp4"), self.constant(8), roles=["prompt"])

    def role(self) -> None:
        role, mark = self.draw(st.sampled_from(["user", "assistant"])), self.draw(st.sampled_from(["begin", "end"]))
        self.named("prompt.role", "role", role, [self.pick("prompt")], mark=mark)

    def group(self) -> None:
        start = self.pick("prompt")
        self.emit("prompt.item", start, roles=["prompt"])
        self.emit("prompt.group", self.pick("prompt"), start, roles=["prompt"])

    def warm(self) -> None:
        parts = [{"choice": "yes"}, "text", 0, {"role": "user", "mark": "begin"}][self.draw(st.integers(0, 1)) :]
        self.emit("hint.warm", self.pick("prompt"), self.pick("obj"), parts=parts, open=True)

    def copy(self) -> None:
        self.emit("prompt.branch", self.pick("prompt"), roles=["prompt"])

    def bind(self) -> None:
        name = self.draw(st.sampled_from(_VARIABLES))
        self.named("prompt.bind", "name", name, [self.pick("prompt"), self.pick("obj")])

    def named(self, op: str, attr: str, value: str, operands: list[Value], **attrs: Any) -> None:
        """An op with a text that is an attribute or an operand."""
        if self.draw(st.booleans()):
            self.emit(op, *operands, roles=["prompt"], **{attr: value}, **attrs)
        else:
            self.emit(op, *operands, self.constant(value), roles=["prompt"], dynamic=[attr], **attrs)

    def since(self) -> None:
        self.emit("prompt.since", self.pick("prompt"), self.pick("prompt"), roles=["text"])

    def get(self) -> None:
        self.emit("prompt.get", self.pick("prompt"), roles=["obj"], name=self.draw(st.sampled_from(_VARIABLES)))

    def messages(self) -> None:
        self.emit("prompt.messages", self.pick("prompt"), roles=["obj"])

    def generate(self) -> None:
        self.model("lm.gen", [self.pick("prompt")], {"max_tokens": 4}, "seed")

    def select(self) -> None:
        self.model("lm.select", [self.pick("prompt"), self.pick("strings")], {}, "note")

    def score(self) -> None:
        self.model("lm.score", [self.pick("prompt"), self.pick("strings")], {}, "note")

    def call_of_a_model(self) -> None:
        self.emit("lm.call", self.constant(3), roles=["obj"], op="lm.gen", params={"max_tokens": 4}, dynamic=["seed"])

    def model(self, op: str, operands: list[Value], params: dict[str, Any], dynamic: str) -> None:
        attrs: dict[str, Any] = {"params": params} if params or self.draw(st.booleans()) else {}
        if self.draw(st.booleans()):
            attrs["name"] = self.draw(st.sampled_from(_VARIABLES))
        if self.draw(st.booleans()):
            operands, attrs["dynamic"] = [*operands, self.constant(3)], [dynamic]
        self.emit(op, *operands, roles=["prompt"], **attrs)

    def load(self) -> None:
        self.emit("cell.load", self.pick("cell"), roles=["prompt"])

    def store(self) -> None:
        self.emit("cell.store", self.pick("cell"), self.pick("prompt"))

    def cell_of(self) -> None:
        self.emit("cell.of", self.pick("cell"), roles=["cell"])

    def unbound(self) -> None:
        self.emit("py.unbound", roles=["unbound"], name=self.draw(STRINGS))

    def default(self) -> None:
        if self.callees and not self.runnable:
            callee = self.callees[self.draw(st.sampled_from(sorted(self.callees)))]
            self.emit("py.default", roles=["obj"], callee=callee.name, name=callee.param_names[0])

    def bound(self) -> None:
        self.emit("py.bound", self.pick("obj"))

    def unbox(self) -> None:
        self.emit("py.unbox", self.pick("box"), roles=["obj"])

    def push(self) -> None:
        self.emit("py.push", self.pick("list"), self.pick("obj"))

    def collect(self) -> None:
        self.emit("py.collect", self.pick("list"), roles=["obj"])

    def dictionary(self) -> None:
        if not self.runnable:  # the lists would have to be of one length
            self.emit("py.dict", self.pick("list"), self.pick("list"), roles=["obj"])

    def expression(self) -> None:
        code = self.draw(st.sampled_from(["[a, b]", "(a,\n  b) # größe", "f'{a!r}\\n'", "a == b", "a if b\nelse 1"]))
        more: dict[str, Any] = {"lazy": self.draw(st.booleans())} if self.draw(st.booleans()) else {}
        self.emit("py.expr", *self.inputs(more), roles=["obj"], code=code, inputs=["a", "b"], **more)

    def block(self) -> None:
        code = self.draw(st.sampled_from(["c = a\nd = [b]\n", "    c = '''\nx'''\n    # d\n\n    d = a", "c = d = 1"]))
        more: dict[str, Any] = {"outputs": ["c", "d"]}
        operands = self.inputs(more)
        if self.draw(st.booleans()):
            more["signals"], code = True, code + ("\nif b: return a" if code[0] != " " else "\n    if b: return a")
        roles = ["obj"] * (4 if "signals" in more else 2)
        self.emit("py.block", *operands, results=[OBJ] * len(roles), roles=roles, code=code, inputs=["a", "b"], **more)

    def inputs(self, attrs: dict[str, Any]) -> list[Value]:
        """Operands for the inputs a and b and perhaps a captured box, which `attrs` then names."""
        operands = [self.pick("obj"), self.pick("obj")]
        if self.draw(st.booleans()):
            attrs["reads"] = ["a"]
        if self.draw(st.booleans()):
            attrs["captures"] = ["boxed"]
            operands.append(self.pick("box"))
        if "outputs" in attrs and self.draw(st.booleans()):
            attrs["writes"] = ["c"]
            operands.append(self.pick("variable"))
        return operands

    def call(self) -> None:
        if not self.callees:
            return
        callee = self.callees[self.draw(st.sampled_from(sorted(self.callees)))]
        operands = [self.pick("cell" if arg.type == CELL else "obj") for arg in callee.body.args]
        num_keywords = self.draw(st.integers(0, len(operands)))
        if not self.runnable and self.draw(st.integers(0, 3)) == 0:
            self.emit("py.call", *operands, roles=["obj"], callee=callee.name)
            return
        if not self.runnable and self.draw(st.integers(0, 3)) == 0:
            self.emit("flow.invoke", self.pick("obj"), *operands, roles=["obj"], keywords=["a"] if operands else [])
            return
        keywords = {"keywords": callee.param_names[len(operands) - num_keywords :]} if num_keywords else {}
        more = {"direct": True} if self.draw(st.booleans()) else {}
        self.emit("flow.call", *operands, roles=["obj"], callee=callee.name, **keywords, **more)

    def branch(self) -> None:
        roles, regions = self.carried_roles(), [Region(), Region()]
        condition = self.pick("obj")
        for region in regions:
            with self.region(region, self.loop):
                self.ops()
                self.end("flow.yield", roles)
        self.emit("flow.if", condition, results=_types(roles), regions=regions, roles=roles)

    def for_loop(self) -> None:
        kind = self.draw(st.sampled_from(["strings", "forks"]))
        iterable, roles, body = self.pick(kind), self.carried_roles(), Region()
        start = [self.pick(role) for role in roles]
        with self.region(body, _Loop(roles, None)):
            body.args = [self.new("obj"), *map(self.new, roles)]
            if kind == "forks":
                self.emit("cell.of", body.args[0], roles=["cell"])
            self.ops()
            self.end(self.draw(st.sampled_from(_LOOP_ENDS)), roles)
        self.emit("flow.for", iterable, *start, results=_types(roles), regions=[body], roles=roles)

    def while_loop(self) -> None:
        """A loop of at most two turns: its first carried value counts them."""
        roles, test, body = ["obj", *self.carried_roles()], Region(), Region()
        start = [self.constant(0), *(self.pick(role) for role in roles[1:])]
        with self.region(test, None, []):
            test.args = [self.new(role) for role in roles]
            self.ops()
            goes_on = self.emit("py.expr", test.args[0], roles=["obj"], code="n < 2", inputs=["n"])
            self.emit("flow.condition", goes_on, test.args[0], *(self.pick(role) for role in roles[1:]))
        with self.region(body, None):
            body.args = [self.new(role) for role in roles]
            turn = self.emit("py.expr", body.args[0], roles=["obj"], code="n + 1", inputs=["n"])
            self.loop = _Loop(roles, turn)
            self.ops()
            self.end(self.draw(st.sampled_from(_LOOP_ENDS)), roles)
        self.emit("flow.while", *start, results=_types(roles), regions=[test, body], roles=roles)

    def try_block(self) -> None:
        regions = [Region(), Region(), Region(), Region()]
        for index, region in enumerate(regions):
            with self.region(region, None, ["flow.leave"]):
                if index == 1:
                    region.args = [self.new("obj")]
                self.ops()
                if index == 1 and self.draw(st.booleans()):
                    self.emit("flow.raise", region.args[0])
                else:
                    self.end("flow.yield", [])
        self.emit("flow.try", regions=regions, roles=["obj", "obj"])

    def get_variable(self) -> None:
        self.emit("var.get", self.pick("variable"), roles=["obj"])

    def set_variable(self) -> None:
        self.emit("var.set", self.pick("variable"), self.pick("obj"))

    def catches(self) -> None:
        self.emit("py.catches", self.pick("obj"), self.pick("obj"), roles=["obj"])

    def carried_roles(self) -> list[str]:
        return self.draw(st.lists(st.sampled_from(["prompt", "obj", "cell", "text"]), max_size=2))

    def end(self, terminator: str, roles: list[str]) -> None:
        """End the region: as asked, or sooner by leaving a loop or the function."""
        choices = [terminator] * 4 + self.exits + (["flow.break", "flow.continue"] if self.loop else [])
        terminator = self.draw(st.sampled_from(choices))
        if terminator == "flow.return":
            self.emit(terminator, self.pick("obj"))
        elif terminator == "flow.leave":
            kind = self.draw(st.sampled_from(["return", "break", "continue"]))
            self.emit(terminator, *([self.pick("obj")] if kind == "return" else []), kind=kind)
        elif self.loop and (terminator in ("flow.break", "flow.continue") or roles is self.loop.roles):
            self.emit(terminator, *self.passed(self.loop))
        else:
            self.emit(terminator, *(self.pick(role) for role in roles))

    def passed(self, loop: _Loop) -> list[Value]:
        if loop.turn is None:
            return [self.pick(role) for role in loop.roles]
        return [loop.turn, *(self.pick(role) for role in loop.roles[1:])]


class _Loop:
    """The loop around: the roles of its carried values and, in a while, the counter that each turn passes on."""

    def __init__(self, roles: list[str], turn: Value | None) -> None:
        self.roles = roles
        self.turn = turn


def _types(roles: Sequence[str]) -> list[Type]:
    return [_TYPE_OF[role] for role in roles]


_TYPE_OF = {"prompt": PROMPT, "text": TEXT, "cell": CELL, "obj": OBJ}
_LOOP_ENDS = ["flow.yield", "flow.yield", "flow.continue", "flow.break"]
_SIMPLE: list[Callable[[_Grower], None]] = [
    _Grower.append,
    _Grower.part,
    _Grower.image,
    _Grower.role,
    _Grower.group,
    _Grower.warm,
    _Grower.since,
    _Grower.copy,
    _Grower.bind,
    _Grower.get,
    _Grower.messages,
    _Grower.generate,
    _Grower.select,
    _Grower.video,
    _Grower.score,
    _Grower.call_of_a_model,
    _Grower.load,
    _Grower.store,
    _Grower.cell_of,
    _Grower.unbound,
    _Grower.default,
    _Grower.bound,
    _Grower.unbox,
    _Grower.get_variable,
    _Grower.set_variable,
    _Grower.catches,
    _Grower.push,
    _Grower.collect,
    _Grower.dictionary,
    _Grower.expression,
    _Grower.block,
    _Grower.call,
]
_ALL = [*_SIMPLE, *[_Grower.branch, _Grower.for_loop, _Grower.while_loop, _Grower.try_block] * 2]
