"""Programs of the corpus that are coroutines: what they await, and what of asyncio they see."""

from __future__ import annotations

import asyncio
import contextvars
from contextlib import asynccontextmanager
from typing import Any

import ramify as rf

from .corpus import case

DEPTH: contextvars.ContextVar[int] = contextvars.ContextVar("DEPTH", default=0)


async def fetch(what: Any) -> str:
    await asyncio.sleep(0)
    return f"[{what}]"


async def fail(what: Any) -> None:
    await asyncio.sleep(0)
    raise LookupError(what)


async def numbers(count: int) -> Any:
    for number in range(count):
        await asyncio.sleep(0)
        yield number


@asynccontextmanager
async def noting(log: list[str], name: str) -> Any:
    log.append("enter " + name)
    await asyncio.sleep(0)
    try:
        yield name
    finally:
        await asyncio.sleep(0)
        log.append("exit " + name)


async def ask_later(s: Any, question: str, *, name: str = "answer") -> str:
    s += await fetch(question) + rf.gen(name, max_tokens=2)
    return s[name]


def ask_now(s: Any, question: str) -> Any:
    task = asyncio.current_task()
    s += question + rf.gen("now", max_tokens=1)
    return s["now"], task is asyncio.current_task()


@case(words=["a", "b"])
@rf.program
async def awaits_everywhere(s, words):
    s += await fetch("start") + rf.gen("x", max_tokens=2)
    total = [await fetch(word) for word in words if await fetch(word) != "[a]"]
    total += await asyncio.gather(*(fetch(word) for word in words))
    chosen = await fetch(s["x"]) if await fetch("") == "[]" else None
    both = (await fetch("p"), s["x"], await fetch(s["x"]))
    s += f"{await fetch('f')!r:>8}{s['x']}" + (await fetch("tail"))
    while len(total) < 5:
        total.append(await fetch(len(total)))
    return total, chosen, both, s.text(), (await fetch("q")) and s["x"]


@case(question="why?")
@rf.program
async def async_helpers(s, question):
    first = await ask_later(s, question)
    second = await ask_later(question=first, s=s.copy(), name="other")
    branches = s.fork(2)
    said = [await ask_later(branch, str(i)) for i, branch in enumerate(branches)]
    coroutine = ask_later(s, "by hand")
    return first, second, said, await coroutine, ask_now(s, "now"), s.text()


@rf.program
async def part(s, depth):
    s += f"<{depth}" + rf.gen("x", max_tokens=1)
    if depth:
        await part(s, depth - 1)
    s += await fetch(depth) + ">"
    return s["x"]


@case()
@rf.program
async def programs_within(s):
    first = await part(s, 2)
    run = await part.arun(1)
    runs = await asyncio.gather(*(part.arun(depth) for depth in range(3)))
    return first, run.value, [run.text for run in runs], s.text()


@case()
@rf.program
async def parts_at_once(s):
    left, right = s.copy(), s.copy()
    values = await asyncio.gather(part(left, 1), part(right, 0))
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(part(branch, i)) for i, branch in enumerate(s.fork(2))]
    return values, [task.result() for task in tasks], left.text(), right.text()


@case()
@rf.program
async def async_statements(s):
    log: list[str] = []
    async for number in numbers(3):
        s += f"{number}" + rf.gen("x", max_tokens=1)
        if number == 1:
            break
    async with noting(log, "a") as a, noting(log, "b"):
        s += a + rf.gen("y", max_tokens=1)
        log.append(s["y"])
    doubled = [2 * number async for number in numbers(3) if number]
    pairs = {number: s["x"] async for number in numbers(2)}
    lazy = [item async for item in (n async for n in numbers(2))]
    return number, log, doubled, pairs, lazy, s.text()


@case(stop=1)
@case(stop=7)
@rf.program
async def leaving_async_statements(s, stop):
    log: list[str] = []
    async for number in numbers(3):
        async with noting(log, str(number)):
            s += f"{number}"
            if number == stop:
                return log, number
            if number == 0:
                continue
            s += "!" + rf.gen("x", max_tokens=1)
    else:
        s += "else"
    return log, s.text()


@case()
@rf.program
async def async_for_with_else(s):
    async for item in numbers(0):
        s += f"{item}"
    else:
        s += "none" + rf.gen("x", max_tokens=1)
    out = []
    async for a, (b, *c) in pairs_of(s.copy()):
        out.append((a, b.text() if a else "", c))
    return s["x"], out


async def pairs_of(state: Any) -> Any:
    for number in range(2):
        state += f"{number}"
        yield number, (state, number, number)


@case()
@rf.program
async def closures_in_coroutines(s):
    count = 0

    async def bump(by):
        nonlocal count
        await asyncio.sleep(0)
        count += by
        return count

    async def both():
        return [await bump(1), await bump(10)]

    s += f"{await bump(5)}" + rf.gen("x", max_tokens=1)
    seen = await both()
    s += f"{count}"
    return seen, count, [value async for value in (await bump(i) for i in range(3))], s.text()


@case()
@rf.program
async def one_task_for_all(s):
    task = asyncio.current_task()
    s += "t" + rf.gen("x", max_tokens=1)
    same = [task is asyncio.current_task(), s["x"] and task is asyncio.current_task()]
    DEPTH.set(DEPTH.get() + 1)
    s += str(DEPTH.get())
    await deepen()
    background = asyncio.create_task(fetch("later"))
    s += await background
    async with asyncio.timeout(30):
        s += await fetch("in time")
    return same, DEPTH.get(), s.text()


async def deepen() -> None:
    DEPTH.set(DEPTH.get() + 10)


