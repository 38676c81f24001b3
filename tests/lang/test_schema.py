"""gen(schema=T) and dtype in programs: decoded objects, forks, errors at the read, saving; eager and compiled."""

from __future__ import annotations

import dataclasses
import enum
import re
from pathlib import Path
from typing import Annotated, Literal

import msgspec
import pytest
import ramify as rf
from msgspec import Meta
from ramify.backends.scripted import ScriptedBackend
from ramify.ir.errors import BackendError, CompileError, Unsupported
from ramify.runtime.constraint import matches
from ramify.runtime.schema import schema_of

BOTH = pytest.mark.parametrize("eager", [True, False], ids=["eager", "compiled"])
Name = Annotated[str, Meta(max_length=12)]


class Kind(enum.Enum):
    FRUIT = "fruit"
    TOOL = "tool"


class Thing(msgspec.Struct):
    name: Name
    kind: Kind
    size: Annotated[int, Meta(ge=0, le=99)]


@dataclasses.dataclass
class Pair:
    first: bool
    second: Literal["a", "b"]


class Fussy(msgspec.Struct):
    number: Annotated[int, Meta(ge=0, le=9)]

    def __post_init__(self) -> None:
        raise KeyError("never")


@rf.program
def describe(s, word):
    s += rf.user(f"Describe: {word}") + rf.assistant(rf.gen("thing", schema=Thing))
    return s["thing"]


@rf.program
def with_schema(s, schema, **params):
    s += "Say: " + rf.gen("x", schema=schema, **params)
    return s["x"]


@rf.program
def with_dtype(s, dtype, **params):
    s += "n: " + rf.gen("n", dtype=dtype, **params)
    return s["n"]


@rf.program
def branches(s, words):
    for branch, word in zip(s.fork(len(words)), words, strict=True):
        branch += rf.user(word) + rf.assistant(rf.gen("thing", schema=Thing, temperature=1.0, seed=len(word)))
        s += f"{word}: {branch['thing'].kind.value}\n"
    return s.text()


@rf.program
def changes_what_it_read(s):
    s += rf.gen("x", schema=list[int]) + rf.gen("y")
    numbers = s["x"]
    before = f"{numbers} {s['y']}"
    numbers.append(0)
    s += before + f" {s['x']}"
    return s["x"]


def scripted(*replies: str) -> ScriptedBackend:
    rest = list(replies)
    return ScriptedBackend(lambda *_: rest.pop(0), delay=0.01)


@BOTH
def test_the_value_is_the_object_and_the_text_its_json(eager: bool) -> None:
    run = describe.options(temperature=1.0, seed=3).run("apple", eager=eager)
    assert isinstance(run.value, Thing) and isinstance(run.value.kind, Kind)
    text = run.trace[0].text
    assert run.messages[-1] == {"role": "assistant", "content": text}
    assert run.vars["thing"] == run["thing"] == msgspec.json.decode(text, type=Thing)
    assert run.trace[0].finish_reason == "stop" and matches(schema_of(Thing).constraint, text)
    assert isinstance(with_schema.run(Pair, eager=eager).value, Pair)
    assert with_schema.run(bool, eager=eager).value in (True, False)


def test_eager_equals_compiled() -> None:
    for seed in range(4):
        program = branches.options(max_tokens=200)
        one, other = (program.run(["apple", "saw", "pear"], eager=eager) for eager in (True, False))
        assert one.value == other.value and set(re.findall(": (.*)", one.value)) <= {"fruit", "tool"}
        drawn = describe.options(temperature=1.0, seed=seed)
        assert drawn.run("x", eager=True).value == drawn.run("x").value


@BOTH
def test_an_object_is_read_in_the_programs_order(eager: bool) -> None:
    run = changes_what_it_read.run(backend=scripted("[1,2]", "why"), eager=eager)
    assert run.value == [1, 2, 0]
    assert run.text == "[1,2]why" + "[1, 2] why [1, 2, 0]"


