"""Models that run through transformers' code, against plain transformers in float32, and those that are refused."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from ramify.ir.errors import ModelError
from ramify.runtime.models import load_model
from ramify.runtime.models.hf.model import HFModel
from ramify.runtime.models.loader import read_layout
from torch import Tensor

from .fakes import call, finish, new_engine

VOCAB = 97
SIZES: dict[str, Any] = {
    "vocab_size": VOCAB,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 96,
    "eos_token_id": None,
    "bos_token_id": None,
    "pad_token_id": 0,
}
EXPERTS = {"moe_intermediate_size": 16, "num_experts": 4, "num_experts_per_tok": 2}
GPT2 = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 96}
KINDS = {"layer_types": ["sliding_attention", "full_attention"]}
# Class names without their endings, what the configuration has besides sizes, and the windows of the layers.
CASES: dict[str, tuple[str, dict[str, Any], set[int | None]]] = {
    "cohere": ("Cohere", {"logit_scale": 0.5}, {None}),
    "cohere2": ("Cohere2", {"sliding_window": 6, **KINDS}, {6, None}),
    "deepseek-v3": (
        "DeepseekV3",
        {
            **EXPERTS,
            "n_routed_experts": 4,
            "n_group": 1,
            "topk_group": 1,
            "first_k_dense_replace": 1,
            "q_lora_rank": 16,
            "kv_lora_rank": 16,
            "qk_nope_head_dim": 8,
            "qk_rope_head_dim": 4,
            "v_head_dim": 6,
            "num_key_value_heads": 4,
        },
        {None},
    ),
    "falcon": ("Falcon", {}, {None}),
    "falcon-new": ("Falcon", {"new_decoder_architecture": True, "num_kv_heads": 2}, {None}),
    "gemma2": (
        "Gemma2",
        {"head_dim": 8, "sliding_window": 6, "query_pre_attn_scalar": 5, **KINDS}
        | {"attn_logit_softcapping": 2.0, "final_logit_softcapping": 3.0},
        {6, None},
    ),
    "gemma3": ("Gemma3Text", {"head_dim": 8, "sliding_window": 9, **KINDS}, {9, None}),
    "gpt-2": ("GPT2", GPT2 | {"scale_attn_by_inverse_layer_idx": True}, {None}),
    "gpt-neox": ("GPTNeoX", {}, {None}),
    "granite": ("Granite", {"attention_multiplier": 0.3, "logits_scaling": 2.0, "residual_multiplier": 0.5}, {None}),
    "mixtral": ("Mixtral", {"num_local_experts": 4, "sliding_window": 7}, {7}),
    "olmo2": ("Olmo2", {}, {None}),
    "opt": ("OPT", {"word_embed_proj_dim": 16, "ffn_dim": 48}, {None}),
    "phi-3": ("Phi3", {"sliding_window": 1}, {1}),
    "qwen2-moe": ("Qwen2Moe", EXPERTS | {"shared_expert_intermediate_size": 16}, {None}),
    "qwen3-moe": ("Qwen3Moe", EXPERTS | {"head_dim": 8}, {None}),
    "stablelm": ("StableLm", {"use_qkv_bias": True}, {None}),
    "starcoder2": ("Starcoder2", {"sliding_window": 5}, {5}),
}


def _class(name: str) -> Any:
    return getattr(
        transformers, {"GPT2": "GPT2LMHeadModel", "Gemma3Text": "Gemma3ForCausalLM"}.get(name, f"{name}ForCausalLM")
    )


def _save(directory: Path, name: str, changes: dict[str, Any]) -> Any:
    """A transformers model with random weights; biases and norms too, which start as zeros and ones."""
    torch.manual_seed(0)
    reference = _class(name)(getattr(transformers, f"{name}Config")(**SIZES | changes)).eval()
    with torch.no_grad():
        for parameter in reference.parameters():
            parameter.normal_(0.5, 0.3) if parameter.ndim == 1 else parameter.normal_(0, 0.15)
    reference.save_pretrained(directory)
    return reference


def _logprobs(reference: Any, ids: list[int]) -> Tensor:
    with torch.no_grad():
        return reference(torch.tensor([ids])).logits[0].float().log_softmax(-1)


def _prompts() -> list[list[int]]:
    """Of unequal lengths, some with a prefix in common."""
    rng = random.Random(3)
    stem = rng.choices(range(1, VOCAB), k=13)
    return [stem[:cut] + rng.choices(range(1, VOCAB), k=more) for cut, more in [(13, 2), (13, 6), (9, 1), (0, 3)]]


@pytest.mark.parametrize("case", CASES)
def test_scores_and_tokens_are_those_of_transformers(case: str, tmp_path: Path) -> None:
    name, changes, windows = CASES[case]
    reference = _save(tmp_path, name, changes)
    model = load_model(tmp_path)
    assert isinstance(model, HFModel) and {layer.window for layer in model.config.layers} == windows
    prompts = _prompts()
    wanted = [_logprobs(reference, ids) for ids in prompts]
    # The first engine computes prompts whole, then finds them cached; the second has room for two of them, computes
    # four tokens at a time, and evicts.
    for options in ({"chunk_tokens": 200}, {"chunk_tokens": 4, "kv_tokens": 30}):
        engine = new_engine(model, **options)
        for _ in range(2 if engine.stats().capacity > 100 else 1):
            scores = [call(ids, score_from=1) for ids in prompts]
            finish(engine, *scores)
            for one, ids, logprobs in zip(scores, prompts, wanted, strict=True):
                want = [float(logprobs[at - 1, ids[at]]) for at in range(1, len(ids))]
                assert [each.logprob for each in one.done.logprobs] == pytest.approx(want, abs=1e-4)
        assert (engine.stats().evicted_tokens > 0) == ("kv_tokens" in options)
    forks = [call(ids, max_tokens=4, logprobs=0) for ids in prompts]
    finish(engine, *forks)
    for one, ids in zip(forks, prompts, strict=True):
        logprobs = _logprobs(reference, ids + list(one.done.token_ids))[len(ids) - 1 : -1]
        assert one.done.token_ids == tuple(logprobs.argmax(-1).tolist())
        assert [each.logprob for each in one.done.logprobs] == pytest.approx(logprobs.amax(-1).tolist(), abs=1e-4)


def test_hidden_states_are_behind_the_final_norm(tmp_path: Path) -> None:
    reference = _save(tmp_path, "Gemma2", CASES["gemma2"][1])
    ids = _prompts()[1]
    with torch.no_grad():
        wanted = reference.base_model(torch.tensor([ids])).last_hidden_state[0, -1]
    one = call(ids, embed_from=len(ids) - 1)
    finish(new_engine(load_model(tmp_path)), one)
    assert one.done.embedding == pytest.approx(wanted.numpy(), abs=1e-4)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision(dtype: torch.dtype, tmp_path: Path) -> None:
    reference = _save(tmp_path, "Gemma2", CASES["gemma2"][1])
    model, ids = load_model(tmp_path, dtype=dtype), _prompts()[1]
    assert model.layout.dtype == dtype
    one = call(ids, score_from=1)
    finish(new_engine(model), one)
    logprobs = _logprobs(reference, ids)
    want = [float(logprobs[at - 1, ids[at]]) for at in range(1, len(ids))]
    assert [each.logprob for each in one.done.logprobs] == pytest.approx(want, abs=0.1)


def test_no_more_tokens_than_embeddings_stay_what_they_are(tmp_path: Path) -> None:
    factors = {"rope_type": "longrope", "short_factor": [1.0] * 4, "long_factor": [2.0] * 4, "rope_theta": 100.0}
    changes = {"original_max_position_embeddings": 40, "rope_parameters": factors, "sliding_window": None}
    _save(tmp_path, "Phi3", changes)
    assert load_model(tmp_path).config.context_length == 40
    assert read_layout(tmp_path)[1] == 40


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "state space": (
        {"architectures": ["MambaForCausalLM"], "model_type": "mamba"},
        r"keep a state that is no KV.*state_size",
    ),
    "hybrid": (
        {"architectures": ["JambaForCausalLM"], "model_type": "jamba"},
        "JambaForCausalLM is not supported: .*state",
    ),
    "recurrent": ({"architectures": ["RwkvForCausalLM"], "model_type": "rwkv"}, "does not take the positions"),
    "alibi": ({"architectures": ["FalconForCausalLM"], "model_type": "falcon", "alibi": True}, r"positions \(ALiBi\)"),
    "bloom": ({"architectures": ["BloomForCausalLM"], "model_type": "bloom"}, "does not take the positions of tokens"),
    "encoder": ({"architectures": ["BertLMHeadModel"], "model_type": "bert"}, "neither causal nor that of a sliding"),
    "encoder with decoder": (
        {"architectures": ["T5ForConditionalGeneration"], "model_type": "t5"},
        "knows no causal language model of that name",
    ),
    "images": (
        {"architectures": ["Gemma3ForConditionalGeneration"], "model_type": "gemma3"},
        "it takes more than text",
    ),
    "sinks": ({"architectures": ["GptOssForCausalLM"], "model_type": "gpt_oss"}, "its attention wants s_aux"),
    "attention of its own": (
        {"architectures": ["GPTNeoForCausalLM"], "model_type": "gpt_neo"},
        "its code does not take our attention",
    ),
    "quantized": (
        {"architectures": ["GemmaForCausalLM"], "quantization_config": {"quant_method": "awq"}},
        r"quantized \(awq\), which is not supported",
    ),
    "unknown": ({"architectures": ["SomeForCausalLM"]}, "SomeForCausalLM is not supported: transformers .* knows no"),
    "unknown kind": ({"architectures": ["GemmaForCausalLM"], "model_type": "nothing"}, "transformers does not take it"),
    "remote code": (
        {"architectures": ["SomeForCausalLM"], "auto_map": {"AutoModelForCausalLM": "modeling.SomeForCausalLM"}},
        "code that comes with a checkpoint is never run",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused_before_anything_is_loaded(case: str, tmp_path: Path) -> None:
    config, message = REFUSED[case]
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match=message) as caught:
        load_model(tmp_path)
    assert config["architectures"][0] in str(caught.value) or case in ("quantized", "unknown kind")


def test_wrong_tensors_and_rounded_weights(tmp_path: Path) -> None:
    _save(tmp_path, "Olmo2", {})
    with pytest.raises(ModelError, match="Olmo2ForCausalLM has its weights as they are: int8 is for the Llama family"):
        load_model(tmp_path, weights="int8")
    with pytest.raises(ModelError, match="does not fit the memory of cpu"):
        load_model(tmp_path, kv_tokens=1 << 50)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 3, "layer_types": None}))
    with pytest.raises(ModelError, match=r"do not fit the Olmo2ForCausalLM(.|\n)*missing keys: model\.layers\.2\."):
        load_model(tmp_path)


def test_identity_tells_models(tmp_path: Path) -> None:
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        reference = _save(tmp_path / name, "Olmo2", {})
        if seed:
            reference.lm_head.weight.data += 1
            reference.save_pretrained(tmp_path / name)
    first, same, other = (load_model(tmp_path / name).identity.fingerprint for name in "abc")
    assert first == same != other
