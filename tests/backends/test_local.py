"""The local backend on the embedded model: programs, choices, errors, cancellation, and a clean engine afterwards."""

from __future__ import annotations

import gc
import math
import os
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import ramify
import ramify as rf
import torch
from ramify.backends import open_backend
from ramify.backends.local import LocalBackend
from ramify.ir.errors import Cancelled, ContextOverflow, ModelError, UsageError
from ramify.runtime.batch import Batch, Read, Write
from ramify.runtime.pool import KVPool

WEIGHTS = Path(ramify.__file__).parent / "backends" / "tiny" / "weights"


@pytest.fixture(scope="module")
def backend() -> Iterator[LocalBackend]:
    made = LocalBackend(WEIGHTS, dtype=torch.float32, device="cpu", check=True)
    yield made
    made.engine.check_idle()
    made.close()


@rf.program(max_tokens=12)
def chat(s: rf.State, question: str) -> Any:
    s += rf.system("You answer questions.")
    s += rf.user(question)
    s += rf.assistant(rf.gen("answer"))
    s += rf.user("Sure?")
    s += rf.assistant(rf.select("sure", ["yes", "no", "not at all"]))
    return s["answer"], s["sure"]


@rf.program
def repeat(s: rf.State, text: str) -> Any:
    s += text + text
    first, second = s.fork(2)
    first += rf.gen("same", max_tokens=60, temperature=0, ignore_eos=True)
    second += rf.gen("drawn", max_tokens=60, temperature=0.3, seed=4, ignore_eos=True)
    s += first["same"] + " And again: " + rf.gen("again", max_tokens=60, temperature=0, ignore_eos=True)
    return first["same"], second["drawn"], s["again"]


@pytest.mark.parametrize("eager", [False, True])
def test_lookup_saves_steps_and_changes_no_text(eager: bool) -> None:
    """It is on in float32 on a CPU, and can be switched."""
    values, steps = [], []
    for lookup in (None, False):
        with closing(LocalBackend(WEIGHTS, dtype=torch.float32, device="cpu", check=True, lookup=lookup)) as made:
            rows = [f"{name} had a little lamb. Its fleece was white as snow. " for name in ("Mary", "Tom", "Mary")]
            values.append([repeat.run(row, backend=made, eager=eager).value for row in rows])
            stats = made.stats()
            steps.append(stats.steps)
            assert (stats.accepted_tokens > 0) == (lookup is None)
    assert values[0] == values[1]
    assert steps[0] < steps[1]
    for options, is_on in (({"dtype": torch.bfloat16}, False), ({"dtype": torch.bfloat16, "lookup": True}, True)):
        with closing(LocalBackend(WEIGHTS, device="cpu", **options)) as made:
            assert (made.engine._lookup is not None) == is_on


