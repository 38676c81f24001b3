"""The Anthropic backend against a loopback server: what is sent, what comes back, what is refused, and faults."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal, TypedDict

import pytest
import ramify as rf
from ramify.backends import describe_backend, open_backend
from ramify.backends.anthropic import Anthropic
from ramify.backends.anthropic_wire import LEAST_KEPT
from ramify.backends.remote import Retry
from ramify.ir.errors import ServerError, Unsupported, UsageError
from ramify.runtime.generation import StreamEvent

from .stub import RESET, Reply, StubServer, json_reply
from .stub_anthropic import anthropic_app, wrong
from .stub_openai import expected

EAGER = pytest.mark.parametrize("eager", [True, False])
LONG = "Be brief. " * (LEAST_KEPT // 8)


@rf.program
def ask(s: rf.State, question: str = "What?", guide: str = "Be brief.", **params: Any) -> Any:
    s += rf.system(guide) + rf.user(question)
    s += rf.assistant(rf.gen("x", **params))
    return s["x"]


@pytest.fixture
def server() -> Iterator[StubServer]:
    with StubServer(anthropic_app) as server:
        yield server


@pytest.fixture
def connect(server: StubServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    for name in ("ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN", "ANTHROPIC_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    made: list[Anthropic] = []

    def connect(**options: Any) -> Anthropic:
        options = {"api_key": "secret", "retry": Retry(retries=4, first=0.0), "timeout": 20.0} | options
        made.append(Anthropic("m", base_url=server.url, **options))
        return made[-1]

    yield connect
    for backend in made:
        backend.close()


@EAGER
@pytest.mark.parametrize("stream", [False, True])
def test_what_is_sent_and_what_comes_back(server: StubServer, connect: Any, stream: bool, eager: bool) -> None:
    events: list[StreamEvent] = []
    given = {"stream": events.append} if stream else {}
    run = ask.run(backend=connect(), eager=eager, max_tokens=4, stop=[" zz"], **given)
    assert run.value == expected("<system>Be brief.<user>What?", 4)[0]
    body = {key: value for key, value in server.requests[0].body.items() if key != "stream"}
    assert body == {
        "model": "m",
        "system": [{"type": "text", "text": "Be brief."}],
        "messages": [{"role": "user", "content": [{"type": "text", "text": "What?"}]}],
        "max_tokens": 4,
        "stop_sequences": [" zz"],
    }
    assert server.requests[0].headers["authorization"] == "Bearer secret"
    assert (run.usage.prompt_tokens, run.usage.cached_tokens) == (3, 1)
    assert run.get_meta_info("x")["finish_reason"] == "length" and run.usage.generated_tokens > 0
    if stream:
        pieces = [event.text for event in events if event.kind == "gen"]
        assert len(pieces) == 4 and "".join(pieces) == run.value
        assert server.num_connections == 1


@EAGER
def test_sampling_parameters_go_to_models_that_take_them(server: StubServer, connect: Any, eager: bool) -> None:
    backend = connect(sampling=True)
    ask.run(backend=backend, eager=eager)
    ask.run(backend=backend, eager=eager, temperature=0.5, top_p=0.9, top_k=3)
    ask.run(backend=backend, eager=eager, temperature=1.0)
    sent = [{name: asked.body.get(name) for name in ("temperature", "top_p", "top_k")} for asked in server.requests]
    assert [list(each.values()) for each in sent] == [[0.0, None, None], [0.5, 0.9, 3], [None, None, None]]
    with pytest.raises(Unsupported, match=r"takes no sampling parameters: temperature 0\.5, top_p 1") as caught:
        ask.run(backend=connect(), eager=eager, temperature=0.5)
    assert caught.value.help is not None and "sampling=True" in caught.value.help
    with pytest.raises(Unsupported, match="cannot take top_k"):
        ask.run(backend=connect(), eager=eager, top_k=3)
    ask.run(backend=connect(), eager=eager, temperature=1.0)


@EAGER
def test_stops_tell_which_matched_also_those_of_white_space(server: StubServer, connect: Any, eager: bool) -> None:
    whole = ask.run(backend=connect(), eager=eager).value
    first, second = whole.split()[:2]
    run = ask.run(backend=connect(), stop=[f" {second}"], eager=eager)
    assert (run.value, run.get_meta_info("x")["matched"]) == (f" {first}", f" {second}")
    server.app = lambda asked: json_reply(
        {"content": [{"type": "text", "text": "one\ntwo"}], "stop_reason": "end_turn"}
    )
    for given in ({}, {"stream": lambda event: None}):
        run = ask.run(backend=connect(), stop=["\n", "two"], eager=eager, **given)
        assert (run.value, run.get_meta_info("x")["matched"]) == ("one", "\n")
        assert server.requests[-1].body["stop_sequences"] == ["two"]


@rf.program
def branches(s: rf.State, guide: str, document: str) -> Any:
    s += rf.system(guide) + rf.user(document) + rf.assistant("Read.")
    forks = s.fork(2)
    for number, branch in enumerate(forks):
        branch += rf.user(f"Question {number}?") + rf.assistant(rf.gen("x", max_tokens=2))
    return [branch["x"] for branch in forks]


def marked(body: dict[str, Any]) -> list[str]:
    blocks = body.get("system", []) + [block for message in body["messages"] for block in message["content"]]
    return [block["text"][:8] for block in blocks if block.get("cache_control") == {"type": "ephemeral"}]


def test_long_beginnings_that_are_shared_are_marked(server: StubServer, connect: Any) -> None:
    backend = connect(prices=rf.Prices(prompt=1e6, generated=0.0, cached=0.0, cache_writes=2e6))
    branches.run(LONG, "Document", backend=backend)
    branches.run("Short.", LONG, backend=backend)
    branches.run("Short.", "Document", backend=backend)
    marks = [marked(asked.body) for asked in server.requests]
    assert marks == [["Be brief", "Read.", "Question"]] * 2 + [["Read.", "Question"]] * 2 + [[]] * 2
    branches.run(LONG, "Document", backend=connect(keep_prompts=False))
    assert marked(server.requests[-1].body) == []


def test_what_a_program_goes_on_from_is_marked_and_costs_count_it(server: StubServer, connect: Any) -> None:
    @rf.program
    def talk(s: rf.State, question: str) -> Any:
        s += rf.user(question) + rf.assistant(rf.gen("x", max_tokens=2))
        s += rf.user("More?") + rf.assistant(rf.gen("y", max_tokens=2))

    backend = connect(prices=rf.Prices(prompt=1e6, generated=0.0, cached=0.0, cache_writes=2e6))
    run = talk.run(LONG, backend=backend)
    assert [marked(asked.body) for asked in server.requests] == [["Be brief"], []]
    assert run.usage.cost is not None
    assert run.usage.cost > run.usage.prompt_tokens, "what was written to the cache costs twice"


@rf.tool
def feed(kind: Literal["cat", "dog"]) -> str:
    """Feed a pet."""
    return f"fed the {kind}"


@rf.tool
def wash(kind: Literal["cat", "dog"]) -> str:
    """Wash a pet."""
    return f"washed the {kind}"


@EAGER
@pytest.mark.parametrize("stream", [False, True])
def test_calls_of_tools_and_their_results(server: StubServer, connect: Any, stream: bool, eager: bool) -> None:
    @rf.program
    def keep(s: rf.State) -> Any:
        s += rf.system("Help.", tools=[feed, wash]) + rf.user("Do it.")
        s += rf.assistant(rf.gen("calls", tools=[feed, wash], num_calls=2))
        for result in rf.call_tools(s["calls"]):
            s += rf.tool_message(result)
        s += rf.assistant(rf.gen("answer", max_tokens=3))
        return [call.name for call in s["calls"]]

    given = {"stream": lambda event: None} if stream else {}
    run = keep.run(backend=connect(), eager=eager, **given)
    assert run.value == ["feed", "wash"]
    first, second = (asked.body for asked in server.requests)
    assert [tool["name"] for tool in first["tools"]] == ["feed", "wash"]
    assert first["tools"][0]["description"] == "Feed a pet."
    assert first["tool_choice"] == {"type": "any", "disable_parallel_tool_use": False}
    assert second["tool_choice"] == {"type": "none"}
    assert [block["type"] for block in second["messages"][1]["content"]] == ["tool_use", "tool_use"]
    results = [(block["tool_use_id"], block["content"]) for block in second["messages"][2]["content"]]
    assert results == [("toolu_0", "fed the cat"), ("toolu_1", "washed the cat")]


def test_messages_without_text_are_left_out(server: StubServer, connect: Any) -> None:
    @rf.program
    def program(s: rf.State) -> Any:
        s += rf.user("What?") + rf.assistant("") + rf.user("Well?") + rf.assistant(rf.gen("x"))

    program.run(backend=connect())
    blocks = [{"type": "text", "text": "What?"}, {"type": "text", "text": "Well?"}]
    assert server.requests[0].body["messages"] == [{"role": "user", "content": blocks}]


class Pet(TypedDict):
    name: str


@EAGER
def test_schemas_and_images(server: StubServer, connect: Any, eager: bool) -> None:
    @rf.program
    def look(s: rf.State, picture: Any) -> Any:
        s += rf.user("Who is " + rf.image(picture) + "?") + rf.assistant(rf.gen("x", schema=Pet))
        return s["x"]

    answer = {"content": [{"type": "text", "text": '{"name":"Tom"}'}], "stop_reason": "end_turn"}
    server.app = lambda asked: json_reply(answer)
    assert look.run(b"\x89PNG\r\n\x1a\n", backend=connect(), eager=eager).value == {"name": "Tom"}
    body = server.requests[0].body
    source = {"type": "base64", "media_type": "image/png", "data": "iVBORw0KGgo="}
    assert body["messages"][0]["content"][1] == {"type": "image", "source": source}
    assert body["output_config"]["format"]["schema"]["required"] == ["name"]


@EAGER
def test_what_cannot_be_asked_for_is_refused_before_anything_is_sent(
    server: StubServer, connect: Any, eager: bool
) -> None:
    @rf.program
    def begun(s: rf.State, start: str) -> Any:
        s += rf.user("What?") + rf.assistant(start + rf.gen("x"))

    @rf.program
    def late(s: rf.State) -> Any:
        s += rf.user("What?") + rf.assistant("Hm.") + rf.system("Be brief.") + rf.assistant(rf.gen("x"))

    backend = connect()
    for params in ({"seed": 3, "temperature": 0.5}, {"logprobs": 1}, {"regex": "a+"}, {"frequency_penalty": 0.5}):
        with pytest.raises(Unsupported, match="cannot take"):
            ask.run(backend=backend, eager=eager, **params)
    with pytest.raises(Unsupported, match=r"temperatures from 0 to 1, not 1\.5"):
        ask.run(backend=backend, eager=eager, temperature=1.5)
    with pytest.raises(Unsupported, match="that the program began: 'It is'"):
        begun.run("It is", backend=backend, eager=eager)
    with pytest.raises(Unsupported, match="ends in white space: 'It is '"):
        begun.run("It is ", backend=connect(continue_final_message=True), eager=eager)
    with pytest.raises(Unsupported, match="a message of system at the beginning only"):
        late.run(backend=backend, eager=eager)
    assert server.requests == []
    begun.run("It is", backend=connect(continue_final_message=True), eager=eager)
    assert server.requests[0].body["messages"][-1] == {
        "role": "assistant",
        "content": [{"type": "text", "text": "It is"}],
    }


@EAGER
def test_one_request_answers_several_generations(server: StubServer, connect: Any, eager: bool) -> None:
    @rf.program
    def read(s: rf.State) -> Any:
        s += rf.user("Who?")
        s += rf.assistant("Name: " + rf.gen("name", stop="\n") + "\nBorn: " + rf.gen("born", stop="\n"))
        return s["name"], s["born"]

    text = "Name: Ada\nBorn: London\nThat is all."
    usage = {"input_tokens": 5, "output_tokens": 9}
    answer = {"content": [{"type": "text", "text": text}], "stop_reason": "end_turn", "usage": usage}
    server.app = lambda asked: json_reply(answer)
    run = read.options(speculative_tokens=40).run(backend=connect(), eager=eager)
    assert run.value == ("Ada", "London") and len(server.requests) == 1
    assert (run.usage.prompt_tokens, run.usage.generated_tokens) == (5, 9)


@pytest.mark.parametrize(
    "reply", [wrong("busy", 529, "overloaded_error"), wrong("slow down", 429, "rate_limit_error"), RESET]
)
def test_passing_faults_are_tried_again(server: StubServer, connect: Any, reply: Reply) -> None:
    server.fault = lambda number, asked: reply if number < 2 else None
    assert ask.run(backend=connect()).value == expected("<system>Be brief.<user>What?")[0]
    assert len(server.requests) == 3


def test_refusals_and_errors_in_streams_are_told_with_the_line(server: StubServer, connect: Any) -> None:
    server.fault = lambda number, asked: wrong("max_tokens: too many")
    with pytest.raises(ServerError, match=r"answered 400: max_tokens: too many$") as caught:
        ask.run(backend=connect())
    assert caught.value.status == 400 and caught.value.span is not None and len(server.requests) == 1
    failed = b'{"type":"error","error":{"type":"invalid_request_error","message":"no"}}'
    server.fault = lambda number, asked: Reply(events=[failed])
    with pytest.raises(ServerError, match="the server failed: no"):
        ask.run(backend=connect(), stream=lambda event: None)
    refused = {"content": [], "stop_reason": "refusal"}
    server.fault = lambda number, asked: json_reply(refused)
    with pytest.raises(ServerError, match="because of 'refusal'"):
        ask.run(backend=connect())


def test_rows_of_a_batch_come_once(server: StubServer, connect: Any) -> None:
    rows = [{"question": str(number)} for number in range(40)]
    runs = ask.run_batch(rows, backend=connect(max_connections=8))
    assert [run.value for run in runs] == [expected(f"<system>Be brief.<user>{n}")[0] for n in range(40)]
    assert server.max_active <= 8 and len(server.requests) == 40


def test_names_and_keys(server: StubServer, connect: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    assert rf.Anthropic is Anthropic and "Anthropic" not in rf.__all__
    assert describe_backend("anthropic:m").name == "anthropic:m"
    with pytest.raises(UsageError, match="api_key"):
        Anthropic("m")
    monkeypatch.setenv("ANTHROPIC_API_KEY", "of the environment")
    monkeypatch.setenv("ANTHROPIC_BASE_URL", server.url)
    backend = open_backend("anthropic:m")
    assert ask.run(backend=backend).ok
    assert server.requests[-1].headers["authorization"] == "Bearer of the environment"
    backend.close()
