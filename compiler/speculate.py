"""Pass `speculate`: what may follow a generation or choice is told to the backend, which may prefill it ahead.

From every such op the pass goes the ways that the program may go on, up to the next op of the model behind something
that waits (a condition, host code, a call). What that op's prompt begins with is known as far as it consists of prompts
that are there by then, constant texts, values that are known, and role marks. Each such beginning becomes an op
`hint.warm`. After a choice among constants this is done for each of them, and conditions on it are decided. Where the
program may take long to go on (it calls what the compiler does not know), there is time when the op is done; else the
hint is brief, and what follows the text of a generation, which is not there before, is not told.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from ..ir.core import Attr, Function, Module, Op, Region, Value
from ..ir.types import PROMPT
from .asking import MODEL_OPS
from .folding import UNKNOWN, leading_text, may_take_long, value_of
from .rewrite import regions

# A beginning is worth it from about so many characters on; values of the program are taken to have as many.
WORTH_CHARACTERS = 64
# At most so many beginnings are told at one place, the likeliest; none that is less likely than this.
MOST_HINTS = 8
LEAST_LIKELY = 1 / 8
# How many ops are looked at behind one.
_MOST_OPS = 400
_LOOPS = {"flow.for": 1, "flow.while": 0}
_CALLS = ("py.call", "flow.call", "flow.invoke")
_SAME_TEXT = ("prompt.branch", "prompt.bind", "prompt.item")


def speculate(module: Module) -> None:
    """Tell what may follow, in place."""
    for function in module.functions.values():
        places = _places(function.body)
        added = [
            (place.region, op, _Search(function, op, place, places).hints())
            for region in regions(function.body)
            for op, place in ((op, _Place(region, index)) for index, op in enumerate(region.ops))
            if op.name in ("lm.gen", "lm.select")
        ]
        for region, op, hints in added:
            at = region.ops.index(op) + 1
            region.ops[at:at] = hints


@dataclass(frozen=True, slots=True)
class _Place:
    """An op's place: its region and index."""

    region: Region
    index: int

    @property
    def op(self) -> Op:
        return self.region.ops[self.index]


# The place of the op around each region, by the region's id.
_Places = dict[int, _Place]


def _places(body: Region) -> _Places:
    return {
        id(inner): _Place(region, index)
        for region in regions(body)
        for index, op in enumerate(region.ops)
        for inner in op.regions
    }


_Part = str | Value | dict[str, str]


def _num_characters(part: _Part) -> int:
    if isinstance(part, str):
        return len(part)
    return WORTH_CHARACTERS if isinstance(part, Value) or "global" in part else 0


@dataclass(frozen=True, slots=True)
class _Known:
    """How a prompt begins: as `root`, which is there when the hint is reached, and then these parts.

    A part is a text, a value of the program, or a dict as in `hint.warm`. is_open: whether more follows. is_brief:
    whether the program goes on as soon as the start is done.
    """

    root: Value
    parts: tuple[_Part, ...] = ()
    is_open: bool = False
    is_brief: bool = False

    def then(self, *parts: _Part) -> _Known:
        return self if self.is_open else replace(self, parts=(*self.parts, *parts))

    @property
    def is_supposed(self) -> bool:
        """Whether it begins with a choice that may be made."""
        first = self.parts[0] if self.parts else None
        return isinstance(first, dict) and "choice" in first

    @property
    def num_characters(self) -> int:
        return sum(map(_num_characters, self.parts))


@dataclass(slots=True)
class _Path:
    """One way on. visible: the values that the hint can use. waited: whether something stood there that waits; slow:
    that may wait long. is_answered: whether an op of the model came behind that. loops: those that went round.
    """

    visible: set[Value]
    prompts: dict[Value, _Known]
    constants: dict[Value, Any]
    likely: float = 1.0
    waited: bool = False
    slow: bool = False
    is_answered: bool = False
    loops: frozenset[int] = field(default_factory=frozenset)

    def fork(self, likely: float = 1.0) -> _Path:
        """The same way so far."""
        likely *= self.likely
        prompts, constants = dict(self.prompts), dict(self.constants)
        return replace(self, visible=set(self.visible), prompts=prompts, constants=constants, likely=likely)

    def known(self, prompt: Value) -> _Known | None:
        return self.prompts.get(prompt) or (_Known(prompt) if prompt in self.visible else None)

    def passes(self, sources: Sequence[Value], targets: Sequence[Value]) -> None:
        """Values get other names: where regions begin and end."""
        prompts = [self.known(source) if source.type == PROMPT else None for source in sources]
        constants = [self.constants.get(source, self) for source in sources]
        for target, prompt, constant in zip(targets, prompts, constants, strict=True):
            self.prompts.pop(target, None)
            self.constants.pop(target, None)
            if prompt is not None:
                self.prompts[target] = prompt
            if constant is not self:
                self.constants[target] = constant


