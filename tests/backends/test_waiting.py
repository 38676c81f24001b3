"""Requests that wait for their turn: what shares a beginning goes together, the first one first; and rates a minute."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
import ramify as rf
from hypothesis import given, settings
from hypothesis import strategies as st
from ramify.backends.openai import OpenAI
from ramify.backends.rates import Rates
from ramify.backends.remote import Retry, Traffic
from ramify.backends.waiting import BLOCK, Waiting, blocks
from ramify.ir.errors import UsageError
from ramify.lang.run_log import RunLog

from .stub import Asked, Reply, StubServer, error_reply
from .stub_openai import openai_app


class Request:
    def __init__(self, beginning: str) -> None:
        self.beginning = beginning
        self.keys = blocks("".join(letter * BLOCK for letter in beginning).encode())


def taken(waiting: Waiting[Request]) -> list[str]:
    """What can be taken now, with nothing answered in between."""
    found = []
    while (request := waiting.take()) is not None:
        found.append(request.beginning)
    return found


def filled(*beginnings: str) -> Waiting[Request]:
    waiting: Waiting[Request] = Waiting()
    for beginning in beginnings:
        request = Request(beginning)
        waiting.add(request, request.keys)
    return waiting


def test_blocks_tell_beginnings_apart() -> None:
    one, other = blocks(b"a" * (2 * BLOCK + 5)), blocks(b"a" * BLOCK + b"b" * BLOCK)
    assert len(one) == len(other) == 2 and one[0] == other[0] and one[1] != other[1]
    assert blocks(b"a" * (BLOCK - 1)) == () and len(blocks(b"a" * 10_000_000)) == 32


def test_the_first_with_a_beginning_goes_alone_and_then_the_others_with_it() -> None:
    waiting = filled("a", "b", "a", "", "ab", "b", "ac")
    first, second, third = (waiting.take() for _ in range(3))
    assert [each and each.beginning for each in (first, second, third)] == ["a", "b", ""]
    assert waiting.take() is None and len(waiting) == 4
    assert first is not None and second is not None
    waiting.answered(first)
    assert taken(waiting) == ["a", "ab", "ac"], "b's has not been answered"
    waiting.answered(second)
    assert taken(waiting) == ["b"] and len(waiting) == 0


def test_the_next_goes_first_where_the_first_failed() -> None:
    waiting = filled("a", "a", "a")
    for left in (2, 1):
        request = waiting.take()
        assert request is not None and waiting.take() is None
        waiting.failed(request)
        assert len(waiting) == left


def test_beginnings_are_forgotten_after_a_while() -> None:
    now = [0.0]
    waiting: Waiting[Request] = Waiting(lambda: now[0])
    first, second, third = Request("a"), Request("a"), Request("a")
    waiting.add(first, first.keys)
    assert waiting.take() is first
    waiting.answered(first)
    now[0] = 1000.0
    waiting.add(second, second.keys)
    waiting.add(third, third.keys)
    assert waiting.take() is second and waiting.take() is None


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(["add", "take", "answered", "failed"]), st.text("ab", max_size=3))))
def test_nothing_is_lost_or_sent_twice_or_sent_beside_its_first(steps: list[tuple[str, str]]) -> None:
    waiting: Waiting[Request] = Waiting()
    running: list[Request] = []
    added, ended = 0, 0
    for kind, beginning in [*steps, *([("answered", ""), ("take", "")] * (len(steps) + 1))]:
        if kind == "add":
            request = Request(beginning)
            waiting.add(request, request.keys)
            added += 1
        elif kind == "take" and (taken := waiting.take()) is not None:
            for other in running:
                assert not (waiting.is_leading(other) and set(waiting._led[id(other)]) & set(taken.keys))
            running.append(taken)
        elif kind in ("answered", "failed") and running:
            ended += 1
            getattr(waiting, kind)(running.pop(0))
    assert (len(waiting), ended + len(running)) == (0, added) and not waiting._root.items


def test_nobody_is_overtaken_for_ever() -> None:
    waiting = filled("b", *"a" * 3)
    first = waiting.take()
    assert first is not None
    waiting.answered(first)
    late = Request("c")
    waiting.add(late, late.keys)
    found: Request | None = None
    turns = 0
    while found is not late:
        request = Request("a")
        waiting.add(request, request.keys)
        found = waiting.take()
        assert found is not None
        waiting.answered(found)
        turns += 1
        assert turns <= 64 * 5


def test_no_minute_sees_more_than_is_allowed() -> None:
    now = [0.0]
    rates = Rates(3, 100, lambda: now[0])
    sent = [rates.take(30) for _ in range(3)]
    assert rates.wait(1) == 60.0
    now[0] = 59.0
    assert rates.wait(1) == 1.0
    now[0] = 60.0
    assert rates.wait(200) == 0.0, "one above the limit goes when nothing else counts"
    assert rates.wait(30) == 0.0
    sent = [rates.take(50), rates.take(45)]
    assert rates.wait(10) == 60.0
    rates.correct(sent[0], 10)
    assert rates.wait(10) == 0.0
    rates.hold(7.0)
    assert rates.wait(10) == 7.0


def test_requests_wait_for_the_minute_in_their_order(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    rates, order = Rates(2, None, lambda: now[0]), list[tuple[int, float]]()

    async def sleep(seconds: float) -> None:
        now[0] += seconds

    async def one(number: int) -> None:
        await rates.admit(5)
        order.append((number, now[0]))

    async def all_of_them() -> None:
        await asyncio.gather(*(one(number) for number in range(5)))

    monkeypatch.setattr("ramify.backends.rates.asyncio.sleep", sleep)
    asyncio.run(all_of_them())
    assert order == [(0, 0.0), (1, 0.0), (2, 60.0), (3, 60.0), (4, 120.0)]


@pytest.mark.parametrize(
    "options", [{"max_connections": 0}, {"requests_per_minute": 0}, {"tokens_per_minute": 1.5}, {"head_start": -1}]
)
def test_traffic_that_cannot_be(options: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=next(iter(options))):
        Traffic(**options)


# On a backend.


@rf.program
def judge(s: rf.State, guide: str, question: str) -> Any:
    s += rf.system(guide) + rf.user(question)
    s += rf.assistant(rf.gen("x", max_tokens=2))
    return s["x"]


def connected(server: StubServer, **options: Any) -> OpenAI:
    return OpenAI("m", base_url=f"{server.url}/v1", retry=Retry(first=0.0), **options)


def test_rows_with_one_guide_wait_for_its_first_and_then_go_together() -> None:
    guides = {letter: letter * 2 * BLOCK for letter in "AB"}
    rows = [{"guide": guides[letter], "question": str(number)} for number, letter in enumerate("AABBAABB")]
    active: list[str] = []

    def app(asked: Asked) -> Reply:
        active.append(asked.body["messages"][0]["content"][0])
        return openai_app(asked)

    with StubServer(app) as server:
        backend = connected(server, max_connections=1, head_start=30.0)
        runs = judge.run_batch(rows, backend=backend)
        assert all(run.ok for run in runs) and "".join(active) in ("AAAABBBB", "BBBBAAAA")
        backend.close()
    alone: list[int] = []
    with StubServer(openai_app) as server:
        server.fault = lambda number, asked: alone.append(server.active)  # type: ignore[func-returns-value]
        backend = connected(server, head_start=30.0)
        assert all(run.ok for run in judge.run_batch(rows, backend=backend))
        assert max(alone[:2]) <= 2, "of each guide the first goes alone"
        backend.close()


def test_costs_are_told_where_prices_are(capsys: pytest.CaptureFixture[str]) -> None:
    with StubServer(openai_app) as server:
        backend = connected(server, prices=rf.Prices(prompt=3.0, cached=1.0, generated=10.0))
        run = judge.run("Be brief.", "What?", backend=backend)
        usage = run.usage
        assert (usage.prompt_tokens, usage.cached_tokens, usage.generated_tokens) == (2, 1, 2)
        assert usage.cost == pytest.approx((1 * 3.0 + 1 * 1.0 + 2 * 10.0) / 1e6)
        assert f"cost={usage.cost!r}" in repr(usage)
        run.show()
        assert "cost 2.4e-05" in capsys.readouterr().out
        log = RunLog()
        for row in judge.run_batch([{"guide": "Be brief.", "question": "What?"}] * 3, backend=backend):
            log.add("judge", row)
        assert usage.cost is not None and log.usage.cost == pytest.approx(3 * usage.cost)
        plain = connected(server)
        assert judge.run("Be brief.", "What?", backend=plain).usage.cost is None
        plain.close()
        backend.close()
    with pytest.raises(UsageError, match=r"prices are an rf\.Prices, not 3"):
        OpenAI("m", api_key="k", prices=3)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="the price prompt is a number"):
        rf.Prices(prompt=-1.0, generated=1.0)


def test_a_pause_that_the_server_asks_for_is_everybodys() -> None:
    times: list[float] = []

    def fault(number: int, asked: Asked) -> Reply | None:
        import time

        times.append(time.monotonic())
        return error_reply(429, retry_after="1") if number == 0 else None

    with StubServer(openai_app, fault) as server:
        backend = connected(server, max_connections=1)
        rows = [{"guide": "x", "question": str(n)} for n in range(3)]
        assert all(run.ok for run in judge.run_batch(rows, backend=backend))
        assert len(times) == 4 and min(times[1:]) - times[0] >= 1.0
        backend.close()
