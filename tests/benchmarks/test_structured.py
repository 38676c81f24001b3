"""The structured benchmark compares what is comparable. No time is judged here."""

from __future__ import annotations

import pytest
import torch
from ramify.backends.tiny import model_dir
from ramify.runtime.models import load_model
from ramify.runtime.tokens import Tokenizer

from benchmarks.structured import Bench, measure
from benchmarks.structured_tasks import tasks
from benchmarks.watched_grammars import Watched


@pytest.fixture(scope="module")
def bench():
    tokenizer = Tokenizer.load(model_dir())
    model = load_model(model_dir(), dtype=torch.float32)
    return Bench(model, tokenizer, Watched(tokenizer, model.config.vocab_size))


def test_fast_forward_saves_steps_and_changes_nothing(bench, data):
    for task in tasks(data, 2):
        runs = {kind: bench.run(task, kind, []) for kind in ("forced", "one by one")}
        forced, single = (runs[kind][0] for kind in ("forced", "one by one"))
        assert [done.text for done in runs["forced"][1]] == [done.text for done in runs["one by one"][1]]
        assert forced.tokens == single.tokens
        assert forced.steps < 0.8 * single.steps
        assert 0 < single.constraint < 1 and 0 <= single.mask_wait <= single.constraint


def test_free_text_is_as_long_as_the_json(bench, data):
    runs = measure(bench, tasks(data, 2)[0], rounds=1)
    assert sorted(run.kind for run in runs) == ["forced", "free", "one by one"]
    assert len({run.tokens for run in runs}) == 1
    free = next(run for run in runs if run.kind == "free")
    assert free.constraint == 0 and free.steps > 10
