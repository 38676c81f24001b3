"""`async def` programs: whose event loop awaits what, how runs are cancelled, and that nothing waits for itself."""

from __future__ import annotations

import asyncio
import contextvars
import threading
import time
from typing import Any

import pytest
import ramify as rf
from ramify.backends.scripted import ScriptedBackend
from ramify.ir.errors import Cancelled

from .comparing import Waves

BOTH = pytest.mark.parametrize("eager", [True, False], ids=["eager", "compiled"])
USER: contextvars.ContextVar[str] = contextvars.ContextVar("USER", default="nobody")


def echo(text: str, _: Any) -> str:
    return f"<{text[-6:]}>"


@pytest.fixture
def backend() -> ScriptedBackend:
    return ScriptedBackend(echo, delay=0.001)


async def fetch(what: Any) -> str:
    await asyncio.sleep(0)
    return f"[{what}]"


@rf.program
async def ask(s: Any, question: str) -> str:
    s += await fetch(question) + rf.gen("answer")
    return s["answer"]


@rf.program
async def where(s: Any) -> Any:
    s += "a" + rf.gen("x")
    first = asyncio.get_running_loop(), asyncio.current_task(), threading.current_thread()
    s += s["x"] + rf.gen("y")
    return first, (asyncio.get_running_loop(), asyncio.current_task(), threading.current_thread())


@BOTH
def test_run_awaits_on_a_loop_of_its_own(backend: ScriptedBackend, eager: bool) -> None:
    first, second = where.run(backend=backend, eager=eager).value
    assert first == second and first[2] is not threading.current_thread()
    assert first[0].is_closed() and first[1].done()


@BOTH
def test_arun_awaits_on_the_callers_loop_in_the_callers_task(backend: ScriptedBackend, eager: bool) -> None:
    async def main() -> None:
        here = asyncio.get_running_loop(), asyncio.current_task(), threading.current_thread()
        run = await where.options(backend=backend, eager=eager).arun()
        assert run.value == (here, here)
        assert (await ask.options(backend=backend, eager=eager)("q")).value == "<[q]>"  # type: ignore[misc]

    asyncio.run(main())


@BOTH
def test_run_inside_a_running_loop(backend: ScriptedBackend, eager: bool) -> None:
    @rf.program
    async def runs_another(s: Any) -> Any:
        s += await fetch(1)
        return ask.run("inner", backend=backend, eager=eager).value

    async def main() -> None:
        for _ in range(2):
            assert ask.run("q", backend=backend, eager=eager).value == "<[q]>"
        assert runs_another.run(backend=backend, eager=eager).value == "<inner]>"
        assert (await runs_another.options(eager=eager).arun()).value == "<inner]>"

    asyncio.run(main())


def test_runs_that_block_one_another_do_not_wait_forever(backend: ScriptedBackend) -> None:
    """A coroutine blocks its loop with a run whose host code, on another thread, runs a coroutine again."""

    @rf.program
    def between(s: Any, depth: int) -> Any:
        s += "b" + rf.gen("x")
        return outer.run(depth, backend=backend).value

    @rf.program
    async def outer(s: Any, depth: int) -> Any:
        s += await fetch(depth) + rf.gen("x")
        return 0 if depth == 0 else 1 + between.run(depth - 1, backend=backend).value

    assert [run.value for run in outer.run_batch([{"depth": 4}] * 6, backend=backend)] == [4] * 6


@BOTH
def test_rows_of_a_batch(backend: ScriptedBackend, eager: bool) -> None:
    runs = ask.run_batch([{"question": str(n)} for n in range(40)], backend=backend, eager=eager)
    assert [run.value for run in runs] == [f"<[{n}]>" for n in range(40)]


