"""Every store and every composition of ports passes the whole suite; every broken store fails it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from perdure import Stores
from perdure.adapters.sqlite.store import SqliteStore
from perdure.stores.memory import MemoryState, MemoryStore, memory_stores
from perdure.stores.schedules import MemorySchedules
from perdure.stores.sharing import SharedArtifacts
from perdure.testing import broken_keeping
from perdure.testing.broken_schedules import BROKEN_SCHEDULES
from perdure.testing.broken_stores import BROKEN
from perdure.testing.clock import FakeClock
from perdure.testing.keeping_conformance import KeepingConformance
from perdure.testing.mailbox_conformance import MailboxConformance
from perdure.testing.schedule_conformance import ScheduleConformance
from perdure.testing.store_conformance import StoreConformance
from perdure.testing.store_places import RUN, StorePlaces, agenda, park, refusal
from tests.small_parts import small_parts


def _all(store: MemoryStore | SqliteStore) -> dict[str, Any]:
    """The ports besides events, artifacts and commits."""
    keeping = store.keeping if isinstance(store, SqliteStore) else store
    return {"mailbox": store, "agenda": store, "schedules": store.schedules, "keeping": keeping}


class TestMemory(StoreConformance):
    """The reference."""

    @pytest.fixture(autouse=True)
    def _places(self) -> None:
        self.states: dict[str, MemoryState] = {}

    def open_place(self, name: str, clock: FakeClock) -> Stores:
        return memory_stores(self.states.setdefault(name, MemoryState()), clock)


class TestSqlite(StoreConformance):
    """One file."""

    @pytest.fixture(autouse=True)
    def _folder(self, tmp_path: Path) -> None:
        self.folder = tmp_path

    def open_place(self, name: str, clock: FakeClock) -> Stores:
        store = SqliteStore(self.folder / f"{name}.db", clock=clock)
        return Stores(store, store, store, store, store.close, **_all(store))


class TestSqliteWithFiles(TestSqlite):
    """One file, and every artifact in a file of its own."""

    def open_place(self, name: str, clock: FakeClock) -> Stores:
        store = SqliteStore(self.folder / f"{name}.db", clock=clock, file_threshold_bytes=0)
        return Stores(store, store, store, store, store.close, **_all(store))


@pytest.fixture
def _small_parts() -> Iterator[None]:
    with small_parts():
        yield


@pytest.mark.usefixtures("_small_parts")
class TestSharedMemory(TestMemory):
    """In memory, in parts."""

    def open_place(self, name: str, clock: FakeClock) -> Stores:
        store = MemoryStore(self.states.setdefault(name, MemoryState()), clock)
        shared = SharedArtifacts(store)
        return Stores(store, shared, store, shared, **_all(store))


@pytest.mark.usefixtures("_small_parts")
class TestSharedSqlite(TestSqlite):
    """One file, in parts: as users have it."""

    def open_place(self, name: str, clock: FakeClock) -> Stores:
        store = SqliteStore(self.folder / f"{name}.db", clock=clock)
        shared = SharedArtifacts(store)
        return Stores(store, shared, store, shared, store.close, **_all(store))


class TestComposed(StoreConformance):
    """Two ports without a common commit: artifacts first, then events; ownership within the bundle."""

    shares_claims = False
    is_atomic = False
    can_delete = False

    @pytest.fixture(autouse=True)
    def _places(self) -> None:
        self.states: dict[str, MemoryState] = {}

    def open_place(self, name: str, clock: FakeClock) -> Stores:
        store = MemoryStore(self.states.setdefault(name, MemoryState()), clock)
        return Stores(_EventsOnly(store), store, clock=clock)


class TestLettersInTheBundle(MailboxConformance):
    """One committer that keeps no letters: the bundle does, and takes them away when a commit has landed."""

    shares_claims = False

    def open_place(self, name: str, clock: FakeClock) -> Stores:
        store = MemoryStore(MemoryState(), clock)
        return Stores(store, store, store, store, clock=clock)


async def test_a_bundle_does_not_guess_what_is_due() -> None:
    """Where others keep the claims, and nobody keeps due times, it cannot know."""
    store = MemoryStore(MemoryState(), FakeClock())
    stores = Stores(store, store, store, store)
    await park(stores, RUN, 0)
    await stores.mailbox.post(RUN, "a", 1)
    assert await agenda(stores) == ([], None)


def test_letters_need_a_committer() -> None:
    """Nobody else could take them away."""
    store = MemoryStore(MemoryState(), FakeClock())
    with pytest.raises(TypeError, match="committer"):
        Stores(store, store, store, mailbox=store)
    with pytest.raises(TypeError, match="committer"):
        Stores(store, store, store, agenda=store)


class _EventsOnly:
    """The event port alone: claims are somebody else's."""

    def __init__(self, store: MemoryStore) -> None:
        self.head_seq = store.head_seq
        self.read_range = store.read_range
        self.read_engine_events = store.read_engine_events
        self.list_runs = store.list_runs
        self._append = store.append

    async def append(self, run_id, expected_seq, events, claim=None):  # type: ignore[no-untyped-def]  # as the port
        return await self._append(run_id, expected_seq, events)


