"""The binary form of the IR: `encode` and `decode`, and `equal`, which compares what they encode.

A file is a header (magic, version, payload length, checksum) and a msgpack payload of records. Strings stand in one
table and are named by their index; values are numbered in the order of their definition within each function.
Decoding trusts nothing: whatever is wrong with the bytes ends in a DecodeError.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any, TypeVar

import msgspec

from .core import Attr, Function, Inlined, Module, Op, Region, Value
from .errors import DecodeError, IRError
from .span import Span
from .types import KINDS, Type

# As in PNG, the first byte is not UTF-8, and the line ends show a transfer that rewrote them.
MAGIC = b"\x89ramify\r\n\n"
VERSION = 2
_HEADER = struct.Struct(">HQ16s")
_DEEPEST_TYPE = 64
# msgpack extension codes: what msgpack itself cannot say.
_TEXT, _INT, _DICT = 1, 2, 3
_T = TypeVar("_T")


class _OpRecord(msgspec.Struct, array_like=True, forbid_unknown_fields=True):
    """name, operands (value numbers), results (type, name), attrs (key, value), regions, span (file and 4 numbers),
    inlined (callee, span).
    """

    name: int
    operands: list[int]
    results: list[tuple[int, int]]
    attrs: list[tuple[int, Any]]
    regions: list[_RegionRecord]
    span: tuple[int, int, int, int, int] | None
    inlined: list[tuple[int, tuple[int, int, int, int, int] | None]]


class _RegionRecord(msgspec.Struct, array_like=True, forbid_unknown_fields=True):
    """args (type, name) and ops."""

    args: list[tuple[int, int]]
    ops: list[_OpRecord]


class _FunctionRecord(msgspec.Struct, array_like=True, forbid_unknown_fields=True):
    """name, parameter names, body, span."""

    name: int
    param_names: list[int]
    body: _RegionRecord
    span: tuple[int, int, int, int, int] | None


class _ModuleRecord(msgspec.Struct, array_like=True, forbid_unknown_fields=True):
    """The string table first, then the module's parts in terms of it."""

    strings: list[bytes]
    entry: int
    functions: list[_FunctionRecord]
    sources: list[tuple[int, int]]
    imports: list[tuple[int, int]]
    constants: list[tuple[int, Any]]


def encode(module: Module) -> bytes:
    """The module as bytes; it must be one that `verify` accepts."""
    payload = _Writer(names=True, spans=True).payload(module)
    return MAGIC + _HEADER.pack(VERSION, len(payload), _checksum(payload)) + payload


def decode(data: bytes) -> Module:
    """The module that `encode` made the bytes from; raises DecodeError for any others."""
    payload = _checked_payload(data)
    try:
        record = msgspec.msgpack.decode(payload, type=_ModuleRecord)
        return _Reader(record).module()
    except (msgspec.MsgspecError, ValueError, TypeError, OverflowError, RecursionError) as error:
        raise DecodeError(f"the binary IR is damaged: {error}") from None


def equal(a: Module, b: Module, *, spans: bool = True) -> bool:
    """Whether two modules are the same but for the names of their values (and, without `spans`, their spans).

    1, 1.0 and True differ, as do 0.0 and -0.0; nan is nan. The order of an op's attributes does not count, that of the
    keys inside an attribute does, as host code can see it.
    """
    first, second = (_Writer(names=False, spans=spans).payload(module) for module in (a, b))
    return first == second


def _checksum(payload: bytes) -> bytes:
    return blake2b(payload, digest_size=16).digest()


def _checked_payload(data: bytes) -> bytes:
    start = len(MAGIC) + _HEADER.size
    if data[: len(MAGIC)] != MAGIC[: len(data)]:
        raise DecodeError(f"this is not binary IR: it starts with {data[: len(MAGIC)]!r}, not {MAGIC!r}")
    if len(data) < start:
        raise DecodeError(f"the binary IR is truncated: {len(data)} bytes, where the header alone takes {start}")
    version, length, checksum = _HEADER.unpack_from(data, len(MAGIC))
    if version != VERSION:
        raise DecodeError(f"the binary IR is of version {version}; this ramify reads version {VERSION}")
    if len(data) - start != length:
        what = "truncated" if len(data) - start < length else "followed by other bytes"
        raise DecodeError(f"the binary IR is {what}: {len(data) - start} bytes after the header, which says {length}")
    if _checksum(data[start:]) != checksum:
        raise DecodeError("the binary IR is damaged: its checksum does not match")
    return data[start:]


