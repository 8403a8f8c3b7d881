"""What one bundle knows by itself, for ports that keep no claims, letters or due times.

It lives as long as the bundle, and nobody else sees it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Sequence, Set
from datetime import timedelta
from operator import itemgetter

from perdure.clock import Clock
from perdure.errors import Json, StorageError
from perdure.ids import RunId
from perdure.model.events import RunCompleted
from perdure.stores.bodies import encode_body
from perdure.stores.keeping import Deleted, RunTrace, Swept, Tell
from perdure.stores.legs import newest_leg
from perdure.stores.letters import opened
from perdure.stores.ports import Claim, EventStore, Letter, Mailbox, Release
from perdure.stores.refusals import run_already_active, run_already_terminal, run_not_found

_PAGE = 1000


class LocalClaims:
    """Ownership among the users of one bundle, and when to take up what nobody of them owns."""

    def __init__(self) -> None:
        self._epochs: dict[RunId, int] = {}
        self._held: set[RunId] = set()
        # Runs that are not due at once.
        self._parked: dict[RunId, Release] = {}

    async def acquire(self, run_id: RunId, owner: str, ttl: timedelta) -> Claim:
        if run_id in self._held:
            raise run_already_active(run_id)
        self._held.add(run_id)
        self._epochs[run_id] = self._epochs.get(run_id, 0) + 1
        return Claim(run_id, owner, self._epochs[run_id])

    def renew(self, claims: Sequence[Claim], ttl: timedelta) -> list[Claim]:
        return []

    async def release(self, claim: Claim) -> None:
        self.park(claim, Release())

    def park(self, claim: Claim, release: Release) -> None:
        """Give the run up as ``release`` says. Nothing happens if another owner has it."""
        if claim.run_id not in self._held or self._epochs[claim.run_id] != claim.epoch:
            return
        self._held.discard(claim.run_id)
        self._parked.pop(claim.run_id, None)
        if release.due_millis != 0:
            self._parked[claim.run_id] = release

    def is_held(self, run_id: RunId) -> bool:
        """Whether somebody has the run."""
        return run_id in self._held

    def due_millis(self, run_id: RunId) -> int | None:
        """When the run is due, letters aside."""
        return self._parked[run_id].due_millis if run_id in self._parked else 0

    def awaited(self) -> set[RunId]:
        """The runs whose end others wait for."""
        return {awaited for release in self._parked.values() for awaited in release.awaits}

    def wake_awaiting(self, ended: Set[RunId]) -> None:
        """Make the runs due at once that wait for one of these."""
        if ended:
            self._parked = {
                run_id: release
                for run_id, release in self._parked.items()
                if ended.isdisjoint(release.awaits)
            }


class LocalMailbox:
    """Letters among the users of one bundle. A run's end that comes while one is posted may go unseen."""

    def __init__(self, events: EventStore, clock: Clock) -> None:
        self._events = events
        self._clock = clock
        self._letters: dict[RunId, dict[str, tuple[bytes, int]]] = {}
        self._seen_seqs: dict[RunId, int] = {}

    async def post(self, run_id: RunId, letter_id: str, body: Json) -> bool:
        data = encode_body(body)
        if not await self._events.head_seq(run_id):
            raise run_not_found(run_id)
        if await self._has_ended(run_id):
            newest = await newest_leg(self._events, run_id)
            if newest == run_id or await self._has_ended(newest):
                raise run_already_terminal(run_id)
            run_id = newest
        letters = self._letters.setdefault(run_id, {})
        if letter_id in letters:
            return False
        letters[letter_id] = (data, self._clock.now_millis())
        return True

    async def unread(self, run_id: RunId) -> list[Letter]:
        letters = self._letters.get(run_id, {})
        return [opened(letter_id, *kept) for letter_id, kept in letters.items()]

    async def addressed(self, run_ids: Collection[RunId]) -> set[RunId]:
        return {run_id for run_id in run_ids if self._letters.get(run_id)}

    def take_away(self, run_id: RunId, letter_ids: Sequence[str]) -> None:
        """Forget letters; those that are not there are passed over."""
        letters = self._letters.get(run_id, {})
        for letter_id in letter_ids:
            letters.pop(letter_id, None)

    def pass_on(self, run_id: RunId, heir: RunId) -> None:
        """Have the letters of one run be another's."""
        letters = self._letters.pop(run_id, {})
        self._letters[heir] = {**letters, **self._letters.get(heir, {})}

    async def _has_ended(self, run_id: RunId) -> bool:
        """Whether the run has ended. What was read before is not read again."""
        while True:
            seen = self._seen_seqs.get(run_id, 0)
            page = await self._events.read_engine_events(run_id, seen + 1, _PAGE)
            for each in page:
                if isinstance(each.event, RunCompleted):
                    return True
                self._seen_seqs[run_id] = each.seq
            if len(page) < _PAGE:
                return False


