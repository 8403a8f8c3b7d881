"""Forking a long run at its end."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

from bench.machines import Fixed, chain, open_store, run_chain
from perdure import Engine, ForkRun

STATES = 10_000


def against_running(folder: Path) -> float:
    """The time of a fork at the last of 10,000 states, which takes two commits, against that of the run."""

    async def body() -> float:
        store, stores = open_store(folder / "runs.db")
        async with stores:
            begun = time.perf_counter()
            origin = await run_chain(stores, STATES)
            running = time.perf_counter() - begun
            engine, before = Engine(Fixed(chain(STATES))), store.commits
            begun = time.perf_counter()
            fork = await engine.fork(stores, ForkRun(origin.run_id, f"s{STATES - 1}"))
            took = time.perf_counter() - begun
            assert fork.final_snapshot_id == origin.final_snapshot_id
            assert store.commits - before == 2
            return took / running

    return asyncio.run(body())
