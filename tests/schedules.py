"""What tests of schedules share: an office with a clock that is held, its workers, and what they start."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import perdure
from perdure import App, Client, IoProvider, RunId, Stores
from perdure.ids import RunId as AnyRunId
from perdure.model.events import RunPhase
from perdure.sdk.reading import list_summaries
from perdure.stores.memory import MemoryState, memory_stores
from tests.waiting_plans import HeldClock

report = perdure.op("report", input=str, output=str, imports={"schedule_due": str})


@report.state
async def page(name: str, schedule_due: str) -> str:
    """Written at once."""
    return f"{name} of {schedule_due}"


shift = perdure.op("shift", output=str)


@shift.state
async def work(io: IoProvider) -> str:
    """It takes until somebody says so."""
    received = await io.wait_signal("done")
    assert received is not None
    return str(received.value)


app = App([report, shift])


def at(text: str) -> datetime:
    """A moment in UTC: ``2026-03-29 01:00``."""
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def millis(text: str) -> int:
    """As :func:`at`, in milliseconds since 1970."""
    return int(at(text).timestamp() * 1000)


class Office:
    """A store, a clock that only the test moves, and clients that follow the store's schedules."""

    def __init__(self, now: str = "2026-01-01 00:00") -> None:
        self.clock = HeldClock()
        self.state = MemoryState()
        self.move_to(now)
        self.stores = memory_stores(self.state, self.clock)
        self.clients: list[Client] = []

    def move_to(self, now: str) -> None:
        """Let it be another time."""
        self.clock.millis = millis(now)

    def worker(self, known: App = app, stores: Stores | None = None) -> Client:
        """One more client, in a process of its own."""
        client = Client(stores or memory_stores(self.state, self.clock), known, clock=self.clock)
        self.clients.append(client)
        return client

    async def pass_on(self, client: Client, now: str | None = None) -> None:
        """Let it be ``now``, and the client do what is due then."""
        if now is not None:
            self.move_to(now)
        while True:
            await client.recover()
            if not client.driven:
                return
            while client.driven:
                await client.drive_result(client.driven[0])

    async def dues(self, phase: RunPhase | None = None) -> list[str]:
        """The due times of the runs that were started, in order: ``03-29 01:00``."""
        found = await list_summaries(self.stores, phase=phase, labels={}, limit=10_000)
        return sorted(each.schedule["due"][5:16].replace("T", " ") for each in found)

    async def finish(self, client: Client, run_id: Any, value: str = "well") -> None:
        """Say that a shift is done."""
        await client.get(AnyRunId(run_id))
        await (await client.get(run_id)).signal("done", value)
        await self.pass_on(client)

    async def close(self) -> None:
        """Close all clients."""
        for client in self.clients:
            await client.aclose()


def run_of(schedule_id: str, due: str) -> RunId:
    """The run of a due time: ``2026-03-29 01:00``."""
    return RunId.for_invocation(f"schedule:{schedule_id}|{due.replace(' ', 'T')}:00Z")


def iso(moment_millis: int) -> str:
    """A moment as tests write it: ``01-01 06:00``."""
    return datetime.fromtimestamp(moment_millis / 1000, UTC).strftime("%m-%d %H:%M")
