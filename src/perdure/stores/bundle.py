"""The stores that belong together, and the ways to get them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta
from pathlib import Path
from types import TracebackType
from typing import Self

from perdure.canonical import canonical_json_bytes
from perdure.errors import CorruptionError, Json
from perdure.failpoints import Failpoints
from perdure.ids import ArtifactId, RunId
from perdure.model.config import RunManifest
from perdure.model.events import ArtifactKind
from perdure.stores import locations
from perdure.stores.ports import (
    Append,
    ArtifactStore,
    Blob,
    Claim,
    ClaimStore,
    Committed,
    Committer,
    EventStore,
    Release,
)
from perdure.stores.refusals import run_already_active
from perdure.stores.uninterrupted import uninterrupted


class Stores:
    """Events, artifacts and claims of one place.

    Any two ports make a bundle: without ``committer`` a commit is artifacts first, then events, and
    without ``claims`` ownership holds within this bundle alone.
    """

    def __init__(
        self,
        events: EventStore,
        artifacts: ArtifactStore,
        claims: ClaimStore | None = None,
        committer: Committer | None = None,
        close: Callable[[], Awaitable[None]] | None = None,
        describe: Callable[[], Awaitable[Json]] | None = None,
    ) -> None:
        self.events = events
        self.artifacts = artifacts
        self.claims: ClaimStore = claims if claims is not None else LocalClaims()
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
        return locations.open_location(f"sqlite:{path}")

    @classmethod
    def open(cls, url: str, failpoints: Failpoints | None = None) -> Stores:
        """The stores of ``url``: ``memory:``, ``sqlite:PATH``, or a plain path to a SQLite file.

        Raises ``StorageError`` (``store_scheme_unknown``) for a scheme that nobody registered.
        """
        return locations.open_location(url, failpoints)

    async def put_manifest(self, manifest: RunManifest) -> ArtifactId:
        """Keep a manifest and return its id; raises ``CanonicalJsonError`` for one that may not be kept."""
        return await self.put(ArtifactKind.MANIFEST, canonical_json_bytes(manifest.to_json()))

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
        if self._committer is not None:
            committed = await self._committer.commit(artifacts, appends, claim, release=release, read=read)
        else:
            committed = await uninterrupted(self._commit_in_steps(artifacts, appends, claim, release))
        _check_ids(artifacts, committed.artifact_ids)
        return committed

    async def _commit_in_steps(
        self,
        artifacts: Sequence[Blob],
        appends: Sequence[Append],
        claim: Claim | None,
        release: Release | None,
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
        if release is not None and claim is not None:
            await self.claims.release(claim)
        return Committed(ids, heads)

    async def describe(self) -> dict[str, Json]:
        """What is kept here and how much room it takes, as far as the stores can tell.

        ``{"location", "kind", "schema_version", "schema_version_before", "runs", "runs_unfinished", "events",
        "artifacts", "artifact_bytes", "stored_bytes"}``; sizes are in bytes, and ``schema_version_before`` is
        the version that opening found.
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


class LocalClaims:
    """Ownership among the users of one bundle, for ports that keep none."""

    def __init__(self) -> None:
        self._epochs: dict[RunId, int] = {}
        self._held: set[RunId] = set()

    async def acquire(self, run_id: RunId, owner: str, ttl: timedelta) -> Claim:
        if run_id in self._held:
            raise run_already_active(run_id)
        self._held.add(run_id)
        self._epochs[run_id] = self._epochs.get(run_id, 0) + 1
        return Claim(run_id, owner, self._epochs[run_id])

    def renew(self, claims: Sequence[Claim], ttl: timedelta) -> list[Claim]:
        return []

    async def release(self, claim: Claim) -> None:
        self._held.discard(claim.run_id)


def _check_ids(blobs: Sequence[Blob], ids: Sequence[ArtifactId]) -> None:
    for blob, given in zip(blobs, ids, strict=True):
        if blob.id != given:
            raise CorruptionError.of(
                "artifact_put_id_mismatch",
                "the store gave an artifact another id than its content has",
                details={"expected": blob.id, "given": str(given)},
            )
