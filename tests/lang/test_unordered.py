"""Unordered groups: as written in single runs, in batches what rows share first; never anything lost or doubled."""

from __future__ import annotations

import itertools
import random

import pytest
import ramify as rf
from hypothesis import given, settings
from hypothesis import strategies as st
from ramify.backends.local import LocalBackend
from ramify.backends.scripted import ScriptedBackend
from ramify.backends.tiny import model_dir
from ramify.ir.errors import UsageError
from ramify.lang.cli import main
from ramify.runtime.arranging import Decisions


@rf.program
def table(s, fields):
    s += "Table\n"
    with s.unordered():
        for name, value in fields.items():
            s += f"{name}: {value}\n"
    s += "Answer:" + rf.gen("answer", max_tokens=3)
    return s["answer"]


ROWS = [
    {"fields": {"review": f"review number {row}", "brand": "one brand of many", "product": f"the product {row % 2}"}}
    for row in range(6)
]


def lines(run):
    return run.text.split("Answer:")[0].splitlines()


def test_a_single_run_keeps_the_written_order():
    backend = ScriptedBackend()
    run = table.run(**ROWS[0], backend=backend)
    assert run.text == table.run(**ROWS[0], backend=backend, eager=True).text
    assert lines(run)[1:] == ["review: review number 0", "brand: one brand of many", "product: the product 0"]


def test_rows_of_a_batch_begin_with_what_they_share():
    runs = table.run_batch(ROWS, backend=ScriptedBackend())
    written = table.options(disable="reorder").run_batch(ROWS, backend=ScriptedBackend())
    for run, as_written in zip(runs, written, strict=True):
        assert sorted(lines(run)) == sorted(lines(as_written))
        assert lines(run)[1] == "brand: one brand of many"
        assert lines(run)[3].startswith("review")
    assert [lines(run)[1] for run in written] == [f"review: review number {row}" for row in range(6)]


def test_fewer_tokens_are_computed():
    import torch

    def computed(program):
        backend = LocalBackend(model_dir(), dtype=torch.float32)
        runs = program.run_batch(ROWS * 2, backend=backend)
        backend.close()
        return sum(run.usage.prompt_tokens - run.usage.cached_tokens for run in runs)

    assert computed(table) < 0.7 * computed(table.options(disable="reorder"))


@rf.program
def priced(s, product, shared, is_new):
    with s.unordered():
        s += f"{product}\n"
        s += f"{shared}, which is a long text that all rows of the batch share\n"
        if is_new:
            s += "It is new.\n"
        s += "In francs.\n"
        s += "With taxes.\n"
    s += rf.gen("price", max_tokens=2)


def test_constants_come_first_then_what_is_shared_then_the_rest():
    rows = [{"product": name, "shared": "Made here", "is_new": name != "desk"} for name in ("lamp", "desk", "chair")]
    runs = priced.run_batch(rows, backend=ScriptedBackend())
    assert [run.text.splitlines()[:2] for run in runs] == [["In francs.", "With taxes."]] * 3
    assert all(run.text.splitlines()[2].startswith("Made here") for run in runs)
    assert [run.text.splitlines()[3:-1] for run in runs] == [["It is new.", "lamp"], ["desk"], ["It is new.", "chair"]]
    (alone,) = priced.run_batch(rows[:1], backend=ScriptedBackend())
    assert alone.text.startswith("lamp\nMade here")


@pytest.mark.parametrize("eager", [True, False])
def test_a_generation_inside_is_refused(eager):
    @rf.program
    def wrong(s):
        with s.unordered():
            s += "a"
            s += rf.gen("x", max_tokens=1)
        return s["x"]

    with pytest.raises(UsageError, match=r"a gen inside `unordered\(\)` depends on the order") as caught:
        wrong.run(backend=ScriptedBackend(), eager=eager)
    assert caught.value.span.source_line().strip() == 's += rf.gen("x", max_tokens=1)'


def note(s, text):
    s += text
    s += rf.gen("note", max_tokens=3)
    s += f"Noted: {s['note']}"


@rf.program
def notes(s, texts):
    with s.unordered():
        for text in texts:
            if text:
                note(s, text)
    s += rf.gen("end", max_tokens=2)