class _Search:
    """All beginnings that may follow one generation or choice."""

    def __init__(self, function: Function, start: Op, place: _Place, places: _Places) -> None:
        self._start = start
        self._place = place
        self._places = places
        self._left = _MOST_OPS
        self._found: dict[tuple[Any, ...], tuple[float, _Known]] = {}
        self._made: dict[Value, Op] = {}
        self._visible = set(function.body.args)
        self._constants: dict[Value, Any] = {}
        self._look_back()

    def hints(self) -> list[Op]:
        """An op for each of them, the likeliest first."""
        start = self._start
        choices = self._choices()
        for choice in choices:
            path = self._path(1 / len(choices))
            path.prompts[start.result] = _Known(start.result, ({"choice": choice},))
            self._follow(self._place.region, self._place.index + 1, path)
        if not choices:
            path = self._path(1.0)
            path.visible.add(start.result)
            self._follow(self._place.region, self._place.index + 1, path)
        ranked = sorted(self._found.values(), key=lambda found: -found[0])
        return [self._hint(known) for likely, known in ranked[:MOST_HINTS] if likely >= LEAST_LIKELY]

    def _path(self, likely: float) -> _Path:
        return _Path(set(self._visible), {}, dict(self._constants), likely)

    def _look_back(self) -> None:
        """Find the values that are there when the op has begun, and the constants among them."""
        place: _Place | None = self._place
        while place is not None:
            self._visible |= set(place.region.args)
            for op in place.region.ops[: place.index]:
                self._visible |= set(op.results)
                self._made |= dict.fromkeys(op.results, op)
                if op.name == "py.const":
                    self._constants[op.result] = op.attrs["value"]
            place = self._places.get(id(place.region))

    def _choices(self) -> list[str]:
        """The choices, if they are constants."""
        start = self._start
        if start.name != "lm.select":
            return []
        choices: Any = self._constants.get(start.operands[1])
        made = self._made.get(start.operands[1])
        if choices is None and made is not None and made.name == "py.expr":
            choices = _value_or_none(made, {})
        is_known = isinstance(choices, list) and all(isinstance(choice, str) for choice in choices)
        return choices if is_known and len(choices) <= 1 / LEAST_LIKELY else []

    def _follow(self, region: Region, index: int, path: _Path) -> None:
        """Go on from a place until the way parts; the parts are followed from here."""
        while self._left > 0:
            self._left -= 1
            op = region.ops[index]
            if op.name in MODEL_OPS:
                if not path.waited:
                    return  # what follows is told behind that op
                self._report(op.operands[0], path)
                path.is_answered = True
            elif self._waits(op, path):
                if path.is_answered:
                    return
                path.waited = True
                path.slow |= op.name in _CALLS or (op.name in ("py.expr", "py.block") and may_take_long(op))
            if op.name in _WAYS:
                _WAYS[op.name](self, _Place(region, index), path)
                return
            self._pass_by(op, path)
            index += 1

    def _waits(self, op: Op, path: _Path) -> bool:
        """Whether the program may stop at an op for values that are not there at the start."""
        if op.name in ("flow.if", "flow.for", "flow.condition"):
            return op.operands[0] not in path.visible
        if op.name == "py.expr":
            return not op.attrs.get("lazy") and (not path.visible.issuperset(op.operands) or may_take_long(op))
        return op.name in ("py.block", *_CALLS)

    def _pass_by(self, op: Op, path: _Path) -> None:
        """What an op does to what is known."""
        if op.name == "py.const":
            path.constants[op.result] = op.attrs["value"]
        elif op.name in ("py.expr", "py.block") and len(op.results) == 1:
            names = dict(zip(op.attrs["inputs"], op.operands, strict=False))
            constants = {name: path.constants[value] for name, value in names.items() if value in path.constants}
            try:
                path.constants[op.result] = value_of(op, constants)
            except UNKNOWN:
                path.constants.pop(op.result, None)
        elif op.name == "prompt.get":
            self._read(op, path)
        elif op.operands and (known := path.known(op.operands[0])) is not None:
            grown = _grown(op, known, path, self._made)
            if grown is not None:
                path.prompts[op.result] = grown
        if op.name == "py.expr":
            self._made[op.result] = op

    def _read(self, op: Op, path: _Path) -> None:
        """The value of the choice is known on this way."""
        known = path.known(op.operands[0])
        if known is not None and known.is_supposed and op.attrs["name"] == self._start.attrs.get("name"):
            first = known.parts[0]
            assert isinstance(first, dict)
            path.constants[op.result] = first["choice"]

    def _if(self, place: _Place, path: _Path) -> None:
        op = place.op
        decided = path.constants.get(op.operands[0], path)
        regions = op.regions if decided is path else [op.regions[0 if decided else 1]]
        for region in regions:
            self._follow(region, 0, path.fork(1 / len(regions)))

    def _loop(self, place: _Place, path: _Path) -> None:
        """A loop without requests is passed by; else its first turn is what follows."""
        op = place.op
        if not any(inner.name in MODEL_OPS for region in op.regions for inner in region.walk()):
            self._follow(place.region, place.index + 1, path)
            return
        first = _LOOPS[op.name]
        path.passes(op.operands[first:], op.regions[0].args[first:])
        self._follow(op.regions[0], 0, path)

    def _try(self, place: _Place, path: _Path) -> None:
        op = place.op
        if not any(inner.name in MODEL_OPS for region in op.regions for inner in region.walk()):
            path.waited = True
            self._follow(place.region, place.index + 1, path)

    def _yield(self, place: _Place, path: _Path) -> None:
        around = self._places[id(place.region)]
        if around.op.name == "flow.if":
            path.passes(place.op.operands, around.op.results)
            self._follow(around.region, around.index + 1, path)
        elif around.op.name in _LOOPS:
            self._next_turn(around, place.op.operands, path)

    def _continue(self, place: _Place, path: _Path) -> None:
        self._next_turn(self._loop_around(place), place.op.operands, path)

    def _break(self, place: _Place, path: _Path) -> None:
        around = self._loop_around(place)
        path.passes(place.op.operands, around.op.results)
        self._follow(around.region, around.index + 1, path)

    def _condition(self, place: _Place, path: _Path) -> None:
        around, carried = self._places[id(place.region)], place.op.operands[1:]
        leaving = path.fork(1 / 2)
        leaving.passes(carried, around.op.results)
        self._follow(around.region, around.index + 1, leaving)
        body, entering = around.op.regions[1], path.fork(1 / 2)
        entering.passes(carried, body.args)
        self._follow(body, 0, entering)

    def _next_turn(self, around: _Place, carried: Sequence[Value], path: _Path) -> None:
        """Go round a loop, once: what it has made is made anew. That it ends here is not followed."""
        op, first = around.op, _LOOPS[around.op.name]
        if id(op) in path.loops:
            return
        path.loops |= {id(op)}
        path.passes(carried, op.regions[0].args[first:])
        kept = set(op.regions[0].args[first:])
        for value in _defined_in(op):
            path.visible.discard(value)
            if value not in kept:
                path.prompts.pop(value, None)
                path.constants.pop(value, None)
        self._follow(op.regions[0], 0, path)

    def _loop_around(self, place: _Place) -> _Place:
        while place.op.name not in _LOOPS:
            place = self._places[id(place.region)]
        return place

    def _report(self, prompt: Value, path: _Path) -> None:
        known = path.known(prompt)
        if known is None or (known.root is self._start.result and not path.slow and not known.is_supposed):
            return
        if known.num_characters + self._behind(known.root) < WORTH_CHARACTERS:
            return
        key = (known.root, tuple(repr(part) if isinstance(part, dict) else part for part in known.parts))
        likely, before = self._found.get(key, (0.0, known))
        is_brief = not path.slow and (likely == 0 or before.is_brief)
        self._found[key] = likely + path.likely, replace(known, is_brief=is_brief)

    def _behind(self, prompt: Value) -> int:
        """About how many characters of a prompt nobody has asked the model about before the start."""
        count = 0
        asked = {self._start.operands[0], self._start.result}
        while prompt not in asked and (op := self._made.get(prompt)) is not None:
            if op.name == "prompt.append":
                constant = self._constants.get(op.operands[1])
                count += len(constant) if isinstance(constant, str) else WORTH_CHARACTERS
            elif op.name not in ("prompt.role", *_SAME_TEXT):
                break
            prompt = op.operands[0]
        return count

    def _hint(self, known: _Known) -> Op:
        operands: list[Value] = [known.root]
        parts: list[Attr] = []
        for part in known.parts:
            if isinstance(part, Value):
                parts.append(len(operands) - 1)
                operands.append(part)
            else:
                parts.append(part)
        attrs: dict[str, Attr] = {"parts": parts}
        if known.is_open:
            attrs["open"] = True
        if known.is_brief:
            attrs["brief"] = True
        return Op("hint.warm", operands, [], attrs, span=self._start.span)


