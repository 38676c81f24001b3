"""The binary form and files: damage of any kind ends in a DecodeError, and host code is loaded with trust only."""

from __future__ import annotations

import contextlib
import random
from pathlib import Path

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from ramify.ir.codec import MAGIC, VERSION, _checksum, decode, encode, equal
from ramify.ir.core import Function, Module, Op, Region, Value
from ramify.ir.errors import DecodeError, IRError, ParseError, UntrustedCode, VerifyError
from ramify.ir.files import load, save
from ramify.ir.parser import parse
from ramify.ir.printer import print_module
from ramify.ir.types import OBJ

from .strategies import modules

_SETTINGS = settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
_HEADER_LEN = len(MAGIC) + 26

_PLAIN = "module @m func @m(%x: obj) { %p = prompt.empty : prompt %q = prompt.append %p, %x : prompt flow.return %q }"
_HOST = """module @m
source m =
  | def m(x):
  |     return x
import np = "numpy"
func @m(%x: obj) {
  %y = py.expr %x {code = "x.größe()", inputs = ["x"]} : obj
  %z = py.block %x {inputs = ["x"], outputs = ["z"], code =
      | z = 1
      | z += x
    } : obj
  flow.return %y
}
func @g(%x: obj) {
  %y = py.call %x {callee = "m"} : obj
  flow.return %y
}
"""


def _framed(payload: bytes, version: int = VERSION) -> bytes:
    """The payload with a header that fits it: damage that no checksum shows."""
    return MAGIC + version.to_bytes(2, "big") + len(payload).to_bytes(8, "big") + _checksum(payload) + payload


def _decode_or_refuse(data: bytes) -> None:
    with contextlib.suppress(DecodeError):
        decode(data)


@_SETTINGS
@given(modules(), st.randoms(use_true_random=False))
def test_damaged_bytes_are_refused(module: Module, rng: random.Random) -> None:
    data = encode(module)
    for _ in range(20):
        with pytest.raises(DecodeError):
            decode(data[: rng.randrange(len(data))])
        flipped = bytearray(data)
        flipped[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        with pytest.raises(DecodeError):
            decode(bytes(flipped))


@_SETTINGS
@given(modules(), st.randoms(use_true_random=False))
def test_forged_payloads_decode_or_are_refused(module: Module, rng: random.Random) -> None:
    payload = encode(module)[_HEADER_LEN:]
    for _ in range(50):
        changed = bytearray(payload)
        for _ in range(rng.randint(1, 3)):
            changed[rng.randrange(len(payload))] = rng.randrange(256)
        _decode_or_refuse(_framed(bytes(changed)))
        _decode_or_refuse(_framed(payload[: rng.randrange(len(payload))]))


@given(st.binary(max_size=60))
def test_random_bytes_are_refused(data: bytes) -> None:
    _decode_or_refuse(_framed(data))
    with pytest.raises(DecodeError):
        decode(data)


def _refusal(data: bytes) -> str:
    with pytest.raises(DecodeError) as caught:
        decode(data)
    return str(caught.value)


def test_refusals_say_what_is_wrong() -> None:
    data = encode(parse(_PLAIN))
    assert _refusal(b"PK\3\4").startswith("this is not binary IR: it starts with b'PK")
    assert _refusal(b"") == "the binary IR is truncated: 0 bytes, where the header alone takes 36"
    assert _refusal(data[:20]) == "the binary IR is truncated: 20 bytes, where the header alone takes 36"
    rest = len(data) - _HEADER_LEN
    assert _refusal(data[:-1]) == f"the binary IR is truncated: {rest - 1} bytes after the header, which says {rest}"
    assert _refusal(data + b"!").startswith("the binary IR is followed by other bytes")
    assert _refusal(_framed(data[_HEADER_LEN:], 7)) == "the binary IR is of version 7; this ramify reads version 2"
    assert _refusal(data[:-1] + b"!") == "the binary IR is damaged: its checksum does not match"


def _record(**changes: object) -> bytes:
    """A payload for `func @f(%a: obj) { flow.return %a }` with some of its parts replaced."""
    parts: dict[str, object] = {
        "strings": [b"f", b"obj", b"a", b"flow.return"],
        "entry": 0,
        "args": [[1, 2]],
        "operands": [0],
        "results": [],
        "attrs": [],
        "span": None,
        "inlined": [],
        "constants": [],
        **changes,
    }
    op = [3, parts["operands"], parts["results"], parts["attrs"], [], parts["span"], parts["inlined"]]
    function = [0, [2], [parts["args"], [op]], None]
    return msgspec.msgpack.encode([parts["strings"], parts["entry"], [function], [], [], parts["constants"]])


_FORGED = {
    "there is no string 9": {"entry": 9},
    "there is no string -1": {"entry": -1},
    "there is no string 7": {"inlined": [[7, None]]},
    "there is no value 1": {"operands": [1]},
    "there is no value -1": {"operands": [-1]},
    "there is no type f": {"args": [[0, 2]]},
    "there is no type list<list<": {"strings": [b"f", b"list<" * 100 + b"obj" + b">" * 100, b"a", b"flow.return"]},
    "there is no type list": {"strings": [b"f", b"list", b"a", b"flow.return"]},
    "a occurs twice in a table": {"attrs": [[2, 1], [2, 1]]},
    "no attribute holds b'x'": {"attrs": [[2, b"x"]]},
    "no attribute is of the kind 9": {"constants": [[2, msgspec.msgpack.Ext(9, b"")]]},
    "the keys of a dict are not strings": {"attrs": [[2, {1: 2}]]},
    "Expected `int`, got `str`": {"operands": ["0"]},
}


@pytest.mark.parametrize("message", _FORGED)
def test_forged_records_are_refused(message: str) -> None:
    assert print_module(decode(_framed(_record()))) == "module @f\n\nfunc @f(%a: obj) {\n  flow.return %a\n}\n"
    assert f"the binary IR is damaged: {message}" in _refusal(_framed(_record(**_FORGED[message])))


def test_value_without_a_definition_cannot_be_encoded() -> None:
    region = Region([], [Op("flow.return", [Value(OBJ, "x")])])
    with pytest.raises(IRError, match=r"flow.return uses a value \(%x\) that no op before it defines"):
        encode(Module({"f": Function("f", region, [])}, "f"))


@pytest.mark.parametrize("name", ["m.ir", "m.irb", "m"])
def test_files_are_told_apart_by_content(tmp_path: Path, name: str) -> None:
    module = parse(_PLAIN)
    save(module, tmp_path / name)
    assert (tmp_path / name).read_bytes().startswith(b"module @m" if name == "m.ir" else MAGIC)
    (tmp_path / name).rename(tmp_path / "other.txt")
    assert equal(load(tmp_path / "other.txt"), module)
    assert [path.name for path in tmp_path.iterdir()] == ["other.txt"]


def test_invalid_modules_are_neither_saved_nor_loaded(tmp_path: Path) -> None:
    invalid = "module @m func @m(%x: obj) { flow.yield %x }"
    with pytest.raises(VerifyError):
        save(parse(invalid), tmp_path / "m.ir")
    assert not list(tmp_path.iterdir())
    (tmp_path / "m.ir").write_text(invalid)
    with pytest.raises(VerifyError):
        load(tmp_path / "m.ir")


def test_files_that_hold_no_module(tmp_path: Path) -> None:
    path = tmp_path / "m.ir"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DecodeError, match="holds neither binary IR nor text"):
        load(path)
    path.write_text("hello")
    with pytest.raises(ParseError, match=r"m\.ir:1:1"):
        load(path)
    path.write_bytes(MAGIC)
    with pytest.raises(DecodeError, match="truncated"):
        load(path)
    with pytest.raises(FileNotFoundError):
        load(tmp_path / "absent.ir")


