"""The decoder against `transformers` in float32, and everything that the loader must refuse."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from ramify.ir.errors import ModelError
from ramify.runtime.batch import Batch, Read, Write
from ramify.runtime.models import Model, load_model
from ramify.runtime.models.config import read_config
from ramify.runtime.models.rope import inverse_frequencies, magnitude
from ramify.runtime.pool import KVPool
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

# Largest difference of two logits, which are of order 1. Half precision rounds at other places than transformers does.
TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 5e-2, torch.float16: 1e-2}

TINY: dict[str, Any] = {
    "vocab_size": 97,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
}
ROPES: dict[str, dict[str, Any]] = {
    "linear": {"rope_type": "linear", "factor": 4.0},
    "dynamic": {"rope_type": "dynamic", "factor": 2.0},
    "llama3": {
        "rope_type": "llama3",
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 32,
    },
    "yarn": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32},
    "yarn-attention": {
        "rope_type": "yarn",
        "factor": 4.0,
        "original_max_position_embeddings": 32,
        "attention_factor": 1.3,
        "beta_fast": 16.0,
        "beta_slow": 2.0,
        "truncate": False,
    },
    "yarn-mscale": {
        "rope_type": "yarn",
        "factor": 4.0,
        "original_max_position_embeddings": 32,
        "mscale": 1.0,
        "mscale_all_dim": 0.5,
    },
}


def _rope(kind: str) -> dict[str, Any]:
    return {"rope_parameters": {"rope_theta": 500.0, **ROPES[kind]}}


CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("Llama", {}),
    "llama-tied": ("Llama", {"tie_word_embeddings": True}),
    "llama-biases": ("Llama", {"attention_bias": True, "mlp_bias": True}),
    "llama-no-gqa": ("Llama", {"num_key_value_heads": 4}),
    "llama-one-kv-head": ("Llama", {"num_key_value_heads": 1}),
    "llama-head-dim": ("Llama", {"head_dim": 12}),
    "llama-large-eps": ("Llama", {"rms_norm_eps": 0.1}),
    "mistral": ("Mistral", {"sliding_window": None}),
    "mistral-wide-window": ("Mistral", {"sliding_window": 4096}),
    "qwen2": ("Qwen2", {}),
    "qwen2-tied": ("Qwen2", {"tie_word_embeddings": True}),
    "qwen3": ("Qwen3", {"head_dim": 16}),
    "qwen3-bias-tied": ("Qwen3", {"head_dim": 8, "attention_bias": True, "tie_word_embeddings": True}),
    **{f"llama-{kind}": ("Llama", _rope(kind)) for kind in ROPES},
    "qwen2-yarn": ("Qwen2", _rope("yarn")),
}


def _reference(family: str, changes: dict[str, Any]) -> Any:
    """A transformers model with random weights; biases and norms too, which start as zeros and ones."""
    torch.manual_seed(0)
    config = getattr(transformers, f"{family}Config")(**(TINY | changes))
    reference = getattr(transformers, f"{family}ForCausalLM")(config).eval()
    with torch.no_grad():
        for parameter in reference.parameters():
            parameter.normal_(0.5, 0.3) if parameter.ndim == 1 else parameter.normal_(0, 0.15)
    return reference


def _save(directory: Path, family: str = "Llama", **changes: Any) -> Any:
    reference = _reference(family, changes)
    reference.save_pretrained(directory)
    return reference


def _reference_logits(reference: Any, ids: list[int]) -> Tensor:
    with torch.no_grad():
        logits: Tensor = reference(torch.tensor([ids])).logits[0].float()
    return logits


def _tokens(count: int, seed: int = 0) -> list[int]:
    return random.Random(seed).choices(range(TINY["vocab_size"]), k=count)


class Sequence:
    """Runs one sequence through a model; a branch starts below a prefix in extents that others share."""

    def __init__(self, model: Model, pool: KVPool, room: int) -> None:
        self.model = model
        self.extent = pool.allocate(room)
        self.length = 0

    def feed(self, ids: list[int]) -> Tensor:
        """The logits after each of `ids`, all in one chunk."""
        start, stop = self.length, self.length + len(ids)
        self.length = stop
        rows = [(0, len(ids))]
        batch = Batch(
            torch.tensor(ids),
            torch.arange(start, stop),
            [Write(self.extent, start, 0, len(ids))],
            [Read(self.extent, stop, rows, True)],
            torch.arange(len(ids)),
        )
        batch.check()
        return self.model.forward(batch)


def _logits(model: Model, ids: list[int], chunks: list[int]) -> Tensor:
    sequence = Sequence(model, KVPool(model.layout, 200), len(ids))
    parts, start = [], 0
    for size in chunks:
        parts.append(sequence.feed(ids[start : start + size]))
        start += size
    return torch.cat(parts)


@pytest.mark.parametrize("case", CASES)
def test_logits_equal_transformers(case: str, tmp_path: Path) -> None:
    family, changes = CASES[case]
    reference = _save(tmp_path, family, **changes)
    model = load_model(tmp_path)
    assert model.dtype == torch.float32
    ids = _tokens(60)
    expected = _reference_logits(reference, ids)
    assert expected.std() > 0.1, "the logits must differ enough to compare them"
    got = _logits(model, ids, [len(ids)])
    assert got.dtype == torch.float32
    torch.testing.assert_close(got, expected, rtol=0, atol=TOLERANCE[torch.float32])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("case", ["llama-biases", "qwen2", "qwen3"])
def test_layers_in_one_call_are_the_same_to_the_last_bit(case: str, dtype: torch.dtype, tmp_path: Path) -> None:
    family, changes = CASES[case]
    _save(tmp_path, family, **changes)
    model, apart = load_model(tmp_path, dtype=dtype), load_model(tmp_path, dtype=dtype)
    if model._native is None:
        pytest.skip("no compiled kernels serve this here")
    apart._native = None
    for wanted in ([0, 1, 2, 3, 4], [1, 4], []):
        found = []
        for one in (model, apart):
            sequence = Sequence(one, KVPool(one.layout, 200), 8)
            sequence.feed(_tokens(3))
            rows, logit_rows = [(0, 5)], torch.tensor(wanted, dtype=torch.int64)
            writes, reads = [Write(sequence.extent, 3, 0, 5)], [Read(sequence.extent, 8, rows, True)]
            logits = one.forward(Batch(torch.tensor(_tokens(5, 1)), torch.arange(3, 8), writes, reads, logit_rows))
            found.append((logits, sequence.extent.data))
        assert found[0][0].shape == (len(wanted), TINY["vocab_size"])
        assert torch.equal(found[0][0], found[1][0]) and torch.equal(found[0][1], found[1][1])


@pytest.mark.parametrize("kind", ROPES)
def test_rotary_frequencies_of_wide_heads(kind: str, tmp_path: Path) -> None:
    """With 32 pairs, every bound of a scheme's ramps falls between pairs."""
    changes = TINY | {"head_dim": 64, "max_position_embeddings": 4096, "architectures": ["LlamaForCausalLM"]}
    parameters = {"rope_theta": 500.0, **ROPES[kind]}
    if "original_max_position_embeddings" in parameters:
        parameters["original_max_position_embeddings"] = 1024
    (tmp_path / "config.json").write_text(json.dumps(changes | {"rope_parameters": parameters}))
    rope = read_config(tmp_path).rope
    expected = LlamaRotaryEmbedding(transformers.LlamaConfig.from_pretrained(tmp_path))
    torch.testing.assert_close(inverse_frequencies(rope, 64), expected.inv_freq, rtol=1e-5, atol=0)
    assert magnitude(rope) == pytest.approx(expected.attention_scaling, rel=1e-12)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("family", ["Llama", "Qwen3"])
