"""Constrained generation in the engine: a fake model's tokens that spell real text, so that it says anything."""

from __future__ import annotations

import json
import random
import re
from pathlib import Path
from typing import Any

import pytest
from ramify.backends.tiny import model_dir
from ramify.ir.errors import BackendError, RequestError, Unsupported
from ramify.runtime.constraint import Constraint, json_schema_constraint
from ramify.runtime.engine import Engine
from ramify.runtime.matcher import Grammars
from ramify.runtime.request import Failed
from ramify.runtime.tokens import Tokenizer

from .fakes import Call, FakeConfig, FakeModel, call, finish, new_engine

TOKENIZER = Tokenizer.load(Path(model_dir()))
VOCAB = TOKENIZER.vocab_size
GRAMMARS = Grammars(TOKENIZER, VOCAB)
END = TOKENIZER.eos_ids[0]
CARD = json_schema_constraint(
    {
        "type": "object",
        "properties": {
            "name": {"type": "string", "maxLength": 6},
            "kind": {"enum": ["fruit", "vegetable", "fungus"]},
            "sizes": {"type": "array", "items": {"type": "integer", "maximum": 99, "minimum": 0}, "maxItems": 3},
        },
        "required": ["name", "kind", "sizes"],
        "additionalProperties": False,
    }
)
CONSTRAINTS = [
    Constraint("regex", r"[0-9]{3}-[a-z]{2,5}( or [A-Z]{2})?"),
    Constraint("regex", r"(The|An) (answer|result) is (yes|no|[1-9][0-9]?)\."),
    Constraint("regex", r"[éü世]{1,4}!"),
    CARD,
    Constraint("lark", 'start: item ("; " item){0,2} "."\nitem: "left" | "right " NUMBER\nNUMBER: /[0-9]{1,3}/'),
]


def engine(**options: Any) -> Engine:
    settings: dict[str, Any] = {"grammars": GRAMMARS, "eos_token_ids": (END,), "kv_tokens": 4000, "check": True}
    settings |= options
    return Engine(FakeModel(FakeConfig(VOCAB, 1000)), TOKENIZER.decode_stream, **settings)


def matches(constraint: Constraint, text: str) -> bool:
    """Whether a text fulfils a constraint, by other means than the engine's."""
    if constraint == CARD:
        card = json.loads(text)
        assert list(card) == ["name", "kind", "sizes"] and len(card["name"]) <= 6 and len(card["sizes"]) <= 3
        assert card["kind"] in ("fruit", "vegetable", "fungus") and all(0 <= size <= 99 for size in card["sizes"])
        return text == json.dumps(card, separators=(",", ":"), ensure_ascii=False)
    if constraint.kind == "lark":
        return bool(re.fullmatch(r"(left|right \d{1,3})(; (left|right \d{1,3})){0,2}\.", text))
    return bool(re.fullmatch(constraint.source, text))


def workload(count: int = 40, **params: Any) -> list[Call]:
    """Constrained and free requests with prompts in common, greedy and sampled."""
    rng = random.Random(7)
    stem = [rng.randrange(VOCAB) for _ in range(30)]
    calls = []
    for i in range(count):
        constraint = None if i % 4 == 3 else CONSTRAINTS[i % len(CONSTRAINTS)]
        prompt = stem[: rng.randint(1, 30)] + [rng.randrange(VOCAB) for _ in range(rng.randint(0, 4))]
        given: dict[str, Any] = {"max_tokens": 80 if constraint else 12, "constraint": constraint}
        given |= {"temperature": 1.0, "seed": i} if i % 2 else {}
        calls.append(call(prompt, **(given | params)))
    return calls


def results(calls: list[Call]) -> list[Any]:
    return [(done.token_ids, done.text, done.finish_reason, done.matched, done.generated_tokens, done.tail)
            for done in (one.done for one in calls)]  # fmt: skip


def test_what_is_generated_matches() -> None:
    calls = workload()
    finish(engine(), *calls)
    texts = set()
    for one in calls:
        constraint = one.request.params.constraint
        if constraint is not None:
            assert one.done.finish_reason == "stop"
            assert matches(constraint, one.done.text), one.done.text
            assert TOKENIZER.decode(one.done.token_ids) == one.done.text
            texts.add(one.done.text)
    assert len(texts) > 25, "the fake model says many things"


