"""Lark grammars before anything runs: rules that cannot end, terminals that nothing matches, schemas, forced text."""

from __future__ import annotations

import random
import re
from itertools import product

import pytest
from ramify.ir.errors import RequestError
from ramify.runtime.closing import closing
from ramify.runtime.constraint import grammar_constraint, json_schema_constraint, matches, regex_constraint
from ramify.runtime.forcing import forces_long_in_lark, has_endless_path
from ramify.runtime.lark_lowering import lowered_lark

from .fakes import call, finish
from .test_constrained import engine


@pytest.mark.parametrize(
    ("grammar", "message"),
    [
        ('start: a\na: "x" a', "line 2: no finite text matches the rule 'a': it contains itself in every case (from"),
        ('start: a\na: a "x"', "line 2: no finite text matches the rule 'a'"),
        ('start: "y" a+\na: "x" a | a "z"\n | "w" (a | "v" a)', "line 2: no finite text matches the rule 'a'"),
        ('start: b\n\nb: c d\nc: "x"\nd: e\ne: f\nf: d | e', "line 5: no finite text matches the rule 'd': it"),
        ("start: start", "line 1: no finite text matches the rule 'start': it contains itself"),
        ("start: A\nA: /a/ & /b/", "line 1: no text matches A in the rule 'start'"),
        (
            'start: "x" rest\nrest: A | A A\nA: /a/ & /b/',
            "line 2: no text matches A in the rule 'rest' (from start -> rest",
        ),
        (r'start: "y" /x[^\s\S]/', r"line 1: no text matches /x[^\s\S]/ in the rule 'start'"),
        ("start: A\nA: ~/(?s:.*)/", "line 1: no text matches A in the rule 'start'"),
        ('start: "x" /a/ & /b/', "line 1: no text matches \"x\" /a/ & /b/ in the rule 'start'"),
        ('start: %lark {\n start: a\n a: "x" a\n}', "line 1: no text matches %lark in the rule 'start'"),
        ('start: "x" b\nb: %json {"contains": {}}', "line 2: %json at #/contains: this keyword cannot be enforced"),
        ('start: %json {"minProperties": 3}', "line 1: %json at #/minProperties: only one more"),
        ('start: %json {"maxLenght": 3}', "line 1: %json at #/maxLenght: there is no such keyword"),
        (
            'start: %json {"type": "string", "x-guidance": {"lenient": true}, "format": "no"}',
            "line 1: %json at #/format",
        ),
        (
            'start: "[" %json {\n "items": {"$ref": "#"}, "type": "array", "minItems": 1\n}',
            "line 1: %json at #: no finite",
        ),
        (
            'start: %json {"type": "integer", "minimum": 3, "maximum": 1}',
            "line 1: %json at # (minimum, maximum): nothing",
        ),
    ],
)
def test_grammars_that_no_text_matches_are_refused(grammar: str, message: str) -> None:
    with pytest.raises(RequestError) as caught:
        grammar_constraint(grammar).check()
    assert caught.value.message.startswith(f"grammar: {message}"), caught.value.message


@pytest.mark.parametrize(
    ("grammar", "shortest"),
    [
        ('start: a | b\na: "x" a\nb: "yy"', "yy"),
        ('start: "z" a | "yyy"\na: "x" a', "yyy"),
        ('start: "x" (A | "y")\nA: /a/ & /b/', "xy"),
        ('start: "p" [a] a? a* a~0..3 "q"\na: "x" a', "pq"),
        ('start: "p" (a "r" | b)? "q"\na: "x" a\nb: "s"', "pq"),
        ('?start: a\n!a: b -> c\nb: "x" // a: b\n\n\n  | "yy" # more', "x"),
        ('start: %lark {\n start: a | "yes"\n a: "x" a\n}', "yes"),
        ('start: "n" %json {"oneOf": [{"const": 12}, {"type": "null"}]} "."', "n12."),
        ('%import common.INT\nstart: INT (/[ab]/{2,3} | "c"i~4)\n%ignore / +/', "0aa"),
        ('start: x::0x0\nx::_: "b" %if is_ones([0:1])\n | "c" x::set_bit(0) %if bit_clear(0)', "cb"),
        ("start: | /a/", ""),
    ],
)
def test_what_cannot_end_is_never_begun(grammar: str, shortest: str) -> None:
    constraint = grammar_constraint(grammar)
    constraint.check()
    assert closing(constraint, "") == shortest
    first = {text for text in map(chr, range(32, 127)) if _begins(grammar, text)}
    assert all(closing(constraint, text) is not None for text in first), "whatever begins can end"


def _begins(grammar: str, text: str) -> bool:
    try:
        closing(grammar_constraint(grammar), text)
    except RequestError as error:
        return "no text that matches begins" not in error.message
    return True


