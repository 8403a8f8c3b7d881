"""The rows of runs that are to go: out of sight in one transaction, and out of the file in short ones."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Sequence
from typing import Any, NamedTuple

import apsw

from perdure.adapters.sqlite.awaiting import FORGET, as_array
from perdure.adapters.sqlite.events import envelopes
from perdure.adapters.sqlite.runs import run_row
from perdure.ids import RunId
from perdure.model.events import EventEnvelope, RunCompleted, RunStatus
from perdure.stores.keeping import RunTrace
from perdure.stores.ports import Row
from perdure.stores.traces import manifest_in, trace_of

SECONDS_MAX = 0.005
"""After so long a transaction takes no more work on: others wait for it."""
_EVENTS = 100
_TRACES = 500

_ENDED = 1

SELECT_PAGE = """
    SELECT key, run_id, ended, owner, expires_millis FROM run
    WHERE key < ? AND ended < 2 ORDER BY key DESC LIMIT ?"""
SELECT_ENDS = """
    SELECT seq, ts_millis, crc, body FROM event WHERE run = :key AND seq IN (
        SELECT min(seq) FROM event WHERE run = :key UNION ALL SELECT max(seq) FROM event WHERE run = :key)
    ORDER BY seq"""
SELECT_COMPLETED = """
    SELECT seq, ts_millis, crc, body FROM event
    WHERE run = ? AND engine = 1 AND substr(CAST(body AS TEXT), 1, 25) = '{"Kernel":{"RunCompleted"'
    ORDER BY seq LIMIT 1"""
HIDE = """
    UPDATE run SET run_id = 'deleted-' || key, ended = 2, owner = NULL, due_millis = NULL, first_leg = NULL
    WHERE key = ?"""

IsFree = Callable[[str | None, int], bool]


class Measured(NamedTuple):
    """A run's events, and their bytes."""

    events: int
    bytes: int


def select_traces(cursor: apsw.Cursor, before_key: int, is_free: IsFree) -> tuple[int, list[RunTrace]]:
    """Runs before ``before_key``, the one begun last first; and the key to go on with, 0 after the last."""
    rows: list[Any] = cursor.execute(SELECT_PAGE, (before_key, _TRACES)).fetchall()
    traces = []
    for key, run_id, ended, owner, expires_millis in rows:
        ends = _envelopes(cursor, RunId.trusted(run_id), SELECT_ENDS, {"key": key})
        if ends:
            status = _status(cursor, key, ends[-1]) if ended else None
            is_owned = not is_free(owner, expires_millis)
            manifest = _manifest(cursor, ends[0])
            traces.append(trace_of(ends[0], ends[-1], status, manifest, is_owned=is_owned))
    return (rows[-1][0] if len(rows) == _TRACES else 0), traces


def _manifest(cursor: apsw.Cursor, first: EventEnvelope) -> Row | None:
    named = manifest_in(first)
    if named is None:
        return None
    query = "SELECT recipe, data FROM artifact WHERE id = ?"
    rows: list[Any] = cursor.execute(query, (bytes.fromhex(named),)).fetchall()
    # One that is in a file is as large as one that is in parts.
    return Row(bool(rows[0][0]) or rows[0][1] is None, rows[0][1] or b"") if rows else None


def _status(cursor: apsw.Cursor, key: int, last: EventEnvelope) -> RunStatus | None:
    if isinstance(last.event, RunCompleted):
        return last.event.status
    # Other engines may have written on.
    ends = _envelopes(cursor, last.run_id, SELECT_COMPLETED, (key,))
    event = ends[0].event if ends else None
    return event.status if isinstance(event, RunCompleted) else None


def _envelopes(cursor: apsw.Cursor, run_id: RunId, query: str, bindings: Any) -> list[EventEnvelope]:
    return envelopes(run_id, cursor.execute(query, bindings).fetchall())


def measured(cursor: apsw.Cursor, run_ids: Collection[RunId], is_free: IsFree) -> dict[RunId, Measured]:
    """Those of ``run_ids`` that can be deleted, with how much they hold."""
    query = """
        SELECT run_id, owner, expires_millis,
               (SELECT count(*) FROM event WHERE event.run = run.key),
               (SELECT coalesce(sum(length(body)), 0) FROM event WHERE event.run = run.key)
        FROM run WHERE ended = 1 AND run_id IN (SELECT value FROM json_each(?))"""
    rows: list[Any] = cursor.execute(query, (as_array(run_ids),)).fetchall()
    return {
        RunId.trusted(run_id): Measured(events, size)
        for run_id, owner, expires_millis, events, size in rows
        if is_free(owner, expires_millis)
    }


def hide_runs(cursor: apsw.Cursor, run_ids: Sequence[RunId], is_free: IsFree) -> list[RunId]:
    """Make runs unknown, with their letters and what they await; those that were ended and nobody's."""
    hidden = []
    for run_id in run_ids:
        row = run_row(cursor, run_id)
        if row.key is None or row.ended != _ENDED or not is_free(row.owner, row.expires_millis):
            continue
        cursor.execute("DELETE FROM letter WHERE run = ?", (row.key,))
        cursor.execute(FORGET, (row.key,))
        cursor.execute(HIDE, (row.key,))
        hidden.append(run_id)
    return hidden


def purge(cursor: apsw.Cursor) -> bool:
    """Take events of hidden runs away, and the rows of those that have none left; whether all is done."""
    until = time.perf_counter() + SECONDS_MAX
    while True:
        rows: list[Any] = cursor.execute("SELECT key FROM run WHERE ended = 2 LIMIT 1").fetchall()
        if not rows:
            return True
        (key,) = rows[0]
        bounds: list[Any] = cursor.execute("SELECT min(seq) FROM event WHERE run = ?", (key,)).fetchall()
        if bounds[0][0] is None:
            cursor.execute("DELETE FROM run WHERE key = ?", (key,))
        else:
            cursor.execute("DELETE FROM event WHERE run = ? AND seq < ?", (key, bounds[0][0] + _EVENTS))
        if time.perf_counter() > until:
            return False
