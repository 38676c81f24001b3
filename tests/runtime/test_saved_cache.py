"""Saved caches: what comes back, how much of it, and that no damaged or foreign file is taken."""

from __future__ import annotations

import os
import random
import threading
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st
from ramify.ir.errors import CacheError, UsageError
from ramify.runtime.kv_file import VERSION, ModelIdentity
from ramify.runtime.models import load_model
from ramify.runtime.pool import KVLayout, KVPool
from ramify.runtime.radix import RadixTree
from ramify.runtime.request import Event
from ramify.runtime.saved_cache import load_tree, save_tree
from safetensors import safe_open

from .fakes import Call, FakeModel, call, finish, new_engine
from .test_radix import LAYOUT, add, array, check_kv, filled, new_tree, prefixes_of, tokens_of

MODEL = ModelIdentity("small", "f00d")
RUNS = st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=8), max_size=12)


def grown(runs: list[list[int]], capacity: int = 200) -> RadixTree:
    """A tree that was used with these runs, in this order."""
    tree = new_tree(capacity)
    for run in runs:
        node = tree.match(array(*run))
        present = 0 if node is None else node.end
        if present < len(run):
            add(tree, *run[present:], below=node)
    return tree


def by_use(tree: RadixTree) -> list[tuple[int, ...]]:
    """The prefixes, least recently used first, as they would be evicted."""
    return [tokens_of(node) for node in sorted(tree.nodes(), key=lambda node: (node.last_used, -node.end))]


