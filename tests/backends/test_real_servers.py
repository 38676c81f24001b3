"""The OpenAI backend against real servers of others on loopback, with a random checkpoint that this process has too.

Each runs where a variable names an interpreter that has it: RAMIFY_VLLM_PYTHON (vllm), RAMIFY_LLAMACPP_PYTHON
(llama-cpp-python[server] and gguf), RAMIFY_XLLAMACPP_PYTHON (xllamacpp and gguf: llama.cpp's own server).
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import ramify as rf
from ramify.backends import open_backend
from ramify.backends.openai import OpenAI
from ramify.backends.remote import Retry
from ramify.benchmarks.checkpoint import random_checkpoint
from ramify.ir.errors import ServerError
from ramify.runtime.generation import StreamEvent

GGUF_FILE = Path(__file__).parents[2] / "benchmarks" / "gguf_file.py"
STARTS_WITHIN = 180.0  # seconds
VARIABLES = {
    "vllm": "RAMIFY_VLLM_PYTHON",
    "llama-cpp-python": "RAMIFY_LLAMACPP_PYTHON",
    "llama.cpp": "RAMIFY_XLLAMACPP_PYTHON",
}
# llama.cpp's own server, as xllamacpp starts it.
LLAMA_SERVER = """
import sys, time, xllamacpp
params = xllamacpp.CommonParams()
params.model.path, params.port, params.api_keys = sys.argv[1], int(sys.argv[2]), ["secret"]
params.hostnames, params.n_ctx, params.n_parallel, params.endpoint_metrics = ["127.0.0.1"], 4096, 4, True
server = xllamacpp.Server(params)
while True:
    time.sleep(1)