@case()
@rf.program
async def errors_that_are_caught(s):
    try:
        s += "a" + rf.gen("x", max_tokens=1)
        await fail(s["x"])
    except LookupError as error:
        caught = str(error)
        s += "caught"
    finally:
        s += await fetch("finally")
    results = await asyncio.gather(fail("one"), fetch("two"), return_exceptions=True)
    return caught, [type(result).__name__ for result in results], s.text()


@case(raises=LookupError)
@rf.program
async def an_await_that_fails(s):
    s += "a" + rf.gen("x", max_tokens=1)
    await fail(s["x"])
    s += "never"


@case(raises=LookupError)
@rf.program
async def a_helper_that_fails(s):
    s += "a" + rf.gen("x", max_tokens=1)
    await failing_helper(s, await fetch(s["x"]))


async def failing_helper(s: Any, word: str) -> None:
    s += word
    await fail(
        word,
    )


@case(raises=ExceptionGroup)
@rf.program
async def a_group_that_fails(s):
    s += "a"
    async with asyncio.TaskGroup() as group:
        group.create_task(fetch(1))
        group.create_task(fail("in the group"))
    s += "never"


@case(raises=TypeError)
@rf.program
async def awaiting_what_cannot_be(s):
    s += "a" + rf.gen("x", max_tokens=1)
    return await s["x"]


@case(raises=KeyError)
@rf.program
async def reading_what_is_not_there(s):
    s += "a" + rf.gen("x", max_tokens=1)
    return await fetch(s["y"])


@case(raises=ValueError)
@rf.program
async def a_bad_number_is_met_at_its_read(s):
    s += "a" + rf.gen("n", max_tokens=1, dtype=int)
    number = s["n"]
    await fetch("more")
    s += "more"
    return number


async def stop(s):
    s += "x"
    raise StopIteration(1)


@case()
@rf.program
async def a_stop_iteration_leaves_a_coroutine(s):
    try:
        s += "a"
        raise StopIteration(2)
    except StopIteration as error:
        s += f"b{error.value}" + await fetch("c")
    try:
        await stop(s)
    except RuntimeError as error:
        return s.text(), type(error.__cause__).__name__, type(error.__context__).__name__


class Door:
    """An async context manager that logs; it swallows LookupErrors, and fails to close if it is told to."""

    def __init__(self, log: list[str], *, jams: bool = False) -> None:
        self.log = log
        self.jams = jams

    async def __aenter__(self) -> tuple[str, int]:
        await asyncio.sleep(0)
        self.log.append("open")
        return "door", len(self.log)

    async def __aexit__(self, kind: Any, error: Any, trace: Any) -> bool:
        await asyncio.sleep(0)
        self.log.append(f"close {getattr(kind, '__name__', None)} {error} {trace is not None}")
        if self.jams:
            raise OSError("jammed")
        return isinstance(error, LookupError)


@case(way="end")
@case(way="return")
@case(way="break")
@case(way="continue")
@case(way="lookup")
@case(way="read")
@case(way="jam")
@case(way="value", raises=ValueError)
@case(way="cancel", raises=asyncio.CancelledError)
@rf.program
async def every_way_out_of_a_manager(s, way):
    log: list[str] = []
    word = number = None
    for turn in range(3):
        try:
            async with Door(log) as (word, number), Door(log, jams=way == "jam") as pair:
                s += f"{word}{number}{pair[0]}" + rf.gen("x", max_tokens=1)
                late = s["x"]
                if way == "return":
                    return log, late
                if way == "break" and turn == 1:
                    break
                if way == "continue":
                    continue
                if way == "lookup":
                    raise LookupError(late)
                if way == "read":
                    return s["nothing"]
                if way == "value":
                    raise ValueError(late)
                if way == "cancel":
                    raise asyncio.CancelledError
                s += "inside"
        except OSError as error:
            log.append(f"{error} {type(error.__context__).__name__}")
        finally:
            s += "!"
        s += "after"
    return log, word, number, late, s.text()


class Half:
    async def __aenter__(self) -> None: ...


@case(manager=[], raises=TypeError)
@case(manager=Half(), raises=TypeError)
@rf.program
async def what_is_no_manager(s, manager):
    s += "a"
    async with manager as t:
        s += f"{t}"


@case(items=[1], raises=TypeError)
@rf.program
async def what_cannot_be_walked(s, items):
    s += "a"
    async for item in items:
        s += f"{item}"


async def breaking(count: int) -> Any:
    for number in range(count):
        yield number
    raise LookupError("broke")


@case(count=0)
@case(count=2)
@rf.program
async def an_iterator_that_fails(s, count):
    last = "none"
    try:
        async for last in breaking(count):
            s += f"{last}" + rf.gen("x", max_tokens=1)
            async for inner in numbers(3):
                if inner == last:
                    break
                s += s["x"]
            else:
                s += "all"
    except LookupError as error:
        s += f"{error}"
    return last, s.text()


@case(raises=LookupError)
@rf.program
async def an_iterator_whose_error_is_not_caught(s):
    s += "a"
    async for item in breaking(1):
        s += f"{item}" + rf.gen("x", max_tokens=1)


@case(raises=UnboundLocalError)
@rf.program
async def unbound_after_an_async_loop(s):
    async for item in numbers(0):
        s += f"{item}"
    return item


@case()
@rf.program
async def shared_names_in_async_statements(s):
    seen = []
    async for item in numbers(2):
        seen.append(lambda: item)
        async with noting([], "n") as name:
            s += f"{name}{item}" + rf.gen("x", max_tokens=1)
            read = lambda: (name, s["x"])
    return [f() for f in seen], read(), s.text()
