"""Letters and due runs in a SQLite store whose users die."""

from __future__ import annotations

import asyncio
import random
import signal
from pathlib import Path
from uuid import UUID

import apsw
import pytest

from perdure import CorruptionError, DomainEvent, RunId, Stores
from perdure.adapters.sqlite import agenda, mailbox
from perdure.adapters.sqlite.database import migrations, open_database
from perdure.model.wire import encode_event
from perdure.stores.ports import Append, Release
from perdure.testing.store_places import ENDED, OTHER, RUN, TTL, begin, told
from tests.faults.processes import python

LETTERS = 40

DIES = """
    from perdure.adapters.sqlite.store import SqliteStore
    from perdure.stores.ports import Append, Release

    def store_that_kills(path, write, is_before):
        # The process dies in its n-th transaction: shortly before it is durable, or shortly after.
        store, left = SqliteStore(path), [int(write)]

        def hook(*_):
            left[0] -= 1
            if not left[0]:
                os.kill(os.getpid(), signal.SIGKILL)
            return 0

        connection = store._writing.connection
        (connection.set_commit_hook if is_before == "True" else connection.set_wal_hook)(hook)
        return store

    async def heard(store, run):
        stream = await store.read_range(run, 1)
        return [each.event.payload for each in stream if each.event.name == "heard"]

    path, write, is_before, run, name, count = sys.argv[1:]
    run, count = RunId(run), int(count)
    """

POSTER = """
    async def main():
        store = store_that_kills(path, write, is_before)
        # Unread ones first: a letter only ever goes from there into the stream.
        posted = [letter.id for letter in await store.unread(run)]
        posted += await heard(store, run)
        for number in range(count):
            letter_id = f"{name}-{number}"
            if letter_id not in posted:
                assert await store.post(run, letter_id, number)
        await store.close()

    asyncio.run(main())
    """

OWNER = """
    from datetime import timedelta

    async def main():
        store = store_that_kills(path, write, is_before)
        while True:
            claim = await store.acquire(run, "me", timedelta(hours=1))
            for release in (None, Release(None)):
                letters = (await store.unread(run))[:3]
                events = [DomainEvent("heard", letter.id) for letter in letters]
                append = Append(run, await store.head_seq(run), events)
                read = [letter.id for letter in letters]
                await store.commit([], [append], claim, read=read, release=release)
            if len(await heard(store, run)) >= count:
                return await store.close()
            # A run with letters is due: else this would wait for ever.
            while not await store.due_runs(1):
                pass

    asyncio.run(main())
    """


