"""What recording an HTTP call costs beyond the call itself."""

from __future__ import annotations

import asyncio
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

import perdure
from perdure import IoCall, IoProvider

CALLS = 200

# A process of its own: a server in ours would compete for the interpreter.
_SERVER = """
import asyncio

ANSWER = (
    b"HTTP/1.1 200 OK\\r\\ncontent-type: application/json\\r\\n"
    b"content-length: 13\\r\\n\\r\\n{\\"cents\\":450}"
)


async def serve(reader, writer):
    try:
        while await reader.readuntil(b"\\r\\n\\r\\n"):
            writer.write(ANSWER)
    except asyncio.IncompleteReadError:
        writer.close()


async def main():
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


asyncio.run(main())
"""


@contextmanager
def server() -> Iterator[str]:
    """The address of a server that always answers the same."""
    with subprocess.Popen([sys.executable, "-c", _SERVER], stdout=subprocess.PIPE, text=True) as child:
        try:
            assert child.stdout is not None
            yield f"http://127.0.0.1:{int(child.stdout.readline())}/price"
        finally:
            child.kill()


async def bare(url: str) -> float:
    """Seconds for the calls by httpx alone."""
    async with httpx.AsyncClient(trust_env=False) as client:
        await client.get(url)
        begun = time.perf_counter()
        for number in range(CALLS):
            (await client.get(url, params={"item": str(number)})).json()
        return time.perf_counter() - begun


async def recorded(url: str, path: Path) -> float:
    """Seconds for the calls in a run, each a fact of its own."""
    took = 0.0
    prices = perdure.op("prices", output=int)

    async def ask(io: IoProvider, number: int) -> int:
        request = {"kind": "http_request_v1", "method": "GET", "url": url, "query": {"item": str(number)}}
        answer = await io.call(IoCall("http", request, fact_key=f"price {number}"))
        return int(answer.response["json"]["cents"])

    @prices.state
    async def total(io: IoProvider) -> int:
        nonlocal took
        await ask(io, -1)
        begun = time.perf_counter()
        cents = sum([await ask(io, number) for number in range(CALLS)])
        took = time.perf_counter() - begun
        return cents

    async with perdure.open(path, app=prices) as client:
        assert await (await client.start(prices)).result() == CALLS * 450
    return took


def beyond(folder: Path, rounds: int, bare_commit: Callable[[Path], float]) -> float:
    """How many bare commits a recorded call takes beyond what httpx takes."""
    ratios = []
    with server() as url:
        for number in range(rounds):
            alone = asyncio.run(bare(url)) / CALLS
            mine = asyncio.run(recorded(url, folder / f"runs{number}.db")) / CALLS
            ratios.append((mine - alone) / bare_commit(folder / f"bare{number}.db"))
    return statistics.median(ratios)
