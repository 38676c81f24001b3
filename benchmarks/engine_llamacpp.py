"""benchmarks/engine.py's worker for llama.cpp: `python engine_llamacpp.py CHECKPOINT`, with a Python that has
llama-cpp-python (built here, so that it uses the processor's instructions) and gguf.

llama.cpp shares prefixes where its caller says so: what all prompts begin with is computed once, and given to all.
"""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Iterable
from pathlib import Path

import llama_cpp
import numpy as np
from engine_case import serve, shared_len
from gguf_file import written

MAX_SEQUENCES = 32
# Tokens of KV altogether, of a call, and of a step in it.
KV_TOKENS, CALL_TOKENS, STEP_TOKENS = 8192, 8192, 512


class Engine:
    """Greedy generation for a few prompts at a time, a sequence each."""

    def __init__(self, path: Path) -> None:
        llama_cpp.llama_log_set(_QUIET, None)
        llama_cpp.llama_backend_init()
        self._model = llama_cpp.llama_model_load_from_file(str(path).encode(), llama_cpp.llama_model_default_params())
        self._context = llama_cpp.llama_init_from_model(self._model, _settings())
        if not self._context:
            raise RuntimeError(f"{path} cannot be loaded")
        self._memory = llama_cpp.llama_get_memory(self._context)
        self._vocab_size = llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(self._model))
        self._batch = llama_cpp.llama_batch_init(CALL_TOKENS, 0, 1)

    def forget(self) -> None:
        """Empty the cache."""
        llama_cpp.llama_memory_clear(self._memory, False)

    def generate(self, inputs: list[list[int]], new: int) -> list[list[int]]:
        """`new` tokens for each prompt."""
        shared = shared_len(inputs)
        if shared:
            self._run((token, place, 0, False) for place, token in enumerate(inputs[0][:shared]))
            for sequence in range(1, len(inputs)):
                llama_cpp.llama_memory_seq_cp(self._memory, 0, sequence, 0, shared)
        last = self._run(
            (tokens[place], place, sequence, place == len(tokens) - 1)
            for sequence, tokens in enumerate(inputs)
            for place in range(shared, len(tokens))
        )
        outputs = [[token] for token in last]
        for step in range(new - 1):
            rows = enumerate(zip(last, inputs, strict=True))
            last = self._run((token, len(tokens) + step, sequence, True) for sequence, (token, tokens) in rows)
            for output, token in zip(outputs, last, strict=True):
                output.append(token)
        return outputs

    def _run(self, rows: Iterable[tuple[int, int, int, bool]]) -> list[int]:
        """Compute tokens at places of sequences; gives the likeliest next token for those of which it is wanted."""
        batch, wanted = self._batch, []
        batch.n_tokens = 0
        for index, (token, place, sequence, is_wanted) in enumerate(rows):
            batch.token[index], batch.pos[index], batch.logits[index] = token, place, is_wanted
            batch.n_seq_id[index], batch.seq_id[index][0] = 1, sequence
            batch.n_tokens = index + 1
            if is_wanted:
                wanted.append(index)
        status = llama_cpp.llama_decode(self._context, batch)
        if status != 0:
            raise RuntimeError(f"llama_decode gives {status}")
        return [self._likeliest(index) for index in wanted]

    def _likeliest(self, index: int) -> int:
        logits = llama_cpp.llama_get_logits_ith(self._context, index)
        return int(np.ctypeslib.as_array(logits, shape=(self._vocab_size,)).argmax())


@llama_cpp.llama_log_callback
def _QUIET(level: int, text: bytes, data: ctypes.c_void_p) -> None:
    """Says nothing of what llama.cpp logs."""


def _settings() -> llama_cpp.llama_context_params:
    settings = llama_cpp.llama_context_default_params()
    settings.n_ctx, settings.n_batch, settings.n_ubatch = KV_TOKENS, CALL_TOKENS, STEP_TOKENS
    settings.n_seq_max = MAX_SEQUENCES
    settings.n_threads = settings.n_threads_batch = os.cpu_count() or 1
    settings.kv_unified = True  # so that sequences can share
    return settings


def main() -> None:
    """Serve."""
    engine = Engine(written(Path(sys.argv[1])))

    def generate(inputs: list[list[int]], new: int) -> None:
        assert all(len(output) == new for output in engine.generate(inputs, new))

    serve(sys.argv[1], engine.forget, generate)


if __name__ == "__main__":
    main()
