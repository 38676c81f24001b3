"""A pretended device that computes on the CPU, but is as strict as a GPU, to find what would fail there.

Tensors on it refuse to meet those of the CPU in one operation, and each time the host waits for one of them is noted.
Needs a process of its own, since a backend's name cannot be taken back.
"""

from __future__ import annotations

import traceback
from collections import Counter
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

NAME = "strict"
# An environment may lie in the checkout too.
_PACKAGES = ("ir", "compiler", "runtime", "backends", "lang")
_aten = torch.ops.aten
# Which may take tensors of both: copies, and places of the host's among a device's numbers, which are copied first.
_COPIES = {_aten.copy_.default, _aten._to_copy.default, _aten._foreach_copy_.default}
_INDEXING = {_aten.index.Tensor, _aten.index_put_.default, _aten._index_put_impl_.default, _aten.index_put.default}
_WAITS = {_aten._local_scalar_dense.default, _aten.nonzero.default, _aten.equal.default, _aten.masked_select.default}


class _OnDevice(torch.Tensor):
    """Numbers of the CPU that say they are elsewhere."""

    inner: Tensor

    @staticmethod
    def __new__(cls, inner: Tensor) -> _OnDevice:
        made: Any = torch.Tensor._make_wrapper_subclass(
            cls, inner.size(), strides=inner.stride(), storage_offset=inner.storage_offset(), dtype=inner.dtype,
            device=torch.device(NAME, 0),
        )  # fmt: skip
        made.inner = inner
        return made

    def tolist(self) -> Any:
        """torch's own does not take subclasses."""
        return self.to("cpu").tolist()

    __torch_function__ = torch._C._disabled_torch_function_impl

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        raise AssertionError(f"{func} outside of Strict")


class _Lists(TorchFunctionMode):
    """Makes tensors of lists on the CPU first, as torch does out of the sight of a dispatch mode."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if func is torch.tensor and torch.device(kwargs.get("device") or "cpu").type == NAME:
            device = kwargs.pop("device")
            return torch.tensor(*args, **kwargs).to(device)
        if func in (Tensor.__getitem__, Tensor.__setitem__) and isinstance(args[0], _OnDevice):
            places = args[1] if isinstance(args[1], tuple) else (args[1],)
            places = tuple(torch.tensor(place) if isinstance(place, list) else place for place in places)
            args = (args[0], places, *args[2:])
        return func(*args, **kwargs)


class Strict(TorchDispatchMode):
    """While it is entered, the device exists. waits: where the host waited for it, as "file:line", and how
    often; uploads: where it copied to it, which waits for all that was launched before unless said otherwise."""

    def __init__(self) -> None:
        super().__init__()
        self._lists = _Lists()
        self.waits: Counter[str] = Counter()
        self.uploads: Counter[str] = Counter()

    def __enter__(self) -> Strict:
        self._lists.__enter__()
        super().__enter__()
        return self

    def __exit__(self, *exception: Any) -> None:
        super().__exit__(*exception)
        self._lists.__exit__(*exception)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        tensors = [value for value in tree_flatten((args, kwargs))[0] if isinstance(value, Tensor)]
        here = [tensor for tensor in tensors if isinstance(tensor, _OnDevice)]
        if here and func not in _COPIES:
            self._check(func, tensors)
        target = kwargs.get("device")
        goes_away = target is not None and torch.device(target).type == "cpu"
        if here and (goes_away or func in _WAITS):
            self.waits[_caller()] += 1
        if func in (_aten.copy_.default,) and here and not isinstance(args[0], _OnDevice):
            self.waits[_caller()] += 1
        is_result_here = (bool(here) and not goes_away) or (target is not None and torch.device(target).type == NAME)
        if func is _aten._to_copy.default and is_result_here and not here and not kwargs.get("non_blocking"):
            self.uploads[_caller()] += 1
        if target is not None:
            kwargs["device"] = torch.device("cpu")
        inner_args, inner_kwargs = tree_map(_inner, (args, kwargs))
        result = func(*inner_args, **inner_kwargs)
        if func is _aten._local_scalar_dense.default or not is_result_here:
            return result
        written = {id(tensor.inner): tensor for tensor in here}
        return tree_map(lambda value: written[id(value)] if id(value) in written else _wrapped(value), result)

    def _check(self, func: Any, tensors: list[Tensor]) -> None:
        strangers = [tensor for tensor in tensors if not isinstance(tensor, _OnDevice) and tensor.dim() > 0]
        if func in _INDEXING:
            self.uploads[_caller()] += len(strangers)
            strangers = [tensor for tensor in strangers if tensor.dtype not in (torch.int64, torch.bool)]
        assert not strangers, f"{func} at {_caller()} meets tensors of the CPU and of the device"


def _inner(value: Any) -> Any:
    return value.inner if isinstance(value, _OnDevice) else value


def _wrapped(value: Any) -> Any:
    return _OnDevice(value) if isinstance(value, Tensor) else value


def _caller() -> str:
    """The innermost line of ramify's."""
    import ramify

    root = Path(ramify.__file__).parent
    for frame in reversed(traceback.extract_stack()):
        path = Path(frame.filename)
        if path.is_relative_to(root) and path.relative_to(root).parts[0] in _PACKAGES:
            return f"{path.relative_to(root)}:{frame.lineno}"
    return "elsewhere"


def make_device() -> torch.device:
    """Once a process."""
    _setup_privateuseone_for_python_backend(NAME)
    return torch.device(NAME, 0)
