"""What masks cost in a step: real vocabulary, real shape, every row constrained.

The tokens are GPT-2's (50,257 of them; tiktoken's ranks, under the data folder), whose masks are as large as a real
model's; the model is random, so the text means nothing, and JSON of a schema is still what comes out.
"""

from __future__ import annotations

import base64
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tiktoken
from ramify.runtime.constraint import json_schema_constraint
from ramify.runtime.engine import Engine
from ramify.runtime.models import load_model
from ramify.runtime.request import Done, EngineRequest, SamplingParams
from ramify.runtime.tokens import Tokenizer

from .structured_tasks import Task
from .watched_grammars import Clock, Watched

_PATTERN = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"


class Ranks:
    """A vocabulary of tiktoken's ranks."""

    special_ids: frozenset[int] = frozenset()

    def __init__(self, path: Path) -> None:
        lines = (line.split() for line in path.read_bytes().splitlines() if line)
        ranks = {base64.b64decode(token): int(rank) for token, rank in lines}
        self._encoding = tiktoken.Encoding("gpt2", pat_str=_PATTERN, mergeable_ranks=ranks, special_tokens={})
        self._bytes = {rank: token for token, rank in ranks.items()}
        self.vocab_size = 1 + max(self._bytes)

    def token_bytes(self, token_id: int, /) -> bytes:
        return self._bytes.get(token_id, b"")

    def token_text(self, token_id: int, /) -> str:
        return self.token_bytes(token_id).decode("utf-8", "replace")

    def encode_after(self, text: str, /) -> list[int]:
        return self._encoding.encode_ordinary(text)


@dataclass(frozen=True)
class Step:
    """One step of a full batch: all of it, waiting for masks after the forward pass, and all that constraints took."""

    seconds: float
    waited: float
    constraint: float
    beside: float


def mask_steps(checkpoint: Path, ranks: Path, task: Task, count: int) -> list[Step]:
    """`count` steps in which all of the task's requests draw a token each."""
    tokenizer, vocabulary = Tokenizer.load(checkpoint), Ranks(ranks)
    model: Any = load_model(checkpoint)
    grammars = Watched(vocabulary, model.config.vocab_size)
    constraint = json_schema_constraint(task.schema)
    grammars.compile(constraint)
    engine = Engine(model, tokenizer.decode_stream, kv_tokens=8_000, grammars=grammars, fast_forward=False)
    ended: list[Done] = []
    params = SamplingParams(max_tokens=count + 1, constraint=constraint, temperature=1.0, seed=1)
    for place in range(len(task.prompts)):
        engine.submit(EngineRequest([place], params, lambda event: isinstance(event, Done) and ended.append(event)))
    engine.step()  # the prompts
    steps = []
    for _ in range(count):
        grammars.clock = clock = Clock()
        begun = time.perf_counter()
        engine.step()
        seconds = time.perf_counter() - begun
        steps.append(Step(seconds, clock.waited, clock.waited + clock.followed, clock.beside))
    return steps
