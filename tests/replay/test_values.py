"""Values go into a file and come back as what they were."""

from __future__ import annotations

import dataclasses
import datetime
import decimal
import enum
import math
import uuid
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from ramify.backends.replay.values import Unencodable, Unknown, decode, described, encode
from ramify.ir.errors import OutputError, RecordedError, ServerError
from ramify.runtime.toolcall import ToolError


class Color(enum.Enum):
    RED = "red"


@dataclasses.dataclass(frozen=True)
class Point:
    x: float
    y: Any = None


class Person(msgspec.Struct, frozen=True):
    name: str
    color: Color = Color.RED


class Pair(NamedTuple):
    first: int
    second: str


class Picky(ValueError):
    def __init__(self, *, reason: str, code: int) -> None:
        super().__init__(f"{reason} ({code})")
        self.code = code


def back(value: Any) -> Any:
    """The value after a way through the bytes of a file."""
    return decode(msgspec.msgpack.decode(msgspec.msgpack.encode(encode(value))))


plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(st.characters()) | st.binary(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(st.text(max_size=3) | st.integers(), inner, max_size=3)
    ),
    max_leaves=12,
)


@given(plain)
def test_builtin_values_come_back(value: Any) -> None:
    found = back(value)
    assert found == value and repr(found) == repr(value)


@pytest.mark.parametrize(
    "value",
    [
        Color.RED,
        Point(1.5, [Point(2, {"a": (1, 2)})]),
        Person("Ann"),
        Pair(1, "b"),
        {1, 2},
        frozenset(["a"]),
        range(1, 9, 2),
        2**80,
        {"$": 1},
        {(1, 2): "pair"},
        "lone \ud800 surrogate",
        -math.inf,
        datetime.datetime(2026, 1, 2, 3, tzinfo=datetime.UTC),
        datetime.date(2026, 1, 2),
        datetime.timedelta(days=-1, microseconds=3),
        decimal.Decimal("1.10"),
        uuid.UUID(int=7),
        Path("a/b"),
        1 + 2j,
    ],
    ids=lambda value: type(value).__name__,
)
def test_values_come_back_with_their_types(value: Any) -> None:
    found = back(value)
    assert type(found) is type(value) and found == value


def test_errors_come_back_as_what_handlers_catch() -> None:
    for error in (KeyError("sofa"), ValueError("a", 1), ZeroDivisionError(), OSError(2, "gone", "file")):
        found = back(error)
        assert type(found) is type(error) and found.args == error.args and str(found) == str(error)
    found = back(Picky(reason="no", code=3))
    assert type(found) is Picky and str(found) == "no (3)" and found.code == 3
    found = back(ServerError("busy", status=429, help="wait"))
    assert (found.message, found.status, found.help) == ("busy", 429, "wait")
    assert back(OutputError("no int", text="x")).text == "x"
    found = back(ToolError("price", "KeyError", "'sofa'", cause=KeyError("sofa")))
    assert (found.tool, found.type, found.reason) == ("price", "KeyError", "'sofa'")
    assert isinstance(found.cause, KeyError)


def test_an_error_of_an_unknown_class_says_what_it_was() -> None:
    class Local(Exception):
        pass

    found = back(Local("hidden"))
    assert isinstance(found, RecordedError) and str(found) == f"{Local.__qualname__}: hidden"


def test_what_cannot_be_written_is_named() -> None:
    @dataclasses.dataclass
    class Local:
        x: int

    endless: list[Any] = []
    endless.append(endless)
    for value, words in (
        (object(), "a object"),
        ([lambda: 0], "a function"),
        (Local(1), "no module names"),
        (endless, "holds itself"),
    ):
        with pytest.raises(Unencodable, match=words):
            encode(value)


def test_a_class_is_one_that_the_process_knows() -> None:
    data = encode(Point(1.0)) | {"class": "os:system"}
    with pytest.raises(Unknown, match=r"os\.system is no data any more|os.system is not known"):
        decode(data)
    with pytest.raises(Unknown, match="not known here"):
        decode(data | {"class": "no.such.module:Point"})
    with pytest.raises(Unknown, match="no data"):
        decode(data | {"class": "builtins:object"})


def test_anything_can_be_described() -> None:
    class Odd:
        def __repr__(self) -> str:
            raise RuntimeError

    assert described([object(), 1]) == described([object(), 1]) != described([object(), 2])
    assert described({"a": Odd()}) == described({"a": Odd()})
    assert described((object(),)) != described([object()])
