"""The stores that belong together, and the ways to get them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from perdure.arguments import expect
from perdure.clock import Clock, SystemClock
from perdure.errors import CorruptionError, Json
from perdure.failpoints import Failpoints
from perdure.ids import ArtifactId, RunId
from perdure.model.config import RunManifest
from perdure.model.events import ArtifactKind
from perdure.model.legs import heir_in
from perdure.model.manifests import encode_manifest
from perdure.stores import locations
from perdure.stores.keeping import Keeping
from perdure.stores.legs import newest_leg
from perdure.stores.local import KeepsAll, LocalAgenda, LocalClaims, LocalMailbox, UnknownAgenda
from perdure.stores.ports import (
    Agenda,
    Append,
    ArtifactStore,
    Blob,
    Claim,
    ClaimStore,
    Committed,
    Committer,
    EventStore,
    Mailbox,
    Release,
    Schedules,
)
from perdure.stores.schedules import local_schedules
from perdure.stores.uninterrupted import uninterrupted


class Stores:
    """Events, artifacts, claims, letters, due times and schedules of one place.

    Any two ports make a bundle: without ``committer`` a commit is artifacts first, then events, and
    without ``claims`` ownership holds within this bundle alone. So do letters without ``mailbox``, which are
    lost when it is closed. Without ``agenda`` the bundle knows what is due if it also keeps the claims, and
    nothing otherwise. Without ``schedules`` they are the bundle's, and lost when it is closed. Without
    ``keeping`` nothing can be deleted. ``clock`` is the time of what is kept in the bundle itself.
    """

    def __init__(
        self,
        events: EventStore,
        artifacts: ArtifactStore,
        claims: ClaimStore | None = None,
        committer: Committer | None = None,
        close: Callable[[], Awaitable[None]] | None = None,
        describe: Callable[[], Awaitable[Json]] | None = None,
        *,
        mailbox: Mailbox | None = None,
        agenda: Agenda | None = None,
        schedules: Schedules | None = None,
        keeping: Keeping | None = None,
        clock: Clock | None = None,
    ) -> None:
        if committer is None and (mailbox is not None or agenda is not None):
            raise TypeError("letters and due times are kept by commits: give the committer that does it")
        clock = clock or SystemClock()
        self.events = events
        self.artifacts = artifacts
        self.claims: ClaimStore = claims if claims is not None else LocalClaims()
        self.mailbox: Mailbox = mailbox if mailbox is not None else LocalMailbox(events, clock)
        self.agenda: Agenda
        if agenda is not None:
            self.agenda = agenda
        elif isinstance(self.claims, LocalClaims):
            self.agenda = LocalAgenda(events, self.claims, self.mailbox, clock)
        else:
            self.agenda = UnknownAgenda()
        self.schedules: Schedules = schedules if schedules is not None else local_schedules(events)
        self.keeping: Keeping = keeping if keeping is not None else KeepsAll()
        self._keeps_something = isinstance(self.mailbox, LocalMailbox) or isinstance(self.claims, LocalClaims)
        self._committer = committer
        self._close = close
        self._describe = describe

    @classmethod
    def in_memory(cls) -> Stores:
        """Stores that live as long as the process: the reference implementation."""
        return locations.open_location("memory:")

    @classmethod
    def sqlite(cls, path: str | Path) -> Stores:
        """Stores in one SQLite file, made if it does not exist. Needs no running loop."""
        expect(path, (str, Path), "Stores.sqlite(path)", "a path")
        return locations.open_location(f"sqlite:{path}")

    @classmethod
    def open(cls, url: str, failpoints: Failpoints | None = None) -> Stores:
        """The stores of ``url``: ``memory:``, ``sqlite:PATH``, or a plain path to a SQLite file.

        Raises ``StorageError`` (``store_scheme_unknown``) for a scheme that nobody registered.
        """
        expect(url, str, "Stores.open(url)", "an address or a path, as a string")
        return locations.open_location(url, failpoints)

    async def put_manifest(self, manifest: RunManifest) -> ArtifactId:
        """Keep a manifest and return its id; raises ``CanonicalJsonError`` for one that may not be kept."""
        expect(manifest, RunManifest, "put_manifest(manifest)", "a RunManifest")
        return await self.put(ArtifactKind.MANIFEST, encode_manifest(manifest))

    async def put(self, kind: ArtifactKind, data: bytes) -> ArtifactId:
        """Keep ``data`` and check the id that the store gives it (``artifact_put_id_mismatch``)."""
        blob = Blob(kind, data)
        _check_ids([blob], [await self.artifacts.put(kind, data)])
        return blob.id

    async def commit(
        self,
        artifacts: Sequence[Blob],
        appends: Sequence[Append],
        claim: Claim | None = None,
        *,
        release: Release | None = None,
        read: Sequence[str] = (),
    ) -> Committed:
        """As ``Committer.commit``; atomic where one database holds everything."""
        concerns_us = self._keeps_something and (release is not None or bool(read))
        if self._committer is not None and not concerns_us:
            committed = await self._committer.commit(artifacts, appends, claim, release=release, read=read)
        else:
            committed = await uninterrupted(self._commit_in_steps(artifacts, appends, claim, release, read))
        if artifacts:
            _check_ids(artifacts, committed.artifact_ids)
        return committed

    async def _commit_in_steps(
        self,
        artifacts: Sequence[Blob],
        appends: Sequence[Append],
        claim: Claim | None,
        release: Release | None,
        read: Sequence[str],
    ) -> Committed:
        """First what other stores keep, and if that has landed, what this bundle keeps."""
        if self._committer is not None:
            committed = await self._committer.commit(artifacts, appends, claim, release=release, read=read)
        else:
            committed = await self._write_in_steps(artifacts, appends, claim)
        if claim is not None and isinstance(self.mailbox, LocalMailbox):
            self.mailbox.take_away(claim.run_id, read)
            for append in appends:
                heir = heir_in(append.events)
                if heir is not None:
                    self.mailbox.pass_on(append.run_id, heir)
        if claim is not None and release is not None:
            if isinstance(self.claims, LocalClaims):
                self.claims.park(claim, release)
            elif self._committer is None:
                await self.claims.release(claim)
        return committed

    async def _write_in_steps(
        self, artifacts: Sequence[Blob], appends: Sequence[Append], claim: Claim | None
    ) -> Committed:
        ids = [await self.artifacts.put(blob.kind, blob.data) for blob in artifacts]
        heads = [
            await self.events.append(
                append.run_id,
                append.expected_seq,
                append.events,
                claim if claim is not None and claim.run_id == append.run_id else None,
            )
            for append in appends
        ]
        return Committed(ids, heads)

    async def newest_leg(self, run_id: RunId) -> RunId:
        """The run as which ``run_id`` goes on in the end; itself for one that does not go on as another."""
        return await newest_leg(self.events, RunId(run_id))

    async def describe(self) -> dict[str, Json]:
        """What is kept here and how much room it takes, as far as the stores can tell.

        ``{"location", "kind", "schema_version", "schema_version_before", "runs", "runs_unfinished", "events",
        "artifacts", "artifact_bytes", "stored_bytes", "free_bytes"}``; sizes are in bytes, ``free_bytes`` are
        those of ``stored_bytes`` that wait to be used again, ``schema_version_before`` is the version that
        opening found.
        """
        return {} if self._describe is None else dict(await self._describe())

    async def close(self) -> None:
        """Finish what was begun and let go of files and threads."""
        if self._close is not None:
            await self._close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        # An interrupted caller must not leave the files open behind it.
        await asyncio.shield(self.close())


def _check_ids(blobs: Sequence[Blob], ids: Sequence[ArtifactId]) -> None:
    if [blob.id for blob in blobs] == ids:
        return
    for blob, given in zip(blobs, ids, strict=True):
        if blob.id != given:
            raise CorruptionError.of(
                "artifact_put_id_mismatch",
                "the store gave an artifact another id than its content has",
                details={"expected": blob.id, "given": str(given)},
            )