def test_rows_of_a_batch_share_a_loop(backend: ScriptedBackend) -> None:
    limit = asyncio.Semaphore(2)
    most = now = 0

    @rf.program
    async def limited(s: Any, n: int) -> Any:
        nonlocal most, now
        async with limit:
            now += 1
            most = max(most, now)
            await asyncio.sleep(0.001)
            now -= 1
        s += str(n) + rf.gen("x")
        return asyncio.get_running_loop()

    runs = limited.run_batch([{"n": n} for n in range(12)], backend=backend)
    assert {run.error for run in runs} == {None} and most == 2
    (loop,) = {run.value for run in runs}
    assert loop.is_closed()


@BOTH
def test_context_variables(backend: ScriptedBackend, eager: bool) -> None:
    @rf.program
    async def who(s: Any) -> Any:
        s += USER.get() + rf.gen("x")
        USER.set(s["x"])
        await fetch(0)
        return USER.get()

    async def main() -> None:
        assert (await who.options(backend=backend, eager=eager).arun()).value == "<ada>"
        assert USER.get() == "<ada>"  # the caller's own task ran it, as with any coroutine

    token = USER.set("ada")
    try:
        assert who.run(backend=backend, eager=eager).value == "<ada>" and USER.get() == "ada"
        asyncio.run(main())
        assert USER.get() == "ada"
    finally:
        USER.reset(token)


@BOTH
def test_errors(backend: ScriptedBackend, eager: bool) -> None:
    @rf.program
    async def fails(s: Any) -> Any:
        s += "a" + rf.gen("x")
        await asyncio.gather(asyncio.sleep(0, {}["key"]), fetch(s["x"]))

    @rf.program
    async def stops(s: Any) -> Any:
        s += "a"
        return next(iter(()))

    with pytest.raises(KeyError, match="key") as caught:
        fails.run(backend=backend, eager=eager)
    assert [frame.name for frame in caught.traceback][-1] == "fails"
    with pytest.raises(KeyError, match="key"):
        asyncio.run(fails.options(backend=backend, eager=eager).arun())
    with pytest.raises(RuntimeError, match="coroutine raised StopIteration"):
        stops.run(backend=backend, eager=eager)


# Cancellation.


class Watch:
    """What a program that is cancelled saw of it."""

    def __init__(self) -> None:
        self.begun = asyncio.Event()
        self.seen: list[str] = []

    async def wait(self) -> None:
        self.begun.set()
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            self.seen.append("cancelled")
            await asyncio.sleep(0)
            self.seen.append("cleaned up")
            raise


@rf.program
async def waits(s: Any, watch: Watch) -> None:
    s += "a" + rf.gen("x")
    await watch.wait()


@rf.program
async def reads(s: Any) -> Any:
    s += "a" + rf.gen("x")
    return await fetch(s["x"])


@BOTH
def test_cancelling_reaches_what_is_awaited(backend: ScriptedBackend, eager: bool) -> None:
    async def main() -> None:
        watch = Watch()
        task = asyncio.create_task(waits.options(backend=backend, eager=eager).arun(watch))
        await watch.begun.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert watch.seen == ["cancelled", "cleaned up"]
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(waits.options(backend=backend, eager=eager).arun(Watch()), 0.02)

    asyncio.run(main())


class Counting(ScriptedBackend):
    """Counts the requests that were cancelled."""

    num_cancelled = 0

    def generate(self, prompt: Any, params: Any, sink: Any) -> Any:
        handle = super().generate(prompt, params, sink)
        cancel = handle.cancel

        def counted() -> None:
            self.num_cancelled += 1
            cancel()

        handle.cancel = counted  # type: ignore[method-assign]
        return handle


def test_cancelling_while_a_generation_is_on_its_way_cancels_it() -> None:
    backend = Counting(echo, delay=60)

    async def main() -> None:
        begun = time.perf_counter()
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(reads.options(backend=backend).arun(), 0.05)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await reads.options(backend=backend).arun()
        with pytest.raises(ExceptionGroup):
            async with asyncio.TaskGroup() as group:
                group.create_task(reads.options(backend=backend).arun())
                group.create_task(fail_soon())
        assert time.perf_counter() - begun < 5

    asyncio.run(main())
    assert backend.num_cancelled == 3