@pytest.mark.parametrize("kind", [*BROKEN, *broken_keeping.BROKEN])
def test_the_suite_notices_a_broken_store(kind: type[MemoryStore]) -> None:
    """At least one test fails on each."""

    class Suite(StoreConformance):
        def __init__(self) -> None:
            self.states: dict[str, MemoryState] = {}

        def open_place(self, name: str, clock: FakeClock) -> Stores:
            store = kind(self.states.setdefault(name, MemoryState()), clock)
            return Stores(store, store, store, store, **_all(store))

    assert _failed(Suite)


@pytest.mark.parametrize("kind", BROKEN_SCHEDULES)
def test_the_suite_notices_broken_schedules(kind: type[MemorySchedules]) -> None:
    """At least one test fails on each."""

    class Suite(ScheduleConformance):
        def __init__(self) -> None:
            self.states: dict[str, MemoryState] = {}

        def open_place(self, name: str, clock: FakeClock) -> Stores:
            state = self.states.setdefault(name, MemoryState())
            store = MemoryStore(state, clock)
            schedules = kind(state.schedules, store.is_over)
            return Stores(store, store, store, store, mailbox=store, agenda=store, schedules=schedules)

    assert _failed(Suite)


@pytest.mark.usefixtures("_small_parts")
@pytest.mark.parametrize("kind", broken_keeping.BROKEN_IN_PARTS)
def test_the_suite_notices_what_breaks_parts(kind: type[MemoryStore]) -> None:
    """At least one test fails on each, over the wrapper that cuts artifacts."""

    class Suite(KeepingConformance):
        def __init__(self) -> None:
            self.states: dict[str, MemoryState] = {}

        def open_place(self, name: str, clock: FakeClock) -> Stores:
            store = kind(self.states.setdefault(name, MemoryState()), clock)
            shared = SharedArtifacts(store)
            return Stores(store, shared, store, shared, **_all(store))

    assert _failed(Suite)


def _failed(suite: type[StorePlaces]) -> list[str]:
    failed = []
    for name in dir(suite):
        if name.startswith("test_"):
            try:
                asyncio.run(getattr(suite(), name)())
            except Exception as error:  # noqa: BLE001 — however it fails, it has noticed
                failed.append(f"{name}: {type(error).__name__}")
    return failed


async def test_a_bundle_does_not_guess_what_may_go() -> None:
    """Where nobody is there who deletes, nothing can be deleted."""
    store = MemoryStore(MemoryState(), FakeClock())
    keeping = Stores(store, store).keeping
    calls = [keeping.delete([RUN]), keeping.sweep(), keeping.compact(), anext(keeping.traces())]
    assert {(await refusal(call)).code for call in calls} == {"retention_unsupported"}
