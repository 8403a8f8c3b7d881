"""The ports over SQLite."""

from __future__ import annotations

import asyncio
import time
import zlib
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple

import apsw

from perdure.adapters.sqlite.database import (
    BUSY_TIMEOUT_MILLIS,
    open_database,
    open_for_reading,
    schema_version,
    translate,
)
from perdure.adapters.sqlite.files import ArtifactFiles
from perdure.adapters.sqlite.liveness import OwnerLock
from perdure.adapters.sqlite.worker import Job, Worker
from perdure.canonical import artifact_id_for_bytes
from perdure.clock import Clock, SystemClock
from perdure.errors import CorruptionError, Json, PerdureError
from perdure.failpoints import Failpoints
from perdure.ids import ArtifactId, RunId
from perdure.model.events import ArtifactKind, Event, EventEnvelope, RunCompleted, is_engine_event
from perdure.model.wire import decode_events, encode_event
from perdure.stores.ports import Append, Blob, Claim, Committed, RecipeBlob, Release, Row
from perdure.stores.refusals import (
    artifact_corruption,
    artifact_not_found,
    check_head,
    claim_lost,
    run_already_active,
)
from perdure.stores.uninterrupted import uninterrupted

FILE_THRESHOLD_BYTES = 1 << 20
_RENEWAL_MILLIS = 60_000
_BATCH = 500
_SELECT_EVENTS = """
    SELECT event.seq, event.ts_millis, event.crc, event.body
    FROM event JOIN run ON run.key = event.run
    WHERE run.run_id = ? AND event.seq >= ?"""

_COUNTS = """
    SELECT (SELECT user_version FROM pragma_user_version),
           (SELECT count(*) FROM run), (SELECT count(*) FROM run WHERE ended = 0),
           (SELECT count(*) FROM event), (SELECT count(*) FROM artifact),
           (SELECT coalesce(sum(size), 0) FROM artifact)"""


