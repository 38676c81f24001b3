"""The OpenAI backend against a loopback server: what is sent, what comes back, what is refused, and every fault."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NotRequired, TypedDict

import pytest
import ramify as rf
from ramify.backends import open_backend
from ramify.backends.endpoint import RuntimeEndpoint
from ramify.backends.openai import OpenAI
from ramify.backends.remote import Retry
from ramify.backends.scripted import ScriptedBackend, words
from ramify.ir.errors import BackendError, Cancelled, RequestError, ServerError, Unsupported, UsageError
from ramify.runtime.generation import StreamEvent

from .stub import RESET, STALL, Asked, Reply, StubServer, error_reply, json_reply
from .stub_openai import expected, openai_app, word_score

EAGER = pytest.mark.parametrize("eager", [True, False])
FAST = Retry(retries=4, first=0.0)
CHAT = "<system>Be brief.<user>What?"


@rf.program
def ask(s: rf.State, question: str = "What?", **params: Any) -> Any:
    s += rf.system("Be brief.") + rf.user(question)
    s += rf.assistant(rf.gen("x", **params))
    return s["x"]


@rf.program
def complete(s: rf.State, start: str = "Once upon a", **params: Any) -> Any:
    s += start
    s += rf.gen("x", **params)
    return s["x"]


@pytest.fixture
def server() -> Iterator[StubServer]:
    with StubServer(openai_app) as server:
        yield server


@pytest.fixture(autouse=True)
def no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL", "OPENAI_ORG_ID", "OPENAI_PROJECT_ID"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def connect(server: StubServer) -> Iterator[Any]:
    """Makes backends for the server, and closes them."""
    made: list[OpenAI] = []

    def connect(model: str = "m", **options: Any) -> OpenAI:
        options = {"base_url": f"{server.url}/v1", "retry": FAST, "timeout": 20.0} | options
        made.append(OpenAI(model, **options))
        return made[-1]

    yield connect
    for backend in made:
        backend.close()


# What is sent, and what comes back.


@EAGER
def test_a_chat_model_gets_messages(server: StubServer, connect: Any, eager: bool) -> None:
    run = ask.run(backend=connect(), eager=eager, max_tokens=4)
    assert run.value == expected(CHAT, 4)[0]
    assert server.requests[0].body == {
        "model": "m",
        "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "What?"}],
        "max_tokens": 4,
        "temperature": 0.0,
        "top_p": 1.0,
    }
    assert run.messages[-1] == {"role": "assistant", "content": run.value}
    assert run.text == f"SYSTEM: Be brief.\nUSER: What?\nASSISTANT: {run.value}\n"


@rf.program
def describe(s, picture):
    s += rf.user("What is " + rf.image(picture) + "?") + rf.assistant(rf.gen("answer", max_tokens=4))
    return s["answer"]


@EAGER
def test_a_chat_model_gets_images(server: StubServer, connect: Any, eager: bool) -> None:
    describe.run(b"\x89PNG\r\n\x1a\n", backend=connect(), eager=eager)
    describe.run("https://example.org/a.png", backend=connect(), eager=eager)
    urls = ["data:image/png;base64,iVBORw0KGgo=", "https://example.org/a.png"]
    for asked, url in zip(server.requests, urls, strict=True):
        assert asked.body["messages"] == [
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "What is "},
                    {"type": "image_url", "image_url": {"url": url}},
                    {"type": "text", "text": "?"},
                ],
            }
        ]


@EAGER
def test_a_text_model_takes_no_images(server: StubServer, connect: Any, eager: bool) -> None:
    with pytest.raises(Unsupported, match="cannot take images"):
        describe.run(b"x", backend=connect(is_chat_model=False), eager=eager)
    assert server.requests == []


@EAGER
def test_a_text_model_gets_text(server: StubServer, connect: Any, eager: bool) -> None:
    run = complete.run(backend=connect(is_chat_model=False), eager=eager, max_tokens=3)
    assert run.value == expected("Once upon a", 3)[0]
    assert server.requests[0].path == "/v1/completions"
    assert server.requests[0].body["prompt"] == "Once upon a"


def test_a_text_model_gets_marks_of_the_template_that_the_user_gives(server: StubServer, connect: Any) -> None:
    template = "{% for m in messages %}[{{ m.role }}]{{ m.content }}[/]{% endfor %}" + (
        "{% if add_generation_prompt %}[assistant]{% endif %}"
    )
    ask.run(backend=connect(is_chat_model=False, chat_template=template))
    ask.run(backend=connect(is_chat_model=False))
    assert [asked.body["prompt"] for asked in server.requests] == [
        "[system]Be brief.[/][user]What?[/][assistant]",
        "SYSTEM: Be brief.\nUSER: What?\nASSISTANT:",
    ]


def test_kinds_of_models_are_told_by_their_names() -> None:
    kinds = {
        name: OpenAI(name, api_key="k").is_chat_model for name in ("gpt-4o", "davinci-002", "gpt-3.5-turbo-instruct")
    }
    assert kinds == {"gpt-4o": True, "davinci-002": False, "gpt-3.5-turbo-instruct": False}


@EAGER
def test_usage_and_trace_hold_the_servers_numbers(connect: Any, eager: bool) -> None:
    run = ask.run(backend=connect(), eager=eager, stop=[" "], max_tokens=9, logprobs=1)
    (record,) = run.trace
    assert (run.usage.prompt_tokens, run.usage.cached_tokens) == (2, 1)
    assert run.usage.generated_tokens == record.generated_tokens == 0
    info = run.get_meta_info("x")
    assert (info["finish_reason"], info["matched"]) == ("stop", " ")
    assert record.wall_ms >= record.queue_ms >= 0 and record.wall_ms > 0
    assert record.span is not None and "rf.gen" in record.span.source_line()


@pytest.mark.parametrize("chat", [True, False])
@pytest.mark.parametrize("stream", [True, False])
def test_logprobs(connect: Any, chat: bool, stream: bool) -> None:
    events: list[StreamEvent] = []
    program, backend = (ask, connect()) if chat else (complete, connect(is_chat_model=False))
    run = program.run(backend=backend, logprobs=1, max_tokens=2, stream=events.append if stream else None)
    logprobs = run.get_meta_info("x")["logprobs"]
    assert "".join(each.text for each in logprobs) == run.value
    told = {(each.token_id, each.logprob, each.top, each.top_texts) for each in logprobs}
    assert told == {(-1, -0.5, ((-1, -2.5),), ("other",))}


@pytest.mark.parametrize("flavour", ["vllm", "llama.cpp"])
@pytest.mark.parametrize("chat", [True, False])
@pytest.mark.parametrize("num_top", [0, 1])
def test_of_the_top_tokens_only_those_asked_for_are_told(
    server: StubServer, connect: Any, flavour: str, chat: bool, num_top: int
) -> None:
    top = [("x", -3.0), ("y", -0.5)]  # vLLM's text completions begin with the chosen token
    if chat:
        tops = [{"token": token, "logprob": value} for token, value in top]
        logprobs: Any = {"content": [{"token": "x", "logprob": -3.0, "top_logprobs": tops}]}
        answer = {"message": {"content": "x"}}
    else:
        logprobs = {"tokens": ["x"], "token_logprobs": [-3.0], "top_logprobs": [dict(top)]}
        answer = {"text": "x"}
    choice = {"index": 0, **answer, "logprobs": logprobs, "finish_reason": "stop"}
    server.app = lambda asked: json_reply({"choices": [choice]})
    backend = connect(flavour=flavour, is_chat_model=chat)
    run = (ask if chat else complete).run(backend=backend, logprobs=num_top, temperature=1.0)
    (told,) = run.get_meta_info("x")["logprobs"]
    assert (told.text, told.logprob, told.top_texts) == ("x", -3.0, ("y",)[:num_top])
    body = server.requests[0].body
    asked_for = body.get("top_logprobs", 0) if chat else body["logprobs"]
    assert asked_for == (1 if flavour == "llama.cpp" else num_top)


@pytest.mark.parametrize("flavour", ["llama.cpp", "llama-cpp-python"])
def test_llama_cpp_gets_no_negative_top_k(server: StubServer, connect: Any, flavour: str) -> None:
    ask.run(backend=connect(flavour=flavour))
    assert server.requests[0].body["top_k"] == 0


@pytest.mark.parametrize("chat", [True, False])
def test_a_stream_gives_the_pieces_as_they_come(server: StubServer, connect: Any, chat: bool) -> None:
    program, backend = (ask, connect()) if chat else (complete, connect(is_chat_model=False))
    events: list[StreamEvent] = []
    run = program.run(backend=backend, stream=events.append, max_tokens=3)
    pieces = [event.text for event in events if event.kind == "gen"]
    assert len(pieces) == 3 and "".join(pieces) == run.value == program.run(backend=backend, max_tokens=3).value
    assert server.requests[0].body["stream_options"] == {"include_usage": True}
    assert run.usage.generated_tokens == 3
    assert server.num_connections == 1, "a finished stream leaves its connection usable"


def test_a_stream_that_would_show_beginnings_of_stops_comes_in_one_piece(server: StubServer, connect: Any) -> None:
    events: list[StreamEvent] = []
    whole = ask.run(backend=connect(), stop=["r"]).value
    run = ask.run(backend=connect(flavour="sglang"), stop=["r"], stream=events.append)
    assert [event.text for event in events if event.kind == "gen"] == [run.value] == [whole] != [""]
    assert "stream" not in server.requests[-1].body
    ask.run(backend=connect(flavour="sglang"), stream=events.append)
    assert server.requests[-1].body["stream"] is True


def test_characters_that_end_lines_elsewhere_do_not_end_a_streams_line(connect: Any, server: StubServer) -> None:
    text = "one\u2028two\x85three\u2029"
    server.app = lambda asked: Reply(events=[piece(text, "stop"), b"[DONE]"])
    assert ask.run(backend=connect(), stream=lambda event: None).value == text


def test_the_timeline_tells_the_first_token_of_what_was_streamed(connect: Any) -> None:
    streamed = ask.run(backend=connect(), stream=lambda event: None, max_tokens=3).timeline
    waited = ask.run(backend=connect(), max_tokens=3).timeline
    for timeline, kinds in ((streamed, {"prefill", "decode"}), (waited, {"model"})):
        (bar,) = timeline.bars
        assert {part.kind for part in bar.parts} - {"wait"} == kinds


def test_what_openai_does_by_itself_is_not_sent(server: StubServer, connect: Any) -> None:
    backend = connect(flavour="openai")
    ask.run(backend=backend, temperature=1.0)
    ask.run(backend=backend, temperature=0.5, top_p=0.9, presence_penalty=1.0, seed=7, stop="x")
    first, second = (asked.body for asked in server.requests)
    assert first.keys() == {"model", "messages", "max_completion_tokens"}
    assert second.items() >= {"temperature": 0.5, "top_p": 0.9, "presence_penalty": 1.0, "seed": 7}.items()
    assert second["stop"] == ["x"]


def test_open_servers_get_everything_so_that_a_models_own_defaults_do_not_apply(
    server: StubServer, connect: Any
) -> None:
    ask.run(backend=connect(flavour="vllm"))
    ask.run(backend=connect(flavour="vllm"), top_k=5, min_tokens=2, stop_token_ids=[1, 2], ignore_eos=True)
    ask.run(backend=connect(flavour="llama.cpp"), repetition_penalty=1.5)
    first, second, third = (asked.body for asked in server.requests)
    assert (first["top_k"], first["min_p"], first["repetition_penalty"], first["top_p"]) == (-1, 0.0, 1.0, 1.0)
    assert second.items() >= {"top_k": 5, "min_tokens": 2, "stop_token_ids": [1, 2], "ignore_eos": True}.items()
    assert third["repeat_penalty"] == 1.5


def test_no_tokens_are_generated_without_asking_the_server(server: StubServer, connect: Any) -> None:
    run = ask.run(backend=connect(), max_tokens=0)
    assert run.value == "" and server.requests == []


def test_the_key_is_sent(server: StubServer, connect: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    ask.run(backend=connect())
    ask.run(backend=connect(api_key="secret"))
    monkeypatch.setenv("OPENAI_API_KEY", "of the environment")
    ask.run(backend=connect())
    assert [asked.headers["authorization"] for asked in server.requests] == [
        "Bearer none",
        "Bearer secret",
        "Bearer of the environment",
    ]


def test_the_public_names() -> None:
    assert rf.OpenAI is OpenAI and rf.RuntimeEndpoint is RuntimeEndpoint
    assert not {"OpenAI", "RuntimeEndpoint"} & set(rf.__all__), "they need packages that may not be there"


def test_open_backend_knows_it_by_name(server: StubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    backend = open_backend(f"openai:m@{server.url}/v1")
    assert open_backend(f"openai:m@{server.url}/v1") is backend
    assert ask.run(backend=backend).value == expected(CHAT)[0]
    backend.close()
    monkeypatch.setenv("OPENAI_BASE_URL", f"{server.url}/v1")
    backend = open_backend("openai:org/model")
    assert ask.run(backend=backend).ok and server.requests[-1].body["model"] == "org/model"
    backend.close()


# Constraints, scores and choices.


@pytest.mark.parametrize(
    ("flavour", "chat", "given", "fields"),
    [
        ("vllm", True, {"regex": "[a-z ]+"}, {"structured_outputs": {"regex": "[a-z ]+"}}),
        ("vllm", False, {"grammar": 'start: "a"'}, {"structured_outputs": {"grammar": 'start: "a"'}}),
        ("vllm", False, {"json_schema": {"type": "object"}}, {"structured_outputs": {"json": {"type": "object"}}}),
        ("sglang", True, {"regex": "[a-z ]+"}, {"regex": "[a-z ]+"}),
        ("sglang", False, {"json_schema": {"type": "object"}}, {"json_schema": '{"type":"object"}'}),
        ("llama.cpp", False, {"json_schema": {"type": "object"}}, {"json_schema": {"type": "object"}}),
        (
            "llama-cpp-python",
            True,
            {"json_schema": {"type": "object"}},
            {"response_format": {"type": "json_object", "schema": {"type": "object"}}},
        ),
        *(
            (
                flavour,
                True,
                {"json_schema": {"type": "object"}},
                {
                    "response_format": {
                        "type": "json_schema",
                        "json_schema": {"name": "answer", "schema": {"type": "object"}, "strict": True},
                    }
                },
            )
            for flavour in ("compatible", "sglang", "llama.cpp")
        ),
    ],
)
def test_constraints_go_out_in_the_flavours_own_fields(
    server: StubServer, connect: Any, flavour: str, chat: bool, given: dict[str, Any], fields: dict[str, Any]
) -> None:
    (ask if chat else complete).run(backend=connect(flavour=flavour, is_chat_model=chat), **given)
    assert server.requests[0].body.items() >= fields.items()


@dataclass
class Pet:
    name: str
    kind: Literal["cat", "dog"] = "cat"


class Owner(TypedDict):
    pets: list[Pet]
    age: NotRequired[int | None]


@EAGER
def test_schemas_go_to_openai_as_its_strict_mode_takes_them(server: StubServer, connect: Any, eager: bool) -> None:
    text = '{"pets":[{"name":"Tom","kind":"cat"}],"age":null}'
    server.app = lambda asked: json_reply({"choices": [{"message": {"content": text}, "finish_reason": "stop"}]})
    run = ask.run(backend=connect(flavour="openai"), schema=Owner, eager=eager)
    assert run["x"] == {"pets": [Pet("Tom")], "age": None}
    described = server.requests[0].body["response_format"]["json_schema"]
    assert described["strict"] is True and "$ref" not in described["schema"]
    objects = [described["schema"], *described["schema"]["$defs"].values()]
    assert len(objects) == 3
    for each in objects:
        assert each["type"] == "object" and each["additionalProperties"] is False
        assert each["required"] == list(each["properties"])
    kind = next(each["properties"]["kind"] for each in objects if "kind" in each["properties"])
    assert kind == {"enum": ["cat", "dog"], "type": "string"}


@rf.tool
def feed(kind: Literal["cat", "dog"], times: int = 1) -> str:
    """Feed a pet."""
    return f"{kind} {times}"


@EAGER
@pytest.mark.parametrize("flavour", ["compatible", "vllm"])
def test_calls_of_tools_are_asked_for_as_objects(server: StubServer, connect: Any, flavour: str, eager: bool) -> None:
    text = '{"name":"feed","arguments":{"kind":"cat","times":2}}'
    server.app = lambda asked: json_reply({"choices": [{"message": {"content": text}, "finish_reason": "stop"}]})
    run = ask.run(backend=connect(flavour=flavour), tools=[feed], eager=eager)
    assert [result.value for result in rf.call_tools(run["x"])] == ["cat 2"]
    body = server.requests[0].body
    if flavour == "vllm":
        schema = body["structured_outputs"]["json"]
    else:
        schema = body["response_format"]["json_schema"]["schema"]
    assert schema["type"] == "object" and schema["properties"]["name"]["const"] == "feed"
    assert schema["$defs"]["arguments0"]["required"] == ["kind"]


@rf.tool
def wash(kind: Literal["dog"]) -> str:
    """Wash a pet.

    Args:
        kind: which
    """
    return f"clean {kind}"


@rf.program
def keep(s: rf.State, question: str, num_calls: Any = None) -> Any:
    """Calls, their results, and an answer."""
    s += rf.system("Be brief.", tools=[feed, wash]) + rf.user(question)
    s += rf.assistant(rf.gen("calls", tools=[feed, wash], num_calls=num_calls))
    for result in rf.call_tools(s["calls"]):
        s += rf.tool_message(result)
    if s["calls"]:
        s += rf.assistant(rf.gen("answer"))
    return s["calls"]


def called(run: rf.Run) -> list[tuple[str, dict[str, Any]]]:
    calls = run.value if isinstance(run.value, list) else [run.value]
    return [(call.name, call.arguments) for call in calls]


@EAGER
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("flavour", ["openai", "vllm"])
@pytest.mark.parametrize(
    ("num_calls", "choice", "is_parallel", "count"),
    [(None, "required", False, 1), (1, "required", False, 1), (2, "required", True, 2), ((1, 3), "required", True, 2),
     ((0, 1), "auto", False, 1), ("any", "auto", True, 2)],
)  # fmt: skip
def test_calls_go_through_the_servers_own_interface_for_tools(
    server: StubServer, connect: Any, flavour: str, stream: bool, eager: bool,
    num_calls: Any, choice: str, is_parallel: bool, count: int,
) -> None:  # fmt: skip
    backend = connect(flavour=flavour, native_tools=True)
    events: list[StreamEvent] = []
    given = {"stream": events.append} if stream else {}
    run = keep.run("What?", num_calls, backend=backend, eager=eager, **given)
    fed = {"kind": "cat", "times": 1} if flavour == "openai" else {"kind": "cat"}  # strict mode leaves nothing out
    assert called(run) == [("feed", fed), ("wash", {"kind": "dog"})][:count]
    first, second = (asked.body for asked in server.requests)
    assert (first["tool_choice"], first["parallel_tool_calls"]) == (choice, is_parallel)
    assert "response_format" not in first and "structured_outputs" not in first
    functions = [tool["function"] for tool in first["tools"]]
    assert [function["name"] for function in functions] == ["feed", "wash"]
    assert functions[1]["parameters"]["properties"]["kind"]["description"] == "which"
    assert [function["strict"] for function in functions] == [True] * 2
    required = ["kind", "times"] if flavour == "openai" else ["kind"]
    assert functions[0]["parameters"]["required"] == required
    assert (second["tool_choice"], second["tools"]) == ("none", [feed.schema, wash.schema])
    ids = [f"call_2_{number}" for number in range(count)]
    asked, *results = second["messages"][2:]
    assert asked["content"] == ("Well." if choice == "auto" else None)
    assert [(call["id"], call["function"]["name"]) for call in asked["tool_calls"]] == list(
        zip(ids, ["feed", "wash"], strict=False)
    )
    texts = ["cat 1", "clean dog"][:count]
    assert results == [{"role": "tool", "content": t, "tool_call_id": i} for t, i in zip(texts, ids, strict=True)]
    if stream:
        assert "".join(event.text for event in events if event.name == "calls") == run.trace[0].text


@EAGER
@pytest.mark.parametrize("stream", [False, True])
def test_a_model_may_answer_in_words(server: StubServer, connect: Any, stream: bool, eager: bool) -> None:
    given = {"stream": lambda event: None} if stream else {}
    run = keep.run("In words!", "any", backend=connect(flavour="openai"), eager=eager, **given)
    assert run.value == [] and len(server.requests) == 1
    assert run.messages[-1]["content"] == run.trace[0].text == expected("<system>Be brief.<user>In words!")[0]


def of_calls(*calls: dict[str, Any], reason: str = "tool_calls", **message: Any) -> Reply:
    made = [{"id": f"c{n}", "type": "function", "function": call} for n, call in enumerate(calls)]
    return json_reply({"choices": [{"message": {**message, "tool_calls": made}, "finish_reason": reason}]})


@EAGER
@pytest.mark.parametrize(
    ("reply", "num_calls", "message"),
    [
        (of_calls({"name": "feed", "arguments": '{"kind": "cow"}'}), None, "kind"),
        (of_calls({"name": "milk", "arguments": "{}"}), None, "there is no tool 'milk'"),
        (of_calls({"name": "wash", "arguments": '{"kind":"dog"}'}), 2, "1 calls where there are to be 2"),
        (of_calls(content="No."), (1, 2), "0 calls where there are to be 1 to 2"),
        (of_calls({"name": "wash", "arguments": '{"ki'}, reason="length"), None, "max_tokens cut it off"),
    ],
)
def test_answers_that_are_not_the_calls_asked_for(
    server: StubServer, connect: Any, eager: bool, reply: Reply, num_calls: Any, message: str
) -> None:
    server.app = lambda asked: reply
    with pytest.raises(rf.OutputError, match=message) as caught:
        keep.run("What?", num_calls, backend=connect(flavour="openai"), eager=eager)
    assert caught.value.span is not None


@EAGER
def test_a_message_of_calls_cannot_go_on(server: StubServer, connect: Any, eager: bool) -> None:
    @rf.program
    def program(s: rf.State) -> Any:
        s += rf.user("What?") + rf.assistant(rf.gen("call", tools=[wash]) + rf.gen("more"))

    with pytest.raises(Unsupported, match="cannot continue an assistant message that holds calls"):
        program.run(backend=connect(flavour="openai"), eager=eager)


def test_the_interface_for_tools_is_that_of_chat_models(connect: Any) -> None:
    assert "tools" in connect(flavour="openai").features
    assert not {"tools"} & (connect().features | connect(flavour="openai", native_tools=False).features)
    with pytest.raises(UsageError, match="text completions have no interface for tools"):
        connect(is_chat_model=False, native_tools=True)


@EAGER
def test_schemas_that_are_no_objects_are_refused_by_openai(server: StubServer, connect: Any, eager: bool) -> None:
    with pytest.raises(Unsupported, match="schemas of objects only") as caught:
        ask.run(backend=connect(flavour="openai"), schema=list[int], eager=eager)
    assert caught.value.span is not None and server.requests == []


@EAGER
@pytest.mark.parametrize(
    ("flavour", "chat", "given"),
    [
        ("openai", True, {"regex": "a"}),
        ("compatible", False, {"json_schema": {"type": "object"}}),
        ("sglang", True, {"grammar": 'start: "a"'}),
        ("llama.cpp", True, {"regex": "a"}),
        ("llama-cpp-python", False, {"json_schema": {"type": "object"}}),
        ("llama-cpp-python", True, {"ignore_eos": True}),
    ],
)
def test_constraints_that_the_flavour_lacks_are_refused(
    server: StubServer, connect: Any, flavour: str, chat: bool, given: dict[str, Any], eager: bool
) -> None:
    with pytest.raises(Unsupported, match=f"cannot take {next(iter(given))}"):
        (ask if chat else complete).run(backend=connect(flavour=flavour, is_chat_model=chat), eager=eager, **given)
    assert server.requests == []


@rf.program
def pick(s: rf.State, texts: list[str], method: Any = None, start: str = "The apple is") -> Any:
    s += start
    s += rf.score("scores", texts) + rf.select("c", texts, choices_method=method)
    return s["c"], s["scores"]


@EAGER
@pytest.mark.parametrize("options", [{"flavour": "vllm"}, {"echo_logprobs": True}])
@pytest.mark.parametrize("method", [None, "greedy_token_selection"])
def test_text_completions_that_echo_their_prompt_score(
    server: StubServer, connect: Any, options: dict[str, Any], method: Any, eager: bool
) -> None:
    texts = [" red", " green and round", "land", " green"]
    backend = connect(is_chat_model=False, **options)
    here = ScriptedBackend(score=lambda text, continuation: _of_words(text, continuation))
    run = pick.run(texts, method, backend=backend, eager=eager)
    # Words are the tokens of both, so "land" makes another last token of the prompt: it is judged in the other's place.
    texts_here = [" red", " green and round", " green"]
    expected = pick.run(texts_here, method, backend=here, eager=eager)
    scores = dict(zip(texts, run["scores"], strict=True))
    assert [scores[text] for text in texts_here] == pytest.approx(expected["scores"])
    assert scores["land"] == pytest.approx(word_score("The apple island"))
    info = run.get_meta_info("scores")
    assert info["token_counts"] == [1, 3, 1, 1]
    body = server.requests[0].body
    assert body["prompt"] == ["The apple is", *("The apple is" + text for text in texts)]
    assert body.items() >= {"echo": True, "max_tokens": 0, "logprobs": 1}.items()
    assert ("return_tokens_as_token_ids" in body) is ("flavour" in options)
    means = {text: scores[text] / count for text, count in zip(texts, info["token_counts"], strict=True)}
    if method is None:
        assert run["c"] == max(means, key=means.__getitem__)
    assert run.usage.calls == 2


def _of_words(text: str, continuation: str) -> list[float]:
    found = []
    for word in words(continuation):
        text += word
        found.append(word_score(text))
    return found


@EAGER
def test_scores_that_cannot_be(server: StubServer, connect: Any, eager: bool) -> None:
    backend = connect(is_chat_model=False, flavour="vllm")
    with pytest.raises(Unsupported, match="needs the model's tokenizer") as caught:
        pick.run(["a", "b"], "unconditional_likelihood_normalized", backend=backend, eager=eager)
    assert caught.value.span is not None
    with pytest.raises(Unsupported, match=r"cannot take score\(\)") as caught:
        pick.run(["a", "b"], backend=connect(is_chat_model=False), eager=eager)
    assert caught.value.help is not None and "echo_logprobs=True" in caught.value.help
    with pytest.raises(RequestError, match="nothing stands before it"):
        pick.run(["a", "b"], start="", backend=backend, eager=eager)
    server.app = lambda asked: json_reply({"choices": [{"text": "the answer", "finish_reason": "length"}]})
    with pytest.raises(ServerError, match="did not echo the prompts"):
        pick.run(["a", "b"], backend=backend, eager=eager)
    server.app = lambda asked: json_reply(
        {"choices": [{"text": text, "index": i} for i, text in enumerate(asked.body["prompt"])]}
    )
    with pytest.raises(ServerError, match="without their log-probabilities"):
        pick.run(["a", "b"], backend=backend, eager=eager)


@rf.program
def chat_pick(s: rf.State, texts: list[str]) -> Any:
    s += rf.user("Which?")
    s += rf.assistant(rf.select("c", texts))
    return s["c"]


@EAGER
@pytest.mark.parametrize(
    ("flavour", "fields"),
    [
        ("vllm", {"structured_outputs": {"choice": ["a.b (c)", 'say "x"', "née"]}}),
        ("sglang", {"regex": r'(a\.b \(c\))|(say "x")|(née)'}),
        ("llama.cpp", {"grammar": r'root ::= "a.b (c)" | "say \"x\"" | "née"'}),
    ],
)
def test_servers_choose_under_a_constraint_when_told_so(
    server: StubServer, connect: Any, flavour: str, fields: dict[str, Any], eager: bool
) -> None:
    answer = {"choices": [{"message": {"content": 'say "x"'}, "finish_reason": "stop"}]}
    server.app = lambda asked: json_reply(answer)
    texts = ["a.b (c)", 'say "x"', "née"]
    backend = connect(flavour=flavour, constrained_select=True)
    assert chat_pick.run(texts, backend=backend, eager=eager).value == 'say "x"'
    body = server.requests[0].body
    assert body.items() >= fields.items() and body["max_tokens"] == 8
    events: list[StreamEvent] = []
    chat_pick.run(texts, backend=backend, eager=eager, stream=events.append)
    assert [event.text for event in events if event.kind == "select"] == ['say "x"']
    server.app = openai_app
    with pytest.raises(ServerError, match="which is none of the choices: it ignores the constraint"):
        chat_pick.run(texts, backend=backend, eager=eager)
    with pytest.raises(Unsupported, match=r"cannot take select\(\)"):
        chat_pick.run(texts, backend=connect(flavour=flavour), eager=eager)


# What is refused before anything is sent.


@rf.program
def text_outside(s: rf.State) -> Any:
    s += "Listen. " + rf.user("What?")
    s += rf.assistant(rf.gen("x"))


@rf.program
def text_between(s: rf.State) -> Any:
    s += rf.user("What?") + "\n"
    s += rf.assistant(rf.gen("x"))


@rf.program
def gen_outside(s: rf.State) -> Any:
    s += rf.user("What?")
    s += rf.gen("x")


@rf.program
def gen_of_user(s: rf.State) -> Any:
    s += rf.user("I ask: " + rf.gen("x"))


@rf.program
def begun(s: rf.State) -> Any:
    s += rf.user("What?")
    s += rf.assistant("It is " + rf.gen("x"))


@rf.program
def two_gens(s: rf.State) -> Any:
    s += rf.user("What?")
    s += rf.assistant(rf.gen("a") + rf.gen("x"))


@rf.program
def nobody_spoke(s: rf.State) -> Any:
    s += rf.assistant(rf.gen("x"))


@EAGER
@pytest.mark.parametrize(
    ("program", "message", "num_sent"),
    [
        (text_outside, "this text stands outside of them: 'Listen. '", 0),
        (text_between, r"this text stands outside of them: '\\n'", 0),
        (gen_outside, "this generation stands outside of the messages", 0),
        (gen_of_user, "this generation stands inside a message of user", 0),
        (begun, "cannot continue an assistant message that the program began: 'It is '", 0),
        (two_gens, "cannot continue an assistant message that the program began", 1),
        (nobody_spoke, "needs a message before the assistant's", 0),
    ],
)
def test_what_a_chat_request_would_mangle_is_refused_with_the_line(
    server: StubServer, connect: Any, program: Any, message: str, num_sent: int, eager: bool
) -> None:
    with pytest.raises(Unsupported, match=message) as caught:
        program.run(backend=connect(), eager=eager)
    assert caught.value.span is not None and 'rf.gen("x")' in caught.value.span.source_line()
    assert caught.value.help
    assert len(server.requests) == num_sent


def test_text_after_the_last_generation_may_stand_anywhere(connect: Any) -> None:
    @rf.program
    def program(s: rf.State) -> Any:
        s += rf.user("What?") + rf.assistant(rf.gen("x"))
        s += f"\nverdict: {s['x']}"

    assert program.run(backend=connect()).text.endswith(f"\nverdict: {expected('<user>What?')[0]}")


@EAGER
@pytest.mark.parametrize(
    ("flavour", "extra"),
    [
        ("vllm", {"continue_final_message": True, "add_generation_prompt": False}),
        ("sglang", {"continue_final_message": True}),
        ("llama.cpp", {"stream": True, "stream_options": {"include_usage": True}}),
    ],
)
def test_servers_that_can_continue_a_message_do_when_told_so(
    server: StubServer, connect: Any, flavour: str, extra: dict[str, Any], eager: bool
) -> None:
    run = begun.run(backend=connect(flavour=flavour, continue_final_message=True), eager=eager)
    body = server.requests[0].body
    assert body["messages"][-1] == {"role": "assistant", "content": "It is "}
    assert body.items() >= extra.items()
    assert run["x"] == expected("<user>What?<assistant>It is ")[0]
    assert run.messages[-1]["content"] == "It is " + run["x"]


@EAGER
def test_parameters_that_the_flavour_lacks_are_refused(server: StubServer, connect: Any, eager: bool) -> None:
    with pytest.raises(Unsupported, match="cannot take top_k"):
        ask.run(backend=connect(flavour="openai"), top_k=3, eager=eager)
    with pytest.raises(Unsupported, match="at most 4 stop strings, not 5"):
        ask.run(backend=connect(flavour="openai"), stop=list("abcde"), eager=eager)
    assert server.requests == []


@EAGER
def test_messages_of_tools_are_refused_where_a_server_needs_more_than_their_text(
    server: StubServer, connect: Any, eager: bool
) -> None:
    @rf.program
    def program(s: rf.State) -> Any:
        s += rf.user("What?") + rf.tool_message({"price": 4})
        s += rf.assistant(rf.gen("x"))

    with pytest.raises(Unsupported, match="takes a tool's message only as the answer to a call"):
        program.run(backend=connect(flavour="openai"), eager=eager)
    program.run(backend=connect(flavour="vllm"), eager=eager)
    assert [asked.body["messages"][-1] for asked in server.requests] == [{"role": "tool", "content": '{"price":4}'}]


@EAGER
def test_numbers_are_asked_for_by_their_form_where_a_server_can(server: StubServer, connect: Any, eager: bool) -> None:
    server.app = lambda asked: json_reply({"choices": [{"message": {"content": "42"}, "finish_reason": "stop"}]})
    assert ask.run(backend=connect(flavour="sglang"), dtype=int, eager=eager).value == 42
    assert ask.run(backend=connect(flavour="openai"), dtype=int, eager=eager).value == 42
    first, second = (asked.body for asked in server.requests)
    assert "[0-9]" in first["regex"] and "regex" not in second


def test_options_that_cannot_work() -> None:
    with pytest.raises(UsageError, match="unknown flavour 'x'"):
        OpenAI("m", api_key="k", flavour="x")
    with pytest.raises(UsageError, match="'openai' cannot continue an assistant message"):
        OpenAI("m", api_key="k", continue_final_message=True)
    with pytest.raises(UsageError, match="'compatible' cannot choose under a constraint"):
        OpenAI("m", base_url="http://x/v1", constrained_select=True)
    with pytest.raises(UsageError, match="own chat template"):
        OpenAI("m", api_key="k", chat_template="{{ messages }}")
    with pytest.raises(UsageError, match="there is no chat template 'no/such/file'"):
        OpenAI("m", api_key="k", is_chat_model=False, chat_template="no/such/file")
    with pytest.raises(UsageError, match="api_key"):
        OpenAI("m")


# Faults.


def once(*numbers: int, reply: Reply) -> Any:
    return lambda number, asked: reply if number in numbers else None


@EAGER
@pytest.mark.parametrize(
    "reply",
    [
        error_reply(429, retry_after="0"),
        error_reply(429, retry_after="Thu, 01 Jan 1970 00:00:00 GMT"),
        error_reply(500),
        error_reply(503, retry_after="nonsense"),
        RESET,
        Reply(b'{"choices": [{', end="close"),
        Reply(end="close", status=0),
    ],
    ids=["429", "429 with a date", "500", "503", "reset", "broken JSON", "closed"],
)
def test_passing_faults_are_tried_again(server: StubServer, connect: Any, reply: Reply, eager: bool) -> None:
    server.fault = once(0, 1, reply=reply)
    run = ask.run(backend=connect(), eager=eager)
    assert run.value == expected(CHAT)[0]
    assert len(server.requests) == 3 and len(run.trace) == 1


@EAGER
def test_the_last_error_is_raised_with_status_cause_and_line(server: StubServer, connect: Any, eager: bool) -> None:
    server.fault = lambda number, asked: error_reply(500, f"broken {number}")
    with pytest.raises(ServerError) as caught:
        ask.run(backend=connect(), eager=eager)
    error = caught.value
    assert isinstance(error, BackendError)
    assert error.message == "openai:m: the server answered 500: broken 4 (tried 5 times)"
    assert error.status == 500 and type(error.__cause__).__name__ == "InternalServerError"
    assert error.span is not None and 'rf.gen("x", **params)' in error.span.source_line()
    assert len(server.requests) == 5


@pytest.mark.parametrize("status", [400, 401, 404, 422, 501])
def test_other_refusals_are_raised_at_once(server: StubServer, connect: Any, status: int) -> None:
    server.fault = lambda number, asked: error_reply(status, "no such thing")
    with pytest.raises(ServerError, match=f"answered {status}: no such thing$") as caught:
        ask.run(backend=connect())
    assert caught.value.status == status and len(server.requests) == 1


def test_an_empty_account_is_not_waited_for(server: StubServer, connect: Any) -> None:
    reply = json_reply({"error": {"message": "no money", "code": "insufficient_quota", "type": "x"}}, 429)
    server.fault = lambda number, asked: reply
    with pytest.raises(ServerError, match="no money"):
        ask.run(backend=connect())
    assert len(server.requests) == 1


def test_a_wait_that_is_too_long_is_not_waited_for(server: StubServer, connect: Any) -> None:
    server.fault = lambda number, asked: error_reply(429, "slow down", retry_after="3600")
    with pytest.raises(ServerError, match="asks to wait 3600 s"):
        ask.run(backend=connect())
    assert len(server.requests) == 1


def test_retry_after_is_waited_for() -> None:
    retry = Retry(first=1.0, longest=8.0)
    assert 0.5 <= retry.pause(1, 0.0) <= 1.0
    assert 4.0 <= retry.pause(9, 0.0) <= 8.0
    assert 20.5 <= retry.pause(1, 20.0) <= 21.0


@EAGER
@pytest.mark.parametrize(
    ("reply", "message"),
    [
        (Reply(b"<html>", content_type="text/html"), "not JSON .*'<html>'"),
        (Reply(b"[1]"), "not what was expected: Expected `object`, got `array`"),
        (json_reply({"choices": [{"message": {"content": 5}}]}), r"Expected `str \| null`, got `int`"),
        (json_reply({"choices": [{"message": {"refusal": "I will not."}}]}), "refused to answer: I will not."),
        (
            json_reply({"choices": [{"finish_reason": "content_filter"}]}),
            "ended the answer because of 'content_filter'",
        ),
        (json_reply({"error": {"message": "out of memory", "code": 400}}), "the server failed: out of memory"),
    ],
)
def test_answers_that_are_none(server: StubServer, connect: Any, reply: Reply, message: str, eager: bool) -> None:
    server.fault = lambda number, asked: reply
    with pytest.raises(ServerError, match=message) as caught:
        ask.run(backend=connect(), eager=eager)
    assert len(server.requests) == 1
    assert caught.value.span is not None


def test_garbage_that_calls_itself_json_is_tried_again_and_then_shown(server: StubServer, connect: Any) -> None:
    server.fault = lambda number, asked: Reply(b"garbage")
    with pytest.raises(ServerError, match=r"not JSON .*'garbage' \(tried 5 times"):
        ask.run(backend=connect())


def piece(text: str, finish: str | None = None) -> bytes:
    reason = "null" if finish is None else f'"{finish}"'
    return b'{"choices": [{"index": 0, "delta": {"content": "%s"}, "finish_reason": %s}]}' % (
        text.encode(),
        reason.encode(),
    )


@EAGER
@pytest.mark.parametrize("end", ["reset", "close", "keep"])
def test_a_stream_that_breaks_off_is_an_error_once_text_was_handed_on(
    server: StubServer, connect: Any, end: Any, eager: bool
) -> None:
    server.fault = lambda number, asked: Reply(events=[piece("one"), piece(" two")], end=end)
    events: list[StreamEvent] = []
    with pytest.raises(ServerError, match=r"broke off before its end|connection failed") as caught:
        ask.run(backend=connect(), stream=events.append, eager=eager)
    assert len(server.requests) == 1
    assert caught.value.help is not None and "streamed already" in caught.value.help
    assert [event.text for event in events if event.kind == "gen"] in ([], ["one"], ["one", " two"])


@EAGER
@pytest.mark.parametrize("end", ["reset", "close", "keep"])
def test_a_stream_that_breaks_off_before_any_text_is_tried_again(
    server: StubServer, connect: Any, end: Any, eager: bool
) -> None:
    server.fault = once(0, reply=Reply(events=[piece("")], end=end))
    events: list[StreamEvent] = []
    run = ask.run(backend=connect(), stream=events.append, eager=eager)
    pieces = "".join(event.text for event in events if event.kind == "gen")
    assert pieces == run.value == expected(CHAT)[0]
    assert len(server.requests) == 2


def test_an_error_within_a_stream(server: StubServer, connect: Any) -> None:
    server.fault = lambda number, asked: Reply(events=[b'{"error": {"message": "gone", "code": 400}}'])
    with pytest.raises(ServerError, match="the server failed: gone") as caught:
        ask.run(backend=connect(), stream=lambda event: None)
    assert caught.value.status == 400


@pytest.mark.parametrize("stream", [True, False])
def test_a_server_that_falls_silent_is_given_up(server: StubServer, connect: Any, stream: bool) -> None:
    events = [piece("one")] if stream else None
    server.fault = lambda number, asked: Reply(events=events, end="stall") if stream else STALL
    backend = connect(timeout=0.2, retry=Retry(retries=1, first=0.0))
    with pytest.raises(ServerError, match=r"did not answer in time \(ReadTimeout"):
        ask.run(backend=backend, stream=(lambda event: None) if stream else None)
    assert len(server.requests) == (1 if stream else 2)


def test_no_server(connect: Any) -> None:
    with pytest.raises(ServerError, match=r"the connection failed: .*tried 5 times") as caught:
        ask.run(backend=connect(base_url="http://127.0.0.1:1/v1"))
    assert caught.value.status is None


@EAGER
@pytest.mark.parametrize("stream", [True, False])
def test_a_cancelled_run_hangs_up(server: StubServer, connect: Any, stream: bool, eager: bool) -> None:
    events = [piece("one")] if stream else None
    server.fault = lambda number, asked: Reply(events=events, end="stall") if stream else STALL
    with pytest.raises(Cancelled, match="longer than its timeout"):
        ask.run(backend=connect(), timeout=0.3, eager=eager, stream=(lambda event: None) if stream else None)
    assert server.somebody_hung_up.wait(10)


def test_requests_that_wait_for_their_turn_can_be_cancelled(server: StubServer, connect: Any) -> None:
    server.fault = lambda number, asked: STALL
    backend = connect(max_connections=2)
    runs = ask.run_batch([{} for _ in range(30)], backend=backend, timeout=0.3)
    assert all("longer than its timeout" in str(run.error) for run in runs)
    server.fault = lambda number, asked: None
    assert ask.run(backend=backend).value == expected(CHAT)[0], "no connection is held by what was given up"


def test_closing_ends_what_runs_and_what_waits(server: StubServer, connect: Any) -> None:
    server.fault = lambda number, asked: STALL
    backend = connect(max_connections=2)
    threading.Thread(target=lambda: (server.arrived.wait(10), backend.close())).start()
    runs = ask.run_batch([{} for _ in range(5)], backend=backend)
    assert [str(run.error).count("the backend 'openai:m' is closed") for run in runs] == [1] * 5
    assert server.somebody_hung_up.wait(10)
    with pytest.raises(BackendError, match="closed"):
        ask.run(backend=backend)
    backend.close()


# Many.


@EAGER
def test_500_rows_at_once_over_few_connections_and_through_faults(
    server: StubServer, connect: Any, eager: bool
) -> None:
    replies = [error_reply(429, retry_after="0"), error_reply(500), RESET, Reply(b"{", end="close")]
    seen: dict[str, int] = {}

    def fault(number: int, asked: Asked) -> Reply | None:
        question = asked.body["messages"][-1]["content"]
        seen[question] = seen.get(question, 0) + 1
        kind = int(question.split()[-1]) % 7
        return replies[kind] if kind < len(replies) and seen[question] == 1 else None

    server.fault = fault
    rows = [{"question": f"question {number}"} for number in range(500)]
    runs = ask.run_batch(rows, backend=connect(max_connections=16), eager=eager)
    assert [run.error for run in runs if run.error] == []
    assert [run.value for run in runs] == [expected(f"<system>Be brief.<user>{row['question']}")[0] for row in rows]
    assert all(len(run.trace) == 1 for run in runs)
    assert seen == {row["question"]: 2 if n % 7 < 4 else 1 for n, row in enumerate(rows)}
    assert server.max_active <= 16


def test_connections_are_used_again(server: StubServer, connect: Any) -> None:
    ask.run_batch([{"question": str(n)} for n in range(200)], backend=connect(max_connections=8))
    assert server.num_connections <= 8


FORKED = """
import os, sys
import ramify as rf

