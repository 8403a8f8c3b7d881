"""The ports over SQLite."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Coroutine, Sequence
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import apsw

from perdure.adapters.sqlite.agenda import Moment, select_due, select_next_due_millis
from perdure.adapters.sqlite.artifacts import (
    artifact_exists,
    select_artifact,
    select_rows,
)
from perdure.adapters.sqlite.database import (
    BUSY_TIMEOUT_MILLIS,
    open_for_reading,
    schema_version,
    translate,
)
from perdure.adapters.sqlite.describing import select_described
from perdure.adapters.sqlite.events import (
    select_engine_events,
    select_range,
    select_runs,
)
from perdure.adapters.sqlite.files import ArtifactFiles, FileGoneError
from perdure.adapters.sqlite.keeping import SqliteKeeping
from perdure.adapters.sqlite.legs import select_newest
from perdure.adapters.sqlite.liveness import OwnerLock
from perdure.adapters.sqlite.mailbox import (
    insert_letter,
    select_addressed,
    select_unread,
)
from perdure.adapters.sqlite.runs import give_up, make_due, renew, run_row
from perdure.adapters.sqlite.schedules import SqliteSchedules
from perdure.adapters.sqlite.worker import Job, Worker
from perdure.adapters.sqlite.writing import Writing, expiry
from perdure.clock import Clock, SystemClock
from perdure.errors import Json
from perdure.failpoints import NO_FAILPOINTS, Failpoints
from perdure.ids import ArtifactId, RunId
from perdure.model.events import ArtifactKind, Event, EventEnvelope
from perdure.stores.bodies import encode_body
from perdure.stores.paths import checked_path
from perdure.stores.ports import Append, Blob, Claim, Committed, Letter, Release, Row
from perdure.stores.refusals import run_already_active
from perdure.stores.uninterrupted import uninterrupted

T = TypeVar("T")

FILE_THRESHOLD_BYTES = 1 << 20


class SqliteStore:
    """All ports over one file; any number of processes may open it.

    Transactions of other processes are waited for ``busy_timeout_millis`` at most.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        clock: Clock | None = None,
        file_threshold_bytes: int = FILE_THRESHOLD_BYTES,
        failpoints: Failpoints | None = None,
        busy_timeout_millis: int = BUSY_TIMEOUT_MILLIS,
    ) -> None:
        self.path = checked_path(path)
        self._clock = clock or SystemClock()
        self._file_threshold_bytes = file_threshold_bytes
        self._failpoints = failpoints or NO_FAILPOINTS
        self._version_before = schema_version(self.path)
        self._files = ArtifactFiles(self.path.with_name(self.path.name + ".artifacts"), self._clock)
        self._writing = Writing(
            self.path, self._files, self._clock, file_threshold_bytes, busy_timeout_millis, self._is_free
        )
        self._reading = open_for_reading(self.path)
        self._read_cursor = self._reading.cursor()
        self._lock = OwnerLock(self.path.with_name(self.path.name + ".lock"))
        # The epoch for which each run is reserved, 0 until it is known.
        self._claimed: dict[RunId, int] = {}
        self._insert = self._writing.insert
        self._writer = Worker("perdure-sqlite-writer", self._writing.begin, self._writing.finish)
        self._reader = Worker("perdure-sqlite-reader", self._read_batch)
        self.schedules = SqliteSchedules(self._reader.run_soon, self._write)
        self._closed = False
        self.keeping = SqliteKeeping(
            self.path,
            self._files,
            self._clock,
            self._failpoints,
            self._reader.run,
            self._writer.run,
            self._is_free,
        )

    @property
    def commits(self) -> int:
        """The transactions that this handle has committed."""
        return self._writing.commits

    # Events

    async def head_seq(self, run_id: RunId) -> int:
        return await self._reader.run_soon(lambda cursor: run_row(cursor, run_id).head)

    async def append(
        self, run_id: RunId, expected_seq: int, events: Sequence[Event], claim: Claim | None = None
    ) -> int:
        committed = await self.commit((), (Append(run_id, expected_seq, events),), claim)
        return committed.heads[0]

    async def read_range(
        self, run_id: RunId, from_seq: int, to_seq: int | None = None
    ) -> list[EventEnvelope]:
        return await self._reader.run(lambda cursor: select_range(cursor, run_id, from_seq, to_seq))

    async def read_engine_events(self, run_id: RunId, from_seq: int, limit: int) -> list[EventEnvelope]:
        return await self._reader.run(lambda cursor: select_engine_events(cursor, run_id, from_seq, limit))

    async def list_runs(
        self, after: RunId | None = None, limit: int = 100, *, unfinished: bool = False
    ) -> list[RunId]:
        return await self._reader.run(lambda cursor: select_runs(cursor, after, limit, unfinished=unfinished))

    async def newest_leg(self, run_id: RunId) -> RunId:
        return await self._reader.run_soon(lambda cursor: select_newest(cursor, run_id))

    # Artifacts

    async def put(self, kind: ArtifactKind, data: bytes) -> ArtifactId:
        return (await self.commit((Blob(kind, data),), ())).artifact_ids[0]

    async def get(self, artifact_id: ArtifactId) -> bytes:
        return await self._reader.run(lambda cursor: select_artifact(cursor, self._files, artifact_id))

    async def rows(self, artifact_ids: Sequence[ArtifactId]) -> dict[ArtifactId, Row]:
        return await self._reader.run(lambda cursor: select_rows(cursor, self._files, artifact_ids))

    async def exists(self, artifact_id: ArtifactId) -> bool:
        return await self._reader.run_soon(lambda cursor: artifact_exists(cursor, artifact_id))

    # Claims

    async def acquire(self, run_id: RunId, owner: str, ttl: timedelta) -> Claim:
        if run_id in self._claimed:
            raise run_already_active(run_id)
        # Taken before the file is asked, so that a second caller in this process sees it at once.
        self._claimed[run_id] = 0
        try:
            row = await self._reader.run_soon(lambda cursor: run_row(cursor, run_id))
            if not self._is_free(row.owner, row.expires_millis):
                raise run_already_active(run_id)
            # Runs that are started together know of each other before the first one commits.
            await asyncio.sleep(0)
        except BaseException:
            del self._claimed[run_id]
            raise
        self._claimed[run_id] = row.epoch + 1
        return Claim(run_id, self._lock.name, row.epoch + 1)

    def renew(self, claims: Sequence[Claim], ttl: timedelta) -> list[Claim]:
        return self._writer.run_blocking(lambda cursor: renew(cursor, claims, expiry(self._clock, ttl)))

    async def release(self, claim: Claim) -> None:
        # The run may be somebody else's by now, also in this process.
        if not self._forget(claim):
            return
        row = await self._reader.run_soon(lambda cursor: run_row(cursor, claim.run_id))
        if row.is_held_by(claim):
            await self._write(lambda cursor: give_up(cursor, claim, row, Release()))
        elif row.is_idle_before(claim) and row.due_millis != 0:
            await self._write(lambda cursor: make_due(cursor, claim))

    # Letters

    async def post(self, run_id: RunId, letter_id: str, body: Json) -> bool:
        data = encode_body(body)
        return await self._write(
            lambda cursor: insert_letter(cursor, run_id, str(letter_id), data, self._clock.now_millis())
        )

    async def unread(self, run_id: RunId) -> list[Letter]:
        return await self._reader.run_soon(lambda cursor: select_unread(cursor, run_id))

    async def addressed(self, run_ids: Collection[RunId]) -> set[RunId]:
        return await self._reader.run_soon(lambda cursor: select_addressed(cursor, run_ids))

    # Due runs

    async def due_runs(
        self, limit: int, *, within_millis: int = 0, among: Collection[RunId] | None = None
    ) -> list[RunId]:
        now = self._clock.now_millis()
        moment = Moment(now, now + within_millis, self._lock.name)
        return await self._reader.run(
            lambda cursor: select_due(cursor, limit, moment, among, self._claimed, self._is_free)
        )

    async def next_due_millis(self) -> int | None:
        return await self._reader.run_soon(lambda cursor: select_next_due_millis(cursor, self._claimed))

    # Commit

    def commit(
        self,
        artifacts: Sequence[Blob],
        appends: Sequence[Append],
        claim: Claim | None = None,
        *,
        release: Release | None = None,
        read: Sequence[str] = (),
    ) -> Coroutine[Any, Any, Committed]:
        for blob in artifacts:
            if len(blob.data) > self._file_threshold_bytes:
                return uninterrupted(self._commit_large(artifacts, appends, claim, release, read))
        return self._commit(artifacts, appends, claim, release, read)

    async def _commit_large(
        self,
        artifacts: Sequence[Blob],
        appends: Sequence[Append],
        claim: Claim | None,
        release: Release | None,
        read: Sequence[str],
    ) -> Committed:
        large = [blob for blob in artifacts if len(blob.data) > self._file_threshold_bytes]
        while True:
            await asyncio.to_thread(self._write_files, large)
            try:
                return await self._commit(artifacts, appends, claim, release, read, large)
            except FileGoneError:  # swept in between; it is fresh now, and will not be again
                continue

    def _commit(
        self,
        artifacts: Sequence[Blob],
        appends: Sequence[Append],
        claim: Claim | None,
        release: Release | None,
        read: Sequence[str],
        large: Sequence[Blob] = (),
    ) -> Coroutine[Any, Any, Committed]:
        insert = partial(self._insert, artifacts, appends, claim, release, read, large)
        committing = self._write(insert)
        return committing if release is None or claim is None else self._forgetting(claim, committing)

    async def _forgetting(self, claim: Claim, committing: Awaitable[Committed]) -> Committed:
        committed = await committing
        self._forget(claim)
        return committed

    async def describe(self) -> Json:
        """As ``Stores.describe``."""
        described: Json = await self._reader.run(
            lambda cursor: select_described(cursor, self.path, self._files.all())
        )
        return described | {"schema_version_before": self._version_before}

    async def close(self) -> None:
        """Finish what waits, and let go of the file."""
        if self._closed:
            return
        self._closed = True
        self._writer.close()
        self._reader.close()
        self._reading.close()
        self._writing.close()
        self._lock.close()

    def _write_files(self, blobs: Sequence[Blob]) -> None:
        for blob in blobs:
            self._files.write(blob.id, blob.data)
            self._failpoints.hit("artifact_file.after")

    def _write(self, work: Callable[[apsw.Cursor], T]) -> Coroutine[Any, Any, T]:
        """The result of ``work``. Several runs share a thread's transactions; one alone waits for nobody."""
        if len(self._claimed) <= 1:
            return self._writer.run_soon(work)
        return self._writer.run(work, is_short=True)

    def _forget(self, claim: Claim) -> bool:
        """Whether ``claim`` was what this process had of its run; it no more is."""
        if self._claimed.get(claim.run_id) != claim.epoch:
            return False
        del self._claimed[claim.run_id]
        return True

    def _is_free(self, owner: str | None, expires_millis: int) -> bool:
        return owner is None or expires_millis <= self._clock.now_millis() or self._lock.is_dead(owner)

    def _read_batch(self, jobs: Sequence[Job], may_wait: bool) -> bool:
        for job in jobs:
            try:
                job.result = job.work(self._read_cursor)
            except apsw.Error as error:
                job.error = translate(error, self.path)
            except Exception as error:  # noqa: BLE001 — it is the caller's; the thread's other callers wait
                job.error = error
        return True
