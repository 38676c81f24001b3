"""JSON schemas as constraints: real ones with their instances, keywords against a reference, refusals with paths."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Iterator
from itertools import combinations, permutations, product
from pathlib import Path
from typing import Any

import pytest
import torch
from ramify.ir.errors import BackendError, RequestError
from ramify.runtime.constraint import json_schema_constraint, matches
from ramify.runtime.grammar import problem_of
from ramify.runtime.lengths import MAX_DIGITS
from ramify.runtime.matcher import Grammars
from ramify.runtime.schema_keywords import ENFORCED, FORMATS, REFUSED, REWORDED, keyword_table, misspelled
from ramify.runtime.schema_lowering import MAX_ITEMS, MAX_TEXT, bounded, lowered

from .json_validator import find, valid
from .test_matcher import TOKENIZER, accepts

GRAMMARS = Grammars(TOKENIZER, TOKENIZER.vocab_size)


def compact(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


def parts_at_once(schema: Any, root: Any, depth: int = 0) -> Iterator[dict[str, Any]]:
    """The schemas that may speak of the same value as a schema: what it refers to, and what it combines."""
    if isinstance(schema, dict) and depth < 12:
        yield schema
        inner = [find(root, schema["$ref"])] if "$ref" in schema else []
        for part in inner + [part for keyword in ("allOf", "anyOf", "oneOf") for part in schema.get(keyword, ())]:
            yield from parts_at_once(part, root, depth + 1)


def ordered(value: Any, schema: Any, root: Any, choice: int) -> Any:
    """An instance with properties in the schema's order, whatever order it has. choice: among alternatives."""
    parts = list(parts_at_once(schema, root))
    if isinstance(value, list):
        items = [part["items"] for part in parts if isinstance(part.get("items"), dict)]
        return [ordered(each, {"anyOf": items}, root, choice) for each in value]
    if not isinstance(value, dict):
        return value
    known = [[*part.get("properties", ()), *part.get("required", ())] for part in parts]
    alike = sorted(known, key=lambda names: -len(set(names) & value.keys()))
    best = alike[min(choice, len(alike) - 1)] if alike else []
    names = sorted(value, key=lambda name: best.index(name) if name in best else len(best))
    inner = [{**part.get("patternProperties", {}), **part.get("properties", {})} for part in parts]
    return {
        name: ordered(value[name], {"anyOf": [each.get(name, {}) for each in inner]}, root, choice) for name in names
    }


def consumes(constraint: Any, text: str) -> bool:
    """Whether a text's tokens are allowed one after the other, and the text may end."""
    matcher = GRAMMARS.matcher(constraint)
    try:
        for token_id in TOKENIZER.encode_after(text):
            matcher.consume(token_id)
    except BackendError:
        return False
    return matcher.is_complete


def test_real_schemas(data: Path) -> None:
    """Of the schemas that are taken, no valid instance is refused and no invalid one taken; refusals name a keyword."""
    refused, num_schemas, num_instances = [], 0, 0
    for path in sorted((data / "maskbench").glob("*.json")):
        case = json.loads(path.read_text())
        num_schemas += 1
        constraint = json_schema_constraint(case["schema"])
        try:
            GRAMMARS.compile(constraint)
        except RequestError as error:
            refused.append(error.message)
            continue
        schema = case["schema"]
        for test in case["tests"]:
            num_instances += 1
            reordered = [compact(ordered(test["data"], schema, schema, choice)) for choice in range(3)]
            texts = dict.fromkeys([compact(test["data"]), *reordered])
            found = any(consumes(constraint, text) for text in texts)
            assert found == test["valid"], (path.stem, test["description"], *texts)
            if num_instances % 8 == 0 and found:
                text = next(text for text in texts if consumes(constraint, text))
                assert accepts(GRAMMARS, constraint, text), "the masks say the same"
    assert (num_schemas - len(refused)) / num_schemas >= 0.92 and num_instances > 800
    for message in refused:
        path_and_problem = re.match(r"json_schema: at (#\S*)(?: \((.*?)\))?: ", message)
        assert path_and_problem, message
        names = {*path_and_problem[1].split("/"), *(path_and_problem[2] or "").split(", ")}
        assert names & {*ENFORCED, *REFUSED, "enume"}, message


