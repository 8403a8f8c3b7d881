"""Stores that are wrong in one way each: they show that the conformance suite would notice."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from contextlib import suppress
from operator import attrgetter
from typing import Any

from perdure.errors import ConcurrencyError, Json
from perdure.ids import ArtifactId, RunId
from perdure.model.events import Event, EventEnvelope
from perdure.stores.memory import MemoryStore
from perdure.stores.ports import Append, Blob, Claim, Committed, Letter, Release


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
        await super().commit((), (), claim, release=release, read=read)
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
        with suppress(ConcurrencyError):
            await super().commit((), (), claim, release=release, read=read)
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


class LosesLetters(MemoryStore):
    """Says that it has kept a letter, and has not if others wait."""

    async def post(self, run_id: RunId, letter_id: str, body: Json) -> bool:
        waiting = await super().unread(run_id)
        if waiting and letter_id not in [letter.id for letter in waiting]:
            return True
        return await super().post(run_id, letter_id, body)


class DoublesLetters(MemoryStore):
    """Keeps a letter once more that waits already."""

    async def post(self, run_id: RunId, letter_id: str, body: Json) -> bool:
        return await super().post(run_id, letter_id, body) or await self.post(run_id, f"{letter_id} ", body)


class ReordersLetters(MemoryStore):
    """Gives letters in the order of their ids."""

    async def unread(self, run_id: RunId) -> list[Letter]:
        return sorted(await super().unread(run_id), key=attrgetter("id"))


class KeepsReadLetters(MemoryStore):
    """Takes no letters away, so that they are read again and again."""

    async def commit(
        self,
        artifacts: Sequence[Blob],
        appends: Sequence[Append],
        claim: Claim | None = None,
        *,
        release: Release | None = None,
        read: Sequence[str] = (),
    ) -> Committed:
        return await super().commit(artifacts, appends, claim, release=release)


class TakesLettersTooSoon(MemoryStore):
    """Takes letters away though the commit that has read them does not land."""

    async def commit(
        self,
        artifacts: Sequence[Blob],
        appends: Sequence[Append],
        claim: Claim | None = None,
        *,
        release: Release | None = None,
        read: Sequence[str] = (),
    ) -> Committed:
        await super().commit((), (), claim, read=read)
        return await super().commit(artifacts, appends, claim, release=release)


class ForgetsDueTimes(MemoryStore):
    """Makes every run due at once."""

    async def commit(
        self,
        artifacts: Sequence[Blob],
        appends: Sequence[Append],
        claim: Claim | None = None,
        *,
        release: Release | None = None,
        read: Sequence[str] = (),
    ) -> Committed:
        soon = None if release is None else Release()
        return await super().commit(artifacts, appends, claim, release=soon, read=read)


class ParksRunsWithLetters(MemoryStore):
    """Overlooks, when a run is given up, what came meanwhile."""

    async def commit(
        self,
        artifacts: Sequence[Blob],
        appends: Sequence[Append],
        claim: Claim | None = None,
        *,
        release: Release | None = None,
        read: Sequence[str] = (),
    ) -> Committed:
        done = await super().commit(artifacts, appends, claim, release=release, read=read)
        if claim is not None and release is not None:
            self._state.due_millis[claim.run_id] = release.due_millis
        return done


class ForgetsDeadOwners(MemoryStore):
    """Leaves the runs to their owners for ever."""

    async def due_runs(
        self, limit: int, *, within_millis: int = 0, among: Collection[RunId] | None = None
    ) -> list[RunId]:
        due = await super().due_runs(len(self._state.streams), within_millis=within_millis, among=among)
        return [run_id for run_id in due if self._owner(run_id) is None][:limit]


class NeverWakesAwaiters(MemoryStore):
    """Leaves the runs alone that wait for a run that has ended."""

    async def commit(
        self,
        artifacts: Sequence[Blob],
        appends: Sequence[Append],
        claim: Claim | None = None,
        *,
        release: Release | None = None,
        read: Sequence[str] = (),
    ) -> Committed:
        alone = release and release._replace(awaits=())
        return await super().commit(artifacts, appends, claim, release=alone, read=read)


class WakesOneAwaiter(MemoryStore):
    """Makes only one run due of those that wait for the same."""

    def _end(self, run_id: RunId) -> None:
        later = [each for each, awaited in self._state.awaits.items() if run_id in awaited][1:]
        for each in later:
            del self._state.awaits[each]
        super()._end(run_id)


class OverlooksEarlierEnds(MemoryStore):
    """Has a run wait for the end of one that has ended already."""

    async def commit(
        self,
        artifacts: Sequence[Blob],
        appends: Sequence[Append],
        claim: Claim | None = None,
        *,
        release: Release | None = None,
        read: Sequence[str] = (),
    ) -> Committed:
        open_ones = [each for each in (release or Release()).awaits if each not in self._state.ended]
        left = release and release._replace(awaits=tuple(open_ones))
        return await super().commit(artifacts, appends, claim, release=left, read=read)


class KeepsOldAwaits(MemoryStore):
    """Adds what a run awaits to what it awaited before."""

    async def commit(
        self,
        artifacts: Sequence[Blob],
        appends: Sequence[Append],
        claim: Claim | None = None,
        *,
        release: Release | None = None,
        read: Sequence[str] = (),
    ) -> Committed:
        awaits = self._state.awaits
        before = {} if claim is None else {claim.run_id: awaits.get(claim.run_id, frozenset())}
        done = await super().commit(artifacts, appends, claim, release=release, read=read)
        awaits.update({run_id: awaits.get(run_id, frozenset()) | old for run_id, old in before.items()})
        return done


class IgnoresAmong(MemoryStore):
    """Gives runs that were not asked for."""

    async def due_runs(
        self, limit: int, *, within_millis: int = 0, among: Collection[RunId] | None = None
    ) -> list[RunId]:
        return await super().due_runs(limit, within_millis=within_millis)


class CommitsRunByRun(MemoryStore):
    """Keeps each run's part of a commit by itself, however it goes on."""

    async def commit(
        self,
        artifacts: Sequence[Blob],
        appends: Sequence[Append],
        claim: Claim | None = None,
        *,
        release: Release | None = None,
        read: Sequence[str] = (),
    ) -> Committed:
        done = await super().commit(artifacts, appends[:1], claim)
        rest = [await super(CommitsRunByRun, self).commit((), (each,), claim) for each in appends[1:]]
        await super().commit((), (), claim, release=release, read=read)
        return done._replace(heads=[*done.heads, *(each.heads[0] for each in rest)])


