"""The output of a batch: on disk at once, whole at the end, and only for what it is the output of."""

from __future__ import annotations

import json
from contextlib import closing
from pathlib import Path
from types import FunctionType
from typing import Any

import pytest
import ramify as rf
from ramify.ir.errors import UsageError
from ramify.lang.identity import difference, identity, row_key
from ramify.lang.journal import Journal, open_journal
from ramify.lang.loading import load_file
from ramify.lang.options import Options

IDENTITY = {"program": "p", "source": {"p": "def p(s):\n    s += 'a'\n", "LIMIT": "3"}, "options": {"model": "tiny"}}
KEYS = [row_key({"n": number}) for number in range(3)]


def record(value: Any = None, error: Any = None) -> dict[str, Any]:
    return {"value": value, "error": error}


def begin(tmp_path: Path, how: Any = "new", **changed: Any) -> Any:
    return closing(open_journal(tmp_path / "out.jsonl", IDENTITY | changed, how, KEYS))


def finished(journal: Journal) -> list[int]:
    return [row for row, key in enumerate(KEYS) if journal.has(row, key)]


def test_rows_are_on_disk_at_once_and_ordered_at_the_end(tmp_path: Path) -> None:
    with begin(tmp_path) as journal:
        journal.add(2, KEYS[2], record("c"))
        line = json.loads((tmp_path / "out.jsonl.part").read_text())
        assert line == {"row": 2, "key": KEYS[2], "value": "c", "error": None}
        assert not journal.complete(3)
        journal.add(0, KEYS[0], record("a"))
        journal.add(1, KEYS[1], record(None, {"type": "ValueError"}))
        assert (journal.num_finished, journal.num_failed) == (3, 1)
        assert journal.complete(3)
    rows = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [row["row"] for row in rows] == [0, 1, 2]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.jsonl", "out.jsonl.meta"]


def test_resuming_drops_half_a_line(tmp_path: Path) -> None:
    with begin(tmp_path) as journal:
        journal.add(1, KEYS[1], record("b"))
    part = tmp_path / "out.jsonl.part"
    part.write_bytes(part.read_bytes() + b'{"row": 2, "val')
    with begin(tmp_path, "resume") as journal:
        assert finished(journal) == [1]
        assert journal.record(1)["value"] == "b"
        journal.add(2, KEYS[2], record("c"))
        journal.add(0, KEYS[0], record("a"))
        assert journal.complete(3)
    rows = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [(row["row"], row["value"]) for row in rows] == [(0, "a"), (1, "b"), (2, "c")]


def test_rows_taken_out_of_a_finished_output_run_again(tmp_path: Path) -> None:
    with begin(tmp_path) as journal:
        for row in range(3):
            journal.add(row, KEYS[row], record(row))
        journal.complete(3)
    out = tmp_path / "out.jsonl"
    out.write_bytes(b"".join(out.read_bytes().splitlines(keepends=True)[::2]))
    with begin(tmp_path, "resume") as journal:
        assert finished(journal) == [0, 2]
        journal.add(1, KEYS[1], record("again"))
        assert journal.complete(3)
    assert json.loads(out.read_text().splitlines()[1])["value"] == "again"


def test_outputs_of_something_else_are_refused(tmp_path: Path) -> None:
    with begin(tmp_path) as journal:
        journal.add(1, KEYS[1], record())
    path = tmp_path / "out.jsonl"
    for keys, message in [
        (KEYS[:1] * 3, "row 1 is finished in .*out.jsonl, but with other arguments than it has now"),
        (KEYS[:1], "row 1 is finished in .*out.jsonl, but there are only 1 rows now"),
    ]:
        with pytest.raises(UsageError, match=message):
            open_journal(path, IDENTITY, "resume", keys)
    with pytest.raises(UsageError, match="is the output of other options: seed = None there, 3 here"):
        begin(tmp_path, "resume", options={"model": "tiny", "seed": 3})
    with pytest.raises(UsageError, match=r"exists already\n  help: resume \(--resume\) goes on where that run stopped"):
        begin(tmp_path)
    (tmp_path / "out.jsonl.part").write_text('{"row": 7}\n')
    with pytest.raises(UsageError, match="part:1 is not a row"):
        begin(tmp_path, "resume")
    (tmp_path / "out.jsonl.meta").unlink()
    with pytest.raises(UsageError, match="does not say what the earlier run was"):
        begin(tmp_path, "resume")
    with begin(tmp_path, "overwrite"):
        assert (tmp_path / "out.jsonl.part").read_bytes() == b""


def test_an_output_that_cannot_be_resumed_stays_whole(tmp_path: Path) -> None:
    with begin(tmp_path) as journal:
        for row in range(3):
            journal.add(row, KEYS[row], record(row))
        journal.complete(3)
    path = tmp_path / "out.jsonl"
    before = path.read_bytes()
    for keys in (KEYS[:2], [*KEYS[:2], KEYS[0]]):
        with pytest.raises(UsageError, match="row 2 is finished"):
            open_journal(path, IDENTITY, "resume", keys)
        assert path.read_bytes() == before and not (tmp_path / "out.jsonl.part").exists()