@dataclass(slots=True)
class _Writer:
    """Turns a module into records. Without `names`, into a form that is the same for all equal modules."""

    names: bool
    spans: bool
    strings: dict[str, int] = field(default_factory=dict)
    numbers: dict[Value, int] = field(default_factory=dict)

    def payload(self, module: Module) -> bytes:
        functions = [self.function(function) for function in module.functions.values()]
        sources, imports = (
            [(self.string(k), self.string(v)) for k, v in self.items(table)]
            for table in (module.sources, module.imports)
        )
        constants = self.attrs(module.constants)
        entry = self.string(module.entry)
        strings = [text.encode("utf-8", "surrogatepass") for text in self.strings]
        return msgspec.msgpack.encode(_ModuleRecord(strings, entry, functions, sources, imports, constants))

    def function(self, function: Function) -> _FunctionRecord:
        self.numbers = {}
        name, parameters = self.string(function.name), [self.string(name) for name in function.param_names]
        return _FunctionRecord(name, parameters, self.region(function.body), self.span(function.span))

    def region(self, region: Region) -> _RegionRecord:
        args = [self.define(arg) for arg in region.args]
        return _RegionRecord(args, [self.op(op) for op in region.ops])

    def op(self, op: Op) -> _OpRecord:
        name, operands = self.string(op.name), [self.use(op, value) for value in op.operands]
        attrs, regions = self.attrs(op.attrs), [self.region(region) for region in op.regions]
        results = [self.define(result) for result in op.results]
        inlined = [(self.string(call.callee), self.span(call.span)) for call in op.inlined]
        return _OpRecord(name, operands, results, attrs, regions, self.span(op.span), inlined)

    def define(self, value: Value) -> tuple[int, int]:
        self.numbers[value] = len(self.numbers)
        return self.string(str(value.type)), self.string(value.name if self.names else "")

    def use(self, op: Op, value: Value) -> int:
        if value not in self.numbers:
            raise IRError(f"{op.name} uses a value (%{value.name}) that no op before it defines", span=op.span)
        return self.numbers[value]

    def span(self, span: Span | None) -> tuple[int, int, int, int, int] | None:
        if span is None or not self.spans:
            return None
        return self.string(span.file), span.line, span.column, span.end_line, span.end_column

    def string(self, text: str) -> int:
        return self.strings.setdefault(text, len(self.strings))

    def attrs(self, attrs: dict[str, Attr]) -> list[tuple[int, Any]]:
        return [(self.string(key), _pack(value)) for key, value in self.items(attrs)]

    def items(self, table: dict[str, _T]) -> list[tuple[str, _T]]:
        return list(table.items()) if self.names else sorted(table.items(), key=lambda item: item[0])


