"""Speculative execution for endpoints: one request answers several generations, with the results of one for each."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
import ramify as rf
from ramify import function
from ramify.backends.openai import OpenAI
from ramify.backends.remote import Retry
from ramify.backends.scripted import words
from ramify.ir.errors import ServerError, Unsupported
from ramify.runtime.generation import StreamEvent

from .stub import Asked, Reply, StubServer, error_reply, json_reply

EAGER = pytest.mark.parametrize("eager", [True, False])
GUIDE = "Read the letter and tell three things of who wrote it, each on a line of its own. " * 20
ANSWER = "Name: Ada\nBorn: London\nKnown for: the engine's notes\nThat is all."


class Model:
    """Writes `answer`, as words, from where the prompt or the assistant's message stands; counts tokens by words."""

    def __init__(self, answer: str = ANSWER) -> None:
        self.answer = answer
        self.prompt_tokens = 0

    def __call__(self, asked: Asked) -> Reply:
        body = asked.body
        if "messages" in body:
            *_, last = body["messages"]
            begun = last["content"] if last["role"] == "assistant" else ""
            text = "".join(each["content"] for each in body["messages"])
            if begun and "continue_final_message" not in body:
                return error_reply(400, "an assistant message stands last")
        else:
            text = body["prompt"]
            begun = text.partition("Answer:\n")[2]
        rest = self.answer.removeprefix(begun) if self.answer.startswith(begun) else " nothing like that"
        pieces = words(rest)
        most = body.get("max_tokens", body.get("max_completion_tokens"))
        written, reason = "".join(pieces[:most]), "length" if len(pieces) > most else "stop"
        matched = None
        stops = [(written.find(stop), stop) for stop in body.get("stop", ()) if stop in written]
        if stops:
            written, reason, matched = written[: min(stops)[0]], "stop", min(stops)[1]
        self.prompt_tokens += len(words(text))
        usage = {"prompt_tokens": len(words(text)), "completion_tokens": len(words(written))}
        choice = {"index": 0, "finish_reason": reason, "stop_reason": matched}
        if body.get("logprobs") is not None:
            tokens = words(written)
            told = {"tokens": tokens, "token_logprobs": [-0.5] * len(tokens)}
            content = [{"token": token, "logprob": -0.5} for token in tokens]
            choice["logprobs"] = {"content": content} if "messages" in body else told
        if not body.get("stream"):
            given = {"message": {"content": written}} if "messages" in body else {"text": written}
            return json_reply({"choices": [{**choice, **given}], "usage": usage})
        given = {"delta": {"content": written}} if "messages" in body else {"text": written}
        events = [{"choices": [{**choice, **given}]}, {"choices": [], "usage": usage}]
        return Reply(events=[json.dumps(event).encode() for event in events] + [b"[DONE]"])


@pytest.fixture
def model() -> Model:
    return Model()


@pytest.fixture
def server(model: Model) -> Iterator[StubServer]:
    with StubServer(model) as server:
        yield server


@pytest.fixture
def connect(server: StubServer) -> Iterator[Any]:
    made: list[OpenAI] = []

    def connect(**options: Any) -> OpenAI:
        made.append(OpenAI("m", base_url=f"{server.url}/v1", retry=Retry(retries=2, first=0.0), **options))
        return made[-1]

    yield connect
    for backend in made:
        backend.close()


KINDS = [
    {"is_chat_model": False},
    {"flavour": "vllm", "continue_final_message": True},
    {"flavour": "openai"},
]


@rf.program
def read(s: rf.State, guide: str, third: str = "Known for") -> Any:
    s += rf.user(guide) if s.messages() == [] and guide.startswith("Read") else guide
    with s.assistant():
        s += "Name: " + rf.gen("name", stop="\n")
        s += "\nBorn: " + rf.gen("born", stop="\n")
        s += f"\n{third}: " + rf.gen("known", stop="\n")
    return s["name"], s["born"], s["known"]


@rf.program
def complete(s: rf.State, guide: str, third: str = "Known for") -> Any:
    s += guide + "Answer:\n"
    s += "Name: " + rf.gen("name", stop="\n")
    s += "\nBorn: " + rf.gen("born", stop="\n")
    s += f"\n{third}: " + rf.gen("known", stop="\n")
    return s["name"], s["born"], s["known"]


FIELDS = ("Ada", "London", "the engine's notes")


def program_for(options: dict[str, Any]) -> Any:
    return read if options.get("is_chat_model", True) else complete


def outcome(run: rf.Run) -> Any:
    finish = [(record.text, record.finish_reason) for record in run.trace]
    matched = [run.get_meta_info(name)["matched"] for name in ("name", "born", "known")]
    return run.value, run.text, run.vars, finish, matched


@EAGER
@pytest.mark.parametrize("options", KINDS)
def test_one_request_answers_three_generations(
    server: StubServer, connect: Any, model: Model, options: dict[str, Any], eager: bool
) -> None:
    program, backend = program_for(options), connect(**options)
    run = program.options(speculative_tokens=40).run(GUIDE, backend=backend, eager=eager)
    assert run.value == FIELDS and len(server.requests) == 1
    assert "stop" not in server.requests[0].body
    ahead, usage = model.prompt_tokens, run.usage
    assert (usage.calls, usage.prompt_tokens, len(run.trace)) == (3, ahead, 3)
    if options != {"flavour": "openai"}:
        model.prompt_tokens = 0
        alone = program.run(GUIDE, backend=backend, eager=eager)
        assert outcome(alone) == outcome(run) and len(server.requests) == 4
        assert ahead < 0.35 * model.prompt_tokens, "about a third of the tokens"


