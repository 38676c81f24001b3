"""JSON schemas in the words that llguidance enforces, or an error that names the place and the keyword.

What is written anew means the same: `oneOf` of what excludes each other becomes `anyOf`, `not` its opposite, `if` and
dependencies their cases. Parts that nothing finite can match become `false`. Bounds that stop what could run away come
last (`bounded`), where a model generates.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import combinations, permutations
from math import comb
from typing import Any

from ..ir.errors import RequestError
from .grammar import is_unsatisfiable, problem_of
from .schema_keywords import ENFORCED, FORMATS, INTEGER_FORMATS, REFUSED, REWORDED, misspelled
from .schema_logic import TYPES, allowed_types, has_values, negated, types_of, values_of, widened
from .schema_parts import Json, all_parts, at, map_parts, parts_of

# Of texts, lists and maps that have no bound of their own. Far above what is wanted, so that they only stop what runs
# away.
MAX_TEXT = 4096
MAX_ITEMS = 512
_MAX_LISTED = 5
# How many ways to choose properties are written out.
_MAX_CHOICES = 64
_HELP = "leave it out, or say it in other words"
_CYCLE = "no finite text matches: what it requires contains itself again"
_COMBINING = ("allOf", "anyOf", "$ref")


def lowered(schema: Any) -> Any:
    """The schema in llguidance's words. Raises RequestError for what cannot be enforced, with its path."""
    return _Lowering(schema).root()


def _references(schema: Any) -> Iterator[str]:
    for _, part in all_parts(schema):
        if isinstance(part, dict) and isinstance(part.get("$ref"), str):
            yield part["$ref"]


def refused(path: str, problem: str, help: str = _HELP) -> RequestError:
    """The error for a part of a schema. path: a JSON pointer as in `$ref`."""
    return RequestError(f"json_schema: at {path}: {problem}", help=help)


@dataclass(slots=True)
class _Part:
    """A schema under way. found: its keywords so far. besides: schemas that have to hold as well."""

    schema: Json
    path: str
    found: Json = field(default_factory=dict)
    besides: list[Any] = field(default_factory=list)

    def refused(self, keyword: str, problem: str, help: str = _HELP) -> RequestError:
        return refused(at(self.path, keyword), problem, help)


