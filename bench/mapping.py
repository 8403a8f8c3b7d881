"""Maps: what an item costs, against a state."""

from __future__ import annotations

import asyncio
import statistics
import subprocess
import sys
import time
from pathlib import Path

import perdure
from bench.machines import Fixed, open_store, run_chain
from perdure import (
    Context,
    Engine,
    ExecutionPlan,
    IoProvider,
    JsonContext,
    OpId,
    Recorder,
    RunConfig,
    RunManifest,
    StartRun,
    StateGraph,
    StateId,
    StateMeta,
    StateNode,
    Stores,
)

ITEMS = 10_000
STATES = 1_000


async def double(number: int) -> int:
    """A trivial item."""
    return number * 2


async def text(number: int) -> str:
    """Ten kilobytes, which are others for each item."""
    return f"{number:010}" * 1000


class AsList:
    """Maps, and has all results at once."""

    def meta(self) -> StateMeta:
        return StateMeta()

    async def handle(self, ctx: Context, io: IoProvider, rec: Recorder) -> None:
        assert len(await perdure.map_over(range(ITEMS), double, io=io)) == ITEMS


class OneByOne(AsList):
    """Maps, and has one result after another."""

    async def handle(self, ctx: Context, io: IoProvider, rec: Recorder) -> None:
        async for _ in perdure.map_over(range(ITEMS), text, io=io):
            pass


async def run_map(stores: Stores, state: AsList) -> None:
    """A run of one state."""
    plan = ExecutionPlan(OpId("map"), StateGraph([StateNode(StateId("map.main.all"), state)], []))
    manifest = RunManifest(plan.op_id, "1", {}, RunConfig())
    manifest_id = await stores.put_manifest(manifest)
    start = StartRun(manifest, manifest_id, plan, RunConfig(), JsonContext({}))
    await Engine(Fixed(plan)).start(stores, start)


def against_states(folder: Path, rounds: int) -> float:
    """The time of a trivial item against that of a state that does next to nothing, taken in turns."""

    async def ratio(path: Path) -> float:
        _, stores = open_store(path)
        async with stores:
            begun = time.perf_counter()
            await run_map(stores, AsList())
            item = (time.perf_counter() - begun) / ITEMS
            begun = time.perf_counter()
            await run_chain(stores, STATES)
            return item / ((time.perf_counter() - begun) / STATES)

    return statistics.median(asyncio.run(ratio(folder / f"map{number}.db")) for number in range(rounds))


_PROGRAM = """
import asyncio, sys
from pathlib import Path
import psutil
from bench.machines import open_store, run_chain
from bench.mapping import OneByOne, run_map

async def main():
    _, stores = open_store(Path(sys.argv[1]))
    async with stores:
        await run_chain(stores, 100)
        before = psutil.Process().memory_info().rss
        await run_map(stores, OneByOne())
    with open("/proc/self/status") as status:
        peak = next(int(line.split()[1]) for line in status if line.startswith("VmHWM"))
    print(peak / 1024 - before / 1024 / 1024)

asyncio.run(main())
"""


def megabytes_one_by_one(folder: Path) -> float:
    """How much a process grows that goes through 10,000 results of 10 KB, which are 100 MB."""
    command = [sys.executable, "-c", _PROGRAM, str(folder / "one.db")]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
