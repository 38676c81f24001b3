"""Prompts in which a generated answer is another: what debuggers make of them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import msgspec

from ..ir.errors import OutputError, RequestError, UsageError, nearest
from .constraint import violation
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
    done = asked.done or Done("", (), "stop")
    if isinstance(asked.expression, Score):
        return asked.answered(done, value)
    text, value = said(asked, value)
    return asked.answered(_text_of(done, text), value)


def said(asked: Generation, value: Any) -> tuple[str, Any]:
    """A text that the model could have answered a generation or choice with, and its value.

    value: the text, or of a typed generation its value. Raises UsageError for what cannot be the answer, and says why.
    """
    expression = asked.expression
    if isinstance(expression, Select):
        if value not in expression.choices:
            choices = nearest(str(value), expression.choices, "they are")
            raise UsageError(f"{value!r} is not one of the choices", help=choices)
        return value, value
    assert isinstance(expression, Gen)
    text = value if isinstance(value, str) else _written(value, expression)
    _check_constraint(asked, expression, text)
    try:
        return text, read_value(expression, Done(text, (), "stop"), asked.params)
    except OutputError as error:
        raise UsageError(f"{_short(text)} does not stand for a value: {error.__context__}", help=error.help) from None


def _check_constraint(asked: Generation, expression: Gen, text: str) -> None:
    constraint = None if asked.params is None else asked.params.constraint
    if constraint is None:
        return
    try:
        wrong = violation(constraint, text)
    except RequestError:  # it names special tokens of the model, which are no text
        return
    if wrong is not None:
        label = constraint.label if expression.dtype is None else f"dtype={expression.dtype.__name__}"
        raise UsageError(f"{_short(text)} does not match the {label} of the generation: {wrong}")


def _written(value: Any, expression: Gen) -> str:
    """A value as the text that stands for it."""
    if expression.schema is None and expression.dtype in (None, str):
        raise UsageError(f"what was generated is a text, not {type(value).__name__}: {_short(value)}")
    try:
        return msgspec.json.encode(value).decode()
    except TypeError as error:
        raise UsageError(f"{_short(value)} does not stand for a value: {error}") from None


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 100 else f"{text[:97]}..."


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
