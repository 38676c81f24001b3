"""Engine and Runtime: single requests in SGLang's form, on the embedded model."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import pytest
import ramify as sgl
from ramify.ir.errors import RequestError, Unsupported, UsageError

GREEDY = {"temperature": 0, "max_new_tokens": 12}
LONG = GREEDY | {"ignore_eos": True}
PROMPTS = ["The red fox", "What is 3 + 4?", "One, two, three, four,"]


@pytest.fixture(scope="module")
def engine() -> Iterator[sgl.Engine]:
    with sgl.Engine(model_path="tiny", log_level="error", max_total_tokens=4096, chunked_prefill_size=64) as engine:
        yield engine


def facts(result: dict[str, Any]) -> Any:
    """What must not depend on what else runs."""
    return result["text"], result["output_ids"], result["meta_info"]["finish_reason"]


def test_one_prompt_gives_a_dict(engine: sgl.Engine) -> None:
    result = engine.generate("The red fox", GREEDY)
    meta = result["meta_info"]
    assert result["text"] and meta["completion_tokens"] >= len(result["output_ids"]) > 0
    assert meta["prompt_tokens"] > 0 and meta["e2e_latency"] > 0 and meta["id"]
    assert meta["finish_reason"]["type"] in ("stop", "length")
    short = engine.generate("The red fox", {"temperature": 0, "max_new_tokens": 1})
    assert short["meta_info"]["finish_reason"] == {"type": "length", "length": 1}


def test_a_list_gives_a_list_in_order(engine: sgl.Engine) -> None:
    alone = [engine.generate(prompt, GREEDY) for prompt in PROMPTS]
    together = engine.generate(PROMPTS, GREEDY)
    assert list(map(facts, together)) == list(map(facts, alone))
    assert engine.generate([], GREEDY) == []
    assert isinstance(engine.generate(["one"], GREEDY), list)
    own = engine.generate(PROMPTS, [LONG | {"max_new_tokens": n} for n in (1, 2, 3)])
    assert [len(each["output_ids"]) for each in own] == [1, 2, 3]


def test_several_samples_of_a_prompt(engine: sgl.Engine) -> None:
    many = engine.generate(PROMPTS[:2], {"n": 3, "temperature": 1.0, "max_new_tokens": 8, "sampling_seed": 5})
    assert len(many) == 6 and len({each["text"] for each in many[:3]}) > 1
    single = engine.generate(PROMPTS[0], {"n": 2, "temperature": 1.0, "max_new_tokens": 8, "sampling_seed": 5})
    assert list(map(facts, single)) == list(map(facts, many[:2]))


def test_token_ids_are_taken_as_they_are(engine: sgl.Engine) -> None:
    ids = [engine.endpoint.tokenizer.encode(prompt) for prompt in PROMPTS]
    by_ids = engine.generate(input_ids=ids, sampling_params=GREEDY)
    assert list(map(facts, by_ids)) == list(map(facts, engine.generate(PROMPTS, GREEDY)))
    assert facts(engine.generate(input_ids=ids[0], sampling_params=GREEDY)) == facts(by_ids[0])


def test_logprobs(engine: sgl.Engine) -> None:
    plain, with_top = engine.generate(PROMPTS[:2], GREEDY, return_logprob=[False, True], top_logprobs_num=2)
    assert "output_token_logprobs" not in plain["meta_info"]
    chosen = with_top["meta_info"]["output_token_logprobs"]
    top = with_top["meta_info"]["output_top_logprobs"]
    assert [token_id for _, token_id, _ in chosen] == with_top["output_ids"]
    assert all(len(each) == 2 and each[0][:2] == first[:2] for each, first in zip(top, chosen, strict=True))


def test_logprobs_of_the_prompt(engine: sgl.Engine) -> None:
    ids = engine.endpoint.tokenizer.encode(PROMPTS[0])
    result = engine.generate(PROMPTS[0], GREEDY, return_logprob=True, logprob_start_len=0, top_logprobs_num=1)
    told = result["meta_info"]["input_token_logprobs"]
    assert [token_id for _, token_id, _ in told] == ids[1:] and all(logprob < 0 for logprob, _, _ in told)
    assert len(result["meta_info"]["input_top_logprobs"]) == len(told)
    assert "input_token_logprobs" not in engine.generate(PROMPTS[0], GREEDY, return_logprob=True)["meta_info"]


def test_constraints(engine: sgl.Engine) -> None:
    result = engine.generate("A number:", GREEDY | {"regex": "[0-9]{3}"})
    assert len(result["text"]) == 3 and result["text"].isdigit()
    schema: dict[str, Any] = {
        "type": "object",
        "properties": {"ok": {"type": "boolean"}},
        "required": ["ok"],
        "additionalProperties": False,
    }
    text = engine.generate("JSON:", GREEDY | {"json_schema": json.dumps(schema), "max_new_tokens": 40})["text"]
    assert set(json.loads(text)) == {"ok"}


def test_streaming_gives_all_the_text_so_far(engine: sgl.Engine) -> None:
    whole = engine.generate(PROMPTS, LONG)
    chunks = list(engine.generate(PROMPTS, LONG, stream=True))
    for index, result in enumerate(whole):
        mine = [chunk for chunk in chunks if chunk["index"] == index]
        assert facts(mine[-1]) == facts(result)
        assert all(chunk["meta_info"]["finish_reason"] is None for chunk in mine[:-1])
        texts = [chunk["text"] for chunk in mine]
        assert len(texts) > 2 and all(after.startswith(before) for before, after in pairwise(texts))


def test_a_stream_may_be_left(engine: sgl.Engine) -> None:
    stream = engine.generate(PROMPTS, {"max_new_tokens": 500, "ignore_eos": True}, stream=True)
    next(stream)
    stream.close()
    engine.generate("Next", GREEDY)
    assert engine.get_server_info()["generated_tokens"] > 0


def test_asyncio(engine: sgl.Engine) -> None:
    async def run() -> tuple[Any, list[Any]]:
        results = await asyncio.gather(*(engine.async_generate(prompt, GREEDY) for prompt in PROMPTS))
        stream = await engine.async_generate(PROMPTS[0], GREEDY, stream=True)
        return results, [chunk async for chunk in stream]

    results, chunks = asyncio.run(run())
    assert list(map(facts, results)) == list(map(facts, engine.generate(PROMPTS, GREEDY)))
    assert facts(chunks[-1]) == facts(results[0])


def test_a_seed_of_the_engine_makes_draws_repeatable() -> None:
    texts = []
    for _ in range(2):
        with sgl.Engine(model_path="tiny", random_seed=7, max_total_tokens=2048) as engine:
            texts.append([each["text"] for each in engine.generate(PROMPTS * 2, {"max_new_tokens": 8})])
    assert texts[0] == texts[1] and texts[0][:3] != texts[0][3:]


def test_wrong_calls_say_what_is_wrong(engine: sgl.Engine) -> None:
    for call, message in [
        (lambda: engine.generate(), "a prompt or input_ids"),
        (lambda: engine.generate("x", input_ids=[1]), "a prompt or input_ids"),
        (lambda: engine.generate("x", {"max_tokns": 3}), "no sampling parameter 'max_tokns'"),
        (lambda: engine.generate(["x", "y"], [GREEDY]), "sampling_params has 1 entries for 2 prompts"),
        (lambda: engine.generate("x", GREEDY, lora_path="a"), "takes no 'lora_path'"),
        (lambda: engine.generate("x", {"skip_special_tokens": False}), "special tokens are never part"),
        (lambda: sgl.Engine(model_path="tiny", tp_size=2), "tp_size=2"),
        (lambda: sgl.Engine(model_path="tiny", speculative_algorithm="EAGLE"), "speculative_algorithm is NGRAM"),
        (lambda: sgl.Engine(model_path="tiny", speculative_draft_model="x"), "no server argument 'speculative"),
        (lambda: sgl.Engine(model_path="tiny", dtype="int3"), "dtype is one of auto, half"),
        (lambda: sgl.Engine(model_path="tiny", quantization="awq"), "'awq' is no format of weights"),
        (lambda: sgl.Engine(model_path="/nowhere"), "no backend '/nowhere'"),
    ]:
        with pytest.raises(UsageError, match=message):
            call()
    with pytest.raises(Unsupported, match="no embeddings"):
        engine.encode("x")
    with pytest.raises(RequestError, match="temperature must be"):
        engine.generate("x", {"temperature": -1})
    assert engine.generate("x", GREEDY, rid="7", lora_path=None, image_data=None)["text"] is not None


def test_quantization_rounds_weights() -> None:
    with sgl.Engine(model_path="tiny", quantization="fp8", max_total_tokens=2048) as engine:
        assert engine.endpoint.weights == "fp8" and engine.generate("Q: 3 + 4?\nA:", GREEDY)["text"]


def test_what_an_engine_tells_of_itself(engine: sgl.Engine) -> None:
    engine.cache_prefix("A prefix that is long enough to be found again by the next request.")
    again = engine.generate("A prefix that is long enough to be found again by the next request. And", GREEDY)
    assert again["meta_info"]["cached_tokens"] > 8
    assert engine.get_server_info()["cached"] > 0 and engine.get_model_info()["model_path"] == "tiny"
    engine.flush_cache()
    assert engine.get_server_info()["cached"] == 0


@sgl.function
def ask(s, question):  # type: ignore[no-untyped-def]
    s += sgl.user(question) + sgl.assistant(sgl.gen("answer", max_tokens=8))


def test_a_runtime_is_a_backend_for_functions() -> None:
    runtime = sgl.Runtime(model_path="tiny", max_total_tokens=4096)
    try:
        sgl.set_default_backend(runtime)
        state = ask.run("What is 3 + 4?", temperature=0)
        assert state["answer"] == ask.run("What is 3 + 4?", temperature=0, backend=runtime.engine)["answer"]
        assert sgl.get_server_info(runtime)["generated_tokens"] > 0
        result = json.loads(runtime.generate("The red fox", GREEDY))
        assert facts(result)[0]

        async def pieces() -> tuple[list[str], dict[str, Any]]:
            texts = [piece async for piece in runtime.async_generate("The red fox", GREEDY)]
            return texts, await runtime.get_server_info()

        texts, info = asyncio.run(pieces())
        assert "".join(texts) == result["text"] and len(texts) > 1 and info["model_path"] == "tiny"
        sgl.flush_cache()
        assert sgl.get_server_info()["cached"] == 0
    finally:
        sgl.set_default_backend(None)
        runtime.shutdown()


def test_the_tokenizer_is_that_of_transformers(engine: sgl.Engine) -> None:
    tokenizer = engine.get_tokenizer()
    assert tokenizer.encode("The red fox", add_special_tokens=False) == engine.endpoint.tokenizer.encode("The red fox")
    text = tokenizer.apply_chat_template(
        [{"role": "user", "content": "Hi"}], tokenize=False, add_generation_prompt=True
    )
    assert engine.generate(text, GREEDY)["text"]
