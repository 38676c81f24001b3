"""Prompts in which a generated answer is another: what debuggers make of them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import msgspec

from ..ir.errors import OutputError, UsageError
from .constraint import matches
from .expression import Gen, Score, Select
from .generation import Generation
from .pending import Pending
from .prompt import Prompt
from .request import Done
from .values import read_value


def answered(asked: Generation, value: Any) -> Generation:
    """A request that was answered otherwise: by a text, the value of a typed generation, a choice, or a score.

    Raises UsageError for what cannot be its answer.
    """
    expression = asked.expression
    done = asked.done or Done("", (), "stop")
    if isinstance(expression, Select):
        if value not in expression.choices:
            choices = ", ".join(map(repr, expression.choices))
            raise UsageError(f"{value!r} is not one of the choices", help=f"they are {choices}")
        return asked.answered(_text_of(done, value), value)
    if isinstance(expression, Score):
        return asked.answered(done, value)
    text = value if isinstance(value, str) else _written(value, expression)
    done = _text_of(done, text)
    constraint = None if asked.params is None else asked.params.constraint
    if constraint is not None and not matches(constraint, text):
        raise UsageError(f"{text!r:.80} does not match the {constraint.label} of the generation")
    try:
        return asked.answered(done, read_value(expression, done, asked.params))
    except OutputError as error:
        raise UsageError(error.message.replace("generated", "is given", 1), help=error.help) from None


def _written(value: Any, expression: Gen) -> str:
    """A value as the text that stands for it."""
    return str(value) if expression.schema is None else msgspec.json.encode(value).decode()


def _text_of(done: Done, text: str) -> Done:
    """An answer with another text, whose tokens nobody has generated."""
    return replace(
        done, text=text, token_ids=(), tail=text, logprobs=(), closing="", is_cut=False, finish_reason="stop"
    )


class Replacing:
    """Puts one generation in the place of another in prompts. What these share, they share afterwards."""

    def __init__(self, old: Generation, new: Generation) -> None:
        self._old = old
        self._new = new
        self._made: dict[Prompt, Prompt] = {}

    def prompt(self, prompt: Prompt) -> Prompt:
        """The prompt with the other answer; itself, if the old one is not in it."""
        nodes = list(prompt.upwards())
        place = next((index for index, node in enumerate(nodes) if node.value is self._old), None)
        if place is None:
            return prompt
        parent = nodes[place].parent
        for node in reversed(nodes[: place + 1]):
            assert parent is not None
            parent = self._made.get(node) or self._made.setdefault(node, self._copy(node, parent))
        assert parent is not None
        return parent

    def _copy(self, node: Prompt, parent: Prompt) -> Prompt:
        value = self._new if node.value is self._old else node.value
        copy = Prompt(node.context, parent, node.kind, value, node.name, _failed(node, value))
        copy.message, copy.open, copy.branch = node.message, node.open, node.branch
        return copy


def _failed(node: Prompt, value: Any) -> Pending[Any] | None:
    """What the prompt after a node is still without: its own text, if that has failed."""
    own = value.pending if node.kind in ("gen", "select") else value
    return own if isinstance(own, Pending) and own.error is not None else None
