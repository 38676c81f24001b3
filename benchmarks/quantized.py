"""What weights of 8 bits cost in accuracy and save in memory.

`python -m benchmarks.quantized [--quick] [--times] [--json FILE]`. Each model is compared with itself in float32: the
embedded one on held-out examples of its own training data, and one of random weights with the sizes of Qwen3-0.6B's
layers (8 of them, a smaller vocabulary) on random tokens. Of each position that an example teaches (of random tokens,
of all): the root mean square of the logits' error by their spread, the Kullback-Leibler divergence from the exact
distribution, whether the most probable token is the same, and (of the examples) the perplexity of what follows. Then
greedy replies of 64 tokens at most: how many tokens come before the first that differs, and the share of replies
without one. All of it is deterministic.

`--times`: milliseconds of a step of Qwen3-0.6B's shape in bfloat16, random weights: the least of many rounds in turn.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from math import prod
from random import Random
from typing import Any

import torch
from ramify.backends.tiny import model_dir
from ramify.backends.tiny.tasks import draw
from ramify.backends.tiny.tokenizer import encode_example
from ramify.runtime.batch import Batch, Read, Write
from ramify.runtime.models import Model, ModelConfig, load_model
from ramify.runtime.models.loader import expected_shapes
from ramify.runtime.models.quantized import quantized_bytes
from ramify.runtime.models.random_model import random_model
from ramify.runtime.pool import KVPool
from ramify.runtime.weight_format import WeightFormat
from tokenizers import Tokenizer
from torch import Tensor

from .gpu_batches import decode_batch, prefill_batch
from .gpu_shapes import config
from .report import machine, say, write

GREEDY_TOKENS = 64
ENDS = [0, 2]  # of the embedded model's tokenizer
Kind = tuple[torch.dtype, WeightFormat | None]
EXACT: Kind = (torch.float32, None)
KINDS: list[Kind] = [
    EXACT, (torch.float32, "int8"), (torch.float32, "fp8"), (torch.bfloat16, None), (torch.bfloat16, "int8"),
    (torch.bfloat16, "fp8"),
]  # fmt: skip
STEPS = ["decode, batch 1", "decode, batch 8", "decode, batch 32", "prefill of 512"]


@dataclass(frozen=True)
class Text:
    """Token ids, and the positions whose next token counts."""

    token_ids: list[int]
    positions: list[int]

    @property
    def prompt(self) -> list[int]:
        """What comes before the first token that counts."""
        return self.token_ids[: self.positions[0] + 1]


@dataclass(frozen=True)
class Row:
    """What was found of one model in one dtype and format."""

    model: str
    dtype: str
    weights: str
    matrix_bytes: int
    all_bytes: int
    logit_error: float
    divergence: float
    same_token: float
    perplexity: float | None
    exact_tokens: float
    common_tokens: float
    same_replies: float


def held_out(count: int) -> list[Text]:
    """Held-out examples of the embedded model's tasks; what counts are the replies."""
    tokenizer = Tokenizer.from_file(str(model_dir() / "tokenizer.json"))
    texts = []
    for index in range(count):
        token_ids, learnt = encode_example(tokenizer, draw("held-out", index), Random(index))
        positions = [i - 1 for i in range(1, len(token_ids)) if learnt[i] == 1.0]
        texts.append(Text(token_ids, positions))
    return texts


def random_texts(count: int, vocab_size: int) -> list[Text]:
    """96 random tokens each; all but the first 32 count."""
    numbers = Random(0)
    return [Text(numbers.choices(range(vocab_size), k=96), list(range(31, 95))) for _ in range(count)]


