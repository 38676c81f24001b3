"""Controlled and grounded decoding, block-wise best-of-K and confidence, against exact computation."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import product
from typing import Any

import pytest
import ramify as rf
import torch
from ramify.backends.scripted import ScriptedBackend
from ramify.backends.tiny import model_dir
from ramify.ir.errors import BackendError, UsageError
from ramify.runtime.request import SamplingParams
from ramify.runtime.seeds import gen_seed
from ramify.runtime.tokens import Tokenizer
from torch import Tensor

from ..runtime.fakes import FakeConfig, FakeModel, call, finish, new_engine, next_logits

VOCAB, LENGTH = 5, 3
TOKENS = range(VOCAB)
WORTH = {text: math.sin(7.0 * i) for i, text in enumerate(product(TOKENS, repeat=LENGTH))}


def plain(prefix: tuple[int, ...]) -> Tensor:
    """The fake model's distribution of the next token (vocab,), float64."""
    return torch.from_numpy(next_logits([1, *prefix], VOCAB)).softmax(-1)


def drawn_from(processor: Any, prefix: tuple[int, ...]) -> Tensor:
    """The distribution that the engine draws the next token from."""
    seen: list[Tensor] = []

    def note(token_ids: Tensor, logits: Tensor) -> None:
        seen.append(logits.double().softmax(-1))

    wanted = call([1, *prefix], max_tokens=1, processors=(processor, note), temperature=1.0, seed=0)
    finish(new_engine(FakeModel(FakeConfig(VOCAB))), wanted)
    assert len(wanted.done.token_ids) == 1
    return seen[0]


def probability(text: tuple[int, ...], distribution: Callable[[tuple[int, ...]], Tensor]) -> float:
    return math.prod(float(distribution(text[:place])[token]) for place, token in enumerate(text))


PLAIN = {text: probability(text, plain) for text in WORTH}


def expected_worth(prefix: tuple[int, ...]) -> float:
    """log E[exp(worth)] of the texts that the model goes on with."""
    going_on = [(PLAIN[text], WORTH[text]) for text in WORTH if text[: len(prefix)] == prefix]
    return math.log(sum(p * math.exp(worth) for p, worth in going_on) / sum(p for p, _ in going_on))


def score(token_ids: Tensor, candidates: Tensor) -> Tensor:
    prefix = tuple(token_ids.tolist()[1:])
    return torch.tensor([expected_worth((*prefix, token)) for token in candidates.tolist()], dtype=torch.float64)


def test_token_wise_control_draws_texts_by_their_worth() -> None:
    """With the exact value of each prefix, every text has p(text) * exp(worth), normalized: the controlled optimum."""
    control = rf.processors.controlled(score)
    cache = {prefix: drawn_from(control, prefix) for n in range(LENGTH) for prefix in product(TOKENS, repeat=n)}
    weights = {text: PLAIN[text] * math.exp(WORTH[text]) for text in WORTH}
    total = sum(weights.values())
    for text, weight in weights.items():
        assert probability(text, cache.__getitem__) == pytest.approx(weight / total, rel=1e-5)


@pytest.mark.parametrize("strength", [0.0, 0.5, -2.0, 6.0])
@pytest.mark.parametrize("top_k", [None, 2, 9])
def test_control_is_the_formula(strength: float, top_k: int | None) -> None:
    control = rf.processors.controlled(score, strength, top_k=top_k)
    for prefix in [(), (3,), (2, 4)]:
        p, values = plain(prefix), score(torch.tensor([1, *prefix]), torch.arange(VOCAB))
        kept = torch.zeros(VOCAB, dtype=torch.bool)
        kept[p.topk(min(top_k or VOCAB, VOCAB)).indices] = True
        wanted = torch.where(kept, p * (strength * values).exp(), 0.0)
        assert torch.allclose(drawn_from(control, prefix), wanted / wanted.sum(), atol=1e-6)


def test_grounding_is_a_product_of_probabilities() -> None:
    first = {prefix: torch.rand(VOCAB) for n in range(LENGTH) for prefix in product(TOKENS, repeat=n)}

    def can(token_ids: Tensor) -> Tensor:
        return first[tuple(token_ids.tolist()[1:])]

    def near(token_ids: Tensor) -> Tensor:
        factors = torch.linspace(0.1, 0.9, VOCAB)
        factors[token_ids[-1]] = 0.0
        return factors

    ground = rf.processors.grounded(can, near)
    for prefix in first:
        wanted = plain(prefix) * can(torch.tensor([1, *prefix])) * near(torch.tensor([1, *prefix]))
        got = drawn_from(ground, prefix)
        assert torch.allclose(got, wanted / wanted.sum(), atol=1e-6)
        assert got[(1, *prefix)[-1]] == 0