"""


@dataclass
class Server:
    """A server of a kind, and the engine of this process with the same checkpoint."""

    kind: str
    url: str
    local: Any
    opened: list[OpenAI]

    def backend(self, **options: Any) -> OpenAI:
        given = {"flavour": self.kind, "base_url": f"{self.url}/v1", "api_key": "secret", "timeout": 60.0}
        self.opened.append(OpenAI("small", **{**given, "retry": Retry(retries=0), **options}))
        return self.opened[-1]

    def num_running(self) -> float:
        """The number of requests that it works on, by its own metrics."""
        asked = urllib.request.Request(f"{self.url}/metrics", headers={"Authorization": "Bearer secret"})
        with urllib.request.urlopen(asked, timeout=10) as answer:
            text = answer.read().decode()
        lines = [
            line for line in text.splitlines() if line.startswith(("vllm:num_requests_running", "llamacpp:requests_p"))
        ]
        return float(lines[-1].split()[-1])


@pytest.fixture(scope="module", params=list(VARIABLES))
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    python = os.environ.get(VARIABLES[request.param])
    if python is None:
        pytest.skip(f"{VARIABLES[request.param]} names no interpreter")
    folder = tmp_path_factory.mktemp("served")
    checkpoint = random_checkpoint("small", folder)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with started(command(request.param, python, checkpoint, port), f"http://127.0.0.1:{port}", folder / "log"):
        server = Server(request.param, f"http://127.0.0.1:{port}", open_backend(str(checkpoint)), [])
        yield server
        for backend in server.opened:
            backend.close()


def command(kind: str, python: str, checkpoint: Path, port: int) -> list[str]:
    """What starts a server."""
    if kind == "vllm":
        options = "--served-model-name small --dtype float32 --enforce-eager --max-model-len 1024 --api-key secret"
        options += f" --port {port} --host 127.0.0.1 --enable-auto-tool-choice --tool-call-parser hermes"
        return [python, "-m", "vllm.entrypoints.openai.api_server", "--model", str(checkpoint), *options.split()]
    made = subprocess.run([python, str(GGUF_FILE), str(checkpoint)], check=True, capture_output=True, text=True)
    model = made.stdout.split()[-1]
    if kind == "llama.cpp":
        return [python, "-c", LLAMA_SERVER, model, str(port)]
    options = f"--model {model} --model_alias small --port {port} --host 127.0.0.1 --n_ctx 1024 --api_key secret"
    return [python, "-m", "llama_cpp.server", *options.split()]


@contextmanager
def started(command: list[str], url: str, log: Path) -> Iterator[None]:
    """A server that answers, until the end of the block."""
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    environment |= {"VLLM_CPU_OMP_THREADS_BIND": "nobind", "VLLM_CPU_KVCACHE_SPACE": "1", "HF_HUB_OFFLINE": "1"}
    with log.open("wb") as output:
        process = subprocess.Popen(command, env=environment, cwd=log.parent, stdout=output, stderr=output)
    try:
        ends = time.monotonic() + STARTS_WITHIN
        while not answers(url):
            if process.poll() is not None or time.monotonic() > ends:
                pytest.fail(f"the server did not start: {log.read_text()[-2000:]}")
            time.sleep(0.2)
        yield
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def answers(url: str) -> bool:
    asked = urllib.request.Request(f"{url}/v1/models", headers={"Authorization": "Bearer secret"})
    try:
        with urllib.request.urlopen(asked, timeout=5):
            return True
    except OSError:
        return False


def plain(text: str) -> str:
    """A text without what stands for bytes that are no characters, which each server shows in its own way."""
    return text.replace("\N{REPLACEMENT CHARACTER}", "")


@rf.program
def complete(s: rf.State, start: str = "Once upon a time", **params: Any) -> Any:
    s += start + rf.gen("x", **params)
    return s["x"]


@rf.program
def ask(s: rf.State, question: str = "What is up?", **params: Any) -> Any:
    s += rf.system("Be brief.") + rf.user(question)
    s += rf.assistant(rf.gen("x", **params))
    return s["x"]


@rf.program
def begun(s: rf.State, **params: Any) -> Any:
    s += rf.user("What is up?") + rf.assistant("It is " + rf.gen("x", **params))
    return s["x"]


KINDS = pytest.mark.parametrize(("program", "chat"), [(complete, False), (ask, True)])


@KINDS
def test_greedy_texts_are_those_of_this_process(server: Server, program: Any, chat: bool) -> None:
    backend = server.backend(is_chat_model=chat)
    for given in ({"max_tokens": 16}, {"max_tokens": 24, "stop": "on"}, {"max_tokens": 12, "repetition_penalty": 1.5}):
        expected = program.run(backend=server.local, **given)["x"]
        events: list[StreamEvent] = []
        run = program.run(backend=backend, **given)
        streamed = program.run(backend=backend, stream=events.append, **given)
        assert plain(run["x"]) == plain(streamed["x"]) == plain(expected)
        assert len(events) > 2
        assert chat or run.usage.prompt_tokens == 8


@KINDS
@pytest.mark.parametrize("num_top", [0, 2])
def test_log_probabilities_are_those_of_this_process(server: Server, program: Any, chat: bool, num_top: int) -> None:
    backend = server.backend(is_chat_model=chat)
    runs = [program.run(backend=each, max_tokens=3, logprobs=num_top) for each in (backend, server.local)]
    told, expected = (run.get_meta_info("x")["logprobs"] for run in runs)
    for mine, other in zip(told[:3], expected, strict=True):
        assert mine.logprob == pytest.approx(other.logprob, abs=0.02)
        assert [value for _, value in mine.top] == pytest.approx([value for _, value in other.top], abs=0.02)


@KINDS
def test_seeds_are_obeyed(server: Server, program: Any, chat: bool) -> None:
    backend = server.backend(is_chat_model=chat)
    texts = [program.run(backend=backend, max_tokens=12, temperature=1.0, seed=seed)["x"] for seed in (7, 7, 8)]
    assert texts[0] == texts[1] != texts[2]


@KINDS
def test_constraints_are_held(server: Server, program: Any, chat: bool) -> None:
    backend = server.backend(is_chat_model=chat)
    if "json_schema" in backend.features:
        schema = {"type": "array", "items": {"type": "integer"}, "minItems": 2, "maxItems": 2}
        assert len(json.loads(program.run(backend=backend, max_tokens=200, json_schema=schema)["x"])) == 2
    if "regex" in backend.features:
        assert program.run(backend=backend, max_tokens=40, regex=r"[A-C]{3}-\d{2}(é|ü)")["x"][3] == "-"
        assert program.run(backend=backend, max_tokens=9, dtype=int).value is not None
    if "grammar" in backend.features:
        grammar = 'start: "a" word\nword: /[x-z]{1,9}/ "!"'
        assert program.run(backend=backend, max_tokens=40, grammar=grammar)["x"].endswith("!")


@rf.program
def pick(s: rf.State, texts: list[str]) -> Any:
    s += rf.user("The colour?") + rf.assistant(rf.select("x", texts))
    return s["x"]


def test_choices_under_a_constraint(server: Server) -> None:
    texts = ["red", "gr\\een", 'blue "q"\né']
    assert pick.run(texts, backend=server.backend(constrained_select=True)).value in texts


def test_messages_are_continued(server: Server) -> None:
    if server.kind == "llama-cpp-python":
        pytest.skip("cannot continue messages")
    backend = server.backend(continue_final_message=True)
    expected = begun.run(backend=server.local, max_tokens=12)["x"]
    assert plain(begun.run(backend=backend, max_tokens=12)["x"]) == plain(expected)
    streamed = begun.run(backend=backend, max_tokens=12, stream=lambda event: None)
    assert plain(streamed["x"]) == plain(expected)


@rf.program
def colour(s: rf.State) -> Any:
    s += "The colour is " + rf.select("x", ["red", "green", "blue é"])


def test_vllm_scores_as_this_process(server: Server) -> None:
    if server.kind != "vllm":
        pytest.skip("tells no log-probabilities of prompts")
    runs = [colour.run(backend=each) for each in (server.backend(is_chat_model=False), server.local)]
    told, expected = (run.get_meta_info("x")["scores"] for run in runs)
    assert told == pytest.approx(expected, abs=1e-3)


@rf.tool
def weather(city: str, days: int = 1) -> str:
    """The weather.

    Args:
        city: where
        days: how long
    """
    return f"{city} {days}"


@rf.program
def look(s: rf.State) -> Any:
    s += rf.user("Weather in Rome?") + rf.assistant(rf.gen("call", tools=[weather], max_tokens=200))
    return s["call"]


def test_vllm_holds_calls_to_their_schemas(server: Server) -> None:
    if server.kind != "vllm":
        pytest.skip("the checkpoint's template has no tools, so llama.cpp's servers ask for none")
    assert look.run(backend=server.backend(native_tools=True)).value.name == "weather"


def test_refusals_have_the_servers_words(server: Server) -> None:
    with pytest.raises(ServerError, match=r"400: .*1024") as caught:
        complete.run("word " * 3000, backend=server.backend(is_chat_model=False), max_tokens=4)
    assert caught.value.span is not None
    with pytest.raises(ServerError, match="401"):
        ask.run(backend=server.backend(api_key="wrong"), max_tokens=4)


def test_a_cancelled_request_ends_on_the_server(server: Server) -> None:
    if server.kind == "llama-cpp-python":
        pytest.skip("has no metrics")
    backend = server.backend(is_chat_model=False)

    async def cancel() -> None:
        task = asyncio.ensure_future(complete.arun(backend=backend, max_tokens=900, ignore_eos=True))
        await until(lambda: server.num_running() == 1 or task.done())
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await until(lambda: server.num_running() == 0)

    asyncio.run(cancel())


async def until(condition: Any) -> None:
    async with asyncio.timeout(20):
        while not await asyncio.to_thread(condition):
            await asyncio.sleep(0.02)


def test_batches_give_the_texts_of_this_process(server: Server) -> None:
    rows = [{"start": f"Row {number}: "} for number in range(200)]
    backends = (server.backend(is_chat_model=False), server.local)
    program = complete.options(max_tokens=8)
    told, expected = ([plain(run["x"]) for run in program.run_batch(rows, backend=each)] for each in backends)
    assert sum(one == other for one, other in zip(told, expected, strict=True)) >= 180
