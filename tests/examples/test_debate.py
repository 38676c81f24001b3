"""The debate example: prompts as the embedded model learnt them, the flow of a debate, and the real questions."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType

import pytest
from ramify.backends.scripted import ScriptedBackend
from ramify.backends.tiny import debate as learnt
from ramify.lang.loading import load_file

FILE = Path(__file__).parents[2] / "examples" / "debate"


@pytest.fixture(scope="module")
def example() -> ModuleType:
    load_file(FILE)
    return sys.modules["debate.program"]


def test_prompts_are_those_the_embedded_model_learnt(example: ModuleType) -> None:
    question, ours, theirs = "What is 2 + 2?", "The answer is 4, because 2 + 2 = 4.", "No."
    assert example.DEBATER.format(question=question) == learnt.debater_system(question)
    assert example.MODERATOR.format(question=question) == learnt.moderator_system(question)
    assert example.OPEN == learnt.OPEN and example.JUDGE == learnt.JUDGE
    assert example.SUPPORT.format(claim="5") == learnt.support("5")
    assert example.ATTACK.format(statement=ours) == learnt.attack(ours)
    assert example.REPLY.format(statement=theirs) == learnt.attacked(theirs)
    assert example.SETTLED.format(ours=ours, theirs=theirs) == learnt.round_text(ours, theirs)


def test_a_debate_ends_when_it_is_settled_and_not_before(example: ModuleType) -> None:
    for settled, rounds in (("yes", 1), ("no", 3)):
        backend = ScriptedBackend(score=lambda _text, choice, settled=settled: float(choice in (settled, "negative")))
        run = example.debate.run("Why?", rounds=3, backend=backend)
        assert run.value["rounds"] == rounds and run.value["side"] == "negative"
        assert sum(record.name == "statement" for record in run.trace) == 2 * rounds


def test_the_sides_see_each_other(example: ModuleType) -> None:
    backend = ScriptedBackend(lambda text, _params: "I attack." if "negative side" in text else "I claim.")
    example.debate.run("Why?", rounds=1, claim="five", backend=backend)
    assert any("Support the answer five." in text for text in backend.requests)
    assert any("The affirmative side says: I claim." in text for text in backend.requests)
    assert any("Affirmative side: I claim.\nNegative side: I attack." in text for text in backend.requests)


def test_eager_equals_compiled_on_the_embedded_model(example: ModuleType) -> None:
    runs = [example.debate.run("What is 3 + 4?", eager=eager) for eager in (True, False)]
    assert runs[0].value == runs[1].value and runs[0].text == runs[1].text
    assert runs[1].usage.cached_tokens > runs[1].usage.prompt_tokens / 2


def ramify(*arguments: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-m", "ramify.lang.cli", *arguments], stderr=subprocess.DEVNULL)


def test_real_questions_killed_half_way_and_resumed(data: Path, tmp_path: Path) -> None:
    questions = [record["question"] for record in json.loads((data / "debate" / "CIAR.json").read_text("utf-8"))]
    out, part = tmp_path / "verdicts.jsonl", tmp_path / "verdicts.jsonl.part"
    # Half a second for each answer of the scripted model keeps the run going until it is killed.
    run = ["run", str(FILE), "--data", str(data / "debate" / "CIAR.json"), "--out", str(out), "--arg", "rounds=1"]
    first = ramify(*run, "--model", "scripted:0.5", "--in-flight", "10")
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and (not part.exists() or part.read_bytes().count(b"\n") < 10):
        time.sleep(0.02)
    first.kill()
    first.wait()
    finished = part.read_bytes().count(b"\n")
    assert 10 <= finished < 50 and not out.exists()
    assert ramify(*run, "--model", "scripted:0.5", "--in-flight", "50", "--resume").wait(timeout=60) == 0
    rows = [json.loads(line) for line in out.read_text("utf-8").splitlines()]
    assert [row["row"] for row in rows] == list(range(len(questions)))
    assert all(question in row["text"] for question, row in zip(questions, rows, strict=True))
