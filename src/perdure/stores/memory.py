"""Stores in memory: the reference that every other store is compared with."""

from __future__ import annotations

from bisect import insort
from collections.abc import Collection, Iterable, Sequence
from datetime import timedelta
from itertools import dropwhile, islice
from operator import itemgetter
from typing import NamedTuple

import msgspec

from perdure.canonical import artifact_id_for_bytes
from perdure.clock import Clock, SystemClock
from perdure.errors import Json
from perdure.failpoints import Failpoints
from perdure.ids import ArtifactId, RunId
from perdure.model.events import ArtifactKind, Event, EventEnvelope, RunCompleted, is_engine_event
from perdure.model.legs import continued_by, heir_in
from perdure.stores.bodies import encode_body
from perdure.stores.bundle import Stores
from perdure.stores.letters import opened
from perdure.stores.memory_keeping import MemoryKeeping
from perdure.stores.ports import Append, Blob, Claim, Committed, Letter, RecipeBlob, Release, Row
from perdure.stores.refusals import (
    artifact_corruption,
    artifact_not_found,
    check_head,
    claim_lost,
    run_already_active,
    run_already_terminal,
    run_not_found,
)
from perdure.stores.schedules import KeptSchedule, MemorySchedules


class MemoryState:
    """What survives a crash of the process, for as long as this object lives."""

    def __init__(self) -> None:
        self.streams: dict[RunId, list[EventEnvelope]] = {}
        self.blobs: dict[ArtifactId, tuple[ArtifactKind, bytes]] = {}
        self.put_millis: dict[ArtifactId, int] = {}
        self.recipes: set[ArtifactId] = set()
        self.claims: dict[RunId, _ClaimRow] = {}
        self.ended: set[RunId] = set()
        self.letters: dict[RunId, dict[str, _LetterRow]] = {}
        # Runs that are not due at once, and whose end they wait for.
        self.due_millis: dict[RunId, int | None] = {}
        self.awaits: dict[RunId, frozenset[RunId]] = {}
        self.schedules: dict[str, KeptSchedule] = {}
        # The first leg of each chain by its others, and these, with their numbers in order, by the first.
        self.first_legs: dict[RunId, RunId] = {}
        self.later_legs: dict[RunId, list[tuple[int, RunId]]] = {}


class _ClaimRow(msgspec.Struct):
    owner: str | None
    epoch: int
    expires_millis: int


class _LetterRow(NamedTuple):
    body: bytes
    sent_millis: int