def _pack(value: Attr) -> Any:
    """The value in terms that msgpack has: wide ints, text that is no UTF-8 and dicts of such keys are extensions."""
    if isinstance(value, list):
        return [_pack(item) for item in value]
    if isinstance(value, dict):
        return _pack_dict(value)
    if isinstance(value, str) and not _is_utf8(value):
        return msgspec.msgpack.Ext(_TEXT, value.encode("utf-8", "surrogatepass"))
    if isinstance(value, int) and not -(2**63) <= value < 2**64:
        return msgspec.msgpack.Ext(_INT, value.to_bytes(value.bit_length() // 8 + 1, "big", signed=True))
    if isinstance(value, float) and value != value:
        return float("nan")  # one bit pattern for all
    return value


def _pack_dict(value: dict[str, Attr]) -> Any:
    if all(map(_is_utf8, value)):
        return {key: _pack(item) for key, item in value.items()}
    pairs = [[_pack(key), _pack(item)] for key, item in value.items()]
    return msgspec.msgpack.Ext(_DICT, msgspec.msgpack.encode(pairs))


def _unpack(value: Any) -> Attr:
    if isinstance(value, list):
        return [_unpack(item) for item in value]
    if isinstance(value, dict):
        return _dict_of(value.items())
    if isinstance(value, msgspec.msgpack.Ext):
        return _unpack_extension(value.code, bytes(value.data))
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise ValueError(f"no attribute holds {value!r}")


def _unpack_extension(code: int, data: bytes) -> Attr:
    if code == _TEXT:
        return data.decode("utf-8", "surrogatepass")
    if code == _INT:
        return int.from_bytes(data, "big", signed=True)
    if code == _DICT:
        return _dict_of(msgspec.msgpack.decode(data, type=list[tuple[Any, Any]]))
    raise ValueError(f"no attribute is of the kind {code}")


def _dict_of(items: Any) -> dict[str, Attr]:
    found = {_unpack(key): _unpack(item) for key, item in items}
    if not all(isinstance(key, str) for key in found):
        raise ValueError("the keys of a dict are not strings")
    return found


def _is_utf8(text: str) -> bool:
    return text.isascii() or not any("\ud800" <= character <= "\udfff" for character in text)


class _Reader:
    """Turns records back into a module; every index is checked."""

    def __init__(self, record: _ModuleRecord) -> None:
        self.record = record
        self.strings = [text.decode("utf-8", "surrogatepass") for text in record.strings]
        self.values: list[Value] = []

    def module(self) -> Module:
        record = self.record
        functions = self.table((function.name, self.function(function)) for function in record.functions)
        sources, imports = (
            self.table((key, self.string(text)) for key, text in table) for table in (record.sources, record.imports)
        )
        return Module(functions, self.string(record.entry), sources, imports, self.attrs(record.constants))

    def function(self, record: _FunctionRecord) -> Function:
        self.values = []
        names = [self.string(name) for name in record.param_names]
        return Function(self.string(record.name), self.region(record.body), names, self.span(record.span))

    def region(self, record: _RegionRecord) -> Region:
        args = [self.define(arg) for arg in record.args]
        return Region(args, [self.op(op) for op in record.ops])

    def op(self, record: _OpRecord) -> Op:
        made = Op(self.string(record.name), [_at(self.values, number, "value") for number in record.operands])
        made.attrs = self.attrs(record.attrs)
        made.regions = [self.region(region) for region in record.regions]
        made.results = [self.define(result) for result in record.results]
        made.span = self.span(record.span)
        made.inlined = tuple(Inlined(self.string(callee), self.span(span)) for callee, span in record.inlined)
        return made

    def define(self, record: tuple[int, int]) -> Value:
        value = Value(_type(self.string(record[0])), self.string(record[1]))
        self.values.append(value)
        return value

    def span(self, record: tuple[int, int, int, int, int] | None) -> Span | None:
        return None if record is None else Span(self.string(record[0]), *record[1:])

    def string(self, index: int) -> str:
        return _at(self.strings, index, "string")

    def attrs(self, record: list[tuple[int, Any]]) -> dict[str, Attr]:
        return self.table((key, _unpack(value)) for key, value in record)

    def table(self, items: Any) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for index, item in items:
            key = self.string(index)
            if key in found:
                raise ValueError(f"{key} occurs twice in a table")
            found[key] = item
        return found


def _at(items: Sequence[_T], index: int, what: str) -> _T:
    if not 0 <= index < len(items):
        raise ValueError(f"there is no {what} {index}")
    return items[index]


def _type(text: str) -> Type:
    depth, kind = text.count("<"), text.replace("list<", "").rstrip(">")
    if depth > _DEEPEST_TYPE or kind not in KINDS or kind == "list" or text != "list<" * depth + kind + ">" * depth:
        raise ValueError(f"there is no type {text[:40]}")
    made = Type(kind)
    for _ in range(depth):
        made = Type("list", made)
    return made