def test_real_schemas_with_bounds(data: Path) -> None:
    for path in sorted((data / "maskbench").glob("*.json"))[::3]:
        try:
            schema = lowered(json.loads(path.read_text())["schema"])
        except RequestError:
            continue
        assert problem_of(bounded(schema)) == problem_of(schema)


NAMES, VALUES = ("a", "b", "c"), (None, True, False, 0, 1, 2.5, -3, "", "x", "xy", "yes", [], [1], ["x", 1], {})
INSTANCES: list[Any] = [
    *VALUES,
    *({name: value} for name in NAMES for value in (0, "x", None)),
    {"a": 1, "b": "x"},
    {"a": "x", "b": 1},
    {"a": 1, "b": 2, "c": "yes"},
    {"b": {}, "c": []},
    ["x", "y"],
    ["x", "x"],
    [1, 2, 3],
]


def scalar(rng: random.Random) -> dict[str, Any]:
    return rng.choice(
        [
            {"type": rng.choice(["string", "integer", "number", "boolean", "null", "array", "object"])},
            {"type": rng.sample(["string", "number", "null", "object"], 2)},
            {"const": rng.choice([1, "x", True, None, "yes"])},
            {"enum": rng.sample([0, 1, 2.5, "x", "xy", "", True, None], 3)},
            {"minimum": rng.randint(-1, 2)},
            {"exclusiveMaximum": rng.randint(-1, 2), "type": "number"},
            {"minLength": rng.randint(0, 2)},
            {"type": "string", "maxLength": rng.randint(0, 2)},
            {"type": "string", "pattern": rng.choice(["^x", "y", "^(x|yes)$"])},
            {"minItems": 1, "maxItems": 2},
            {"type": "array", "items": {"enum": ["x", "y"]}, "uniqueItems": True},
            {"minProperties": 1},
        ]
    )


def random_schema(rng: random.Random, depth: int) -> Any:
    if depth == 0 or rng.random() < 0.2:
        return rng.choice([True, {}, *(scalar(rng) for _ in range(6))])

    def part() -> Any:
        return random_schema(rng, depth - 1)

    members = {"properties": {name: part() for name in rng.sample(NAMES, 2)}}
    required = {"required": rng.sample(NAMES, rng.randint(1, 2))}
    return rng.choice(
        [
            {"oneOf": [part(), part()]},
            {"oneOf": [{"required": ["a"]}, {"required": ["b"]}]},
            {
                "type": "object",
                **members,
                "oneOf": [{"required": ["a"]}, {"required": ["b"], "properties": {"c": False}}],
            },
            {"not": part()},
            {"not": {**required, **members}},
            {"allOf": [part(), {"not": part()}]},
            {"anyOf": [part(), part()]},
            {"if": part(), "then": part(), "else": part()},
            {"type": "object", "if": required, "then": members},
            {"type": "object", "dependencies": {"a": ["b"], "b": part()}},
            {"dependentRequired": {"a": ["c"]}, "dependentSchemas": {"c": part()}, **members},
            {"type": "object", **members, **required, "additionalProperties": rng.choice([False, {"type": "string"}])},
            {"type": "object", "propertyNames": {"enum": ["a", "c"]}, "minProperties": 1},
            {"$ref": "#/$defs/d", "$defs": {"d": scalar(rng)}} if depth == 3 else part(),
            {"type": "array", "items": part(), "maxItems": 2},
        ]
    )


def in_any_order(instance: Any) -> Iterator[str]:
    if isinstance(instance, dict):
        yield from (compact(dict(items)) for items in permutations(instance.items()))
    else:
        yield compact(instance)


