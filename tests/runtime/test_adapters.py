"""LoRA adapters against models into whose weights they were merged, batched together, and what is refused of them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import ramify as rf
import torch
import transformers
from ramify.backends.local import LocalBackend
from ramify.backends.tiny import model_dir
from ramify.ir.errors import ModelError, Unsupported
from ramify.runtime.models import load_model
from ramify.runtime.models.adapters import read_adapter
from safetensors.torch import load_file, save_file
from torch import Tensor

from .fakes import call, finish, new_engine

VOCAB, HIDDEN, INNER = 97, 32, 48
SIZES: dict[str, Any] = {
    "vocab_size": VOCAB,
    "hidden_size": HIDDEN,
    "intermediate_size": INNER,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 96,
    "eos_token_id": None,
    "bos_token_id": None,
    "pad_token_id": 0,
}
# Linear layers of a block and their (out, in).
BLOCK = {"self_attn.q_proj": (32, 32), "self_attn.k_proj": (16, 32), "self_attn.v_proj": (16, 32)}
BLOCK |= {"self_attn.o_proj": (32, 32), "mlp.gate_proj": (48, 32), "mlp.up_proj": (48, 32), "mlp.down_proj": (32, 48)}
FAMILIES: dict[str, tuple[str, dict[str, Any], str, dict[str, tuple[int, int]]]] = {
    "llama": ("LlamaForCausalLM", {}, "model.layers", BLOCK),
    "gemma": ("GemmaForCausalLM", {"head_dim": 8}, "model.layers", BLOCK),
    "gpt-2": (
        "GPT2LMHeadModel",
        {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 96},
        "transformer.h",
        {"attn.c_attn": (96, 32), "mlp.c_proj": (32, 128)},
    ),
}


def _reference(family: str) -> Any:
    name, changes, _, _ = FAMILIES[family]
    kind = getattr(transformers, name)
    torch.manual_seed(1)
    reference = kind(kind.config_class(**SIZES | changes)).eval()
    with torch.no_grad():
        for parameter in reference.parameters():
            parameter.normal_(0.5, 0.3) if parameter.ndim == 1 else parameter.normal_(0, 0.15)
    return reference


def _write_adapter(directory: Path, family: str, seed: int, rank: int = 3, **config: Any) -> dict[str, Tensor]:
    """Writes an adapter as PEFT does; returns what it adds to each layer's weight, (out, in)."""
    _, _, layers, block = FAMILIES[family]
    torch.manual_seed(seed)
    told = {"peft_type": "LORA", "r": rank, "lora_alpha": 6, "bias": "none", "target_modules": list(block)} | config
    factor = told["lora_alpha"] / (rank**0.5 if told.get("use_rslora") else rank)
    tensors, added = {}, {}
    for layer in range(2):
        for name, (out_size, in_size) in block.items():
            down, up = torch.randn(rank, in_size) * 0.3, torch.randn(out_size, rank) * 0.3
            path = f"{layers}.{layer}.{name}"
            tensors |= {f"base_model.model.{path}.lora_A.weight": down, f"base_model.model.{path}.lora_B.weight": up}
            patterns = told.get("alpha_pattern") or {}
            added[path] = up @ down * (patterns["k_proj"] / rank if name.endswith("k_proj") and patterns else factor)
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "adapter_config.json").write_text(json.dumps(told))
    save_file(tensors, directory / "adapter_model.safetensors")
    return added


def _merged(family: str, added: dict[str, Tensor]) -> Any:
    reference = _reference(family)
    for path, delta in added.items():
        weight = reference.get_submodule(path).weight
        weight.data += delta.t() if family == "gpt-2" else delta
    return reference


def _logprobs(reference: Any, ids: list[int]) -> list[float]:
    with torch.no_grad():
        rows = reference(torch.tensor([ids])).logits[0].log_softmax(-1)
    return [float(rows[at - 1, ids[at]]) for at in range(1, len(ids))]