def test_half_precision(family: str, dtype: torch.dtype, tmp_path: Path) -> None:
    """Against transformers in float32 with the same rounded weights; converting them to float32 gives its tokens."""
    reference = _reference(family, {"head_dim": 8}).to(dtype)
    reference.save_pretrained(tmp_path)
    model = load_model(tmp_path)
    assert model.dtype == dtype and model.layout.dtype == dtype
    ids = _tokens(40)
    got = _logits(model, ids, [25, 1, 14])
    exact = _reference_logits(reference.float(), ids)
    torch.testing.assert_close(got, exact, rtol=0, atol=TOLERANCE[dtype])
    assert torch.equal(_logits(load_model(tmp_path, dtype=torch.float32), ids, [40]).argmax(-1), exact.argmax(-1))


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("qwen3")
    _save(directory, "Qwen3", head_dim=8)
    return directory


@pytest.fixture(scope="module")
def model(checkpoint: Path) -> Model:
    return load_model(checkpoint)


@pytest.mark.parametrize("chunks", [[1] * 40, [7, 1, 1, 20, 11], [39, 1], [1, 39]])
def test_chunks_equal_one_prefill(model: Model, chunks: list[int]) -> None:
    ids = _tokens(40)
    torch.testing.assert_close(_logits(model, ids, chunks), _logits(model, ids, [40]), rtol=0, atol=1e-5)


