"""The steps of prompt, lm, cell and py ops. Control flow is in flow.py.

Each maker takes the linker and an op and gives the op's step. What the ops mean is in runtime/prompt.py and
runtime/host.py, which eager programs use as well.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from types import CellType, FunctionType
from typing import Any, cast

from ..ir.core import Op
from ..ir.errors import RamifyError
from .ahead import put_off
from .calling import in_pool, runs_here
from .expression import Expression, Hints, Where, as_part, build_gen, build_score, build_select, hinted, not_content
from .handling import awaited_while_handling, is_caught, while_handling
from .host import HostOp, Unbound, Variable
from .linker import Frame, Linker, Outcome, Step, Waiting, in_turn, waiting
from .media import Media, build_image, build_video
from .order import Late
from .pending import AnnouncedText, Pending, PendingObject, PendingText, Settled, gather
from .prompt import Prompt, texts_of
from .reading import Reading
from .warming import outside, warm

Maker = Callable[[Linker, Op], Step]


def _in_task(frame: Frame, host: HostOp, values: Sequence[Any]) -> Pending[Any]:
    """Run host code that awaits, which stands in `async def` programs only."""
    assert frame.task is not None
    if frame.handled is None:
        return frame.task.run(host.awaited, values)
    return frame.task.run(awaited_while_handling, frame.handled, host.awaited, values)


def _take(frame: Frame, result: int, value: Any, op: Op) -> Waiting:
    """Put a value that the program reads here into a slot, also before it has arrived.

    Then it is remembered: an eager run would have met its error here. Inside a try it is waited for.
    """
    if isinstance(value, Pending):
        if frame.strand.num_watching:
            return _arrived(frame, result, value)
        frame.strand.remember(value, op.span, frame.function.program(op))
    frame.values[result] = value
    return None


async def _arrived(frame: Frame, result: int, value: Any) -> None:
    while isinstance(value, Pending):
        value = await value
    frame.values[result] = value


def prompt_empty(linker: Linker, op: Op) -> Step:
    result = linker.slot(op.result)

    def step(frame: Frame) -> Waiting:
        frame.values[result] = frame.context.root()
        return None

    return step


def prompt_append(linker: Linker, op: Op) -> Step:
    (before, content), result, span = linker.slots(op.operands), linker.slot(op.result), op.span
    hints = _hints(op)

    def append_arrived(frame: Frame) -> Waiting:
        values = frame.values
        value = values[content]
        values[result] = values[before].append_value(
            hinted(value, hints) if isinstance(value, Expression) else value, span
        )
        return None

    wait_and_append = waiting((content,), append_arrived)

    def step(frame: Frame) -> Waiting:
        values = frame.values
        value = values[content]
        if isinstance(value, str | PendingText):
            values[result] = values[before].append_text(value)
            return None
        if isinstance(value, AnnouncedText) and not frame.strand.num_watching:
            text = PendingText()
            value.then(_as_text, text)
            frame.strand.remember(text, span, frame.function.program(op))
            values[result] = values[before].append_text(text)
            return None
        return wait_and_append(frame)

    return step


def _as_text(value: Any) -> str:
    if isinstance(value, str):
        return value
    raise not_content(value)


def prompt_part(linker: Linker, op: Op) -> Step:
    """What is still on its way is checked when it is appended, save in a try, in which that could be noticed."""
    (part,) = linker.slots(op.operands)

    def check_arrived(frame: Frame) -> Waiting:
        as_part(frame.values[part])
        return None

    wait_and_check = waiting((part,), check_arrived)

    def step(frame: Frame) -> Waiting:
        if isinstance(frame.values[part], Pending) and not frame.strand.num_watching:
            return None
        return wait_and_check(frame)

    return step


def prompt_role(linker: Linker, op: Op) -> Step:
    (before, *dynamic), result = linker.slots(op.operands), linker.slot(op.result)
    constant, mark = op.attrs.get("role"), op.attrs["mark"]

    def step(frame: Frame) -> Waiting:
        values = frame.values
        values[result] = values[before].role(values[dynamic[0]] if dynamic else constant, mark)
        return None

    return waiting(dynamic, step) if dynamic else step


def prompt_item(linker: Linker, op: Op) -> Step:
    (before,), result = linker.slots(op.operands), linker.slot(op.result)

    def step(frame: Frame) -> Waiting:
        frame.values[result] = frame.values[before].item()
        return None

    return step


def prompt_group(linker: Linker, op: Op) -> Step:
    """Without `reorder`, outside of a batch, and where somebody has seen the text already, the order stays."""
    (before, started), result = linker.slots(op.operands), linker.slot(op.result)
    place = (op.inlined[0].callee if op.inlined else linker.function.name, op.span)
    reorders, constants = bool(op.attrs.get("reorder")), op.attrs.get("constants") or ()

    def step(frame: Frame) -> Waiting:
        context, prompt, start = frame.context, frame.values[before], frame.values[started]
        frame.values[result] = prompt
        items = prompt.items(start)
        if reorders and len(items) > 1 and (context.track is not None or may_arrange(frame)):
            return arrange(frame, prompt, start, items)
        return None

    async def arrange(frame: Frame, prompt: Prompt, start: Prompt, items: list[list[Prompt]]) -> None:
        arrived = prompt.arrived()
        if arrived is not None:
            await arrived
        context, texts = frame.context, texts_of(items)

        async def decide() -> list[int]:
            arranger = context.sharing.arranger
            if arranger is None or not may_arrange(frame):
                return list(range(len(items)))
            return await arranger.arrange(place, texts, constants)

        track = context.track
        order = await decide() if track is None else await track.arranged(start, texts, decide)
        frame.values[result] = prompt.arranged(start, items, order)

    def may_arrange(frame: Frame) -> bool:
        return frame.context.sharing.arranger is not None and not frame.context.streams

    return step


def prompt_image(linker: Linker, op: Op) -> Step:
    return _media(linker, op, build_image)


def prompt_video(linker: Linker, op: Op) -> Step:
    return _media(linker, op, build_video)


def _media(linker: Linker, op: Op, build: Callable[..., Media]) -> Step:
    (before, *operands), result, span = linker.slots(op.operands), linker.slot(op.result), op.span

    async def read_and_append(frame: Frame) -> None:
        values = frame.values
        media = await in_pool(frame, build, *(values[slot] for slot in operands), span)
        values[result] = values[before].append_value(media, span)

    return waiting(operands, in_turn(operands, read_and_append))


def prompt_bind(linker: Linker, op: Op) -> Step:
    (before, bound, *dynamic), result = linker.slots(op.operands), linker.slot(op.result)
    constant = op.attrs.get("name")

    def step(frame: Frame) -> Waiting:
        values = frame.values
        if isinstance(values[bound], Unbound):
            raise values[bound].error()
        values[result] = values[before].bind(values[dynamic[0]] if dynamic else constant, values[bound])
        return None

    return waiting(dynamic, step) if dynamic else step


def prompt_get(linker: Linker, op: Op) -> Step:
    (before,), result, name = linker.slots(op.operands), linker.slot(op.result), op.attrs["name"]

    def step(frame: Frame) -> Waiting:
        return _take(frame, result, frame.values[before].get(name), op)

    return step


def prompt_text(linker: Linker, op: Op) -> Step:
    (before,), result = linker.slots(op.operands), linker.slot(op.result)

    def step(frame: Frame) -> Waiting:
        return _take(frame, result, frame.values[before].text_value(), op)

    return step


def prompt_since(linker: Linker, op: Op) -> Step:
    (prompt, start), result = linker.slots(op.operands), linker.slot(op.result)

    def step(frame: Frame) -> Waiting:
        frame.values[result] = frame.values[prompt].text_value(frame.values[start])
        return None

    return step


def prompt_messages(linker: Linker, op: Op) -> Step:
    (before,), result = linker.slots(op.operands), linker.slot(op.result)

    def step(frame: Frame) -> Waiting:
        return _take(frame, result, frame.values[before].messages_value(), op)

    return step


def prompt_fork(linker: Linker, op: Op, new_cell: Callable[[Prompt], Any], new_group: Callable[..., Any]) -> Step:
    (source, count), result = linker.slots(op.operands), linker.slot(op.result)

    def step(frame: Frame) -> Waiting:
        values = frame.values
        parent = values[source]
        branches = parent.prompt.fork(values[count])
        cell = new_cell(parent) if isinstance(parent, Prompt) else parent
        values[result] = new_group(cell, [new_cell(branch) for branch in branches])
        return None

    return waiting((count,), step)


# What the first operand after the prompt is called.
_LISTS = {"lm.select": "choices", "lm.score": "texts"}


def _lm(linker: Linker, op: Op, build: Callable[[Mapping[str, Any]], Expression]) -> Step:
    """An lm op: `build` makes the expression from the arguments, once if they are all constant."""
    (before, *operands), result, span = linker.slots(op.operands), linker.slot(op.result), op.span
    fixed = {"name": op.attrs.get("name"), **(op.attrs.get("params") or {})}
    names: Sequence[str] = op.attrs.get("dynamic") or ()
    if op.name in _LISTS:
        names = (_LISTS[op.name], *names)
    ready = None if names else _try(build, fixed)
    hints = _hints(op)
    if ready is not None:
        ready = hinted(ready, hints)

    def step(frame: Frame) -> Waiting:
        values = frame.values
        expression = ready
        if expression is None:
            given = {name: values[slot] for name, slot in zip(names, operands, strict=True)}
            call = given.pop("call", None)
            expression = hinted(call or build({**fixed, **given}), hints)
        values[result] = values[before].append_value(expression, span)
        return None

    arguments = [slot for name, slot in zip(names, operands, strict=True) if name != "call"]
    return waiting(operands, in_turn(arguments, step)) if operands else step


def _hints(op: Op) -> Hints:
    return Hints(bool(op.attrs.get("share")), op.attrs.get("keep"), "plan" in op.attrs)


def _try(build: Callable[[Mapping[str, Any]], Expression], given: Mapping[str, Any]) -> Expression | None:
    """The expression, or None when the arguments are wrong: the op says so when it runs."""
    try:
        return build(given)
    except (TypeError, ValueError, RamifyError):
        return None


def _gen(given: Mapping[str, Any], where: Where = None) -> Expression:
    return build_gen(given.get("name"), {key: value for key, value in given.items() if key != "name"}, where)


def _select(given: Mapping[str, Any], where: Where = None) -> Expression:
    if given.get("choices") is None:
        return build_select(given.get("name"), where=where)  # says that it needs them
    return _gen(given, where)


def _score(given: Mapping[str, Any], where: Where = None) -> Expression:
    return build_score(given.get("name"), given.get("texts"), where)


def prompt_branch(linker: Linker, op: Op) -> Step:
    (before,), result = linker.slots(op.operands), linker.slot(op.result)

    def step(frame: Frame) -> Waiting:
        (frame.values[result],) = frame.values[before].fork(1)
        return None

    return step


def lm_gen(linker: Linker, op: Op) -> Step:
    return _lm(linker, op, partial(_gen, where=op.span))


def lm_select(linker: Linker, op: Op) -> Step:
    return _lm(linker, op, _select)


def lm_score(linker: Linker, op: Op) -> Step:
    return _lm(linker, op, _score)


_BUILDERS: dict[str, Callable[..., Expression]] = {"lm.gen": _gen, "lm.select": _select, "lm.score": _score}


def lm_call(linker: Linker, op: Op) -> Step:
    """The request, or None where an argument is on its way: then it is checked later, as in prompt_part."""
    operands, result = linker.slots(op.operands), linker.slot(op.result)
    fixed = {"name": op.attrs.get("name"), **(op.attrs.get("params") or {})}
    names: Sequence[str] = op.attrs.get("dynamic") or ()
    build = partial(_BUILDERS[op.attrs["op"]], where=op.span)
    ready = None if names else _try(build, fixed)
    if ready is not None:
        return _keep(result, ready)

    def call(frame: Frame) -> Waiting:
        given = {name: frame.values[slot] for name, slot in zip(names, operands, strict=True)}
        frame.values[result] = build({**fixed, **given})
        return None

    wait_and_call = waiting(operands, in_turn(operands, call))

    def step(frame: Frame) -> Waiting:
        values = frame.values
        if not frame.strand.num_watching and any(isinstance(values[slot], Pending) for slot in operands):
            values[result] = None
            return None
        return wait_and_call(frame)

    return step


def _keep(result: int, value: Any) -> Step:
    """A step that gives the same value in every run."""

    def step(frame: Frame) -> Waiting:
        frame.values[result] = value
        return None

    return step


def hint_warm(linker: Linker, op: Op) -> Step:
    """Known as far as the values are texts by now; nothing of it can fail or be seen."""
    (before, *operands), parts = linker.slots(op.operands), op.attrs["parts"]
    is_open, is_brief = bool(op.attrs.get("open")), bool(op.attrs.get("brief"))

    def value(frame: Frame, part: Any) -> Any:
        if type(part) is int:
            return frame.values[operands[part]]
        if isinstance(part, dict) and "global" in part:
            return outside(linker.sources[part["of"]] if "of" in part else linker.python, part["global"])
        return part

    def step(frame: Frame) -> Waiting:
        if "prefill" in frame.context.backend.features and not isinstance(frame.values[before], Pending):
            given = [value(frame, part) for part in parts]
            end = next((index for index, part in enumerate(given) if type(part) not in (str, dict)), len(given))
            warm(frame.values[before], given[:end], is_open=is_open or end < len(given), is_brief=is_brief)
        return None

    return step


def cell_new(linker: Linker, op: Op, new_cell: Callable[[Prompt], Any]) -> Step:
    (prompt,), result = linker.slots(op.operands), linker.slot(op.result)

    def step(frame: Frame) -> Waiting:
        frame.values[result] = new_cell(frame.values[prompt].fork(1)[0])
        return None

    return step


def cell_load(linker: Linker, op: Op) -> Step:
    (cell,), result = linker.slots(op.operands), linker.slot(op.result)

    def step(frame: Frame) -> Waiting:
        frame.values[result] = frame.values[cell].prompt
        return None

    return step


def cell_store(linker: Linker, op: Op) -> Step:
    cell, prompt = linker.slots(op.operands)

    def step(frame: Frame) -> Waiting:
        kept, strand = frame.values[cell], frame.strand
        strand.order.stored(kept, strand.num_reads)
        kept.prompt = frame.values[prompt]
        return None

    return step


def cell_of(linker: Linker, op: Op) -> Step:
    (source,), result = linker.slots(op.operands), linker.slot(op.result)

    def step(frame: Frame) -> Waiting:
        value = frame.values[source]
        if not isinstance(getattr(value, "prompt", None), Prompt) or isinstance(value, Prompt):
            raise TypeError(f"a State is needed here, not {type(value).__name__}")
        frame.values[result] = value
        return None

    return waiting((source,), step)


def py_const(linker: Linker, op: Op) -> Step:
    """A list or dict: each run gets one of its own."""
    result, value = linker.slot(op.result), op.attrs["value"]

    def step(frame: Frame) -> Waiting:
        frame.values[result] = copy.deepcopy(value)
        return None

    return step


def py_box(linker: Linker, op: Op) -> Step:
    (first,), result = linker.slots(op.operands), linker.slot(op.result)

    async def box_when_arrived(frame: Frame, value: Pending[Any]) -> None:
        frame.values[result] = CellType(await value)

    def step(frame: Frame) -> Waiting:
        value = frame.values[first]
        if isinstance(value, Pending):
            return box_when_arrived(frame, value)
        frame.values[result] = CellType() if isinstance(value, Unbound) else CellType(value)
        return None

    return step


def py_unbox(linker: Linker, op: Op) -> Step:
    (box,), result = linker.slots(op.operands), linker.slot(op.result)
    variable = Unbound(op.operands[0].name)

    def step(frame: Frame) -> Waiting:
        try:
            frame.values[result] = frame.values[box].cell_contents
        except ValueError:
            raise variable.error() from None
        return None

    return step


def py_host(linker: Linker, op: Op) -> Step:
    """py.expr and py.block: on the loop if the code and its operands allow it, else on a host thread."""
    operands, results = linker.slots(op.operands), linker.slots(op.results)
    host = linker.host(op)
    is_lazy = bool(op.attrs.get("lazy"))
    may_wait = (bool(op.attrs.get("ahead")) or host.is_pure) and host.can_wait
    store = _store_one(results[0]) if op.name == "py.expr" else _store_all(results)

    def run_in_order(frame: Frame) -> Waiting:
        order = frame.strand.order
        if order.is_clear():
            return run(frame)
        values = [frame.values[slot] for slot in operands]
        if host.is_quick(values) and host.commutes(values, order):
            return run(frame)
        order.check()
        if may_wait and put_off(frame, op, host, operands, results):
            return None
        return run_in_turn(frame)

    async def run_in_turn(frame: Frame) -> Outcome | None:
        await frame.strand.order.turn()
        more = run(frame)
        return None if more is None else await more

    def run(frame: Frame) -> Waiting:
        values = [frame.values[slot] for slot in operands]
        if runs_here(frame, host, values):
            handled = frame.handled
            store(frame, host(values) if handled is None else while_handling(handled, host, values))
            return None
        return in_host_thread(frame, values)

    async def in_host_thread(frame: Frame, values: list[Any]) -> None:
        frame.strand.check_reads()
        for value in values if frame.task is not None else ():
            while isinstance(value, Reading) and (late := value.prompt.unread()) is not None:
                await Settled(late)  # reads on the caller's event loop must not block it
        track, code = frame.context.track, cast(Callable[[Sequence[Any]], Any], host)
        if track is not None and host.is_recorded:
            state = frame.strand.state
            code = track.hosted(op, host, () if state is None else state.prompt.branch)
        if host.awaits:
            store(frame, await frame.context.time_host(_in_task(frame, host, values), op.span))
        else:
            store(frame, await in_pool(frame, code, values, span=op.span))

    async def wait_and_run(frame: Frame) -> Outcome | None:
        for slot in operands:
            value = frame.values[slot]
            if isinstance(value, Prompt):
                while (late := value.unread()) is not None:
                    await Settled(late)  # a read of what has failed raises by itself
            while isinstance(value, Pending):
                value = frame.values[slot] = await value
        more = run_in_order(frame)
        return None if more is None else await more

    def step(frame: Frame) -> Waiting:
        is_late = is_unread = has_failed = False
        for slot in operands:
            value = frame.values[slot]
            if isinstance(value, Pending):
                if not value.done:
                    is_late = True
                elif value.error is None:
                    frame.values[slot] = value.result()
                else:
                    has_failed = True
            elif isinstance(value, Prompt) and value.unread() is not None:
                is_unread = True
        if host.is_pure and may_wait and not has_failed and put_off(frame, op, host, operands, results):
            return None
        if not (is_late or is_unread or has_failed):
            return run_in_order(frame)
        if is_lazy and not is_unread and not frame.strand.num_watching:
            later = _later(host, [frame.values[slot] for slot in operands])
            if later is not None:
                return _take(frame, results[0], later, op)
        if may_wait and not has_failed and put_off(frame, op, host, operands, results):
            return None
        return wait_and_run(frame)

    return step


_IMMUTABLE = (str, int, float, bool, type(None), Pending)


def _later(host: HostOp, values: list[Any]) -> Pending[Any] | None:
    """A Pending of the expression's value, if nothing it uses can change until its inputs arrive."""
    if not all(isinstance(value, _IMMUTABLE) and not isinstance(value, PendingObject) for value in values):
        return None
    return gather(values).then(host, PendingText() if host.is_text(values) else None)


