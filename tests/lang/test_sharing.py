"""Equal requests are answered once, within a run and among the rows of a batch, and nothing else changes."""

from __future__ import annotations

import pytest
import ramify as rf
from ramify.backends.local import LocalBackend
from ramify.backends.tiny import model_dir
from ramify.ir.errors import BackendError
from ramify.runtime.request import Done, Failed
from ramify.runtime.sharing import Sharing


@pytest.fixture(scope="module")
def backend():
    import torch

    opened = LocalBackend(model_dir(), dtype=torch.float32, check=True)
    yield opened
    opened.engine.check_idle()
    opened.close()


@rf.program
def votes(s, question, number=4):
    s += rf.user(question)
    forks = s.fork(number)
    for branch in forks:
        branch += rf.assistant(rf.gen("vote", max_tokens=6))
    s += rf.assistant(rf.select("kind", ["yes", "no"]))
    return [branch["vote"] for branch in forks]


def engine_calls(run) -> int:
    return run.usage.calls - run.usage.shared_calls


def test_equal_gens_of_a_run_are_one(backend):
    run = votes.run("What is 2 + 3?", backend=backend)
    assert len(set(run.value)) == 1
    assert run.usage.calls == 5 and run.usage.shared_calls == 3
    assert [record.shared for record in run.trace].count(True) == 3
    apart = votes.options(disable="cse").run("What is 2 + 3?", backend=backend)
    assert apart.usage.shared_calls == 0
    assert (apart.value, apart.text, apart.vars) == (run.value, run.text, run.vars)
    assert run.usage.generated_tokens < apart.usage.generated_tokens


def vote():
    return "I say: " + rf.gen("vote", max_tokens=6)


@rf.program
def votes_by_helper(s, question):
    s += rf.user(question)
    forks = s.fork(3)
    for branch in forks:
        branch += rf.assistant(vote())
    return [branch["vote"] for branch in forks]


def test_equal_gens_that_a_helper_makes_are_one(backend):
    run = votes_by_helper.run("What is 2 + 3?", backend=backend)
    assert run.usage.calls == 3 and run.usage.shared_calls == 2
    assert run.value == votes_by_helper.run("What is 2 + 3?", backend=backend, eager=True).value


def test_what_is_drawn_anew_is_not_shared(backend):
    run = votes.options(temperature=1.0).run("What is 2 + 3?", backend=backend)
    assert run.usage.shared_calls == 0
    seeded = votes.options(temperature=1.0, seed=3).run("Tell me something.", backend=backend)
    eager = votes.options(temperature=1.0, seed=3).run("Tell me something.", backend=backend, eager=True)
    assert seeded.value == eager.value
    assert eager.usage.shared_calls == 0


@rf.program
def drawn(s, seeds):
    forks = s.fork(len(seeds))
    for branch, seed in zip(forks, seeds, strict=True):
        branch += "Once" + rf.gen("text", temperature=1.0, seed=seed, max_tokens=6)
    return [branch["text"] for branch in forks]


def test_equally_seeded_gens_are_one(backend):
    run = drawn.run([1, 2, 1], backend=backend)
    assert run.usage.shared_calls == 1
    assert run.value[0] == run.value[2] != run.value[1]


def test_rows_of_a_batch_share(backend):
    rows = [{"question": question, "number": 1} for question in ("What is 1 + 1?", "What is 1 + 2?") * 5]
    runs = votes.run_batch(rows, backend=backend)
    assert sum(engine_calls(run) for run in runs) == 4
    apart = votes.options(disable="cse").run_batch(rows, backend=backend)
    assert [run.value for run in runs] == [run.value for run in apart]
    assert [run.text for run in runs] == [run.text for run in apart]


def test_streams_get_the_text_of_shared_answers(backend):
    pieces: dict[tuple[int, ...], str] = {}

    def note(event):
        if event.kind == "gen":
            pieces[event.branch] = pieces.get(event.branch, "") + event.text

    run = votes.run("What is 2 + 3?", backend=backend, stream=note)
    assert [pieces[(number,)] for number in range(4)] == run.value


class Asker:
    def __init__(self):
        self.asked = 0
        self.done = None

    def ask(self):
        self.asked += 1

    def answered(self, done):
        self.done = done


@pytest.mark.parametrize("end", [Failed(BackendError("no")), Done("", (), "cancelled")])
def test_the_next_in_line_asks_when_the_first_has_no_answer(end):
    sharing, first, second, third = Sharing(), Asker(), Asker(), Asker()
    for asker in (first, second, third):
        sharing.enter("key", asker)
    assert (first.asked, second.asked, third.asked) == (1, 0, 0)
    sharing.settle("key", end)
    assert (first.asked, second.asked, third.asked) == (1, 1, 0)
    sharing.settle("key", Done("text", (1,), "stop", prompt_tokens=5, generated_tokens=1))
    assert third.asked == 0 and third.done is not None
    assert (third.done.text, third.done.cached_tokens, third.done.generated_tokens) == ("text", 5, 0)


def test_rows_that_run_at_once_wait_for_the_first(backend):
    @rf.program
    def slow(s, number):
        s += "Count:" + rf.gen("text", max_tokens=400, ignore_eos=True)

    runs = slow.run_batch([{"number": number} for number in range(3)], backend=backend)
    assert len({run.text for run in runs}) == 1
    assert sum(engine_calls(run) for run in runs) == 1
