"""An SGLang server as a backend: the same as the same model in this process, and every fault."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import ramify
import ramify as rf
import torch
from ramify.backends import open_backend
from ramify.backends.endpoint import RuntimeEndpoint
from ramify.backends.local import LocalBackend
from ramify.backends.remote import Retry
from ramify.ir.errors import BackendError, Cancelled, OutputError, ServerError, Unsupported, UsageError
from ramify.runtime.generation import StreamEvent

from .stub import RESET, STALL, Asked, Reply, StubServer, error_reply, json_reply
from .stub_sglang import SGLangApp

WEIGHTS = Path(ramify.__file__).parent / "backends" / "tiny" / "weights"
EAGER = pytest.mark.parametrize("eager", [True, False])
FAST = Retry(retries=4, first=0.0)


@rf.program(max_tokens=12)
def ask(s: rf.State, question: str = "What is 3 + 4?", **params: Any) -> Any:
    s += rf.system("Answer briefly.") + rf.user(question)
    s += rf.assistant(rf.gen("x", **params))
    return s["x"]


@rf.program(max_tokens=6)
def long(s: rf.State, question: str = "Is the apple red?") -> Any:
    s += rf.user(question) + rf.assistant(rf.gen("a") + " and " + rf.gen("b", stop=["e"]))
    forks = s.fork(2)
    for number, branch in enumerate(forks):
        branch += rf.user(f"Branch {number}?") + rf.assistant(rf.gen("c"))
    return s["a"], s["b"], [branch["c"] for branch in forks]


@rf.program(max_tokens=12)
def plain(s: rf.State, start: str = "The apple", **params: Any) -> Any:
    s += start
    s += rf.gen("x", **params)
    return s["x"]


@pytest.fixture(scope="module")
def local() -> Iterator[LocalBackend]:
    backend = LocalBackend(WEIGHTS, dtype=torch.float32, device="cpu", check=True)
    yield backend
    backend.engine.check_idle()
    backend.close()


Connect = Callable[..., tuple[StubServer, RuntimeEndpoint]]


@pytest.fixture
def connect(local: LocalBackend) -> Iterator[Connect]:
    """Starts a server over the local model, and connects to it; `here` says whether its files are on this machine."""
    closing: list[Any] = []

    def connect(*, here: bool = True, app: dict[str, Any] | None = None, **options: Any) -> Any:
        path = str(WEIGHTS) if here else "/models/elsewhere"
        server = StubServer(SGLangApp(local, path, **(app or {}))).__enter__()
        closing.append(lambda: server.__exit__())
        options = {"retry": FAST, "timeout": 20.0} | options
        backend = RuntimeEndpoint(server.url, **options)
        closing.append(backend.close)
        return server, backend

    yield connect
    for close in reversed(closing):
        close()


def sent(server: StubServer) -> list[Any]:
    """The bodies of the requests of /generate."""
    return [asked.body for asked in server.requests if asked.path == "/generate"]


# The same as in this process.


@EAGER
@pytest.mark.parametrize("program", [ask, long, plain])
@pytest.mark.parametrize("incremental", [True, False])
@pytest.mark.parametrize("stream", [True, False])
def test_a_server_gives_what_the_same_model_gives_here(
    local: LocalBackend, connect: Connect, program: Any, incremental: bool, stream: bool, eager: bool
) -> None:
    _, backend = connect(app={"incremental": incremental})
    here = program.run(backend=local, eager=eager, stream=(lambda event: None) if stream else None)
    there = program.run(backend=backend, eager=eager, stream=(lambda event: None) if stream else None)
    assert (there.value, there.text, there.vars) == (here.value, here.text, here.vars)
    told = [
        [(r.text, r.finish_reason, r.prompt_tokens, r.generated_tokens) for r in run.trace] for run in (there, here)
    ]
    assert told[0] == told[1]
    names = [name for name in here.vars if name in ("a", "b", "x")]
    assert names
    for name in names:
        info, expected = there.get_meta_info(name), here.get_meta_info(name)
        assert all(info[key] == expected[key] for key in ("token_ids", "matched", "finish_reason"))


@pytest.mark.parametrize("incremental", [True, False])
@pytest.mark.parametrize("here", [True, False])
@pytest.mark.parametrize("stop", ["e", " is", "apple ", "no such text"])
def test_stop_strings_end_the_text_where_they_end_it_here(
    local: LocalBackend, connect: Connect, stop: str, incremental: bool, here: bool
) -> None:
    _, backend = connect(here=here, app={"incremental": incremental})
    events: list[StreamEvent] = []
    expected = plain.run(backend=local, stop=stop, max_tokens=20)
    run = plain.run(backend=backend, stop=stop, max_tokens=20, stream=events.append)
    assert run.value == expected.value == plain.run(backend=backend, stop=stop, max_tokens=20).value
    assert "".join(event.text for event in events if event.kind == "gen") == run.value
    assert run.get_meta_info("x")["matched"] == expected.get_meta_info("x")["matched"]


@EAGER
@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("incremental", [True, False])
def test_logprobs(local: LocalBackend, connect: Connect, stream: bool, incremental: bool, eager: bool) -> None:
    _, backend = connect(app={"incremental": incremental})
    listen = (lambda event: None) if stream else None
    for params in ({"logprobs": 2}, {"logprobs": 1, "return_text_in_logprobs": True, "logprob_start_len": 4}):
        there, here = (ask.run(backend=each, eager=eager, stream=listen, **params) for each in (backend, local))
        info, expected = there.get_meta_info("x"), here.get_meta_info("x")
        assert info["token_ids"] == expected["token_ids"] != []
        assert_same(there.trace[0].logprobs, here.trace[0].logprobs)
        assert_same_told(info["input_token_logprobs"], expected["input_token_logprobs"])
        assert bool(info["input_token_logprobs"]) is ("logprob_start_len" in params)


def assert_same(left: Any, right: Any) -> None:
    """The same tokens, alternatives and texts, and almost the same log-probabilities."""
    assert [(t.token_id, t.text, t.top_texts) for t in left] == [(t.token_id, t.text, t.top_texts) for t in right] != []
    assert [t.logprob for t in left] == pytest.approx([t.logprob for t in right], abs=1e-3)
    assert [[other for other, _ in t.top] for t in left] == [[other for other, _ in t.top] for t in right]


def assert_same_told(left: Any, right: Any) -> None:
    assert [told[1:] for told in left] == [told[1:] for told in right]
    assert [told[0] for told in left] == pytest.approx([told[0] for told in right], abs=1e-3)


@EAGER
@pytest.mark.parametrize("here", [True, False])
@pytest.mark.parametrize("incremental", [True, False])
@pytest.mark.parametrize("pattern", ["[aeiou]s", "[xyz]{3}", "a.*e$"])
def test_patterns_end_the_text_where_they_end_it_here(
    local: LocalBackend, connect: Connect, pattern: str, incremental: bool, here: bool, eager: bool
) -> None:
    _, backend = connect(here=here, app={"incremental": incremental})
    events: list[StreamEvent] = []
    given: dict[str, Any] = {"stop_regex": pattern, "max_tokens": 20, "eager": eager}
    expected = plain.run(backend=local, **given)
    run = plain.run(backend=backend, stream=events.append, **given)
    assert run.value == expected.value == plain.run(backend=backend, **given).value
    assert "".join(event.text for event in events if event.kind == "gen") == run.value
    keys = ("matched", "finish_reason")
    assert [run.get_meta_info("x")[key] for key in keys] == [expected.get_meta_info("x")[key] for key in keys]


# Scores and choices.


@rf.program
def judge(s: rf.State, start: str, texts: list[str]) -> Any:
    s += start
    s += rf.score("scores", texts)
    chosen = []
    for method in ("token_length_normalized", "greedy_token_selection", "unconditional_likelihood_normalized"):
        branch = s.copy()
        branch += rf.select("choice", texts, choices_method=method)
        chosen.append(branch["choice"])
    return s["scores"], chosen


TEXTS = [" red", " red and green", "s are", "pie", " 7", ""]


@EAGER
@pytest.mark.parametrize("start", ["The apple", "The apple is", "Is the app"])
def test_scores_and_choices_are_those_of_the_same_model_here(
    local: LocalBackend, connect: Connect, start: str, eager: bool
) -> None:
    _, backend = connect()
    texts = [text for text in TEXTS if text]
    (scores, chosen), expected = (judge.run(start, texts, backend=each, eager=eager).value for each in (backend, local))
    assert scores == pytest.approx(expected[0], abs=1e-3) and chosen == expected[1]
    assert len(set(scores)) == len(scores)


@EAGER
def test_scores_after_generated_tokens_and_role_marks(local: LocalBackend, connect: Connect, eager: bool) -> None:
    @rf.program
    def program(s: rf.State) -> Any:
        s += rf.user("Is the apple red?") + rf.assistant(rf.gen("x", max_tokens=3) + rf.select("c", ["s", " no", "."]))
        s += rf.user("Sure?")
        s += rf.score("scores", TEXTS)
        return s["c"], s["scores"]

    _, backend = connect()
    here, there = program.run(backend=local, eager=eager), program.run(backend=backend, eager=eager)
    assert there["c"] == here["c"] and there["scores"] == pytest.approx(here["scores"], abs=1e-3)
    info, expected = there.get_meta_info("scores"), here.get_meta_info("scores")
    assert info["token_counts"] == expected["token_counts"] and info["token_counts"][-1] == 0
    assert there.usage.prompt_tokens >= here.usage.prompt_tokens  # a server computes each text by itself


@EAGER
@pytest.mark.parametrize("start", ["The apple", "Is the app"])
def test_a_server_whose_tokenizer_is_elsewhere_tells_where_texts_begin(
    local: LocalBackend, connect: Connect, start: str, eager: bool
) -> None:
    server, backend = connect(here=False)

    @rf.program
    def program(s: rf.State) -> Any:
        s += start
        s += rf.score("scores", TEXTS) + rf.select("c", [" red", "les"], choices_method=rf.greedy_token_selection)
        return s["scores"], s["c"]

    scores, choice = program.run(backend=backend, eager=eager).value
    expected = program.run(backend=local, eager=eager).value
    assert scores == pytest.approx(expected[0], abs=1e-3) and choice == expected[1]
    bodies = sent(server)
    assert len(bodies) == 4
    assert [start, *(start + text for text in TEXTS)] in [body.get("text") for body in bodies]
    assert len(TEXTS) - 1 in [len(body.get("input_ids", ())) for body in bodies], "an empty text has no tokens"


@EAGER
def test_scores_that_cannot_be(connect: Connect, local: LocalBackend, eager: bool) -> None:
    server, backend = connect(here=False)
    with pytest.raises(Unsupported, match="needs the model's tokenizer here") as caught:
        judge.run("The", [" a", " b"], backend=backend, eager=eager)
    assert caught.value.span is not None
    app = server.app
    server.app = lambda asked: app(replace(asked, body={**asked.body, "return_prompt_token_ids": False}))
    with pytest.raises(Unsupported, match="does not tell a prompt's tokens"):
        judge.run("The", [" a", " b"], backend=backend, eager=eager)
    server, backend = connect()
    app = server.app
    server.app = lambda asked: app(replace(asked, body={**asked.body, "logprob_start_len": None}))
    with pytest.raises(ServerError, match="was asked to score the tokens"):
        judge.run("The", [" a", " b"], backend=backend, eager=eager)


# What is sent.


def test_token_ids_go_out_where_the_tokenizer_is_here(local: LocalBackend, connect: Connect) -> None:
    server, backend = connect()
    run = ask.run(backend=backend)
    (body,) = sent(server)
    assert "text" not in body
    ids = body["input_ids"][local.tokenizer.bos_id is not None :]
    assert ids == local.tokenizer.encode(run.text[: run.text.rindex(run.value)])
    assert body["sampling_params"] == {
        "max_new_tokens": 12,
        "min_new_tokens": 0,
        "temperature": 0.0,
        "top_p": 1.0,
        "top_k": -1,
        "min_p": 0.0,
        "frequency_penalty": 0.0,
        "presence_penalty": 0.0,
        "repetition_penalty": 1.0,
        "stop": [],
        "stop_token_ids": [],
        "ignore_eos": False,
        "sampling_seed": None,
    }


def test_a_long_text_is_tokenized_off_the_loop_and_sent_whole(local: LocalBackend, connect: Connect) -> None:
    server, backend = connect()
    start = "The apple is red. " * 300
    run = plain.run(start, backend=backend, max_tokens=1)
    assert local.tokenizer.decode(sent(server)[0]["input_ids"]) == start
    assert run.value == plain.run(start, backend=local, max_tokens=1).value


def test_generated_tokens_are_sent_back_as_they_were(connect: Connect) -> None:
    server, backend = connect()
    run = long.run(backend=backend)
    first, second = sent(server)[:2]
    generated = run.get_meta_info("a")["token_ids"]
    length = len(first["input_ids"])
    assert second["input_ids"][:length] == first["input_ids"]
    assert second["input_ids"][length : length + len(generated)] == generated


def test_text_goes_out_where_the_tokenizer_is_elsewhere_or_not_wanted(local: LocalBackend, connect: Connect) -> None:
    for options in ({"here": False}, {"token_ids": False}):
        server, backend = connect(**options)  # type: ignore[arg-type]
        run = plain.run(backend=backend)
        assert sent(server)[0]["text"] == "The apple" and "input_ids" not in sent(server)[0]
        assert run.value == plain.run(backend=local).value
        assert run.get_meta_info("x")["token_ids"] == []


def test_constraints_and_seeds(connect: Connect) -> None:
    server, backend = connect(app={"enable_deterministic_inference": True})
    plain.run(backend=backend, regex="[^#]*", temperature=1.0, seed=7)
    with pytest.raises(OutputError, match="max_tokens cut it off"):
        plain.run(backend=backend, json_schema={"type": "object"}, max_tokens=3)
    first, second = (body["sampling_params"] for body in sent(server))
    assert (first["regex"], first["sampling_seed"], first["temperature"]) == ("[^#]*", 7, 1.0)
    assert second["json_schema"] == '{"type":"object"}'


@EAGER
def test_what_the_server_cannot_do_is_refused(connect: Connect, eager: bool) -> None:
    server, backend = connect()
    with pytest.raises(Unsupported, match="cannot take a seed"):
        plain.run(backend=backend, seed=3, temperature=1.0, eager=eager)
    with pytest.raises(Unsupported, match="cannot take grammar"):
        plain.run(backend=backend, grammar='start: "a"', eager=eager)
    assert sent(server) == []
    assert plain.run(backend=backend, seed=3, eager=eager).ok, "greedy decoding draws nothing"


# Messages.


@EAGER
def test_marks_nobody_knows_are_an_error_at_the_first_message(connect: Connect, eager: bool) -> None:
    server, backend = connect(here=False)
    with pytest.raises(Unsupported, match=r"'/models/elsewhere' marks messages is not known") as caught:
        ask.run(backend=backend, eager=eager)
    assert caught.value.help is not None and "tokenizer=DIRECTORY" in caught.value.help
    assert caught.value.span is not None
    assert sent(server) == []


def test_marks_that_the_user_gives(local: LocalBackend, connect: Connect) -> None:
    expected = ask.run(backend=local)
    for options in ({"tokenizer": WEIGHTS}, {"chat_template": WEIGHTS}, {"chat_template": local.chat}):
        _, backend = connect(here=False, **options)
        run = ask.run(backend=backend)
        assert (run.value, run.text) == (expected.value, expected.text)


# The server itself.


def test_a_servers_other_functions(connect: Connect) -> None:
    server, backend = connect(api_key="secret")
    backend.clear_cache()
    assert server.app.num_flushes == 1  # type: ignore[attr-defined]
    assert backend.server_info()["version"] == "0.5"
    assert backend.model_info.model_path == str(WEIGHTS)
    ask.run(backend=backend)
    assert {asked.headers.get("authorization") for asked in server.requests} == {"Bearer secret"}
    server.app = lambda asked: Reply(b"Flush cache failed.\n", 400, content_type="text/plain")
    with pytest.raises(ServerError, match=r"answered 400: Flush cache failed\.$"):
        backend.clear_cache()


def test_servers_that_are_none(connect: Connect, local: LocalBackend) -> None:
    with pytest.raises(ServerError, match=r"no SGLang server answers at http://127.0.0.1:1: the conn"):
        RuntimeEndpoint("http://127.0.0.1:1")
    with StubServer(lambda asked: error_reply(404)) as server, pytest.raises(ServerError, match="is no SGLang server"):
        RuntimeEndpoint(server.url)
    with StubServer(lambda asked: error_reply(401, "no key")) as server, pytest.raises(ServerError, match="no key"):
        RuntimeEndpoint(server.url)
    app = SGLangApp(local, str(WEIGHTS))
    app.model_info["is_generation"] = False
    with StubServer(app) as server, pytest.raises(UsageError, match="which generates no text"):
        RuntimeEndpoint(server.url)


def test_older_servers_know_the_older_names(local: LocalBackend) -> None:
    app = SGLangApp(local, str(WEIGHTS))
    with StubServer(
        lambda asked: error_reply(404) if asked.path in ("/model_info", "/server_info") else app(asked)
    ) as s:
        backend = RuntimeEndpoint(s.url)
        assert backend.model_info.model_path == str(WEIGHTS)
        backend.close()


def test_open_backend_knows_it_by_address(connect: Connect, local: LocalBackend) -> None:
    server, _ = connect()
    backend = open_backend(server.url)
    assert open_backend(server.url) is backend
    assert ask.run(backend=backend).value == ask.run(backend=local).value
    backend.close()


# Faults.


def at_first(reply: Reply, times: int = 2) -> Any:
    left = [reply] * times
    return lambda number, asked: left.pop() if asked.path == "/generate" and left else None


@EAGER
@pytest.mark.parametrize(
    "reply",
    [
        error_reply(429, retry_after="0"),
        error_reply(500),
        RESET,
        Reply(b'{"text": "a', end="close"),
        json_reply({"meta_info": {"finish_reason": {"type": "abort", "message": "busy", "status_code": 503}}}),
    ],
    ids=["429", "500", "reset", "broken JSON", "aborted"],
)
def test_passing_faults_are_tried_again(local: LocalBackend, connect: Connect, reply: Reply, eager: bool) -> None:
    server, backend = connect()
    server.fault = at_first(reply)
    run = ask.run(backend=backend, eager=eager)
    assert run.value == ask.run(backend=local).value
    assert len(sent(server)) == 3 and len(run.trace) == 1


@EAGER
@pytest.mark.parametrize(
    ("reply", "message", "status"),
    [
        (json_reply({"error": {"message": "The input is too long."}}, 400), "400: The input is too long.$", 400),
        (Reply(b"Unauthorized", 401, content_type="text/plain"), "401: Unauthorized$", 401),
        (json_reply({"detail": "Not Found"}, 404), "404: Not Found$", 404),
        (json_reply({"error": {"message": "bad", "code": 400}}), "the server failed: bad$", 400),
        (json_reply({"text": 5}), r"not what was expected: Expected `str \| null`, got `int`", None),
        (
            json_reply({"meta_info": {"finish_reason": {"type": "abort", "message": "no", "status_code": 400}}}),
            "gave the request up: no$",
            400,
        ),
    ],
)
def test_other_faults_are_raised_with_the_servers_words_and_the_line(
    connect: Connect, reply: Reply, message: str, status: int | None, eager: bool
) -> None:
    server, backend = connect()
    server.fault = at_first(reply)
    with pytest.raises(ServerError) as caught:
        ask.run(backend=backend, eager=eager)
    assert len(sent(server)) == 1
    assert caught.value.status == status
    assert caught.value.span is not None and 'rf.gen("x", **params)' in caught.value.span.source_line()
    with pytest.raises(ServerError, match=message):
        raise ServerError(caught.value.message)


def piece(text: str, ids: list[int]) -> bytes:
    return json_reply({"text": text, "output_ids": ids, "meta_info": {"completion_tokens": len(ids)}}).body


@EAGER
@pytest.mark.parametrize("end", ["reset", "close", "keep"])
@pytest.mark.parametrize("num_pieces", [0, 2])
def test_streams_that_break_off(local: LocalBackend, connect: Connect, end: Any, num_pieces: int, eager: bool) -> None:
    server, backend = connect(here=False, chat_template=local.chat)
    pieces = [piece("one", [1]), piece("one two", [1, 2])][:num_pieces]
    server.fault = at_first(Reply(events=pieces, end=end), times=1)
    events: list[StreamEvent] = []
    if num_pieces == 0:
        run = ask.run(backend=backend, stream=events.append, eager=eager)
        assert run.value == ask.run(backend=local).value and len(sent(server)) == 2
        return
    with pytest.raises(ServerError, match=r"broke off before its end|connection failed") as caught:
        ask.run(backend=backend, stream=events.append, eager=eager)
    assert caught.value.help is not None and "streamed already" in caught.value.help
    assert len(sent(server)) == 1


@EAGER
@pytest.mark.parametrize("stream", [True, False])
def test_a_cancelled_run_hangs_up(connect: Connect, stream: bool, eager: bool) -> None:
    server, backend = connect()
    stalled = Reply(events=[piece("one", [1])], end="stall") if stream else STALL
    server.fault = at_first(stalled)
    with pytest.raises(Cancelled, match="longer than its timeout"):
        ask.run(backend=backend, timeout=0.3, eager=eager, stream=(lambda event: None) if stream else None)
    assert server.somebody_hung_up.wait(10)


def test_silence_is_given_up(connect: Connect) -> None:
    server, backend = connect(timeout=0.2, retry=Retry(retries=1, first=0.0))
    server.fault = at_first(STALL)
    with pytest.raises(ServerError, match=r"did not answer in time \(ReadTimeout\) \(tried 2 times\)"):
        ask.run(backend=backend)


def test_a_closed_backend_refuses(connect: Connect) -> None:
    _, backend = connect()
    backend.close()
    with pytest.raises(BackendError, match="is closed"):
        ask.run(backend=backend)


@EAGER
def test_500_rows_at_once_through_faults(connect: Connect, eager: bool) -> None:
    server, backend = connect(max_connections=16)
    seen: dict[str, int] = {}

    def app(asked: Asked) -> Reply:
        number = str(asked.body["input_ids"])
        seen[number] = seen.get(number, 0) + 1
        kinds = [error_reply(429, retry_after="0"), error_reply(500), RESET, Reply(b"{", end="close")]
        kind = hash(number) % 7
        if kind < len(kinds) and seen[number] == 1:
            return kinds[kind]
        finish = {"type": "stop", "matched": None}
        ids = asked.body["input_ids"][-12:-8]
        meta = {"finish_reason": finish, "completion_tokens": len(ids), "prompt_tokens": 1}
        return json_reply({"text": "", "output_ids": ids, "meta_info": meta})

    server.app = app
    rows = [{"question": f"question {number}"} for number in range(500)]
    runs = ask.run_batch(rows, backend=backend, eager=eager)
    assert [run.error for run in runs if run.error] == []
    assert all(f"question {number}" in run.text and run.value for number, run in enumerate(runs))
    assert len(seen) == 500 and server.max_active <= 16