def test_branches_below_a_split_prefix(model: Model) -> None:
    """Two sequences that part inside an extent: it is split, one goes on in the split-off tail's neighbour."""
    pool = KVPool(model.layout, 200)
    shared, first_tail, second_tail = _tokens(11, 1), _tokens(6, 2), _tokens(9, 3)
    first = Sequence(model, pool, 17)
    first.feed(shared + first_tail[:5])
    head, tail = pool.split(first.extent, len(shared))
    other = pool.allocate(20)
    # The first decodes its last token while the second prefills all of its tail, in one batch.
    batch = Batch(
        torch.tensor([first_tail[5], *second_tail]),
        torch.tensor([16, *range(11, 20)]),
        [Write(tail, 5, 0, 1), Write(other, 0, 1, 10)],
        [Read(head, 11, [(0, 10)], False), Read(tail, 6, [(0, 1)], False), Read(other, 9, [(1, 10)], True)],
        torch.tensor([0, 9, 4]),
    )
    batch.check()
    got = model.forward(batch)
    torch.testing.assert_close(got[0], _logits(model, shared + first_tail, [17])[-1], rtol=0, atol=1e-5)
    alone = _logits(model, shared + second_tail, [20])
    torch.testing.assert_close(got[1:], alone[[19, 14]], rtol=0, atol=1e-5)


def test_tree_decode_equals_alone(model: Model) -> None:
    """Greedy decoding of branches of different depth, batched over shared nodes, gives the tokens of each alone."""
    pool = KVPool(model.layout, 400)
    root, inner = Sequence(model, pool, 12), _tokens(7, 5)
    root.feed(_tokens(12, 4))
    node = pool.allocate(7)
    model.forward(
        Batch(
            torch.tensor(inner),
            torch.arange(12, 19),
            [Write(node, 0, 0, 7)],
            [Read(root.extent, 12, [(0, 7)], False), Read(node, 7, [(0, 7)], True)],
            torch.tensor([], dtype=torch.int64),
        )
    )
    # Rows 0 and 2 hang below the root alone, rows 1 and 3 below the inner node: the root's readers and the inner node's
    # interleave, so that partial results have to be gathered.
    prefixes = [_tokens(12, 4) + (inner if row % 2 else []) for row in range(4)]
    tails = [pool.allocate(8) for _ in range(4)]
    texts = [[row + 1] for row in range(4)]
    for step in range(8):
        got = model.forward(_decode_batch(root, node, tails, prefixes, texts, step))
        for text, token in zip(texts, got.argmax(-1).tolist(), strict=True):
            text.append(token)
    for prefix, text in zip(prefixes, texts, strict=True):
        ids = [*prefix, *text[:-1]]
        assert _logits(model, ids, [len(ids)])[len(prefix) :].argmax(-1).tolist() == text[1:]


def _decode_batch(
    root: Sequence, node: Any, tails: list[Any], prefixes: list[list[int]], texts: list[list[int]], step: int
) -> Batch:
    batch = Batch(
        torch.tensor([text[-1] for text in texts]),
        torch.tensor([len(prefix) + step for prefix in prefixes]),
        [Write(tail, step, row, row + 1) for row, tail in enumerate(tails)],
        [
            Read(root.extent, 12, [(0, 4)], False),
            Read(node, 7, [(1, 2), (3, 4)], False),
            *(Read(tail, step + 1, [(row, row + 1)], False) for row, tail in enumerate(tails)),
        ],
        torch.arange(4),
    )
    batch.check()
    return batch