def test_every_keyword_against_the_reference() -> None:
    """What compiles takes exactly the valid instances."""
    rng = random.Random(11)
    num_compiled = num_valid = num_invalid = 0
    for _ in range(100):
        schema = random_schema(rng, 3)
        constraint = json_schema_constraint(schema)
        try:
            constraint.check()
        except RequestError:
            continue
        num_compiled += 1
        for instance in INSTANCES:
            expected = valid(instance, schema)
            assert any(matches(constraint, text) for text in in_any_order(instance)) == expected, (schema, instance)
            num_valid += expected
            num_invalid += not expected
    assert num_compiled > 50 and num_valid > 600 and num_invalid > 600


@pytest.mark.parametrize(
    ("schema", "message", "help"),
    [
        ({"properties": {"a": {"contains": {}}}}, "#/properties/a/contains: this keyword cannot", "leave it out"),
        ({"items": {"maxLenght": 3}}, "#/items/maxLenght: there is no such keyword", "did you mean 'maxLength'?"),
        ({"$defs": {"x/y": {"format": "color"}}}, "#/$defs/x~1y/format: the format 'color' cannot be", "by a pattern"),
        ({"anyOf": [{"type": "null"}, {"pattern": "(?=a)"}]}, "#/anyOf/1/pattern: look-around", "leave it out"),
        ({"oneOf": [{"type": "integer"}, {"minimum": 3}]}, "#/oneOf/1: a value could match this and schema 0", "anyOf"),
        ({"not": {"pattern": "a"}}, "#/not: what does not match", "in other words"),
        ({"if": {"pattern": "a"}, "then": False}, "#/if: when this does not match", "in other words"),
        ({"uniqueItems": True}, "#/uniqueItems: that items differ can be enforced of one item", "leave it out"),
        ({"minProperties": 2}, "#/minProperties: only one more than is required (0)", "leave it out"),
        ({"properties": {"a": {}}, "propertyNames": {"pattern": "a"}}, "#/propertyNames: it can be", "leave it out"),
        (
            {"properties": {"a": {"type": "integer", "minimum": 2, "maximum": 1}}, "required": ["a"], "type": "object"},
            "#/properties/a (minimum, maximum): nothing matches: ",
            "leave it out",
        ),
        (
            {"$ref": "#/$defs/n", "$defs": {"n": {"type": "array", "items": {"$ref": "#/$defs/n"}, "minItems": 1}}},
            "#: no finite text matches: what it requires contains itself again",
            "optional",
        ),
        ({"$ref": "#/nowhere"}, "#/$ref: Pointer '/nowhere' does not exist", "leave it out"),
        ({"$ref": "http://example.com/x"}, "#/$ref: Resource 'http://example.com/x'", "leave it out"),
        ({"properties": {"a": 5}}, "#/properties/a: a schema is an object or a truth value, not 5", "leave it out"),
        ({"type": "number", "multipleOf": 0}, "#/multipleOf: it takes a number above 0", "leave it out"),
    ],
)
def test_refusals_name_the_place(schema: Any, message: str, help: str) -> None:
    with pytest.raises(RequestError) as caught:
        json_schema_constraint(schema).check()
    assert caught.value.message.startswith(f"json_schema: at {message}"), caught.value.message
    assert help in (caught.value.help or "")


@pytest.mark.parametrize("keyword", REFUSED)
def test_keywords_that_are_refused(keyword: str) -> None:
    with pytest.raises(RequestError, match=re.escape(f"at #/{keyword}: this keyword cannot be enforced")):
        json_schema_constraint({keyword: {}}).check()


