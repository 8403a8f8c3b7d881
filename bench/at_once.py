"""Many runs of one process at once: what sharing transactions gives."""

from __future__ import annotations

import asyncio
import gc
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import apsw

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


@contextmanager
def slowed(seconds: float) -> Iterator[None]:
    """Every synchronisation takes so much longer, by a file system layer of SQLite's."""
    base = apsw.vfs_names()[0]

    class SlowFile(apsw.VFSFile):
        def xSync(self, flags: int) -> None:  # noqa: N802 — SQLite's name
            super().xSync(flags)
            time.sleep(seconds)  # a slow disk holds up the thread that asks it, and lets the others run

    class SlowVfs(apsw.VFS):
        def xOpen(  # noqa: N802 — SQLite's name
            self, name: str | apsw.URIFilename | None, flags: list[int]
        ) -> apsw.VFSFile:
            return SlowFile(base, name, flags)

    vfs = SlowVfs("slow", base, makedefault=True)
    try:
        yield
    finally:
        gc.collect()  # files of the layer must be gone before it is
        vfs.unregister()