def test_no_logits_are_wanted(model: Model) -> None:
    sequence = Sequence(model, KVPool(model.layout, 50), 10)
    ids = _tokens(10)
    empty = torch.tensor([], dtype=torch.int64)
    rows = [(0, 9)]
    first = Batch(
        torch.tensor(ids[:9]),
        torch.arange(9),
        [Write(sequence.extent, 0, 0, 9)],
        [Read(sequence.extent, 9, rows, True)],
        empty,
    )
    assert model.forward(first).shape == (0, TINY["vocab_size"])
    sequence.length = 9
    torch.testing.assert_close(sequence.feed(ids[9:]), _logits(model, ids, [10])[9:], rtol=0, atol=1e-5)


def test_logits_may_be_changed_in_place(model: Model) -> None:
    _logits(model, [1, 2], [2]).div_(2)
    sequence = Sequence(model, KVPool(model.layout, 50), 10)
    sequence.feed([1]).masked_fill_(torch.zeros(TINY["vocab_size"], dtype=torch.bool), 0)


def test_sharded_checkpoint(checkpoint: Path, model: Model, tmp_path: Path) -> None:
    reference = _reference("Qwen3", {"head_dim": 8})
    reference.save_pretrained(tmp_path, max_shard_size="20KB")
    assert len(list(tmp_path.glob("model-*.safetensors"))) > 2
    ids = _tokens(20)
    assert torch.equal(_logits(load_model(tmp_path), ids, [20]), _logits(model, ids, [20]))


