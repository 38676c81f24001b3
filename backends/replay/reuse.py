"""How much of a run came from a recording, and how much was asked anew."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class Reuse:
    """Counts of a run with the runs that it began. generations: choices and scores too.

    rerun_generations, rerun_tool_calls: those of them that were asked anew. prompt_tokens, cached_tokens: of the
    generations that were.
    """

    generations: int = 0
    rerun_generations: int = 0
    tool_calls: int = 0
    rerun_tool_calls: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