@given(runs=RUNS)
@settings(max_examples=80, deadline=None)
def test_a_tree_comes_back(runs: list[list[int]], tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("kv") / "cache"
    saved, loaded = grown(runs), new_tree(200)
    assert save_tree(saved, MODEL, path) == saved.num_tokens
    assert load_tree(loaded, MODEL, path) == saved.num_tokens
    loaded.check()
    check_kv(loaded)
    assert by_use(loaded) == by_use(saved)
    assert load_tree(loaded, MODEL, path) == 0, "it is there already"
    loaded.check()
    assert by_use(loaded) == by_use(saved)


@given(runs=RUNS, others=RUNS, room=st.integers(1, 30), max_tokens=st.none() | st.integers(1, 30))
@settings(max_examples=80, deadline=None)
def test_both_tiers_are_saved_and_the_host_takes_what_the_device_cannot(
    runs: list[list[int]],
    others: list[list[int]],
    room: int,
    max_tokens: int | None,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    path = tmp_path_factory.mktemp("kv") / "cache"
    saved, host = grown(runs), grown(others)
    both = prefixes_of(saved) | prefixes_of(host)
    num_saved = save_tree(saved, MODEL, path, host=host, max_tokens=max_tokens)
    assert num_saved == min(len(both), len(both) if max_tokens is None else max_tokens)
    for tree in (saved, host):
        tree.check()
        check_kv(tree)
    assert prefixes_of(saved) | prefixes_of(host) == both
    whole, small, below = new_tree(200), new_tree(room), new_tree(200)
    load_tree(whole, MODEL, path)
    assert prefixes_of(whole) <= both and whole.num_tokens == num_saved
    assert load_tree(small, MODEL, path, host=below) == num_saved
    assert load_tree(small, MODEL, path, host=below) == 0
    assert prefixes_of(small) | prefixes_of(below) == prefixes_of(whole)
    assert below.num_tokens == (0 if num_saved <= room else num_saved)
    for tree in (whole, small, below):
        tree.check()
        check_kv(tree)


@given(runs=RUNS, room=st.integers(1, 30), is_cut_when_saved=st.booleans())
@settings(max_examples=80, deadline=None)
def test_what_was_used_last_is_kept(
    runs: list[list[int]], room: int, is_cut_when_saved: bool, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("kv") / "cache"
    saved, loaded = grown(runs), new_tree(200 if is_cut_when_saved else room)
    wanted = min(room, saved.num_tokens)
    save_tree(saved, MODEL, path, max_tokens=room if is_cut_when_saved else None)
    assert load_tree(loaded, MODEL, path) == loaded.num_tokens == wanted
    loaded.check()
    check_kv(loaded)
    assert prefixes_of(loaded) <= prefixes_of(saved)
    while saved.num_tokens > room:
        saved.evict(1)
    assert prefixes_of(saved) <= prefixes_of(loaded)


@given(runs=RUNS, others=RUNS, capacity=st.integers(100, 120))
@settings(max_examples=80, deadline=None)
def test_what_is_there_stays(
    runs: list[list[int]], others: list[list[int]], capacity: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("kv") / "cache"
    saved, loaded = grown(runs), grown(others, capacity)
    save_tree(saved, MODEL, path)
    before = prefixes_of(loaded)
    load_tree(loaded, MODEL, path)
    loaded.check()
    check_kv(loaded)
    both = before | prefixes_of(saved)
    assert before <= prefixes_of(loaded) <= both
    assert prefixes_of(loaded) == both or loaded.pool.free == 0


def test_locked_and_dead_prefixes_are_saved_too(tmp_path: Path) -> None:
    saved, loaded = new_tree(), new_tree()
    saved.lock(add(saved, 1, 2, 3))
    saved.insert(None, array(4, 5), filled(saved, array(4, 5), 0), dead=True)
    save_tree(saved, MODEL, tmp_path / "cache")
    load_tree(loaded, MODEL, tmp_path / "cache")
    assert prefixes_of(loaded) == prefixes_of(saved) and loaded.locked_tokens == 0
    loaded.evict(1)
    assert prefixes_of(loaded) == {(1,), (1, 2), (1, 2, 3)}, "what nobody was going to use goes first"


def small_file(tmp_path: Path) -> Path:
    path = tmp_path / "cache"
    save_tree(grown([[1, 2, 3], [1, 2, 0], [2]]), MODEL, path)
    return path


def refusal(path: Path, identity: ModelIdentity = MODEL, tree: RadixTree | None = None) -> str:
    """What is said of a file that is refused; the tree must be as before."""
    tree = grown([[0, 1]]) if tree is None else tree
    used, prefixes = tree.pool.used, prefixes_of(tree)
    with pytest.raises(CacheError) as caught:
        load_tree(tree, identity, path)
    assert (tree.pool.used, prefixes_of(tree)) == (used, prefixes)
    tree.check()
    return str(caught.value)


@pytest.mark.parametrize("mask", [0x01, 0x80])
def test_a_file_with_any_other_byte_is_refused(mask: int, tmp_path: Path) -> None:
    path = small_file(tmp_path)
    whole = path.read_bytes()
    said = set()
    for at in range(len(whole)):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ mask]) + whole[at + 1 :])
        said.add(refusal(path))
    assert all(str(path) in each for each in said)
    assert any("block 2 (1 tokens, 4 blocks) is not what was written" in each for each in said)
    path.write_bytes(whole)
    assert load_tree(new_tree(), MODEL, path) == 5


def test_a_file_that_was_cut_off_or_grew_is_refused(tmp_path: Path) -> None:
    path = small_file(tmp_path)
    whole = path.read_bytes()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        assert "is cut off" in refusal(path) or length < 8
    path.write_bytes(whole[:-1])
    assert f"{path} is cut off: {len(whole) - 1:,} of {len(whole):,} bytes are there" in refusal(path)
    path.write_bytes(whole + b"x")
    assert "it has 1 bytes more than it should" in refusal(path)


def test_blocks_that_changed_places_are_refused(tmp_path: Path) -> None:
    path = small_file(tmp_path)
    whole = path.read_bytes()
    assert whole[-16 - 8 :] != whole[-16 - 16 : -16 - 8] + whole[-16:]
    path.write_bytes(whole[: -16 - 16] + whole[-16 - 8 : -16] + whole[-16 - 16 : -16 - 8] + whole[-16:])
    assert "is damaged: block" in refusal(path)


def test_a_file_of_another_model_is_refused_by_name(tmp_path: Path) -> None:
    path = small_file(tmp_path)
    assert "is the cache of another model: of small, not of large" in refusal(path, ModelIdentity("large", "1"))
    same = refusal(path, ModelIdentity("small", "1"))
    assert "of small with other weights or another configuration, not of small" in same
    half = RadixTree(KVPool(replace(LAYOUT, dtype=torch.bfloat16), 100))
    assert "holds keys and values in F32, the model runs in torch.bfloat16" in refusal(path, tree=half)
    other = RadixTree(KVPool(replace(LAYOUT, num_layers=2), 100))
    assert "keys and values of another shape" in refusal(path, tree=other)


def test_files_that_are_no_caches(tmp_path: Path) -> None:
    path = tmp_path / "cache"
    assert "cannot be read: No such file" in refusal(path)
    assert "cannot be read: Is a directory" in refusal(tmp_path)
    for data in (b"", b"x", b"a text that is long enough", b"\x10" + b"\0" * 7 + b'{"some": "json"}'):
        path.write_bytes(data)
        assert "is no saved cache" in refusal(path)
    written = small_file(tmp_path).read_bytes()
    path.write_bytes(written.replace(b'"ramify_kv_cache":"1"', b'"ramify_kv_cache":"9"'))
    assert f"is a saved cache of format '9'; this version reads {VERSION}" in refusal(path)


def test_an_unfinished_file_replaces_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = small_file(tmp_path)
    whole = path.read_bytes()

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(CacheError, match=r"cache cannot be written \(16 bytes\): No space left"):
        save_tree(grown([[5, 6]]), MODEL, path)
    assert path.read_bytes() == whole and list(tmp_path.iterdir()) == [path]
    monkeypatch.undo()
    with pytest.raises(CacheError, match="cannot be written"):
        save_tree(grown([[5, 6]]), MODEL, tmp_path / "nowhere" / "cache")
    save_tree(new_tree(), MODEL, path)
    assert load_tree(new_tree(), MODEL, path) == 0 and list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_the_file_is_safetensors(dtype: torch.dtype, tmp_path: Path) -> None:
    layout = KVLayout(3, 2, 4, dtype, torch.device("cpu"))
    saved, loaded = RadixTree(KVPool(layout, 50)), RadixTree(KVPool(layout, 50))
    extent = saved.pool.allocate(5)
    extent.data.copy_(torch.randn(extent.data.shape))
    saved.insert(None, array(7, 8, 9, 10, 11), extent)
    saved.match(array(7, 8))
    assert save_tree(saved, MODEL, tmp_path / "cache") == 5
    with safe_open(tmp_path / "cache", framework="pt") as file:
        assert file.get_tensor("tokens").tolist() == [7, 8, 9, 10, 11]
        both = torch.cat([file.get_tensor("kv.0"), file.get_tensor("kv.1")], 3)
    want = torch.cat([node.extent.data for node in saved.nodes()], 3)
    assert torch.equal(both, want) and both.dtype == dtype
    load_tree(loaded, MODEL, tmp_path / "cache")
    assert torch.equal(torch.cat([node.extent.data for node in loaded.nodes()], 3), want)


def runs_of(vocab: int) -> list[list[int]]:
    rng = random.Random(3)
    stem = [rng.randrange(vocab) for _ in range(30)]
    return [stem[: rng.choice([0, 9, 30])] + [rng.randrange(vocab) for _ in range(rng.randint(2, 9))] for _ in range(9)]


@pytest.fixture(scope="module", params=["fake", "float32", "bfloat16"])
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    if request.param == "fake":
        return FakeModel()
    path = tmp_path_factory.mktemp("model")
    torch.manual_seed(2)
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3, "num_attention_heads": 4}
    config = transformers.Qwen3Config(
        vocab_size=29, num_key_value_heads=2, head_dim=8, max_position_embeddings=128, initializer_range=0.3,
        pad_token_id=0, **sizes,
    )  # fmt: skip
    transformers.Qwen3ForCausalLM(config).save_pretrained(path)
    return load_model(path, dtype=getattr(torch, request.param))


