"""Programs on checkpoints that `transformers` wrote: Qwen3- and Llama-shaped, random weights, sharded and whole."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal

import msgspec
import pytest
import ramify as rf
import torch
from msgspec import Meta
from ramify.backends.local import LocalBackend
from ramify.backends.tiny import model_dir
from ramify.ir.errors import ContextOverflow, ModelError

transformers = pytest.importorskip("transformers")

SHAPE = dict(
    vocab_size=1536,
    hidden_size=64,
    intermediate_size=96,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    max_position_embeddings=256,
    initializer_range=0.2,
)


def checkpoint(folder: Path, architecture: str) -> Path:
    """A random-weight checkpoint with the embedded model's tokenizer."""
    torch.manual_seed(0)
    config = getattr(transformers, f"{architecture}Config")(**SHAPE, head_dim=16)
    model = getattr(transformers, f"{architecture}ForCausalLM")(config).float()
    model.save_pretrained(folder, max_shard_size="200KB" if architecture == "Qwen3" else "5GB")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(model_dir() / name, folder)
    (folder / "generation_config.json").unlink(missing_ok=True)
    return folder


@pytest.fixture(scope="module", params=["Qwen3", "Llama"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return checkpoint(tmp_path_factory.mktemp(request.param), request.param)


@pytest.fixture(scope="module")
def backend(folder: Path) -> Iterator[LocalBackend]:
    opened = LocalBackend(folder, check=True)
    yield opened
    opened.engine.check_idle()
    opened.close()


@rf.program
def story(s, topics):
    s += rf.system("Write.")
    for branch, topic in zip(s.fork(len(topics)), topics, strict=True):
        branch += rf.user(f"On {topic}:") + rf.assistant(rf.gen("text", max_tokens=6, ignore_eos=True))
        s += branch["text"]
    s += rf.select("mark", ["good", "bad", "goodness"])
    return s["mark"]


def test_greedy_tokens_equal_those_of_transformers(folder: Path, backend: LocalBackend) -> None:
    run = story.run(["rain", "sun"], backend=backend)
    assert run.value in ("good", "bad", "goodness")
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    for topic, record in zip(["rain", "sun"], run.trace, strict=False):
        text = f"<|im_start|>system\nWrite.<|im_end|>\n<|im_start|>user\nOn {topic}:<|im_end|>\n<|im_start|>assistant\n"
        ids = torch.tensor([backend.tokenizer.encode(text)])
        theirs = model.generate(
            ids, attention_mask=torch.ones_like(ids), max_new_tokens=6, min_new_tokens=6, do_sample=False
        )[0, ids.shape[1] :]
        assert record.text == backend.tokenizer.decode(theirs.tolist())


def test_eager_equals_compiled(backend: LocalBackend) -> None:
    topics = ["rain", "sun", "snow"]
    runs = [story.run(topics, backend=backend, eager=eager) for eager in (True, False)]
    assert runs[0].text == runs[1].text and runs[0].value == runs[1].value


def test_cached_equals_uncached(folder: Path, backend: LocalBackend) -> None:
    cold = LocalBackend(folder, prefix_cache=False)
    try:
        runs = [story.run(["rain", "sun"], backend=b) for b in (cold, backend, backend)]
        assert runs[0].text == runs[1].text == runs[2].text
        assert runs[0].usage.cached_tokens == 0 < runs[2].usage.cached_tokens
    finally:
        cold.close()


class Thing(msgspec.Struct):
    name: Annotated[str, Meta(max_length=10)]
    size: Annotated[int, Meta(ge=0, le=999)]
    parts: Annotated[list[Literal["door", "wheel", "roof"]], Meta(max_length=3)]


@rf.program
def things(s, seed):
    s += rf.user("Things:")
    for number, branch in enumerate(s.fork(3)):
        branch += rf.assistant(rf.gen("thing", schema=Thing, temperature=1.0, max_tokens=120, seed=10 * seed + number))
        s += str(branch["thing"].size) + rf.gen("code", regex="[A-F]{2}[0-9]{2}", temperature=1.0, seed=seed) + "\n"
    s += rf.gen("free", temperature=1.0, max_tokens=5, seed=seed)
    return [s["code"], s["free"]]


def test_constrained_draws_of_random_weights(folder: Path, backend: LocalBackend) -> None:
    rows = [{"seed": seed} for seed in range(17)]
    together = things.run_batch(rows, backend=backend)
    drawn = [record for run in together for record in run.trace]
    assert all(run.ok for run in together), [run.error for run in together if not run.ok][:1]
    codes = {record.text for record in drawn if record.name == "code"}
    values = [msgspec.json.decode(record.text, type=Thing) for record in drawn if record.name == "thing"]
    assert (
        len(values) == 51
        and len({value.size for value in values}) > 10
        and len({str(value.parts) for value in values}) > 5
    )
    assert all(re.fullmatch("[A-F]{2}[0-9]{2}", code) for code in codes) and len(codes) > 5
    slow = LocalBackend(folder, prefix_cache=False)
    try:
        alone = [things.run(seed, backend=slow, eager=True).value for seed in range(3)]
    finally:
        slow.close()
    assert alone == [run.value for run in together[:3]]


@rf.program
def long_prompt(s, text):
    s += text + rf.gen("x", max_tokens=8)
    return s["x"]


def test_a_prompt_longer_than_the_context_is_refused_and_others_go_on(backend: LocalBackend) -> None:
    rows = [{"text": "one two"}, {"text": "seven " * 300}, {"text": "three"}]
    first, overlong, last = long_prompt.run_batch(rows, backend=backend)
    assert first.ok and last.ok
    assert isinstance(overlong.error, ContextOverflow)
    assert "256" in overlong.error.message
    assert overlong.error.span is not None and "rf.gen" in overlong.error.span.source_line()


def test_bad_model_directories(tmp_path: Path) -> None:
    with pytest.raises(rf.RamifyError, match="neither a known name nor a directory"):
        long_prompt.run("x", backend=str(tmp_path / "nowhere"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(ModelError, match=r"tokenizer.json|config.json"):
        long_prompt.run("x", backend=str(tmp_path / "empty"))
