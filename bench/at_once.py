"""Many runs of one process at once: what sharing transactions gives."""

from __future__ import annotations

import asyncio
import statistics
import time
from contextlib import AbstractContextManager
from pathlib import Path
from typing import NamedTuple

from bench.disks import told_of_syncs
from bench.machines import Fixed, chain, open_store
from perdure import Engine, JsonContext, RunConfig, RunManifest, StartRun

RUNS, STATES = 200, 10
ALONE_STATES = 400


class Speeds(NamedTuple):
    """States per second: of runs at once, and of one run alone."""

    at_once: float
    alone: float


async def states_per_second(path: Path, runs: int, states: int) -> float:
    """``runs`` runs of ``states`` states each, started together on a new store."""
    plan, config = chain(states), RunConfig()
    manifest = RunManifest(plan.op_id, "1", {}, config)
    engine = Engine(Fixed(plan))
    _, stores = open_store(path)
    async with stores:
        manifest_id = await stores.put_manifest(manifest)
        contexts = [JsonContext({"n": 0, "pad": "x" * 200}) for _ in range(runs)]
        starts = [StartRun(manifest, manifest_id, plan, config, each) for each in contexts]
        begun = time.perf_counter()
        results = await asyncio.gather(*(engine.start(stores, each) for each in starts))
        took = time.perf_counter() - begun
    assert all(each.phase.value == "Completed" for each in results)
    return runs * states / took


def speeds(folder: Path, rounds: int) -> Speeds:
    """The medians, taken in turns."""
    at_once, alone = [], []
    for number in range(rounds):
        at_once.append(asyncio.run(states_per_second(folder / f"many{number}.db", RUNS, STATES)))
        alone.append(asyncio.run(states_per_second(folder / f"one{number}.db", 1, ALONE_STATES)))
    return Speeds(statistics.median(at_once), statistics.median(alone))


def slowed(seconds: float) -> AbstractContextManager[None]:
    """Every synchronisation takes so much longer."""
    # A slow disk holds up the thread that asks it, and lets the others run.
    return told_of_syncs(lambda: time.sleep(seconds))
