"""benchmarks/engine.py's worker for OpenVINO GenAI: `python engine_openvino.py CHECKPOINT`, with OpenVINO's Python.

The checkpoint is exported, beside it, on the first use. Computes and keeps KV in bfloat16, as the others do (by default
OpenVINO keeps KV in 8 bits). Requests that arrive together compute what they share once for each; so where they share
anything the first one's prompt is computed before, which a caller who knows of it can do too.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import openvino
import openvino_genai
from engine_case import serve, shared_len

# GiB of KV.
CACHE_SIZE = 2
# Of a prompt in a step; the default of 256 splits long prompts into many.
CHUNK_TOKENS = 2048


def main() -> None:
    """Serve."""
    pipeline = openvino_genai.ContinuousBatchingPipeline(
        exported(Path(sys.argv[1])), _scheduling(), "CPU", _properties()
    )
    vocab_size = json.loads(Path(sys.argv[1], "config.json").read_text())["vocab_size"]
    num_forgotten = 0

    def forget() -> None:
        nonlocal num_forgotten
        num_forgotten += 1

    def generate(inputs: list[list[int]], new: int) -> None:
        # The pipeline cannot be told to forget, so that it gets other tokens each time: shifted ones.
        shifted = [(np.array([tokens]) + num_forgotten) % vocab_size for tokens in inputs]
        tensors = [openvino.Tensor(tokens) for tokens in shifted]
        if shared_len(inputs):
            pipeline.generate(tensors[:1], [_greedy(1)])
        outputs = pipeline.generate(tensors, [_greedy(new)] * len(inputs))
        assert all(len(output.m_generation_ids[0]) == new for output in outputs)

    serve(sys.argv[1], forget, generate)


def exported(checkpoint: Path) -> Path:
    """The checkpoint in OpenVINO's format."""
    target = checkpoint.with_name(f"{checkpoint.name}-openvino")
    if not target.exists():
        partial = checkpoint.with_name(f"{target.name}.partial")
        command = [Path(sys.executable).with_name("optimum-cli"), "export", "openvino", "-m", checkpoint, partial]
        options = ["--task", "text-generation-with-past", "--weight-format", "fp16", "--disable-convert-tokenizer"]
        subprocess.run([*command, *options], check=True, stdout=sys.stderr)
        partial.rename(target)
    return target


def _scheduling() -> openvino_genai.SchedulerConfig:
    config = openvino_genai.SchedulerConfig()
    config.enable_prefix_caching = True
    config.cache_size = CACHE_SIZE
    config.max_num_batched_tokens = CHUNK_TOKENS
    return config


def _properties() -> dict[str, object]:
    return {
        "INFERENCE_NUM_THREADS": os.cpu_count() or 1,
        "INFERENCE_PRECISION_HINT": "bf16",
        "KV_CACHE_PRECISION": "bf16",
    }


def _greedy(new: int) -> openvino_genai.GenerationConfig:
    config = openvino_genai.GenerationConfig()
    config.max_new_tokens = config.min_new_tokens = new
    config.ignore_eos = True
    return config


if __name__ == "__main__":
    main()