@pytest.mark.parametrize(
    "options",
    [
        {"fast_forward": False},
        {"chunk_tokens": 1},
        {"chunk_tokens": 5, "max_running": 3},
        {"kv_tokens": 150},
        {"prefix_cache": False, "fast_forward": False},
    ],
)
@pytest.mark.parametrize(
    "params", [{}, {"logprobs": 2}, {"max_tokens": 7}, {"max_tokens": 7, "logprobs": 0}, {"stop": ("e", "9")}]
)
def test_fast_forward_batching_caching_and_chunking_change_nothing(
    options: dict[str, Any], params: dict[str, Any]
) -> None:
    together = workload(**params)
    finish(engine(), *together)
    other = workload(**params)
    finish(engine(**options), *other)
    assert results(together) == results(other)
    for one, another in zip(together, other, strict=True):
        theirs = [(score.token_id, score.top) for score in another.done.logprobs]
        assert [(score.token_id, score.top) for score in one.done.logprobs] == theirs
        ours = [score.logprob for score in one.done.logprobs]
        assert ours == pytest.approx([score.logprob for score in another.done.logprobs], abs=1e-5)
        if params.get("logprobs") is not None:
            assert len(ours) == len(one.done.token_ids) > 0


def test_batched_is_as_alone() -> None:
    together, alone = workload(), workload()
    finish(engine(), *together)
    for one in alone:
        finish(engine(), one)
    assert results(together) == results(alone)


def test_forced_text_costs_no_steps() -> None:
    forced = Constraint("regex", "This whole text is known from the start, every word of it")
    serving = engine()
    (done,) = finish(serving, call([1, 2, 3], constraint=forced))
    assert (done.text, done.finish_reason) == (forced.source, "stop")
    assert list(done.token_ids) == TOKENIZER.encode(forced.source), "in the tokenizer's own tokens"
    assert serving.stats().steps == 0
    slow = engine(fast_forward=False)
    (other,) = finish(slow, call([1, 2, 3], constraint=forced))
    assert other.token_ids == done.token_ids and slow.stats().steps == len(done.token_ids)
    scored = engine()
    (with_logprobs,) = finish(scored, call([1, 2, 3], constraint=forced, logprobs=1))
    assert with_logprobs.token_ids == done.token_ids and len(with_logprobs.logprobs) == len(done.token_ids)
    assert scored.stats().steps == 2, "the prompt, and all tokens but the last together"


def test_forced_text_streams_at_once() -> None:
    one = call([1, 2], constraint=Constraint("regex", "Once upon a time there was [a-z]{3}"), max_tokens=30)
    serving = engine()
    serving.submit(one.request)
    serving.step()
    assert "".join(event.text for event in one.events if hasattr(event, "text")).startswith("Once upon a time there")
    finish(serving)
    assert one.done.finish_reason == "stop"


def test_the_end_comes_only_where_the_text_is_complete() -> None:
    optional = Constraint("regex", "ab(cd)*")
    texts = [
        done.text
        for seed in range(60)
        for done in finish(engine(), call([seed, 5], constraint=optional, temperature=1.0, seed=seed, max_tokens=9))
        if done.finish_reason == "stop"
    ]
    assert texts and all(re.fullmatch(optional.source, text) for text in texts)
    assert len(set(texts)) > 1


def test_min_tokens_holds_the_end_back_where_something_else_may_come() -> None:
    digits = Constraint("regex", "[0-9]{1,40}")
    for seed in range(20):
        (done,) = finish(engine(), call([seed], constraint=digits, temperature=1.0, seed=seed, min_tokens=8))
        assert done.generated_tokens >= 8
    short = Constraint("regex", "[0-9]")
    (done,) = finish(engine(), call([1], constraint=short, min_tokens=8))
    assert (len(done.text), done.finish_reason) == (1, "stop"), "there is nothing to go on with"


def test_ignore_eos_goes_on_as_long_as_the_constraint_does() -> None:
    (done,) = finish(engine(), call([1], constraint=Constraint("regex", "a+"), ignore_eos=True, max_tokens=20))
    assert (done.generated_tokens, done.finish_reason) == (20, "length") and set(done.text) == {"a"}
    (done,) = finish(engine(), call([1], constraint=Constraint("regex", "a{1,9}"), ignore_eos=True))
    assert (done.text, done.finish_reason, done.matched) == ("a" * 9, "stop", None)


def test_an_engine_without_an_end_token_stops_where_nothing_can_follow() -> None:
    (done,) = finish(engine(eos_token_ids=()), call([1], constraint=CONSTRAINTS[0], max_tokens=60))
    assert done.finish_reason == "stop" and matches(CONSTRAINTS[0], done.text)