def test_what_is_forbidden_is_never_emitted() -> None:
    def no_repeats(token_ids: Tensor) -> Tensor:
        factors = torch.ones(VOCAB)
        factors[token_ids] = 0
        return factors

    ground = rf.processors.grounded(no_repeats)
    for seed in range(40):
        wanted = call([0], max_tokens=4, processors=(ground,), temperature=2.0, seed=seed)
        (done,) = finish(new_engine(FakeModel(FakeConfig(VOCAB))), wanted)
        assert sorted(done.token_ids) == [1, 2, 3, 4]
    too_long = call([0], max_tokens=5, processors=(ground,))
    finish(new_engine(FakeModel(FakeConfig(VOCAB))), too_long)
    assert "left no token" in str(too_long.error)


@pytest.mark.parametrize(
    ("processor", "message"),
    [
        (rf.processors.grounded(lambda token_ids: torch.ones(3)), "returned a tensor of shape"),
        (rf.processors.grounded(lambda token_ids: -torch.ones(VOCAB)), "no probability"),
        (rf.processors.controlled(lambda token_ids, candidates: None), "the scorer returned None"),
        (rf.processors.controlled(lambda token_ids, candidates: candidates / 0.0 * 0.0), "NaN"),
    ],
)
def test_what_a_scorer_does_wrong_is_told(processor: Any, message: str) -> None:
    wanted = call([1], max_tokens=2, processors=(processor,))
    finish(new_engine(FakeModel(FakeConfig(VOCAB))), wanted)
    assert isinstance(wanted.error, BackendError) and message in wanted.error.message


def test_arguments_are_checked() -> None:
    with pytest.raises(UsageError, match="at least one grounding"):
        rf.processors.grounded()
    with pytest.raises(UsageError, match="top_k"):
        rf.processors.controlled(score, top_k=0)
    with pytest.raises(UsageError, match="strength"):
        rf.processors.controlled(score, math.inf)
    wrong: Any = "much"
    with pytest.raises(UsageError, match="strength is a finite number, not 'much'"):
        rf.processors.controlled(score, wrong)
    with pytest.raises(UsageError, match="top_k is at least 1"):
        rf.processors.controlled(score, top_k=wrong)
    with pytest.raises(UsageError, match="the scorer is a function, not str: 'much'"):
        rf.processors.controlled(wrong)
    with pytest.raises(UsageError, match="a grounding is a function, not str: 'much'"):
        rf.processors.grounded(score, wrong)


@pytest.mark.parametrize("eager", [True, False])
def test_processors_in_a_program(eager: bool) -> None:
    tokenizer = Tokenizer.load(model_dir())
    letters = torch.tensor([tokenizer.encode(letter)[0] for letter in "xyz"])

    def few(token_ids: Tensor) -> Tensor:
        factors = torch.zeros(tokenizer.vocab_size)
        factors[letters] = 1.0
        return factors

    @rf.program
    def spell(s):  # type: ignore[no-untyped-def]
        s += "x: " + rf.gen("free", processors=[rf.processors.grounded(few)], max_tokens=6)
        s += rf.gen(
            "led",
            processors=[rf.processors.controlled(lambda ids, candidates: 99.0 * (candidates == letters[1]))],
            max_tokens=3,
        )
        return s["free"], s["led"]

    free, led = spell.run(eager=eager).value
    assert len(free) == 6 and set(free) <= set("xyz")
    assert led == "yyy"


# The next block: two that go on, and one that ends.
BLOCKS = {" a": 0.5, " b": 0.2, " c.": 0.3}
LIKED = {
    " a": 0.3,
    " b": 0.9,
    " c.": 0.6,
    " a a": 0.1,
    " a b": 0.2,
    " a c.": 0.3,
    " b a": 5.0,
    " b b": 4.0,
    " b c.": 3.0,
}


@rf.program
def blockwise(s, value, k, name="x"):  # type: ignore[no-untyped-def]
    s += "Say:"
    rf.best_of_k(s, name, value, k=k, block_tokens=1, max_tokens=2, seed=11)
    s += "!" + rf.gen("more", max_tokens=1)
    return s[name]


def answered(blocks: dict[tuple[int, int], str]) -> ScriptedBackend:
    """Answers each sample of each block with what is given for it."""
    by_seed = {gen_seed(11, (branch,), number): block for (number, branch), block in blocks.items()}

    def reply(text: str, params: SamplingParams) -> str:
        block = by_seed.get(params.seed or 0, " end.")
        return block if block.endswith(".") else block + " and more"

    return ScriptedBackend(reply)