def _store_one(result: int) -> Callable[[Frame, Any], None]:
    def store(frame: Frame, value: Any) -> None:
        frame.values[result] = value

    return store


def _store_all(results: list[int]) -> Callable[[Frame, Any], None]:
    def store(frame: Frame, outputs: list[Any]) -> None:
        for slot, value in zip(results, outputs, strict=True):
            frame.values[slot] = value

    return store


def py_call(linker: Linker, op: Op, python: Mapping[str, FunctionType]) -> Step:
    """A function of the module that runs as Python: its operands are its parameters, in order."""
    operands, result = linker.slots(op.operands), linker.slot(op.result)
    function = python[op.attrs["callee"]]
    parameters = list(inspect.signature(function).parameters.values())

    async def call(frame: Frame) -> None:
        arguments = [frame.values[slot] for slot in operands]
        args, kwargs = _spread(parameters, arguments)
        await frame.strand.order.turn()
        frame.strand.check_reads()
        if frame.task is not None and inspect.iscoroutinefunction(inspect.unwrap(function)):
            awaited = frame.task.run(lambda: function(*args, **kwargs))
            frame.values[result] = await frame.context.time_host(awaited, op.span)
        else:
            frame.values[result] = await in_pool(frame, lambda: function(*args, **kwargs), span=op.span)

    return waiting(operands, call)


