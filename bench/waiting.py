"""Runs that wait: what many of them cost, how punctually they are woken, and how soon one stops."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from datetime import timedelta
from pathlib import Path

from bench.machines import Fixed, open_store
from perdure import (
    Context,
    Engine,
    ExecutionPlan,
    IoCall,
    IoProvider,
    JsonContext,
    OpId,
    Recorder,
    RunConfig,
    RunId,
    RunManifest,
    RunStarted,
    SideEffectKind,
    StartRun,
    StateEntered,
    StateGraph,
    StateId,
    StateMeta,
    StateNode,
    Stores,
    TransportEnv,
    TransportRouter,
    op,
)
from perdure.engine.letters import StopLetter
from perdure.errors import Json
from perdure.io.waits import SLEEP, Wait, wait_key, wait_started
from perdure.model.events import Event
from perdure.sdk import App, Client
from perdure.stores.ports import Append, Release

PARKED = 100_000
WOKEN = 1_000
CANCELLED = 100
_TOGETHER = 500
_STATE = StateId("napping.main.nap")


async def park(stores: Stores, count: int, due_millis: int) -> None:
    """Runs that sleep until a second after each other, written as an engine leaves them."""
    manifest = RunManifest(OpId("napping"), "1", {}, RunConfig())
    manifest_id = await stores.put_manifest(manifest)
    snapshot_id = await stores.put_manifest(manifest)
    wait = Wait(_STATE, 0, wait_key(_STATE, 0), SLEEP, due_millis)
    events: list[Event] = [
        RunStarted(OpId("napping"), manifest_id, snapshot_id),
        StateEntered(_STATE, 0, snapshot_id),
        wait_started(wait),
    ]

    async def one(number: int) -> None:
        run_id = RunId.random()
        claim = await stores.claims.acquire(run_id, "bench", timedelta(seconds=30))
        release = Release(due_millis + number * 1000)
        await stores.commit([], [Append(run_id, 0, events)], claim, release=release)
        await stores.claims.release(claim)

    for begin in range(0, count, _TOGETHER):
        await asyncio.gather(*(one(number) for number in range(begin, begin + _TOGETHER)))


async def seconds_to_find_the_next(stores: Stores) -> float:
    """How long it takes to ask when something is due."""
    begun = time.perf_counter()
    for _ in range(100):
        await stores.agenda.next_due_millis()
        await stores.agenda.due_runs(100)
    return (time.perf_counter() - begun) / 100


WORKER = """
import asyncio, sys
from perdure import Stores
from perdure.sdk import App, Client
async def main():
    async with Stores.sqlite(sys.argv[1]) as stores:
        client = Client(stores, App())
        client.keep_recovering()
        await asyncio.sleep(2)
        await client.aclose()
asyncio.run(main())
with open("/proc/self/status") as status:
    print(next(int(line.split()[1]) / 1024 for line in status if line.startswith("VmHWM")))
