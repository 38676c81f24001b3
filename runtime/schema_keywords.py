"""The keywords of JSON Schema (drafts 4 to 2020-12): which are enforced, which refused, which say nothing.

What is in none of the tables is an annotation, as the specification has it, unless it looks like a misspelled keyword.
"""

from __future__ import annotations

import difflib

# Enforced as they stand by llguidance, or after they were put in other words (runtime/schema_lowering.py).
ENFORCED = {
    "type": "",
    "const": "",
    "enum": "",
    "anyOf": "",
    "allOf": "",
    "oneOf": "where no text can match two of its schemas, or all but one can be said not to match",
    "not": "of types, `required`, bounds, `const`, `enum` of scalars, and `properties`, `allOf`, `anyOf` of these",
    "if": "with what `not` can take",
    "then": "",
    "else": "",
    "$ref": "inside the schema",
    "items": "",
    "prefixItems": "",
    "additionalItems": "",
    "minItems": "",
    "maxItems": "",
    "uniqueItems": "of at most one item, or of a few values that an `enum` or `type` leaves",
    "properties": "generated in their order",
    "patternProperties": "which may not overlap",
    "additionalProperties": "",
    "required": "",
    "propertyNames": "`pattern`, `enum`, `const` and lengths, of an object that says nothing else of its keys",
    "minProperties": "at most one more than is required; any number where all names are known",
    "maxProperties": "where all `properties` are required, or all names are known",
    "dependencies": "of what `not` can take",
    "dependentRequired": "",
    "dependentSchemas": "",
    "minLength": "",
    "maxLength": "",
    "pattern": "no look-around, no back-references",
    "format": "those below",
    "minimum": "",
    "maximum": "",
    "exclusiveMinimum": "",
    "exclusiveMaximum": "",
    "multipleOf": "",
}
REFUSED = (
    "contains",
    "minContains",
    "maxContains",
    "unevaluatedItems",
    "unevaluatedProperties",
    "$dynamicRef",
    "$recursiveRef",
)
ANNOTATIONS = frozenset(
    (
        "$anchor", "$comment", "$defs", "$dynamicAnchor", "$id", "$recursiveAnchor", "$schema", "$vocabulary",
        "contentEncoding", "contentMediaType", "contentSchema", "default", "definitions", "deprecated", "description",
        "example", "examples", "id", "readOnly", "title", "writeOnly",
    )
)  # fmt: skip
FORMATS = (
    "date-time", "date", "time", "duration", "email", "hostname", "ipv4", "ipv6", "uuid", "uri",
)  # fmt: skip
# Formats in other words: what JSON Schema calls by another name, and OpenAPI's base64.
REWORDED = {
    "url": {"format": "uri"},
    "byte": {"pattern": "^(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$"},
}
# What OpenAPI's formats of integers say.
INTEGER_FORMATS = {
    "int32": (-(2**31), 2**31 - 1),
    "int64": (-(2**63) + 1024, 2**63 - 1024),  # as far as llguidance's floats go
    "uint32": (0, 2**32 - 1),
}
# Keywords whose value is a schema, a list of schemas, or an object of schemas.
OF_SCHEMA = ("not", "if", "then", "else", "items", "additionalItems", "additionalProperties", "propertyNames")
OF_SCHEMAS = ("anyOf", "allOf", "oneOf", "prefixItems")
OF_NAMED_SCHEMAS = ("properties", "patternProperties", "$defs", "definitions", "dependentSchemas")

_KNOWN = (*ENFORCED, *REFUSED)


def misspelled(keyword: str) -> str | None:
    """The keyword that an unknown one was probably meant to be."""
    if keyword in ANNOTATIONS or keyword.startswith(("x-", "_", "$", "@")) or len(keyword) < 3:
        return None
    lower = {known.lower(): known for known in _KNOWN}
    near = difflib.get_close_matches(keyword.lower(), lower, 1, 0.88)
    slips = near or [known for known in lower if len(known) > 3 and _is_slip(keyword.lower(), known)]
    return lower[slips[0]] if slips else None


def _is_slip(word: str, known: str) -> bool:
    """Whether one letter is missing, too many or another one, or two stand in the other order."""
    same = [a == b for a, b in zip(word, known, strict=False)]
    start = same.index(False) if False in same else len(same)
    rest, meant = word[start:], known[start:]
    return rest[1:] in (meant, meant[1:]) or rest == meant[1:] or (rest[1::-1], rest[2:]) == (meant[:2], meant[2:])


def keyword_table() -> str:
    """The keywords as the table of docs/structured.md."""
    rows = [f"| `{name}` | enforced{': ' if note else ''}{note} |" for name, note in ENFORCED.items()]
    rows += [f"| `{name}` | refused |" for name in REFUSED]
    rows.append(f"| {', '.join(f'`{name}`' for name in sorted(ANNOTATIONS))} | say nothing of a text |")
    return "\n".join(("| keyword | |", "|---|---|", *rows))