REFUSED_TOO: list[tuple[Any, str]] = [
    (
        {"type": "integer", "exclusiveMinimum": 1, "exclusiveMaximum": 2},
        "# (exclusiveMinimum, exclusiveMaximum): nothing",
    ),
    ({"type": "integer", "multipleOf": 10, "minimum": 1, "maximum": 9}, "# (multipleOf, minimum, maximum): nothing"),
    ({"type": "string", "minLength": 3, "maxLength": 2}, "# (minLength, maxLength): nothing matches"),
    ({"type": "array", "minItems": 3, "maxItems": 2}, "# (minItems, maxItems): nothing matches"),
    ({"type": "object", "required": ["a", "b"], "maxProperties": 1}, "# (required, maxProperties): nothing matches"),
    ({"type": "string", "enum": [1, 2]}, "#/enum: nothing matches"),
    ({"type": "integer", "const": "x"}, "#/const: nothing matches"),
    ({"const": "ab", "pattern": "^x"}, "# (const, pattern): nothing matches"),
    ({"const": 5, "minimum": 6}, "# (const, minimum): nothing matches"),
    ({"enum": []}, "#/enum: nothing matches"),
    (
        {"type": "object", "required": ["a"], "additionalProperties": False},
        "# (required, additionalProperties): nothing",
    ),
    ({"type": "object", "required": ["a"], "properties": {"a": False}}, "# (required, properties): nothing matches"),
    ({"$ref": "#"}, "#: no finite text matches"),
    ({"anyOf": [{"$ref": "#"}, {"$ref": "#"}]}, "#: no finite text matches"),
    ({"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}}, "#: no finite text"),
    ({"type": "object", "additionalProperties": {"$ref": "#"}, "minProperties": 1}, "#: no finite text matches"),
    ({"type": "object", "additionalProperties": {"$ref": "#"}, "required": ["x"]}, "#: no finite text matches"),
    ({"type": "object", "patternProperties": {"^x": {"$ref": "#"}}, "required": ["x"]}, "#: no finite text matches"),
    ({"$ref": "#foo"}, "#/$ref: Anchor 'foo' does not exist"),
    ({"$ref": 5}, "#/$ref: it takes a text"),
    ({"type": "string", "format": "ipv4", "pattern": "^x"}, "# (format, pattern): nothing matches"),
    ({"type": "string", "format": "date", "maxLength": 3}, "# (format, maxLength): nothing matches"),
    ({"type": "string", "pattern": "^a{5}$", "maxLength": 3}, "# (pattern, maxLength): nothing matches"),
    ({"type": "string", "pattern": r"(a)\1"}, "#/pattern: backreferences are not supported"),
    ({"type": "string", "pattern": r"\bfoo"}, "#/pattern: look-around is not supported: `\\b` in"),
    ({"type": "string", "pattern": "a$b"}, "#/pattern: look-around is not supported: a `$` that is not at its end in"),
    ({"type": "string", "pattern": r"^[^\s\S]$"}, "#/pattern: nothing matches"),
    ({"type": "string", "pattern": "a{3,2}"}, "#/pattern: invalid repetition count range"),
    ({"type": "string", "pattern": 5}, "#/pattern: Expected string"),
    ({"oneOf": [{"const": 1}, {"const": 1}]}, "#/oneOf: nothing matches"),
    ({"oneOf": [{"type": "integer"}, {"type": "number"}]}, "#/oneOf/1: a value could match this and schema 0"),
    ({"oneOf": []}, "#/oneOf: it takes a list of schemas"),
    ({"allOf": [{"type": "string"}, {"type": "integer"}]}, "#/allOf: nothing matches"),
    ({"allOf": [{"pattern": "^a"}, {"pattern": "^b"}], "type": "string"}, "#/allOf: nothing matches"),
    ({"anyOf": [False, False]}, "#/anyOf: nothing matches"),
    (
        {"type": "array", "uniqueItems": True, "items": {"enum": [1, 1.0]}, "minItems": 2},
        "# (uniqueItems, items, minItems)",
    ),
    (
        {"type": "array", "uniqueItems": True, "items": {"type": "boolean"}, "minItems": 3},
        "# (uniqueItems, items, minItems)",
    ),
    ({"type": 5}, "#/type: it takes names of types, not 5"),
    ({"type": ["string", 5]}, "#/type: it takes names of types, not 5"),
    ({"multipleOf": -1}, "#/multipleOf: it takes a number above 0, not -1"),
    ({"maxLength": -1}, "#/maxLength: Expected positive integer"),
    ({"required": "a"}, "#/required: Expected array"),
    (
        {"propertyNames": False, "minProperties": 1, "type": "object"},
        "# (propertyNames, minProperties): nothing matches",
    ),
    ({"type": "array", "items": False, "minItems": 1}, "# (items, minItems): nothing matches"),
    ({"not": {}}, "#/not: nothing matches"),
]


@pytest.mark.parametrize(("schema", "message"), REFUSED_TOO, ids=str)
def test_what_cannot_be_is_refused_with_its_place(schema: Any, message: str) -> None:
    with pytest.raises(RequestError) as caught:
        json_schema_constraint(schema).check()
    assert caught.value.message.startswith(f"json_schema: at {message}"), caught.value.message
    if "$ref" not in str(schema):
        with pytest.raises(RequestError, match="json_schema: at #/items"):
            json_schema_constraint({"type": "array", "items": schema, "minItems": 1}).check()


@pytest.mark.parametrize(
    "schema",
    [
        {"minProperties": 2},
        {"required": ["b"], "minProperties": 3},
        {"minProperties": 1, "maxProperties": 2},
        {"maxProperties": 1},
        {"required": ["a"], "maxProperties": 2},
        {"maxProperties": 7, "minProperties": 3},
        {"maxProperties": 0},
    ],
    ids=str,
)
def test_how_many_properties_where_all_names_are_known(schema: Any) -> None:
    closed = {"properties": {name: {"type": "integer"} for name in "abcd"}, "additionalProperties": False, **schema}
    instances: list[Any] = [{name: 1 for name in names} for count in range(5) for names in combinations("abcd", count)]
    for instance in [*instances, {"e": 1}, 5, [], "x"]:
        assert matches(json_schema_constraint(closed), compact(instance)) == valid(instance, closed), instance


def test_formats_in_other_words() -> None:
    for name, good, bad in (("url", "https://example.com/a", "no url"), ("byte", "AAE=", "AAE")):
        for schema in ({"type": "string", "format": name}, {"type": "string", "format": name, "pattern": ".+"}):
            constraint = json_schema_constraint(schema)
            assert matches(constraint, compact(good)) and not matches(constraint, compact(bad))
    assert bounded(lowered({"type": "string", "format": "byte"}))["maxLength"] == MAX_TEXT


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "array", "items": {"type": ["boolean", "null"]}, "uniqueItems": True},
        {"type": "array", "items": {"enum": [1, 1.0, "1"]}, "uniqueItems": True},
        {"propertyNames": False},
    ],
    ids=str,
)
def test_lists_and_names_of_few_values(schema: Any) -> None:
    lists = [list(row) for count in range(4) for row in product([True, False, None, 1, "1"], repeat=count)]
    for instance in [*lists, {}, {"a": 1}, 3]:
        assert matches(json_schema_constraint(schema), compact(instance)) == valid(instance, schema), instance


