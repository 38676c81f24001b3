"""OpenAI's own client against the server: what it answers, whole and streamed, and what it refuses."""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import openai
import pytest
import ramify as rf
from ramify.lang.serving.server import Server
from ramify.runtime.tokens import Tokenizer

from .serving import QUESTION, client, serving, tiny


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with serving() as server:
        yield server


@pytest.fixture
def api(server: Server) -> Iterator[openai.OpenAI]:
    with client(server) as api:
        yield api


@pytest.fixture
def tokenizer() -> Tokenizer:
    return tiny().tokenizer


@rf.program
def ask(s: rf.State, question: str, **params: Any) -> Any:
    s += rf.system("Be brief.") + rf.user(question) + rf.assistant(rf.gen("x", **params))
    return s["x"]


@rf.program
def go_on(s: rf.State, start: str, **params: Any) -> Any:
    s += start
    s += rf.gen("x", **params)
    return s["x"]


MESSAGES: list[Any] = [{"role": "system", "content": "Be brief."}, *QUESTION]


def test_a_chat_answer_is_what_a_program_gets(api: openai.OpenAI) -> None:
    run = ask.run("What is 3 + 4?", max_tokens=8, logprobs=2, backend=tiny())
    answer = api.chat.completions.create(
        model="tiny", messages=MESSAGES, max_tokens=8, temperature=0, logprobs=True, top_logprobs=2
    )
    (choice,) = answer.choices
    (record,) = run.trace
    assert choice.message.content == run.value
    assert choice.finish_reason == record.finish_reason
    assert choice.logprobs is not None and choice.logprobs.content is not None
    told = [top.logprob for each in choice.logprobs.content for top in (each, *each.top_logprobs)]
    assert told == pytest.approx(
        [x for each in record.logprobs for x in (each.logprob, *(v for _, v in each.top))], abs=1e-4
    )
    assert answer.usage is not None
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (
        record.prompt_tokens,
        record.generated_tokens,
    )


def test_a_text_is_what_a_program_gets_and_seeds_give_the_same_samples(api: openai.OpenAI) -> None:
    given: dict[str, Any] = {"max_tokens": 6, "temperature": 0.9, "seed": 5, "n": 3}
    run = go_on.run("The dog", backend=tiny(), **given)
    answer = api.completions.create(model="tiny", prompt="The dog", top_p=1.0, **given)
    assert [choice.text for choice in answer.choices] == [record.text for record in run.trace]
    assert len({choice.text for choice in answer.choices}) > 1


def test_token_ids_and_lists_are_prompts(api: openai.OpenAI, tokenizer: Tokenizer) -> None:
    tokens = tiny().tokens
    begin = list(tokens.first_ids)
    ids = [begin + tokenizer.encode(text) for text in ("The dog", "A cat")]
    given: dict[str, Any] = {"model": "tiny", "max_tokens": 5, "temperature": 0}
    texts = api.completions.create(prompt=["The dog", "A cat"], **given)
    assert [choice.index for choice in texts.choices] == [0, 1]
    same = api.completions.create(prompt=ids, **given)
    assert [choice.text for choice in same.choices] == [choice.text for choice in texts.choices]
    assert api.completions.create(prompt=ids[1], **given).choices[0].text == texts.choices[1].text
    assert same.usage is not None and same.usage.prompt_tokens == sum(map(len, ids))


def test_an_echo_has_the_prompts_logprobs(api: openai.OpenAI) -> None:
    given: dict[str, Any] = {"model": "tiny", "prompt": "The dog barks.", "echo": True, "logprobs": 1}
    scored = api.completions.create(max_tokens=0, **given).choices[0]
    assert scored.text == "The dog barks." and scored.finish_reason == "length"
    longer = api.completions.create(max_tokens=3, temperature=0, **given).choices[0]
    assert longer.text.startswith(scored.text)
    assert scored.logprobs is not None and longer.logprobs is not None
    tokens, values, offsets = (
        longer.logprobs.tokens,
        longer.logprobs.token_logprobs,
        longer.logprobs.text_offset,
    )
    assert tokens and values and offsets
    num = len(scored.logprobs.tokens or [])
    assert "".join(tokens) == longer.text and tokens[:num] == scored.logprobs.tokens
    assert [longer.text[start:].startswith(token) for start, token in zip(offsets, tokens, strict=True)] == [
        True
    ] * len(tokens)
    (score,) = rf.program(_score).run(backend=tiny()).value
    assert math.isclose(values[num - 1], score, rel_tol=1e-5)


