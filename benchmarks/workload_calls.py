"""What a program asks of a model, as an asyncio script would ask it: calls that wait for those they depend on.

No more than the standard library is needed here: the scripts of other engines, with a Python of their own, use it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Call:
    """A generation, or a choice among texts. A row of a workload is a list of these, earlier ones first.

    prompts: token ids; one prompt of a generation, for a choice one with each text. continues: the index of a call
    whose prompt and generated tokens stand before these. after: the indices of all calls that must have ended before.
    generated: how many tokens are generated after each prompt. is_choice: whether these are no part of any text.
    temperature: 0 is greedy.
    """

    prompts: list[list[int]]
    continues: int | None
    after: list[int]
    generated: int
    is_choice: bool = False
    temperature: float = 0.0
    seed: int | None = None


# Makes the tokens that a call generates after one whole prompt.
Generate = Callable[[list[int], Call], Awaitable[list[int]]]


async def drive(rows: Sequence[Sequence[Call]], generate: Generate) -> None:
    """Make all calls of all rows, each as soon as those it waits for have ended."""
    await asyncio.gather(*(_drive_row(calls, generate) for calls in rows))


async def _drive_row(calls: Sequence[Call], generate: Generate) -> None:
    ended: list[asyncio.Task[list[int]]] = []

    async def make(call: Call) -> list[int]:
        """Gives the prompt with what was generated (of a choice, with its first text)."""
        await asyncio.gather(*(ended[index] for index in call.after))
        before = [] if call.continues is None else ended[call.continues].result()
        prompts = [before + prompt for prompt in call.prompts]
        answers = await asyncio.gather(*(generate(prompt, call) for prompt in prompts))
        return prompts[0] + answers[0]

    for call in calls:
        ended.append(asyncio.create_task(make(call)))
    await asyncio.gather(*ended)


def generated_tokens(rows: Sequence[Sequence[Call]]) -> int:
    """How many tokens of text the rows get."""
    return sum(call.generated for calls in rows for call in calls if not call.is_choice)
