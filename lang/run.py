"""What is left of a run: its value, its text and variables, what it used, and the error it ended with."""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from typing import Any

from ..runtime.context import Context, Usage
from ..runtime.generation import GenRecord
from ..runtime.prompt import Prompt
from ..runtime.toolcall import ToolRecord
from .state import State


class Run:
    """A finished run. With an `error`, text, messages and vars show how far it came; value is None then."""

    __slots__ = ("_context", "error", "state", "value")

    def __init__(self, context: Context, state: State, value: Any, error: BaseException | None) -> None:
        self._context = context
        self.state = state
        self.value = value
        self.error = error

    @property
    def ok(self) -> bool:
        """Whether it ended without an error."""
        return self.error is None

    @property
    def unread(self) -> bool:
        """Whether the error is that of a generation which the program has not looked at."""
        return self._context.unread

    @property
    def traceback(self) -> str:
        """The error as Python shows it, with the user's lines; empty when there is none."""
        return "" if self.error is None else "".join(traceback.format_exception(self.error))

    @property
    def text(self) -> str:
        """The state's whole text, role marks included."""
        return str(self._complete().text_value())

    @property
    def messages(self) -> list[dict[str, str]]:
        """The state's chat messages, as dicts of "role" and "content"."""
        return self._complete().messages_value()  # type: ignore[no-any-return]

    @property
    def vars(self) -> dict[str, Any]:
        """The state's variables and their values."""
        values = {name: node.bound_value() for name, node in self._complete().names().items()}
        return {name: value for name, value in values.items() if not _is_late(value)}

    def __getitem__(self, name: str) -> Any:
        """A variable's value. Raises UnknownVariable (a KeyError), or what made it fail."""
        return self.state[name]

    def __contains__(self, name: object) -> bool:
        return name in self.vars

    __iter__ = None

    @property
    def usage(self) -> Usage:
        """Tokens, calls and time used."""
        return self._context.usage

    @property
    def trace(self) -> list[GenRecord | ToolRecord]:
        """A record of each generation, choice, score and tool call (`kind` says which), in program order."""
        return self._context.trace()

    def get_meta_info(self, name: str) -> dict[str, Any]:
        """What is known of a variable's generation."""
        return self.state.get_meta_info(name)

    def __repr__(self) -> str:
        if self.error is not None:
            return f"<Run failed: {_short(self.error)}>"
        return f"<Run value={_short(self.value)} vars={list(self.vars)}>"

    def _complete(self) -> Prompt:
        """The longest part of the state's prompt that has arrived: all of it, unless the run failed."""
        prompt = self.state.prompt
        if prompt.arrived() is None:
            return prompt
        return next(node for node in _whole(prompt))


def _whole(prompt: Prompt) -> Iterator[Prompt]:
    return (node for node in prompt.upwards() if node.arrived() is None)


def _is_late(value: Any) -> bool:
    from ..runtime.pending import Pending

    return isinstance(value, Pending)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
