"""The workers of benchmarks/engine.py do the work they are asked for."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import pytest
from ramify.backends.tiny import model_dir

from benchmarks.engine import BARS, CASES, Case
from benchmarks.engine_case import prompts, shared_len
from benchmarks.peer import started

WORKER = Path(__file__).parents[2] / "benchmarks" / "engine_ramify.py"


def test_every_case_has_a_bar() -> None:
    assert CASES.keys() == BARS.keys()


def test_prompts_share_what_they_should_and_differ_from_round_to_round() -> None:
    case = asdict(Case(batch=3, shared=5, own=2, new=1))
    inputs = prompts(case | {"seed": 1}, 100)
    assert [len(tokens) for tokens in inputs] == [7, 7, 7]
    assert len({tuple(tokens[:5]) for tokens in inputs}) == 1
    assert len({tuple(tokens) for tokens in inputs}) == 3
    assert inputs == prompts(case | {"seed": 1}, 100) != prompts(case | {"seed": 2}, 100)


def test_a_worker_stands_still_between_questions_and_says_when_it_has_ended() -> None:
    case = asdict(Case(2, 0, 4, 1)) | {"seed": 0}
    with started("ramify", "engine", model_dir()) as worker:
        assert all(0 < worker.ask(case)["seconds"] < 60 for _ in range(2))
        with pytest.raises(RuntimeError, match="ramify has ended"):
            worker.ask({"no": "case"})


def test_how_much_prompts_share() -> None:
    assert shared_len([[1, 2, 3], [1, 2, 4], [1, 2, 3, 5]]) == 2
    assert shared_len([[1, 2, 3], [1, 2, 3]]) == 2 and shared_len([[1, 2], [2, 2]]) == 0
    assert shared_len([[1, 2, 3]]) == 0


def test_our_worker_answers_each_case() -> None:
    cases = [Case(1, 0, 8, 3), Case(4, 16, 2, 2), Case(1, 0, 8, 1)]
    questions = "".join(json.dumps(asdict(case) | {"seed": 0}) + "\n" for case in cases)
    command = [sys.executable, str(WORKER), str(model_dir())]
    done = subprocess.run(command, input=questions, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    ready, *answers = map(json.loads, done.stdout.splitlines())
    assert ready == {"ready": True}
    assert len(answers) == 3 and all(0 < answer["seconds"] < 60 for answer in answers)
