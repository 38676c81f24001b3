"""Our attention under the name by which transformers' models ask for one.

`transformers.AttentionInterface` maps names to functions that get the query, key and value heads of a layer, rotated
and normed as the model does it, and its own wishes: how scores are scaled and capped. Ours puts keys and values where
the batch says and attends to the tree. It cannot be given the batch as an argument, so the step that runs is kept for
the thread that runs it. Masks are not asked for: what a layer sees was learned before (probe.py), and plans know it.

A few models call torch's attention themselves (DIRECT); there the call is intercepted.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from itertools import count
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode
from transformers import AttentionInterface, AttentionMaskInterface

# "probe" has masks made too, which tell what a layer sees.
NAME, PROBE = "ramify", "ramify_probe"
DIRECT = {"FalconForCausalLM"}
# What says nothing about attention, or what holds anyway.
_NO_MATTER = {"position_ids", "cache_position", "is_causal", "use_cache", "output_attentions", "return_dict"}


@dataclass(frozen=True, slots=True)
class Call:
    """One layer's wish. query (1, num_heads, n, d), key (1, num_kv_heads, n, d), value (1, num_kv_heads, n, e).

    layer: its number, where it has one; who: the class that asks. mask: what the model made of our mask; only a probe
    has one. others: arguments that are not known here, by name.
    """

    layer: int | None
    who: str
    query: Tensor
    key: Tensor
    value: Tensor
    mask: Tensor | None
    scaling: float | None
    cap: float | None
    window: int | None
    others: dict[str, Any]


_running = threading.local()


@contextmanager
def attending(attend: Callable[[Call], Tensor], architecture: str) -> Iterator[None]:
    """While it runs, attention in this thread is `attend`, which gives (1, n, num_heads, e)."""
    assert getattr(_running, "attend", None) is None, "a model runs inside another one"
    _running.attend = attend
    try:
        with _Intercepted(attend) if architecture in DIRECT else nullcontext():
            yield
    finally:
        _running.attend = None


def _attention(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None = None,
    scaling: float | None = None,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    softcap: float | None = None,
    **others: Any,
) -> tuple[Tensor, None]:
    """The function of the interface."""
    told = {name: value for name, value in others.items() if name not in _NO_MATTER and not _is_nothing(value)}
    if dropout:
        told["dropout"] = dropout
    layer = getattr(module, "layer_idx", None)
    call = Call(layer, type(module).__name__, query, key, value, attention_mask, scaling, softcap, sliding_window, told)
    return _running.attend(call), None


def _is_nothing(value: object) -> bool:
    return value is None or value is False


class _Intercepted(TorchFunctionMode):
    """Calls of torch's attention are those of one layer after the other."""

    def __init__(self, attend: Callable[[Call], Tensor]) -> None:
        super().__init__()
        self._attend = attend
        self._layers = count()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is not functional.scaled_dot_product_attention:
            return func(*args, **(kwargs or {}))
        return self._attended(*args, **(kwargs or {}))

    def _attended(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attn_mask: Tensor | None = None,
        dropout_p: float = 0.0,
        is_causal: bool = False,
        scale: float | None = None,
    ) -> Tensor:
        told = {"dropout": dropout_p} if dropout_p else {}
        layer = next(self._layers)
        call = Call(layer, "scaled_dot_product_attention", query, key, value, attn_mask, scale, None, None, told)
        return self._attend(call).transpose(1, 2)


def implementation(architecture: str, *, probes: bool = False) -> str:
    """What an architecture's configuration calls our attention."""
    if architecture in DIRECT:
        return "sdpa"
    return PROBE if probes else NAME


class ProbeMask(Tensor):
    """A mask without numbers, that knows what it would say; what is computed from it is an ordinary tensor.

    says: `mask_function` of transformers, from the index of a query and that of a key to whether it is seen.
    """

    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]
    says: Callable[..., Tensor]


def probe_mask(says: Callable[..., Tensor], size: int) -> ProbeMask:
    """A mask (1, 1, size, size) for a probe."""
    mask = torch.empty((1, 1, size, size), dtype=torch.bool, device="meta").as_subclass(ProbeMask)
    mask.says = says
    return mask


def _mask(*, q_length: int, mask_function: Callable[..., Tensor], **_: Any) -> Tensor:
    return probe_mask(mask_function, q_length)


AttentionInterface.register(NAME, _attention)
AttentionInterface.register(PROBE, _attention)
AttentionMaskInterface.register(PROBE, _mask)
