"""Runs that wait for the end of others in a SQLite store: what is kept of it, and what it costs."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path
from typing import Any

import apsw
import pytest

from perdure import RunId, Stores
from perdure.adapters.sqlite import agenda, awaiting
from perdure.adapters.sqlite.database import migrations, open_database
from perdure.adapters.sqlite.runs import give_up, run_row, take
from perdure.adapters.sqlite.store import SqliteStore
from perdure.stores.ports import Append, Claim, Release
from perdure.testing.store_places import ENDED, OTHER, RUN, TTL, begin, own, park, told
from tests.faults.processes import python

THIRD = RunId("00000000-0000-0000-0000-000000000003")

ENDS = """
    from datetime import timedelta
    from perdure.adapters.sqlite.store import SqliteStore
    from perdure.model.events import RunCompleted, RunStatus
    from perdure.stores.ports import Append, Release

    async def main():
        path, run, dies = sys.argv[1:]
        store, run = SqliteStore(path), RunId(run)
        if dies != "never":
            connection = store._writing.connection
            hooked = connection.set_commit_hook if dies == "before" else connection.set_wal_hook
            hooked(lambda *_: os.kill(os.getpid(), signal.SIGKILL))
        claim = await store.acquire(run, "me", timedelta(hours=1))
        append = Append(run, 1, [RunCompleted(RunStatus.FAILED, None)])
        await store.commit([], [append], claim, release=Release())
        await store.close()

    asyncio.run(main())
    """


def rows(path: Path) -> list[Any]:
    """All that is kept of what runs await."""
    connection = apsw.Connection(str(path))
    try:
        return list(connection.execute("SELECT run_id, awaited FROM awaiting JOIN run ON run = key"))
    finally:
        connection.close()


@pytest.mark.parametrize("dies", ["never", "before", "after"])
async def test_another_process_ends_what_is_awaited(tmp_path: Path, dies: str) -> None:
    """Who awaits it is due if the end is durable, whatever became of the process afterwards."""
    path = tmp_path / "runs.db"
    async with Stores.sqlite(path) as stores:
        await begin(stores, OTHER)
        await park(stores, RUN, None, OTHER)
        process = python(ENDS, path, OTHER, dies)
        await asyncio.to_thread(process.communicate)
        assert process.returncode == (0 if dies == "never" else -signal.SIGKILL)
        has_ended = dies != "before"
        assert await stores.events.head_seq(OTHER) == 1 + has_ended
        assert await stores.agenda.due_runs(9, among=[RUN]) == [RUN] * has_ended
        assert rows(path) == ([] if has_ended else [(RUN, OTHER)])


async def test_what_nobody_awaits_any_more_is_not_kept(tmp_path: Path) -> None:
    """Neither after one of several ends, nor after a later release, nor after the end of who awaited."""
    path = tmp_path / "runs.db"
    async with Stores.sqlite(path) as stores:
        await begin(stores, OTHER)
        await park(stores, RUN, None, OTHER, THIRD, OTHER)
        assert rows(path) == [(RUN, OTHER), (RUN, THIRD)]
        await stores.events.append(OTHER, 1, [ENDED])
        assert rows(path) == []
        await park(stores, RUN, None, OTHER, THIRD)
        assert rows(path) == []
        await park(stores, RUN, None, THIRD)
        await park(stores, RUN, None)
        assert rows(path) == []
        await park(stores, RUN, None, THIRD)
        await stores.claims.release(await own(stores, RUN))
        assert rows(path) == []
        await park(stores, RUN, None, THIRD)
        claim = await own(stores, RUN)
        await stores.commit([], [Append(RUN, 1, [ENDED])], claim, release=Release(None, (THIRD,)))
        assert rows(path) == []


def test_a_release_that_comes_too_late_leaves_what_the_next_owner_awaits(tmp_path: Path) -> None:
    """Another took the run over and left it after the late one had looked: what it waits for stays."""
    path = tmp_path / "runs.db"
    connection = open_database(path)
    cursor = connection.cursor()
    old, new = Claim(RUN, "one", 1), Claim(RUN, "two", 2)
    row = run_row(cursor, RUN)
    take(cursor, old, row, 0)
    take(cursor, new, row, 0)
    give_up(cursor, new, row, Release(None, (OTHER,)))
    give_up(cursor, old, row, Release())
    assert run_row(cursor, RUN).due_millis is None
    assert rows(path) == [(RUN, OTHER)]
    connection.close()


async def test_who_awaits_nothing_pays_nothing(tmp_path: Path) -> None:
    """A state's commit does not ask; an end does, once."""
    store, asked = SqliteStore(tmp_path / "runs.db"), list[str]()

    def note(_: object, statement: str, __: object) -> bool:
        asked.append(statement)
        return True

    store._writing.connection.exec_trace = note
    claim = await store.acquire(RUN, "me", TTL)
    await store.commit([], [Append(RUN, 0, told("a"))], claim)
    await store.commit([], [Append(RUN, 1, told("b")), Append(OTHER, 0, told("c"))], claim)
    assert asked
    assert [each for each in asked if "awaiting" in each] == []
    await store.commit([], [Append(RUN, 2, [ENDED])], claim, release=Release())
    assert [each for each in asked if "awaiting" in each] == [awaiting.SELECT_CONCERNED]
    await store.close()


def test_awaited_runs_are_found_by_indexes(tmp_path: Path) -> None:
    """However many runs there are and wait, only those that are concerned are looked at."""
    connection = open_database(tmp_path / "runs.db")
    read = {
        agenda.SELECT_DUE_AMONG: ["run USING INDEX sqlite_autoindex_run_1 (run_id=?)"],
        awaiting.SELECT_ENDED: ["run USING INDEX sqlite_autoindex_run_1 (run_id=?)"],
        awaiting.SELECT_CONCERNED: ["awaiting_awaited (awaited=?)", "PRIMARY KEY (run=?)"],
        awaiting.WAKE: ["awaiting_awaited (awaited=?)", "run USING INTEGER PRIMARY KEY"],
        awaiting.FORGET_WOKEN: ["awaiting_awaited (awaited=?)", "PRIMARY KEY (run=?)"],
        awaiting.FORGET: ["PRIMARY KEY (run=?)"],
    }
    bindings = {"me": "me", "soon": 0, "now": 1, "among": "[]", "run_id": RUN, "key": 1}
    for query, wanted in read.items():
        plan = [
            row[3]
            for row in connection.execute(f"EXPLAIN QUERY PLAN {query.replace('?', ':among')}", bindings)
        ]
        assert [step for step in plan if step.startswith("SCAN") and "json_each" not in step] == [], plan
        assert all(any(name in step for step in plan) for name in wanted), plan
    connection.close()


async def test_a_file_of_the_version_before_is_awaited_in(tmp_path: Path) -> None:
    """Its runs are there, and awaiting them works from then on."""
    path = tmp_path / "old.db"
    old = open_database(path, migrations()[:4])
    old.execute("INSERT INTO run (run_id, ended, due_millis) VALUES (?, 1, NULL)", (OTHER,))
    old.close()
    async with Stores.sqlite(path) as stores:
        await park(stores, RUN, None, THIRD)
        assert await stores.agenda.due_runs(9) == []
        await park(stores, RUN, None, OTHER)
        assert await stores.agenda.due_runs(9) == [RUN]
