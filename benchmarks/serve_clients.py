"""Clients of a server, in a process of their own, so that what they cost is not taken for the server's.

`python serve_clients.py` takes a JSON object on each line of stdin, an Order, runs it, and answers with a line: the
number of answers, and the seconds that they took. It imports nothing but Python's own, and so begins at once.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from typing import Any, TypedDict

_END = b"data: [DONE]\n\n\r\n0\r\n\r\n"


class Order(TypedDict):
    """What to ask of whom: the bodies of each client's requests, one after another."""

    host: str
    port: int
    path: str
    clients: list[list[dict[str, Any]]]


async def run(order: Order) -> int:
    """Ask everything; gives the number of answers. Raises RuntimeError for one that is none."""
    return sum(await asyncio.gather(*(_client(order, bodies) for bodies in order["clients"])))


async def _client(order: Order, bodies: list[dict[str, Any]]) -> int:
    reader, writer = await asyncio.open_connection(order["host"], order["port"])
    for body in bodies:
        data = json.dumps(body).encode()
        head = f"POST {order['path']} HTTP/1.1\r\nHost: here\r\nContent-Length: {len(data)}\r\n\r\n"
        writer.write(head.encode() + data)
        await _answer(reader)
    writer.close()
    await writer.wait_closed()
    return len(bodies)


async def _answer(reader: asyncio.StreamReader) -> None:
    head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
    if " 200 " not in head.partition("\r\n")[0]:
        raise RuntimeError(f"the server answered {head}")
    length = next((line.partition(":")[2] for line in head.split("\r\n") if line.startswith("content-length:")), None)
    if length is not None:
        await reader.readexactly(int(length))
        return
    last = b""
    while not last.endswith(_END):
        part = await reader.read(1 << 16)
        if not part:
            raise RuntimeError("a stream broke off")
        last = last[-len(_END) :] + part


def main() -> None:
    """Carry out orders until there are no more."""
    for line in sys.stdin:
        begun = time.perf_counter()
        num_answers = asyncio.run(run(json.loads(line)))
        print(json.dumps({"answers": num_answers, "seconds": time.perf_counter() - begun}), flush=True)


if __name__ == "__main__":
    main()