def _end(search: _Search, place: _Place, path: _Path) -> None:
    """The function or a try is left."""


_WAYS: dict[str, Callable[[_Search, _Place, _Path], None]] = {
    "flow.if": _Search._if,
    "flow.for": _Search._loop,
    "flow.while": _Search._loop,
    "flow.try": _Search._try,
    "flow.yield": _Search._yield,
    "flow.continue": _Search._continue,
    "flow.break": _Search._break,
    "flow.condition": _Search._condition,
    "flow.return": _end,
    "flow.leave": _end,
    "flow.raise": _end,
}


def _defined_in(op: Op) -> set[Value]:
    inside = [inner for region in op.regions for inner in region.walk()]
    regions = [*op.regions, *(region for inner in inside for region in inner.regions)]
    return {value for inner in inside for value in inner.results} | {arg for region in regions for arg in region.args}


def _value_or_none(op: Op, known: dict[str, Any]) -> Any:
    try:
        return value_of(op, known)
    except UNKNOWN:
        return None


def _grown(op: Op, known: _Known, path: _Path, made: dict[Value, Op]) -> _Known | None:
    """How the prompt begins that an op makes of one; None if the op makes none."""
    if op.name in _SAME_TEXT:
        return known
    if op.name == "prompt.role":
        role = op.attrs.get("role")
        opened = replace(known, is_open=True)
        return opened if role is None else known.then({"role": role, "mark": op.attrs["mark"]})
    if op.name == "prompt.append":
        return _appended(op.operands[1], known, path, made)
    return None