def test_python_may_end_while_the_engine_works() -> None:
    code = f"""
import time
from ramify.backends.local import LocalBackend
from ramify.runtime.request import EngineRequest, SamplingParams
backend = LocalBackend({str(WEIGHTS)!r}, device="cpu")
for i in range(8):
    params = SamplingParams(max_tokens=2000, ignore_eos=True)
    backend.engine.submit(EngineRequest([5, i], params, lambda event: None))
while backend.stats().generated_tokens < 20:
    time.sleep(0.01)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")


def test_one_that_nobody_uses_any_more_is_freed() -> None:
    def engines() -> list[threading.Thread]:
        return [thread for thread in threading.enumerate() if thread.name == "ramify-engine"]

    before = engines()
    dropped = LocalBackend(WEIGHTS, dtype=torch.float32, device="cpu")
    parts = [weakref.ref(dropped), weakref.ref(dropped.engine), weakref.ref(dropped.model)]
    assert chat.run("What is 2 + 3?", backend=dropped).ok and len(engines()) == len(before) + 1
    del dropped
    end = time.monotonic() + 20
    while len(engines()) > len(before) or any(part() is not None for part in parts):
        assert time.monotonic() < end, parts
        gc.collect()
        time.sleep(0.01)


@pytest.mark.parametrize("eager", [True, False])
def test_a_program_runs_and_says_what_it_used(backend: LocalBackend, eager: bool) -> None:
    run = chat.run("What is 2 + 3?", backend=backend, eager=eager)
    answer, sure = run.value
    assert run.messages[2] == {"role": "assistant", "content": answer} and sure in ("yes", "no", "not at all")
    gen, select = run.trace
    assert 0 < gen.generated_tokens <= 12 and gen.prompt_tokens == len(backend.tokens.prompt_tokens(gen_prompt(run)))
    assert select.cached_tokens > gen.prompt_tokens - 8
    assert run.usage.calls == 2 and run.usage.generated_tokens == gen.generated_tokens


def gen_prompt(run: rf.Run) -> Any:
    node = run.state.prompt.find("answer").parent
    assert node is not None
    return node


def test_eager_compiled_batched_and_alone_agree(backend: LocalBackend) -> None:
    rows = [{"question": f"What is {n} plus {n + 1}?"} for n in range(12)]
    batch = chat.run_batch(rows, backend=backend)
    eager = chat.run_batch(rows, backend=backend, eager=True)
    alone = [chat.run(**row, backend=backend) for row in rows]
    assert [run.value for run in batch] == [run.value for run in eager] == [run.value for run in alone]


def test_select_scores_are_mean_logprobs_of_the_model(backend: LocalBackend) -> None:
    choices = ["red", "blue whale", "a"]

    @rf.program(backend=backend)
    def pick(s: rf.State) -> None:
        s += "The colour is " + rf.select("c", choices)

    scores = pick.run().get_meta_info("c")["scores"]
    prompt = backend.tokenizer.encode("The colour is ")
    for choice in choices:
        whole = backend.tokenizer.encode("The colour is " + choice)
        start = next((i for i, (a, b) in enumerate(zip(prompt, whole, strict=False)) if a != b), len(prompt))
        bos = [] if backend.tokenizer.bos_id is None else [backend.tokenizer.bos_id]
        assert scores[choice] == pytest.approx(mean_logprob(backend, bos + whole, len(bos) + start), abs=1e-4)
    assert max(scores, key=scores.__getitem__) == pick.run()["c"]


def mean_logprob(backend: LocalBackend, ids: list[int], start: int) -> float:
    """The mean log-probability of ids[start:], from one plain forward pass."""
    pool = KVPool(backend.model.layout, 1024)
    extent = pool.allocate(len(ids))
    batch = Batch(
        torch.tensor(ids),
        torch.arange(len(ids)),
        [Write(extent, 0, 0, len(ids))],
        [Read(extent, len(ids), [(0, len(ids))], True)],
        torch.arange(len(ids)),
    )
    with torch.inference_mode():
        logprobs = backend.model.forward(batch).log_softmax(-1)
    return sum(logprobs[i - 1, ids[i]].item() for i in range(start, len(ids))) / (len(ids) - start)


def test_streamed_pieces_add_up_to_the_text(backend: LocalBackend) -> None:
    events: list[Any] = []
    run = chat.run("Tell me a story.", backend=backend, stream=events.append)
    text = "".join(event.text for event in events if event.name == "answer")
    assert text == run["answer"]
    assert [event.text for event in events if event.kind == "select"] == [run["sure"]]


def test_a_prompt_that_does_not_fit_fails_with_its_line(backend: LocalBackend) -> None:
    with pytest.raises(ContextOverflow, match=r"chat|context") as caught:
        chat.run("word " * 100_000, backend=backend)
    assert caught.value.span is not None and "rf.gen" in caught.value.span.source_line()


def test_one_bad_row_does_not_disturb_the_others(backend: LocalBackend) -> None:
    rows = [{"question": "a"}, {"question": "word " * 100_000}, {"question": "b"}]
    runs = chat.run_batch(rows, backend=backend)
    assert [run.ok for run in runs] == [True, False, True]
    assert "ContextOverflow" in runs[1].traceback
    assert runs[0].value == chat.run("a", backend=backend).value


def test_a_timeout_releases_the_engine(backend: LocalBackend) -> None:
    @rf.program(backend=backend, timeout=0.15)
    def endless(s: rf.State) -> None:
        for _ in range(1000):
            s += "go on" + rf.gen(max_tokens=200, ignore_eos=True)
            s.sync()
            s = s.copy()

    with pytest.raises(Cancelled, match=r"timeout of 0\.15 s"):
        endless.run(eager=True)
    backend.engine.check_idle()


def test_a_context_of_logprobs(backend: LocalBackend) -> None:
    @rf.program(backend=backend)
    def sure(s: rf.State) -> None:
        s += "One two" + rf.gen("x", max_tokens=3, logprobs=2, ignore_eos=True)

    logprobs = sure.run().get_meta_info("x")["logprobs"]
    assert len(logprobs) == 3
    assert all(each.logprob <= 0 and len(each.top) == 2 and math.isfinite(each.logprob) for each in logprobs)


def test_directories_that_are_no_models(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no model directory"):
        LocalBackend(tmp_path / "nothing")
    with pytest.raises(ModelError):
        LocalBackend(tmp_path)


def test_the_embedded_model_is_opened_once() -> None:
    assert open_backend("tiny") is open_backend(str(WEIGHTS))


FORKED = """
import os
import ramify as rf

@rf.program
def ask(s):
    s += "2 + 2 =" + rf.gen("x", max_tokens=2)
    return s["x"]

here = ask.run().value
child = os.fork()
if not child:
    os._exit(0 if ask.run().value == here else 1)
raise SystemExit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_opens_the_model_anew(tmp_path: Path) -> None:
    (tmp_path / "forked.py").write_text(FORKED)
    done = subprocess.run([sys.executable, "-W", "ignore", "forked.py"], cwd=tmp_path, timeout=60)
    assert done.returncode == 0
