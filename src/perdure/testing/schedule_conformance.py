"""What must be true of schedules in every store: a part of the conformance suite."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec

from perdure.errors import ConcurrencyError, NotFoundError
from perdure.ids import RunId
from perdure.stores.bundle import Stores
from perdure.stores.ports import ScheduleRow
from perdure.testing.store_places import ENDED, OTHER, RUN, StorePlaces, begin, refusal


async def due(stores: Stores, now_millis: int) -> tuple[list[str], int | None]:
    """What is due then, and when the next schedule is."""
    return await stores.schedules.due(now_millis, 9), await stores.schedules.next_due_millis()


async def keep(stores: Stores, schedule_id: str, due_millis: int | None, awaits: RunId | None = None) -> None:
    """A schedule that is due then, and when a run has ended."""
    await stores.schedules.create(ScheduleRow(schedule_id, {}, due_millis, awaits))


class ScheduleConformance(StorePlaces):
    """Created, changed by who has looked, due, and deleted."""

    async def test_a_schedule_comes_back_as_it_was(self) -> None:
        """Whatever JSON it holds; the first revision is 1."""
        async with self.place() as (_, (stores,)):
            bodies: list[Any] = [None, {"z": [1, "é\n", {}], "a": -(2**63)}, [], "text", True, 2**64 - 1]
            for number, body in enumerate(bodies):
                row = ScheduleRow(f"s{number}", body, number or None, RUN if number % 2 else None, 7)
                kept = await stores.schedules.create(row)
                assert kept == msgspec.structs.replace(row, revision=1)
                assert await stores.schedules.get(f"s{number}") == kept

    async def test_a_schedule_is_created_once(self) -> None:
        """``schedule_exists``; the first one stays as it is."""
        async with self.place() as (_, (stores,)):
            first = await stores.schedules.create(ScheduleRow("a", {"of": 1}, 5))
            error = await refusal(stores.schedules.create(ScheduleRow("a", {"of": 2}, 6)))
            assert isinstance(error, ConcurrencyError)
            assert error.code == "schedule_exists"
            assert await stores.schedules.get("a") == first

    async def test_schedules_share_no_data(self) -> None:
        """What a caller or a reader does to a body afterwards, nobody else sees."""
        async with self.place() as (_, (stores,)):
            body = {"items": [1]}
            await stores.schedules.create(ScheduleRow("a", body))
            body["items"].append(2)
            (await stores.schedules.get("a")).body["items"].append(3)
            assert (await stores.schedules.get("a")).body == {"items": [1]}

    async def test_a_change_names_the_revision_that_was_seen(self) -> None:
        """``schedule_changed`` for another one, which changes nothing."""
        async with self.place() as (_, (stores,)):
            first = await stores.schedules.create(ScheduleRow("a", {"of": 1}, 5))
            second = await stores.schedules.update(msgspec.structs.replace(first, body={"of": 2}))
            assert second == ScheduleRow("a", {"of": 2}, 5, None, 2)
            for stale in (first, msgspec.structs.replace(second, revision=3)):
                error = await refusal(stores.schedules.update(stale))
                assert isinstance(error, ConcurrencyError)
                assert error.code == "schedule_changed"
            assert await stores.schedules.get("a") == second

    async def test_of_racing_changes_one_wins(self) -> None:
        """Twenty who have seen one revision: one changes it, nineteen are told."""
        async with self.place(2 if self.shares_claims else 1) as (_, handles):
            first = await handles[0].schedules.create(ScheduleRow("a", 0))
            outcomes = await asyncio.gather(
                *[
                    handles[number % len(handles)].schedules.update(
                        msgspec.structs.replace(first, body=number)
                    )
                    for number in range(20)
                ],
                return_exceptions=True,
            )
            won = [each for each in outcomes if isinstance(each, ScheduleRow)]
            assert len(won) == 1
            assert await handles[-1].schedules.get("a") == won[0]

    async def test_a_deleted_schedule_is_gone(self) -> None:
        """``schedule_not_found``, and nothing is due by it; its id is free for another one."""
        async with self.place() as (_, (stores,)):
            row = await stores.schedules.create(ScheduleRow("a", 1, 5))
            await stores.schedules.update(row)
            await stores.schedules.delete("a")
            for ask in (stores.schedules.get, stores.schedules.delete):
                error = await refusal(ask("a"))
                assert isinstance(error, NotFoundError)
                assert error.code == "schedule_not_found"
            assert (await refusal(stores.schedules.update(row))).code == "schedule_changed"
            assert await due(stores, 9) == ([], None)
            assert await stores.schedules.list() == []
            assert (await stores.schedules.create(ScheduleRow("a", 2))).revision == 1

    async def test_schedules_are_listed_in_order(self) -> None:
        """By their ids, page by page."""
        async with self.place() as (_, (stores,)):
            assert await stores.schedules.list() == []
            for schedule_id in ("b", "a.b", "é", "a", "c", "B"):
                await keep(stores, schedule_id, 0)
            wanted = ["B", "a", "a.b", "b", "c", "é"]
            assert await stores.schedules.list() == wanted
            assert await stores.schedules.list(None, 2) == wanted[:2]
            assert await stores.schedules.list("a", 3) == wanted[2:5]
            assert await stores.schedules.list("é") == []

    async def test_schedules_longest_due_come_first(self) -> None:
        """Not a millisecond before their time, as many as are asked for; those without a time never."""
        async with self.place() as (_, (stores,)):
            assert await due(stores, 9) == ([], None)
            for schedule_id, due_millis in (("a", 30), ("b", None), ("c", 20), ("d", 40), ("e", 20)):
                await keep(stores, schedule_id, due_millis)
            assert await due(stores, 19) == ([], 20)
            assert await due(stores, 20) == (["c", "e"], 20)
            assert await due(stores, 40) == (["c", "e", "a", "d"], 20)
            assert await stores.schedules.due(40, 3) == ["c", "e", "a"]

    async def test_a_change_moves_what_is_due(self) -> None:
        """Earlier, later, or never."""
        async with self.place() as (_, (stores,)):
            row = await stores.schedules.create(ScheduleRow("a", {}, 20))
            for due_millis in (10, 30, None):
                row = await stores.schedules.update(msgspec.structs.replace(row, due_millis=due_millis))
                assert await due(stores, 9) == ([], due_millis)
            assert await due(stores, 99) == ([], None)

    async def test_a_schedule_is_due_when_the_run_has_ended_that_it_awaits(self) -> None:
        """After those whose time has come; a run that is not there has nothing left to end."""
        async with self.place() as (_, (stores,)):
            await begin(stores, RUN, OTHER)
            await keep(stores, "a", 50, RUN)
            await keep(stores, "b", None, RUN)
            await keep(stores, "c", 40, OTHER)
            await keep(stores, "d", 30)
            assert await due(stores, 29) == ([], 30)
            await stores.events.append(RUN, 1, [ENDED])
            assert await due(stores, 29) == (["a", "b"], 0)
            assert await due(stores, 60) == (["d", "c", "a", "b"], 0)
            assert await stores.schedules.due(60, 3) == ["d", "c", "a"]
            await keep(stores, "e", None, RunId("00000000-0000-0000-0000-000000000009"))
            assert await due(stores, 29) == (["a", "b", "e"], 0)
            for schedule_id in ("a", "b", "e"):
                row = await stores.schedules.get(schedule_id)
                await stores.schedules.update(msgspec.structs.replace(row, awaits=None))
            assert await due(stores, 29) == ([], 30)

    async def test_another_handle_sees_schedules(self) -> None:
        """They are the place's."""
        if not self.shares_claims:
            return
        async with self.place(handles=2) as (_, (here, there)):
            row = await here.schedules.create(ScheduleRow("a", {"of": 1}, 20, RUN))
            await begin(here, RUN)
            assert await there.schedules.get("a") == row
            assert await due(there, 19) == ([], 20)
            await here.events.append(RUN, 1, [ENDED])
            assert await due(there, 19) == (["a"], 0)
            await there.schedules.delete("a")
            assert await due(here, 99) == ([], None)