"""


def worker_megabytes(path: Path) -> float:
    """The peak memory of a process that waits for whatever is due in a store."""
    done = subprocess.run(
        [sys.executable, "-c", WORKER, str(path)], capture_output=True, text=True, check=True
    )
    return float(done.stdout)


napping = op("napping")
LATE: list[float] = []


@napping.state
async def nap(io: IoProvider, input: int) -> None:  # noqa: A002 — the term
    """Sleep until the moment given, and note how late it is then."""
    await io.sleep_until(input)
    LATE.append(time.time() - input / 1000)


async def latenesses(path: Path) -> list[float]:
    """Seconds that runs were woken late which are all due within one second."""
    LATE.clear()
    async with Stores.sqlite(path) as stores:
        parking = Client(stores, App([napping]), park_after=timedelta())
        due = int(time.time() * 1000) + 15_000
        await asyncio.gather(*(parking.start(napping, due + number) for number in range(WOKEN)))
        while len(await stores.agenda.due_runs(WOKEN, within_millis=60_000)) < WOKEN:  # noqa: ASYNC110 — nobody announces it
            await asyncio.sleep(0.05)
        await parking.aclose()
        assert time.time() * 1000 < due - 2000
        client = Client(stores, App([napping]))
        client.keep_recovering()
        while len(LATE) < WOKEN:  # noqa: ASYNC110 — nor this
            await asyncio.sleep(0.05)
        await client.aclose()
    return sorted(LATE)


async def seconds_to_stop(path: Path) -> list[float]:
    """From the sending of a cancellation by another process's handle, to the end of a running handler."""

    class Endless:
        def meta(self) -> StateMeta:
            return StateMeta()

        async def handle(self, ctx: Context, io: IoProvider, rec: Recorder) -> None:
            await asyncio.get_running_loop().create_future()

    plan = ExecutionPlan(OpId("endless"), StateGraph([StateNode(StateId("endless.main.a"), Endless())], []))
    config = RunConfig()
    manifest = RunManifest(plan.op_id, "1", {}, config)
    took: list[float] = []
    async with Stores.sqlite(path) as stores, Stores.sqlite(path) as others:
        manifest_id = await stores.put_manifest(manifest)
        engine, outsider = Engine(Fixed(plan)), Engine(Fixed(plan))
        runs = [RunId.random() for _ in range(CANCELLED)]

        async def drive(run_id: RunId) -> None:
            await engine.start(stores, StartRun(manifest, manifest_id, plan, config, JsonContext({}), run_id))
            took.append(time.perf_counter() - sent[run_id])

        sent: dict[RunId, float] = {}
        driving = [asyncio.create_task(drive(run_id)) for run_id in runs]
        while not all([await stores.events.head_seq(run_id) for run_id in runs]):  # noqa: ASYNC110 — as above
            await asyncio.sleep(0.01)
        for number, run_id in enumerate(runs):
            sent[run_id] = time.perf_counter()
            await outsider.send(others, run_id, StopLetter("cancel", "bench", "enough"), f"{number}")
            await asyncio.sleep(0.01)
        await asyncio.gather(*driving)
    return sorted(took)


class _Bank:
    namespace_group = "bank"

    def make(self, env: TransportEnv) -> _Bank:
        return self

    async def call(self, call: IoCall) -> Json:
        return "paid"


async def commits_of(path: Path, *, sleeps: bool) -> int:
    """The commits that one effect, or one sleep that parks the run, costs beside those of its state."""

    class One:
        def __init__(self, acts: bool) -> None:
            self._acts = acts

        def meta(self) -> StateMeta:
            return StateMeta(side_effects=SideEffectKind.APPLY_SIDE_EFFECT, idempotency="bench")

        async def handle(self, ctx: Context, io: IoProvider, rec: Recorder) -> None:
            if self._acts and sleeps:
                await io.sleep(timedelta(milliseconds=50))
            elif self._acts:
                await io.call(IoCall("bank", {}))

    counts: list[int] = []
    for acts in (False, True):
        plan = ExecutionPlan(OpId("one"), StateGraph([StateNode(StateId("one.main.a"), One(acts))], []))
        config = RunConfig()
        manifest = RunManifest(plan.op_id, "1", {}, config)
        store, stores = open_store(path.with_name(f"{path.name}-{acts}"))
        async with stores:
            manifest_id = await stores.put_manifest(manifest)
            engine = Engine(Fixed(plan), TransportRouter([_Bank()]), park_after=timedelta())
            before = store.commits
            result = await engine.start(
                stores, StartRun(manifest, manifest_id, plan, config, JsonContext({}))
            )
            if result.due_millis is not None:
                await asyncio.sleep(max(0.0, result.due_millis / 1000 - time.time()))
                result = await engine.resume(stores, result.run_id)
            assert result.phase.value == "Completed"
            counts.append(store.commits - before)
    return counts[1] - counts[0]
