"""The rows of runs that wait for the end of others."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import apsw
import msgspec

from perdure.ids import RunId

SELECT_ENDED = "SELECT run_id FROM run WHERE run_id IN (SELECT value FROM json_each(?)) AND ended = 1"
SELECT_CONCERNED = """
    SELECT 1 FROM awaiting WHERE awaited = :run_id
    UNION ALL SELECT 1 FROM awaiting WHERE run = :key LIMIT 1"""
WAKE = "UPDATE run SET due_millis = 0 WHERE ended = 0 AND key IN (SELECT run FROM awaiting WHERE awaited = ?)"
FORGET_WOKEN = "DELETE FROM awaiting WHERE run IN (SELECT run FROM awaiting WHERE awaited = ?)"
FORGET = "DELETE FROM awaiting WHERE run = ?"


def as_array(run_ids: Iterable[RunId]) -> str:
    """The ids as a JSON array, for ``json_each``: one binding, however many they are."""
    return msgspec.json.encode([str(each) for each in run_ids]).decode()


def select_ended(cursor: apsw.Cursor, run_ids: Sequence[RunId]) -> list[RunId]:
    """Which of the runs have ended."""
    if not run_ids:
        return []
    rows: list[Any] = cursor.execute(SELECT_ENDED, (as_array(run_ids),)).fetchall()
    return [RunId.trusted(row[0]) for row in rows]


def insert_awaited(cursor: apsw.Cursor, key: int | None, run_ids: Sequence[RunId]) -> None:
    """Have the run of ``key`` wait for these runs, in place of others."""
    cursor.execute(FORGET, (key,))
    cursor.executemany(
        "INSERT INTO awaiting (run, awaited) VALUES (?, ?)",
        [(key, str(each)) for each in dict.fromkeys(run_ids)],
    )


def wake_awaiting(cursor: apsw.Cursor, run_id: RunId, key: int | None) -> None:
    """Make the runs due at once that wait for the end of this one; it awaits nothing any more itself."""
    bindings = {"run_id": str(run_id), "key": key}
    if cursor.execute(SELECT_CONCERNED, bindings).fetchall():
        cursor.execute(WAKE, (str(run_id),))
        cursor.execute(FORGET_WOKEN, (str(run_id),))
        cursor.execute(FORGET, (key,))