@rf.program
def notes_of_copies(s, texts):
    for _turn in range(2):
        s += rf.gen("turn", max_tokens=2)
        with s.unordered():
            for text in texts:
                reader = s.copy()
                note(reader, text)
                s += reader["note"]
    return s.text()


@rf.program
def guarded(s, texts):
    try:
        with s.unordered():
            s += rf.gen("x", max_tokens=2)
    except UsageError as error:
        return error.message


def test_it_is_refused_before_anything_runs_if_it_can_be_seen(tmp_path, capsys):
    """Also in a helper, in a loop; what is generated on copies may stand there."""
    backend = ScriptedBackend()
    for attempt in (
        notes.compile,
        lambda: notes.run(texts=[], backend=backend),
        lambda: notes.run_batch([{"texts": ["a"]}], backend=backend),
        lambda: notes.explain([{"texts": ["a"]}], backend="tiny"),
    ):
        with pytest.raises(UsageError, match=r"a gen inside `unordered\(\)`") as caught:
            attempt()
        assert caught.value.span.source_line().strip() == 's += rf.gen("note", max_tokens=3)'
    assert backend.requests == []
    file = tmp_path / "programs.py"
    body = "import ramify as rf\n\n\n@rf.program\ndef p(s):\n    with s.unordered():\n        s += rf.gen('x')\n"
    file.write_text(body)
    assert main(["check", str(file)]) == 2
    assert "s += rf.gen('x')\n" in capsys.readouterr().out


@pytest.mark.parametrize("eager", [True, False])
def test_where_it_is_no_mistake_nothing_is_refused(eager):
    copies = notes_of_copies.run(texts=["a", "b"], backend=ScriptedBackend(), eager=eager)
    assert copies.text == notes_of_copies.run(texts=["a", "b"], backend=ScriptedBackend(), eager=True).text
    assert guarded.run(texts=["a"], backend=ScriptedBackend(), eager=eager).value.startswith("a gen inside")


@pytest.mark.parametrize("eager", [True, False])
def test_messages_and_late_texts_are_parts_too(eager):
    @rf.program
    def shots(s, examples):
        with s.unordered():
            for asked in examples:
                told = s.copy()
                told += asked + rf.gen("told", max_tokens=1)
                s += rf.user(asked) + rf.assistant(told["told"])
            s["number"] = len(examples)
        return s["number"]

    rows = [{"examples": examples} for examples in (["a", "b"], ["b", "a"], ["c", "b"])]
    runs = shots.run_batch(rows, backend=ScriptedBackend(delay=0.01), eager=eager)
    assert [run.value for run in runs] == [2, 2, 2]
    for run, row in zip(runs, rows, strict=True):
        asked = [message["content"] for message in run.messages if message["role"] == "user"]
        assert sorted(asked) == sorted(row["examples"])
        assert len(run.messages) == 4


def tree_size(rows):
    """Characters of the prefix tree of rows of texts."""
    prefixes = {tuple(row[: length + 1]) for row in rows for length in range(len(row))}
    return sum(len(prefix[-1]) for prefix in prefixes)


def arranged(rows, decisions=None):
    orders = (decisions or Decisions()).arrange(rows)
    return [[row[index] for index in order] for row, order in zip(rows, orders, strict=True)]


@given(st.lists(st.lists(st.sampled_from("abcdefgh"), max_size=5), max_size=8), st.integers(0, 8))
@settings(max_examples=200, deadline=None)
def test_every_part_is_there_once_and_later_rows_fall_in(rows, cut):
    decisions = Decisions()
    result = arranged(rows[:cut], decisions) + arranged(rows[cut:], decisions)
    assert [sorted(row) for row in result] == [sorted(row) for row in rows]


def test_nearly_as_good_as_the_best_order_of_small_tables():
    worst = 1.0
    for seed in range(150):
        rng = random.Random(seed)
        columns = [
            [f"{column}{value}:" + "x" * rng.randint(1, 20) for value in range(rng.randint(1, 3))]
            for column in range(rng.randint(2, 3))
        ]
        rows = [[rng.choice(values) for values in columns] for _ in range(rng.randint(3, 4))]
        total = sum(len(text) for row in rows for text in row)
        every_order = itertools.product(*[list(itertools.permutations(row)) for row in rows])
        best = max(total - tree_size(each) for each in every_order)
        if best:
            worst = min(worst, (total - tree_size(arranged(rows))) / best)
    assert worst >= 0.9
