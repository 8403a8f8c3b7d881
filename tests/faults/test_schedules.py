"""Schedules on a real file: indexes, damage, earlier versions, and workers that are killed."""

from __future__ import annotations

from pathlib import Path

import apsw
import pytest

from perdure import App, CorruptionError, RunPhase, Stores
from perdure.adapters.sqlite import schedules
from perdure.adapters.sqlite.database import migrations, open_database
from perdure.adapters.sqlite.store import SqliteStore
from perdure.sdk.client import Client
from perdure.sdk.reading import list_summaries
from perdure.sdk.scheduling import row_of
from perdure.stores.ports import ScheduleRow
from perdure.testing import FakeClock
from tests.faults.processes import python
from tests.schedules import millis, report

MANY = 10_000
DUES = 80
WORKER = """
from contextlib import suppress
from datetime import timedelta
from perdure.adapters.sqlite.store import SqliteStore
from perdure.testing import FakeClock

report = op("report", output=str, imports={"schedule_due": str})

@report.state
async def page(schedule_due: str) -> str:
    return schedule_due

async def main():
    path, begin, dues = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    clock = FakeClock(begin)
    store = SqliteStore(path, clock=clock)
    parts = {"mailbox": store, "agenda": store, "schedules": store.schedules}
    stores = Stores(store, store, store, store, store.close, **parts)
    client = Client(stores, App([report]), clock=clock, closes_stores=True)
    try:
        await client.schedules.create("a", report, every=timedelta(minutes=1), overlap="allow")
    except ConcurrencyError:
        pass
    print("ready", flush=True)
    for number in range(dues + 1):
        clock.millis = begin + number * 60_000
        await client.recover()
        print(number, flush=True)
    while client.driven or await client.recover():
        for run_id in client.driven:
            with suppress(PerdureError):  # it is the other worker's
                await client.drive_result(run_id)
    await client.aclose()

asyncio.run(main())
"""


def bundle(store: SqliteStore) -> Stores:
    """Stores over one file."""
    return Stores(
        store, store, store, store, store.close, mailbox=store, agenda=store, schedules=store.schedules
    )


def test_schedules_are_found_by_indexes(tmp_path: Path) -> None:
    """Only those that are due, or that wait for a run, are looked at."""
    connection = open_database(tmp_path / "runs.db")
    wanted = ("schedule_due (due_millis", "schedule_awaiting (awaits>?)", "sqlite_autoindex_run_1 (run_id=?)")
    for query in (schedules.SELECT_DUE, schedules.SELECT_NEXT):
        bindings = {"now": 1, "limit": 1}
        plan = [row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {query}", bindings)]
        assert [step for step in plan if step.startswith("SCAN") and "subquery" not in step] == [], plan
        assert all(any(name in step for step in plan) for name in wanted), plan
    connection.close()


async def test_ten_thousand_schedules_cost_one_read_when_none_is_due(tmp_path: Path) -> None:
    """One statement on the reading connection, none on the writing one."""
    clock = FakeClock(millis("2026-01-01 00:00"))
    store = SqliteStore(tmp_path / "runs.db", clock=clock)
    stores = bundle(store)
    client = Client(stores, App([report]), clock=clock, closes_stores=True)
    made = await client.schedules.create("model", report, "", cron="0 6 * * *")
    row = row_of(made)

    def fill(cursor: apsw.Cursor) -> None:
        cursor.executemany(
            "INSERT INTO schedule (id, revision, due_millis, body, crc) VALUES (?, 1, ?, x'00', 0)",
            [(f"s{number}", (row.due_millis or 0) + number) for number in range(MANY)],
        )

    await store._writer.run(fill)
    asked: list[str] = []

    def note(_: object, statement: str, __: object) -> bool:
        asked.append(statement)
        return True

    store._reading.exec_trace = store._writing.connection.exec_trace = note
    await client._scheduler.follow()
    assert asked == [schedules.SELECT_NEXT]
    asked.clear()
    assert await client.recover() == []
    assert len(asked) == 2  # the other one asks for runs
    assert client._scheduler.next_millis == row.due_millis
    await client.aclose()


async def test_a_damaged_schedule_is_noticed(tmp_path: Path) -> None:
    """Whatever part of its row was changed."""
    for number, change in enumerate(
        ("body = x'7b7d20'", "due_millis = 6", "revision = 2", "awaits = 'x'", "id = 'b'")
    ):
        path = tmp_path / f"{number}.db"
        async with Stores.sqlite(path) as stores:
            await stores.schedules.create(ScheduleRow("a", {}, 5))
        connection = apsw.Connection(str(path))
        connection.execute(f"UPDATE schedule SET {change}")
        connection.close()
        async with Stores.sqlite(path) as stores:
            (schedule_id,) = await stores.schedules.list()
            with pytest.raises(CorruptionError) as caught:
                await stores.schedules.get(schedule_id)
            assert caught.value.code == "schedule_corruption"
            assert caught.value.hint


async def test_a_file_of_the_version_before_has_schedules_from_then_on(tmp_path: Path) -> None:
    """None at first."""
    path = tmp_path / "old.db"
    open_database(path, migrations()[:6]).close()
    async with Stores.sqlite(path) as stores:
        assert await stores.schedules.list() == []
        assert await stores.schedules.next_due_millis() is None
        await stores.schedules.create(ScheduleRow("a", {}, 5))
        assert await stores.schedules.due(5, 9) == ["a"]


async def test_killed_workers_leave_one_run_for_each_due_time(tmp_path: Path) -> None:
    """Two share a store; each is killed again and again, wherever it is, and none is lost or doubled."""
    path, begin = tmp_path / "runs.db", millis("2026-01-01 00:00")
    lives = [python(WORKER, path, begin, DUES) for _ in range(2)]
    for number in range(5):
        dying = lives.pop(0)
        assert dying.stdout is not None
        for _ in range(2 + number * 9):
            dying.stdout.readline()
        dying.kill()
        dying.wait()
        dying.stdout.close()
        lives.append(python(WORKER, path, begin, DUES))
    for each in lives:
        each.communicate()
        assert each.returncode == 0
    async with Stores.sqlite(path) as stores:
        found = await list_summaries(stores, labels={}, limit=1000)
        dues = sorted(each.schedule["due"] for each in found)
        assert dues == [f"2026-01-01T{number // 60:02}:{number % 60:02}:00Z" for number in range(1, DUES + 1)]
        assert {each.phase for each in found} == {RunPhase.COMPLETED}
        (schedule_id,) = await stores.schedules.list()
        body = (await stores.schedules.get(schedule_id)).body
        assert (body["runs"], body["skipped"], body["missed"]) == (DUES, 0, 0)