class GivesUpTooSoon(MemoryStore):
    """Gives the run up though the commit that says so does not land."""

    async def commit(
        self,
        artifacts: Sequence[Blob],
        appends: Sequence[Append],
        claim: Claim | None = None,
        *,
        release: Release | None = None,
        read: Sequence[str] = (),
    ) -> Committed:
        try:
            return await super().commit(artifacts, appends, claim, release=release, read=read)
        except ConcurrencyError:
            with suppress(ConcurrencyError):
                await super().commit((), (), claim, release=release)
            raise


class LosesLettersOfOldLegs(MemoryStore):
    """Forgets what was not read when a run goes on as another."""

    def _pass_on(self, run_id: RunId) -> None:
        self._state.letters.pop(run_id, None)
        super()._pass_on(run_id)


class WakesAtEveryLeg(MemoryStore):
    """Takes it for the end of a run that it goes on as another."""

    def _pass_on(self, run_id: RunId) -> None:
        awaits = dict(self._state.awaits)
        super()._pass_on(run_id)
        self._state.awaits.update(awaits)


class FindsNextLegs(MemoryStore):
    """Knows of a run what it goes on as, but not as what that does."""

    async def newest_leg(self, run_id: RunId) -> RunId:
        newest = await super().newest_leg(run_id)
        return newest if newest == run_id else run_id.next_leg()


BROKEN: tuple[type[MemoryStore], ...] = (
    LosesAppends,
    LosesLettersOfOldLegs,
    WakesAtEveryLeg,
    FindsNextLegs,
    TearsCommits,
    GivesWrongIds,
    ReadsStale,
    ReordersEvents,
    IgnoresEpochs,
    IgnoresExpectations,
    LosesLetters,
    DoublesLetters,
    ReordersLetters,
    KeepsReadLetters,
    TakesLettersTooSoon,
    ForgetsDueTimes,
    ParksRunsWithLetters,
    ForgetsDeadOwners,
    NeverWakesAwaiters,
    WakesOneAwaiter,
    OverlooksEarlierEnds,
    KeepsOldAwaits,
    IgnoresAmong,
    CommitsRunByRun,
    GivesUpTooSoon,
)
