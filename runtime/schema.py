"""Python types as JSON schemas, and JSON back as their values: `gen(schema=T)`.

T is what msgspec decodes: its Structs, dataclasses, TypedDicts, NamedTuples, enums, Literal, unions, containers,
numbers, text, dates, UUID, Decimal and bytes, with `msgspec.Meta` constraints. The schema is as narrow as the decoder:
where JSON Schema has no word for what a decoder takes (a day that exists, base64 of so many bytes), a pattern says it.
Objects of declared fields are closed, and their fields come in their order.
"""

from __future__ import annotations

import enum
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache, singledispatchmethod
from typing import Any

import msgspec
from msgspec import inspect

from .constraint import Constraint

Json = dict[str, Any]


@dataclass(frozen=True)
class Schema:
    """A type with the constraint under which JSON for it is generated."""

    type: Any
    constraint: Constraint
    decoder: msgspec.json.Decoder[Any] = field(compare=False, repr=False)

    @property
    def asked(self) -> str:
        """What the gen says."""
        return f"schema={self.name}"

    @property
    def name(self) -> str:
        """The type as its author writes it."""
        return type_name(self.type)

    def decode(self, text: str) -> Any:
        """The value that a JSON text stands for. Raises ValueError that says what is wrong, and where in the text.

        A float with an exponent too large for it is infinite, as for Python's own json.
        """
        try:
            return self._decoded(text)
        except msgspec.MsgspecError as error:
            raise ValueError(str(error)) from None

    def _decoded(self, text: str) -> Any:
        try:
            return self.decoder.decode(text)
        except msgspec.MsgspecError as error:
            if "out of range" not in str(error):
                raise
        return msgspec.convert(json.loads(text), self.type, builtin_types=(), str_keys=True)


def schema_of(type_: Any) -> Schema:
    """The schema of a type. Raises TypeError for a type that has none."""
    try:
        return _schema_once(type_)
    except TypeError as error:
        if "unhashable" not in str(error):
            raise
        return _schema_of(type_)


def _schema_of(type_: Any) -> Schema:
    try:
        decoder = msgspec.json.Decoder(type_)
        info = inspect.type_info(type_)
    except (TypeError, NameError) as error:
        hint = "; define the types where they can be imported" if isinstance(error, NameError) else ""
        raise TypeError(f"schema={type_name(type_)}: {error}{hint}") from None
    text = msgspec.json.encode(_Writer(type_name(type_)).schema(info)).decode()
    return Schema(type_, Constraint("json_schema", text), decoder)


_schema_once = lru_cache(maxsize=256)(_schema_of)


def type_name(type_: Any) -> str:
    """A class by its name, another type as Python shows it."""
    return type_.__name__ if isinstance(type_, type) and not hasattr(type_, "__args__") else repr(type_)


_LENGTHS = {"string": ("minLength", "maxLength"), "array": ("minItems", "maxItems")}
_BOUNDS = {"ge": "minimum", "gt": "exclusiveMinimum", "le": "maximum", "lt": "exclusiveMaximum"}

# Days that exist, from year 1; of the leap years those of a century apart.
_YEAR = "(?:000[1-9]|00[1-9][0-9]|0[1-9][0-9]{2}|[1-9][0-9]{3})"
_LONG_MONTHS = "(?:0[13578]|1[02])-(?:0[1-9]|[12][0-9]|3[01])"
_SHORT_MONTHS = "(?:0[469]|11)-(?:0[1-9]|[12][0-9]|30)|02-(?:0[1-9]|1[0-9]|2[0-8])"
_FOURTH = "(?:0[48]|[2468][048]|[13579][26])"
_DATE = f"(?:{_YEAR}-(?:{_LONG_MONTHS}|{_SHORT_MONTHS})|(?:[0-9]{{2}}{_FOURTH}|{_FOURTH}00)-02-29)"
_TIME = r"(?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](?:\.[0-9]{1,6})?"
_ZONE = "(?:Z|[+-](?:[01][0-9]|2[0-3]):[0-5][0-9])"
_SECONDS = r"[0-9]{1,8}(?:\.[0-9]{1,6})?S"
_CLOCK = f"T(?:[0-9]{{1,6}}H(?:[0-9]{{1,6}}M)?(?:{_SECONDS})?|[0-9]{{1,6}}M(?:{_SECONDS})?|{_SECONDS})"
_DURATION = f"-?P(?:[0-9]{{1,8}}D(?:{_CLOCK})?|{_CLOCK})"
_UUID = "[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}"
_INTEGER = "-?(?:0|[1-9][0-9]*)"
_DECIMAL = r"-?(?:0|[1-9][0-9]{0,27})(?:\.[0-9]{1,28})?"
_BASE64 = "[A-Za-z0-9+/]"