class LocalAgenda:
    """The unfinished runs that no user of one bundle owns."""

    def __init__(self, events: EventStore, claims: LocalClaims, mailbox: Mailbox, clock: Clock) -> None:
        self._events = events
        self._claims = claims
        self._mailbox = mailbox
        self._clock = clock

    async def due_runs(
        self, limit: int, *, within_millis: int = 0, among: Collection[RunId] | None = None
    ) -> list[RunId]:
        soon = self._clock.now_millis() + within_millis
        asked = None if among is None else frozenset(among)
        return [
            run_id
            for due_millis, run_id in await self._idle()
            if due_millis <= soon and (asked is None or run_id in asked)
        ][:limit]

    async def next_due_millis(self) -> int | None:
        return next((due_millis for due_millis, _ in await self._idle()), None)

    async def _idle(self) -> list[tuple[int, RunId]]:
        """Runs that will be due, the earliest first, with their times."""
        # Before the unfinished ones are asked for: what begins in between has not ended.
        awaited = [(each, await newest_leg(self._events, each)) for each in self._claims.awaited()]
        begun = {each: newest for each, newest in awaited if await self._events.head_seq(newest)}
        runs: list[RunId] = []
        while page := await self._events.list_runs(runs[-1] if runs else None, _PAGE, unfinished=True):
            runs += page
        unfinished = frozenset(runs)
        self._claims.wake_awaiting({each for each, newest in begun.items() if newest not in unfinished})
        addressed = await self._mailbox.addressed(runs)
        idle: list[tuple[int, RunId]] = []
        for run_id in reversed(runs):
            due_millis = 0 if run_id in addressed else self._claims.due_millis(run_id)
            if due_millis is not None and not self._claims.is_held(run_id):
                idle.append((due_millis, run_id))
        return sorted(idle, key=itemgetter(0))


class UnknownAgenda:
    """No runs: whoever keeps the claims does not say which runs nobody drives."""

    async def due_runs(
        self, limit: int, *, within_millis: int = 0, among: Collection[RunId] | None = None
    ) -> list[RunId]:
        return []

    async def next_due_millis(self) -> int | None:
        return None


class KeepsAll:
    """Ports that delete nothing: every call is ``StorageError`` (``retention_unsupported``)."""

    async def traces(self) -> AsyncIterator[list[RunTrace]]:
        raise _unsupported()
        yield []

    async def delete(
        self, run_ids: Sequence[RunId], *, is_dry: bool = False, tell: Tell = lambda *_: None
    ) -> Deleted:
        raise _unsupported()

    async def sweep(
        self, without: Collection[RunId] = (), *, is_dry: bool = False, tell: Tell = lambda *_: None
    ) -> Swept:
        raise _unsupported()

    async def compact(self) -> None:
        raise _unsupported()


def _unsupported() -> StorageError:
    return StorageError.of("retention_unsupported", "these stores cannot delete what they keep")