class SqliteStore:
    """All four ports over one file; any number of processes may open it.

    ``commits`` counts the transactions that this handle has committed. Transactions of other processes are
    waited for ``busy_timeout_millis`` at most.
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
        self.path = Path(path)
        self._busy_timeout_millis = busy_timeout_millis
        self.commits = 0
        self._clock = clock or SystemClock()
        self._file_threshold_bytes = file_threshold_bytes
        self._failpoints = failpoints or Failpoints()
        self._version_before = schema_version(self.path)
        self._connection = open_database(self.path)
        self._reading = open_for_reading(self.path)
        self._files = ArtifactFiles(self.path.with_name(self.path.name + ".artifacts"))
        self._lock = OwnerLock(self.path.with_name(self.path.name + ".lock"))
        self._claimed: set[RunId] = set()
        self._writer = Worker("perdure-sqlite-writer", self._write_batch)
        self._reader = Worker("perdure-sqlite-reader", self._read_batch)
        self._closed = False

    # Events

    async def head_seq(self, run_id: RunId) -> int:
        return await self._reader.run_soon(lambda connection: _run_row(connection, run_id).head)

    async def append(
        self, run_id: RunId, expected_seq: int, events: Sequence[Event], claim: Claim | None = None
    ) -> int:
        committed = await self.commit((), (Append(run_id, expected_seq, events),), claim)
        return committed.heads[0]

    async def read_range(
        self, run_id: RunId, from_seq: int, to_seq: int | None = None
    ) -> list[EventEnvelope]:
        condition, bindings = ("", ()) if to_seq is None else (" AND event.seq <= ?", (to_seq,))
        rows = await self._select_events(run_id, from_seq, condition, bindings)
        for expected, row in enumerate(rows, max(from_seq, 1)):
            if row[0] != expected:
                raise CorruptionError.of(
                    "event_sequence_gap",
                    "an event of the stream is missing",
                    details={"run_id": str(run_id), "seq": expected},
                )
        return _envelopes(run_id, rows)

    async def read_engine_events(self, run_id: RunId, from_seq: int, limit: int) -> list[EventEnvelope]:
        rows = await self._select_events(run_id, from_seq, " AND event.engine = 1", (), limit)
        return _envelopes(run_id, rows)

    async def list_runs(
        self, after: RunId | None = None, limit: int = 100, *, unfinished: bool = False
    ) -> list[RunId]:
        # Keys are given out in the order in which runs are begun.
        begun = "EXISTS (SELECT 1 FROM event WHERE event.run = run.key)"
        conditions = [begun]
        conditions += ["ended = 0"] if unfinished else []
        conditions += [f"key < (SELECT key FROM run WHERE run_id = :after AND {begun})"] if after else []
        query = f"SELECT run_id FROM run WHERE {' AND '.join(conditions)} ORDER BY key DESC LIMIT :limit"
        bindings = {"after": after and str(after), "limit": limit}
        rows: list[Any] = await self._reader.run(
            lambda connection: connection.execute(query, bindings).fetchall()
        )
        return [RunId.trusted(row[0]) for row in rows]

    # Artifacts

    async def put(self, kind: ArtifactKind, data: bytes) -> ArtifactId:
        return (await self.commit((Blob(kind, data),), ())).artifact_ids[0]

    async def get(self, artifact_id: ArtifactId) -> bytes:
        def read(connection: apsw.Connection) -> bytes:
            query = "SELECT data FROM artifact WHERE id = ? AND NOT recipe"
            rows: list[Any] = connection.execute(query, (_key(artifact_id),)).fetchall()
            if not rows:
                raise artifact_not_found(artifact_id)
            data: bytes | None = self._files.read(artifact_id) if rows[0][0] is None else rows[0][0]
            if data is None or artifact_id_for_bytes(data) != artifact_id:
                raise artifact_corruption(artifact_id)
            return data

        return await self._reader.run(read)

    async def rows(self, artifact_ids: Sequence[ArtifactId]) -> dict[ArtifactId, Row]:
        def read(connection: apsw.Connection) -> dict[ArtifactId, Row]:
            found: dict[ArtifactId, Row] = {}
            for begin in range(0, len(artifact_ids), _BATCH):
                batch = artifact_ids[begin : begin + _BATCH]
                places = ",".join("?" * len(batch))
                query = f"SELECT id, recipe, data FROM artifact WHERE id IN ({places})"
                for key, is_recipe, kept in connection.execute(query, tuple(map(_key, batch))):
                    artifact_id = ArtifactId.trusted(key.hex())
                    data = self._files.read(artifact_id) if kept is None else kept
                    if data is not None:
                        found[artifact_id] = Row(bool(is_recipe), data)
            return found

        return await self._reader.run(read)

    async def exists(self, artifact_id: ArtifactId) -> bool:
        query = "SELECT 1 FROM artifact WHERE id = ?"
        return await self._reader.run_soon(
            lambda connection: bool(connection.execute(query, (_key(artifact_id),)).fetchall())
        )

    # Claims

    async def acquire(self, run_id: RunId, owner: str, ttl: timedelta) -> Claim:
        if run_id in self._claimed:
            raise run_already_active(run_id)
        # Taken before the file is asked, so that a second caller in this process sees it at once.
        self._claimed.add(run_id)
        try:
            row = await self._reader.run_soon(lambda connection: _run_row(connection, run_id))
            if not self._is_free(row.owner, row.expires_millis):
                raise run_already_active(run_id)
            # Runs that are started together know of each other before the first one commits.
            await asyncio.sleep(0)
        except BaseException:
            self._claimed.discard(run_id)
            raise
        return Claim(run_id, self._lock.name, row.epoch + 1)

    def renew(self, claims: Sequence[Claim], ttl: timedelta) -> list[Claim]:
        def write(connection: apsw.Connection) -> list[Claim]:
            lost: list[Claim] = []
            for claim in claims:
                connection.execute(
                    "UPDATE run SET expires_millis = ? WHERE run_id = ? AND owner = ? AND epoch = ?",
                    (self._expiry(ttl), str(claim.run_id), claim.owner, claim.epoch),
                )
                if not connection.changes():
                    lost.append(claim)
            return lost

        return self._writer.run_blocking(write)

    async def release(self, claim: Claim) -> None:
        if claim.run_id not in self._claimed:
            return
        self._claimed.discard(claim.run_id)
        row = await self._reader.run_soon(lambda connection: _run_row(connection, claim.run_id))
        if (row.owner, row.epoch) == (claim.owner, claim.epoch):
            await self._writer.run(lambda connection: _give_up(connection, claim))

    # Commit

    async def commit(
        self,
        artifacts: Sequence[Blob],
        appends: Sequence[Append],
        claim: Claim | None = None,
        *,
        release: Release | None = None,
        read: Sequence[str] = (),
    ) -> Committed:
        large = [blob for blob in artifacts if len(blob.data) > self._file_threshold_bytes]
        if large:
            return await uninterrupted(self._commit_large(large, artifacts, appends, claim, release))
        return await self._commit(artifacts, appends, claim, release)

    async def _commit_large(
        self,
        large: Sequence[Blob],
        artifacts: Sequence[Blob],
        appends: Sequence[Append],
        claim: Claim | None,
        release: Release | None,
    ) -> Committed:
        await asyncio.to_thread(self._write_files, large)
        return await self._commit(artifacts, appends, claim, release)

    async def _commit(
        self,
        artifacts: Sequence[Blob],
        appends: Sequence[Append],
        claim: Claim | None,
        release: Release | None,
    ) -> Committed:
        encoded = [
            [(is_engine_event(event), encode_event(event)) for event in append.events] for append in appends
        ]

        def write(connection: apsw.Connection) -> Committed:
            rows: dict[RunId, _RunRow] = {}
            if claim is not None:
                rows[claim.run_id] = self._hold(connection, claim, _run_row(connection, claim.run_id))
            self._insert_artifacts(connection, artifacts)
            heads = []
            for append, events in zip(appends, encoded, strict=True):
                row = rows.get(append.run_id) or _run_row(connection, append.run_id)
                rows[append.run_id] = self._insert_events(connection, append, events, row)
                heads.append(rows[append.run_id].head)
            if release is not None and claim is not None:
                _give_up(connection, claim)
            return Committed([blob.id for blob in artifacts], heads)

        # Several runs share the transactions of a thread; one alone waits for nobody.
        alone = len(self._claimed) <= 1
        committed = await (self._writer.run_soon(write) if alone else self._writer.run(write))
        if release is not None and claim is not None:
            self._claimed.discard(claim.run_id)
        return committed

    async def describe(self) -> Json:
        """As ``Stores.describe``."""
        counts: list[Any] = await self._reader.run(lambda connection: connection.execute(_COUNTS).fetchall())
        version, runs, unfinished, events, artifacts, artifact_bytes = counts[0]
        beside = [self.path, self.path.with_name(self.path.name + "-wal"), *self._files.all()]
        return {
            "location": str(self.path),
            "kind": "sqlite",
            "schema_version": version,
            "schema_version_before": self._version_before,
            "runs": runs,
            "runs_unfinished": unfinished,
            "events": events,
            "artifacts": artifacts,
            "artifact_bytes": artifact_bytes,
            "stored_bytes": sum(each.stat().st_size for each in beside if each.exists()),
        }

    async def close(self) -> None:
        """Finish what waits, and let go of the file."""
        if self._closed:
            return
        self._closed = True
        self._writer.close()
        self._reader.close()
        self._reading.close()
        self._connection.close()
        self._lock.close()

    def _write_files(self, blobs: Sequence[Blob]) -> None:
        for blob in blobs:
            self._files.write(blob.id, blob.data)
            self._failpoints.hit("artifact_file.after")

    def _insert_artifacts(self, connection: apsw.Connection, blobs: Sequence[Blob]) -> None:
        now = self._clock.now_millis()
        for blob in blobs:
            data = blob.data if len(blob.data) <= self._file_threshold_bytes else None
            connection.execute(
                """INSERT INTO artifact (id, kind, size, put_millis, data, recipe) VALUES (?, ?, ?, ?, ?, ?)
                   ON CONFLICT (id) DO UPDATE SET put_millis = excluded.put_millis
                   WHERE put_millis < excluded.put_millis - ?""",
                (
                    _key(blob.id),
                    str(blob.kind),
                    blob.size,
                    now,
                    data,
                    isinstance(blob, RecipeBlob),
                    _RENEWAL_MILLIS,
                ),
            )

    def _insert_events(
        self, connection: apsw.Connection, append: Append, events: Sequence[tuple[bool, bytes]], row: _RunRow
    ) -> _RunRow:
        check_head(append, row.head)
        if not events:
            return row
        row, now = _made(connection, append.run_id, row), self._clock.now_millis()
        key, run_crc = row.key, zlib.crc32(append.run_id.encode())
        connection.executemany(
            "INSERT INTO event (run, seq, ts_millis, engine, crc, body) VALUES (?, ?, ?, ?, ?, ?)",
            [
                (key, seq, now, engine, _crc(run_crc, seq, now, body), body)
                for seq, (engine, body) in enumerate(events, row.head + 1)
            ],
        )
        if RunCompleted in map(type, append.events):
            connection.execute("UPDATE run SET ended = 1 WHERE key = ?", (row.key,))
        return row._replace(head=row.head + len(events))

    def _hold(self, connection: apsw.Connection, claim: Claim, row: _RunRow) -> _RunRow:
        """Check that the claim holds; the first commit that carries it makes it durable."""
        if (row.owner, row.epoch) == (claim.owner, claim.epoch):
            return row
        if row.epoch != claim.epoch - 1 or not self._is_free(row.owner, row.expires_millis):
            raise claim_lost(claim)
        row = _made(connection, claim.run_id, row)
        connection.execute(
            "UPDATE run SET owner = ?, epoch = ?, expires_millis = ? WHERE key = ?",
            (claim.owner, claim.epoch, self._expiry(CLAIM_FIRST_TTL), row.key),
        )
        return row

    def _is_free(self, owner: str | None, expires_millis: int) -> bool:
        return owner is None or expires_millis <= self._clock.now_millis() or self._lock.is_dead(owner)

    def _expiry(self, ttl: timedelta) -> int:
        return self._clock.now_millis() + ttl // timedelta(milliseconds=1)

    async def _select_events(
        self, run_id: RunId, from_seq: int, condition: str, bindings: tuple[Any, ...], limit: int = -1
    ) -> list[Any]:
        query = f"{_SELECT_EVENTS}{condition} ORDER BY event.seq LIMIT ?"
        return await self._reader.run(
            lambda connection: connection.execute(query, (str(run_id), from_seq, *bindings, limit)).fetchall()
        )

    def _write_batch(self, jobs: Sequence[Job], may_wait: bool) -> float | None:
        """One transaction for all jobs; a job that is refused is undone alone. The commit's seconds."""
        connection, seconds = self._connection, 0.0
        try:
            connection.set_busy_timeout(self._busy_timeout_millis if may_wait else 0)
            try:
                connection.execute("BEGIN IMMEDIATE")
            except apsw.BusyError:
                if may_wait:
                    raise
                return None
            connection.set_busy_timeout(self._busy_timeout_millis)
            try:
                for job in jobs:
                    job.result = job.work(connection)
            except (PerdureError, apsw.ConstraintError):
                # Rare: all of them once more, each so that it can be undone.
                connection.execute("ROLLBACK")
                connection.execute("BEGIN IMMEDIATE")
                for job in jobs:
                    self._write_one(connection, job)
            begun = time.perf_counter()
            connection.execute("COMMIT")
            seconds = time.perf_counter() - begun
            self.commits += 1
        except apsw.Error as error:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            for job in jobs:
                job.error = job.error or translate(error, self.path)
        return seconds

    def _write_one(self, connection: apsw.Connection, job: Job) -> None:
        connection.execute("SAVEPOINT job")
        try:
            job.result = job.work(connection)
        except (PerdureError, apsw.ConstraintError) as error:
            job.error = error
            connection.execute("ROLLBACK TO job")
        connection.execute("RELEASE job")

    def _read_batch(self, jobs: Sequence[Job], may_wait: bool) -> float:
        begun = time.perf_counter()
        for job in jobs:
            try:
                job.result = job.work(self._reading)
            except apsw.Error as error:
                job.error = translate(error, self.path)
            except PerdureError as error:
                job.error = error
        return time.perf_counter() - begun


