"""The rows of events: one a run's stream and number, with a checksum over its place and its body."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import Any

import apsw

from perdure.adapters.sqlite.awaiting import wake_awaiting
from perdure.adapters.sqlite.heirs import pass_on
from perdure.adapters.sqlite.legs import insert_leg
from perdure.adapters.sqlite.runs import IS_BEGUN, RunRow, make
from perdure.errors import CorruptionError
from perdure.ids import RunId
from perdure.model.events import EventEnvelope, RunCompleted, is_engine_event
from perdure.model.legs import continued_by, heir_in
from perdure.model.wire import decode_events, encode_event
from perdure.stores.ports import Append
from perdure.stores.refusals import check_head

_SELECT = """
    SELECT event.seq, event.ts_millis, event.crc, event.body
    FROM event JOIN run ON run.key = event.run
    WHERE run.run_id = ? AND event.seq >= ?"""


_INSERT = "INSERT INTO event (run, seq, ts_millis, engine, crc, body) VALUES (?, ?, ?, ?, ?, ?)"
_PLACE = b",%d,%d,"


def insert_events(cursor: apsw.Cursor, append: Append, row: RunRow, now_millis: int) -> None:
    """Add ``append`` to the run of ``row``; ``event_store_concurrency`` if its expectation is stale."""
    check_head(append, row.head)
    events = append.events
    if not events:
        return
    key, head, run_crc = make(cursor, append.run_id, row), row.head, zlib.crc32(append.run_id.encode())
    rows = []
    for seq, event in enumerate(events, head + 1):
        body = encode_event(event)
        crc = zlib.crc32(body, zlib.crc32(_PLACE % (seq, now_millis), run_crc))
        rows.append((key, seq, now_millis, is_engine_event(event), crc, body))
    cursor.executemany(_INSERT, rows)
    row.head = head + len(rows)
    if not head and (continued := continued_by(events[0])) is not None:
        insert_leg(cursor, key, continued)
    if RunCompleted in map(type, events):
        row.ended = True
        cursor.execute("UPDATE run SET ended = 1, due_millis = NULL WHERE key = ?", (key,))
        if heir_in(events) is None or not pass_on(cursor, append.run_id, key):
            wake_awaiting(cursor, append.run_id, key)


def select_range(
    cursor: apsw.Cursor, run_id: RunId, from_seq: int, to_seq: int | None
) -> list[EventEnvelope]:
    """The events from ``from_seq`` to ``to_seq``; ``event_sequence_gap`` if one is missing."""
    condition, bindings = ("", ()) if to_seq is None else (" AND event.seq <= ?", (to_seq,))
    rows = _selected(cursor, condition, (str(run_id), from_seq, *bindings, -1))
    for expected, row in enumerate(rows, max(from_seq, 1)):
        if row[0] != expected:
            raise CorruptionError.of(
                "event_sequence_gap",
                "an event of the stream is missing",
                details={"run_id": str(run_id), "seq": expected},
            )
    return envelopes(run_id, rows)


def select_engine_events(
    cursor: apsw.Cursor, run_id: RunId, from_seq: int, limit: int
) -> list[EventEnvelope]:
    """The first ``limit`` kernel and engine events from ``from_seq`` on."""
    return envelopes(run_id, _selected(cursor, " AND event.engine = 1", (str(run_id), from_seq, limit)))


def select_runs(cursor: apsw.Cursor, after: RunId | None, limit: int, *, unfinished: bool) -> list[RunId]:
    """Runs with events, the one begun last first: keys are given out in the order of beginning."""
    conditions = [IS_BEGUN, "ended < 2"]
    conditions += ["ended = 0"] if unfinished else []
    conditions += [f"key < (SELECT key FROM run WHERE run_id = :after AND {IS_BEGUN})"] if after else []
    query = f"SELECT run_id FROM run WHERE {' AND '.join(conditions)} ORDER BY key DESC LIMIT :limit"
    rows: list[Any] = cursor.execute(query, {"after": after and str(after), "limit": limit}).fetchall()
    return [RunId.trusted(row[0]) for row in rows]


def _selected(cursor: apsw.Cursor, condition: str, bindings: tuple[Any, ...]) -> list[Any]:
    query = f"{_SELECT}{condition} ORDER BY event.seq LIMIT ?"
    rows: list[Any] = cursor.execute(query, bindings).fetchall()
    return rows


def envelopes(run_id: RunId, rows: Sequence[Any]) -> list[EventEnvelope]:
    """The events of rows ``(seq, ts_millis, crc, body)``; ``event_corruption`` for one that is damaged."""
    crc32, run_crc = zlib.crc32, zlib.crc32(run_id.encode())
    for seq, ts_millis, crc, body in rows:
        if crc32(body, crc32(_PLACE % (seq, ts_millis), run_crc)) != crc:
            raise CorruptionError.of(
                "event_corruption",
                "a stored event is not what was written",
                details={"run_id": str(run_id), "seq": seq},
            )
    events = decode_events([row[3] for row in rows])
    return [EventEnvelope(run_id, row[0], row[1], event) for row, event in zip(rows, events, strict=True)]
