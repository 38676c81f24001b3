"""The formats that weights can be rounded to on request: "int8" and "fp8", see models/quantized.py."""

from __future__ import annotations

from typing import Any, Literal, TypeAlias, get_args

from ..ir.errors import UsageError

WeightFormat: TypeAlias = Literal["int8", "fp8"]
FORMATS: tuple[WeightFormat, ...] = get_args(WeightFormat)


def check_format(weights: Any) -> None:
    """Raises UsageError unless it is None or the name of a format."""
    if weights is not None and weights not in FORMATS:
        raise UsageError(f"{weights!r} is no format of weights", help=f"the formats are {', '.join(FORMATS)}")