class _Lowering:
    """Rewrites one schema; references lead to the original."""

    def __init__(self, root: Any) -> None:
        self._root = root
        places = {path for path, _ in all_parts(root)}
        self._references = set(_references(root))
        for part in [self._resolve(each) for each in self._references if each not in places]:
            self._references |= set(_references(part))
        self._elsewhere = {each for each in self._references - places if self._resolve(each) is not True}
        self._aside: Json = {}
        self._wide_root = widened(root) if isinstance(root, dict) else {}
        self._empty = self._without_values()

    def root(self) -> Any:
        if has_values(self._root, frozenset()) and not has_values(self._root, frozenset(self._empty)):
            raise refused("#", _CYCLE, "let a part of the cycle be optional, or give it an alternative")
        found = self._lowered(self._root, "#")
        if self._aside:
            found["$defs"] = {**found.get("$defs", {}), **self._aside}
        return found

    def _resolve(self, reference: str) -> Any:
        """What a local reference leads to; `true`, of which nothing is certain, for others."""
        if reference != "#" and not reference.startswith("#/"):
            return True
        found = self._root
        for name in reference.split("/")[1:]:
            name = name.replace("~1", "/").replace("~0", "~")
            if isinstance(found, list) and name.isdecimal() and int(name) < len(found):
                found = found[int(name)]
            elif isinstance(found, dict) and name in found:
                found = found[name]
            else:
                return True
        return found

    def _without_values(self) -> set[str]:
        """The references to what nothing finite matches."""
        empty, known = {each for each in self._references if each.startswith("#")}, set[str]()
        while empty != known:
            known = empty
            empty = {each for each in known if not has_values(self._resolve(each), frozenset(known))}
        return empty

    def _lowered(self, schema: Any, path: str) -> Any:
        """A schema inside, rewritten."""
        if isinstance(schema, bool):
            return schema
        if not isinstance(schema, dict):
            raise refused(path, f"a schema is an object or a truth value, not {schema!r:.60}")
        part = _Part(schema, path)
        for keyword, value in schema.items():
            _check_keyword(part, keyword)
            rewrite = _REWRITES.get(keyword, _Lowering._kept)
            rewrite(self, part, keyword, value)
        if part.besides:
            part.found["allOf"] = [*part.found.get("allOf", ()), *part.besides]
        return part.found

    def _kept(self, part: _Part, keyword: str, value: Any) -> None:
        """A keyword that stays as it is, but for the schemas inside."""
        kept = map_parts({keyword: value}, part.path, self._lowered)
        part.found.setdefault(keyword, kept[keyword])

    def _type(self, part: _Part, keyword: str, given: Any) -> None:
        for name in given if isinstance(given, list) else [given]:
            if not isinstance(name, str):
                raise part.refused(keyword, f"it takes names of types, not {name!r:.40}")
        part.found[keyword] = given

    def _multiple(self, part: _Part, keyword: str, step: Any) -> None:
        if not isinstance(step, int | float) or isinstance(step, bool) or step <= 0:
            raise part.refused(keyword, f"it takes a number above 0, not {step!r:.40}")
        part.found[keyword] = step

    def _dropped(self, part: _Part, keyword: str, value: Any) -> None:
        """What another keyword takes care of, and llguidance's own options, which could relax what is asked for."""

    def _negated(self, schema: Any, path: str, problem: str, help: str = _HELP) -> Any:
        found = negated(schema, self._resolve)
        if found is None:
            raise refused(path, problem, help)
        return self._lowered(found, path)

    def _one_of(self, part: _Part, keyword: str, options: Any) -> None:
        if not isinstance(options, list) or not options:
            raise part.refused(keyword, "it takes a list of schemas")
        rest = {key: value for key, value in part.schema.items() if key != keyword}
        ways = []
        for index, option in enumerate(options):
            place = at(part.path, keyword, index)
            exclusions = [
                self._excluded(other, place, number)
                for number, other in enumerate(options)
                if number != index and not self._exclude_each_other(rest, option, other)
            ]
            way = self._lowered(option, place)
            ways.append({"allOf": [way, *exclusions]} if exclusions else way)
        if "anyOf" in part.schema:
            part.besides.append({"anyOf": ways})
        else:
            part.found["anyOf"] = ways

    def _exclude_each_other(self, *schemas: Any) -> bool:
        """Whether it is certain that nothing matches all of some schemas."""
        others = {key: value for key, value in self._wide_root.items() if key not in ENFORCED}
        return is_unsatisfiable(problem_of({**others, "allOf": [widened(each) for each in schemas]}))

    def _excluded(self, schema: Any, place: str, number: int) -> Any:
        problem = f"a value could match this and schema {number} of the oneOf, which cannot be excluded"
        help = "use anyOf, or let the schemas exclude each other: by type, or by a required property with a const"
        return self._negated(schema, place, problem, help)

    def _not(self, part: _Part, keyword: str, value: Any) -> None:
        problem = "what does not match this schema cannot be said without `not`"
        part.besides.append(self._negated(value, at(part.path, keyword), problem))

    def _if(self, part: _Part, keyword: str, condition: Any) -> None:
        schema, path = part.schema, part.path
        if "then" not in schema and "else" not in schema:
            return
        place = at(path, keyword)
        opposite = self._negated(condition, place, "when this does not match cannot be said without `if`")
        part.besides.append(
            {
                "anyOf": [
                    {
                        "allOf": [
                            self._lowered(condition, place),
                            self._lowered(schema.get("then", True), at(path, "then")),
                        ]
                    },
                    {"allOf": [opposite, self._lowered(schema.get("else", True), at(path, "else"))]},
                ]
            }
        )

    def _dependencies(self, part: _Part, keyword: str, given: Any) -> None:
        if not isinstance(given, dict):
            raise part.refused(keyword, "it takes an object")
        for name, needed in given.items():
            place = at(part.path, keyword, name)
            then = {"required": needed} if isinstance(needed, list) else self._lowered(needed, place)
            no_object = {"type": ["null", "boolean", "number", "string", "array"]}
            absent = {"type": "object", "properties": {name: False}}
            present = {"allOf": [{"type": "object", "required": [name]}, then]}
            part.besides.append({"anyOf": [no_object, absent, present]})

    def _reference(self, part: _Part, keyword: str, reference: Any) -> None:
        if not isinstance(reference, str):
            raise part.refused(keyword, "it takes a text")
        if reference in self._empty:
            part.besides.append(False)
        else:
            part.found[keyword] = f"#/$defs/{self._beside(reference)}" if reference in self._elsewhere else reference

    def _beside(self, reference: str) -> str:
        """The name of a definition that is made of a schema in a place for other things."""
        name = "_".join(re.findall(r"\w+", reference)) + f"_{sorted(self._elsewhere).index(reference)}"
        if name not in self._aside:
            self._aside[name] = True  # it may refer to itself
            self._aside[name] = self._lowered(self._resolve(reference), reference)
        return name

    def _unique(self, part: _Part, keyword: str, is_unique: Any) -> None:
        schema, most = part.schema, part.schema.get("maxItems")
        if not isinstance(is_unique, bool):
            raise part.refused(keyword, "it takes true or false")
        if not is_unique or "array" not in allowed_types(schema) or (isinstance(most, int) and most <= 1):
            return
        values = _listed_items(schema)
        if values is None or len(values) > _MAX_LISTED:
            raise part.refused(
                keyword,
                f"that items differ can be enforced of one item, or where an enum lists at most {_MAX_LISTED} of them",
            )
        rows = [list(row) for count in range(len(values) + 1) for row in permutations(values, count)]
        part.besides.append({"anyOf": [{"enum": rows}, {"type": ["null", "boolean", "number", "string", "object"]}]})

    def _min_properties(self, part: _Part, keyword: str, least: Any) -> None:
        names = _Names.of(part.schema)
        count = len(names.required)
        if isinstance(least, int) and least > count + 1 and names.are_open:
            problem = f"only one more than is required ({count}) can be enforced: of other names, two might be equal"
            raise part.refused(keyword, problem)
        chosen = None if names.are_open or type(least) is not int else names.choices(least - count)
        if chosen is not None:
            part.besides.append(_any_object({"required": list(each)} for each in chosen))
        elif least != count:
            part.found[keyword] = least

    def _max_properties(self, part: _Part, keyword: str, most: Any) -> None:
        names = _Names.of(part.schema)
        absent = len(names.required) + len(names.optional) - most if type(most) is int else 0
        if not names.are_open and type(most) is int and absent <= 0:
            return
        chosen = None if names.are_open or not names.optional else names.choices(absent)
        if chosen is not None:
            part.besides.append(_any_object({"properties": dict.fromkeys(each, False)} for each in chosen))
        else:
            part.found[keyword] = most

    def _names(self, part: _Part, keyword: str, names: Any) -> None:
        pattern = _name_pattern(names)
        if pattern is True:
            return
        if names is False and not any(part.schema.get(key) for key in ("properties", "patternProperties", "required")):
            part.found["additionalProperties"] = False
            return
        if pattern is None or any(part.schema.get(key) for key in ("properties", "patternProperties", "required")):
            problem = "it can be enforced as a pattern, list or length of names, where nothing else is said of them"
            raise part.refused(keyword, problem)
        others = self._lowered(part.schema.get("additionalProperties", True), at(part.path, "additionalProperties"))
        part.found |= {"patternProperties": {pattern: others}, "additionalProperties": False}

    def _format(self, part: _Part, keyword: str, name: Any) -> None:
        kinds = allowed_types(part.schema)
        if "number" in kinds and name in INTEGER_FORMATS:
            low, high = INTEGER_FORMATS[name]
            others = {"type": ["null", "boolean", "string", "array", "object"]}
            part.besides.append({"anyOf": [{"type": "number", "minimum": low, "maximum": high}, others]})
        listed = values_of(part.schema)
        if "string" not in kinds or (listed is not None and not any(isinstance(value, str) for value in listed)):
            return
        for other, value in REWORDED.get(str(name), {}).items():
            if other in part.schema and other != keyword:
                part.besides.append({other: value})
            else:
                part.found[other] = value
            return
        if name not in FORMATS:
            problem = f"the format {name!r:.40} cannot be enforced; known are {', '.join(FORMATS)}"
            raise part.refused(keyword, problem, "leave it out, or say it by a pattern")
        part.found[keyword] = name