async def fail_soon() -> None:
    await asyncio.sleep(0.05)
    raise LookupError("soon")


def test_a_program_may_clean_up_or_go_on_when_it_is_cancelled() -> None:
    backend = ScriptedBackend(lambda text, _: "late" if "slow" in text else "quick", delay=0.01)
    watch = Watch()

    @rf.program
    async def stubborn(s: Any) -> Any:
        try:
            await watch.wait()
        except asyncio.CancelledError:
            s += "quick" + rf.gen("x")
        return s["x"]

    async def main() -> None:
        task = asyncio.create_task(stubborn.options(backend=backend).arun())
        await watch.begun.wait()
        task.cancel()
        assert (await task).value == "quick"

    asyncio.run(main())
    assert watch.seen == ["cancelled", "cleaned up"]


@BOTH
def test_timeouts_of_a_run(backend: ScriptedBackend, eager: bool) -> None:
    begun = time.perf_counter()
    watch = Watch()
    with pytest.raises(Cancelled, match=r"timeout of 0\.05 s"):
        waits.run(watch, backend=backend, timeout=0.05, eager=eager)
    assert watch.seen == ["cancelled", "cleaned up"]

    async def main() -> None:
        watch = Watch()
        with pytest.raises(Cancelled, match=r"timeout of 0\.05 s"):
            await waits.options(backend=backend, timeout=0.05, eager=eager).arun(watch)
        assert watch.seen == ["cancelled", "cleaned up"]
        task = asyncio.current_task()
        assert task is not None and task.cancelling() == 0
        await asyncio.sleep(0)  # nothing of the cancellation is left in the caller's task
        with pytest.raises(Cancelled):
            await reads.options(backend=ScriptedBackend(delay=60), timeout=0.05, eager=eager).arun()

    asyncio.run(main())
    assert time.perf_counter() - begun < 5


@BOTH
def test_a_stream_that_raises_ends_an_arun(backend: ScriptedBackend, eager: bool) -> None:
    def stop(event: Any) -> None:
        raise RuntimeError("seen enough")

    watch = Watch()
    with pytest.raises(RuntimeError, match="seen enough"):
        asyncio.run(waits.options(backend=backend, stream=stop, eager=eager).arun(watch))


@BOTH
def test_what_is_left_on_the_loop_of_a_run_is_cancelled(backend: ScriptedBackend, eager: bool) -> None:
    watch = Watch()
    tasks = []

    @rf.program
    async def leaves(s: Any) -> None:
        tasks.append(asyncio.create_task(watch.wait()))
        await asyncio.sleep(0)
        s += "a" + rf.gen("x")

    leaves.run(backend=backend, eager=eager)
    assert tasks[0].cancelled() and watch.seen == ["cancelled", "cleaned up"]


def test_a_closed_loop_ends_the_run(backend: ScriptedBackend) -> None:
    home = asyncio.new_event_loop()
    coroutine = reads.options(backend=ScriptedBackend(delay=0.05)).arun()
    task = home.create_task(coroutine)
    home.run_until_complete(asyncio.sleep(0.01))
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        home.run_until_complete(task)
    home.close()


