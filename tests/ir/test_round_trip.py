"""I4: the text and the binary form give back the module that they were made of."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from ramify.ir.codec import decode, encode, equal
from ramify.ir.core import Module, clone
from ramify.ir.ops import OPS
from ramify.ir.parser import parse
from ramify.ir.printer import print_module
from ramify.ir.verify import verify

from .strategies import PLAIN, modules

_SETTINGS = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])


@_SETTINGS
@given(modules())
def test_generated_modules_are_valid_and_round_trip(module: Module) -> None:
    verify(module)
    text = print_module(module, spans=True)
    again = parse(text)
    assert equal(again, module)
    assert print_module(again, spans=True) == text
    assert equal(parse(print_module(module)), module, spans=False)
    decoded = decode(encode(module))
    assert equal(decoded, module)
    assert print_module(decoded, spans=True) == text
    assert equal(clone(module), module)