_REWRITES: dict[str, Callable[[_Lowering, _Part, str, Any], None]] = {
    "oneOf": _Lowering._one_of,
    "not": _Lowering._not,
    "if": _Lowering._if,
    "then": _Lowering._dropped,
    "x-guidance": _Lowering._dropped,
    "else": _Lowering._dropped,
    "dependencies": _Lowering._dependencies,
    "dependentRequired": _Lowering._dependencies,
    "dependentSchemas": _Lowering._dependencies,
    "$ref": _Lowering._reference,
    "uniqueItems": _Lowering._unique,
    "minProperties": _Lowering._min_properties,
    "maxProperties": _Lowering._max_properties,
    "type": _Lowering._type,
    "multipleOf": _Lowering._multiple,
    "propertyNames": _Lowering._names,
    "format": _Lowering._format,
}


def _check_keyword(part: _Part, keyword: str) -> None:
    if keyword in REFUSED:
        raise part.refused(keyword, "this keyword cannot be enforced")
    meant = None if keyword in ENFORCED else misspelled(keyword)
    if meant is not None:
        raise part.refused(keyword, "there is no such keyword", f"did you mean {meant!r}?")


@dataclass(frozen=True, slots=True)
class _Names:
    """The names of an object's properties. are_open: whether there may be others."""

    required: frozenset[str]
    optional: tuple[str, ...]
    are_open: bool

    @staticmethod
    def of(schema: Json) -> _Names:
        given, members = schema.get("required", ()), schema.get("properties", {})
        required = frozenset(map(str, given)) if isinstance(given, list) else frozenset()
        known = members.items() if isinstance(members, dict) else ()
        optional = tuple(name for name, part in known if name not in required and part is not False)
        is_open = schema.get("additionalProperties") is not False or bool(schema.get("patternProperties"))
        return _Names(required, optional, is_open)

    def choices(self, count: int) -> list[tuple[str, ...]] | None:
        """The ways to choose so many of the optional ones; None for none or too many ways."""
        is_few = 0 < count <= len(self.optional) and comb(len(self.optional), count) <= _MAX_CHOICES
        return list(combinations(self.optional, count)) if is_few else None