class Sequences:
    """Several sequences on a model, which go on together."""

    def __init__(self, model: Model, prompts: Sequence[Sequence[int]], room: int) -> None:
        self._model = model
        pool = KVPool(model.layout, sum(len(prompt) + room for prompt in prompts))
        self._extents = [pool.allocate(len(prompt) + room) for prompt in prompts]
        self._lengths = [0] * len(prompts)

    def feed(self, sequence: int, token_ids: Sequence[int]) -> Tensor:
        """The logits after each of the tokens, float32 (len(token_ids), vocab_size)."""
        start, stop = self._lengths[sequence], self._lengths[sequence] + len(token_ids)
        self._lengths[sequence] = stop
        extent, rows = self._extents[sequence], (0, len(token_ids))
        places = torch.arange(start, stop)
        wanted = torch.arange(len(token_ids))
        batch = Batch(
            torch.tensor(token_ids), places, [Write(extent, start, *rows)], [Read(extent, stop, [rows], True)], wanted
        )
        return self._model.forward(batch)

    def step(self, token_ids: Tensor) -> Tensor:
        """A token for each sequence; the logits after it."""
        places = torch.tensor(self._lengths)
        writes = [
            Write(extent, at, i, i + 1) for i, (extent, at) in enumerate(zip(self._extents, self._lengths, strict=True))
        ]
        self._lengths = [at + 1 for at in self._lengths]
        reads = [
            Read(extent, at, [(i, i + 1)], True)
            for i, (extent, at) in enumerate(zip(self._extents, self._lengths, strict=True))
        ]
        return self._model.forward(Batch(token_ids, places, writes, reads, torch.arange(len(token_ids))))


def taught_logits(model: Model, texts: Sequence[Text]) -> Tensor:
    """The logits at all positions that count."""
    found = [Sequences(model, [text.token_ids], 0).feed(0, text.token_ids)[text.positions] for text in texts]
    return torch.cat(found)


def greedy(model: Model, prompts: Sequence[Sequence[int]]) -> Tensor:
    """The most probable tokens, one after another: (len(prompts), GREEDY_TOKENS)."""
    sequences = Sequences(model, prompts, GREEDY_TOKENS)
    token_ids = [torch.stack([sequences.feed(i, prompt)[-1].argmax() for i, prompt in enumerate(prompts)])]
    while len(token_ids) < GREEDY_TOKENS:
        token_ids.append(sequences.step(token_ids[-1]).argmax(1))
    return torch.stack(token_ids, 1)


def compare(exact: Tensor, found: Tensor, targets: Tensor) -> dict[str, Any]:
    """Logits (positions, vocab_size) with the exact ones; targets are the tokens that follow, if they count."""
    error = (found - exact).sub_((found - exact).mean(1, keepdim=True))
    spread = exact - exact.mean(1, keepdim=True)
    exact_logs, logs = exact.double().log_softmax(1), found.double().log_softmax(1)
    return {
        "logit_error": float(error.square().mean().sqrt() / spread.square().mean().sqrt()),
        "divergence": float((exact_logs.exp() * (exact_logs - logs)).sum(1).mean()),
        "same_token": float((exact.argmax(1) == found.argmax(1)).double().mean()),
        "perplexity": float(logs.gather(1, targets[:, None]).mean().neg().exp()) if len(targets) else None,
    }


def agreement(exact: Tensor, found: Tensor) -> dict[str, float]:
    """Of greedy replies (replies, tokens), which end with a token that ends the turn or the text."""
    is_end = torch.isin(exact, torch.tensor(ENDS))
    lengths = (is_end.cumsum(1) - is_end.long() == 0).sum(1)
    common = torch.minimum((exact == found).long().cumprod(1).sum(1), lengths)
    return {
        "exact_tokens": float(lengths.double().mean()),
        "common_tokens": float(common.double().mean()),
        "same_replies": float((common == lengths).double().mean()),
    }


def sizes(shape: ModelConfig, dtype: torch.dtype, weights: WeightFormat | None) -> dict[str, int]:
    """Bytes of the matrices that may be rounded, and of all weights (an embedding that the head shares is one)."""
    rounded = rest = 0
    for name, size in expected_shapes(shape).items():
        plain = prod(size) * dtype.itemsize
        if ".layers." in name and len(size) == 2:
            rounded += quantized_bytes(size) if weights else plain
        else:
            rest += plain
    return {"matrix_bytes": rounded, "all_bytes": rounded + rest}