def test_a_cycle_with_a_way_out_takes_it() -> None:
    ways = {"anyOf": [{"$ref": "#/$defs/n"}, {"$ref": "#/$defs/loop"}]}
    node = {"type": "object", "properties": {"next": ways}, "additionalProperties": False}
    loop = {"type": "object", "properties": {"again": {"$ref": "#/$defs/loop"}}, "required": ["again"]}
    constraint = json_schema_constraint({"$ref": "#/$defs/n", "$defs": {"n": node, "loop": loop}})
    assert matches(constraint, '{"next":{"next":{}}}')
    matcher = GRAMMARS.matcher(constraint)
    with pytest.raises(BackendError):
        for token_id in TOKENIZER.encode_after('{"next":{"again":{"again":'):
            matcher.consume(token_id)


def test_bounds_stop_what_has_none() -> None:
    schema = {
        "type": "object",
        "properties": {"text": {"type": "string"}, "list": {"type": "array", "items": {"type": "integer"}}},
        "required": ["text", "list"],
        "additionalProperties": False,
    }
    constraint = json_schema_constraint(schema)
    assert consumes(constraint, compact({"text": "é" * MAX_TEXT, "list": [1] * MAX_ITEMS}))
    assert not consumes(constraint, compact({"text": "é" * (MAX_TEXT + 1), "list": []}))
    assert not consumes(constraint, compact({"text": "", "list": [1] * (MAX_ITEMS + 1)}))
    assert matches(constraint, compact({"text": "e" * (MAX_TEXT + 1), "list": []})), "what a schema says of itself"
    longer = json_schema_constraint({"type": "string", "maxLength": 2 * MAX_TEXT})
    assert consumes(longer, compact("e" * 2 * MAX_TEXT)) and not consumes(longer, compact("e" * (2 * MAX_TEXT + 1)))
    referred = {"$ref": "#/$defs/t", "maxLength": 2 * MAX_TEXT, "$defs": {"t": {"type": "string"}}}
    assert consumes(json_schema_constraint(referred), compact("e" * 2 * MAX_TEXT))
    of_names = json_schema_constraint({"type": "object", "additionalProperties": {"type": "integer"}})
    assert not consumes(of_names, compact({f"k{i}": 1 for i in range(MAX_ITEMS + 1)}))


