"""Models with weights of 8 bits: what is rounded and what is refused, and that nothing mixes with other models."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import ramify as rf
import torch
import transformers
from ramify.backends import close_backends, open_backend
from ramify.backends.local import LocalBackend
from ramify.backends.tiny import model_dir
from ramify.ir.errors import CacheError, ModelError, UsageError
from ramify.lang.cli import main
from ramify.lang.options import Options, approximation
from ramify.runtime.batch import Batch, Read, Write
from ramify.runtime.models import Model, budget, load_model, quantized
from ramify.runtime.models.quantized import quantize
from ramify.runtime.pool import KVPool
from ramify.runtime.weight_format import FORMATS, WeightFormat
from safetensors.torch import load_file, save_file
from torch import Tensor

WEIGHTS = "model.safetensors"
MATRIX = re.compile(r"model\.layers\.\d+\.\w+\.\w+_proj\.weight")
PROGRAM = """\
import ramify as rf

@rf.program
def answer(s, question):
    s += rf.user(question) + rf.assistant(rf.gen("answer", max_tokens=4))
"""


@pytest.fixture(autouse=True, scope="module")
def closed() -> Iterator[None]:
    yield
    close_backends()


@pytest.fixture(params=["Llama", "Qwen3"])
def directory(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """Random weights, biases and norms too."""
    torch.manual_seed(0)
    sizes = dict(
        vocab_size=1536, hidden_size=48, intermediate_size=80, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, head_dim=12, max_position_embeddings=512, attention_bias=True,
    )  # fmt: skip
    made = getattr(transformers, f"{request.param}ForCausalLM")(
        getattr(transformers, f"{request.param}Config")(**sizes)
    )
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.normal_(0.5, 0.3) if parameter.ndim == 1 else parameter.normal_(0, 0.15)
    made.save_pretrained(tmp_path)
    return tmp_path


def change(directory: Path, edit: Callable[[dict[str, Tensor]], Any]) -> None:
    held = load_file(directory / WEIGHTS)
    edit(held)
    save_file(held, directory / WEIGHTS, metadata={"format": "pt"})


def logits(model: Model, token_ids: list[int]) -> Tensor:
    extent = KVPool(model.layout, len(token_ids)).allocate(len(token_ids))
    rows = torch.arange(len(token_ids))
    write, read = Write(extent, 0, 0, len(rows)), Read(extent, len(rows), [(0, len(rows))], True)
    return model.forward(Batch(torch.tensor(token_ids), rows, [write], [read], rows))


@pytest.mark.parametrize("has_kernels", [True, False])
@pytest.mark.parametrize("format", FORMATS)
def test_the_matrices_of_the_blocks_are_rounded_and_nothing_else(
    directory: Path, format: WeightFormat, has_kernels: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not has_kernels:
        monkeypatch.setattr(quantized, "library", lambda: None)
    plain, rounded = load_model(directory), load_model(directory, weights=format)

    def round_matrices(held: dict[str, Tensor]) -> None:
        for name in filter(MATRIX.fullmatch, list(held)):
            held[name] = quantize(held[name], format).dequantized()

    change(directory, round_matrices)
    token_ids = list(range(3, 60))
    found, expected = logits(rounded, token_ids), logits(load_model(directory), token_ids)
    torch.testing.assert_close(found, expected, rtol=0, atol=2e-4)
    assert (logits(plain, token_ids) - found).abs().max() > 4e-3, "rounding can be seen"


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("format", FORMATS)
def test_every_dtype_serves(directory: Path, dtype: torch.dtype, format: WeightFormat) -> None:
    model = load_model(directory, dtype=dtype, weights=format)
    assert model.dtype == dtype
    near = logits(load_model(directory, weights=format), list(range(30)))
    torch.testing.assert_close(
        logits(model, list(range(30))), near, rtol=0, atol=1e-3 if dtype == torch.float32 else 0.6
    )


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_numbers_that_are_none_are_refused_by_name(directory: Path, value: float) -> None:
    name = "model.layers.1.mlp.up_proj.weight"

    def damage(held: dict[str, Tensor]) -> None:
        held[name][79, 47] = value

    change(directory, damage)
    load_model(directory)
    with pytest.raises(
        ModelError, match=f"{WEIGHTS}: {re.escape(name)} has numbers in float32 that are NaN or infinite"
    ):
        load_model(directory, weights="int8")


def test_a_weight_that_float16_cannot_hold(directory: Path) -> None:
    def damage(held: dict[str, Tensor]) -> None:
        held["model.layers.0.self_attn.k_proj.weight"][0, 0] = 1e5

    change(directory, damage)
    load_model(directory, weights="fp8")
    with pytest.raises(ModelError, match=r"k_proj\.weight has numbers in float16 .* and fp8 has none such"):
        load_model(directory, weights="fp8", dtype=torch.float16)


def test_identities_differ(directory: Path) -> None:
    models = [load_model(directory, weights=weights) for weights in (None, *FORMATS)]
    assert len({model.identity.fingerprint for model in models}) == 3
    assert ["weights" in model.identity.name for model in models] == [False, True, True]


def test_caches_do_not_mix(tmp_path: Path) -> None:
    backends = [LocalBackend(model_dir(), device="cpu", weights=weights) for weights in (None, "int8", "int8")]
    plain, rounded, again = backends
    answer.run("What is 3 + 4?", backend=rounded)
    saved = rounded.save_cache(tmp_path / "cache.kv")
    with pytest.raises(CacheError, match=r"int8 weights\), not of"):
        plain.load_cache(tmp_path / "cache.kv")
    assert again.load_cache(tmp_path / "cache.kv") == saved
    for backend in backends:
        backend.engine.check_idle()
        backend.close()


@rf.program
def answer(s: rf.State, question: str) -> None:
    s += rf.user(question) + rf.assistant(rf.gen("answer", max_tokens=16))


@pytest.mark.parametrize("format", FORMATS)
def test_the_embedded_model_answers_and_no_answer_depends_on_the_batch(format: WeightFormat) -> None:
    questions = [f"What is {a} + {b}?" for a in range(4) for b in range(3)]
    with pytest.MonkeyPatch.context() as patch:
        backend = open_backend(f"tiny:{format}")
        assert isinstance(backend, LocalBackend) and backend.weights == format
        alone = []
        for question in questions:
            backend.clear_cache()
            alone.append(answer.run(question, backend=backend, eager=True)["answer"])
        backend.clear_cache()
        together = [run["answer"] for run in answer.run_batch([{"question": q} for q in questions], backend=backend)]
        patch.setenv("RAMIFY_MODEL", f"tiny:{format}")
        assert answer.run(questions[0])["answer"] == alone[0]
    assert together == alone
    assert alone[5] == "3"


def test_what_would_fit(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    free = 0
    monkeypatch.setattr(budget, "free_memory", lambda device: free)

    def needed(weights: WeightFormat | None) -> int:
        nonlocal free
        free = 0
        while True:
            try:
                load_model(directory, dtype=torch.bfloat16, weights=weights)
            except ModelError:
                free += 10_000
            else:
                return free

    plain, rounded = needed(None), needed("int8")
    numbers = sum(held.numel() for name, held in load_file(directory / WEIGHTS).items() if MATRIX.fullmatch(name))
    assert 0.7 * numbers < plain - rounded < 1.1 * numbers
    free = rounded
    with pytest.raises(ModelError) as caught:
        load_model(directory, dtype=torch.bfloat16)
    assert caught.value.help == 'with weights="int8", which is approximate, it would fit'
    free = rounded // 2
    with pytest.raises(ModelError, match="its weights in bfloat16, those of the layers in fp8, take") as caught:
        load_model(directory, dtype=torch.bfloat16, weights="fp8")
    assert caught.value.help == "free some memory, or take a smaller model"


def test_what_is_no_format(tmp_path: Path) -> None:
    for make in (lambda: open_backend("tiny:int4"), lambda: LocalBackend(model_dir(), weights="int4")):  # type: ignore
        with pytest.raises(UsageError, match="'int4' is no format of weights"):
            make()
    with pytest.raises(UsageError, match="there is no backend 'tinny:int8'"):
        open_backend("tinny:int8")


def test_a_directory_whose_name_ends_like_a_format(directory: Path, tmp_path: Path) -> None:
    from ramify.backends import split_model

    odd = tmp_path / "model:int8"
    odd.mkdir()
    assert split_model(odd) == (odd.resolve(), None)
    assert split_model(f"{odd}:fp8") == (odd.resolve(), "fp8")


def test_users_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "program.py"
    file.write_text(PROGRAM)
    assert main(["run", str(file), "--arg", "question=What is 3 + 4?", "--model", "tiny:int8"]) == 0
    assert capsys.readouterr().out.rstrip().endswith("; int8 weights: results are approximate")
    assert main(["explain", str(file), "--arg", "question=What is 3 + 4?", "--model", "tiny:int8"]) == 0
    assert "on local:tiny (int8 weights, approximate)" in capsys.readouterr().out
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"question": "What is 3 + 4?"}\n')
    out = ["--out", str(tmp_path / "out.jsonl")]
    assert main(["run", str(file), "--data", str(rows), *out, "--model", "tiny:int8"]) == 0
    assert "int8 weights: results are approximate" in capsys.readouterr().err
    assert main(["run", str(file), "--data", str(rows), *out, "--model", "tiny", "--resume"]) == 2
    assert "model = tiny:int8 there, tiny here" in capsys.readouterr().err


def test_others_are_told_nothing() -> None:
    for model in ("tiny", "scripted", "openai:some", model_dir()):
        assert approximation(Options(backend=model)) == ""
    assert approximation(Options(backend=open_backend("tiny:fp8"))) == "fp8 weights: results are approximate"