@pytest.mark.parametrize("seed", [1, 2])
async def test_letters_outlive_who_posts_and_who_reads_them(tmp_path: Path, seed: int) -> None:
    """Two post, one reads, all die again and again in the middle of writing: no letter is lost or doubled."""
    path, rng = tmp_path / "runs.db", random.Random(seed)
    async with Stores.sqlite(path) as stores:
        await begin(stores, RUN)

    async def live(body: str, name: str, count: int, deaths: list[tuple[int, bool]]) -> None:
        for write, is_before in [*deaths, (0, False)]:
            process = python(DIES + body, path, write, is_before, RUN, name, count)
            try:
                code = await asyncio.to_thread(process.wait, 60)
            finally:
                process.kill()
                process.communicate()
            if code == 0:
                return
            assert code == -signal.SIGKILL

    def deaths() -> list[tuple[int, bool]]:
        return [(rng.randint(1, LETTERS // 3), rng.random() < 0.5) for _ in range(3)]

    await asyncio.gather(
        live(POSTER, "one", LETTERS, deaths()),
        live(POSTER, "two", LETTERS, deaths()),
        live(OWNER, "owner", 2 * LETTERS, deaths()),
    )
    async with Stores.sqlite(path) as stores:
        stream = await stores.events.read_range(RUN, 2)
        heard = [each.event.payload for each in stream if isinstance(each.event, DomainEvent)]
        assert len(heard) == 2 * LETTERS
        for name in ("one", "two"):
            assert [each for each in heard if name in each] == [f"{name}-{n}" for n in range(LETTERS)]
        assert await stores.mailbox.unread(RUN) == []
        assert await stores.agenda.due_runs(1) == []
        assert await stores.agenda.next_due_millis() is None


async def test_a_killed_owner_s_run_is_due_at_once(tmp_path: Path) -> None:
    """Before that it is not, whatever it waited for before; nobody waits for the time to live."""
    path = tmp_path / "runs.db"
    async with Stores.sqlite(path) as stores:
        claim = await stores.claims.acquire(RUN, "me", TTL)
        await stores.commit([], [Append(RUN, 0, told("a"))], claim, release=Release(2**60))
        assert await stores.agenda.next_due_millis() == 2**60
        owner = python(
            """
            from datetime import timedelta
            from perdure.stores.ports import Append
            async def main():
                stores, run = Stores.sqlite(sys.argv[1]), RunId(sys.argv[2])
                claim = await stores.claims.acquire(run, "owner", timedelta(hours=1))
                await stores.commit([], [], claim)
                print("mine", flush=True)
                signal.pause()
            asyncio.run(main())
            """,
            path,
            RUN,
        )
        assert owner.stdout is not None
        assert await asyncio.to_thread(owner.stdout.readline) == "mine\n"
        assert await stores.agenda.due_runs(9) == []
        assert await stores.agenda.next_due_millis() is None
        owner.send_signal(signal.SIGKILL)
        owner.communicate()
        assert await stores.agenda.due_runs(9) == [RUN]


async def test_a_closed_store_s_runs_are_due(tmp_path: Path) -> None:
    """Also in the same process: who closed the store drives nothing any more."""
    path = tmp_path / "runs.db"
    async with Stores.sqlite(path) as stores:
        owner = Stores.sqlite(path)
        await owner.commit([], [Append(RUN, 0, told("a"))], await owner.claims.acquire(RUN, "owner", TTL))
        assert await stores.agenda.due_runs(9) == []
        await owner.close()
        assert await stores.agenda.due_runs(9) == [RUN]


async def test_a_run_that_nobody_began_is_not_due(tmp_path: Path) -> None:
    """A claim may become durable before there are events; no letters come to such a run either."""
    async with Stores.sqlite(tmp_path / "runs.db") as stores:
        claim = await stores.claims.acquire(RUN, "me", TTL)
        await stores.commit([], [], claim, release=Release())
        assert await stores.agenda.due_runs(9) == []
        assert await stores.agenda.next_due_millis() is None


async def test_a_run_that_ended_has_no_due_time(tmp_path: Path) -> None:
    """Not even in the file, whoever had it last and whatever was said then."""
    path = tmp_path / "runs.db"
    async with Stores.sqlite(path) as stores:
        claim = await stores.claims.acquire(RUN, "me", TTL)
        await stores.commit([], [Append(RUN, 0, [ENDED])], claim, release=Release(1))
        await stores.events.append(OTHER, 0, [ENDED])
        connection = apsw.Connection(str(path))
        assert connection.execute("SELECT due_millis FROM run").fetchall() == [(None,), (None,)]
        connection.close()


async def test_a_damaged_letter_without_a_checksum_is_found(tmp_path: Path) -> None:
    """If it is no JSON any more. It is said which, and nothing else is made of it."""
    path = tmp_path / "runs.db"
    async with Stores.sqlite(path) as stores:
        await begin(stores, RUN)
        await stores.mailbox.post(RUN, "a", {"b": 1})
        connection = apsw.Connection(str(path))
        connection.execute("UPDATE letter SET crc = NULL, body = CAST('{\"b\"' AS BLOB)")
        connection.close()
        with pytest.raises(CorruptionError) as caught:
            await stores.mailbox.unread(RUN)
        assert (caught.value.code, caught.value.info.details) == ("letter_malformed", {"letter_id": "a"})
        assert caught.value.hint


def test_letters_and_due_runs_are_found_by_indexes(tmp_path: Path) -> None:
    """However many runs there are, only those that may be due are looked at."""
    connection = open_database(tmp_path / "runs.db")
    bindings = {"me": "me", "soon": 0, "now": 1, "limit": 1}
    read = {
        agenda.SELECT_DUE: ("run_owned", "run_due", "event EXISTS USING COVERING INDEX"),
        agenda.SELECT_NEXT: ("run_due", "event EXISTS USING COVERING INDEX"),
        mailbox.SELECT_ADDRESSED: ("INTEGER PRIMARY KEY", "letter USING COVERING INDEX"),
        mailbox.SELECT_UNREAD.replace("?", ":me"): ("(run_id=?)", "(run=?)"),
    }
    for query, wanted in read.items():
        plan = [row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {query}", bindings)]
        steps = [step for step in plan if step.startswith(("SEARCH", "SCAN")) and "(subquery" not in step]
        assert all(" USING " in step for step in steps), plan
        assert [step for step in steps if step.startswith("SCAN run")] == [], plan
        assert all(any(name in step for step in steps) for name in wanted), plan
    connection.close()


async def test_runs_of_an_earlier_version_are_due(tmp_path: Path) -> None:
    """Those that have not ended: nothing said before when they were to be taken up."""
    path = tmp_path / "old.db"
    old = open_database(path, migrations()[:3])
    for key, ended in ((1, 0), (2, 1), (3, 0)):
        old.execute(
            "INSERT INTO run (key, run_id, ended) VALUES (?, ?, ?)", (key, str(RunId(UUID(int=key))), ended)
        )
        old.execute(
            "INSERT INTO event (run, seq, ts_millis, engine, crc, body) VALUES (?, 1, 0, 0, 0, ?)",
            (key, encode_event(DomainEvent("a"))),
        )
    old.close()
    async with Stores.sqlite(path) as stores:
        assert await stores.agenda.due_runs(9) == [RunId(UUID(int=1)), RunId(UUID(int=3))]
        with pytest.raises(Exception, match="run_already_terminal"):
            await stores.mailbox.post(OTHER, "a", 1)