@pytest.mark.parametrize(
    "schema",
    [
        {"anyOf": [{"type": "string"}, {"type": "string", "minLength": 3}]},
        {"allOf": [{"type": "string"}, {"minLength": 2}]},
        {"$ref": "#/$defs/a", "minLength": 1, "$defs": {"a": {"type": "string"}}},
        {"type": "string", "not": {"const": "a"}},
        {"type": "object", "additionalProperties": {"type": "null"}},
        {"type": "object", "properties": {"a": {"type": "null"}}, "required": ["a"]},
        {"type": "string", "maxLength": 2 * MAX_TEXT},
    ],
    ids=str,
)
def test_no_text_or_name_is_endless(schema: Any) -> None:
    """Whoever adds letters for as long as it can has to end the text at last."""
    text = adversary(schema, b"abcdefghijklmnopqrstuvwxyz", longest=3 * MAX_TEXT)
    parts = [len(part) for part in re.findall("[a-zA-Z/+]+", text)]
    assert 0.9 * MAX_TEXT < max(parts) <= schema.get("maxLength", MAX_TEXT) + 20, max(parts)


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "array", "allOf": [{"items": {"type": "integer"}}, {"minItems": 1}]},
        {"type": "array", "items": {"enum": ["a"]}},
        {"type": "object", "properties": {"a": {"const": 1}}, "required": ["a"]},
        {"if": {"required": ["a"]}, "then": {"required": ["b"]}, "type": "object"},
    ],
    ids=str,
)
def test_no_list_or_object_is_endless(schema: Any) -> None:
    text = adversary(schema, b',":a1')
    assert MAX_ITEMS - 5 < text.count(",") < MAX_ITEMS + 5, text[-60:]


def adversary(schema: Any, wanted: bytes, longest: int = 10_000) -> str:
    """A text under a schema of tokens that are made of wanted bytes, where there are any, and that end as little as
    they can. longest: what is enough of it."""
    tokens = [TOKENIZER.token_bytes(token_id) for token_id in range(TOKENIZER.vocab_size)]
    order = sorted(
        (token_id for token_id, token in enumerate(tokens) if token),
        key=lambda at: (not set(tokens[at]) <= set(wanted), tokens[at] in (b'"', b"]", b"}"), -len(tokens[at])),
    )
    matcher, text = GRAMMARS.matcher(json_schema_constraint(schema)), b""
    while len(text) < longest:
        allowed = GRAMMARS.allowed(GRAMMARS.fill([matcher]), torch.device("cpu"))[0]
        chosen = next((token_id for token_id in order if allowed[token_id]), None)
        if chosen is None:
            break
        matcher.consume(chosen)
        text += tokens[chosen]
    return text.decode()


