"""How much prefill a step bears, from times that are told."""

from __future__ import annotations

import pytest
from ramify.runtime.pace import LEAST_TOKENS, Pace


def taught(target: float | None, *, decode: float, per_token: float) -> Pace:
    """Knows steps of one decoding sequence, alone and with 64 tokens of prompts."""
    pace = Pace(target)
    for _ in range(3):
        pace.note(1, 0, decode)
        pace.note(1, 64, decode + 64 * per_token)
    return pace


def test_without_measurements_or_a_target_nothing_is_bounded() -> None:
    assert Pace(0.1).prefill_tokens(4, 512) == 512
    assert taught(None, decode=1.0, per_token=1.0).prefill_tokens(1, 512) == 512


def test_a_chunk_takes_what_decoding_leaves_of_the_target() -> None:
    pace = taught(0.25, decode=0.05, per_token=0.001)
    assert pace.prefill_tokens(1, 512) == 192  # 0.2 s, in steps of 16
    assert pace.prefill_tokens(1, 100) == 100
    assert pace.prefill_tokens(0, 512) == 512, "nobody decodes, so nobody is held up"


def test_slow_decoding_is_at_most_doubled() -> None:
    assert taught(0.25, decode=1.0, per_token=0.01).prefill_tokens(1, 512) == 96


def test_prompts_always_go_on() -> None:
    assert taught(0.25, decode=0.01, per_token=1.0).prefill_tokens(1, 512) == LEAST_TOKENS
    assert taught(0.25, decode=0.01, per_token=1.0).prefill_tokens(1, 8) == 8


def test_prefill_alone_is_a_first_guess() -> None:
    pace = Pace(0.25)
    pace.note(0, 100, 1.0)
    pace.note(2, 0, 0.05)
    assert pace.prefill_tokens(2, 512) == LEAST_TOKENS
    for _ in range(3):
        pace.note(2, 100, 0.05 + 100 * 0.001)
    assert pace.prefill_tokens(2, 512) == 192, "what was seen beside decoding counts"


def test_more_decoding_leaves_less_and_unknown_numbers_are_like_the_nearest() -> None:
    pace = taught(0.25, decode=0.05, per_token=0.001)
    pace.note(32, 0, 0.15)
    assert pace.prefill_tokens(1, 512) > pace.prefill_tokens(32, 512) == 144
    assert pace.prefill_tokens(60, 512) == 144


def test_the_pace_follows_the_load_and_single_slow_steps_do_not_count() -> None:
    pace = taught(0.25, decode=0.05, per_token=0.001)
    pace.note(1, 64, 30.0)
    assert pace.prefill_tokens(1, 512) == 192
    for _ in range(20):
        pace.note(1, 0, 0.05)
        pace.note(1, 64, 0.05 + 64 * 0.002)
    assert pace.prefill_tokens(1, 512) == 96


@pytest.mark.parametrize("per_token", [0.0003, 0.004])
@pytest.mark.parametrize("decode", [0.01, 0.07, 0.4])
def test_a_modelled_machine_keeps_to_the_target(per_token: float, decode: float) -> None:
    pace, slowest = Pace(0.25), []
    for number in range(200):
        count = pace.prefill_tokens(8, 512) if number % 10 else 0
        seconds = decode + count * per_token
        pace.note(8, count, seconds)
        slowest.append(seconds)
    allowed = max(0.25, 2 * decode, decode + LEAST_TOKENS * per_token)
    assert max(slowest[30:]) <= allowed * 1.001
    assert max(slowest[30:]) >= min(allowed - 16 * per_token, decode + 512 * per_token) * 0.999, (
        "nothing is left unused"
    )
