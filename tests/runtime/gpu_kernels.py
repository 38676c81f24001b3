"""Where kernels run in the tests: on a GPU if there is one, else in Triton's interpreter (see tests/conftest.py)."""

from __future__ import annotations

import pytest
import torch

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


def need_triton() -> None:
    """Skips the module that calls it where kernels cannot run."""
    pytest.importorskip("triton", reason="triton is not installed (ramify's extra `dev` has it)")
    from ramify.runtime.kernels.attention import merge_parts
    from ramify.runtime.kernels.shapes import HeadShape

    parts, sums, begins = torch.zeros(2, 1, 16), torch.zeros(2, 1), torch.tensor([0, 2])
    try:
        merge_parts(*(each.to(DEVICE) for each in (parts, sums, begins, torch.empty(1, 16))), HeadShape(1, 1, 16))
    except Exception as error:
        # Some of triton's versions have an interpreter that is too old for some of numpy's.
        pytest.skip(f"triton cannot run kernels here: {error}", allow_module_level=True)