def test_places_that_cannot_hold_an_output(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"the output is to be a file, and .* is a folder"):
        open_journal(tmp_path, IDENTITY, "new", None)
    with pytest.raises(UsageError, match=r"there is no folder '.*nowhere' for the output out.jsonl"):
        open_journal(tmp_path / "nowhere" / "out.jsonl", IDENTITY, "new", None)
    assert not list(tmp_path.iterdir())


def test_two_runs_cannot_write_one_output(tmp_path: Path) -> None:
    with begin(tmp_path) as first:
        first.add(0, KEYS[0], record())
        with pytest.raises(UsageError, match="another run is writing"):
            begin(tmp_path, "resume")
    with begin(tmp_path, "resume") as again:
        assert finished(again) == [0]


def test_a_failed_write_leaves_no_half_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(file: Any, data: bytes) -> None:
        file.write(data[:5])
        raise OSError("disk full")

    with begin(tmp_path) as journal:
        journal.add(0, KEYS[0], record())
        with (
            monkeypatch.context() as patch,
            pytest.raises(UsageError, match=r"out.jsonl.part cannot be written: disk full"),
        ):
            patch.setattr("ramify.lang.journal._write_all", fail)
            journal.add(1, KEYS[1], record())
        journal.add(2, KEYS[2], record())
    with begin(tmp_path, "resume") as journal:
        assert finished(journal) == [0, 2]


PROGRAM = """
import json
LIMIT = 5
EXAMPLES = ["a", "b"]

class Judge:
    def fair(self):
        return True

def count(words):
    return len(words) + LIMIT

def helper(s):
    s += json.dumps(EXAMPLES)

def main(s, question):
    helper(s)
    if Judge().fair():
        s += str(count(question))

def other(s):
    pass
"""


def made(tmp_path: Path, text: str) -> FunctionType:
    path = tmp_path / f"program_{len(list(tmp_path.iterdir()))}.py"
    path.write_text(text)
    return load_file(path).module.main  # type: ignore[no-any-return]


CHANGES = {
    "LIMIT = 5|LIMIT = 6": "an earlier version of main: LIMIT was 5 and is 6 now",
    '"b"]|"c"]': """an earlier version of main: EXAMPLES was ["a", "b"] and is ["a", "c"] now""",
    "len(words)|max(words)": (
        "an earlier version of main: the source of count has changed since\n"
        "    -    return len(words) + LIMIT\n    +    return max(words) + LIMIT"
    ),
    "return True|return False": (
        "an earlier version of main: the source of Judge has changed since\n"
        "    -        return True\n    +        return False"
    ),
    "def main(s, question):\n    helper(s)|def main(s, question):": (
        "an earlier version of main: the source of main has changed since\n    -    helper(s)"
    ),
    "def other(s):\n    pass|def other(s):\n    return 1": None,
}


@pytest.mark.parametrize("change", CHANGES)
def test_what_has_changed_is_told_in_words(tmp_path: Path, change: str) -> None:
    before, after = change.split("|")
    assert before in PROGRAM
    first = identity(made(tmp_path, PROGRAM), (), Options(backend="tiny"))
    second = identity(made(tmp_path, PROGRAM.replace(before, after)), (), Options(backend="tiny"))
    assert difference(json.loads(json.dumps(first)), second) == CHANGES[change]


def test_options_that_matter(tmp_path: Path) -> None:
    main = made(tmp_path, PROGRAM)
    base = identity(main, (), Options(backend="tiny"))
    assert base["options"] == {"model": "tiny"}
    sampled = Options(backend="tiny").updated({"seed": 3, "timeout": 5.0})
    assert difference(base, identity(main, (), sampled)) == "other options: seed = None there, 3 here"


def test_a_methods_identity_has_its_class_and_its_instance() -> None:
    class Judge:
        def __init__(self, tone: str) -> None:
            self.tone = tone

        @rf.program
        def judge(self, s):  # type: ignore[no-untyped-def]
            s += self.tone

    mild, harsh = (identity(Judge.judge.fn, (Judge(tone),), Options(backend="tiny")) for tone in ("mild", "harsh"))
    assert difference(mild, mild) is None
    told = 'self was {"tone": "mild"} and is {"tone": "harsh"} now'
    assert difference(mild, harsh) == f"an earlier version of judge: {told}"


def test_keys_tell_rows_apart() -> None:
    class Opaque:
        pass

    rows = [{"a": 1}, {"a": "1"}, {"b": 1}, {"a": [1]}, {"a": 1, "b": 1}]
    assert len({row_key(row) for row in rows}) == len(rows)
    assert row_key({"a": Opaque()}) == row_key({"a": Opaque()})
