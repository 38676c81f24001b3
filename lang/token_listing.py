"""A request of a run token by token: log-probabilities, alternatives, and what its constraint left to choose from."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from ..ir.errors import RamifyError, UsageError, nearest
from ..runtime.generation import Generation
from ..runtime.request import TokenLogprob
from .run import Run

Alternative = tuple[str, float, bool]


@dataclass(frozen=True, slots=True)
class Token:
    """One token. logprob is None where it was not asked for.

    num_allowed: how many tokens the constraint let follow here, the end among them; None without a constraint. forced:
    whether it had to follow. alternatives: the most likely tokens, with log-probability, and whether they were allowed.
    """

    text: str
    logprob: float | None
    num_allowed: int | None = None
    forced: bool = False
    alternatives: tuple[Alternative, ...] = ()


def calls_of(run: Run, name: str) -> list[Generation]:
    """The requests of the run for a variable, in program order. Raises UsageError if there is none."""
    calls = run.state.prompt.context.calls
    found = [call for call in calls if call.expression.name == name]
    if not found:
        names = list(dict.fromkeys(call.expression.name for call in calls if call.expression.name))
        known = nearest(name, names, "it generated") if names else "it generated nothing that has a name"
        raise UsageError(f"the last run generated nothing called {name!r}", help=known)
    return found


def listed(call: Generation) -> list[Token]:
    """The tokens of a generation; none where it has not ended, or the model tells none."""
    done = call.done
    if done is None:
        return []
    backend: Any = call.context.backend
    tokenizer = getattr(backend, "tokenizer", None)
    known: Sequence[TokenLogprob | None] = done.logprobs or [None] * len(done.token_ids)
    token_ids = done.token_ids or [each.token_id for each in done.logprobs]
    masks = _masks(call, token_ids)
    return [
        Token(
            _text(tokenizer, token_id, None if each is None else each.text),
            None if each is None else each.logprob,
            None if mask is None else mask[0],
            mask is not None and mask[1],
            () if each is None else tuple(_alternatives(tokenizer, each, mask)),
        )
        for token_id, each, mask in zip(token_ids, known, masks, strict=False)
    ]


# How many tokens were allowed, whether the one that came had to, and which were allowed.
_Mask = tuple[int, bool, torch.Tensor]


def _masks(call: Generation, token_ids: Sequence[int]) -> Sequence[_Mask | None]:
    """What the constraint said before each token: worked out again, as the engine keeps nothing of it."""
    grammars = getattr(call.context.backend, "grammars", None)
    if call.params is None or call.params.constraint is None or grammars is None:
        return [None] * len(token_ids)
    found: list[_Mask | None] = []
    matcher = grammars.matcher(call.params.constraint)
    forced = matcher.forced()
    for token_id in token_ids:
        allowed = grammars.allowed(grammars.fill([matcher]), torch.device("cpu"))[0]
        num_allowed = int(allowed.sum()) + matcher.is_complete
        is_forced = num_allowed == 1 or forced[:1] == [token_id]
        found.append((num_allowed, is_forced, allowed))
        try:
            matcher.consume(token_id)
        except RamifyError:  # what follows is no part of the text: a token that ended it
            break
        forced = forced[1:] if forced[:1] == [token_id] else []
        forced = forced or matcher.forced()
    return found + [None] * (len(token_ids) - len(found))


def _alternatives(tokenizer: Any, known: TokenLogprob, mask: _Mask | None) -> Iterator[Alternative]:
    texts = known.top_texts or (None,) * len(known.top)
    for (token_id, logprob), text in zip(known.top, texts, strict=True):
        if token_id != known.token_id:
            is_allowed = mask is None or (0 <= token_id < len(mask[2]) and bool(mask[2][token_id]))
            yield _text(tokenizer, token_id, text), logprob, is_allowed


def _text(tokenizer: Any, token_id: int, known: str | None) -> str:
    if known is not None:
        return known
    return str(tokenizer.token_text(token_id)) if tokenizer is not None else f"<token {token_id}>"