CLAIM_FIRST_TTL = timedelta(seconds=30)
"""How long a claim holds that was never renewed; the keeper renews it well before."""


class _RunRow(NamedTuple):
    """What is known of a run; a run that nobody knows is free, in epoch 0."""

    key: int | None
    owner: str | None
    epoch: int
    expires_millis: int
    head: int


_UNKNOWN_RUN = _RunRow(None, None, 0, 0, 0)


def _run_row(connection: apsw.Connection, run_id: RunId) -> _RunRow:
    query = """
        SELECT key, owner, epoch, expires_millis,
               (SELECT coalesce(max(seq), 0) FROM event WHERE event.run = run.key)
        FROM run WHERE run_id = ?"""
    rows: list[Any] = connection.execute(query, (str(run_id),)).fetchall()
    return _RunRow(*rows[0]) if rows else _UNKNOWN_RUN


def _made(connection: apsw.Connection, run_id: RunId, row: _RunRow) -> _RunRow:
    """The run's row, inserted if there is none yet."""
    if row.key is not None:
        return row
    connection.execute("INSERT INTO run (run_id) VALUES (?)", (str(run_id),))
    return row._replace(key=connection.last_insert_rowid())


def _give_up(connection: apsw.Connection, claim: Claim) -> None:
    connection.execute(
        "UPDATE run SET owner = NULL WHERE run_id = ? AND owner = ? AND epoch = ?",
        (str(claim.run_id), claim.owner, claim.epoch),
    )


def _envelopes(run_id: RunId, rows: Sequence[Any]) -> list[EventEnvelope]:
    run_crc = zlib.crc32(run_id.encode())
    for seq, ts_millis, crc, body in rows:
        if _crc(run_crc, seq, ts_millis, body) != crc:
            raise CorruptionError.of(
                "event_corruption",
                "a stored event is not what was written",
                details={"run_id": str(run_id), "seq": seq},
            )
    events = decode_events([row[3] for row in rows])
    return [EventEnvelope(run_id, row[0], row[1], event) for row, event in zip(rows, events, strict=True)]


def _crc(run_crc: int, seq: int, ts_millis: int, body: bytes) -> int:
    return zlib.crc32(body, zlib.crc32(b",%d,%d," % (seq, ts_millis), run_crc))


def _key(artifact_id: str) -> bytes:
    return bytes.fromhex(artifact_id)