@pytest.mark.parametrize("name", ["m.ir", "m.irb"])
def test_host_code_needs_trust(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    save(parse(_HOST), path)
    with pytest.raises(UntrustedCode) as caught:
        load(path)
    assert str(caught.value) == (
        f"{path} holds host code, which loading it would let run: 3 pieces of Python; the source of m; imports of "
        "numpy\n"
        "    @m: x.größe()\n"
        "    @m: z = 1 ... (2 lines)\n"
        "    @g: the whole body of m\n"
        f"  help: if you trust where it comes from, load({str(path)!r}, trust=True)"
    )
    assert equal(load(path, trust=True), parse(_HOST))


@pytest.mark.parametrize("table", ['source m = "import os"', 'import os = "os"'])
def test_sources_and_imports_alone_need_trust(tmp_path: Path, table: str) -> None:
    save(parse(_PLAIN.replace("func", f"{table} func")), tmp_path / "m")
    with pytest.raises(UntrustedCode, match="0 pieces of Python"):
        load(tmp_path / "m")


def test_excerpts_are_few_short_and_harmless(tmp_path: Path) -> None:
    module = parse(_PLAIN)
    code = f"'\x1b[2J{'x' * 200}'"
    module.functions["m"].body.ops[:0] = [
        Op("py.expr", [], [Value(OBJ)], {"code": code, "inputs": []}) for _ in range(9)
    ]
    save(module, tmp_path / "m")
    with pytest.raises(UntrustedCode) as caught:
        load(tmp_path / "m")
    lines = str(caught.value).split("\n")
    assert lines[-2] == "    ... and 4 more"
    assert len(lines) == 8
    assert lines[1].startswith("    @m: '\\x1b[2Jxxx")
    assert len(lines[1]) < 100
