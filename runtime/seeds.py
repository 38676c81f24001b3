"""The seed of each generation of a run that has one seed.

It is a hash of the run's seed and of where the generation stands: its branch and how many generations came before it
there. So branches with equal prompts differ, and nothing depends on timing, on the batch or on how the program is run.
"""

from __future__ import annotations

from collections.abc import Iterable

_GAMMA = 0x9E3779B97F4A7C15
_MASK = (1 << 64) - 1


def gen_seed(seed: int, branch: Iterable[int], number: int) -> int:
    """The seed of generation `number` (from 0) on a branch; below 2**63, which every server takes."""
    state = _mix(int(seed) & _MASK)
    for step in (*branch, -1 - number):  # the sign tells a last branch number from the generation's
        state = _mix(state + _GAMMA * (step * 2 + 1))
    return state >> 1


def sample_seed(seed: int, number: int) -> int:
    """The seed of one of several samples of a generation with a seed, which is the first one's."""
    return seed if number == 0 else _mix((int(seed) & _MASK) + _GAMMA * number) >> 1


def _mix(state: int) -> int:
    """The finalizer of SplitMix64 (Steele, Lea and Flood, OOPSLA 2014)."""
    state &= _MASK
    state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & _MASK
    return state ^ (state >> 31)
