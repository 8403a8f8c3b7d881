"""What it costs to delete runs, and what others notice of it."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from bench.machines import Fixed, chain
from perdure import Engine, JsonContext, Retention, RunConfig, RunManifest, StartRun, Stores
from perdure.adapters.sqlite.store import SqliteStore
from perdure.sdk.keeping import prune_stores
from perdure.stores.sharing import SharedArtifacts
from perdure.testing.clock import FakeClock

RUNS, STATES = 2000, 5
BEGAN, LATER = 1_700_000_000_000, 1_700_010_000_000

_WRITER = """
import asyncio, json, sys, time
from perdure import DomainEvent, RunId, Stores

async def main():
    waits, moment = [], time.perf_counter
    run_id, event = RunId.random(), DomainEvent("written", {"by": "a writer"})
    async with Stores.sqlite(sys.argv[1]) as stores:
        head = await stores.events.append(run_id, 0, [event])
        print("ready", flush=True)
        stop = asyncio.ensure_future(asyncio.to_thread(sys.stdin.read))
        while not stop.done():
            begun = moment()
            head = await stores.events.append(run_id, head, [event])
            waits.append(moment() - begun)
            await asyncio.sleep(0.001)
    print(json.dumps(waits))

asyncio.run(main())
"""


class Pruned(NamedTuple):
    """Seconds to run a run and to delete one, and those that a writer waited, alone and beside."""

    to_run: float
    to_delete: float
    to_delete_beside: float
    alone: list[float]
    beside: list[float]
    artifacts: int


def pruned(folder: Path) -> Pruned:
    """Half of the runs, first with nobody else there, then of the rest half beside a writer."""
    path = folder / "runs.db"
    begun = time.perf_counter()
    asyncio.run(_fill(path))
    to_run = (time.perf_counter() - begun) / RUNS
    to_delete, _ = asyncio.run(_prune(path, RUNS // 2))
    alone = _written_beside(path, lambda: time.sleep(2))
    kept: list[tuple[float, int]] = []
    beside = _written_beside(path, lambda: kept.append(asyncio.run(_prune(path, RUNS // 4))))
    return Pruned(to_run, to_delete, kept[0][0], alone, beside, kept[0][1])


def _written_beside(path: Path, work: Callable[[], object]) -> list[float]:
    """The seconds that each commit of another process takes while ``work`` is done."""
    writer = subprocess.Popen(
        [sys.executable, "-c", _WRITER, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert writer.stdout is not None
    writer.stdout.readline()
    work()
    printed, _ = writer.communicate("", timeout=60)
    waits: list[float] = json.loads(printed)
    return waits


def _opened(path: Path, millis: int) -> Stores:
    store = SqliteStore(path, clock=FakeClock(millis))
    shared = SharedArtifacts(store)
    return Stores(
        store, shared, store, shared, store.close, mailbox=store, agenda=store, keeping=store.keeping
    )


async def _fill(path: Path) -> None:
    async with _opened(path, BEGAN) as stores:
        plan, config = chain(STATES), RunConfig()
        engine = Engine(Fixed(plan), clock=FakeClock(BEGAN))
        manifest = RunManifest(plan.op_id, "1", {}, config)
        manifest_id = await stores.put_manifest(manifest)
        for number in range(RUNS):
            # Each with contexts of its own: there is something to sweep.
            context = JsonContext({"n": number * STATES, "text": "x" * 500})
            await engine.start(stores, StartRun(manifest, manifest_id, plan, config, context))


async def _prune(path: Path, keep: int) -> tuple[float, int]:
    """Seconds for each run that was deleted, and the artifacts that were swept."""
    async with _opened(path, LATER) as stores:
        begun = time.perf_counter()
        report = await prune_stores(stores, Retention(keep_last=keep), LATER, apply=True)
        took = time.perf_counter() - begun
    assert report.runs in (RUNS // 2, RUNS // 4), report
    return took / report.runs, report.artifacts
