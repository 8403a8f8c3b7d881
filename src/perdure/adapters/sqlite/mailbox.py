"""The rows of letters, each with a checksum over its place and its body."""

from __future__ import annotations

import zlib
from collections.abc import Collection, Sequence
from typing import Any

import apsw

from perdure.adapters.sqlite.legs import select_newest
from perdure.adapters.sqlite.runs import run_row
from perdure.errors import CorruptionError
from perdure.ids import RunId
from perdure.stores.letters import opened
from perdure.stores.ports import Letter
from perdure.stores.refusals import run_already_terminal, run_not_found

SELECT_ADDRESSED = "SELECT run_id FROM run WHERE key IN (SELECT run FROM letter)"
SELECT_UNREAD = """
    SELECT letter.id, letter.body, letter.sent_millis, letter.crc
    FROM letter JOIN run ON run.key = letter.run
    WHERE run.run_id = ? ORDER BY letter.key"""

_INSERT = """
    INSERT INTO letter (run, id, sent_millis, body, crc) VALUES (?, ?, ?, ?, ?) ON CONFLICT DO NOTHING"""
_MAKE_DUE = "UPDATE run SET due_millis = 0 WHERE key = ? AND due_millis IS NOT 0"


def insert_letter(cursor: apsw.Cursor, run_id: RunId, letter_id: str, body: bytes, now_millis: int) -> bool:
    """As ``Mailbox.post``."""
    row = run_row(cursor, run_id)
    if not row.head:
        raise run_not_found(run_id)
    if row.ended:
        newest = select_newest(cursor, run_id)
        row = run_row(cursor, newest)
        if row.ended:
            raise run_already_terminal(run_id)
        run_id = newest
    cursor.execute(
        _INSERT,
        (row.key, letter_id, now_millis, body, _crc(run_id, letter_id, now_millis, body)),
    )
    if not cursor.connection.changes():
        return False
    cursor.execute(_MAKE_DUE, (row.key,))
    return True


def select_unread(cursor: apsw.Cursor, run_id: RunId) -> list[Letter]:
    """As ``Mailbox.unread``; ``letter_corruption`` if one is not what was posted."""
    rows: list[Any] = cursor.execute(SELECT_UNREAD, (str(run_id),)).fetchall()
    for letter_id, body, sent_millis, crc in rows:
        if crc is not None and crc != _crc(run_id, letter_id, sent_millis, body):
            raise CorruptionError.of(
                "letter_corruption",
                "a stored letter is not what was posted",
                details={"run_id": str(run_id), "letter_id": letter_id},
            )
    return [opened(*row[:3]) for row in rows]


def select_addressed(cursor: apsw.Cursor, run_ids: Collection[RunId]) -> set[RunId]:
    """As ``Mailbox.addressed``. Letters that wait are few, runs that are asked for may be many."""
    rows: list[Any] = cursor.execute(SELECT_ADDRESSED).fetchall()
    return {RunId.trusted(row[0]) for row in rows}.intersection(run_ids)


def delete_letters(cursor: apsw.Cursor, run_id: RunId, letter_ids: Sequence[str]) -> None:
    """Take letters away; those that are not there are passed over."""
    cursor.executemany(
        "DELETE FROM letter WHERE run = (SELECT key FROM run WHERE run_id = ?) AND id = ?",
        [(str(run_id), str(each)) for each in letter_ids],
    )


def pass_letters_on(cursor: apsw.Cursor, run_id: RunId, heir: RunId, heir_key: int) -> None:
    """Have one run's letters be another's, in their order; raises as :func:`select_unread`."""
    letters = select_unread(cursor, run_id)
    if not letters:
        return
    bodies: list[Any] = cursor.execute(SELECT_UNREAD, (str(run_id),)).fetchall()
    cursor.executemany(
        _INSERT,
        [
            (heir_key, letter_id, sent_millis, body, _crc(heir, letter_id, sent_millis, body))
            for letter_id, body, sent_millis, _ in bodies
        ],
    )
    delete_letters(cursor, run_id, [letter.id for letter in letters])
    cursor.execute(_MAKE_DUE, (heir_key,))


def _crc(run_id: RunId, letter_id: str, sent_millis: int, body: bytes) -> int:
    place = f"{run_id}\0{letter_id}\0{sent_millis}".encode("utf-8", "surrogatepass")
    return zlib.crc32(body, zlib.crc32(place))
