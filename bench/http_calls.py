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

BLOCKS, CALLS = 10, 30

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


async def beyond(url: str, folder: Path, bare_commits: Callable[[Path, int], float]) -> float:
    """How many bare commits a recorded call takes beyond what httpx takes.

    The three are measured in turns, a few at a time, so that a busy machine slows all of them.
    """
    bare = recorded = commits = 0.0
    prices = perdure.op("prices", output=int)

    async def ask(io: IoProvider, number: int) -> int:
        request = {"kind": "http_request_v1", "method": "GET", "url": url, "query": {"item": str(number)}}
        answer = await io.call(IoCall("http", request, fact_key=f"price {number}"))
        return int(answer.response["json"]["cents"])

    async def ask_httpx(client: httpx.AsyncClient, number: int) -> int:
        return int((await client.get(url, params={"item": str(number)})).json()["cents"])

    @prices.state
    async def total(io: IoProvider) -> int:
        nonlocal bare, recorded, commits
        async with httpx.AsyncClient(trust_env=False) as client:
            await ask_httpx(client, -1)
            await ask(io, -1)
            for block in range(BLOCKS):
                numbers = range(block * CALLS, (block + 1) * CALLS)
                begun = time.perf_counter()
                for number in numbers:
                    await ask_httpx(client, number)
                middle = time.perf_counter()
                for number in numbers:
                    await ask(io, number)
                bare += middle - begun
                recorded += time.perf_counter() - middle
                commits += bare_commits(folder / f"bare{block}.db", CALLS)
        return 0

    async with perdure.open(folder / "runs.db", app=prices) as client:
        await (await client.start(prices)).result()
    return (recorded - bare) / commits


def median_beyond(folder: Path, rounds: int, bare_commits: Callable[[Path, int], float]) -> float:
    """The median of several runs."""
    ratios = []
    with server() as url:
        for number in range(rounds):
            (folder / str(number)).mkdir()
            ratios.append(asyncio.run(beyond(url, folder / str(number), bare_commits)))
    return statistics.median(ratios)
