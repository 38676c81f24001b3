"""Types as JSON schemas: what is drawn under a schema decodes to a value of its type, for every kind of type."""

from __future__ import annotations

import dataclasses
import datetime
import decimal
import enum
import os
import uuid
from typing import Annotated, Any, Generic, Literal, NamedTuple, NotRequired, TypedDict, TypeVar

import msgspec
import pytest
import torch
import transformers
from msgspec import Meta
from ramify.runtime.closing import end_cut
from ramify.runtime.constraint import matches
from ramify.runtime.engine import Engine
from ramify.runtime.models import Model, load_model
from ramify.runtime.request import Done
from ramify.runtime.schema import schema_of

from .fakes import call, finish
from .test_constrained import END, GRAMMARS, TOKENIZER, VOCAB

Small = Annotated[str, Meta(max_length=8)]
Digit = Annotated[int, Meta(ge=0, le=9)]
T = TypeVar("T")


class Color(enum.Enum):
    RED = "red"
    GREEN = 'gr"e\nen'


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2


class Point(msgspec.Struct):
    x: Digit
    y: Annotated[float, Meta(ge=-10, le=10)] = 0.5
    label: Small | None = None


class Cat(msgspec.Struct, tag=True):
    name: Small


class Dog(msgspec.Struct, tag=True):
    barks: bool
    point: Point


class Shape(msgspec.Struct, array_like=True, tag="shape", forbid_unknown_fields=True):
    sides: Digit
    color: Color = Color.RED


class Tree(msgspec.Struct):
    value: Digit
    children: Annotated[list[Tree], Meta(max_length=1)]


class Renamed(msgspec.Struct, rename="camel", kw_only=True):
    first_name: Small
    born_on: datetime.date


class Pair(msgspec.Struct, Generic[T]):
    first: T
    second: T


class Strict(msgspec.Struct):
    low: Digit
    high: Digit

    def __post_init__(self) -> None:
        if self.low > self.high:
            raise ValueError("low is above high")


@dataclasses.dataclass
class Card:
    title: Small
    tags: Annotated[list[Small], Meta(max_length=3)] = dataclasses.field(default_factory=list)


class Options(TypedDict):
    verbose: bool
    depth: NotRequired[Digit]


class Row(NamedTuple):
    number: Digit
    text: Small = "none"


TYPES: list[Any] = [
    Annotated[int, Meta(ge=-5, le=120)],
    Annotated[int, Meta(gt=0, lt=100, multiple_of=7)],
    Annotated[float, Meta(gt=0, lt=1)],
    bool,
    Small,
    Annotated[str, Meta(pattern="^[a-c]{2,4}$")],
    Annotated[str, Meta(min_length=3, max_length=5)],
    None,
    Color,
    Level,
    Literal["a", "b", 1, None],
    Digit | None,
    Digit | Small | None | bool,
    Annotated[list[Digit], Meta(min_length=1, max_length=4)],
    Annotated[set[Digit], Meta(max_length=4)],
    Annotated[frozenset[Small], Meta(max_length=2)],
    Annotated[tuple[Digit, ...], Meta(max_length=3)],
    tuple[Digit, Small, bool],
    Annotated[dict[int, bool], Meta(max_length=2)],
    Annotated[dict[Color, Digit], Meta(min_length=1, max_length=2)],
    Annotated[dict[Literal["a", "b"], Digit], Meta(max_length=2)],
    Annotated[dict[datetime.date, Digit], Meta(max_length=1)],
    Annotated[dict[uuid.UUID, Digit], Meta(max_length=1)],
    Annotated[dict[Annotated[str, Meta(pattern="^k[0-9]$")], Digit], Meta(max_length=2)],
    Annotated[dict[Annotated[str, Meta(min_length=1, max_length=3)], Digit], Meta(max_length=2)],
    Point,
    Cat | Dog,
    Annotated[list[Cat | Dog], Meta(max_length=2)],
    Shape,
    Tree,
    Renamed,
    Pair[Digit],
    Pair[Literal["x", "y"]],
    Card,
    Options,
    Row,
    datetime.datetime,
    Annotated[datetime.datetime, Meta(tz=True)],
    Annotated[datetime.datetime, Meta(tz=False)],
    datetime.date,
    datetime.time,
    Annotated[datetime.time, Meta(tz=True)],
    datetime.timedelta,
    uuid.UUID,
    decimal.Decimal,
    Annotated[bytes, Meta(max_length=7)],
    Annotated[bytes, Meta(min_length=2, max_length=5)],
    Annotated[bytearray, Meta(min_length=4, max_length=4)],
]


class Node(msgspec.Struct):
    name: str
    children: list[Node]


# Types that are as long as a model likes; what max_tokens cuts off is ended in the shortest way.
UNBOUNDED: list[Any] = [
    int,
    float,
    str,
    Any,
    list,
    list[float],
    list[str],
    dict[str, int],
    dict[str, Any],
    set[int],
    tuple[str, ...],
    Node,
    bytes,
    msgspec.Raw,
    list[Cat | Dog],
]
# How many texts are drawn for each type.
DRAWS = int(os.environ.get("RAMIFY_DRAWS", "30"))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    """A decoder of random weights with the vocabulary of the embedded tokenizer."""
    torch.manual_seed(5)
    config = transformers.Qwen3Config(
        vocab_size=VOCAB,
        hidden_size=32,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=16,
        max_position_embeddings=2000,
        initializer_range=0.2,
        tie_word_embeddings=False,
    )
    path = tmp_path_factory.mktemp("random")
    transformers.Qwen3ForCausalLM(config).save_pretrained(path)
    return load_model(path)