def _appended(content: Value, known: _Known, path: _Path, made: dict[Value, Op]) -> _Known:
    parts, is_all = _parts(content, path, made)
    grown = known.then(*parts)
    return grown if is_all else replace(grown, is_open=True)


def _parts(content: Value, path: _Path, made: dict[Value, Op]) -> tuple[list[_Part], bool]:
    """How the text of a value begins, and whether that is all of it."""
    constant, op = path.constants.get(content), made.get(content)
    if isinstance(constant, str):
        return [constant], True
    if content in path.visible:
        return [content], True
    if op is None or op.name != "py.expr":
        return [], False
    names = dict(zip([*op.attrs["inputs"], *op.attrs.get("captures", ())], op.operands, strict=False))
    constants = {name: path.constants[value] for name, value in names.items() if value in path.constants}
    leading, is_all = leading_text(op, constants)
    parts: list[_Part] = []
    more: list[_Part]
    for piece in leading:
        if isinstance(piece, str):
            more, is_whole = [piece], True
        elif piece.id not in names:
            home = {"of": op.inlined[0].callee} if op.inlined else {}
            more, is_whole = [{"global": piece.id, **home}], True
        elif piece.id in op.attrs["inputs"]:
            more, is_whole = _parts(names[piece.id], path, made)
        else:  # a variable that other functions may assign
            more, is_whole = [], False
        parts += more
        if not is_whole:
            return parts, False
    return parts, is_all
