"""Model directories with something wrong: each is refused when it is opened, and the message names what is wrong."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import ramify as rf
import torch
import transformers
from ramify.backends.local import LocalBackend
from ramify.backends.tiny import model_dir
from ramify.ir.errors import BackendError, ModelError, UsageError
from ramify.runtime import memory
from ramify.runtime.models import budget
from safetensors.torch import load_file, save_file
from torch import Tensor

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
SHARDS = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")
SIZES = {
    "vocab_size": 2048,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
}


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("good")
    torch.manual_seed(1)
    transformers.LlamaForCausalLM(transformers.LlamaConfig(**SIZES)).save_pretrained(path)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(model_dir() / name, path / name)
    return path


@pytest.fixture
def model(good: Path, tmp_path: Path) -> Path:
    return shutil.copytree(good, tmp_path / "model")


Damage = Callable[[Path], Any]


def config(**values: Any) -> Damage:
    return edited("config.json", lambda found: found.update(values))


def edited(name: str, change: Callable[[dict[str, Any]], Any]) -> Damage:
    def damage(path: Path) -> None:
        found = json.loads((path / name).read_text())
        change(found)
        (path / name).write_text(json.dumps(found))

    return damage


def tensors(change: Callable[[dict[str, Tensor]], Any]) -> Damage:
    def damage(path: Path) -> None:
        found = load_file(path / WEIGHTS)
        change(found)
        save_file(found, path / WEIGHTS, {"format": "pt"})

    return damage


def written(name: str, data: bytes) -> Damage:
    return lambda path: (path / name).write_bytes(data)


def cut(name: str, length: int) -> Damage:
    return lambda path: (path / name).write_bytes((path / name).read_bytes()[:length])


def without(*names: str) -> Damage:
    return lambda path: [(path / name).unlink() for name in names]


def shard(path: Path) -> None:
    found = load_file(path / WEIGHTS)
    (path / WEIGHTS).unlink()
    names, places = sorted(found), {}
    for number, file in enumerate(SHARDS):
        part = names[number::2]
        save_file({name: found[name] for name in part}, path / file, {"format": "pt"})
        places |= dict.fromkeys(part, file)
    (path / INDEX).write_text(json.dumps({"weight_map": places}))


def each(*damages: Damage) -> Damage:
    return lambda path: [damage(path) for damage in damages]


BAD: dict[str, tuple[Damage, str]] = {
    "hidden size": (
        config(hidden_size=64),
        r"layers\.0-2\.mlp\.down_proj\.weight is \(32, 48\), must be \(64, 48\)(.|\n)*post_attention_layernorm",
    ),
    "layers": (config(num_hidden_layers=5), r"missing: model\.layers\.3-4\.self_attn\.q_proj\.weight"),
    "fewer layers": (config(num_hidden_layers=1), r"unexpected: model\.layers\.1-2\.mlp\.down_proj\.weight"),
    "heads": (config(num_attention_heads=8), r"q_proj\.weight is \(32, 32\), must be \(64, 32\)"),
    "vocabulary": (config(vocab_size=100), r"embed_tokens\.weight is \(2048, 32\), must be \(100, 32\)"),
    "dtype name": (config(dtype="fp16"), r"dtype is 'fp16'; it must be one of float32, bfloat16, float16"),
    "tensor dtype": (
        tensors(lambda t: t.update({"model.norm.weight": t["model.norm.weight"].to(torch.float8_e4m3fn)})),
        r"model\.norm\.weight is F8_E4M3, must be F32 or BF16 or F16",
    ),
    "two at once": (
        tensors(lambda t: (t.pop("model.norm.weight"), t.update({"lm_head.weight": torch.zeros(3, 3)}))),
        r"missing: model\.norm\.weight\n.*lm_head\.weight is \(3, 3\), must be \(2048, 32\)",
    ),
    "bare model": (
        tensors(lambda t: [t.update({name[6:]: t.pop(name)}) for name in list(t) if name.startswith("model.")]),
        r"missing: model\.embed_tokens\.weight(.|\n)*unexpected: layers\.0-2\.mlp\.down_proj\.weight",
    ),
    "quantized": (config(quantization_config={"quant_method": "awq"}), r"quantized \(awq\), which is not supported"),
    "architecture": (config(architectures=["SomeLM"]), r"SomeLM is not supported: transformers .* knows no causal"),
    "wrong family": (config(architectures=["Qwen3ForCausalLM"]), r"missing: model\.layers\.0-2\.self_attn\.q_norm"),
    "no config": (without("config.json"), r"config\.json cannot be read: No such file(.|\n)*has a config\.json"),
    "cut": (cut(WEIGHTS, 5000), r"it is cut off, 5,000 of 620,\d\d\d bytes are there(.|\n)*fetch it again"),
    "cut by a byte": (cut(WEIGHTS, -1), r"it is cut off, 620,\d\d\d of 620,\d\d\d bytes are there"),
    "cut in the header": (cut(WEIGHTS, 100), r"is not a readable safetensors file"),
    "pointer": (
        written(WEIGHTS, b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n"),
        r"it is a Git LFS pointer(.|\n)*git lfs pull",
    ),
    "empty": (written(WEIGHTS, b""), r"model\.safetensors is not a readable safetensors file: it is empty"),
    "a page": (written(WEIGHTS, b"<!DOCTYPE html><html>404</html>"), r"it begins with b'<!DOCTYP'"),
    "a folder": (each(without(WEIGHTS), lambda path: (path / WEIGHTS).mkdir()), r"it is a folder"),
    "no weights": (without(WEIGHTS), r"holds neither model\.safetensors nor model\.safetensors\.index\.json\n"),
    "other format": (
        lambda path: (path / WEIGHTS).rename(path / "pytorch_model.bin"),
        r"index\.json, only pytorch_model\.bin(.|\n)*only safetensors are read",
    ),
    "a shard is missing": (each(shard, without(SHARDS[1])), rf"names files that are not there: {SHARDS[1]}"),
    "a shard is cut": (each(shard, cut(SHARDS[0], -9)), rf"{SHARDS[0]} is not a readable .* it is cut off"),
    "no index": (each(shard, without(INDEX)), rf"only {SHARDS[0]}, {SHARDS[1]}(.|\n)*fetch {INDEX} too"),
    "index is cut": (each(shard, cut(INDEX, 30)), r"index\.json is not valid JSON"),
    "no tokenizer": (without("tokenizer.json"), r"has no tokenizer\.json"),
    "tokenizer is cut": (cut("tokenizer.json", 1000), r"tokenizer\.json cannot be read: Input data was truncated"),
    "tokenizer without model": (edited("tokenizer.json", lambda t: t.pop("model")), r"tokenizer\.json is not a token"),
    "tokenizer configuration": (written("tokenizer_config.json", b"{"), r"tokenizer_config\.json cannot be read"),
    "end of text": (
        written("generation_config.json", b'{"eos_token_id": "</s>"}'),
        r"generation_config\.json: eos_token_id must be a token id or a list of them, got '</s>'",
    ),
    "chat template": (written("chat_template.jinja", b"{% for m in"), r"the chat template is not valid"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_is_wrong_is_named(case: str, model: Path) -> None:
    damage, message = BAD[case]
    damage(model)
    with pytest.raises(ModelError, match=message):
        LocalBackend(model, device="cpu")


def test_a_tokenizer_of_another_model(tmp_path: Path, model: Path) -> None:
    small = transformers.LlamaForCausalLM(transformers.LlamaConfig(**SIZES | {"vocab_size": 100}))
    small.save_pretrained(model)
    with pytest.raises(ModelError, match=r"tokenizer\.json has 1536 tokens, the model's vocabulary 100"):
        LocalBackend(model, device="cpu")


def test_texts_that_would_never_end(model: Path) -> None:
    for name in ("config.json", "generation_config.json", "tokenizer_config.json"):
        edited(name, lambda found: [found.pop(key, None) for key in ("eos_token_id", "eos_token")])(model)
    edited("generation_config.json", lambda found: found.update(eos_token_id=5000))(model)
    with pytest.raises(ModelError, match="eos_token_id is 5000, the model's vocabulary has 2048 tokens"):
        LocalBackend(model, device="cpu")


def test_a_dtype_that_is_none(model: Path) -> None:
    with pytest.raises(UsageError, match=r"dtype is a torch\.dtype such as torch\.bfloat16, not 'bf16'"):
        LocalBackend(model, device="cpu", dtype="bf16")  # type: ignore[arg-type]


@rf.program
def ask(s: rf.State) -> None:
    s += rf.user("Hi") + rf.assistant(rf.gen("x", max_tokens=3))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("model.layers.1.mlp.down_proj.weight", r"layer 2 is the first .* they come from the output of layer 1"),
        ("model.layers.0.input_layernorm.weight", r"layer 0 is the first .* they come from the embedding"),
        ("lm_head.weight", r"no finite maximum to choose a token by$"),
    ],
)
def test_numbers_that_are_none_fail_with_their_layer(model: Path, name: str, said: str, value: float) -> None:
    tensors(lambda t: t[name].fill_(value))(model)
    backend = LocalBackend(model, device="cpu", check=True)
    with pytest.raises(BackendError) as caught:
        ask.run(backend=backend)
    assert caught.match(said) if "$" not in said else caught.value.message.endswith(said[:-1])
    backend.engine.check_idle()
    backend.close()


def test_a_model_that_does_not_fit_the_memory(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    weights = (model / WEIGHTS).stat().st_size
    monkeypatch.setattr(budget, "free_memory", lambda device: 3 * weights)
    LocalBackend(model, device="cpu").close()
    with pytest.raises(ModelError) as caught:
        LocalBackend(model, device="cpu", kv_tokens=10**7)
    said = str(caught.value)
    assert "does not fit the memory of cpu: its weights in float32 take 0.00 GiB, the KV of 10,000,000 tokens" in said
    assert "3.58 GiB (384 bytes each)" in said
    fitting = int(said.rpartition("kv_tokens=")[2].removesuffix(" would fit"))
    LocalBackend(model, device="cpu", kv_tokens=fitting).close()
    with pytest.raises(ModelError):
        LocalBackend(model, device="cpu", kv_tokens=fitting + 1)
    monkeypatch.setattr(budget, "free_memory", lambda device: weights)
    with pytest.raises(ModelError, match=r"in bfloat16 \(dtype=torch\.bfloat16\) it would fit"):
        LocalBackend(model, device="cpu")
    monkeypatch.setattr(budget, "free_memory", lambda device: weights // 4)
    with pytest.raises(ModelError, match="free some memory, or take a smaller model"):
        LocalBackend(model, device="cpu")


def test_pages_of_files_that_were_read_are_free(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "_CGROUP", tmp_path)
    assert memory._cgroup_free() is None
    (tmp_path / "memory.max").write_text("1000\n")
    (tmp_path / "memory.current").write_text("900\n")
    (tmp_path / "memory.stat").write_text("anon 400\nactive_file 200\ninactive_file 150\nfile 380\n")
    assert memory._cgroup_free() == 450 == memory.free_memory(torch.device("cpu"))
    (tmp_path / "memory.max").write_text("max\n")
    assert memory._cgroup_free() is None


def test_what_torch_holds_of_a_gpus_memory_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("mem_get_info", (100, 1000)), ("memory_reserved", 700), ("memory_allocated", 250)):
        monkeypatch.setattr(torch.cuda, name, lambda device, value=value: value)
    assert memory.free_memory(torch.device("cuda")) == 550