def test_results_with_a_loaded_cache_are_those_without(model: Any, tmp_path: Path) -> None:
    def work(engine: Any) -> list[Any]:
        calls = [call(run, max_tokens=6, seed=i, temperature=i % 2) for i, run in enumerate(runs_of(29))]
        done = [finish(engine, one)[0].token_ids for one in calls]
        scored = finish(engine, call(runs_of(29)[0], score_from=2))[0].logprobs
        return [*done, tuple(round(token.logprob, 4) for token in scored)]

    first = new_engine(model)
    want = work(first)
    assert first.save_cache(tmp_path / "cache") == first.stats().cached
    warm, again = first.stats(), work(first)
    cold = new_engine(model)
    assert cold.load_cache(tmp_path / "cache") == cold.stats().cached == warm.cached
    assert work(cold) == again
    if model.layout.dtype != torch.bfloat16:  # where rounding depends on what is computed together
        assert again == want
    assert cold.stats().hit_tokens == first.stats().hit_tokens - warm.hit_tokens > warm.hit_tokens
    assert cold.stats().computed_tokens == first.stats().computed_tokens - warm.computed_tokens
    cold.check_idle()


def test_a_small_engine_takes_what_it_can(model: Any, tmp_path: Path) -> None:
    big = new_engine(model)
    for run in runs_of(29):
        finish(big, call(run, max_tokens=6))
    big.save_cache(tmp_path / "cache")
    small = new_engine(model, kv_tokens=60)
    assert small.load_cache(tmp_path / "cache") == 60
    for run in runs_of(29):
        (done,) = finish(small, call(run, max_tokens=6))
        if model.layout.dtype != torch.bfloat16:
            assert done.token_ids == finish(big, call(run, max_tokens=6))[0].token_ids
    assert small.stats().evicted_tokens > 0


def test_while_the_engine_works(tmp_path: Path) -> None:
    want = [finish(new_engine(), call(run, max_tokens=8))[0].token_ids for run in runs_of(29)]
    engine, ended = new_engine(), threading.Semaphore(0)
    engine.start()
    calls = [call(run, max_tokens=8) for run in runs_of(29)]
    for one in calls:
        one.request.sink = partial(take, one, ended)
        engine.submit(one.request)
        engine.save_cache(tmp_path / "cache")
        engine.load_cache(tmp_path / "cache")
    for _ in calls:
        assert ended.acquire(timeout=30)
    assert [one.done.token_ids for one in calls] == want
    engine.check_idle()
    engine.close()


def take(one: Call, ended: threading.Semaphore, event: Event) -> None:
    one.events.append(event)
    if one.ended:
        ended.release()


def test_options_that_cannot_work(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="max_tokens must be at least 1, got 0"):
        new_engine().save_cache(tmp_path / "cache", max_tokens=0)
    with pytest.raises(UsageError, match="prefix_cache=False"):
        new_engine(prefix_cache=False).load_cache(tmp_path / "cache")
