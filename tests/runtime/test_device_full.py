"""A device without memory for some request's KV: that request waits, or fails alone."""

from __future__ import annotations

import weakref

import pytest
import torch
from ramify.ir.errors import BackendError
from ramify.runtime.pool import DeviceFull, KVLayout, KVPool

from .fakes import LAYOUT, FakeModel, call, expected_tokens, finish, new_engine


class Device(KVLayout):
    """Of which only so many tokens of KV are free, and none where it is told so."""

    def __init__(self, most: int) -> None:
        super().__init__(1, 1, 2, torch.float64, LAYOUT.device)
        object.__setattr__(self, "state", {"most": most, "held": 0})

    def empty(self, room: int) -> torch.Tensor:
        state = self.state  # type: ignore[attr-defined]
        if state["held"] + room > state["most"]:
            raise torch.OutOfMemoryError(f"tried to allocate {room} tokens")
        state["held"] += room
        memory = super().empty(room)
        weakref.finalize(memory, lambda: state.__setitem__("held", state["held"] - room))
        return memory


def test_one_that_never_fits_fails_alone() -> None:
    engine = new_engine(FakeModel(layout=Device(20)))
    before, large, after = call([1, 2, 3], max_tokens=5), call([4] * 30, max_tokens=5), call([5, 6], max_tokens=5)
    finish(engine, before, large, after)
    assert isinstance(large.error, BackendError)
    assert "no memory for the KV of the request's 34 tokens" in str(large.error) and "kv_tokens" in str(large.error)
    assert before.done.token_ids == expected_tokens([1, 2, 3], 5)
    assert after.done.token_ids == expected_tokens([5, 6], 5)
    engine.check_idle()


def test_what_runs_is_waited_for_and_what_is_cached_goes() -> None:
    engine = new_engine(FakeModel(layout=Device(34)))
    prompts = [[number] * 12 for number in range(5)]
    calls = [call(tokens, max_tokens=8) for tokens in prompts]
    finish(engine, *calls)
    assert [one.done.token_ids for one in calls] == [expected_tokens(tokens, 8) for tokens in prompts]
    engine.check_idle()


@pytest.mark.parametrize("max_tokens", [3, 8])
def test_a_result_that_cannot_be_trimmed_is_kept_as_it_lies(max_tokens: int) -> None:
    device = Device(100)
    engine = new_engine(FakeModel(layout=device))
    tokens = expected_tokens([1, 2, 3], max_tokens)
    one = call([1, 2, 3], max_tokens=20, stop_token_ids=(tokens[-1],))
    engine.submit(one.request)
    engine.step()
    device.state["most"] = 0  # type: ignore[attr-defined]
    finish(engine)
    assert one.done.matched == tokens[-1] and one.done.token_ids == tokens[: tokens.index(tokens[-1])]
    engine.check_idle()


def test_a_pool_is_left_as_it_was() -> None:
    device = Device(10)
    pool = KVPool(device, 100)
    first = pool.allocate(8)
    with pytest.raises(DeviceFull, match="no memory for KV of 4 tokens"):
        pool.allocate(4)
    head, tail = pool.split(first, 5)
    pool.release(tail)
    assert pool.compact(3) == 0 and pool.trim(head, 5) is head and (pool.used, pool.wasted) == (8, 3)
    pool.check()
    device.state["most"] = 20  # type: ignore[attr-defined]
    assert pool.compact(3) == 3 and pool.wasted == 0
    pool.check()