@pytest.mark.parametrize("family", FAMILIES)
def test_adapters_are_batched_together(family: str, tmp_path: Path) -> None:
    _reference(family).save_pretrained(tmp_path)
    added = {
        "one": _write_adapter(tmp_path / "one", family, 5),
        "two": _write_adapter(tmp_path / "two", family, 6, 2, use_rslora=True),
        "three": _write_adapter(tmp_path / "three", family, 7, alpha_pattern={"k_proj": 12}),
    }
    model = load_model(tmp_path)
    for name in added:
        model.add_adapter(name, read_adapter(tmp_path / name, model.dtype, model.device))
    references = {None: _reference(family)} | {name: _merged(family, deltas) for name, deltas in added.items()}
    ids = torch.randint(1, VOCAB, (24,), generator=torch.Generator().manual_seed(2)).tolist()
    prompts = [ids, ids[:9], ids[:15] + ids[:4]]
    wanted = {(name, at): _logprobs(references[name], each) for name in references for at, each in enumerate(prompts)}
    for options in ({}, {"chunk_tokens": 7, "kv_tokens": 60}):
        engine = new_engine(model, adapters=model.adapters, **options)
        for _ in range(2):
            calls = {key: call(prompts[key[1]], score_from=1, adapter=key[0]) for key in wanted}
            finish(engine, *calls.values())
            for key, one in calls.items():
                assert [each.logprob for each in one.done.logprobs] == pytest.approx(wanted[key], abs=2e-4), key
    made = {name: call(ids, max_tokens=5, adapter=name) for name in references}
    finish(engine, *made.values())
    for name, one in made.items():
        known = ids + list(one.done.token_ids)
        with torch.no_grad():
            best = references[name](torch.tensor([known])).logits[0].argmax(-1)[len(ids) - 1 : -1]
        assert one.done.token_ids == tuple(best.tolist())


def test_kv_is_shared_within_an_adapter_only(tmp_path: Path) -> None:
    _reference("llama").save_pretrained(tmp_path)
    model = load_model(tmp_path)
    for number, name in enumerate(("a", "b")):
        _write_adapter(tmp_path / name, "llama", number)
        model.add_adapter(name, read_adapter(tmp_path / name, model.dtype, model.device))
    engine, ids = new_engine(model, adapters=model.adapters), list(range(1, 20))
    for adapter, cached in ((None, 0), ("a", 0), ("b", 0), ("a", 18), (None, 18), ("b", 18)):
        one = call(ids, max_tokens=1, adapter=adapter)
        finish(engine, one)
        assert one.done.cached_tokens == cached, adapter
    unknown = call(ids, max_tokens=1, adapter="c")
    finish(engine, unknown)
    assert "the model has no adapter 'c'; it has a, b" in str(unknown.error)
    saved = tmp_path / "saved"
    engine.save_cache(saved)
    other = new_engine(model, adapters=model.adapters)
    other.load_cache(saved)
    one = call(ids, max_tokens=1, adapter="b")
    finish(other, one)
    assert one.done.cached_tokens == 18


def test_rows_without_an_adapter_stay_what_they_are(tmp_path: Path) -> None:
    _reference("llama").save_pretrained(tmp_path)
    _write_adapter(tmp_path / "a", "llama", 0)
    model = load_model(tmp_path)
    model.add_adapter("a", read_adapter(tmp_path / "a", model.dtype, model.device))
    runs: list[list[float]] = []
    for others in ([], ["a", None, "a"]):
        plain = call(list(range(1, 30)), score_from=1)
        finish(
            new_engine(model, adapters=model.adapters),
            plain,
            *(call([5] * 12, score_from=1, adapter=name) for name in others),
        )
        runs.append([each.logprob for each in plain.done.logprobs])
    assert runs[0] == pytest.approx(runs[1], abs=1e-6)