def test_the_page_lists_the_keywords() -> None:
    page = (Path(__file__).parents[2] / "docs" / "structured.md").read_text(encoding="utf-8")
    assert keyword_table() in page, "python -c 'from ramify.runtime.schema_keywords import *; print(keyword_table())'"
    assert ", ".join(f"`{name}`" for name in FORMATS) in page
    assert all(f"`{name}`" in page for name in REWORDED)
    assert f"{MAX_TEXT:,} characters" in page and f"{MAX_ITEMS} members" in page
    assert f"{MAX_DIGITS} digits in a row" in page


KEPT: dict[str, tuple[Any, Any]] = {
    "type": ("string", 1),
    "const": (1, 2),
    "enum": ([1], 2),
    "anyOf": ([{"type": "null"}, {"const": 1}], 2),
    "allOf": ([{"type": "number"}, {"minimum": 1}], 0),
    "oneOf": ([{"type": "null"}, {"const": 1}], 2),
    "not": ({"type": "null"}, None),
    "items": ({"type": "null"}, [1]),
    "prefixItems": ([{"type": "null"}], [1]),
    "minItems": (1, []),
    "maxItems": (1, [1, 1]),
    "properties": ({"a": {"type": "null"}}, {"a": 1}),
    "patternProperties": ({"^a": {"type": "null"}}, {"ab": 1}),
    "additionalProperties": ({"type": "null"}, {"a": 1}),
    "required": (["a"], {}),
    "propertyNames": ({"pattern": "^b$"}, {"a": 1}),
    "minProperties": (1, {}),
    "maxProperties": (1, {"a": 1, "b": 1}),
    "dependencies": ({"a": ["b"]}, {"a": 1}),
    "dependentRequired": ({"a": ["b"]}, {"a": 1}),
    "dependentSchemas": ({"a": {"required": ["b"]}}, {"a": 1}),
    "minLength": (1, ""),
    "maxLength": (1, "ab"),
    "pattern": ("^a", "b"),
    "format": ("date", "2021-02-30x"),
    "minimum": (1, 0),
    "maximum": (1, 2),
    "exclusiveMinimum": (1, 1),
    "exclusiveMaximum": (1, 1),
    "multipleOf": (2, 3),
}
WITH: dict[str, tuple[Any, Any]] = {
    "if": ({"if": {"type": "null"}, "then": False}, None),
    "then": ({"if": {"type": "null"}, "then": False}, None),
    "else": ({"if": {"type": "null"}, "else": {"type": "string"}}, 1),
    "$ref": ({"$ref": "#/$defs/a", "$defs": {"a": {"type": "null"}}}, 1),
    "additionalItems": ({"items": [{}], "additionalItems": {"type": "null"}}, [1, 1]),
    "uniqueItems": ({"items": {"enum": [1, 2]}, "uniqueItems": True}, [1, 1]),
}


@pytest.mark.parametrize("keyword", ENFORCED)
def test_each_keyword_of_the_table_refuses_something(keyword: str) -> None:
    schema, bad = WITH.get(keyword) or ({keyword: KEPT[keyword][0]}, KEPT[keyword][1])
    assert not matches(json_schema_constraint(schema), compact(bad))
    without = {key: value for key, value in schema.items() if key != keyword}
    assert matches(json_schema_constraint(without), compact(bad)) or keyword == "items"


@pytest.mark.parametrize(
    ("word", "meant"),
    [
        ("typ", "type"), ("tpye", "type"), ("types", "type"), ("itmes", "items"), ("ref", "$ref"), ("allof", "allOf"),
        ("mininum", "minimum"), ("maxLenght", "maxLength"), ("requird", "required"), ("enumNames", None),
        ("nullable", None), ("note", None), ("name", None), ("unit", None), ("order", None), ("x-typ", None),
        ("propertyOrdering", None), ("discriminator", None), ("markdownDescription", None), ("title", None),
    ],
)  # fmt: skip
def test_a_slip_in_a_keyword_is_no_annotation(word: str, meant: str | None) -> None:
    assert misspelled(word) == meant
