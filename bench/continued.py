"""A run that goes on as a new one a thousand times: what its late legs cost, against early ones."""

from __future__ import annotations

import asyncio
import statistics
import time
import tracemalloc
from pathlib import Path
from typing import NamedTuple

from bench.machines import Fixed, open_store
from perdure import (
    Context,
    ContinueAsNew,
    Engine,
    ExecutionPlan,
    IoProvider,
    JsonContext,
    OpId,
    Recorder,
    RunConfig,
    RunId,
    RunManifest,
    StartRun,
    StateGraph,
    StateId,
    StateMeta,
    StateNode,
    StateOutcome,
    Stores,
)

LEGS = 1_000
COMPARED = 50
WARM = 20
"""Legs before the first that are compared: the interpreter and the file warm up."""


class Legs(NamedTuple):
    """What a chain of 1,000 legs took; ``slowdown`` is that of its last ones in times of another's first."""

    slowdown: float
    commits_of_one: float
    microseconds_to_find_newest: float


class Chain:
    """A run of so many legs, each of which counts. From ``paced_from`` on, they wait for turns."""

    def __init__(self, legs: int, paced_from: int) -> None:
        self.took: list[float] = []
        self.kept: list[int] = []
        self._legs = legs
        self._paced_from = paced_from
        self._is_there = asyncio.Event()
        self._turn = asyncio.Event()
        self._begun: float | None = None

    def meta(self) -> StateMeta:
        return StateMeta()

    async def handle(self, ctx: Context, io: IoProvider, rec: Recorder) -> StateOutcome | None:
        n = ctx.read("n") + 1
        if tracemalloc.is_tracing() and n in (self._legs // 2, self._legs):
            self.kept.append(tracemalloc.get_traced_memory()[0])
        if n >= self._paced_from:
            await self._take_turn()
        ctx.write("n", n)
        if n < self._legs:
            return StateOutcome(continuation=ContinueAsNew({"n": n, "pad": "x" * 200}))
        return None

    async def _take_turn(self) -> None:
        if self._begun is not None:
            self.took.append(time.perf_counter() - self._begun)
        self._is_there.set()
        await self._turn.wait()
        self._turn.clear()
        self._begun = time.perf_counter()

    async def arrival(self) -> None:
        """Wait until a leg waits for its turn."""
        await self._is_there.wait()

    def go_on(self) -> None:
        """Give the next turn."""
        self._is_there.clear()
        self._turn.set()

    async def drive(self, stores: Stores) -> RunId:
        """Drive all legs; the first one's id."""
        plan = ExecutionPlan(OpId("bench"), StateGraph([StateNode(StateId("bench.main.count"), self)]))
        config, first = RunConfig(), RunId.random()
        manifest = RunManifest(plan.op_id, "1", {}, config)
        manifest_id = await stores.put_manifest(manifest)
        context = JsonContext({"n": 0, "pad": "x" * 200})
        start = StartRun(manifest, manifest_id, plan, config, context, first)
        result = await Engine(Fixed(plan)).start(stores, start)
        assert result.phase.value == "Completed"
        return first


async def late_against_early(folder: Path) -> Legs:
    """The last legs of one chain and the first of another, in turns, each in a file of its own."""
    late, early = Chain(LEGS, LEGS - COMPARED), Chain(WARM + COMPARED, WARM)
    late_store, late_stores = open_store(folder / "late.db")
    _, early_stores = open_store(folder / "early.db")
    async with late_stores, early_stores:
        driven = [
            asyncio.create_task(late.drive(late_stores)),
            asyncio.create_task(early.drive(early_stores)),
        ]
        for chain in (late, early):
            await chain.arrival()
        for _ in range(COMPARED):
            for chain in (late, early):
                chain.go_on()
                await chain.arrival()
        for chain in (late, early):
            chain.go_on()
        first, _ = await asyncio.gather(*driven)
        begun = time.perf_counter()
        for _ in range(100):
            await late_stores.newest_leg(first)
        found = (time.perf_counter() - begun) / 100 * 1e6
    slowdown = statistics.median(late.took) / statistics.median(early.took)
    return Legs(slowdown, late_store.commits / LEGS, found)


async def kilobytes_kept(path: Path) -> float:
    """How much more memory is in use at the last leg than halfway."""
    chain = Chain(LEGS, LEGS + 1)
    _, stores = open_store(path)
    async with stores:
        tracemalloc.start()
        try:
            await chain.drive(stores)
        finally:
            tracemalloc.stop()
    return (chain.kept[1] - chain.kept[0]) / 1024