def _spread(parameters: Sequence[inspect.Parameter], values: Sequence[Any]) -> tuple[list[Any], dict[str, Any]]:
    """Values of parameters as the arguments of a call."""
    args: list[Any] = []
    kwargs: dict[str, Any] = {}
    for parameter, value in zip(parameters, values, strict=True):
        if parameter.kind is parameter.VAR_POSITIONAL:
            args.extend(value)
        elif parameter.kind is parameter.VAR_KEYWORD:
            kwargs.update(value)
        elif parameter.kind is parameter.KEYWORD_ONLY:
            kwargs[parameter.name] = value
        else:
            args.append(value)
    return args, kwargs


def py_bound(linker: Linker, op: Op) -> Step:
    (variable,) = linker.slots(op.operands)

    def step(frame: Frame) -> Waiting:
        value = frame.values[variable]
        if isinstance(value, Unbound):
            raise value.error()
        return None

    return step


def py_catches(linker: Linker, op: Op) -> Step:
    (error, classes), result = linker.slots(op.operands), linker.slot(op.result)

    def step(frame: Frame) -> Waiting:
        frame.values[result] = is_caught(frame.values[error], frame.values[classes])
        return None

    return waiting((classes,), step)


def var_new(linker: Linker, op: Op) -> Step:
    (first,), result = linker.slots(op.operands), linker.slot(op.result)

    def step(frame: Frame) -> Waiting:
        frame.values[result] = Variable(frame.values[first])
        return None

    return step


