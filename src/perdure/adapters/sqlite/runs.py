"""The rows of runs: who may append, and when somebody is to."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import apsw
import msgspec

from perdure.adapters.sqlite.awaiting import insert_awaited, select_ended
from perdure.adapters.sqlite.legs import select_newest
from perdure.ids import RunId
from perdure.stores.ports import Claim, Release

IS_BEGUN = "EXISTS (SELECT 1 FROM event WHERE event.run = run.key)"
"""The condition on a run's row that it has events; others were claimed and are nothing yet."""


class RunRow(msgspec.Struct, gc=False):
    """What is known of a run, kept up to date by work on it; one that nobody knows is free, in epoch 0."""

    key: int | None = None
    owner: str | None = None
    epoch: int = 0
    expires_millis: int = 0
    ended: bool = False
    due_millis: int | None = 0
    head: int = 0

    def is_held_by(self, claim: Claim) -> bool:
        """Whether ``claim`` is the durable one."""
        return self.epoch == claim.epoch and self.owner == claim.owner

    def is_idle_before(self, claim: Claim) -> bool:
        """Whether nobody has owned the unfinished run since ``claim`` was reserved, also not by it."""
        return self.owner is None and self.epoch == claim.epoch - 1 and not self.ended


def run_row(cursor: apsw.Cursor, run_id: RunId) -> RunRow:
    """The run's row."""
    query = """
        SELECT key, owner, epoch, expires_millis, ended, due_millis,
               (SELECT coalesce(max(seq), 0) FROM event WHERE event.run = run.key)
        FROM run WHERE run_id = ?"""
    rows: list[Any] = cursor.execute(query, (str(run_id),)).fetchall()
    return RunRow(*rows[0]) if rows else RunRow()


class KnownRows:
    """Rows of runs as the last transactions of this connection left them, which spares reading them again.

    Whoever changes rows in another way is noticed: other connections by ``PRAGMA data_version``, other work
    of this connection by its count of changes. What was rolled back is to be told by :meth:`forget`.
    """

    def __init__(self) -> None:
        self._rows: dict[RunId, RunRow] = {}
        self._data_version = 0
        self._changes = 0

    def begin(self, cursor: apsw.Cursor) -> None:
        """A transaction has begun."""
        version: int = cursor.execute("PRAGMA data_version").get
        if version != self._data_version:
            self._data_version = version
            self._rows.clear()

    def get(self, cursor: apsw.Cursor, run_id: RunId) -> RunRow | None:
        """The run's row, if it is known."""
        if cursor.connection.total_changes() != self._changes:
            self._rows.clear()
        return self._rows.get(run_id)

    def keep(self, cursor: apsw.Cursor, run_id: RunId, row: RunRow) -> None:
        """Take note of a run's row after changes that have left those of other runs alone."""
        self._changes = cursor.connection.total_changes()
        self._rows[run_id] = row

    def forget(self) -> None:
        """Know nothing any more."""
        self._rows.clear()


def make(cursor: apsw.Cursor, run_id: RunId, row: RunRow) -> int:
    """Insert the run's row if there is none yet; its key."""
    if row.key is None:
        cursor.execute("INSERT INTO run (run_id) VALUES (?)", (str(run_id),))
        row.key = cursor.connection.last_insert_rowid()
    return row.key


def take_new(cursor: apsw.Cursor, claim: Claim, expires_millis: int) -> RunRow | None:
    """Make ``claim`` the first one of a run that nobody knows; its row, or None if somebody does."""
    cursor.execute(
        """INSERT INTO run (run_id, owner, epoch, expires_millis) VALUES (?, ?, ?, ?)
           ON CONFLICT (run_id) DO NOTHING""",
        (str(claim.run_id), claim.owner, claim.epoch, expires_millis),
    )
    if not cursor.connection.changes():
        return None
    return RunRow(cursor.connection.last_insert_rowid(), claim.owner, claim.epoch, expires_millis)


def take(cursor: apsw.Cursor, claim: Claim, row: RunRow, expires_millis: int) -> None:
    """Make ``claim`` the durable one; ``row`` is the run's."""
    cursor.execute(
        "UPDATE run SET owner = ?, epoch = ?, expires_millis = ? WHERE key = ?",
        (claim.owner, claim.epoch, expires_millis, make(cursor, claim.run_id, row)),
    )
    row.owner, row.epoch, row.expires_millis = claim.owner, claim.epoch, expires_millis


def renew(cursor: apsw.Cursor, claims: Sequence[Claim], expires_millis: int) -> list[Claim]:
    """Prolong ``claims``; those that were lost."""
    lost: list[Claim] = []
    for claim in claims:
        cursor.execute(
            "UPDATE run SET expires_millis = ? WHERE run_id = ? AND owner = ? AND epoch = ?",
            (expires_millis, str(claim.run_id), claim.owner, claim.epoch),
        )
        if not cursor.connection.changes():
            lost.append(claim)
    return lost


def give_up(cursor: apsw.Cursor, claim: Claim, row: RunRow, release: Release) -> None:
    """Leave the run of ``row`` without an owner as ``release`` says, if ``claim`` is the durable one.

    A run with letters, or that waits for one that has ended, is due at once; one that has ended never.
    """
    heirs = {each: select_newest(cursor, each) for each in select_ended(cursor, release.awaits)}
    awaits = [heirs.get(each, each) for each in release.awaits]
    due_millis = 0 if select_ended(cursor, list(heirs.values())) else release.due_millis
    cursor.execute(
        """
        UPDATE run SET owner = NULL, due_millis = CASE
            WHEN ended THEN NULL
            WHEN EXISTS (SELECT 1 FROM letter WHERE letter.run = run.key) THEN 0
            ELSE ?
        END
        WHERE key = ? AND owner = ? AND epoch = ?""",
        (due_millis, row.key, claim.owner, claim.epoch),
    )
    if cursor.connection.changes() and not row.ended:
        insert_awaited(cursor, row.key, awaits if due_millis != 0 else ())


def make_due(cursor: apsw.Cursor, claim: Claim) -> None:
    """Make the run due at once for which ``claim`` was reserved, if nobody has owned it since."""
    cursor.execute(
        "UPDATE run SET due_millis = 0 WHERE run_id = ? AND owner IS NULL AND epoch = ? AND ended = 0",
        (str(claim.run_id), claim.epoch - 1),
    )