def test_stop_token_ids_of_text_end_and_those_without_text_wait_for_the_end() -> None:
    (letter,) = TOKENIZER.encode("b")
    (done,) = finish(engine(), call([1], constraint=Constraint("regex", "[ab]{30}"), stop_token_ids=(letter,)))
    assert (done.finish_reason, done.matched) == ("stop", letter) and set(done.text) <= {"a"}
    special = TOKENIZER.token_id("<|im_start|>")
    assert special is not None
    for seed in range(10):
        wanted = call([seed], constraint=Constraint("regex", "[ab]{3,9}"), stop_token_ids=(special,), temperature=1.0)
        (done,) = finish(engine(eos_token_ids=()), wanted)
        assert 3 <= len(done.text) <= 9 and done.finish_reason == "stop"


def test_max_tokens_cuts() -> None:
    (done,) = finish(engine(), call([1], constraint=CARD, max_tokens=5))
    assert done.finish_reason == "length" and done.text.startswith('{"name":"') and done.generated_tokens == 5


def test_a_constraint_that_nothing_matches_is_refused() -> None:
    for constraint in (Constraint("regex", r"[^\s\S]"), Constraint("lark", "start: start")):
        one = call([1], constraint=constraint)
        finish(engine(), one)
        assert isinstance(one.error, RequestError) and "text matches" in one.error.message


def test_grammars_may_name_special_tokens() -> None:
    (done,) = finish(engine(), call([1], constraint=Constraint("lark", 'start: "a" <|im_start|> "b"')))
    assert [TOKENIZER.token_text(token) for token in done.token_ids] == ["a", "<|im_start|>", "b"]
    assert done.text == "ab"
    one = call([1], constraint=Constraint("lark", 'start: "a" <|nothing|>'))
    finish(engine(), one)
    assert 'unknown special token: "<|nothing|>"' in str(one.error)


def test_a_matcher_that_fails_ends_its_own_request_only() -> None:
    failing, other = call([1], constraint=CARD), call([2], constraint=CONSTRAINTS[0])
    serving = engine()
    for one in (failing, other):
        serving.submit(one.request)
    serving.step()
    (sequence,) = [each for each in serving._scheduler.running if each.params.constraint == CARD]
    assert sequence.matcher is not None
    with pytest.raises(BackendError):
        sequence.matcher.consume(TOKENIZER.encode("]")[0])  # what the schema does not allow here
    finish(serving)
    assert isinstance(failing.error, BackendError) and failing.error.message.startswith("json_schema: ")
    assert matches(CONSTRAINTS[0], other.done.text)


def test_cancelling() -> None:
    one = call([1], constraint=Constraint("regex", "[a-z ]{200}"), max_tokens=100)
    serving = engine()
    serving.submit(one.request)
    for _ in range(4):
        serving.step()
    serving.cancel(one.request)
    finish(serving)
    assert one.done.finish_reason == "cancelled" and one.done.text


def test_without_grammars_a_constraint_is_refused() -> None:
    one = call([1, 2], constraint=CARD)
    finish(new_engine(), one)
    assert isinstance(one.events[-1], Failed) and isinstance(one.error, Unsupported)


class Counting(FakeModel):
    """Always wants to say one digit more, and never to end."""

    def forward(self, batch: Any) -> Any:
        logits = super().forward(batch)
        logits[:, TOKENIZER.encode("3")[0]] = 1000.0
        logits[:, END] = -1000.0
        return logits


@pytest.mark.parametrize(
    ("schema", "form"),
    [
        ({"type": "number"}, r"3{24}\.3{24}e3{24}"),
        ({"type": "array", "items": {"type": "number", "maximum": 1}, "minItems": 2}, r"\[[^,]{1,40},[^,]{1,40}.*"),
        ({"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"]}, r'\{"a":".*3{60,}'),
        ({"type": "string"}, r'".*3{60,}'),
        ({"type": "integer", "minimum": 10**17, "maximum": 10**18}, r"3{18}"),
    ],
)
def test_numbers_end(schema: Any, form: str) -> None:
    """A model that never ends a number is made to, where it may end; the digits of a text are none of that."""
    serving = Engine(
        Counting(FakeConfig(VOCAB, 1000)),
        TOKENIZER.decode_stream,
        grammars=GRAMMARS,
        eos_token_ids=(END,),
        kv_tokens=4000,
        check=True,
    )
    (done,) = finish(serving, call([1], constraint=json_schema_constraint(schema), max_tokens=80))
    assert re.fullmatch(form, done.text), done.text
