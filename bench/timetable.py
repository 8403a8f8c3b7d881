"""Schedules: what looking at many of them costs when none is due, and what starting one run takes."""

from __future__ import annotations

import statistics
import time
from datetime import timedelta
from pathlib import Path

from bench.machines import open_store
from perdure import op
from perdure.sdk import App, Client
from perdure.stores.ports import ScheduleRow

MANY, FEW = 10_000, 10
_LOOKS = 200
_ROUNDS = 7

daily = op("daily")


@daily.state
async def nothing() -> None:
    """What a schedule starts here."""


async def looking(folder: Path) -> tuple[int, float]:
    """Statements of a look at 10,000 schedules of which none is due, and its time against one at ten."""
    clients: list[Client] = []
    statements: list[str] = []

    def note(_: object, statement: str, __: object) -> bool:
        statements.append(statement)
        return True

    far = int(time.time() * 1000) + 86_400_000
    for count in (MANY, FEW):
        store, stores = open_store(folder / f"{count}.db")
        client = Client(stores, App([daily]), closes_stores=True)
        model = await client.schedules.create("model", daily, every=timedelta(days=2))
        for number in range(count - 1):
            await stores.schedules.create(ScheduleRow(f"s{number}", model.to_json(), far + number))
        if count == MANY:
            store._reading.exec_trace = store._writing.connection.exec_trace = note
            await client._scheduler.follow()
            store._reading.exec_trace = store._writing.connection.exec_trace = None
        clients.append(client)
    ratios = []
    for _ in range(_ROUNDS):
        took = []
        for client in clients:
            begun = time.perf_counter()
            for _ in range(_LOOKS):
                await client._scheduler.follow()
            took.append(time.perf_counter() - begun)
        ratios.append(took[0] / took[1])
    for client in clients:
        await client.aclose()
    return len(statements), statistics.median(ratios)


async def commits_of_a_start(path: Path) -> int:
    """Commits from the look that finds a schedule due to the note that its run was started."""
    store, stores = open_store(path)
    client = Client(stores, App([daily]), closes_stores=True)
    await client.schedules.create("a", daily, every=timedelta(days=2))
    await client.schedules.trigger("a")
    before = store.commits
    await client._scheduler.follow()
    commits = store.commits - before
    assert (await client.schedules.get("a")).last_run_id is not None
    await client.aclose()
    return commits
