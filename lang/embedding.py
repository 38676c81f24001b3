"""`embed`: the hidden states that a model ends with for many prompts, as vectors to compare or to train on."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import reduce
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from ..ir.errors import RequestError, Unsupported, UsageError
from ..runtime.backend import Backend, Embedder, Pooling
from ..runtime.context import Context
from ..runtime.expression import Call, Expression, describe, flatten, role_message
from ..runtime.features import require_feature
from ..runtime.prompt import Prompt
from .cassettes import in_use
from .options import Options
from .run import Run
from .state import State

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_TAKES = (
    "a prompt is a text, parts such as rf.user('...'), a list of messages (dicts of 'role' and 'content') or a state"
)


def embed(
    prompts: Iterable[Any],
    *,
    backend: str | Path | Backend | None = None,
    pooling: Pooling = "last",
    start: int = 0,
) -> NDArray[np.float32]:
    """The final hidden states (behind the model's final norm) of prompts: float32 (number of prompts, hidden_size).

    A prompt is a text, parts without generations, a list of chat messages, or a State or Run, which is waited for.
    pooling: "last" is the last token's hidden state; "mean" is the mean over the tokens from number `start` on (number
    0 is the beginning-of-text token, where the model has one). backend: None is that of the states, else the default
    one. Raises UsageError, TypeError and RequestError for what is no prompt, empty or too long, Unsupported for a
    backend that tells no hidden states.
    """
    if isinstance(prompts, str | Expression | State | Run | Mapping):
        raise UsageError(f"embed takes a list of prompts, not one: {describe(prompts)}", help="write embed([prompt])")
    given = [prompt.state if isinstance(prompt, Run) else prompt for prompt in prompts]
    used = (_backend_of(given) if backend is None else None) or _opened(backend)
    require_feature(used, "embed", None)
    root = Context(used).root()
    made = [_prompt(root, number, prompt) for number, prompt in enumerate(given)]
    return cast("Embedder", used).embed(made, pooling=pooling, start=start)


def _opened(backend: str | Path | Backend | None) -> Backend:
    cassette = in_use()
    if cassette is not None and cassette.recording is not None and not cassette.is_partial:
        raise Unsupported("a replay asks no model, and hidden states are not recorded", help="embed outside of it")
    return Options(backend=backend).open_backend()


def _backend_of(prompts: list[Any]) -> Backend | None:
    """The backend of the first state, if there is one."""
    return next((prompt.prompt.context.backend for prompt in prompts if isinstance(prompt, State)), None)


def _prompt(root: Prompt, number: int, given: Any) -> Prompt:
    """A prompt behind `root`, or that of a state. Raises UsageError, RequestError, TypeError."""
    if isinstance(given, State):
        if given.prompt.context.backend is not root.context.backend:
            name = given.prompt.context.backend.name
            raise UsageError(f"prompt {number} is a state of another backend, {name!r}", help="embed it with that one")
        given.sync()
        made = given.prompt
    else:
        made = root.append_value(_content(number, given))
    if not made.text_value():
        raise RequestError(f"prompt {number} is empty", help="give it some text")
    return made


def _content(number: int, given: Any) -> str | Expression:
    """What to append for a prompt."""
    if isinstance(given, list | tuple) and given:
        return reduce(lambda before, each: before + each, [_message(number, each) for each in given])
    if not isinstance(given, str | Expression):
        raise TypeError(f"prompt {number} is no prompt: {describe(given)}; {_TAKES}")
    if isinstance(given, Expression) and any(isinstance(part, Call) for part in flatten(given)):
        raise UsageError(
            f"prompt {number} has something to generate, choose or score in it",
            help="run a program, and give embed its state",
        )
    return given


def _message(number: int, given: Any) -> Expression:
    if not isinstance(given, Mapping) or set(given) != {"role", "content"}:
        raise TypeError(f"prompt {number} has a message that is no dict of 'role' and 'content': {describe(given)}")
    if not isinstance(given["role"], str) or not isinstance(given["content"], str):
        raise TypeError(f"prompt {number} has a message whose role or content is no text: {describe(given)}")
    return role_message(given["role"], given["content"])
