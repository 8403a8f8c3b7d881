"""The connection that writes: what several want to have written shares a transaction."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import timedelta
from pathlib import Path

import apsw

from perdure.adapters.sqlite.artifacts import insert_artifacts
from perdure.adapters.sqlite.database import open_database, translate
from perdure.adapters.sqlite.events import insert_events
from perdure.adapters.sqlite.files import ArtifactFiles
from perdure.adapters.sqlite.mailbox import delete_letters
from perdure.adapters.sqlite.runs import KnownRows, RunRow, give_up, run_row, take, take_new
from perdure.adapters.sqlite.worker import Job
from perdure.clock import Clock
from perdure.stores.ports import Append, Blob, Claim, Committed, Release
from perdure.stores.refusals import claim_lost

CLAIM_FIRST_TTL = timedelta(seconds=30)
"""How long a claim holds that was never renewed; the keeper renews it well before."""


class Writing:
    """A connection for writing, and what it does in batches.

    ``commits`` counts its transactions. Those of other processes are waited for ``busy_timeout_millis`` at
    most. ``is_free`` says whether a run with this owner, until this moment, may be claimed by another.
    """

    def __init__(
        self,
        path: Path,
        files: ArtifactFiles,
        clock: Clock,
        file_threshold_bytes: int,
        busy_timeout_millis: int,
        is_free: Callable[[str | None, int], bool],
    ) -> None:
        self.commits = 0
        self._path = path
        self.connection = open_database(path)
        self._files = files
        self._clock = clock
        self._file_threshold_bytes = file_threshold_bytes
        self._busy_timeout_millis = busy_timeout_millis
        self._is_free = is_free
        self._known = KnownRows()
        self._cursor = self.connection.cursor()

    def close(self) -> None:
        """Let go of the file."""
        self.connection.close()

    def begin(self, jobs: Sequence[Job], may_wait: bool) -> bool:
        """Do the jobs in a transaction; one that is refused is undone alone.

        False, and nothing done, if another process writes and is not to be waited for.
        """
        connection, cursor = self.connection, self._cursor
        if connection.in_transaction:  # an interrupt came after a batch was begun, and it is done again
            self._undo()
        connection.set_busy_timeout(self._busy_timeout_millis if may_wait else 0)
        try:
            cursor.execute("BEGIN IMMEDIATE")
            self._known.begin(cursor)
            try:
                for job in jobs:
                    job.result = job.work(cursor)
            except Exception as error:
                if _is_everybodys(error):
                    raise
                # Rare: all of them once more, each so that it can be undone.
                cursor.execute("ROLLBACK")
                self._known.forget()
                cursor.execute("BEGIN IMMEDIATE")
                for job in jobs:
                    self._write_one(cursor, job)
        except BaseException as error:
            self._undo()
            if isinstance(error, apsw.BusyError) and not may_wait:
                return False
            if not isinstance(error, apsw.Error):
                raise
            self._fail(jobs, error)
        return True

    def finish(self, jobs: Sequence[Job]) -> None:
        """Commit what was begun."""
        if not self.connection.in_transaction:
            return  # nothing was: the jobs have failed
        try:
            self._cursor.execute("COMMIT")
            self.commits += 1
        except apsw.Error as error:
            self._undo()
            self._fail(jobs, error)

    def _undo(self) -> None:
        self._known.forget()
        if self.connection.in_transaction:
            self._cursor.execute("ROLLBACK")

    def _fail(self, jobs: Sequence[Job], error: apsw.Error) -> None:
        for job in jobs:
            job.error = job.error or translate(error, self._path)

    def _write_one(self, cursor: apsw.Cursor, job: Job) -> None:
        cursor.execute("SAVEPOINT job")
        job.error = None
        try:
            job.result = job.work(cursor)
        except Exception as error:
            if _is_everybodys(error):
                raise
            job.error = error
            self._known.forget()
            cursor.execute("ROLLBACK TO job")
        cursor.execute("RELEASE job")

    def insert(
        self,
        artifacts: Sequence[Blob],
        appends: Sequence[Append],
        claim: Claim | None,
        release: Release | None,
        read: Sequence[str],
        large: Sequence[Blob],
        cursor: apsw.Cursor,
    ) -> Committed:
        """Do what a commit asks for, in the transaction that is open."""
        now = self._clock.now_millis()
        if large:
            self._files.require(blob.id for blob in large)
        if claim is None:
            run_id, held = None, None
        else:
            run_id = claim.run_id
            held = self._known.get(cursor, run_id)
            if held is None and claim.epoch == 1 and appends and not appends[-1].expected_seq:
                # Most runs that begin are new, which the database says as it takes the row.
                held = take_new(cursor, claim, expiry(self._clock, CLAIM_FIRST_TTL))
            if held is None:
                held = run_row(cursor, run_id)
            if not held.is_held_by(claim):
                self._hold(cursor, claim, held)
            if read:  # first: what is left passes on with the end of a run that goes on as another
                delete_letters(cursor, run_id, read)
        insert_artifacts(cursor, artifacts, self._file_threshold_bytes, now)
        heads = []
        is_alone = True
        for append in appends:
            row = held
            if row is None or append.run_id != run_id:
                row, is_alone = run_row(cursor, append.run_id), False
            insert_events(cursor, append, row, now)
            heads.append(row.head)
        if claim is not None and held is not None:
            if release is not None:
                give_up(cursor, claim, held, release)
                if release.heir is not None:
                    self._hold(cursor, release.heir, run_row(cursor, release.heir.run_id))
            elif is_alone:
                self._known.keep(cursor, claim.run_id, held)
        return Committed([blob.id for blob in artifacts], heads)

    def _hold(self, cursor: apsw.Cursor, claim: Claim, row: RunRow) -> None:
        """Make a claim durable with the first commit that carries it, if the run is still free."""
        if row.epoch != claim.epoch - 1 or not self._is_free(row.owner, row.expires_millis):
            raise claim_lost(claim)
        take(cursor, claim, row, expiry(self._clock, CLAIM_FIRST_TTL))


def expiry(clock: Clock, ttl: timedelta) -> int:
    """The moment until which a claim holds that is made or renewed now."""
    return clock.now_millis() + ttl // timedelta(milliseconds=1)


def _is_everybodys(error: Exception) -> bool:
    """Whether the database failed, and not one job in it."""
    return isinstance(error, apsw.Error) and not isinstance(error, apsw.ConstraintError)
