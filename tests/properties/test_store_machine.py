"""Whatever is asked of it, in any order, a SQLite store answers as the one in memory does."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from perdure import ArtifactId, ArtifactKind, PerdureError, RunId, Stores
from perdure.adapters.sqlite.store import SqliteStore
from perdure.stores.memory import MemoryState, memory_stores
from perdure.stores.ports import Append, Blob, Release
from perdure.stores.sharing import SharedArtifacts
from perdure.testing.clock import FakeClock
from perdure.testing.store_places import TTL, told

RUNS = [RunId(f"0000000{number}-0000-0000-0000-000000000000") for number in range(3)]
runs = st.sampled_from(RUNS)
names = st.lists(st.sampled_from(["a", "b", "fact_recorded"]), max_size=3)
data = st.binary(max_size=4)


class StoreMachine(RuleBasedStateMachine):
    """Two places with one history; SQLite is closed and opened again now and then."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = FakeClock()
        self.folder = tempfile.TemporaryDirectory()
        self.memory = memory_stores(MemoryState(), self.clock)
        self.sqlite = self.opened()
        self.heads = dict.fromkeys(RUNS, 0)

    def opened(self) -> Stores:
        """SQLite, in which artifacts over two bytes are files."""
        path = Path(self.folder.name) / "runs.db"
        store = SqliteStore(path, clock=self.clock, file_threshold_bytes=2)
        shared = SharedArtifacts(store)
        return Stores(store, shared, store, shared, store.close)

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
        if first == second:
            return
        appends = [
            Append(first, self.heads[first], told(*given)),
            Append(second, self.heads[second] + off, told("x")),
        ]
        done = self.both(lambda stores: stores.commit([Blob(ArtifactKind.OUTPUT, blob)], appends))
        if not isinstance(done, str):
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
    def own_for_a_moment(self, run: RunId) -> None:
        async def own(stores: Stores) -> int:
            claim = await stores.claims.acquire(run, "me", TTL)
            done = await stores.commit(
                [], [Append(run, self.heads[run], told("mine"))], claim, release=Release()
            )
            return done.heads[0]

        self.heads[run] = self.both(own)

    @rule()
    def reopen(self) -> None:
        asyncio.run(self.sqlite.close())
        self.sqlite = self.opened()

    @invariant()
    def heads_agree(self) -> None:
        async def heads(stores: Stores) -> list[int]:
            return [await stores.events.head_seq(run) for run in RUNS]

        assert self.both(heads) == list(self.heads.values())


TestStoreMachine = StoreMachine.TestCase
# Every step synchronises a real disk.
TestStoreMachine.settings = settings(max_examples=20, stateful_step_count=30)