def measure(name: str, models: dict[Kind, Model], texts: Sequence[Text], *, is_noise: bool) -> list[Row]:
    """A row for each of the models; the first one is exact."""
    follow = [text.token_ids[at + 1] for text in texts for at in text.positions]
    targets = torch.tensor([] if is_noise else follow, dtype=torch.int64)
    prompts = [text.prompt for text in texts[:64]]
    rows: list[Row] = []
    exact = exact_tokens = None
    for (dtype, weights), model in models.items():
        found, token_ids = taught_logits(model, texts), greedy(model, prompts)
        exact = found if exact is None else exact
        exact_tokens = token_ids if exact_tokens is None else exact_tokens
        figures = compare(exact, found, targets) | agreement(exact_tokens, token_ids)
        said = str(dtype).removeprefix("torch.")
        rows.append(Row(name, said, weights or "", **sizes(model.config, dtype, weights), **figures))
        say(f"{name} {said} {weights or ''}")
    return rows


def random_shape() -> ModelConfig:
    """Layers of Qwen3-0.6B, fewer of them, and a vocabulary that does not take most of the time."""
    return replace(config("qwen3-0.6b"), num_layers=8, vocab_size=16_384)


def show(rows: Sequence[Row]) -> None:
    """The rows as a table of Markdown."""
    columns = ["model", "dtype", "weights", "layers", "all", "logits", "KL, nats", "same token", "perplexity", "greedy"]
    print(f"| {' | '.join(columns)} |\n|{'---|' * len(columns)}")
    for row in rows:
        cells = [
            *(row.model, row.dtype, row.weights, f"{row.matrix_bytes / 1e6:.1f} MB", f"{row.all_bytes / 1e6:.1f} MB"),
            *(f"{row.logit_error:.2%}", f"{row.divergence:.2g}", f"{row.same_token:.2%}"),
            "" if row.perplexity is None else f"{row.perplexity:.4f}",
            f"{row.common_tokens:.1f} of {row.exact_tokens:.1f}, {row.same_replies:.0%}",
        ]
        print(f"| {' | '.join(cells)} |")


def times(rounds: int) -> list[dict[str, Any]]:
    """The least milliseconds of each step, for each format, in turn."""
    shape = config("qwen3-0.6b")
    formats: list[WeightFormat | None] = [None, "int8", "fp8"]
    models = {each or "bfloat16": random_model(shape, dtype=torch.bfloat16, weights=each) for each in formats}
    found = []
    for name, count in zip(STEPS, (1, 8, 32, 512), strict=True):
        least = dict.fromkeys(models, float("inf"))
        for _ in range(max(2, rounds // count)):
            for each, model in models.items():
                layout = model.layout
                is_prompt = name.startswith("prefill")
                batch = (
                    prefill_batch(layout, count, shape.vocab_size) if is_prompt else decode_batch(layout, count, 0, 128)
                )
                begun = time.perf_counter()
                model.forward(batch)
                least[each] = min(least[each], (time.perf_counter() - begun) * 1e3)
        found.append({"step": name, **least})
        print(name, {each: round(value, 1) for each, value in least.items()}, flush=True)
    return found


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description="what weights of 8 bits cost in accuracy and save in memory")
    parser.add_argument("--quick", action="store_true", help="few texts")
    parser.add_argument(
        "--times", action="store_true", help="also steps of a large model, which depend on the machine's load"
    )
    parser.add_argument("--json", metavar="FILE", help="write the figures here")
    arguments = parser.parse_args()
    about = machine()
    embedded = {kind: load_model(model_dir(), dtype=kind[0], weights=kind[1]) for kind in KINDS}
    rows = measure("embedded", embedded, held_out(32 if arguments.quick else 400), is_noise=False)
    shape = random_shape()
    # Random numbers of another dtype are others, so these are all in one.
    kinds = [kind for kind in KINDS if kind[0] == torch.float32]
    drawn = {kind: random_model(shape, dtype=kind[0], weights=kind[1]) for kind in kinds}
    rows += measure("random", drawn, random_texts(2 if arguments.quick else 16, shape.vocab_size), is_noise=True)
    show(rows)
    steps = times(4 if arguments.quick else 40) if arguments.times else []
    write(arguments.json, [asdict(row) for row in rows] + steps, {}, about)


if __name__ == "__main__":
    main()