def law(k: int, worth: dict[str, float]) -> dict[str, float]:
    """The distribution of block-wise best-of-K by its definition: P(best) = F(<=)^K - F(<)^K in each block."""

    def best(before: str) -> dict[str, float]:
        ranks = {block: worth[before + block] for block in BLOCKS}

        def up_to(limit: float, strict: bool) -> float:
            return sum(
                p for block, p in BLOCKS.items() if ranks[block] < limit or (not strict and ranks[block] == limit)
            )

        return {block: up_to(ranks[block], False) ** k - up_to(ranks[block], True) ** k for block in BLOCKS}

    texts: dict[str, float] = {}
    for block, p in best("").items():
        if block.endswith("."):
            texts[block] = p
        else:
            texts |= {block + then: p * q for then, q in best(block).items()}
    return texts


@pytest.mark.parametrize("k", [1, 2])
@pytest.mark.parametrize("eager", [True, False])
def test_block_wise_best_of_k_has_the_distribution_of_its_definition(k: int, eager: bool) -> None:
    """All outcomes of the model's draws, each with its probability: no luck is involved."""
    places = [(number, branch) for number in range(2) for branch in range(k)]
    got: dict[str, float] = {}
    for drawn in product(BLOCKS, repeat=len(places)):
        run = blockwise.run(
            lambda s: LIKED[s["x"]], k, backend=answered(dict(zip(places, drawn, strict=True))), eager=eager
        )
        text = run.value
        assert run.text == f"Say:{text}! end." and run.vars["x"] == text
        got[text] = got.get(text, 0.0) + math.prod(BLOCKS[block] for block in drawn)
    wanted = law(k, LIKED)
    assert got.keys() == wanted.keys()
    assert got == pytest.approx(wanted, abs=1e-12)
    if k == 1:
        plainly = {a + b: BLOCKS[a] * BLOCKS[b] for a in (" a", " b") for b in BLOCKS} | {" c.": BLOCKS[" c."]}
        assert got == pytest.approx(plainly, abs=1e-12)


@pytest.mark.parametrize("eager", [True, False])
def test_blocks_of_a_model_go_on_as_one_generation_would(eager: bool) -> None:
    @rf.program
    def in_blocks(s):  # type: ignore[no-untyped-def]
        s += rf.user("Where is the dog?")
        with s.assistant():
            rf.best_of_k(s, "x", len, k=1, block_tokens=2, max_tokens=20)
        return s["x"], s.text()

    @rf.program
    def at_once(s):  # type: ignore[no-untyped-def]
        s += rf.user("Where is the dog?") + rf.assistant(rf.gen("x", max_tokens=20))
        return s["x"], s.text()

    assert in_blocks.run(eager=eager).value == at_once.run().value


@pytest.mark.parametrize("eager", [True, False])
def test_values_may_ask_the_model_and_branches_share_the_prompt(eager: bool) -> None:
    def liked(s: rf.State) -> float:
        s += rf.score("how", " yes")
        return float(s["how"])

    @rf.program
    def judged(s):  # type: ignore[no-untyped-def]
        s += "The apple is red and the sky is"
        rf.best_of_k(s, "x", liked, k=3, block_tokens=2, max_tokens=4, temperature=1.0, seed=5)
        return s["x"]

    runs = [judged.run(eager=eager) for _ in range(2)]
    assert runs[0].value == runs[1].value and runs[0].text.endswith(runs[0].value)
    kinds = [record.kind for record in runs[0].trace]
    assert kinds.count("gen") in (3, 6) and kinds.count("score") == kinds.count("gen")


@pytest.mark.parametrize("eager", [True, False])
def test_what_best_of_k_cannot_do_is_told(eager: bool) -> None:
    @rf.program
    def wrong(s, value, **options):  # type: ignore[no-untyped-def]
        rf.best_of_k(s, "x", value, **({"k": 2, "block_tokens": 3} | options))

    def run(value: Any = lambda s: 0.0, **options: Any) -> None:
        wrong.run(value, **options, backend=ScriptedBackend(), eager=eager)

    for options, message in [({"k": 0}, "k must be a whole number, at least 1"), ({"stop": "x"}, "takes no 'stop'"),
                             ({"k": "two"}, "k must be .*got 'two'"),
                             ({"value": 3}, "value is a function of a state, not int: 3"),
                             ({"block_tokens": 0}, "block_tokens must be")]:  # fmt: skip
        with pytest.raises(UsageError, match=message):
            run(**options)
    with pytest.raises(ValueError, match="no number"):
        run(lambda s: math.nan)
    with pytest.raises(ValueError, match=r"value\(\) gave None for '.*', which is no number"):
        run(lambda s: None)
    with pytest.raises(ZeroDivisionError):
        run(lambda s: 1 / 0)


