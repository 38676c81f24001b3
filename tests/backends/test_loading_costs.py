"""What opening a model costs, seen from outside: memory, imports, and processors with fewer instructions."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

MEGABYTE = 1 << 20
HIDDEN, INNER, LAYERS = 1024, 4096, 6

PEAK = """
import sys
from pathlib import Path
import torch
from ramify.runtime.models import load_model

def most():
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) * 1024

before = most()
model = load_model(Path(sys.argv[1]))
print(most() - before)
"""


def checkpoint(path: Path, dtype: torch.dtype) -> int:
    """A Llama of random weights; returns its size in bytes."""
    config = {
        "architectures": ["LlamaForCausalLM"],
        "vocab_size": 1024,
        "hidden_size": HIDDEN,
        "intermediate_size": INNER,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": 8,
        "max_position_embeddings": 256,
        "tie_word_embeddings": True,
    }
    (path / "config.json").write_text(json.dumps(config))
    shapes = {"model.embed_tokens.weight": (1024, HIDDEN), "model.norm.weight": (HIDDEN,)}
    for layer in range(LAYERS):
        before = f"model.layers.{layer}."
        shapes |= {f"{before}self_attn.{name}_proj.weight": (HIDDEN, HIDDEN) for name in "qkvo"}
        shapes |= {f"{before}mlp.{name}_proj.weight": (INNER, HIDDEN) for name in ("gate", "up")}
        shapes |= {f"{before}{name}_layernorm.weight": (HIDDEN,) for name in ("input", "post_attention")}
        shapes[f"{before}mlp.down_proj.weight"] = (HIDDEN, INNER)
    save_file({name: torch.rand(shape).to(dtype) for name, shape in shapes.items()}, path / "model.safetensors")
    return (path / "model.safetensors").stat().st_size


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads /proc")
def test_loading_takes_little_more_than_the_model(tmp_path: Path) -> None:
    size = checkpoint(tmp_path, torch.bfloat16)
    assert size > 150 * MEGABYTE
    command = [sys.executable, "-c", PEAK, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    # Beside the model: the largest layer's matrices in two orders, and what the libraries take.
    assert int(done.stdout) < 1.4 * size + 40 * MEGABYTE


def test_the_package_is_imported_without_torch() -> None:
    code = """
import sys, ramify as rf

@rf.program
def ask(s, question):
    s += rf.user(question) + rf.assistant(rf.gen("answer"))

heavy = {"torch", "transformers", "tokenizers", "llguidance", "openai", "prompt_toolkit"} & sys.modules.keys()
print(sorted(heavy))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[]"


ASK = """
import sys
import torch
import ramify as rf
from ramify.backends.local import LocalBackend
from ramify.backends.tiny import model_dir

backend = LocalBackend(model_dir(), dtype=getattr(torch, sys.argv[1]), device="cpu", check=True)

@rf.program(backend=backend)
def ask(s, question):
    s += rf.user(question) + rf.assistant(rf.gen("answer", max_tokens=8))
    return s["answer"]

runs = ask.run_batch([{"question": f"What is {n} + 4?"} for n in range(6)])
print(torch.backends.cpu.get_cpu_capability(), *(run.value for run in runs))
"""
OLD = {"ATEN_CPU_CAPABILITY": "default", "ONEDNN_MAX_CPU_ISA": "AVX2", "RAMIFY_NATIVE": "0"}


def answers(dtype: str, **environment: str) -> list[str]:
    command = [sys.executable, "-c", ASK, dtype]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=120, env={**os.environ, **environment}, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_processor_without_avx512_serves_too(dtype: str) -> None:
    capability, *said = answers(dtype, **OLD)
    assert capability == "DEFAULT" and len(said) >= 6
    assert said == answers(dtype)[1:]
