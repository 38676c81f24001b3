"""SGLang's interface: programs on a server give what they give in this process, token for token."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from typing import Any

import pytest
import ramify as rf
from ramify.backends.endpoint import RuntimeEndpoint
from ramify.backends.openai import OpenAI
from ramify.ir.errors import RequestError, ServerError, Unsupported
from ramify.lang.serving.server import Server
from ramify.runtime.generation import StreamEvent

from ..corpus import CASES, Case
from ..test_differential import NAMES, copied, outcome
from .serving import open_socket, request_bytes, serving, tiny
from .test_faults import answered


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with serving() as server:
        yield server


@pytest.fixture(scope="module")
def endpoint(server: Server) -> Iterator[RuntimeEndpoint]:
    endpoint = RuntimeEndpoint(server.url)
    yield endpoint
    endpoint.close()


# A part of the corpus: all of it takes long.
PART = list(zip(NAMES, CASES, strict=True))[::4]


@pytest.mark.parametrize(("name", "case"), PART, ids=[name for name, _ in PART])
def test_programs_give_what_they_give_here(endpoint: RuntimeEndpoint, name: str, case: Case) -> None:
    here = outcome(copied(case), tiny(), eager=False)
    there = outcome(copied(case), endpoint, eager=False)
    if there["error"] is Unsupported and here["error"] is not Unsupported:
        assert "stop_regex" in there["message"]
    elif here["error"] is not None and issubclass(here["error"], RequestError):
        assert issubclass(there["error"], RequestError | ServerError)  # the server's words are its own
    else:
        assert there == here


@rf.program
def varied(s, tools):
    s += rf.user("Write.") + rf.assistant("So: " + rf.gen("x", max_tokens=6, temperature=0.8, n=2, seed=3, stop="e"))
    s += rf.user("A list.") + rf.assistant(rf.gen("y", grammar='start: "a" "b"*', max_tokens=5))
    s += rf.user("Call.") + rf.assistant(rf.gen("z", tools=tools, num_calls=(1, 2), max_tokens=60, close=True))
    s += rf.score("scores", ["yes", "no"])
    return s["x"], s["y"], s["z"], s.text()


@rf.tool
def add(a: bool, b: bool) -> bool:
    """Whether there is one."""
    return a or b


def test_what_is_streamed_and_what_is_told(endpoint: RuntimeEndpoint) -> None:
    events: dict[str, list[StreamEvent]] = {"here": [], "there": []}
    here = varied.run([add], backend=tiny(), stream=events["here"].append)
    there = varied.run([add], backend=endpoint, stream=events["there"].append)
    assert here.value == there.value
    assert here["scores"] == pytest.approx(there["scores"], abs=1e-4)
    texts = ["".join(event.written for event in each) for each in events.values()]
    assert texts[0] == texts[1]


def post(server: Server, **body: Any) -> Any:
    with open_socket(server) as link:
        link.sendall(request_bytes("/generate", body))
        return answered(link)


def test_answers_are_as_sglang_gives_them(server: Server) -> None:
    sampling = {"max_new_tokens": 4, "temperature": 0}
    status, one = post(server, text="The dog", sampling_params=sampling, return_logprob=True, logprob_start_len=0)
    assert status == 200
    meta = one["meta_info"]
    assert meta["finish_reason"] == {"type": "length", "length": 4} and meta["completion_tokens"] == 4
    assert [token_id for _, token_id, _ in meta["output_token_logprobs"]] == one["output_ids"]
    ids = [token_id for _, token_id, _ in meta["input_token_logprobs"]]
    assert meta["input_token_logprobs"][0][0] is None and len(ids) == meta["prompt_tokens"]
    status, several = post(server, input_ids=[ids, ids], sampling_params=sampling)
    assert [each["text"] for each in several] == [one["text"]] * 2
    status, samples = post(server, text="The dog", sampling_params=sampling | {"n": 3})
    assert [each["output_ids"] for each in samples] == [one["output_ids"]] * 3


def test_a_stream_holds_all_so_far(server: Server) -> None:
    body = {"text": "The dog", "sampling_params": {"max_new_tokens": 5, "temperature": 0}, "stream": True}
    with open_socket(server) as link:
        link.sendall(request_bytes("/generate", body).replace(b"\r\n", b"\r\nConnection: close\r\n", 1))
        lines = [line.strip() for line in link.makefile("rb") if line.startswith(b"data: ")]
    assert lines.pop() == b"data: [DONE]"
    texts = [json.loads(line.removeprefix(b"data: "))["text"] for line in lines]
    assert all(after.startswith(before) for before, after in itertools.pairwise(texts))
    assert texts[-1] == post(server, **(body | {"stream": False}))[1]["text"]


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "text"),
        ({"text": "a", "input_ids": [1]}, "text"),
        ({"input_ids": [-1]}, "input_ids"),
        ({"text": "a", "sampling_params": {"ebnf": "x"}}, "sampling_params.ebnf"),
        ({"text": "a", "sampling_params": {"stop_regex": "(a+)+$"}}, "sampling_params.stop_regex"),
        ({"text": "a", "sampling_params": {"calls": "{}"}}, "sampling_params"),
        ({"text": "a", "logprob_start_len": [0, 1], "return_logprob": True}, "logprob_start_len"),
        ({"text": ["a", "b"], "stream": True}, "stream"),
    ],
)
def test_what_cannot_be(server: Server, body: dict[str, Any], param: str) -> None:
    status, answer = post(server, **body)
    assert status == 400 and answer["error"]["param"] == param


@rf.program
def ask(s, question):
    s += rf.system("Be brief.") + rf.user(question)
    s += rf.assistant(rf.gen("x", max_tokens=6, regex="[0-9a-z ]{1,9}", top_k=5))
    return s["x"]


@pytest.mark.parametrize("is_chat", [True, False])
def test_the_openai_backend_knows_the_server(server: Server, is_chat: bool) -> None:
    template = None if is_chat else tiny().directory
    backend = OpenAI(
        "tiny", base_url=f"{server.url}/v1", flavour="ramify", is_chat_model=is_chat, chat_template=template
    )
    try:
        assert {"regex", "grammar", "json_schema", "top_k", "seed"} <= backend.features
        assert ask.run("What is 3 + 4?", backend=backend).value == ask.run("What is 3 + 4?", backend=tiny()).value
        if is_chat:
            assert calling.run(backend=backend).value == ["add"]
    finally:
        backend.close()


@rf.program
def calling(s):
    s += rf.user("Call.") + rf.assistant(rf.gen("z", tools=[add], num_calls=1, max_tokens=60))
    return [call.name for call in s["z"]]