@rf.program
def sure(s, how="min", span=None, asked=True, text=True):  # type: ignore[no-untyped-def]
    s += "The sky is" + rf.gen(
        "x", max_tokens=6, logprobs=0 if asked else None, return_text_in_logprobs=text if asked else None
    )
    return rf.confidence(s, "x", how, span), s.get_meta_info("x"), s["x"]


@pytest.mark.parametrize("eager", [True, False])
def test_confidence_is_the_models_probability_aggregated(eager: bool) -> None:
    for how, aggregate in (("min", min), ("mean", lambda p: sum(p) / len(p)), ("product", math.prod), (max, max)):
        value, info, _ = sure.run(how, eager=eager).value
        told = [math.exp(logprob) for logprob, _, _ in info["output_token_logprobs"]]
        assert len(told) == 6 and value == pytest.approx(aggregate(told))
    pieces = [text for _, _, text in info["output_token_logprobs"]]
    for place, piece in enumerate(pieces):
        start = len("".join(pieces[:place]))
        value, _, _ = sure.run("product", (start, start + len(piece)), eager=eager).value
        assert value == pytest.approx(told[place])
    value, _, text = sure.run("product", "".join(pieces[1:4])[:-1], eager=eager).value
    assert value == pytest.approx(math.prod(told[1:4])) and text == "".join(pieces)


@pytest.mark.parametrize("eager", [True, False])
def test_confidence_of_samples_and_scores(eager: bool) -> None:
    @rf.program
    def both(s):  # type: ignore[no-untyped-def]
        s += "The sky is" + rf.gen("x", n=3, max_tokens=3, temperature=1.0, seed=2, logprobs=0)
        s += rf.score("one", " blue and red") + rf.score("two", [" blue", " red"])
        aggregated = [rf.confidence(s, name, "product") for name in ("x", "one", "two")]
        return aggregated, s.get_meta_info("x"), s["one"], s["two"]

    (samples, one, two), info, logprob, logprobs = both.run(eager=eager).value
    assert samples == [pytest.approx(math.exp(sum(p for p, _, _ in each["output_token_logprobs"]))) for each in info]
    assert one == pytest.approx(math.exp(logprob))
    assert two == pytest.approx([math.exp(each) for each in logprobs])


@pytest.mark.parametrize("eager", [True, False])
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"asked": False}, "there are no probabilities"),
        ({"text": False, "span": (0, 1)}, "texts of the tokens"),
        ({"span": "no such text"}, "is no span"),
        ({"span": (4, 2)}, "is no span"),
        ({"span": 3}, "a span is a text, or a tuple"),
        ({"span": (1,)}, "a span is a text, or a tuple"),
        ({"how": "median"}, "unknown aggregation"),
        ({"how": 3}, "unknown aggregation 3"),
    ],
)
def test_what_has_no_confidence_is_told(arguments: dict[str, Any], message: str, eager: bool) -> None:
    with pytest.raises(UsageError, match=message):
        sure.run(**arguments, eager=eager)


@pytest.mark.parametrize("eager", [True, False])
def test_an_empty_text_has_no_confidence(eager: bool) -> None:
    @rf.program
    def empty(s):  # type: ignore[no-untyped-def]
        s += rf.gen("x", max_tokens=4, logprobs=0)
        return rf.confidence(s, "x")

    with pytest.raises(UsageError, match="its text is empty"):
        empty.run(backend=ScriptedBackend(lambda *_: ""), eager=eager)


@pytest.mark.parametrize("eager", [True, False])
def test_best_of_k_without_options(eager: bool) -> None:
    @rf.program
    def plain(s):  # type: ignore[no-untyped-def]
        rf.best_of_k(s, "x", lambda t: len(t["x"]))

    run = plain.run(backend=ScriptedBackend(lambda *_: "a b"), eager=eager)
    assert run["x"] == "a b" and len(run.trace) == 4


def test_a_character_of_several_tokens_is_found() -> None:
    from ramify.lang.confidence import _ranges

    tokenizer = Tokenizer.load(model_dir())
    text = "on héllo 世界, it's é"
    pieces: list[str | None] = [tokenizer.decode([token]) for token in tokenizer.encode_after(text)]
    assert any("�" in (piece or "") for piece in pieces)
    ranges = _ranges("x", text, pieces)
    covered = {place for start, stop in ranges for place in range(start, stop)}
    assert covered == set(range(len(text)))
    for (start, stop), piece in zip(ranges, pieces, strict=True):
        assert text[start:stop] == piece or "�" in (piece or "")