def _random_grammar(rng: random.Random) -> dict[str, list[list[str]]]:
    names = ["start", "a", "b", "c"]
    return {
        name: [[rng.choice([*names, "x", "y"]) for _ in range(rng.randint(1, 3))] for _ in range(rng.randint(1, 2))]
        for name in names
    }


def _texts(rules: dict[str, list[list[str]]], longest: int) -> set[str]:
    """The texts of up to a length that rules derive, by growing sets of them."""
    found: dict[str, set[str]] = {name: set() for name in rules}
    while True:
        grown = {
            name: {
                text
                for way in ways
                for text in map("".join, product(*(found.get(part, {part}) for part in way)))
                if len(text) <= longest
            }
            for name, ways in rules.items()
        }
        if grown == found:
            return found["start"]
        found = grown


def test_random_grammars_against_their_texts() -> None:
    rng = random.Random(3)
    num_empty = num_matched = 0
    for _ in range(400):
        rules = _random_grammar(rng)
        source = "\n".join(
            f"{name}: " + " | ".join(" ".join(f'"{p}"' if p in "xy" else p for p in way) for way in ways)
            for name, ways in rules.items()
        )
        texts = _texts(rules, 5)
        try:
            constraint = grammar_constraint(source)
            constraint.check()
        except RequestError as error:
            assert not texts and "no finite text matches" in error.message, source
            num_empty += 1
            continue
        for length in range(1, 6):
            for text in map("".join, product("xy", repeat=length)):
                assert matches(constraint, text) == (text in texts), (source, text)
                num_matched += text in texts
    assert num_empty > 20 and num_matched > 100


def test_white_space_of_a_schema_inside_has_a_bound() -> None:
    source = 'start: "x" %json {"type": "array", "items": {"type": "null"}}'
    assert '"maxItems":512' in lowered_lark(source, is_bounded=True) and "{1,64}" in lowered_lark(
        source, is_bounded=True
    )
    assert matches(grammar_constraint(source), "x[ null ]")
    kept = lowered_lark('start: %json {"x-guidance": {"whitespace_flexible": false}}', is_bounded=True)
    assert '"x-guidance":{"whitespace_flexible":false}' in kept


@pytest.mark.parametrize(
    "grammar",
    [
        'start: /a+/ "a"',
        'start: ("b" | "c") /a+/ "a"',
        'start: X "x"\nX: "x"+',
        "start: /a{1000000}/",
        'start: /(ab)*/ "ab"',
    ],
)
def test_text_that_is_forced_without_end_does_not_hang(grammar: str) -> None:
    """llguidance would work it out first; so it is followed token by token."""
    constraint = grammar_constraint(grammar)
    constraint.check()
    one = call([1], constraint=constraint, max_tokens=9)
    finish(engine(), one)
    assert one.done.finish_reason == "length" and re.fullmatch("[bc]?(a+|x+|(ab)*a?)", one.done.text)
    if "+" in grammar:
        with pytest.raises(RequestError, match="no short way to end"):
            closing(constraint, "")


@pytest.mark.parametrize("pattern", ["a{1000000}", "(ab){100000}", "x|y{99999}"])
def test_counts_that_are_high_do_not_hang(pattern: str) -> None:
    for constraint in (
        regex_constraint(pattern),
        json_schema_constraint({"type": "string", "pattern": f"^({pattern})$"}),
    ):
        constraint.check()
        one = call([1], constraint=constraint, max_tokens=5)
        finish(engine(), one)
        assert one.done.text


@pytest.mark.parametrize(
    ("regex", "has"),
    [
        ("a+", True),
        ("[a-z]+", False),
        (".*", False),
        ("(ab)+", True),
        ("(a[bc])*", False),
        (r"\d+", False),
        (r"\.+", True),
        ("[^,]*", False),
        ("[a]*", True),
        ("a{3,}", True),
        ("(a|b)+", True),
        (r"[\-]+", True),
        ("(?s:.)*", False),
        (r"-?[0-9]+(\.[0-9]+)?", False),
        ("a?b?", False),
        (r"[\s\S]*", False),
        (r'(\\.|[^"])*', False),
        ("x[+*]y", False),
        ("[bc](a*)", True),
    ],
)
def test_repetitions_without_a_choice_are_seen(regex: str, has: bool) -> None:
    assert has_endless_path(regex) == has


def test_ordinary_grammars_keep_their_forced_text() -> None:
    assert not forces_long_in_lark(
        'start: item ("; " item)* "."\nitem: "left"+ | NUM\nNUM: DIGIT+\nDIGIT: /[0-9]/ // a+'
    )
    assert forces_long_in_lark("start: A\nA: /[a-z]*/ & /a*/")