def _any_object(ways: Iterable[Json]) -> Json:
    """Objects that match one of some schemas, and whatever is no object."""
    others = [name for name in TYPES if name != "object"]
    return {"anyOf": [*({"type": "object", **way} for way in ways), {"type": others}]}


_VALUES: dict[str, list[Any]] = {"null": [None], "boolean": [True, False]}


def _listed_items(schema: Json) -> list[Any] | None:
    """The values that the items of an array are taken from, if that is all that is said of them."""
    items = schema.get("items")
    if not isinstance(items, dict) or "prefixItems" in schema:
        return None
    if any(key in ENFORCED for key in items if key not in ("enum", "const", "type")):
        return None
    kinds = allowed_types(items)
    values = values_of(items)
    if values is None and kinds <= _VALUES.keys():
        values = [value for kind in sorted(kinds) for value in _VALUES[kind]]
    if values is None or any(types_of(value) in ("array", "object") for value in values):
        return None
    return list({(types_of(value), value): value for value in values if types_of(value) in kinds}.values())


def _name_pattern(names: Any) -> str | bool | None:
    """What names match, from the schema of `propertyNames`: True for any, None if it is none of the simple forms."""
    if names is True:
        return True
    if not isinstance(names, dict) or "string" not in allowed_types(names):
        return None
    said = {key: value for key, value in names.items() if (key in ENFORCED or key in REFUSED) and key != "type"}
    if said.keys() == {"pattern"}:
        return str(said["pattern"])
    if said.keys() in ({"enum"}, {"const"}):
        texts = [text for text in values_of(said) or [] if isinstance(text, str)]
        return f"^(?:{'|'.join(map(re.escape, texts))})$"
    if said.keys() <= {"minLength", "maxLength"}:
        return f"^(?s:.){{{said.get('minLength', 0)},{said.get('maxLength', '')}}}$" if said else True
    return None


def bounded(schema: Any) -> Any:
    """A lowered schema whose texts, lists and maps have bounds, but for those of which several parts of it speak."""
    combined = _combined(schema)

    def visit(part: Any, path: str, is_combined: bool) -> Any:
        if not isinstance(part, dict):
            return part
        is_combined = is_combined or path in combined
        found = map_parts(part, path, lambda inner, place: visit(inner, place, is_combined))
        if not is_combined and not any(keyword in found for keyword in _COMBINING) and values_of(found) is None:
            _add_bounds(found)
        return found

    found = visit(schema, "#", False)
    return found if problem_of(found) is None else schema


def _combined(schema: Any) -> set[str]:
    """The paths of schemas that hold together with others, which may be what bounds them."""
    found = set()
    for path, part in all_parts(schema):
        if not isinstance(part, dict):
            continue
        is_alone = sum(key in ENFORCED for key in part) == 1
        together = ["allOf", *([] if is_alone else ["anyOf"])]
        together += (
            ["properties", "patternProperties"] if part.get("properties") and "patternProperties" in part else []
        )
        found |= {place for place, _ in parts_of(part, path) if place[len(path) + 1 :].partition("/")[0] in together}
        if not is_alone and isinstance(part.get("$ref"), str):
            found.add(part["$ref"])
    return found


def _add_bounds(schema: Json) -> None:
    kinds = allowed_types(schema) if "type" in schema else set()
    if "string" in kinds:
        text = {key: schema[key] for key in ("pattern", "format") if key in schema}
        if not text or problem_of({"type": "string", "maxLength": MAX_TEXT, **text}) is None:
            _at_most(schema, "maxLength", "minLength", MAX_TEXT)
    if "array" in kinds:
        _at_most(schema, "maxItems", "minItems", MAX_ITEMS)
    is_map = schema.get("additionalProperties", False) is not False or "patternProperties" in schema
    if "object" in kinds and is_map and not schema.get("properties"):
        _at_most(schema, "maxProperties", "minProperties", MAX_ITEMS)


def _at_most(schema: Json, most: str, least: str, bound: int) -> None:
    given = schema.get(least, 0)
    if isinstance(given, int):
        schema.setdefault(most, max(bound, given))
