"""In which order the rows of a large batch begin, and that nothing else depends on it."""

from __future__ import annotations

from pathlib import Path

import pytest
import ramify as rf
from ramify.backends.scripted import ScriptedBackend

ROWS = [{"shots": [f"shot {row % 3}"], "number": row} for row in range(12)]


@rf.program
def answers(s, number, shots):
    for shot in shots:
        s += shot + "\n"
    s += f"{number}:" + rf.gen("answer", max_tokens=2)
    return number


class Teacher:
    @rf.program
    def answers(self, s, number, shots):
        return answers(s, number, shots)


def begun(program: rf.Program, **options: object) -> list[int]:
    """The numbers of the rows in the order in which they ask."""
    asked: list[int] = []

    def reply(text: str, params: rf.SamplingParams) -> str:
        asked.append(int(text.split("\n")[-1].rstrip(":")))
        return "x"

    runs = program.run_batch(ROWS, backend=ScriptedBackend(reply), **options)
    assert [run.value for run in runs] == list(range(len(ROWS)))
    assert [run.row for run in runs] == list(range(len(ROWS)))
    return asked


@pytest.mark.parametrize("program", [answers, Teacher().answers], ids=["function", "method"])
def test_rows_with_equal_beginnings_begin_one_after_the_other(program: rf.Program) -> None:
    assert begun(program, max_in_flight=1) == sorted(range(12), key=lambda row: (row % 3, str(row)))


def test_rows_begin_as_they_come_without_the_pass_and_where_all_run_at_once() -> None:
    assert begun(answers.options(disable=["plan_prefixes"]), max_in_flight=1) == list(range(12))
    assert begun(answers, max_in_flight=1, eager=True) == list(range(12))
    assert begun(answers, max_in_flight=12) == list(range(12))


def test_what_is_no_plain_value_is_not_asked() -> None:
    class Shots(list):
        def __repr__(self) -> str:
            raise AssertionError("it was asked")

    rows = [{"shots": Shots([f"shot {row % 2}"]), "number": row} for row in range(4)]
    runs = answers.run_batch(rows, backend=ScriptedBackend(), max_in_flight=1)
    assert [run.value for run in runs] == [0, 1, 2, 3]


def test_a_written_batch_resumes_in_any_order(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    backend = ScriptedBackend()
    first = answers.run_batch(ROWS, backend=backend, max_in_flight=1, out=path, as_completed=True)
    with first:
        done = {next(first).row for _ in range(5)}
    assert done == {0, 3, 6, 9, 1}
    runs = answers.run_batch(ROWS, backend=backend, max_in_flight=1, out=path, resume=True)
    assert [run.value for run in runs] == list(range(12))