def test_config_of_transformers_4(tmp_path: Path) -> None:
    """`rope_theta`, `rope_scaling` with its old key `type`, and `torch_dtype`."""
    reference = _save(tmp_path, **_rope("yarn"))
    _edit_config(tmp_path, lambda config: config.pop("dtype", None))
    parameters = ROPES["yarn"] | {"type": "yarn"}
    del parameters["rope_type"]
    _edit_config(
        tmp_path,
        lambda config: (
            config.pop("rope_parameters"),
            config.update(rope_theta=500.0, rope_scaling=parameters, torch_dtype="float32"),
        ),
    )
    ids = _tokens(60)
    got = _logits(load_model(tmp_path), ids, [60])
    torch.testing.assert_close(got, _reference_logits(reference, ids), rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    ("family", "edit"),
    [
        ("Llama", lambda config: [config.pop(key) for key in ("rms_norm_eps", "tie_word_embeddings")]),
        ("Llama", lambda config: config.pop("rope_parameters")),
        ("Mistral", lambda config: config.pop("sliding_window")),
        ("Qwen3", lambda config: [config.pop(key) for key in ("attention_bias", "use_sliding_window", "layer_types")]),
        ("Llama", lambda config: config.update(head_dim=None, rope_parameters=None, rope_theta=300.0)),
        ("Llama", lambda config: config.update(rope_scaling=ROPES["linear"], rope_theta=300.0, rope_parameters=None)),
        ("Llama", lambda config: config.update(rope_scaling=ROPES["linear"])),
        ("Llama", lambda config: config.update(rope_parameters=ROPES["yarn"], original_max_position_embeddings=64)),
    ],
)
def test_silent_keys_mean_what_they_mean_to_transformers(
    family: str, edit: Callable[[dict[str, Any]], object], tmp_path: Path
) -> None:
    _save(tmp_path, family, head_dim=8)
    _edit_config(tmp_path, edit)
    reference = transformers.AutoModelForCausalLM.from_pretrained(tmp_path)
    ids = _tokens(60)
    got = _logits(load_model(tmp_path), ids, [60])
    torch.testing.assert_close(got, _reference_logits(reference, ids), rtol=0, atol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_model_outlives_its_files(dtype: torch.dtype, tmp_path: Path) -> None:
    _reference("Llama", {}).to(dtype).save_pretrained(tmp_path)
    model = load_model(tmp_path)
    before = _logits(model, [1, 2, 3], [3])
    path = tmp_path / "model.safetensors"
    size = path.stat().st_size
    with path.open("r+b") as file:
        file.write(bytes(size))
    assert torch.equal(_logits(model, [1, 2, 3], [3]), before)


def test_model_attributes(model: Model) -> None:
    assert (model.config.vocab_size, model.config.context_length) == (97, 128)
    assert (model.layout.num_layers, model.layout.num_kv_heads, model.layout.head_dim) == (3, 2, 8)
    assert model.device == torch.device("cpu")


def test_dtype_of_the_files_when_the_config_names_none(tmp_path: Path) -> None:
    _reference("Llama", {}).to(torch.bfloat16).save_pretrained(tmp_path)
    _edit_config(tmp_path, lambda config: (config.pop("dtype", None), config.pop("torch_dtype", None)))
    assert load_model(tmp_path).dtype == torch.bfloat16
    assert load_model(tmp_path, dtype=torch.float32).dtype == torch.float32


@pytest.mark.parametrize(
    ("family", "changes", "context"),
    [
        ("Mistral", {"sliding_window": 16}, 16),
        ("Mistral", {"sliding_window": None}, 128),
        ("Qwen2", {"use_sliding_window": True, "sliding_window": 16, "max_window_layers": 1}, 16),
        ("Qwen2", {"use_sliding_window": True, "sliding_window": 16, "max_window_layers": 3}, 128),
        ("Qwen2", {"use_sliding_window": False, "sliding_window": 16}, 128),
        ("Qwen3", {"use_sliding_window": True, "sliding_window": 16, "max_window_layers": 0}, 16),
    ],
)
def test_sliding_window_limits_the_context(family: str, changes: dict[str, Any], context: int, tmp_path: Path) -> None:
    """Up to the window nothing is hidden: logits equal those of transformers, which applies the window."""
    reference = _save(tmp_path, family, **changes)
    model = load_model(tmp_path)
    assert model.config.context_length == context
    ids = _tokens(context)
    expected = _reference_logits(reference, ids)
    torch.testing.assert_close(_logits(model, ids, [context]), expected, rtol=0, atol=1e-4)


def test_tied_checkpoint_may_hold_the_head_too(tmp_path: Path) -> None:
    reference = _save(tmp_path, tie_word_embeddings=True)
    _edit_tensors(tmp_path, lambda tensors: tensors.update({"lm_head.weight": torch.zeros(97, 32)}))
    ids = _tokens(5)
    got = _logits(load_model(tmp_path), ids, [5])
    torch.testing.assert_close(got, _reference_logits(reference, ids), rtol=0, atol=1e-4)


def test_stored_rotary_frequencies_are_ignored(tmp_path: Path) -> None:
    _save(tmp_path)
    name = "model.layers.0.self_attn.rotary_emb.inv_freq"
    _edit_tensors(tmp_path, lambda tensors: tensors.update({name: torch.zeros(4)}))
    load_model(tmp_path)


def _edit_config(directory: Path, edit: Callable[[dict[str, Any]], object]) -> None:
    path = directory / "config.json"
    config = json.loads(path.read_text())
    edit(config)
    path.write_text(json.dumps(config))


def _edit_tensors(directory: Path, edit: Callable[[dict[str, Tensor]], object]) -> None:
    path = directory / "model.safetensors"
    tensors = {name: tensor.clone() for name, tensor in load_file(path).items()}
    edit(tensors)
    save_file(tensors, path)


@pytest.fixture
def llama(tmp_path: Path) -> Path:
    _save(tmp_path)
    return tmp_path


BAD_CONFIGS: dict[str, tuple[dict[str, Any], str]] = {
    "architecture": (
        {"architectures": ["GPT2LMHeadModel"]},
        r"config\.json: the architecture GPT2LMHeadModel is not supported; supported: LlamaForCausalLM, Mistral",
    ),
    "no architecture": ({"architectures": None}, "architectures is None; it must be a list of one architecture name"),
    "two architectures": ({"architectures": ["A", "B"]}, "architectures is .*it must be a list of one"),
    "size as text": ({"hidden_size": "32"}, "hidden_size is '32'; it must be a whole number"),
    "zero layers": ({"num_hidden_layers": 0}, "num_hidden_layers is 0; it must be a whole number of at least 1"),
    "true heads": ({"num_attention_heads": True}, "num_attention_heads is True"),
    "kv heads": ({"num_key_value_heads": 3}, r"num_key_value_heads is 3; it must be a divisor of num_attention_heads"),
    "odd head": ({"head_dim": 7}, "head_dim is 7; it must be even"),
    "epsilon": ({"rms_norm_eps": -1}, "rms_norm_eps is -1; it must be a number above 0"),
    "flag": ({"tie_word_embeddings": "yes"}, "tie_word_embeddings is 'yes'; it must be true or false"),
    "activation": ({"hidden_act": "gelu"}, "hidden_act is 'gelu'; it must be one of silu"),
    "quantized": ({"quantization_config": {"quant_method": "gptq"}}, r"quantized \(gptq\), which is not supported"),
    "dtype": ({"dtype": "int8"}, "dtype is 'int8'; it must be one of float32, bfloat16, float16"),
    "rope type": (
        {"rope_parameters": {"rope_type": "longrope"}},
        "the rope_type 'longrope' is not supported; supported: default, dynamic, linear, llama3, yarn",
    ),
    "rope factor": (
        {"rope_parameters": {"rope_type": "linear", "factor": "2"}},
        "linear rotary embeddings need factor to be a number above 0, got '2'",
    ),
    "rope missing": (
        {"rope_parameters": {"rope_type": "llama3", "factor": 8.0}},
        "llama3 rotary embeddings need low_freq_factor to be a number above 0, got None",
    ),
    "rope theta": ({"rope_parameters": {"rope_theta": 0}}, "default rotary embeddings need rope_theta"),
    "rope object": ({"rope_parameters": [1]}, r"rope_parameters is \[1\]; it must be an object"),
    "partial rope": ({"partial_rotary_factor": 0.5}, "partial_rotary_factor 0.5 is not supported"),
}


@pytest.mark.parametrize("case", BAD_CONFIGS)
def test_bad_config(case: str, tmp_path: Path) -> None:
    changes, message = BAD_CONFIGS[case]
    base = TINY | {"architectures": ["LlamaForCausalLM"], "dtype": "float32"}
    (tmp_path / "config.json").write_text(json.dumps(base | changes))
    with pytest.raises(ModelError, match=message):
        read_config(tmp_path)


@pytest.mark.parametrize(("architecture", "head_dim"), [("Qwen3ForCausalLM", 128), ("Qwen2ForCausalLM", 8)])
def test_head_dim_when_the_config_names_none(architecture: str, head_dim: int, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(TINY | {"architectures": [architecture]}))
    assert read_config(tmp_path).head_dim == head_dim


def test_missing_key_is_named(tmp_path: Path) -> None:
    base = TINY | {"architectures": ["LlamaForCausalLM"]}
    del base["vocab_size"]
    (tmp_path / "config.json").write_text(json.dumps(base))
    with pytest.raises(ModelError, match=r"config\.json: vocab_size is missing; it must be a whole number"):
        read_config(tmp_path)


def test_no_directory_no_config_no_json(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="nowhere is not a directory"):
        load_model(tmp_path / "nowhere")
    with pytest.raises(ModelError, match=r"config\.json cannot be read: No such file"):
        load_model(tmp_path)
    config = tmp_path / "config.json"
    for text, message in [("{", "is not valid JSON"), ("[]", "must hold a JSON object, found list")]:
        config.write_text(text)
        with pytest.raises(ModelError, match=rf"config\.json {message}"):
            load_model(tmp_path)
    config.write_bytes(b"\xff\xfe{}")
    with pytest.raises(ModelError, match="is not valid JSON"):
        load_model(tmp_path)


def test_no_weights(llama: Path) -> None:
    (llama / "model.safetensors").unlink()
    (llama / "pytorch_model.bin").write_bytes(b"x")
    with pytest.raises(ModelError, match=r"holds neither model\.safetensors nor(.|\n)*only safetensors are read"):
        load_model(llama)


@pytest.mark.parametrize("damage", ["cut", "empty", "header", "text"])
def test_damaged_file_is_named(llama: Path, damage: str) -> None:
    path = llama / "model.safetensors"
    data = path.read_bytes()
    damaged = {"cut": data[: len(data) // 2], "empty": b"", "header": data[:40], "text": b"not a checkpoint at all"}
    path.write_bytes(damaged[damage])
    with pytest.raises(ModelError, match=r"model\.safetensors is not a readable safetensors file"):
        load_model(llama)


def test_all_wrong_tensors_are_listed(llama: Path) -> None:
    def damage(tensors: dict[str, Tensor]) -> None:
        del tensors["model.layers.1.mlp.up_proj.weight"]
        del tensors["lm_head.weight"]
        tensors["model.layers.0.self_attn.q_proj.bias"] = torch.zeros(32)
        tensors["model.layers.2.self_attn.k_proj.weight"] = torch.zeros(32, 32)
        tensors["model.norm.weight"] = torch.zeros(32, dtype=torch.int8)

    _edit_tensors(llama, damage)
    with pytest.raises(ModelError) as caught:
        load_model(llama)
    assert caught.value.message.splitlines()[1:] == [
        "  missing: lm_head.weight",
        "  missing: model.layers.1.mlp.up_proj.weight",
        "  unexpected: model.layers.0.self_attn.q_proj.bias",
        "  of another shape: model.layers.2.self_attn.k_proj.weight is (32, 32), must be (16, 32)",
        "  of a dtype that is not supported: model.norm.weight is I8, must be F32 or BF16 or F16",
    ]
    assert "do not fit the LlamaForCausalLM in config.json" in caught.value.message


def test_what_many_layers_have_in_common_is_said_once(llama: Path) -> None:
    _edit_config(llama, lambda config: config.update(num_hidden_layers=5, num_attention_heads=8))

    def damage(tensors: dict[str, Tensor]) -> None:
        del tensors["model.layers.0.mlp.up_proj.weight"]
        for number in range(30):
            tensors[f"extra{number}"] = torch.zeros(1)

    _edit_tensors(llama, damage)
    with pytest.raises(ModelError) as caught:
        load_model(llama)
    lines = [line.strip() for line in caught.value.message.splitlines()]
    assert "missing: model.layers.0,3-4.mlp.up_proj.weight" in lines
    assert "missing: model.layers.3-4.mlp.down_proj.weight" in lines
    assert "of another shape: model.layers.0-2.self_attn.q_proj.weight is (32, 32), must be (64, 32)" in lines
    assert "unexpected: extra0" in lines and "unexpected: 10 more" in lines and "unexpected: extra9" not in lines


def _shard(directory: Path) -> dict[str, str]:
    _reference("Llama", {}).save_pretrained(directory, max_shard_size="20KB")
    index = json.loads((directory / "model.safetensors.index.json").read_text())
    places: dict[str, str] = index["weight_map"]
    return places


def test_missing_shard_is_named(tmp_path: Path) -> None:
    name = sorted(set(_shard(tmp_path).values()))[1]
    (tmp_path / name).unlink()
    with pytest.raises(ModelError, match=f"index.json names files that are not there: {name}$"):
        load_model(tmp_path)


def test_damaged_shard_is_named(tmp_path: Path) -> None:
    name = sorted(set(_shard(tmp_path).values()))[1]
    (tmp_path / name).write_bytes((tmp_path / name).read_bytes()[:-5])
    with pytest.raises(ModelError, match=f"{name} is not a readable safetensors file"):
        load_model(tmp_path)


def test_wrong_index(tmp_path: Path) -> None:
    places = _shard(tmp_path)
    index = tmp_path / "model.safetensors.index.json"
    tensor, other = "model.norm.weight", next(name for name in places.values() if name != places["model.norm.weight"])
    index.write_text(json.dumps({"weight_map": places | {tensor: other}}))
    with pytest.raises(ModelError, match=rf"files do not hold: model\.norm\.weight \(in {other}\)"):
        load_model(tmp_path)
    for value in ({}, {"weight_map": [1]}, {"weight_map": {"a": 1}}):
        index.write_text(json.dumps(value))
        with pytest.raises(ModelError, match="weight_map must map tensor names to file names"):
            load_model(tmp_path)
