"""The benchmark of weights of 8 bits finds no error where there is none, and one where there is."""

from __future__ import annotations

import torch
from ramify.backends.tiny import model_dir
from ramify.runtime.models import load_model

from benchmarks.quantized import EXACT, Sequences, agreement, compare, greedy, held_out, measure, random_shape, sizes


def test_equal_logits_have_no_error_and_shifted_ones_neither() -> None:
    logits = torch.randn(5, 7)
    targets = torch.zeros(5, dtype=torch.int64)
    for found in (logits, logits + 3.0):
        figures = compare(logits, found, targets)
        assert figures["logit_error"] < 1e-6 and abs(figures["divergence"]) < 1e-6 and figures["same_token"] == 1
    other = compare(logits, -logits, targets)
    assert abs(other["logit_error"] - 2) < 1e-6 and other["divergence"] > 0.1 and other["same_token"] < 1
    assert compare(logits, logits, targets[:0])["perplexity"] is None


def test_replies_are_compared_up_to_their_end() -> None:
    exact = torch.tensor([[5, 2, 7, 8], [5, 6, 7, 8], [0, 1, 1, 1]])
    found = torch.tensor([[5, 2, 9, 9], [5, 6, 9, 8], [3, 1, 1, 1]])
    figures = agreement(exact, found)
    assert figures == {"exact_tokens": (2 + 4 + 1) / 3, "common_tokens": (2 + 2 + 0) / 3, "same_replies": 1 / 3}


def test_sequences_that_go_on_together_are_those_that_go_alone() -> None:
    model = load_model(model_dir(), dtype=torch.float32)
    prompts = [text.prompt for text in held_out(3)]
    together = greedy(model, prompts)
    for i, prompt in enumerate(prompts):
        longer = [*prompt, *together[i, :-1].tolist()]
        alone = Sequences(model, [longer], 0).feed(0, longer)[len(prompt) - 1 :].argmax(1)
        assert torch.equal(alone, together[i])


def test_the_embedded_model() -> None:
    kinds = [EXACT, (torch.float32, "int8")]
    models = {kind: load_model(model_dir(), dtype=kind[0], weights=kind[1]) for kind in kinds}
    exact, rounded = measure("embedded", models, held_out(4), is_noise=False)
    assert exact.logit_error == exact.divergence == 0 and exact.same_replies == 1 and 1 < exact.perplexity < 2
    assert 0.001 < rounded.logit_error < 0.03 and 0 < rounded.divergence < 1e-3
    assert rounded.matrix_bytes < 0.26 * exact.matrix_bytes


def test_sizes() -> None:
    shape = random_shape()
    plain, rounded = (sizes(shape, torch.bfloat16, weights) for weights in (None, "int8"))
    matrices = 8 * (1024 * 4096 + 2048 * 1024 + 3 * 1024 * 3072)
    assert plain["matrix_bytes"] == 2 * matrices and matrices < rounded["matrix_bytes"] < 1.01 * matrices
    assert plain["all_bytes"] - plain["matrix_bytes"] == rounded["all_bytes"] - rounded["matrix_bytes"]
