"""Stores that are wrong in one way each: they show that the conformance suite would notice."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from perdure.errors import ConcurrencyError
from perdure.ids import ArtifactId, RunId
from perdure.model.events import Event, EventEnvelope
from perdure.stores.memory import MemoryStore
from perdure.stores.ports import Append, Blob, Claim, Committed, Release


class LosesAppends(MemoryStore):
    """Says that it has appended, and has kept all but the last event."""

    async def commit(
        self,
        artifacts: Sequence[Blob],
        appends: Sequence[Append],
        claim: Claim | None = None,
        *,
        release: Release | None = None,
        read: Sequence[str] = (),
    ) -> Committed:
        kept = [append._replace(events=append.events[:-1]) for append in appends]
        done = await super().commit(artifacts, kept, claim, release=release, read=read)
        return done._replace(heads=[head + 1 for head in done.heads])


class TearsCommits(MemoryStore):
    """Keeps the first part of a commit whose second part it refuses."""

    async def commit(
        self,
        artifacts: Sequence[Blob],
        appends: Sequence[Append],
        claim: Claim | None = None,
        *,
        release: Release | None = None,
        read: Sequence[str] = (),
    ) -> Committed:
        kept = await super().commit(artifacts, (), claim)
        heads = [(await MemoryStore.commit(self, (), (append,), claim)).heads[0] for append in appends]
        if release is not None and claim is not None:
            await self.release(claim)
        return Committed(kept.artifact_ids, heads)


class GivesWrongIds(MemoryStore):
    """Names artifacts by something else than their content."""

    async def put(self, kind: Any, data: bytes) -> ArtifactId:
        return ArtifactId((await super().put(kind, data))[::-1])


class ReadsStale(MemoryStore):
    """Does not see the last event of a stream."""

    async def read_range(
        self, run_id: RunId, from_seq: int, to_seq: int | None = None
    ) -> list[EventEnvelope]:
        return [
            each
            for each in await super().read_range(run_id, from_seq, to_seq)
            if each.seq < await self.head_seq(run_id)
        ]


class ReordersEvents(MemoryStore):
    """Keeps the events of one append in another order."""

    async def append(
        self, run_id: RunId, expected_seq: int, events: Sequence[Event], claim: Claim | None = None
    ) -> int:
        return await super().append(run_id, expected_seq, list(reversed(events)), claim)


class IgnoresEpochs(MemoryStore):
    """Lets anybody append who has the right expectation."""

    async def commit(
        self,
        artifacts: Sequence[Blob],
        appends: Sequence[Append],
        claim: Claim | None = None,
        *,
        release: Release | None = None,
        read: Sequence[str] = (),
    ) -> Committed:
        done = await super().commit(artifacts, appends, None)
        if release is not None and claim is not None:
            await self.release(claim)
        return done


class IgnoresExpectations(MemoryStore):
    """Appends to whatever head there is."""

    async def append(
        self, run_id: RunId, expected_seq: int, events: Sequence[Event], claim: Claim | None = None
    ) -> int:
        try:
            return await super().append(run_id, expected_seq, events, claim)
        except ConcurrencyError:
            return await super().append(run_id, await self.head_seq(run_id), events, claim)


BROKEN: tuple[type[MemoryStore], ...] = (
    LosesAppends,
    TearsCommits,
    GivesWrongIds,
    ReadsStale,
    ReordersEvents,
    IgnoresEpochs,
    IgnoresExpectations,
)