class _Writer:
    """Writes the schema of one type; types with fields go to "$defs", since they may contain themselves."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._defs: Json = {}
        self._places: dict[int, str] = {}

    def schema(self, info: inspect.Type) -> Json:
        """The whole schema."""
        root = self._of(info)
        return {**root, "$defs": self._defs} if self._defs else root

    @singledispatchmethod
    def _of(self, info: Any) -> Json:
        """The schema of a part."""
        kind = getattr(info, "cls", type(info))
        raise TypeError(f"schema={self._name}: {type_name(kind)} has no form in JSON")

    @_of.register
    def _(self, info: inspect.Metadata) -> Json:
        return self._of(info.type)

    @_of.register(inspect.AnyType)
    @_of.register(inspect.RawType)
    def _(self, _: Any) -> Json:
        return {}

    @_of.register
    def _(self, _: inspect.NoneType) -> Json:
        return {"type": "null"}

    @_of.register
    def _(self, _: inspect.BoolType) -> Json:
        return {"type": "boolean"}

    @_of.register
    def _(self, info: inspect.IntType) -> Json:
        return {"type": "integer", **_bounds(info)}

    @_of.register
    def _(self, info: inspect.FloatType) -> Json:
        return {"type": "number", **_bounds(info)}

    @_of.register
    def _(self, info: inspect.StrType) -> Json:
        pattern = {} if info.pattern is None else {"pattern": info.pattern}
        return {"type": "string", **_lengths("string", info), **pattern}

    @_of.register(inspect.BytesType)
    @_of.register(inspect.ByteArrayType)
    @_of.register(inspect.MemoryViewType)
    def _(self, info: Any) -> Json:
        return _pattern(_base64(info.min_length or 0, info.max_length))

    @_of.register
    def _(self, info: inspect.DateTimeType) -> Json:
        return _pattern(f"{_DATE}T{_TIME}{_zone(info.tz)}")

    @_of.register
    def _(self, info: inspect.TimeType) -> Json:
        return _pattern(_TIME + _zone(info.tz))

    @_of.register
    def _(self, _: inspect.DateType) -> Json:
        return _pattern(_DATE)

    @_of.register
    def _(self, _: inspect.TimeDeltaType) -> Json:
        return _pattern(_DURATION)

    @_of.register
    def _(self, _: inspect.UUIDType) -> Json:
        return _pattern(_UUID)

    @_of.register
    def _(self, _: inspect.DecimalType) -> Json:
        return _pattern(_DECIMAL)

    @_of.register
    def _(self, info: inspect.EnumType) -> Json:
        return {"enum": _members(info)}

    @_of.register
    def _(self, info: inspect.LiteralType) -> Json:
        return {"enum": list(info.values)}

    @_of.register
    def _(self, info: inspect.UnionType) -> Json:
        return {"anyOf": [self._of(each) for each in info.types]}

    @_of.register(inspect.ListType)
    @_of.register(inspect.SetType)
    @_of.register(inspect.FrozenSetType)
    @_of.register(inspect.VarTupleType)
    def _(self, info: Any) -> Json:
        return {"type": "array", "items": self._of(info.item_type), **_lengths("array", info)}

    @_of.register
    def _(self, info: inspect.TupleType) -> Json:
        return _positional([self._of(each) for each in info.item_types], len(info.item_types))

    @_of.register
    def _(self, info: inspect.DictType) -> Json:
        sizes = {"minProperties": info.min_length, "maxProperties": info.max_length}
        values = self._of(info.value_type)
        pattern = self._key_pattern(info.key_type)
        if pattern is None:
            return {"type": "object", "additionalProperties": values, **_given(sizes)}
        members = {"patternProperties": {pattern: values}, "additionalProperties": False}
        return {"type": "object", **members, **_given(sizes)}

    @_of.register
    def _(self, info: inspect.StructType) -> Json:
        return self._shared(info, self._struct)

    @_of.register(inspect.DataclassType)
    @_of.register(inspect.TypedDictType)
    def _(self, info: Any) -> Json:
        return self._shared(info, self._object)

    @_of.register
    def _(self, info: inspect.NamedTupleType) -> Json:
        return self._shared(info, self._array)

    def _shared(self, info: Any, write: Callable[[Any], Json]) -> Json:
        """A reference to the definition of a class, which is written when it is first met."""
        place = self._places.get(id(info))
        if place is None:
            name = re.sub(r"[^A-Za-z0-9_]", "_", info.cls.__name__)  # "<lambda>" is none that a reference may hold
            place = self._places[id(info)] = f"{name}{len(self._places) or ''}"
            self._defs[place] = {}
            self._defs[place] = write(info)
        return {"$ref": f"#/$defs/{place}"}

    def _struct(self, info: inspect.StructType) -> Json:
        tag = None if info.tag is None else {"const": info.tag}
        if info.array_like:
            return self._array(info, [] if tag is None else [tag])
        assert tag is None or info.tag_field is not None
        return self._object(info, {} if tag is None else {str(info.tag_field): tag})

    def _object(self, info: Any, first: Json | None = None) -> Json:
        properties = dict(first or {})
        required = list(properties)
        for each in info.fields:
            properties[each.encode_name] = self._of(each.type)
            if each.required:
                required.append(each.encode_name)
        return {"type": "object", "properties": properties, "required": required, "additionalProperties": False}

    def _array(self, info: Any, first: Sequence[Json] = ()) -> Json:
        items = [*first, *(self._of(each.type) for each in info.fields)]
        return _positional(items, len(first) + sum(each.required for each in info.fields))

    def _key_pattern(self, info: inspect.Type) -> str | None:
        """What the keys of an object match, or None for any text."""
        info = info.type if isinstance(info, inspect.Metadata) else info
        schema = {} if isinstance(info, inspect.AnyType) else self._of(info)
        match schema:
            case {"enum": values}:
                return f"^(?:{'|'.join(re.escape(str(value)) for value in values)})$"
            case {"type": "integer", **rest} if not rest:
                return f"^{_INTEGER}$"
            case {"type": "string", "pattern": pattern, **rest} if not rest:
                return str(pattern)
            case {"type": "string", **rest} if rest and "pattern" not in rest:
                return f"^(?s:.){{{rest.get('minLength', 0)},{rest.get('maxLength', '')}}}$"
            case {"type": "string"} | {}:
                if len(schema) < 2:
                    return None
        raise TypeError(f"schema={self._name}: a JSON schema cannot say this of an object's keys: {schema}")


def _given(values: Json) -> Json:
    return {key: value for key, value in values.items() if value is not None}


def _bounds(info: inspect.IntType | inspect.FloatType) -> Json:
    bounds = {word: getattr(info, name) for name, word in _BOUNDS.items()}
    return _given({**bounds, "multipleOf": info.multiple_of})


def _lengths(kind: str, info: Any) -> Json:
    least, most = _LENGTHS[kind]
    return _given({least: info.min_length, most: info.max_length})


def _pattern(pattern: str) -> Json:
    return {"type": "string", "pattern": f"^{pattern}$"}


def _zone(is_aware: bool | None) -> str:
    return f"{_ZONE}?" if is_aware is None else _ZONE if is_aware else ""


def _base64(least: int, most: int | None) -> str:
    """Base64 of `least` to `most` bytes: groups of three, and one or two bytes left over."""
    ways = []
    for left, end in enumerate(("", f"{_BASE64}[AQgw]==", f"{_BASE64}{{2}}[AEIMQUYcgkosw048]=")):
        first = max(0, -(-(least - left) // 3))
        last = None if most is None else (most - left) // 3
        if last is None or first <= last:
            ways.append(f"(?:{_BASE64}{{4}}){{{first},{'' if last is None else last}}}{end}")
    return f"(?:{'|'.join(ways)})"


def _members(info: inspect.EnumType) -> list[Any]:
    members: type[enum.Enum] = info.cls
    return [member.value for member in members]


def _positional(items: list[Json], required: int) -> Json:
    return {"type": "array", "prefixItems": items, "items": False, "minItems": required, "maxItems": len(items)}