def _score(s: rf.State) -> Any:
    s += "The dog barks"
    s += rf.score("x", ["."])
    return s["x"]


@pytest.mark.parametrize("n", [1, 2])
def test_a_stream_adds_up_to_the_whole(api: openai.OpenAI, n: int) -> None:
    given: dict[str, Any] = {"model": "tiny", "seed": 3, "max_tokens": 12, "n": n, "stop": ["e"], "logprobs": True}
    whole = api.chat.completions.create(messages=QUESTION, **given)
    stream = api.chat.completions.create(
        messages=QUESTION, stream=True, stream_options={"include_usage": True}, **given
    )
    texts, finish, roles = [""] * n, [None] * n, [""] * n
    logprobs: list[list[float]] = [[] for _ in range(n)]
    usage = None
    for chunk in stream:
        usage = chunk.usage
        for choice in chunk.choices:
            texts[choice.index] += choice.delta.content or ""
            roles[choice.index] += choice.delta.role or ""
            finish[choice.index] = choice.finish_reason  # type: ignore[call-overload]
            if choice.logprobs is not None:
                logprobs[choice.index] += [each.logprob for each in choice.logprobs.content or ()]
    assert texts == [choice.message.content for choice in whole.choices] and roles == ["assistant"] * n
    assert finish == [choice.finish_reason for choice in whole.choices]
    for told, choice in zip(logprobs, whole.choices, strict=True):
        assert choice.logprobs is not None and choice.logprobs.content is not None
        assert told == pytest.approx([each.logprob for each in choice.logprobs.content], abs=1e-4)
    assert usage is not None and whole.usage is not None
    assert usage.completion_tokens == whole.usage.completion_tokens


def test_a_stream_of_text(api: openai.OpenAI) -> None:
    given: dict[str, Any] = {"model": "tiny", "prompt": ["The dog", "A cat"], "temperature": 0, "max_tokens": 5}
    whole = api.completions.create(echo=True, **given)
    texts = ["", ""]
    for chunk in api.completions.create(echo=True, stream=True, **given):
        texts[chunk.choices[0].index] += chunk.choices[0].text
    assert texts == [choice.text for choice in whole.choices]


@pytest.mark.parametrize(
    ("fields", "is_right"),
    [
        ({"response_format": {"type": "json_object"}}, lambda text: isinstance(json.loads(text), dict)),
        (
            {
                "response_format": {
                    "type": "json_schema",
                    "json_schema": {"name": "x", "schema": {"type": "integer", "minimum": 3, "maximum": 5}},
                }
            },
            lambda text: 3 <= int(text) <= 5,
        ),
        ({"extra_body": {"guided_regex": "[ab]{3}"}}, lambda text: len(text) == 3 and set(text) <= {"a", "b"}),
        ({"extra_body": {"guided_choice": ["a.c", "(d|"]}}, lambda text: text in ("a.c", "(d|")),
        ({"extra_body": {"guided_grammar": 'start: "x" "y"'}}, lambda text: text == "xy"),
        ({"extra_body": {"structured_outputs": {"choice": ["left"]}}}, lambda text: text == "left"),
        ({"extra_body": {"guided_json": {"const": 7}}}, lambda text: text == "7"),
    ],
)
def test_texts_match_what_they_must(api: openai.OpenAI, fields: dict[str, Any], is_right: Any) -> None:
    extra = {"close": True, **fields.pop("extra_body", {})}
    answer = api.chat.completions.create(
        model="tiny", messages=QUESTION, max_tokens=20, seed=1, extra_body=extra, **fields
    )
    assert is_right(answer.choices[0].message.content)


