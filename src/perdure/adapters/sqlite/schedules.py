"""The rows of schedules, each with a checksum."""

from __future__ import annotations

import builtins
import zlib
from collections.abc import Awaitable, Callable
from typing import Any

import apsw
import msgspec

from perdure.ids import RunId
from perdure.stores.bodies import encode_body
from perdure.stores.ports import ScheduleRow
from perdure.stores.refusals import (
    schedule_changed,
    schedule_corruption,
    schedule_exists,
    schedule_not_found,
)
from perdure.stores.schedules import KeptSchedule, opened_schedule

Work = Callable[[apsw.Cursor], Any]
Run = Callable[[Work], Awaitable[Any]]

_RELEASED = """
    FROM schedule LEFT JOIN run ON run.run_id = schedule.awaits
    WHERE schedule.awaits IS NOT NULL AND (run.key IS NULL OR run.ended = 1)"""

# `+id`: few await a run, so they are sorted; all would be looked at to have them in order.
SELECT_DUE = f"""
    SELECT * FROM (
        SELECT id FROM schedule WHERE due_millis <= :now ORDER BY due_millis, id LIMIT :limit
    )
    UNION ALL
    SELECT * FROM (
        SELECT id {_RELEASED} AND (schedule.due_millis IS NULL OR schedule.due_millis > :now)
        ORDER BY +id LIMIT :limit
    )
    LIMIT :limit"""

SELECT_NEXT = f"""
    SELECT * FROM (SELECT 0 {_RELEASED} LIMIT 1)
    UNION ALL
    SELECT * FROM (SELECT due_millis FROM schedule WHERE due_millis IS NOT NULL ORDER BY due_millis LIMIT 1)
    LIMIT 1"""


class SqliteSchedules:
    """The port over one file; ``read`` and ``write`` are the store's ways to its connections."""

    def __init__(self, read: Run, write: Run) -> None:
        self._read = read
        self._write = write

    async def create(self, row: ScheduleRow) -> ScheduleRow:
        kept = _kept(row, 1)

        def insert(cursor: apsw.Cursor) -> None:
            cursor.execute(
                "INSERT INTO schedule (id, revision, due_millis, awaits, body, crc) VALUES (?, ?, ?, ?, ?, ?)"
                " ON CONFLICT DO NOTHING",
                (row.id, *kept, _crc(row.id, kept)),
            )
            if not cursor.connection.changes():
                raise schedule_exists(row.id)

        await self._write(insert)
        return msgspec.structs.replace(row, revision=1)

    async def get(self, schedule_id: str) -> ScheduleRow:
        def select(cursor: apsw.Cursor) -> ScheduleRow:
            rows: list[Any] = cursor.execute(
                "SELECT revision, due_millis, awaits, body, crc FROM schedule WHERE id = ?", (schedule_id,)
            ).fetchall()
            if not rows:
                raise schedule_not_found(schedule_id)
            *columns, crc = rows[0]
            kept = KeptSchedule(*columns)
            if crc != _crc(schedule_id, kept):
                raise schedule_corruption(schedule_id)
            awaits = None if kept.awaits is None else RunId.trusted(kept.awaits)
            return opened_schedule(schedule_id, kept._replace(awaits=awaits))

        row: ScheduleRow = await self._read(select)
        return row

    async def list(self, after: str | None = None, limit: int = 100) -> list[str]:
        query = "SELECT id FROM schedule WHERE id > ? ORDER BY id LIMIT ?"
        return await self._ids(query, ("" if after is None else after, limit))

    async def update(self, row: ScheduleRow) -> ScheduleRow:
        kept = _kept(row, row.revision + 1)

        def swap(cursor: apsw.Cursor) -> None:
            cursor.execute(
                "UPDATE schedule SET revision = ?, due_millis = ?, awaits = ?, body = ?, crc = ?"
                " WHERE id = ? AND revision = ?",
                (*kept, _crc(row.id, kept), row.id, row.revision),
            )
            if not cursor.connection.changes():
                raise schedule_changed(row.id)

        await self._write(swap)
        return msgspec.structs.replace(row, revision=kept.revision)

    async def delete(self, schedule_id: str) -> None:
        def remove(cursor: apsw.Cursor) -> None:
            cursor.execute("DELETE FROM schedule WHERE id = ?", (schedule_id,))
            if not cursor.connection.changes():
                raise schedule_not_found(schedule_id)

        await self._write(remove)

    async def due(self, now_millis: int, limit: int) -> builtins.list[str]:
        return await self._ids(SELECT_DUE, {"now": now_millis, "limit": limit})

    async def next_due_millis(self) -> int | None:
        rows: builtins.list[Any] = await self._read(lambda cursor: cursor.execute(SELECT_NEXT).fetchall())
        due: int | None = rows[0][0] if rows else None
        return due

    async def _ids(self, query: str, bindings: Any) -> builtins.list[str]:
        rows: builtins.list[Any] = await self._read(lambda cursor: cursor.execute(query, bindings).fetchall())
        return [row[0] for row in rows]


def _kept(row: ScheduleRow, revision: int) -> KeptSchedule:
    # A `str` subclass is none to the driver.
    awaits: Any = None if row.awaits is None else str(row.awaits)
    return KeptSchedule(revision, row.due_millis, awaits, encode_body(row.body))


def _crc(schedule_id: str, kept: KeptSchedule) -> int:
    place = f"{schedule_id}\0{kept.revision}\0{kept.due_millis}\0{kept.awaits}"
    return zlib.crc32(kept.body, zlib.crc32(place.encode("utf-8", "surrogatepass")))