def draws(model: Model, type_: Any, max_tokens: int) -> list[Done]:
    """Texts drawn at temperature 1 under the schema of a type."""
    constraint = schema_of(type_).constraint
    engine = Engine(model, TOKENIZER.decode_stream, kv_tokens=60_000, eos_token_ids=(END,), grammars=GRAMMARS)
    calls = [
        call([seed % VOCAB], constraint=constraint, temperature=1.0, seed=seed, max_tokens=max_tokens)
        for seed in range(DRAWS)
    ]
    return finish(engine, *calls)


@pytest.mark.parametrize("type_", TYPES, ids=str)
def test_draws_decode(model: Model, type_: Any) -> None:
    schema = schema_of(type_)
    values = []
    for done in draws(model, type_, max_tokens=800):
        assert done.finish_reason == "stop", done.text
        value = schema.decode(done.text)
        assert schema.decode(msgspec.json.encode(value).decode()) == value, "it survives a round trip"
        values.append(repr(value))
    assert type_ is None or len(set(values)) > 1


@pytest.mark.parametrize("type_", UNBOUNDED, ids=str)
def test_draws_of_types_without_bounds_decode(model: Model, type_: Any) -> None:
    schema = schema_of(type_)
    for done in draws(model, type_, max_tokens=40):
        ended = end_cut(done, schema.constraint, close=True) if done.finish_reason == "length" else done
        assert not ended.is_cut, done.text
        schema.decode(ended.text)


@pytest.mark.parametrize(
    ("type_", "good", "bad"),
    [
        (Point, '{"x":1}', '{"x":1,"z":2}'),
        (Point, '{"x":1,"y":2.5,"label":null}', '{"y":2.5,"x":1}'),
        (Cat | Dog, '{"type":"Cat","name":"a"}', '{"type":"Cow","name":"a"}'),
        (Shape, '["shape",3]', '["shape",3,"red",1]'),
        (Row, "[1]", '[1,"a",2]'),
        (tuple[int, str], '[1,"a"]', "[1]"),
        (Renamed, '{"firstName":"a","bornOn":"2024-02-29"}', '{"firstName":"a","bornOn":"2023-02-29"}'),
        (datetime.date, '"2000-02-29"', '"1900-02-29"'),
        (datetime.date, '"0001-01-01"', '"0000-01-01"'),
        (datetime.date, '"2021-12-31"', '"2021-11-31"'),
        (datetime.datetime, '"2021-12-31T23:59:59.5"', '"2021-12-31T24:00:00"'),
        (Annotated[datetime.datetime, Meta(tz=True)], '"2021-12-31T23:59:59Z"', '"2021-12-31T23:59:59"'),
        (Annotated[datetime.datetime, Meta(tz=False)], '"2021-12-31T23:59:59"', '"2021-12-31T23:59:59Z"'),
        (datetime.timedelta, '"P3DT4H5M6.5S"', '"P"'),
        (Annotated[bytes, Meta(min_length=2, max_length=3)], '"AAE="', '"AA=="'),
        (Options, '{"verbose":true}', '{"depth":1}'),
        (Literal["a", 1, None], "null", "2"),
        (dict[Color, int], '{"red":1}', '{"blue":1}'),
    ],
)
def test_schemas_say_what_the_decoder_takes(type_: Any, good: str, bad: str) -> None:
    schema = schema_of(type_)
    assert matches(schema.constraint, good)
    schema.decode(good)
    assert not matches(schema.constraint, bad)


def test_validation_beyond_the_schema_is_the_types_own() -> None:
    schema = schema_of(Strict)
    assert matches(schema.constraint, '{"low":2,"high":1}')
    with pytest.raises(ValueError, match="low is above high"):
        schema.decode('{"low":2,"high":1}')


class Plain:
    pass


@pytest.mark.parametrize(
    ("type_", "message"),
    [
        (complex, "schema=complex: complex has no form in JSON"),
        (list[Plain], "Plain has no form in JSON"),
        (Point | Card, "may not contain more than one"),
        (dict[tuple[int, int], int], "a JSON schema cannot say this of an object's keys"),
        (dict[Annotated[int, Meta(ge=1)], int], "a JSON schema cannot say this of an object's keys"),
        (5, "schema=5"),
    ],
)
def test_types_without_a_schema(type_: Any, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        schema_of(type_)


def test_names_that_cannot_be_found() -> None:
    class Local(msgspec.Struct):
        other: Nowhere  # type: ignore[name-defined]  # noqa: F821

    with pytest.raises(TypeError, match="schema=Local: name 'Nowhere' is not defined; define the types"):
        schema_of(Local)


def test_a_schema_is_made_once() -> None:
    assert schema_of(Point) is schema_of(Point)
    unhashable = Annotated[Digit, Meta(extra={"a": [1]}), []]
    assert schema_of(unhashable).decode("3") == 3


def test_numbers_too_large_for_a_float() -> None:
    assert schema_of(list[float]).decode("[1e999,-1e999,1.5]") == [float("inf"), -float("inf"), 1.5]
    when = schema_of(tuple[float, datetime.date, dict[int, bytes]]).decode('[1e999,"2020-01-02",{"3":"AAE="}]')
    assert when == (float("inf"), datetime.date(2020, 1, 2), {3: b"\0\1"})
    with pytest.raises(ValueError, match="Expected"):
        schema_of(tuple[float, bool]).decode("[1e999,5]")