def var_get(linker: Linker, op: Op) -> Step:
    (variable,), result = linker.slots(op.operands), linker.slot(op.result)

    def step(frame: Frame) -> Waiting:
        frame.values[result] = frame.values[variable].value
        return None

    return step


def var_set(linker: Linker, op: Op) -> Step:
    variable, value = linker.slots(op.operands)

    def step(frame: Frame) -> Waiting:
        frame.values[variable].value = frame.values[value]
        return None

    return step


def py_list(linker: Linker, op: Op) -> Step:
    result = linker.slot(op.result)

    def step(frame: Frame) -> Waiting:
        frame.values[result] = []
        return None

    return step


def py_push(linker: Linker, op: Op) -> Step:
    items, item = linker.slots(op.operands)

    def step(frame: Frame) -> Waiting:
        value = frame.values[item]
        if isinstance(value, Unbound):
            raise value.error()
        frame.values[items].append(value)
        return None

    return step


# A list of these holds nothing but values of builtin types when it arrives.
_KNOWN = {str, int, float, bool, type(None), bytes, Pending, PendingText, Late}


def py_collect(linker: Linker, op: Op) -> Step:
    (items,), result = linker.slots(op.operands), linker.slot(op.result)

    def step(frame: Frame) -> Waiting:
        collected = frame.values[items]
        if any(isinstance(item, Pending) for item in collected):
            late = Late() if all(type(item) in _KNOWN for item in collected) else PendingObject()
            collected = gather(collected).then(frame.strand.order.hold, late)
        return _take(frame, result, collected, op)

    return step


