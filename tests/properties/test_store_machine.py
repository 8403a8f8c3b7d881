"""Whatever is asked of it, in any order, a SQLite store answers as the one in memory does."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from perdure import ArtifactId, ArtifactKind, PerdureError, RunId, Stores
from perdure.adapters.sqlite.store import SqliteStore
from perdure.model.events import RunCompleted, RunStatus
from perdure.stores.keeping import RunTrace
from perdure.stores.memory import MemoryState, memory_stores
from perdure.stores.ports import Append, Blob, Claim, Letter, Release
from perdure.stores.sharing import SharedArtifacts
from perdure.testing.clock import FakeClock
from perdure.testing.legs_conformance import beginning, ending
from perdure.testing.store_places import TTL, told

RUNS = [RunId(f"0000000{number}-0000-0000-0000-000000000000") for number in range(3)]
runs = st.sampled_from(RUNS)
names = st.lists(st.sampled_from(["a", "b", "fact_recorded"]), max_size=3)
letters = st.sampled_from(["a", "b", "c"])
awaits = st.lists(runs, max_size=2).map(tuple)
releases = st.none() | st.tuples(st.sampled_from([None, 0, 1, 50]), awaits).map(lambda told: Release(*told))
data = st.binary(max_size=4)


async def _legs_and_letters(stores: Stores, run_id: RunId) -> tuple[RunId, list[Letter]]:
    newest = await stores.newest_leg(run_id)
    return newest, await stores.mailbox.unread(newest)


class StoreMachine(RuleBasedStateMachine):
    """Two places with one history; SQLite is closed and opened again now and then."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = FakeClock()
        self.folder = tempfile.TemporaryDirectory()
        self.memory = memory_stores(MemoryState(), self.clock)
        self.sqlite = self.opened()
        self.heads = dict.fromkeys(RUNS, 0)
        self.claims: dict[RunId, tuple[Claim, Claim]] = {}
        self.legs = {run: [run] for run in RUNS}

    def opened(self) -> Stores:
        """SQLite, in which artifacts over two bytes are files."""
        path = Path(self.folder.name) / "runs.db"
        store = SqliteStore(path, clock=self.clock, file_threshold_bytes=2)
        shared = SharedArtifacts(store)
        return Stores(
            store, shared, store, shared, store.close, mailbox=store, agenda=store, keeping=store.keeping
        )

    def teardown(self) -> None:
        asyncio.run(self.sqlite.close())
        self.folder.cleanup()

    def both(self, work: Callable[[Stores], Awaitable[Any]]) -> Any:
        """What both answer, or the code with which both refuse."""

        async def asked(stores: Stores) -> Any:
            try:
                return await work(stores)
            except PerdureError as error:
                return error.code

        expected = asyncio.run(asked(self.memory))
        assert asyncio.run(asked(self.sqlite)) == expected
        return expected

    @rule(run=runs, off=st.integers(-1, 1), given=names)
    def append(self, run: RunId, off: int, given: list[str]) -> None:
        head = self.both(lambda stores: stores.events.append(run, self.heads[run] + off, told(*given)))
        if isinstance(head, int):
            self.heads[run] = head

    @rule(first=runs, second=runs, blob=data, given=names, off=st.integers(0, 1))
    def commit(self, first: RunId, second: RunId, blob: bytes, given: list[str], off: int) -> None:
        appends = [
            Append(first, self.heads[first], told(*given)),
            Append(second, self.heads[second] + off + len(given) * (first == second), told("x")),
        ]
        done = self.both(lambda stores: stores.commit([Blob(ArtifactKind.OUTPUT, blob)], appends))
        if not isinstance(done, str):
            # In this order: where both are one run, the second is its head.
            self.heads[first], self.heads[second] = done.heads

    @rule(blob=data)
    def put(self, blob: bytes) -> None:
        self.both(lambda stores: stores.artifacts.put(ArtifactKind.OUTPUT, blob))

    @rule(blob=data)
    def get(self, blob: bytes) -> None:
        wanted = ArtifactId(Blob(ArtifactKind.OUTPUT, blob).id)
        self.both(lambda stores: stores.artifacts.exists(wanted))
        self.both(lambda stores: stores.artifacts.get(wanted))

    @rule(run=runs, first=st.integers(0, 5), last=st.none() | st.integers(0, 5), limit=st.integers(1, 3))
    def read(self, run: RunId, first: int, last: int | None, limit: int) -> None:
        self.both(lambda stores: stores.events.read_range(run, first, last))
        self.both(lambda stores: stores.events.read_engine_events(run, first, limit))
        self.both(lambda stores: stores.events.list_runs(run, limit))
        self.both(lambda stores: stores.events.list_runs(None, limit, unfinished=True))

    @rule(run=runs)
    def end(self, run: RunId) -> None:
        ended = RunCompleted(RunStatus.COMPLETED, None)
        self.heads[run] = self.both(lambda stores: stores.events.append(run, self.heads[run], [ended]))

    @rule(run=runs, other=runs)
    def delete(self, run: RunId, other: RunId) -> None:
        """Those that have ended and that nobody has begin anew afterwards."""

        async def traces(stores: Stores) -> list[RunTrace]:
            return [trace async for page in stores.keeping.traces() for trace in page]

        self.both(traces)
        self.both(lambda stores: stores.keeping.delete([run, other], is_dry=True))
        deleted = self.both(lambda stores: stores.keeping.delete([run, other]))
        self.heads |= dict.fromkeys(deleted.run_ids, 0)
        self.both(traces)

    @rule(run=runs)
    def go_on(self, run: RunId) -> None:
        """The newest leg of a chain ends as another begins, in one commit."""
        number, leg = len(self.legs[run]) + 1, self.legs[run][-1]
        begins, ends = beginning(number, run), ending(number, run)
        appends = [Append(leg.next_leg(), 0, [begins]), Append(leg, self.heads.get(leg, 1), ends)]
        _, head = self.both(lambda stores: stores.commit([], appends)).heads
        if leg == run:
            self.heads[run] = head
        self.legs[run].append(leg.next_leg())
        self.both(partial(_legs_and_letters, run_id=run))

    @rule(run=runs, number=st.integers(0, 4), letter=letters)
    def post_to_a_leg(self, run: RunId, number: int, letter: str) -> None:
        leg = self.legs[run][number % len(self.legs[run])]
        self.both(lambda stores: stores.mailbox.post(leg, letter, [letter]))

    @rule(run=runs, letter=letters)
    def post(self, run: RunId, letter: str) -> None:
        self.both(lambda stores: stores.mailbox.post(run, letter, [letter]))

    @rule(run=runs)
    def own(self, run: RunId) -> None:
        """For longer: a durable claim, by which letters are read."""
        if run in self.claims:
            return

        async def own(stores: Stores) -> Claim:
            claim = await stores.claims.acquire(run, "me", TTL)
            await stores.commit([], [Append(run, self.heads[run], told("own"))], claim)
            return claim

        self.claims[run] = asyncio.run(own(self.memory)), asyncio.run(own(self.sqlite))
        self.heads[run] += 1

    @rule(run=runs, read=st.lists(letters, max_size=2), release=releases, off=st.sampled_from([0, 0, 1]))
    def hear(self, run: RunId, read: list[str], release: Release | None, off: int) -> None:
        """A commit of the owner's, or of one who was it."""
        if run not in self.claims:
            return
        if release is not None and release.due_millis:
            release = release._replace(due_millis=self.clock.millis + release.due_millis)
        append = Append(run, self.heads[run] + off, told("heard"))

        async def commit(stores: Stores) -> list[int]:
            claim = self.claims[run][stores is self.sqlite]
            return (await stores.commit([], [append], claim, read=read, release=release)).heads

        heads = self.both(commit)
        if not isinstance(heads, str):
            self.heads[run] = heads[0]
            if release is not None:
                del self.claims[run]

    @rule(run=runs)
    def let_go(self, run: RunId) -> None:
        if run in self.claims:
            self.both(lambda stores: stores.claims.release(self.claims[run][stores is self.sqlite]))
            del self.claims[run]

    @rule(millis=st.integers(1, 100))
    def wait(self, millis: int) -> None:
        """Owners renew meanwhile."""
        self.clock.advance(millis)
        for stores, claims in zip((self.memory, self.sqlite), self.held(), strict=True):
            assert stores.claims.renew(claims, TTL) == []

    def held(self) -> tuple[list[Claim], list[Claim]]:
        """The claims that are held in memory, and in SQLite."""
        pairs = self.claims.values()
        return [pair[0] for pair in pairs], [pair[1] for pair in pairs]

    @rule(run=runs)
    def own_for_a_moment(self, run: RunId) -> None:
        if run in self.claims:
            return

        async def own(stores: Stores) -> int:
            claim = await stores.claims.acquire(run, "me", TTL)
            done = await stores.commit(
                [], [Append(run, self.heads[run], told("mine"))], claim, release=Release()
            )
            return done.heads[0]

        self.heads[run] = self.both(own)

    @rule()
    def reopen(self) -> None:
        """The owners of then are dead; in memory they have to be told so."""
        asyncio.run(self.sqlite.close())
        self.sqlite = self.opened()
        for claim in self.held()[0]:
            asyncio.run(self.memory.claims.release(claim))
        self.claims.clear()

    @invariant()
    def heads_agree(self) -> None:
        async def heads(stores: Stores) -> list[int]:
            return [await stores.events.head_seq(run) for run in RUNS]

        assert self.both(heads) == list(self.heads.values())

    @invariant()
    def letters_agree(self) -> None:
        async def unread(stores: Stores) -> list[list[Letter]]:
            return [await stores.mailbox.unread(run) for run in RUNS]

        self.both(unread)
        self.both(lambda stores: stores.mailbox.addressed(RUNS[1:]))

    @invariant()
    def agendas_agree(self) -> None:
        async def due(stores: Stores) -> list[list[RunId]]:
            among = [await stores.agenda.due_runs(9, among=RUNS[:count]) for count in range(3)]
            return [*among, await stores.agenda.due_runs(1), await stores.agenda.due_runs(9)]

        if not self.both(due)[-1]:
            self.both(lambda stores: stores.agenda.next_due_millis())


TestStoreMachine = StoreMachine.TestCase
# Every step synchronises a real disk.
TestStoreMachine.settings = settings(max_examples=20, stateful_step_count=30)