def test_a_bias_on_logits_is_honoured(api: openai.OpenAI, tokenizer: Tokenizer) -> None:
    dog = tokenizer.encode(" dog")[-1]
    answer = api.completions.create(model="tiny", prompt="The", logit_bias={str(dog): 100}, max_tokens=3, temperature=0)
    assert answer.choices[0].text == tokenizer.decode([dog]) * 3


ADD: Any = {
    "type": "function",
    "function": {
        "name": "add",
        "description": "The sum.",
        "parameters": {
            "type": "object",
            "properties": {"a": {"enum": [1, 2]}, "b": {"enum": [3, 4]}},
            "required": ["a", "b"],
            "additionalProperties": False,
        },
    },
}


@pytest.mark.parametrize("choice", ["required", {"type": "function", "function": {"name": "add"}}])
def test_calls_of_tools(api: openai.OpenAI, choice: Any) -> None:
    given: dict[str, Any] = {"model": "tiny", "tools": [ADD], "tool_choice": choice, "temperature": 0}
    answer = api.chat.completions.create(messages=QUESTION, parallel_tool_calls=False, **given).choices[0]
    assert answer.finish_reason == "tool_calls" and answer.message.tool_calls is not None
    (call,) = answer.message.tool_calls
    assert call.type == "function" and call.function.name == "add"
    arguments = json.loads(call.function.arguments)
    assert arguments["a"] in (1, 2) and arguments["b"] in (3, 4)
    (chunk,) = [
        chunk
        for chunk in api.chat.completions.create(messages=QUESTION, parallel_tool_calls=False, stream=True, **given)
        if chunk.choices[0].delta.tool_calls
    ]
    assert chunk.choices[0].delta.tool_calls is not None
    assert chunk.choices[0].delta.tool_calls[0].function is not None
    assert chunk.choices[0].delta.tool_calls[0].function.arguments == call.function.arguments
    after = [
        *QUESTION,
        answer.message.model_dump(exclude_none=True),
        {"role": "tool", "tool_call_id": call.id, "content": "7"},
    ]
    assert api.chat.completions.create(messages=after, **(given | {"tool_choice": "none"})).choices[0].message.content


def test_a_model_that_may_call_may_answer_in_words(api: openai.OpenAI) -> None:
    given: dict[str, Any] = {"model": "tiny", "tools": [ADD], "temperature": 0, "max_tokens": 30}
    whole = api.chat.completions.create(messages=QUESTION, **given).choices[0]
    pieces = list(api.chat.completions.create(messages=QUESTION, stream=True, **given))
    text = "".join(piece.choices[0].delta.content or "" for piece in pieces)
    assert text == (whole.message.content or "")
    assert pieces[-1].choices[0].finish_reason == whole.finish_reason


def test_the_answer_may_go_on_with_the_last_message(api: openai.OpenAI) -> None:
    messages: list[Any] = [*QUESTION, {"role": "assistant", "content": "It is "}]
    answer = api.chat.completions.create(
        model="tiny", messages=messages, temperature=0, max_tokens=4,
        extra_body={"continue_final_message": True, "add_generation_prompt": False},
    )  # fmt: skip
    assert answer.choices[0].message.content == rf.program(_it_is).run(backend=tiny()).value


def _it_is(s: rf.State) -> Any:
    s += rf.user("What is 3 + 4?") + rf.assistant("It is " + rf.gen("x", max_tokens=4))
    return s["x"]


