"""transformers as the peer of benchmarks/gpu.py: the same shapes and tokens, bfloat16, sdpa, a static cache."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .clock import Clock
from .gpu_shapes import CONFIGS

_DECODED = 64


class Peer:
    """A transformers model of random weights on a device. compiled: as its documentation has it for static caches."""

    def __init__(self, shape: str, device: torch.device, *, compiled: bool) -> None:
        import transformers

        described = {name: value for name, value in CONFIGS[shape].items() if name != "architectures"}
        config = transformers.AutoConfig.for_model(**described)
        self._device = device
        self._vocab_size = config.vocab_size
        with torch.device(device):
            self._model = transformers.AutoModelForCausalLM.from_config(
                config, dtype=torch.bfloat16, attn_implementation="sdpa"
            ).eval()
        # Of decode steps alone: prompts of every length would be compiled anew.
        self._step = torch.compile(self._model.forward, mode="reduce-overhead", fullgraph=True) if compiled else None

    @torch.no_grad()
    def decode(self, clock: Clock, branches: int, context: int) -> float:
        """Median seconds of a decode step of so many sequences after prompts of `context` tokens each."""
        from transformers import StaticCache

        cache = StaticCache(config=self._model.config, max_cache_len=context + _DECODED)
        self._forward(self._model, self._tokens(branches, context), cache, 0)
        last, place = self._tokens(branches, 1), context

        def step() -> None:
            nonlocal place
            self._forward(self._step or self._model, last, cache, place)
            place += 1

        for _ in range(8):  # of which compiling and recording take the first
            step()
        times = sorted(clock.once(step) for _ in range(_DECODED - 8))
        return times[len(times) // 2]

    @torch.no_grad()
    def prefill(self, clock: Clock, num_tokens: int) -> float:
        """Median seconds of a prompt of so many tokens, with the logits of its last one."""
        tokens = self._tokens(1, num_tokens)
        return clock.median(lambda: self._model(tokens, use_cache=True, logits_to_keep=1), warm_ups=1)

    def _forward(self, model: Any, tokens: Tensor, cache: Any, start: int) -> None:
        positions = torch.arange(start, start + tokens.shape[1], device=self._device)[None]
        model(tokens, past_key_values=cache, position_ids=positions, use_cache=True, logits_to_keep=1)

    def _tokens(self, branches: int, count: int) -> Tensor:
        """The same as those of the batches that ramify gets, where there is one sequence of them."""
        drawn = torch.randint(16, self._vocab_size, (branches, count), generator=torch.Generator().manual_seed(0))
        return drawn.to(self._device)
