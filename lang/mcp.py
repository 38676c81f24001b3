"""Tools of an MCP server: `with connect_mcp(...) as tools:`, over stdio or HTTP, through the official client.

The connection has a thread and an event loop of its own, where the client lives from its beginning to its end; calls
come from any thread. Needs `ramify[mcp]`.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from concurrent.futures import TimeoutError as WaitedTooLong
from contextlib import contextmanager, suppress
from typing import Any

from ..ir.errors import BackendError, UsageError
from ..runtime.toolcall import ToolError
from .schema_tool import SchemaTool
from .tools import Errors, check_options


class McpTool(SchemaTool):
    """A tool that a server runs. Arguments are checked by the server; its errors are ToolErrors."""

    def __init__(self, connection: _Connection, told: Any, *, timeout: float | None, errors: Errors) -> None:
        """told: the server's description of the tool."""
        caller = connection.caller(told)
        super().__init__(
            told.name, told.description or "", told.input_schema, caller, is_async=True, timeout=timeout, errors=errors
        )


@contextmanager
def connect_mcp(
    server: str,
    *arguments: str,
    env: Mapping[str, str] | None = None,
    timeout: float | None = None,
    errors: Errors = "raise",
    connect_timeout: float = 30.0,
) -> Iterator[list[McpTool]]:
    """The tools of an MCP server while the `with` lasts.

    server: the URL of one that speaks HTTP, or a command that is started with `arguments` and speaks over its standard
    input and output; env: environment variables that it gets besides the usual ones. timeout, errors: of each tool, as
    for `rf.tool`. connect_timeout: seconds until the server has said what tools it has. Raises BackendError for a
    server that cannot be reached, UsageError without `ramify[mcp]`.
    """
    check_options(None, None, timeout, errors)
    connection = _Connection(_target(server, arguments, env), server)
    try:
        yield [McpTool(connection, told, timeout=timeout, errors=errors) for told in connection.open(connect_timeout)]
    finally:
        connection.close()


def _target(server: str, arguments: tuple[str, ...], env: Mapping[str, str] | None) -> Any:
    """What the client is told of the server."""
    try:
        from mcp.client.stdio import StdioServerParameters, get_default_environment
    except ImportError:
        raise UsageError("MCP needs the client package", help="pip install 'ramify[mcp]'") from None
    if server.startswith(("http://", "https://")):
        if arguments or env:
            raise UsageError("a server at a URL takes no arguments and no environment")
        return server
    surroundings = {**get_default_environment(), **(env or {})}
    return StdioServerParameters(command=server, args=list(arguments), env=surroundings)


class _Connection:
    """A client on a thread of its own."""

    def __init__(self, target: Any, name: str) -> None:
        self._target = target
        self._name = name
        self._opened: Future[list[Any]] = Future()
        self._loop = asyncio.new_event_loop()
        self._client: Any = None
        self._closing = asyncio.Event()
        self._serving: asyncio.Task[None] | None = None
        self._thread = threading.Thread(target=self._run, name="ramify-mcp", daemon=True)

    def open(self, timeout: float) -> list[Any]:
        """The server's descriptions of its tools. Raises BackendError."""
        self._thread.start()
        try:
            return self._opened.result(timeout)
        except WaitedTooLong:
            raise BackendError(f"the MCP server {self._name} has not answered within {timeout:g} s") from None
        except Exception as error:
            reason = _innermost(error)
            told = f"the MCP server {self._name} cannot be used: {type(reason).__name__}: {reason}"
            raise BackendError(told) from error

    def close(self) -> None:
        """Ends the server, if it was started here, and waits for that."""
        with suppress(RuntimeError):  # the loop is closed: the connection has ended by itself
            self._loop.call_soon_threadsafe(self._stop)
        self._thread.join(timeout=10)

    def _stop(self) -> None:
        self._closing.set()
        if not self._opened.done() and self._serving is not None:
            self._serving.cancel()

    def caller(self, told: Any) -> Callable[..., Any]:
        """The async function of one of its tools, for any event loop."""

        async def call(**arguments: Any) -> Any:
            closed = ToolError(told.name, "Closed", f"the connection to the MCP server {self._name} is closed")
            if self._closing.is_set():
                raise closed
            asked = asyncio.run_coroutine_threadsafe(self._client.call_tool(told.name, arguments), self._loop)
            try:
                return _value(told, await asyncio.wrap_future(asked))
            except asyncio.CancelledError:
                if self._closing.is_set():
                    raise closed from None
                raise

        call.__name__ = call.__qualname__ = told.name
        return call

    def _run(self) -> None:
        try:
            self._serving = self._loop.create_task(self._serve())
            self._loop.run_until_complete(self._serving)
        except BaseException as error:
            if not self._opened.done():
                self._opened.set_exception(error)
        finally:
            self._closing.set()
            self._loop.run_until_complete(self._give_up_calls())
            self._loop.run_until_complete(self._loop.shutdown_asyncgens())
            self._loop.close()

    async def _give_up_calls(self) -> None:
        """Nobody waits for a server that is gone."""
        calls = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in calls:
            task.cancel()
        await asyncio.gather(*calls, return_exceptions=True)

    async def _serve(self) -> None:
        from mcp.client import Client

        async with Client(self._target) as self._client:
            self._opened.set_result(await self._tools())
            await self._closing.wait()

    async def _tools(self) -> list[Any]:
        """All tools, page by page."""
        tools: list[Any] = []
        page = await self._client.list_tools()
        tools += page.tools
        while page.next_cursor is not None:
            page = await self._client.list_tools(cursor=page.next_cursor)
            tools += page.tools
        return tools


def _innermost(error: BaseException) -> BaseException:
    """What an exception group of one is about."""
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error


def _value(told: Any, result: Any) -> Any:
    """What a tool has given: structured content, else text, else the content as builtin objects. Raises ToolError."""
    texts = [part.text for part in result.content if part.type == "text"]
    text = "\n".join(texts)
    if result.is_error:
        raise ToolError(told.name, "ServerError", text or "the server says no more")
    if result.structured_content is not None:
        return _unwrapped(told.output_schema or {}, result.structured_content)
    if len(texts) == len(result.content):
        return text
    return [part.model_dump(mode="json", by_alias=True, exclude_none=True) for part in result.content]


def _unwrapped(schema: Mapping[str, Any], content: Any) -> Any:
    """Servers put a value that is no object into one, as `result`."""
    is_wrapped = isinstance(content, dict) and set(content) == {"result"} and schema.get("required") == ["result"]
    return content["result"] if is_wrapped else content
