"""States that wait for the outside world: side by side against one at a time."""

from __future__ import annotations

import asyncio
import statistics
import time
from pathlib import Path

from bench.machines import Fixed, open_store
from perdure import (
    Context,
    DependencyEdge,
    Engine,
    ExecutionPlan,
    FanOutJoin,
    IoProvider,
    JsonContext,
    OpId,
    Recorder,
    RunConfig,
    RunManifest,
    Sequential,
    StartRun,
    StateGraph,
    StateId,
    StateMeta,
    StateNode,
)
from perdure.model.config import ExecutionMode

WIDTH = 16
WAIT_SECONDS = 0.05


class _Waits:
    """Waits as for an answer, and writes one key."""

    def __init__(self, key: str, seconds: float) -> None:
        self._key = key
        self._seconds = seconds

    def meta(self) -> StateMeta:
        return StateMeta()

    async def handle(self, ctx: Context, io: IoProvider, rec: Recorder) -> None:
        await asyncio.sleep(self._seconds)
        ctx.write(self._key, self._key)


def _plan() -> ExecutionPlan:
    """One state, as many beside each other as it is wide, and one that joins them."""
    ids = [StateId(f"m.main.wide{number}") for number in range(WIDTH)]
    first, last = StateId("m.main.first"), StateId("m.main.last")
    nodes = [
        StateNode(first, _Waits("first", 0)),
        *(StateNode(each, _Waits(each, WAIT_SECONDS)) for each in ids),
        StateNode(last, _Waits("last", 0)),
    ]
    edges = [edge for each in ids for edge in (DependencyEdge(first, each), DependencyEdge(each, last))]
    return ExecutionPlan(OpId("bench"), StateGraph(nodes, edges))


async def _seconds(path: Path, mode: ExecutionMode) -> float:
    plan, config = _plan(), RunConfig(execution_mode=mode)
    manifest = RunManifest(plan.op_id, "1", {}, config)
    _, stores = open_store(path)
    async with stores:
        manifest_id = await stores.put_manifest(manifest)
        run = StartRun(manifest, manifest_id, plan, config, JsonContext({"pad": "x" * 200}))
        begun = time.perf_counter()
        result = await Engine(Fixed(plan)).start(stores, run)
        took = time.perf_counter() - begun
    assert result.phase.value == "Completed"
    return took


def times_faster(folder: Path, rounds: int) -> float:
    """How many times faster side by side is, the median of rounds in turns."""
    ratios = []
    for number in range(rounds):
        alone = asyncio.run(_seconds(folder / f"alone{number}.db", Sequential()))
        ratios.append(alone / asyncio.run(_seconds(folder / f"wide{number}.db", FanOutJoin(WIDTH))))
    return statistics.median(ratios)
