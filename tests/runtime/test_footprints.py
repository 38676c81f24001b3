"""What runs are expected to take, from those before them."""

from __future__ import annotations

from ramify.runtime.footprints import Footprints
from ramify.runtime.uses import Owner


def test_runs_are_expected_to_grow_as_those_before_them() -> None:
    known, first, second = Footprints(), Owner(kind="talk"), Owner(kind="talk")
    assert known.expected(first, 10, goes_on=False) == 10
    assert known.expected(first, 10, goes_on=True) > 50, "nothing is known yet"
    known.begin(first, 10, goes_on=True)
    for tokens in (10, 35, 20):
        known.note(first, tokens)
    assert known.reserved > 35, "it may go on growing"
    known.end(first)
    assert known.expected(second, 10, goes_on=True) == 35
    known.begin(second, 20, goes_on=True)
    assert known.reserved == 45
    known.note(second, 60)
    assert known.reserved == 60
    known.end(second)
    assert known.expected(Owner(kind="talk"), 10, goes_on=True) == 50
    assert known.reserved == 0


def test_less_is_kept_in_reserve_the_longer_a_run_goes_on() -> None:
    known, run = Footprints(), Owner(kind="talk")
    known.begin(run, 10, goes_on=True)
    expected = []
    for tokens in (10, 20, 20, 20, 20):
        known.note(run, tokens)
        expected.append(known.reserved)
    assert expected[1:] == sorted(expected[1:], reverse=True) and expected[-1] >= 20


def test_programs_are_forgotten_but_for_the_last() -> None:
    known, under_way = Footprints(), Owner(kind="first")
    known.begin(under_way, 5, goes_on=False)
    for number in range(1000):
        run = Owner(kind=number)
        known.begin(run, 1, goes_on=False)
        known.note(run, 1)
        known.end(run)
    assert known.reserved == 5
    assert len(known._kinds) <= 257
    known.end(under_way)
    known.end(Owner(kind="never begun"))
    assert known.reserved == 0