def test_threads_run_coroutines_at_once(backend: ScriptedBackend) -> None:
    results: dict[int, list[Any]] = {}

    def work(n: int) -> None:
        results[n] = [ask.run(str(n), backend=backend, eager=bool(i % 2)).value for i in range(6)]

    threads = [threading.Thread(target=work, args=(n,)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(set(values) == {f"<[{n}]>"} for n, values in results.items())


# Parts of a run that go on at once.


@rf.program
async def slow_part(s: Any, word: str) -> str:
    s += word + rf.gen("x")
    value = s["x"]
    await asyncio.sleep(0)
    s += value + rf.gen("y")
    return s["y"]


@rf.program
async def at_once(s: Any, count: int) -> Any:
    branches = s.fork(count)
    values = await asyncio.gather(*(slow_part(branch, str(i)) for i, branch in enumerate(branches)))
    async with asyncio.TaskGroup() as group:
        task = group.create_task(slow_part(word="t", s=s))
    return values, task.result(), [branch.text() for branch in branches], s.text()


@BOTH
def test_parts_of_a_run(backend: ScriptedBackend, eager: bool) -> None:
    values, last, texts, text = at_once.run(3, backend=backend, eager=eager).value
    assert texts == [f"{n}<{n}><{n}>{value}" for n, value in enumerate(values)] and text == f"t<t><t>{last}"
    assert asyncio.run(at_once.options(backend=backend, eager=eager).arun(3)).text == text


def test_parts_go_on_at_once_and_block_nobody() -> None:
    @rf.program
    async def only_parts(s: Any) -> Any:
        return await asyncio.gather(*(slow_part(branch, str(i)) for i, branch in enumerate(s.fork(4))))

    async def main() -> int:
        ticks = 0

        async def tick() -> None:
            nonlocal ticks
            while True:
                await asyncio.sleep(0.001)
                ticks += 1

        ticking = asyncio.create_task(tick())
        run = await only_parts.options(backend=Waves(4, echo), timeout=10).arun()
        ticking.cancel()
        assert len(run.value) == 4
        (run,) = only_parts.run_batch([{}], backend=ScriptedBackend(echo, delay=0.02))
        return ticks

    asyncio.run(main())


def test_the_error_of_a_part_is_its_own() -> None:
    backend = ScriptedBackend(lambda text, _: LookupError("no") if "bad" in text else "1", delay=0.001)

    @rf.program
    async def reads_late(s: Any, word: str) -> Any:
        s += word + rf.gen("n", dtype=int)
        number = s["n"]
        await asyncio.sleep(0)
        return number + 1

    @rf.program
    async def both(s: Any) -> Any:
        a, b = s.fork(2)
        results = await asyncio.gather(reads_late(a, "good"), reads_late(b, "bad"), return_exceptions=True)
        try:
            await reads_late(s.copy(), "bad again")
        except LookupError as error:
            results.append(str(error))
        with pytest.raises(TypeError, match=r"missing 1 required positional argument: 'word'"):
            reads_late(s)  # type: ignore[call-arg]
        return [type(result).__name__ for result in results], results[0]

    for eager in (True, False):
        assert both.run(backend=backend, eager=eager).value == (["int", "LookupError", "str"], 2)


def test_cancelling_a_part() -> None:
    backend = Counting(echo, delay=60)

    @rf.program
    async def gives_up(s: Any) -> Any:
        try:
            await asyncio.wait_for(slow_part(s.copy(), "w"), 0.02)
        except TimeoutError:
            s += "late"
        async with asyncio.timeout(5):
            task = asyncio.ensure_future(slow_part(s.copy(), "v"))
            await asyncio.sleep(0.01)
            task.cancel()
            await asyncio.wait([task])
        return task.cancelled(), s.text()

    assert gives_up.run(backend=backend, timeout=30).value == (True, "late")
    assert backend.num_cancelled == 2


@BOTH
def test_tools_know_the_run(backend: ScriptedBackend, eager: bool) -> None:
    @rf.tool
    def add(a: int, b: int) -> int:
        """Add."""
        return a + b

    @rf.tool
    async def later(a: int) -> int:
        """Wait."""
        await asyncio.sleep(0)
        return a

    @rf.program
    async def uses_tools(s: Any) -> Any:
        s += "a" + rf.gen("x")
        return add(1, 2), await later.acall(3)

    program = uses_tools.options(backend=backend, eager=eager)
    for run in (program.run(), asyncio.run(program.arun())):
        assert run.value == (3, 3) and [record.name for record in run.trace] == ["x", "add", "later"]