class MemoryStore(MemoryKeeping):
    """All ports over one :class:`MemoryState`."""

    def __init__(self, state: MemoryState, clock: Clock) -> None:
        self._state = state
        self._clock = clock
        self.schedules = MemorySchedules(state.schedules, self.is_over)

    async def head_seq(self, run_id: RunId) -> int:
        return len(self._state.streams.get(run_id, ()))

    async def append(
        self, run_id: RunId, expected_seq: int, events: Sequence[Event], claim: Claim | None = None
    ) -> int:
        committed = await self.commit((), (Append(run_id, expected_seq, events),), claim)
        return committed.heads[0]

    async def read_range(
        self, run_id: RunId, from_seq: int, to_seq: int | None = None
    ) -> list[EventEnvelope]:
        return self._state.streams.get(run_id, [])[max(from_seq, 1) - 1 : to_seq]

    async def read_engine_events(self, run_id: RunId, from_seq: int, limit: int) -> list[EventEnvelope]:
        stream = self._state.streams.get(run_id, [])
        wanted = (each for each in stream[max(from_seq, 1) - 1 :] if is_engine_event(each.event))
        return list(islice(wanted, limit))

    async def list_runs(
        self, after: RunId | None = None, limit: int = 100, *, unfinished: bool = False
    ) -> list[RunId]:
        runs: Iterable[RunId] = reversed(self._state.streams)
        if after is not None:
            runs = islice(dropwhile(lambda run_id: run_id != after, runs), 1, None)
        if unfinished:
            runs = (run_id for run_id in runs if run_id not in self._state.ended)
        return list(islice(runs, limit))

    async def newest_leg(self, run_id: RunId) -> RunId:
        return self._newest_leg(run_id)

    async def put(self, kind: ArtifactKind, data: bytes) -> ArtifactId:
        return (await self.commit((Blob(kind, data),), ())).artifact_ids[0]

    async def get(self, artifact_id: ArtifactId) -> bytes:
        if artifact_id not in self._state.blobs:
            raise artifact_not_found(artifact_id)
        data = self._state.blobs[artifact_id][1]
        if artifact_id_for_bytes(data) != artifact_id:
            raise artifact_corruption(artifact_id)
        return data

    async def rows(self, artifact_ids: Sequence[ArtifactId]) -> dict[ArtifactId, Row]:
        blobs, recipes = self._state.blobs, self._state.recipes
        return {each: Row(each in recipes, blobs[each][1]) for each in artifact_ids if each in blobs}

    async def exists(self, artifact_id: ArtifactId) -> bool:
        return artifact_id in self._state.blobs

    async def acquire(self, run_id: RunId, owner: str, ttl: timedelta) -> Claim:
        if self._is_owned(run_id):
            raise run_already_active(run_id)
        row = self._state.claims.get(run_id, _ClaimRow(None, 0, 0))
        claim = Claim(run_id, owner, row.epoch + 1)
        self._state.claims[run_id] = _ClaimRow(owner, claim.epoch, self._expiry(ttl))
        return claim

    def renew(self, claims: Sequence[Claim], ttl: timedelta) -> list[Claim]:
        lost: list[Claim] = []
        for claim in claims:
            if self._holds(claim):
                self._state.claims[claim.run_id].expires_millis = self._expiry(ttl)
            else:
                lost.append(claim)
        return lost

    async def release(self, claim: Claim) -> None:
        if self._holds(claim):
            self._state.claims[claim.run_id].owner = None
            self._wake(claim.run_id)

    async def post(self, run_id: RunId, letter_id: str, body: Json) -> bool:
        data = encode_body(body)
        run_id = self._newest_leg(run_id)
        if run_id not in self._state.streams:
            raise run_not_found(run_id)
        if run_id in self._state.ended:
            raise run_already_terminal(run_id)
        letters = self._state.letters.setdefault(run_id, {})
        if letter_id in letters:
            return False
        letters[letter_id] = _LetterRow(data, self._clock.now_millis())
        self._wake(run_id)
        return True

    async def unread(self, run_id: RunId) -> list[Letter]:
        letters = self._state.letters.get(run_id, {})
        return [opened(letter_id, *row) for letter_id, row in letters.items()]

    async def addressed(self, run_ids: Collection[RunId]) -> set[RunId]:
        return {run_id for run_id in run_ids if self._state.letters.get(run_id)}

    async def due_runs(
        self, limit: int, *, within_millis: int = 0, among: Collection[RunId] | None = None
    ) -> list[RunId]:
        now, due = self._clock.now_millis(), list[tuple[int, RunId]]()
        asked = self._state.streams if among is None else frozenset(among)
        for run_id in self._unfinished():
            if run_id not in asked:
                continue
            owner = self._owner(run_id)
            since = 0 if owner is not None else self._state.due_millis.get(run_id, 0)
            is_soon = since is not None and since <= now + within_millis
            if since is not None and is_soon and (owner is None or owner.expires_millis <= now):
                due.append((since, run_id))
        due.sort(key=itemgetter(0))
        return [run_id for _, run_id in due[:limit]]

    async def next_due_millis(self) -> int | None:
        idle = (run_id for run_id in self._unfinished() if self._owner(run_id) is None)
        due = (self._state.due_millis.get(run_id, 0) for run_id in idle)
        return min((each for each in due if each is not None), default=None)

    async def commit(
        self,
        artifacts: Sequence[Blob],
        appends: Sequence[Append],
        claim: Claim | None = None,
        *,
        release: Release | None = None,
        read: Sequence[str] = (),
    ) -> Committed:
        if claim is not None and not self._holds(claim):
            raise claim_lost(claim)
        new_heads: dict[RunId, int] = {}
        for append in appends:
            check_head(append, new_heads.get(append.run_id, await self.head_seq(append.run_id)))
            new_heads[append.run_id] = append.expected_seq + len(append.events)
        now = self._clock.now_millis()
        for blob in artifacts:
            self._state.put_millis[blob.id] = now
            if blob.id not in self._state.blobs:
                self._state.blobs[blob.id] = (blob.kind, blob.data)
                if isinstance(blob, RecipeBlob):
                    self._state.recipes.add(blob.id)
        if claim is not None and read:
            letters = self._state.letters.get(claim.run_id, {})
            for letter_id in read:
                letters.pop(letter_id, None)
        heads: list[int] = []
        for run_id, expected_seq, events in appends:
            stream = self._state.streams.setdefault(run_id, []) if events else []
            for number, event in enumerate(events, expected_seq + 1):
                stream.append(EventEnvelope(run_id, number, now, event))
                if number == 1:
                    self._begin(run_id, event)
                if isinstance(event, RunCompleted):
                    if heir_in(events) is not None:
                        self._pass_on(run_id)
                    self._end(run_id)
            heads.append(expected_seq + len(events))
        if claim is not None and release is not None:
            await self.release(claim)
            awaits = frozenset(map(self._newest_leg, release.awaits))
            is_due = self._state.letters.get(claim.run_id) or not self._state.ended.isdisjoint(awaits)
            if release.due_millis != 0 and not is_due and claim.run_id not in self._state.ended:
                self._state.due_millis[claim.run_id] = release.due_millis
                self._state.awaits[claim.run_id] = awaits
        return Committed([blob.id for blob in artifacts], heads)

    async def describe(self) -> Json:
        """As ``Stores.describe``."""
        sizes = [len(data) for _, data in self._state.blobs.values()]
        return {
            "location": "memory:",
            "kind": "memory",
            "schema_version": 0,
            "schema_version_before": 0,
            "runs": len(self._state.streams),
            "runs_unfinished": len(self._state.streams) - len(self._state.ended),
            "events": sum(map(len, self._state.streams.values())),
            "artifacts": len(sizes),
            "artifact_bytes": sum(sizes),
            "stored_bytes": sum(sizes),
            "free_bytes": 0,
        }

    async def is_over(self, run_id: RunId) -> bool:
        """Whether a run has ended, or is not there."""
        return run_id in self._state.ended or run_id not in self._state.streams

    def _unfinished(self) -> Iterable[RunId]:
        return (run_id for run_id in self._state.streams if run_id not in self._state.ended)

    def _begin(self, run_id: RunId, event: Event) -> None:
        continued = continued_by(event)
        if continued is not None:
            first = self._state.first_legs[run_id] = continued.first_run_id
            insort(self._state.later_legs.setdefault(first, []), (continued.leg, run_id))

    def _newest_leg(self, run_id: RunId) -> RunId:
        if run_id not in self._state.ended:
            return run_id
        first = self._state.first_legs.get(run_id, run_id)
        legs = self._state.later_legs.get(first, [])
        while legs and legs[-1][1] not in self._state.streams:
            legs.pop()  # it was deleted
        return legs[-1][1] if legs else run_id

    def _end(self, run_id: RunId) -> None:
        self._state.ended.add(run_id)
        for each in [run_id, *(each for each, awaited in self._state.awaits.items() if run_id in awaited)]:
            self._wake(each)

    def _pass_on(self, run_id: RunId) -> None:
        """Have the newest leg read the run's letters, and those wait for it who wait for the run."""
        self._state.ended.add(run_id)
        heir = self._newest_leg(run_id)
        if heir in self._state.ended:
            return
        letters = self._state.letters.pop(run_id, {})
        if letters:
            self._state.letters[heir] = {**letters, **self._state.letters.get(heir, {})}
            self._wake(heir)
        for each, awaited in self._state.awaits.items():
            if run_id in awaited:
                self._state.awaits[each] = awaited - {run_id} | {heir}

    def _wake(self, run_id: RunId) -> None:
        self._state.due_millis.pop(run_id, None)
        self._state.awaits.pop(run_id, None)

    def _owner(self, run_id: RunId) -> _ClaimRow | None:
        row = self._state.claims.get(run_id)
        return None if row is None or row.owner is None else row

    def _holds(self, claim: Claim) -> bool:
        row = self._state.claims.get(claim.run_id)
        return row is not None and row.owner == claim.owner and row.epoch == claim.epoch

    def _expiry(self, ttl: timedelta) -> int:
        return self._clock.now_millis() + ttl // timedelta(milliseconds=1)


def memory_stores(state: MemoryState | None = None, clock: Clock | None = None) -> Stores:
    """Stores over ``state``, which several bundles may share as processes share a database."""
    store = MemoryStore(state if state is not None else MemoryState(), clock or SystemClock())
    return Stores(
        store,
        store,
        store,
        store,
        describe=store.describe,
        mailbox=store,
        agenda=store,
        schedules=store.schedules,
        keeping=store,
    )


def open_memory(_rest: str, _failpoints: Failpoints | None = None) -> Stores:
    """Fresh stores in memory."""
    return memory_stores()