def py_dict(linker: Linker, op: Op) -> Step:
    (keys, values), result = linker.slots(op.operands), linker.slot(op.result)

    def step(frame: Frame) -> Waiting:
        items = [*frame.values[keys], *frame.values[values]]
        if any(isinstance(item, Pending) for item in items):
            hold = frame.strand.order.hold
            late = Late() if all(type(item) in _KNOWN for item in frame.values[values]) else None
            return _take(frame, result, gather(items).then(lambda arrived: hold(_paired(arrived)), late), op)
        frame.values[result] = _paired(items)
        return None

    return step


def _paired(items: list[Any]) -> dict[Any, Any]:
    half = len(items) // 2
    return {key: value for (key,), value in zip(items[:half], items[half:], strict=True)}


MAKERS: dict[str, Maker] = {
    "prompt.empty": prompt_empty,
    "prompt.append": prompt_append,
    "prompt.part": prompt_part,
    "prompt.role": prompt_role,
    "prompt.item": prompt_item,
    "prompt.group": prompt_group,
    "prompt.image": prompt_image,
    "prompt.video": prompt_video,
    "prompt.bind": prompt_bind,
    "prompt.branch": prompt_branch,
    "hint.warm": hint_warm,
    "prompt.get": prompt_get,
    "prompt.text": prompt_text,
    "prompt.since": prompt_since,
    "prompt.messages": prompt_messages,
    "lm.gen": lm_gen,
    "lm.select": lm_select,
    "lm.score": lm_score,
    "lm.call": lm_call,
    "cell.load": cell_load,
    "cell.store": cell_store,
    "cell.of": cell_of,
    "py.const": py_const,
    "py.box": py_box,
    "py.unbox": py_unbox,
    "py.expr": py_host,
    "py.block": py_host,
    "py.bound": py_bound,
    "py.catches": py_catches,
    "var.new": var_new,
    "var.get": var_get,
    "var.set": var_set,
    "py.list": py_list,
    "py.push": py_push,
    "py.collect": py_collect,
    "py.dict": py_dict,
}
