"""Tools of a real MCP server, over its standard input and output and over HTTP."""

from __future__ import annotations

import os
import pickle
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import ramify as rf
from ramify.backends.scripted import ScriptedBackend
from ramify.ir.errors import BackendError, UsageError

SERVER = '''
import os, sys, time
from typing import TypedDict
from mcp.server.mcpserver import MCPServer

server = MCPServer("shop")

class Stock(TypedDict):
    here: int
    elsewhere: int

@server.tool()
def price(item: str, count: int = 1) -> float:
    """The price of goods, in euros."""
    return {"lamp": 20.0, "chair": 45.5}[item] * count

@server.tool()
def stock(item: str) -> Stock:
    """How many are in store."""
    return {"here": len(item), "elsewhere": 12}

@server.tool(structured_output=False)
def hello(name: str) -> str:
    """A greeting."""
    return f"hello {name}, {os.environ.get('TONE', 'kindly')}"

@server.tool()
def slow(seconds: float) -> str:
    """Takes its time."""
    time.sleep(seconds)
    return "at last"

@server.tool()
def quit_now() -> str:
    """Ends the server in the middle of a call."""
    os._exit(3)

if __name__ == "__main__":
    if len(sys.argv) > 1:
        server.run("streamable-http", port=int(sys.argv[1]))
    else:
        server.run("stdio")
'''


@pytest.fixture
def script(tmp_path: Path) -> str:
    pytest.importorskip("mcp.server.mcpserver", reason="needs ramify[mcp]")
    path = tmp_path / "shop.py"
    path.write_text(SERVER)
    return str(path)


@pytest.fixture
def url(script: str) -> Iterator[str]:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    process = subprocess.Popen(
        [sys.executable, script, str(port)], stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL
    )
    try:
        for _ in range(300):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.1)
        yield f"http://127.0.0.1:{port}/mcp"
    finally:
        process.terminate()
        process.wait(timeout=30)


def connect(script: str, env: dict[str, str] | None = None, **options: Any) -> Any:
    """To the script over its standard input and output; it finds the packages that this process finds."""
    env = {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))} | (env or {})
    return rf.connect_mcp(sys.executable, script, env=env, **options)


def check_tools(tools: list[Any]) -> None:
    named = {tool.name: tool for tool in tools}
    assert list(named) == ["price", "stock", "hello", "slow", "quit_now"]
    price = named["price"]
    assert price.description == "The price of goods, in euros."
    assert price.schema["function"]["parameters"]["required"] == ["item"]
    assert price.parameters["properties"]["count"]["type"] == "integer"
    assert price("lamp") == 20.0 and price("chair", count=2) == price(item="chair", count=2) == 91.0
    assert named["stock"]("lamp") == {"here": 4, "elsewhere": 12}
    assert named["hello"]("Ann").startswith("hello Ann")


def test_over_stdio(script: str) -> None:
    with connect(script, env={"TONE": "firmly"}) as tools:
        check_tools(tools)
        assert tools[2]("Ann") == "hello Ann, firmly"
    with pytest.raises(rf.ToolError, match="Closed"):
        tools[0]("lamp")


def test_over_http(url: str) -> None:
    with rf.connect_mcp(url) as tools:
        check_tools(tools)


@rf.program
def shopping(s, question, tools):  # type: ignore[no-untyped-def]
    s += rf.user(question) + rf.assistant(rf.gen("calls"))
    results = rf.call_tools(s["calls"], tools)
    for result in results:
        s += rf.tool_message(result)
    return [(result.name, result.value, result.error and result.error.type) for result in results]


def test_errors_are_values_and_calls_run_in_programs(script: str) -> None:
    calls = [
        ("price", '{"item": "lamp"}'),
        ("price", '{"item": "sofa"}'),
        ("price", "{}"),
        ("stock", '{"item": "x"}'),
        ("no", "{}"),
    ]
    asked = ", ".join(f'{{"name": "{name}", "arguments": {given}}}' for name, given in calls)
    backend = ScriptedBackend(lambda text, params: f"[{asked}]")
    with connect(script) as tools:
        for eager in (True, False):
            run = shopping.run("What is there?", tools, backend=backend, eager=eager)
            assert run.value == [
                ("price", 20.0, None),
                ("price", None, "ServerError"),
                ("price", None, "ServerError"),
                ("stock", {"here": 1, "elsewhere": 12}, None),
                ("no", None, "UnknownTool"),
            ]
            assert "sofa" in run.text
            assert [record.name for record in run.trace] == ["calls", "price", "price", "price", "stock", "no"]


def test_timeouts_and_errors_as_values(script: str) -> None:
    with connect(script, timeout=0.5, errors="value") as tools:
        slow = tools[3](30.0)
        assert isinstance(slow, rf.ToolError) and slow.type == "Timeout"
        assert isinstance(tools[0](1, 2, 3), rf.ToolError), "too many arguments"
        assert isinstance(tools[0]("lamp", item="lamp"), rf.ToolError)


def test_a_server_that_dies_fails_its_calls(script: str) -> None:
    with connect(script, timeout=60.0) as tools:
        assert tools[0]("lamp") == 20.0
        with pytest.raises(Exception, match=r".") as caught:
            tools[4]()
        assert not (isinstance(caught.value, rf.ToolError) and caught.value.type == "Timeout")


def test_what_cannot_be_connected_is_told(script: str, tmp_path: Path) -> None:
    silent = tmp_path / "silent.py"
    silent.write_text("import time\ntime.sleep(60)\n")
    for command, message in [
        (("no-such-command-anywhere",), "cannot be used"),
        ((sys.executable, "-c", "raise SystemExit(1)"), "cannot be used"),
    ]:
        with pytest.raises(BackendError, match=message), rf.connect_mcp(*command):
            pass
    with (
        pytest.raises(BackendError, match="has not answered"),
        rf.connect_mcp(sys.executable, str(silent), connect_timeout=0.5),
    ):
        pass
    with pytest.raises(UsageError, match="takes no arguments"), rf.connect_mcp("http://localhost:1/mcp", "x"):
        pass


def test_a_servers_tool_has_no_python_type_and_no_pickle(script: str) -> None:
    with connect(script) as (price, *_):
        with pytest.raises(UsageError, match="no Python type"):
            _ = price.arguments_type
        with pytest.raises(pickle.PicklingError, match="no name of a module leads to it"):
            pickle.dumps(price)
        made = {"item": "lamp"}
        assert price(**made) == 20.0


def test_without_the_package_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mcp.client.stdio", None)
    with pytest.raises(UsageError, match="client package") as caught, rf.connect_mcp("python"):
        pass
    assert caught.value.help is not None and "ramify[mcp]" in caught.value.help