@pytest.mark.parametrize(
    ("fields", "status", "param"),
    [
        ({"model": "other"}, 404, "model"),
        ({"temperature": -1}, 400, "temperature"),
        ({"temperature": "hot"}, 400, "temperature"),
        ({"n": 0}, 400, "n"),
        ({"max_tokens": -1}, 400, "max_tokens"),
        ({"top_logprobs": 3}, 400, "top_logprobs"),
        ({"logprobs": True, "top_logprobs": 21}, 400, "top_logprobs"),
        ({"stop": ""}, 400, "stop"),
        ({"logit_bias": {"999999": 1}}, 400, "logit_bias"),
        ({"messages": []}, 400, "messages"),
        ({"messages": [{"role": "pirate", "content": "x"}]}, 400, "messages[0].role"),
        ({"messages": [{"role": "user", "content": "x", "mood": 1}]}, 400, "messages[0]"),
        ({"messages": [{"role": "tool", "tool_call_id": "a", "content": "x"}]}, 400, "messages[0]"),
        ({"tool_choice": "required"}, 400, "tool_choice"),
        ({"response_format": {"type": "yaml"}}, 400, "response_format"),
        ({"stream_options": {"include_usage": True}}, 400, "stream_options"),
        ({"store": True}, 400, "store"),
        ({"extra_body": {"mirostat": 2}}, 400, "mirostat"),
        ({"extra_body": {"guided_regex": "(?=a)"}}, 400, "guided_regex"),
        ({"extra_body": {"guided_grammar": "/etc/words.lark"}}, 400, "guided_grammar"),
        ({"extra_body": {"guided_regex": "a", "guided_json": {}}}, 400, "guided_json"),
        ({"extra_body": {"close": True}}, 400, "close"),
    ],
)
def test_what_cannot_be_is_refused_by_its_name(
    api: openai.OpenAI, fields: dict[str, Any], status: int, param: str
) -> None:
    with pytest.raises(openai.APIStatusError) as caught:
        api.chat.completions.create(**({"model": "tiny", "messages": QUESTION} | fields))
    assert caught.value.status_code == status and isinstance(caught.value.body, dict)
    assert caught.value.body["param"] == param


@pytest.mark.parametrize("stream", [False, True])
def test_a_prompt_beyond_the_context_is_refused(api: openai.OpenAI, stream: bool) -> None:
    messages: list[Any] = [{"role": "user", "content": "dog " * 5000}]
    with pytest.raises(openai.BadRequestError) as caught:
        api.chat.completions.create(model="tiny", messages=messages, stream=stream)
    assert caught.value.code == "context_length_exceeded"


@pytest.mark.parametrize("prompt", [[], [1, 99999], ["a", 3], {"a": 1}, [[]]])
def test_prompts_that_are_none(api: openai.OpenAI, prompt: Any) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        api.completions.create(model="tiny", prompt=prompt)
    assert str(caught.value.param).startswith("prompt")


def test_embeddings_are_the_hidden_states(api: openai.OpenAI) -> None:
    texts = ["The dog", "A cat sits."]
    for pooling in ("last", "mean"):
        expected = rf.embed(texts, backend=tiny(), pooling=pooling)
        for coding in ("float", "base64"):
            answer = api.embeddings.create(
                model="tiny", input=texts, encoding_format=coding, extra_body={"pooling": pooling}
            )
            vectors = [_vector(each.embedding) for each in answer.data]
            np.testing.assert_allclose(vectors, expected, rtol=2e-5, atol=2e-5)
    ids = list(tiny().tokens.first_ids) + tiny().tokenizer.encode("The dog")
    np.testing.assert_allclose(
        api.embeddings.create(model="tiny", input=ids).data[0].embedding,
        rf.embed(["The dog"], backend=tiny())[0],
        rtol=2e-5,
        atol=2e-5,
    )


def _vector(given: Any) -> Any:
    return np.frombuffer(base64.b64decode(given), "<f4") if isinstance(given, str) else given


@pytest.mark.parametrize(
    ("fields", "param"),
    [({"dimensions": 7}, "dimensions"), ({"input": []}, "input"), ({"extra_body": {"pooling": "max"}}, "pooling")],
)
def test_embeddings_that_cannot_be(api: openai.OpenAI, fields: dict[str, Any], param: str) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        api.embeddings.create(**({"model": "tiny", "input": "x"} | fields))
    assert caught.value.param == param
