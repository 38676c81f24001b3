"""Reasoning models: what a model thinks is told from its answer, and only the answer stays in the prompt.

The generation runs in a fork of the prompt. Its answer is then appended as text, so the messages that follow are read
by the model without the thoughts, as its chat template would show them. A variable `x` gets the answer,
`x_reasoning_content` the thoughts.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..ir.errors import UsageError
from .expression import Expression, Gen, Where
from .pending import PendingText
from .request import Done

if TYPE_CHECKING:
    from .generation import Generation
    from .prompt import Prompt

SUFFIX = "_reasoning_content"


@dataclass(frozen=True, slots=True)
class ReasoningMarks:
    """The texts around a model's thoughts. is_open: the chat template has written the opening one already."""

    opening: str
    closing: str
    is_open: bool = False

    def split(self, text: str) -> tuple[str, str]:
        """The thoughts and the answer. Thoughts that were cut off have no answer; without marks all is answer."""
        if not self.is_open and self.opening not in text:
            return "", text
        thoughts, _, answer = text.removeprefix(self.opening).partition(self.closing)
        return thoughts, answer


_THINK = ("<think>", "</think>")
_TAGGED = (
    *("deepseek-v3", "deepseek-v4", "dots", "glm45", "granite_thinking_parser", "hunyuan", "interns1", "kimi_k2"),
    *("mimo", "nanbeige", "nemotron_3", "poolside_v1", "qwen3"),
)
_OPENED = ("deepseek-r1", "gigachat35", "iquest_q1", "minimax", "qwen3-thinking", "step3", "step3p5")
MODEL_TYPES: dict[str, ReasoningMarks] = {
    **{name: ReasoningMarks(*_THINK) for name in _TAGGED},
    **{name: ReasoningMarks(*_THINK, is_open=True) for name in _OPENED},
    "kimi": ReasoningMarks("◁think▷", "◁/think▷"),
    "minimax-m3": ReasoningMarks("<mm:think>", "</mm:think>"),
}


def marks_of(model_type: str | None) -> ReasoningMarks:
    """The marks of a type of models; None is `<think>` and `</think>`. Raises UsageError that lists the types."""
    if model_type is None:
        return ReasoningMarks(*_THINK)
    if not isinstance(model_type, str) or model_type.lower() not in MODEL_TYPES:
        known = ", ".join(sorted(MODEL_TYPES))
        raise UsageError(f"unknown model_type {model_type!r} of a reasoning model", help=f"known are {known}")
    return MODEL_TYPES[model_type.lower()]


@dataclass(frozen=True, slots=True)
class Reasoned(Expression):
    """An expression whose generations think first."""

    body: Expression | str
    marks: ReasoningMarks


class PartOfText(PendingText):
    """The thoughts or the answer of a generation."""

    __slots__ = ("generation",)

    def __init__(self, generation: Generation) -> None:
        super().__init__()
        self.generation = generation


def append_reasoned(prompt: Prompt, expression: Reasoned, where: Where) -> Prompt:
    """The prompt after the expression, with the answers only. Raises UsageError for a gen with a dtype or schema."""
    start = prompt.fork(1)[0]
    for node in start.append_value(expression.body, where).since(start):
        if node.kind != "gen":
            prompt = prompt.replay([node])
            continue
        generation: Generation = node.value
        thoughts, answer = (_part(generation, expression.marks, index) for index in (0, 1))
        prompt = prompt.append_text(answer)
        if node.name is not None:
            prompt = prompt.bind(node.name, answer).bind(node.name + SUFFIX, thoughts)
    return prompt


def _part(generation: Generation, marks: ReasoningMarks, index: int) -> PartOfText:
    expression = generation.expression
    if isinstance(expression, Gen) and (expression.dtype not in (None, str) or expression.schema is not None):
        raise UsageError(f"gen({expression.name!r}) has a type, but reasoning is told from an answer that is text")
    if len(generation.samples) > 1:
        raise UsageError(f"gen({expression.name!r}) asks for several samples, but reasoning is told from one answer")

    def split(done: Done) -> str:
        return marks.split(done.text)[index]

    part = PartOfText(generation)
    generation.pending.then(split, part)
    return part
