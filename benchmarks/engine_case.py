"""What the workers of benchmarks/engine.py share: the prompts of a case, what is shared, and the loop that answers."""

from __future__ import annotations

import json
import random
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

Generate = Callable[[list[list[int]], int], None]


def prompts(case: dict[str, Any], vocab_size: int) -> list[list[int]]:
    """Random token ids, the same for every engine; special tokens, which come first, are left out."""
    draw = random.Random(f"{case['seed']} {case['batch']} {case['own']}")
    shared = [draw.randrange(16, vocab_size) for _ in range(case["shared"])]
    return [shared + [draw.randrange(16, vocab_size) for _ in range(case["own"])] for _ in range(case["batch"])]


def shared_len(inputs: list[list[int]]) -> int:
    """How many tokens all of several prompts begin with, without their last ones; 0 for a single prompt."""
    if len(inputs) < 2:
        return 0
    places = range(min(map(len, inputs)) - 1)
    return next((place for place in places if len({tokens[place] for tokens in inputs}) > 1), len(places))


def serve(checkpoint: str, forget: Callable[[], None], generate: Generate) -> None:
    """Answer cases until stdin ends. forget: empties all caches. generate: makes `new` tokens for each prompt."""
    vocab_size = json.loads(Path(checkpoint, "config.json").read_text())["vocab_size"]
    print(json.dumps({"ready": True}), flush=True)
    for line in sys.stdin:
        case = json.loads(line)
        inputs = prompts(case, vocab_size)
        forget()
        begun = time.perf_counter()
        generate(inputs, case["new"])
        print(json.dumps({"seconds": time.perf_counter() - begun}), flush=True)
