"""A model's Jinja chat template, rendered as `transformers` renders it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import jinja2
from jinja2 import nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from ..ir.errors import ModelError

Messages = Sequence[tuple[str, str]]
"""A conversation: (role, text) pairs."""

_FIX_TEMPLATE = "correct chat_template.jinja (or chat_template in tokenizer_config.json)"


class Refused(Exception):
    """The template refuses a conversation, or does not show its messages once each and in order."""


class _GenerationBlock(Extension):
    """`{% generation %}...{% endgeneration %}`, which marks assistant text for training: only its body counts."""

    tags = {"generation"}  # noqa: RUF012 (jinja2 declares it so)

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


class Template:
    """A compiled chat template. tokens: the special tokens it may name, as `bos_token`.

    The date is that of its making, so that a text stays what it is while a program runs; asks_date tells whether the
    template has asked for it.
    """

    def __init__(self, source: str, tokens: Mapping[str, str]) -> None:
        """Raises ModelError for a template that does not parse."""
        self.tokens = {"bos_token": "", "eos_token": "", **tokens}
        self.asks_date = False
        self._now = datetime.now()
        environment = ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=[_GenerationBlock, loopcontrols]
        )
        environment.filters["tojson"] = _to_json
        environment.globals |= {"raise_exception": _raise_exception, "strftime_now": self._strftime_now}
        try:
            self._template = environment.from_string(source)
            self.literals = frozenset(
                constant.value
                for constant in environment.parse(source).find_all(nodes.Const)
                if isinstance(constant.value, str) and constant.value
            )
        except jinja2.TemplateError as error:
            raise ModelError(f"the chat template is not valid: {error}", help=_FIX_TEMPLATE) from error

    def render(self, messages: Messages, *, prompt: bool) -> str:
        """The conversation as text; prompt: with the generation prompt. Raises Refused, in the template's words."""
        return self.render_records([{"role": role, "content": content} for role, content in messages], prompt=prompt)

    def render_records(
        self, records: Sequence[Mapping[str, Any]], *, prompt: bool, tools: Sequence[Mapping[str, Any]] | None = None
    ) -> str:
        """The same for messages as chat APIs have them, with calls of tools; tools: descriptions of those there are."""
        try:
            return self._template.render(
                messages=records, add_generation_prompt=prompt, tools=tools, documents=None, **self.tokens
            )
        except Exception as error:  # A template is a program: it may also fail by a type error or a division.
            raise Refused(str(error) or type(error).__name__) from error

    def _strftime_now(self, layout: str) -> str:
        self.asks_date = True
        return self._now.strftime(layout)


def _raise_exception(message: str) -> None:
    raise jinja2.TemplateError(message)


def _to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """JSON without Jinja's HTML escapes, as chat templates mean it."""
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)
