"""Whatever the clock does, whoever dies and whichever of two workers is there: each due time has one end."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import timedelta
from itertools import takewhile
from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from perdure import RunPhase, StorageError, Stores
from perdure.engine.due_times import due_times
from perdure.model.schedule import Overlap, Schedule
from perdure.sdk.client import Client
from perdure.sdk.reading import list_summaries
from perdure.sdk.scheduling import LEFT_MILLIS
from perdure.stores.memory import MemoryStore
from perdure.stores.ports import ScheduleRow
from perdure.stores.schedules import MemorySchedules
from tests.schedules import Office, app, iso, millis, shift

MINUTE = 60_000
BEGIN = millis("2026-01-01 00:00")


@dataclass
class Doom:
    """How many of its writes a worker still does, and whether it dies before the next or after it."""

    writes_left: int | None = None
    dies_after: bool = False


class DoomedSchedules(MemorySchedules):
    """Schedules of a worker that dies in the middle of following them."""

    doom: Doom

    async def update(self, row: ScheduleRow) -> ScheduleRow:
        doom = self.doom
        if doom.writes_left is None:
            return await super().update(row)
        doom.writes_left -= 1
        if doom.writes_left >= 0:
            return await super().update(row)
        if doom.dies_after:
            await super().update(row)
        raise StorageError.of("store_io_error", "the process died")


@dataclass(frozen=True)
class Pass:
    """Time goes by, or back."""

    minutes: int


@dataclass(frozen=True)
class Look:
    """A worker looks at what is due, and may die of it."""

    worker: int
    writes: int | None = None
    dies_after: bool = False


@dataclass(frozen=True)
class Both:
    """Both workers look at once."""


@dataclass(frozen=True)
class Finish:
    """The runs that go on are told that they are done."""


steps = st.lists(
    st.one_of(
        st.builds(Pass, st.integers(-20, 90)),
        st.builds(Look, st.integers(0, 1)),
        st.builds(Look, st.integers(0, 1), st.integers(0, 4), st.booleans()),
        st.just(Both()),
        st.just(Finish()),
    ),
    max_size=14,
)
plans = st.fixed_dictionaries(
    {
        "every": st.integers(3, 30).map(lambda minutes: timedelta(minutes=minutes)),
        "jitter": st.sampled_from([0, 0, 2, 40]).map(lambda minutes: timedelta(minutes=minutes)),
        "catchup": st.sampled_from([1, 20, 60, 600]).map(lambda minutes: timedelta(minutes=minutes)),
        "overlap": st.sampled_from(Overlap),
        "max_runs": st.sampled_from([None, None, None, 3]),
    }
)


class World(Office):
    """An office with two workers that may die, and a record of how late due times were looked at."""

    def __init__(self) -> None:
        super().__init__()
        self.dooms = [Doom(), Doom()]
        self.workers: list[Client] = [self._hire(doom) for doom in self.dooms]
        self.looked: list[int] = []

    def _hire(self, doom: Doom) -> Client:
        store = MemoryStore(self.state, self.clock)
        schedules = DoomedSchedules(self.state.schedules, store.is_over)
        schedules.doom = doom
        stores = Stores(store, store, store, store, mailbox=store, agenda=store, schedules=schedules)
        return self.worker(app, stores)

    async def take(self, step: Any) -> None:
        """Do a step of a test."""
        if isinstance(step, Pass):
            self.clock.millis = max(BEGIN, self.clock.millis + step.minutes * MINUTE)
            return
        if isinstance(step, Finish):
            for each in await list_summaries(self.stores, phase=RunPhase.RUNNING, labels={}, limit=100):
                await (await self.workers[0].get(each.run_id)).signal("done", "well")
            return
        self.looked.append(self.clock.millis)
        if isinstance(step, Both):
            await asyncio.gather(*(each.recover() for each in self.workers))
            await asyncio.gather(*(self.pass_on(each) for each in self.workers))
            return
        doom = self.dooms[step.worker]
        doom.writes_left, doom.dies_after = step.writes, step.dies_after
        await self.workers[step.worker].recover()
        if doom.writes_left is not None and doom.writes_left < 0:
            # Another process in its place, which knows nothing of what it has left alone.
            self.dooms[step.worker] = Doom()
            await self.workers[step.worker].aclose()
            self.workers[step.worker] = self._hire(self.dooms[step.worker])
        else:
            doom.writes_left = None
            await self.pass_on(self.workers[step.worker])

    async def started(self) -> list[int]:
        """The due times that have runs, each as often as it has one."""
        found = await list_summaries(self.stores, labels={}, limit=10_000)
        return sorted(millis(each.schedule["due"][:16].replace("T", " ")) for each in found)

    async def running(self) -> int:
        """How many runs go on."""
        return len(await list_summaries(self.stores, phase=RunPhase.RUNNING, labels={}, limit=10_000))


def passed(schedule: Schedule, last: int) -> list[int]:
    """The due times that have come until a moment, by the definition alone."""
    return list(takewhile(lambda due: due <= last, due_times(schedule.timing, BEGIN)))


@given(plans, steps)
def test_each_due_time_has_one_run_or_a_reason(plan: dict[str, Any], taken: list[Any]) -> None:
    """And none is left out that was looked at in time."""

    async def body() -> None:
        world = World()
        await world.workers[0].schedules.create("a", shift, **plan)
        for step in taken:
            await world.take(step)
            seen = await world.workers[0].schedules.get("a")
            started = await world.started()
            assert started == sorted(set(started))
            if seen.overlap is not Overlap.ALLOW:
                assert await world.running() <= 1
        await world.take(Look(0))
        seen = await world.workers[0].schedules.get("a")
        started = await world.started()
        # What was started was due, and what is noted is what happened.
        upto = max(world.looked)
        dues = passed(seen, upto)
        assert set(started) <= set(dues)
        # A clock that was put back hides the due time whose run somebody began and did not note.
        noted = [due for due in started if due != seen.next_millis]
        assert len(noted) == seen.runs
        if seen.next_millis is not None:
            gone = [due for due in dues if due < seen.next_millis]
            waits = seen.waiting_millis is not None
            assert seen.runs + seen.skipped + seen.missed + waits == len(gone)
        elif seen.max_runs is not None:
            assert seen.runs == seen.max_runs
        if seen.overlap is Overlap.ALLOW and seen.max_runs is None:
            window = seen.catchup_millis
            for due in dues:
                too_late = any(looked > due + window for looked in world.looked)
                is_late_itself = due + seen.timing.jitter_millis > world.clock.millis
                assert due in started or too_late or is_late_itself, iso(due)
        await world.close()

    asyncio.run(body())


@given(plans, st.lists(st.integers(0, 60), min_size=1, max_size=10))
def test_following_twice_changes_nothing(plan: dict[str, Any], minutes: list[int]) -> None:
    """Whoever comes a moment later finds everything done."""

    async def body() -> None:
        world = World()
        await world.workers[0].schedules.create("a", shift, **plan)
        for passing in minutes:
            world.clock.millis += passing * MINUTE
            await world.take(Look(0))
            rows, count = dict(world.state.schedules), len(await world.started())
            await world.take(Look(1))
            await world.take(Both())
            assert dict(world.state.schedules) == rows
            assert len(await world.started()) == count
        await world.close()

    asyncio.run(body())


def test_a_worker_leaves_alone_what_it_cannot_follow_for_a_while() -> None:
    """And tries again then."""

    async def body() -> None:
        world = World()
        client = world.workers[0]
        made = await client.schedules.create("a", shift, every=timedelta(minutes=5))
        broken = msgspec.structs.replace(made.target, op_id="gone")
        row = world.state.schedules["a"]
        spoilt = msgspec.structs.replace(made, target=broken)
        world.state.schedules["a"] = row._replace(body=msgspec.json.encode(spoilt))
        world.clock.millis = made.next_millis or 0
        await world.take(Look(0))
        world.state.schedules["a"] = row
        await world.take(Look(0))
        assert await world.started() == []
        world.clock.millis += LEFT_MILLIS
        await world.take(Look(0))
        assert await world.started() == [made.next_millis]
        await world.close()

    asyncio.run(body())
