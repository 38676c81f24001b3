"""benchmarks/engine.py's worker for transformers: `python engine_transformers.py CHECKPOINT`."""

from __future__ import annotations

import sys

import torch
from engine_case import serve
from transformers import AutoModelForCausalLM


def main() -> None:
    """Serve."""
    model = AutoModelForCausalLM.from_pretrained(sys.argv[1], dtype="auto").eval()
    model.generation_config.eos_token_id = None
    model.generation_config.pad_token_id = 0

    def generate(inputs: list[list[int]], new: int) -> None:
        tokens = torch.tensor(inputs)
        with torch.inference_mode():
            result = model.generate(tokens, max_new_tokens=new, min_new_tokens=new, do_sample=False)
        assert result.shape == (len(inputs), tokens.shape[1] + new)

    serve(sys.argv[1], lambda: None, generate)


if __name__ == "__main__":
    main()
