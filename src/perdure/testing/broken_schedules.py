"""Schedules that are kept wrong in one way each: they show that the conformance suite would notice."""

from __future__ import annotations

import builtins

import msgspec

from perdure.errors import ConcurrencyError
from perdure.stores.ports import ScheduleRow
from perdure.stores.schedules import MemorySchedules


class CreatesAgain(MemorySchedules):
    """Puts a new schedule in the place of one that is there."""

    async def create(self, row: ScheduleRow) -> ScheduleRow:
        self._rows.pop(row.id, None)
        return await super().create(row)


class IgnoresRevisions(MemorySchedules):
    """Lets anybody change a schedule, whatever has been looked at."""

    async def update(self, row: ScheduleRow) -> ScheduleRow:
        kept = self._rows.get(row.id)
        return await super().update(row if kept is None else msgspec.structs.replace(row, revision=kept[0]))


class KeepsRevisions(MemorySchedules):
    """Changes a schedule without a new revision."""

    async def update(self, row: ScheduleRow) -> ScheduleRow:
        changed = await super().update(row)
        self._rows[row.id] = self._rows[row.id]._replace(revision=row.revision)
        return changed


class CreatesByChanging(MemorySchedules):
    """Keeps a change to a schedule that was deleted."""

    async def update(self, row: ScheduleRow) -> ScheduleRow:
        return await (super().update(row) if row.id in self._rows else super().create(row))


class ChangesTooSoon(MemorySchedules):
    """Keeps the new time of a change that it refuses."""

    async def update(self, row: ScheduleRow) -> ScheduleRow:
        try:
            return await super().update(row)
        except ConcurrencyError:
            if row.id in self._rows:
                self._rows[row.id] = self._rows[row.id]._replace(body=b"null")
            raise


class ForgetsNothing(MemorySchedules):
    """Leaves a deleted schedule due."""

    async def delete(self, schedule_id: str) -> None:
        kept = await self.get(schedule_id)
        await super().delete(schedule_id)
        await self.create(kept)


class IsDueTooSoon(MemorySchedules):
    """Has schedules due a millisecond early."""

    async def due(self, now_millis: int, limit: int) -> builtins.list[str]:
        return await super().due(now_millis + 1, limit)


class OrdersById(MemorySchedules):
    """Has the schedules that are due in the order of their ids."""

    async def due(self, now_millis: int, limit: int) -> builtins.list[str]:
        return sorted(await super().due(now_millis, len(self._rows)))[:limit]


class OverlooksEnds(MemorySchedules):
    """Does not notice that runs have ended."""

    async def _released(self) -> builtins.list[str]:
        return []


class ForgetsTimes(MemorySchedules):
    """Has a schedule that awaits a run wait for that alone."""

    async def create(self, row: ScheduleRow) -> ScheduleRow:
        kept = await super().create(row)
        if row.awaits is not None:
            self._rows[row.id] = self._rows[row.id]._replace(due_millis=None)
        return kept


class ListsWholePages(MemorySchedules):
    """Gives the page that begins with the last schedule of the one before."""

    async def list(self, after: str | None = None, limit: int = 100) -> builtins.list[str]:
        return sorted(each for each in self._rows if after is None or each >= after)[:limit]


BROKEN_SCHEDULES: tuple[type[MemorySchedules], ...] = (
    CreatesAgain,
    IgnoresRevisions,
    KeepsRevisions,
    CreatesByChanging,
    ChangesTooSoon,
    ForgetsNothing,
    IsDueTooSoon,
    OrdersById,
    OverlooksEnds,
    ForgetsTimes,
    ListsWholePages,
)