@rf.program
def ask(s, question):
    s += rf.user(question) + rf.assistant(rf.gen("x"))
    return s["x"]

backend = rf.OpenAI("m", base_url=sys.argv[1])
rows = [{"question": str(number)} for number in range(3)]
here = [run.value for run in ask.run_batch(rows, backend=backend)]
child = os.fork()
if child == 0:
    os._exit([run.value for run in ask.run_batch(rows, backend=backend)] != here)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
assert ask.run("0", backend=backend).value == here[0]
"""


def test_a_forked_child_connects_anew(server: StubServer, tmp_path: Path) -> None:
    (tmp_path / "forked.py").write_text(FORKED)
    command = [sys.executable, "-W", "ignore", "forked.py", f"{server.url}/v1"]
    done = subprocess.run(command, cwd=tmp_path, timeout=60, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert len(server.requests) == 7


@EAGER
def test_branches_run_at_the_same_time(server: StubServer, connect: Any, eager: bool) -> None:
    @rf.program
    def program(s: rf.State) -> Any:
        s += rf.user("Shared.")
        forks = s.fork(6)
        for number, branch in enumerate(forks):
            branch += rf.user(f"Branch {number}.") + rf.assistant(rf.gen("x", max_tokens=2))
        return [branch["x"] for branch in forks]

    server.together = 6
    run = program.run(backend=connect(), eager=eager)
    assert run.value == [expected(f"<user>Shared.<user>Branch {n}.", 2)[0] for n in range(6)]
    assert server.max_active == 6