@EAGER
@pytest.mark.parametrize("options", KINDS[:2])
def test_where_the_model_deviates_it_is_asked_anew(
    server: StubServer, connect: Any, options: dict[str, Any], eager: bool
) -> None:
    program, backend = program_for(options), connect(**options)
    run = program.options(speculative_tokens=40).run(GUIDE, "Famous for", backend=backend, eager=eager)
    assert len(server.requests) == 2
    assert outcome(run) == outcome(program.run(GUIDE, "Famous for", backend=backend, eager=eager))


@pytest.mark.parametrize("options", KINDS)
def test_streams_tell_each_generation_in_its_place(connect: Any, options: dict[str, Any]) -> None:
    events: list[StreamEvent] = []
    program = program_for(options).options(speculative_tokens=40)
    run = program.run(GUIDE, backend=connect(**options), stream=events.append)
    assert run.value == FIELDS
    assert "".join(event.written for event in events) == run.text
    assert [event.name for event in events if event.kind == "gen"] == ["name", "born", "known"]


@EAGER
def test_rows_of_a_batch_have_each_their_own(server: StubServer, connect: Any, eager: bool) -> None:
    rows = [{"guide": f"Read {number}. "} for number in range(30)]
    runs = complete.options(speculative_tokens=40).run_batch(rows, backend=connect(is_chat_model=False), eager=eager)
    assert [run.value for run in runs] == [FIELDS] * 30 and len(server.requests) == 30


def test_what_no_chat_request_can_ask_for_says_how_the_answer_deviates(connect: Any) -> None:
    backend = connect(flavour="openai")
    with pytest.raises(ServerError, match=r"does not begin with 'Name: Ada\\nBorn: London\\nFamous for: ', but: .Name"):
        read.options(speculative_tokens=40).run(GUIDE, "Famous for", backend=backend)
    with pytest.raises(ServerError, match="cut off"):
        read.options(speculative_tokens=1, max_tokens=4).run(GUIDE, backend=backend)
    with pytest.raises(Unsupported, match="cannot continue an assistant message") as caught:
        read.run(GUIDE, backend=backend)
    assert caught.value.help is not None and "speculative_tokens=N" in caught.value.help


@pytest.mark.parametrize(
    ("flavour", "params", "num_requests"),
    [
        ("vllm", {"max_tokens": 2}, 1),  # the last field's third token is cut off
        ("vllm", {"max_tokens": 3}, 1),
        ("compatible", {"max_tokens": 10}, 2),  # the last field has more bytes, and so may have more tokens
        ("compatible", {"max_tokens": 19}, 1),
        ("compatible", {"temperature": 0.7}, 1),
        ("compatible", {"temperature": 0.7, "seed": 3}, 3),  # a seed says what each request alone gives
        ("compatible", {"logprobs": 0}, 3),
    ],
)
def test_results_are_those_of_single_requests(
    server: StubServer, connect: Any, flavour: str, params: dict[str, Any], num_requests: int
) -> None:
    backend = connect(is_chat_model=False, flavour=flavour)
    run = complete.options(speculative_tokens=40, **params).run(GUIDE, backend=backend)
    num_sent = len(server.requests)
    assert outcome(run) == outcome(complete.options(**params).run(GUIDE, backend=backend))
    assert num_sent == num_requests


def test_what_was_drawn_is_used_once(server: StubServer, connect: Any) -> None:
    @rf.program
    def program(s: rf.State, temperature: float) -> Any:
        s += "Answer:\nName: " + rf.gen("name", stop="\n")
        forks = s.fork(3)
        for branch in forks:
            branch += "\nBorn: " + rf.gen("born", stop="\n", temperature=temperature)
        return [branch["born"] for branch in forks]

    backend = connect(is_chat_model=False)
    run = program.options(speculative_tokens=40).run(0.0, backend=backend)
    assert run.value == ["London"] * 3 and len(server.requests) == 1
    server.requests.clear()
    run = program.options(speculative_tokens=40, temperature=0.7).run(0.7, backend=backend)
    assert run.value == ["London"] * 3 and len(server.requests) == 3, "two of the branches draw for themselves"


def test_sglangs_decorator_asks_for_it(server: StubServer, connect: Any) -> None:
    @function(num_api_spec_tokens=40)
    def program(s, guide):  # type: ignore[no-untyped-def]
        s += rf.user(guide)
        with s.assistant():
            s += "Name: " + rf.gen("name", stop="\n") + "\nBorn: " + rf.gen("born", stop="\n")

    state = program.run(GUIDE, backend=connect(flavour="openai"))
    assert (state["name"], state["born"]) == ("Ada", "London") and len(server.requests) == 1


def test_a_recording_is_the_same_with_and_without(connect: Any, tmp_path: Any) -> None:
    backend, file = connect(is_chat_model=False), tmp_path / "run.rec"
    run = complete.options(speculative_tokens=40).run(GUIDE, backend=backend, record=file)
    assert outcome(complete.run(GUIDE, replay=file)) == outcome(run)