@BOTH
def test_max_tokens_that_cut_a_value_off_are_an_error_at_the_read(eager: bool) -> None:
    @rf.program
    def cut(s):
        s += "thing: " + rf.gen("thing", schema=Thing, max_tokens=3)
        try:
            return s["thing"].name
        except ValueError as error:
            return error

    error = cut.run(eager=eager).value
    assert isinstance(error, rf.OutputError)
    assert error.text.startswith('{"') and error.text in error.message
    assert "gen('thing', schema=Thing) generated" in error.message and "max_tokens cut it off" in error.message
    assert error.help is not None and error.help.startswith("raise max_tokens")
    assert error.span is not None and "rf.gen" in error.span.source_line()
    run = describe.options(max_tokens=3).run_batch([{"word": "x"}], eager=eager)[0]
    assert isinstance(run.error, rf.OutputError), "also when nobody reads it"
    with pytest.raises(rf.OutputError, match="max_tokens cut it off"):
        with_dtype.run(float, backend=scripted("- and so on"), max_tokens=1, eager=eager)


@BOTH
def test_what_the_type_itself_raises_reaches_the_read(eager: bool) -> None:
    with pytest.raises(KeyError, match="never"):
        with_schema.run(Fussy, backend=scripted('{"number":1}'), eager=eager)
    with pytest.raises(BackendError, match="does not match the json_schema"):
        with_schema.run(Fussy, backend=scripted('{"number":10}'), eager=eager)


@BOTH
def test_types_that_have_no_schema_and_backends_without_any(eager: bool) -> None:
    with pytest.raises(TypeError, match="schema=complex: complex has no form in JSON"):
        with_schema.run(complex, eager=eager)
    with pytest.raises(TypeError, match="it got dtype and schema"):
        with_schema.run(Thing, dtype=int, eager=eager)
    with pytest.raises(Unsupported, match="cannot take json_schema") as caught:
        with_schema.run(Thing, backend=ScriptedBackend(features=()), eager=eager)
    assert caught.value.span is not None


@BOTH
@pytest.mark.parametrize("dtype", [int, float, bool])
def test_a_dtype_holds_the_model_to_it(dtype: type, eager: bool) -> None:
    values = set()
    for seed in range(12):
        run = with_dtype.run(dtype, temperature=1.0, seed=seed, max_tokens=64, eager=eager)
        assert type(run.value) is dtype and run.trace[0].finish_reason == "stop"
        values.add(run.value)
    assert len(values) > 1


def test_a_dtype_is_converted_where_the_backend_constrains_nothing() -> None:
    backend = ScriptedBackend(lambda *_: " 42\n", features=())
    assert with_dtype.run(int, backend=backend).value == 42


MODULE = """
import enum
import msgspec
import ramify as rf

class Kind(enum.Enum):
    FRUIT = "fruit"
    TOOL = "tool"

class Thing(msgspec.Struct):
    kind: Kind
    many: bool

@rf.program
def describe(s, word):
    s += word + rf.gen("thing", schema=Thing)
    return s["thing"]
"""


def test_saving_takes_types_that_can_be_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "things_to_save.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    import things_to_save  # type: ignore[import-not-found]

    for name in ("program.ir", "program.bin"):
        things_to_save.describe.compile().save(tmp_path / name)
        loaded = rf.load(tmp_path / name, trust=True)
        value = loaded.run("apple ").value
        assert isinstance(value, things_to_save.Thing)
        assert value == things_to_save.describe.run("apple ").value

    class Local(msgspec.Struct):
        x: int

    @rf.program
    def local(s):
        s += rf.gen("x", schema=Local)

    with pytest.raises(CompileError, match="uses Local, a StructMeta, which cannot be saved"):
        local.compile().save(tmp_path / "local.ir")


def test_streaming_and_batches(tmp_path: Path) -> None:
    pieces: list[str] = []
    run = describe.run("saw", stream=lambda event: pieces.append(event.text) if event.kind == "gen" else None)
    assert "".join(pieces) == run.trace[0].text and len(pieces) > 1
    rows = [{"word": word} for word in ("apple", "saw", "hammer", "pear")]
    together = describe.run_batch(rows)
    assert [each.value for each in together] == [describe.run(**row).value for row in rows]


def test_meta_info_and_logprobs() -> None:
    run = with_schema.run(Pair, logprobs=2)
    info = run.get_meta_info("x")
    assert len(info["logprobs"]) == len(info["token_ids"]) == info["completion_tokens"]
    assert all(each.logprob <= 0 and len(each.top) == 2 for each in info["logprobs"])
    assert with_schema.run(Pair).trace[0].text == run.trace[0].text
