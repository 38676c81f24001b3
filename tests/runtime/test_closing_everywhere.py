"""close=True at every length: whatever max_tokens cuts off, also inside a character, ends in a text that matches."""

from __future__ import annotations

import json
from typing import Any

import pytest
from ramify.runtime.closing import end_cut
from ramify.runtime.constraint import Constraint, grammar_constraint, json_schema_constraint, matches, regex_constraint
from ramify.runtime.request import Done

from .fakes import call, finish
from .test_constrained import engine

PERSON = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "minLength": 3},
        "age": {"type": "integer", "minimum": 18, "maximum": 120},
        "tags": {"type": "array", "items": {"enum": ["new", "neat", "né"]}, "minItems": 2, "maxItems": 4},
    },
    "required": ["name", "age", "tags"],
    "additionalProperties": False,
}
TREE = {
    "$ref": "#/$defs/n",
    "$defs": {
        "n": {
            "type": "object",
            "properties": {"v": {"type": "number"}, "next": {"anyOf": [{"$ref": "#/$defs/n"}, {"type": "null"}]}},
            "required": ["v", "next"],
        }
    },
}
SCHEMAS: list[Any] = [
    True,
    {"type": "string"},
    {"type": "number"},
    {"type": "integer", "multipleOf": 7, "minimum": 1000},
    {"type": "string", "minLength": 40},
    {"type": "string", "pattern": "^[世界é]{4,9}$"},
    {"type": "string", "pattern": "^(ab|cd)+z[0-9]{3}$"},
    {"type": "string", "format": "date-time"},
    {"type": "string", "format": "email"},
    {"type": "string", "format": "uuid"},
    {"type": "string", "format": "ipv6"},
    {"type": "array"},
    {"type": "array", "items": {"type": "array", "items": {"type": "boolean"}, "minItems": 2}, "minItems": 3},
    {"type": "object", "additionalProperties": {"type": "integer"}, "minProperties": 1},
    {"type": "object", "patternProperties": {"^k[0-9]{4}$": {"type": "null"}}, "additionalProperties": False},
    {"oneOf": [{"type": "integer"}, {"type": "array", "items": {"type": "integer"}, "minItems": 2}]},
    {"enum": ["𝄞𝄞𝄞", "ünï", 12345, {"a": [1, None]}]},
    {"type": "object", "properties": {"a": {}, "b": {}, "c": {}}, "additionalProperties": False, "minProperties": 2},
    PERSON,
    TREE,
]
REGEXES = [
    "[éü世]{1,4}!",
    "(The|An) answer is [0-9]{3,}!",
    "a{5,}b",
    "[a-z]{25}",
    r"(\p{Lu}\p{Ll}+ ){3}end",
    "(x|yy|zzz){8}",
    "𝄞{6}",
    "[^a]{9}a",
    "([0-9]{2}:){5}[0-9]{2}",
    "a{30}|b{40}",
    "(?s:.)*end",
]
GRAMMARS = [
    'start: item ("; " item)* "."\nitem: "left" | "right " /[0-9]+/',
    'start: "(" start ")" start | "x"',
    'start: sum "="\nsum: term ("+" term)*\nterm: NUM | "(" sum ")"\nNUM: /[1-9][0-9]{2,}/',
    'start: "é"{7} ("ö" | "世界") "!"',
    'start: "call " %json {"type": "object", "properties": {"q": {"type": "string"}}, "required": ["q"]} ";"',
    '%ignore / +/\nstart: WORD{3,} END\nWORD: /[a-z]+/\nEND: "."',
]
CONSTRAINTS: list[Constraint] = [
    *map(json_schema_constraint, SCHEMAS),
    *(Constraint("json_schema", json_schema_constraint(schema).source, has_space=True) for schema in (PERSON, TREE)),
    *map(regex_constraint, REGEXES),
    *map(grammar_constraint, GRAMMARS),
]


@pytest.mark.parametrize("constraint", CONSTRAINTS, ids=lambda each: each.source[:60])
def test_every_cut_is_closed(constraint: Constraint) -> None:
    calls = [
        call([seed + 1], constraint=constraint, max_tokens=max_tokens, temperature=1.0, seed=seed)
        for seed, max_tokens in enumerate(range(1, 31))
    ]
    num_cut = 0
    for done in finish(engine(kv_tokens=8000), *calls):
        assert isinstance(done, Done)
        ended = end_cut(done, constraint, close=True)
        assert not ended.is_cut and matches(constraint, ended.text), (done.text, done.finish_reason)
        num_cut += done.finish_reason == "length"
        assert done.finish_reason == "length" or not ended.closing
        if constraint.kind == "json_schema":
            json.loads(ended.text)
    assert num_cut > 1