BAD: dict[str, tuple[Callable[[Path], Any], str]] = {
    "another kind": (lambda path: _edit(path, peft_type="IA3"), "adapters of the kind 'IA3' are not supported"),
    "dora": (lambda path: _edit(path, use_dora=True), "use_dora=True is not supported"),
    "modules to save": (lambda path: _edit(path, modules_to_save=["lm_head"]), r"modules_to_save=\['lm_head'\] is not"),
    "biases": (lambda path: _edit(path, bias="all"), "bias='all' is not supported"),
    "pissa": (lambda path: _edit(path, init_lora_weights="pissa"), "changes the model's own weights"),
    "alpha": (lambda path: _edit(path, lora_alpha="8"), "lora_alpha is '8'; it must be a number above 0"),
    "no weights": (lambda path: (path / "adapter_model.safetensors").unlink(), "only safetensors are read"),
    "no config": (lambda path: (path / "adapter_config.json").unlink(), "cannot be read: No such file"),
    "half a pair": (
        lambda path: _drop(path, "model.layers.1.mlp.up_proj.lora_B"),
        "pairs of matrices: .*up_proj.lora_A",
    ),
    "other sizes": (lambda path: _write_adapter(path, "gpt-2", 0), "changes what is no linear layer of the blocks"),
}


def _edit(path: Path, **changes: Any) -> None:
    config = path / "adapter_config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | changes))


def _drop(path: Path, name: str) -> None:
    tensors = load_file(path / "adapter_model.safetensors")
    save_file({key: tensor for key, tensor in tensors.items() if name not in key}, path / "adapter_model.safetensors")


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("llama")
    _reference("llama").save_pretrained(path)
    return path


@pytest.mark.parametrize("case", BAD)
def test_refused(case: str, llama: Path, tmp_path: Path) -> None:
    damage, message = BAD[case]
    _write_adapter(tmp_path / "a", "llama", 0)
    damage(tmp_path / "a")
    model = load_model(llama)
    with pytest.raises(ModelError, match=message):
        model.add_adapter("a", read_adapter(tmp_path / "a", model.dtype, model.device))


def test_programs_choose_adapters_by_name(tmp_path: Path) -> None:
    config = json.loads((model_dir() / "config.json").read_text())
    hidden = config["hidden_size"]
    down, up = torch.ones(1, hidden), torch.ones(hidden, 1)
    tensors = {
        f"model.layers.0.self_attn.o_proj.lora_{part}.weight": matrix for part, matrix in (("A", down), ("B", up))
    }
    (tmp_path / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": 1, "lora_alpha": 9}))
    save_file(tensors, tmp_path / "adapter_model.safetensors")

    @rf.program
    def answers(s: rf.State, name: str) -> list[str]:
        s += rf.user("What is 2 + 3?")
        forks = s.fork(2)
        forks[0] += rf.assistant(rf.gen("a", max_tokens=4))
        forks[1] += rf.assistant(rf.gen("a", max_tokens=4, adapter=name))
        return [forks[0]["a"], forks[1]["a"]]

    backend = LocalBackend(model_dir(), dtype=torch.float32, adapters={"strange": tmp_path}, check=True)
    plain = LocalBackend(model_dir(), dtype=torch.float32)
    try:
        run: Any = partial(answers.run, backend=backend)
        assert run(name="strange").value == run(name="strange", eager=True).value
        usual, strange = run(name="strange").value
        assert usual != strange
        with pytest.raises(Unsupported, match="has no adapter 'usual'; it has strange"):
            run(name="usual")
        with pytest.raises(Unsupported, match="has no adapter 'strange'; it has none"):
            answers.run(name="strange", backend=plain)
    finally:
        backend.close()
        plain.close()


def test_the_command_line_takes_adapters(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from ramify.lang.cli import main

    program = tmp_path / "program.py"
    program.write_text('import ramify as rf\n\n@rf.program\ndef p(s):\n    s += rf.gen("a", adapter="formal")\n')
    model = shutil.copytree(model_dir(), tmp_path / "model")  # which no other test has opened
    missing = ["--model", str(model), "--adapter", f"formal={tmp_path}/nowhere", "--kv-tokens", "99"]
    for words, message in (
        (["--adapter", "formal"], "--adapter 'formal' is not NAME=DIR"),
        (["--adapter", "formal=a", "--adapter", "formal=b"], "its name was given before"),
        (missing, "nowhere is not a directory"),
        (["--model", "scripted"], "the backend 'scripted' cannot take adapter (LoRA)"),
        (["--model", "scripted", "--adapter", "formal=a"], "only a model in this process does"),
    ):
        assert main(["run", str(program), *words]) == 2
        assert message in capsys.readouterr().err
