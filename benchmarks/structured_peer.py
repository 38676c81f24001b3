"""The peers' half of benchmarks.structured; runs in their environment, without ramify.

`python structured_peer.py LIBRARY CHECKPOINT TASK.json THREADS` prints a line of JSON: the time and the CPU time per
output token of a sequence, the tokens, and how many answers are JSON. `transformers` generates free text, greedily and
with a cache, of the prompt too; outlines and guidance generate JSON of the schema. guidance has no batches, so it
takes one prompt after another. Compiling the schema is not timed: one generation goes before.
"""

from __future__ import annotations

import json
import logging
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

warnings.simplefilter("ignore")
logging.disable(logging.WARNING)
_MOST = 600
_FREE = 150


def main() -> None:
    """Time one library on one batch."""
    library, checkpoint, path, threads = sys.argv[1:]
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    torch.set_num_threads(int(threads))
    task = json.loads(Path(path).read_text())
    tokenizer = AutoTokenizer.from_pretrained(checkpoint, padding_side="left")
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.convert_ids_to_tokens(0)
    model = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32).eval()
    generate = {"transformers": _free, "outlines": _outlines, "guidance": _guidance}[library](model, tokenizer, task)
    generate(task["prompts"][:1])
    begun, busy = time.perf_counter(), time.process_time()
    texts = generate(task["prompts"])
    seconds, busy = time.perf_counter() - begun, time.process_time() - busy
    tokens = sum(len(tokenizer.encode(text, add_special_tokens=False)) for text in texts)
    rows = 1 if library == "guidance" else len(texts)
    per_token = 1e3 * rows / tokens
    told = {"token_ms": seconds * per_token, "cpu_ms": busy * per_token, "tokens": tokens}
    print(json.dumps(told | {"valid": sum(map(_is_json, texts))}))


def _free(model: Any, tokenizer: Any, task: dict[str, Any]) -> Callable[[list[str]], list[str]]:
    def generate(prompts: list[str]) -> list[str]:
        given = tokenizer(prompts, return_tensors="pt", padding=True)
        made = model.generate(
            given["input_ids"],
            attention_mask=given["attention_mask"],
            max_new_tokens=_FREE,
            min_new_tokens=_FREE,
            do_sample=False,
            pad_token_id=tokenizer.pad_token_id,
        )
        new = made[:, given["input_ids"].shape[1] :]
        return [tokenizer.decode(row) for row in new]

    return generate


def _outlines(model: Any, tokenizer: Any, task: dict[str, Any]) -> Callable[[list[str]], list[str]]:
    import outlines

    wrapped = outlines.from_transformers(model, tokenizer)
    generator = outlines.Generator(wrapped, outlines.json_schema(task["schema"]))

    def generate(prompts: list[str]) -> list[str]:
        if len(prompts) == 1:
            return [generator(prompts[0], max_new_tokens=_MOST, do_sample=False)]
        return list(generator.batch(prompts, max_new_tokens=_MOST, do_sample=False))

    return generate


def _guidance(model: Any, tokenizer: Any, task: dict[str, Any]) -> Callable[[list[str]], list[str]]:
    import guidance

    wrapped = guidance.models.Transformers(model, tokenizer, echo=False)

    def generate(prompts: list[str]) -> list[str]:
        made = [
            wrapped + prompt + guidance.json("made", schema=task["schema"], max_tokens=_MOST, whitespace_flexible=False)
            for prompt in prompts
        ]
        return [each["made"] for each in made]

    return generate


def _is_json(text: str) -> bool:
    try:
        return isinstance(json.loads(text), dict)
    except ValueError:
        return False


if __name__ == "__main__":
    main()
