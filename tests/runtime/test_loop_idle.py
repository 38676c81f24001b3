"""Calling back once the loop has nothing to do."""

from __future__ import annotations

import threading

from ramify.runtime.loop import loop


def test_several_may_wait_until_nothing_is_to_be_done() -> None:
    seen: list[str] = []
    over = threading.Event()

    def begin() -> None:
        for number in range(3):
            loop().soon(seen.append, f"call {number}")
        loop().when_idle(lambda: loop().soon(seen.append, "called by the first"))
        loop().when_idle(lambda: seen.append("second"))
        loop().when_idle(over.set)

    loop().soon(begin)
    assert over.wait(10)
    assert seen == ["call 0", "call 1", "call 2", "called by the first", "second"]
