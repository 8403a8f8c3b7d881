"""Schedules in memory: the reference, and what a bundle keeps by itself whose ports keep none."""

from __future__ import annotations

import builtins
from collections.abc import Awaitable, Callable
from typing import NamedTuple

import msgspec

from perdure.ids import RunId
from perdure.model.events import RunCompleted
from perdure.stores.bodies import decode_body, encode_body
from perdure.stores.ports import EventStore, ScheduleRow
from perdure.stores.refusals import (
    schedule_changed,
    schedule_corruption,
    schedule_exists,
    schedule_not_found,
)


class KeptSchedule(NamedTuple):
    """A row as it is kept: its body as bytes, so that no reader shares data with another."""

    revision: int
    due_millis: int | None
    awaits: RunId | None
    body: bytes


def opened_schedule(schedule_id: str, kept: KeptSchedule) -> ScheduleRow:
    """The row that was kept; ``CorruptionError`` (``schedule_corruption``) if its body is no JSON text."""
    body = decode_body(kept.body, lambda: schedule_corruption(schedule_id))
    return ScheduleRow(schedule_id, body, kept.due_millis, kept.awaits, kept.revision)


class MemorySchedules:
    """The port over a dict. ``is_over`` says whether a run has ended, or is not there."""

    def __init__(self, rows: dict[str, KeptSchedule], is_over: Callable[[RunId], Awaitable[bool]]) -> None:
        self._rows = rows
        self._is_over = is_over

    async def create(self, row: ScheduleRow) -> ScheduleRow:
        if row.id in self._rows:
            raise schedule_exists(row.id)
        return self._keep(row, 1)

    async def get(self, schedule_id: str) -> ScheduleRow:
        if schedule_id not in self._rows:
            raise schedule_not_found(schedule_id)
        return opened_schedule(schedule_id, self._rows[schedule_id])

    async def list(self, after: str | None = None, limit: int = 100) -> list[str]:
        return sorted(each for each in self._rows if after is None or each > after)[:limit]

    async def update(self, row: ScheduleRow) -> ScheduleRow:
        if row.id not in self._rows or self._rows[row.id].revision != row.revision:
            raise schedule_changed(row.id)
        return self._keep(row, row.revision + 1)

    async def delete(self, schedule_id: str) -> None:
        if self._rows.pop(schedule_id, None) is None:
            raise schedule_not_found(schedule_id)

    async def due(self, now_millis: int, limit: int) -> builtins.list[str]:
        by_time = [
            (row.due_millis, schedule_id)
            for schedule_id, row in self._rows.items()
            if row.due_millis is not None and row.due_millis <= now_millis
        ]
        timely = [schedule_id for _, schedule_id in sorted(by_time)]
        return [*timely, *(each for each in await self._released() if each not in timely)][:limit]

    async def next_due_millis(self) -> int | None:
        if await self._released():
            return 0
        dues = (row.due_millis for row in self._rows.values())
        return min((due for due in dues if due is not None), default=None)

    def _keep(self, row: ScheduleRow, revision: int) -> ScheduleRow:
        self._rows[row.id] = KeptSchedule(revision, row.due_millis, row.awaits, encode_body(row.body))
        return msgspec.structs.replace(row, revision=revision)

    async def _released(self) -> builtins.list[str]:
        """Those that await a run that has ended, in the order of their ids."""
        awaiting = sorted((key, row.awaits) for key, row in self._rows.items() if row.awaits is not None)
        return [schedule_id for schedule_id, run_id in awaiting if await self._is_over(run_id)]


def local_schedules(events: EventStore) -> MemorySchedules:
    """Schedules among the users of one bundle, which looks into ``events`` for runs that have ended."""

    async def is_over(run_id: RunId) -> bool:
        head = await events.head_seq(run_id)
        last = await events.read_range(run_id, head) if head else []
        # An engine appends nothing to a run that has ended.
        return not head or any(isinstance(each.event, RunCompleted) for each in last)

    return MemorySchedules({}, is_over)
