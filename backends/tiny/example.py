"""What a task generator yields: a conversation whose assistant turns are the lesson, and how to score the last one."""

from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Literal

__all__ = ["Example", "Message", "Role", "Split", "assistant", "example", "random_for", "system", "tool", "user"]

Role = Literal["system", "user", "assistant", "tool", "text"]
Split = Literal["train", "held-out"]


@dataclass(frozen=True, slots=True)
class Message:
    """One chat turn; the role `text` marks raw text outside any chat (few-shot completion prompts).

    Assistant turns and raw text are what the model learns to say, unless `learn` is off (a turn that is there to be
    reacted to, say a wrong claim).
    """

    role: Role
    content: str
    learn: bool = True


@dataclass(frozen=True, slots=True)
class Example:
    """A conversation that ends in the reply to learn; `accepts` judges any other reply to the same prompt."""

    task: str
    messages: tuple[Message, ...]
    accepts: Callable[[str], bool]

    @property
    def prompt(self) -> tuple[Message, ...]:
        """The turns before the last reply."""
        return self.messages[:-1]

    @property
    def answer(self) -> str:
        """The reference for the last reply."""
        return self.messages[-1].content


def system(content: str) -> Message:
    """Make a system turn."""
    return Message("system", content)


def user(content: str) -> Message:
    """Make a user turn."""
    return Message("user", content)


def assistant(content: str, *, learn: bool = True) -> Message:
    """Make an assistant turn."""
    return Message("assistant", content, learn)


def tool(content: str) -> Message:
    """Make a turn that holds what a call of a tool gave."""
    return Message("tool", content)


def example(task: str, messages: list[Message], accepts: Callable[[str], bool] | None = None) -> Example:
    """Make an Example; without `accepts`, only the reference itself (give or take outer blanks) counts."""
    answer = messages[-1].content
    return Example(task, tuple(messages), accepts or (lambda reply: reply.strip() == answer))


def random_for(split: Split, index: int) -> Random:
    """Return the generator of draw `index` of a split; a draw of one split never shares a seed with the other."""
    return Random(f"{split}/{index}")
