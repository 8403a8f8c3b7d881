"""What may happen to a SQLite store, and what it says then. Nothing is ever lost."""

from __future__ import annotations

import asyncio
import os
import signal
import tempfile
import weakref
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from uuid import UUID

import apsw
import pytest

from perdure import (
    ArtifactId,
    ArtifactKind,
    ConcurrencyError,
    Context,
    CorruptionError,
    DomainEvent,
    Engine,
    IoProvider,
    RunCompleted,
    RunId,
    RunPhase,
    RunResult,
    RunStatus,
    StorageError,
    Stores,
)
from perdure.adapters.sqlite import worker
from perdure.adapters.sqlite.database import migrate, migrations, open_database
from perdure.adapters.sqlite.events import insert_events
from perdure.adapters.sqlite.runs import run_row
from perdure.adapters.sqlite.store import SqliteStore
from perdure.model.events import Event
from perdure.model.handler import Recorder
from perdure.model.wire import encode_event
from perdure.stores.paths import PATH_BYTES_MAX
from perdure.stores.ports import Append, Blob, Claim, Committed
from perdure.testing.clock import FakeClock
from perdure.testing.store_places import OTHER, RUN, told
from tests.faults.processes import python
from tests.support import FixedResolver, Scripted, plan_of, start_run

TTL = timedelta(seconds=30)


async def nothing(ctx: Context, io: IoProvider, rec: Recorder) -> None:
    pass


class Hasty(SqliteStore):
    """Lets nobody write to a run before everybody has found it free."""

    def __init__(self, path: Path, everybody: asyncio.Barrier) -> None:
        super().__init__(path)
        self._everybody: asyncio.Barrier | None = everybody

    async def acquire(self, run_id: RunId, owner: str, ttl: timedelta) -> Claim:
        claim = await super().acquire(run_id, owner, ttl)
        everybody, self._everybody = self._everybody, None
        if everybody is not None:
            await everybody.wait()
        return claim


def two_hasty(path: Path) -> list[Stores]:
    """Two stores over one file, whose owners find a run free at the same time."""
    everybody = asyncio.Barrier(2)
    stores = [Hasty(path, everybody) for _ in range(2)]
    return [Stores(each, each, each, each, each.close, mailbox=each, agenda=each) for each in stores]


def opening_fails(path: Path) -> StorageError:
    """The error with which a store cannot be opened; it is raised at once, and tells what to do."""
    with pytest.raises(StorageError) as caught:
        Stores.sqlite(path)
    assert caught.value.hint
    return caught.value


async def fill(path: Path, big: bytes = b"") -> None:
    """One run of three events, and an artifact."""
    async with Stores.sqlite(path) as stores:
        await stores.events.append(RUN, 0, told("first", "second", "third"))
        await stores.artifacts.put(ArtifactKind.OUTPUT, big or b"some content")


async def test_a_foreign_file_is_left_alone(tmp_path: Path) -> None:
    """Another program's database is refused and not changed."""
    path = tmp_path / "other.db"
    connection = apsw.Connection(str(path))
    connection.execute("CREATE TABLE theirs (x)")
    connection.close()
    before = path.read_bytes()
    assert opening_fails(path).code == "store_foreign"
    assert path.read_bytes() == before


async def test_a_newer_file_is_left_alone(tmp_path: Path) -> None:
    """A file of a later version is refused: this program would not understand it."""
    path = tmp_path / "runs.db"
    await fill(path)
    connection = apsw.Connection(str(path))
    connection.pragma("user_version", len(migrations()) + 1)
    connection.close()
    assert opening_fails(path).code == "store_too_new"


def test_what_is_no_database_is_refused(tmp_path: Path) -> None:
    """Garbage, whatever its name."""
    path = tmp_path / "garbage.db"
    path.write_bytes(b"this is no database, whatever its name" * 100)
    error = opening_fails(path)
    assert isinstance(error, CorruptionError)
    assert error.code == "store_corrupt"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("folder", "is a folder"),
        ("pipe", "is no regular file"),
        ("/dev/null", "is no regular file"),
        ("file/runs.db", "leads through a file"),
        ("circle", "leads nowhere"),
        ("x" * 250, "is too long"),
        ("/".join(["long"] * 120), "is too long"),
        ("new/" + "x" * 300, "is too long"),
        ("nul\0.db", "is no text"),
        ("half\udcff.db", "is no text"),
        (":memory:", "in memory"),
        ("", "is empty"),
    ],
)
def test_where_no_file_can_be_a_store_is_said(
    name: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before anything is made there."""
    monkeypatch.chdir(tmp_path)
    Path("folder").mkdir()
    Path("file").touch()
    Path("circle").symlink_to("circle")
    os.mkfifo("pipe")
    before = sorted(tmp_path.iterdir())
    for address in (name, f"sqlite:{name}"):
        with pytest.raises(StorageError, match=message) as caught:
            Stores.open(address)
        assert caught.value.code == "store_path_invalid"
        assert caught.value.hint
    assert sorted(tmp_path.iterdir()) == before


def test_a_path_as_long_as_can_be_is_a_store(tmp_path: Path) -> None:
    """One letter more is refused."""
    rest = PATH_BYTES_MAX - len(os.fsencode(tmp_path)) - 1
    folder = "/".join(["f" * 99] * (rest // 100))
    path = tmp_path / folder / ("x" * (rest - len(folder) - 1))
    asyncio.run(fill(path))
    assert opening_fails(path.with_name(path.name + "x")).code == "store_path_invalid"


@pytest.mark.parametrize(
    ("folder_mode", "file_mode", "code"),
    [
        (0o555, None, "store_read_only"),
        (0o755, 0o000, "store_unreadable"),
        (0o700, 0o666, "store_unreadable"),
        (0o755, 0o444, "store_read_only"),
    ],
)
def test_what_may_not_be_read_or_written_is_said(folder_mode: int, file_mode: int | None, code: str) -> None:
    """An ordinary user, and a folder or a file of somebody else's."""
    if os.getuid() != 0:
        pytest.skip("only root can become somebody who may not write")
    # Not the test's own folder: its parents are closed to others.
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "runs.db"
        if file_mode is not None:
            path.touch(file_mode)
            path.chmod(file_mode)
        Path(folder).chmod(folder_mode)
        child = python(
            """
            import perdure.wiring
            os.setgid(65534); os.setuid(65534)
            try:
                Stores.sqlite(sys.argv[1])
            except PerdureError as error:
                print(error.code, bool(error.hint))
            """,
            path,
        )
        assert child.communicate(timeout=60)[0].split() == [code, "True"]


async def test_a_flipped_byte_in_an_event_is_found(tmp_path: Path) -> None:
    """Also where the event would still be well-formed."""
    path = tmp_path / "runs.db"
    await fill(path)
    connection = apsw.Connection(str(path))
    connection.execute(
        "UPDATE event SET body = CAST(replace(body, 'second', 'secomd') AS BLOB) WHERE seq = 2"
    )
    connection.close()
    async with Stores.sqlite(path) as stores:
        with pytest.raises(CorruptionError) as caught:
            await stores.events.read_range(RUN, 1)
        assert (caught.value.code, caught.value.info.details["seq"]) == ("event_corruption", 2)
        assert caught.value.hint
        assert len(await stores.events.read_range(RUN, 3)) == 1


@pytest.mark.parametrize(
    "damage",
    ["body = CAST(replace(body, '500', '900') AS BLOB)", "id = 'other'", "sent_millis = sent_millis + 1"],
)
async def test_a_flipped_byte_in_a_letter_is_found(tmp_path: Path, damage: str) -> None:
    """Also where the letter would still be well-formed: a signal would say another thing than was said."""
    path = tmp_path / "runs.db"
    await fill(path)
    async with Stores.sqlite(path) as stores:
        await stores.mailbox.post(RUN, "letter", {"cents": 500})
        assert [each.body for each in await stores.mailbox.unread(RUN)] == [{"cents": 500}]
    connection = apsw.Connection(str(path))
    connection.execute(f"UPDATE letter SET {damage}")
    connection.close()
    async with Stores.sqlite(path) as stores:
        with pytest.raises(CorruptionError) as caught:
            await stores.mailbox.unread(RUN)
        assert caught.value.code == "letter_corruption"
        assert caught.value.hint


async def test_a_letter_of_the_fourth_version_is_read_unchecked(tmp_path: Path) -> None:
    """It has no checksum."""
    path = tmp_path / "old.db"
    old = open_database(path, migrations()[:4])
    old.execute("INSERT INTO run (key, run_id) VALUES (1, ?)", (str(RUN),))
    old.execute("INSERT INTO letter (run, id, sent_millis, body) VALUES (1, 'letter', 0, CAST('5' AS BLOB))")
    old.close()
    async with Stores.sqlite(path) as stores:
        assert [each.body for each in await stores.mailbox.unread(RUN)] == [5]


async def test_a_missing_event_is_found(tmp_path: Path) -> None:
    """A stream has no gaps."""
    path = tmp_path / "runs.db"
    await fill(path)
    connection = apsw.Connection(str(path))
    connection.execute("DELETE FROM event WHERE seq = 2")
    connection.close()
    async with Stores.sqlite(path) as stores:
        with pytest.raises(CorruptionError) as caught:
            await stores.events.read_range(RUN, 1)
        assert (caught.value.code, caught.value.info.details["seq"]) == ("event_sequence_gap", 2)


@pytest.mark.parametrize("size", [100, 2 << 20])
async def test_a_flipped_byte_in_an_artifact_is_found(tmp_path: Path, size: int) -> None:
    """In the database, and in a file of its own; a file that is gone is found too."""
    path, data = tmp_path / "runs.db", bytes(size)
    await fill(path, data)
    artifact_id = ArtifactId(Blob(ArtifactKind.OUTPUT, data).id)
    files = [each for each in (tmp_path / "runs.db.artifacts").rglob("*") if each.is_file()]
    assert len(files) == (size > 1 << 20)
    if files:
        files[0].write_bytes(b"\x01" + data[1:])
    else:
        connection = apsw.Connection(str(path))
        connection.execute("UPDATE artifact SET data = ?", (b"\x01" + data[1:],))
        connection.close()
    async with Stores.sqlite(path) as stores:
        with pytest.raises(CorruptionError, match="artifact_corruption"):
            await stores.artifacts.get(artifact_id)
        for file in files:
            file.unlink()
            with pytest.raises(CorruptionError, match="artifact_corruption"):
                await stores.artifacts.get(artifact_id)
        # Putting the right bytes mends the file.
        if files:
            await stores.artifacts.put(ArtifactKind.OUTPUT, data)
            assert await stores.artifacts.get(artifact_id) == data


async def test_a_full_disk_loses_nothing(tmp_path: Path) -> None:
    """A commit that finds no room is refused as a whole, and the next that fits goes on."""
    store = SqliteStore(tmp_path / "runs.db")
    stores = Stores(store, store, store, store, store.close)
    async with stores:
        await stores.events.append(RUN, 0, told("a"))
        pages = store._writing.connection.pragma("page_count")
        store._writing.connection.pragma("max_page_count", pages)
        with pytest.raises(StorageError) as caught:
            await stores.commit([Blob(ArtifactKind.OUTPUT, bytes(500_000))], [Append(RUN, 1, told("b"))])
        assert caught.value.code == "store_full"
        assert caught.value.hint
        assert await stores.events.head_seq(RUN) == 1
        store._writing.connection.pragma("max_page_count", pages + 1000)
        assert await stores.events.append(RUN, 1, told("c")) == 2


async def test_a_locked_store_says_so(tmp_path: Path) -> None:
    """Somebody keeps the file locked for too long: nothing is written, and it may be tried again."""
    path = tmp_path / "runs.db"
    store = SqliteStore(path, busy_timeout_millis=1)
    async with Stores(store, store, store, store, store.close) as stores:
        other = apsw.Connection(str(path))
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StorageError) as caught:
            await stores.events.append(RUN, 0, told("a"))
        assert caught.value.code == "store_locked"
        assert caught.value.hint
        other.execute("ROLLBACK")
        other.close()
        assert await stores.events.append(RUN, 0, told("a")) == 1


async def test_another_process_s_transaction_does_not_stop_the_loop(tmp_path: Path) -> None:
    """It is waited for in a thread; the same loop goes on, and ends it."""
    path = tmp_path / "runs.db"
    store = SqliteStore(path)
    async with Stores(store, store, store, store, store.close) as stores:
        other = apsw.Connection(str(path))
        other.execute("BEGIN IMMEDIATE")
        commit = asyncio.create_task(stores.events.append(RUN, 0, told("a")))
        for _ in range(100):
            await asyncio.sleep(0)
        assert not commit.done()
        other.execute("ROLLBACK")
        other.close()
        assert await commit == 1


async def test_a_slow_disk_does_not_stop_the_loop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once it was found to be slow a thread waits for it, and takes at once what came up meanwhile."""
    store = SqliteStore(tmp_path / "runs.db")
    monkeypatch.setattr(worker, "SLOW_SECONDS", -1.0)
    async with Stores(store, store, store, store, store.close) as stores:
        runs = [RunId.random() for _ in range(20)]
        before = store.commits
        await asyncio.gather(*(stores.events.append(run_id, 0, told("a")) for run_id in runs))
        assert store.commits - before <= 3
        assert [await stores.events.head_seq(run_id) for run_id in runs] == [1] * 20


async def test_a_thread_keeps_nothing_of_what_it_has_done() -> None:
    """While it waits for more, the results of what it did last are their caller's alone."""

    class Large:
        pass

    cursor = apsw.Connection(":memory:").cursor()

    def begin(jobs: Sequence[worker.Job], may_wait: bool) -> bool:
        for job in jobs:
            job.result = job.work(cursor)
        return True

    thread = worker.Worker("test", begin)
    large = weakref.ref(await thread.run(lambda _: Large()))
    for _ in range(100_000):
        if large() is None:
            break
        await asyncio.sleep(0)
    assert large() is None
    thread.close()


async def test_what_an_interrupt_has_left_open_is_undone(tmp_path: Path) -> None:
    """A batch that was begun and never finished is as if it had not been."""
    store = SqliteStore(tmp_path / "runs.db")
    async with Stores(store, store, store, store, store.close, store.describe) as stores:
        interrupted = worker.Job(lambda cursor: cursor.execute("INSERT INTO run (run_id) VALUES ('x')"))
        assert store._writing.begin([interrupted], False)
        await stores.events.append(RUN, 0, told("a"))
        assert await stores.events.list_runs() == [RUN]
        assert (await stores.describe())["runs"] == 1


async def test_runs_share_transactions(tmp_path: Path) -> None:
    """Those that come up while one is written; who is refused takes nobody along."""
    store = SqliteStore(tmp_path / "runs.db")
    async with Stores(store, store, store, store, store.close) as stores:
        runs = [RunId.random() for _ in range(20)]
        claims = [await stores.claims.acquire(run_id, "me", TTL) for run_id in runs]
        before = store.commits
        expected = [7, *[0] * 19]
        done = await asyncio.gather(
            *(
                stores.commit([], [Append(claim.run_id, seq, told("a"))], claim)
                for claim, seq in zip(claims, expected, strict=True)
            ),
            return_exceptions=True,
        )
        assert store.commits - before <= 3
        assert isinstance(done[0], ConcurrencyError)
        assert all(isinstance(each, Committed) for each in done[1:])


async def test_who_is_alone_lets_others_have_their_turn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Commits that are done in the loop never wait; whoever makes many yields all the same."""
    monkeypatch.setattr(worker, "SLOW_SECONDS", 60.0)
    monkeypatch.setattr(worker, "YIELD_SECONDS", -1.0)
    seen: list[int] = []
    async with Stores.sqlite(tmp_path / "runs.db") as stores:

        async def append() -> None:
            for head in range(20):
                await stores.events.append(RUN, head, told("a"))

        appending = asyncio.create_task(append())
        while not appending.done():
            seen.append(await stores.events.head_seq(RUN))
    assert {0, 10, 19} <= set(seen)


async def test_runs_that_start_together_commit_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also on a disk so quick that the first could be through before the second begins."""
    monkeypatch.setattr(worker, "SLOW_SECONDS", 60.0)

    async def count(ctx: Context, io: IoProvider, rec: Recorder) -> None:
        ctx.write("n", 1)

    plan = plan_of(("a", Scripted(count)), ("b", Scripted(count)))
    store = SqliteStore(tmp_path / "runs.db")
    async with Stores(store, store, store, store, store.close) as stores:
        starts = [await start_run(stores, plan) for _ in range(20)]
        before, engine = store.commits, Engine(FixedResolver(plan))
        results = await asyncio.gather(*(engine.start(stores, each) for each in starts))
        assert {each.phase for each in results} == {RunPhase.COMPLETED}
        assert store.commits - before <= 2 * 3


async def test_closing_finishes_what_was_asked_for(tmp_path: Path) -> None:
    """A commit that was begun in the same turn of the loop is kept."""
    path = tmp_path / "runs.db"
    store = SqliteStore(path)
    stores = Stores(store, store, store, store, store.close)
    for run_id in (RUN, OTHER):
        await stores.claims.acquire(run_id, "me", TTL)
    commit = asyncio.create_task(stores.events.append(RUN, 0, told("a")))
    await asyncio.sleep(0)
    await stores.close()
    assert await commit == 1
    async with Stores.sqlite(path) as again:
        assert await again.events.head_seq(RUN) == 1


async def test_what_the_database_cannot_take_fails_alone(tmp_path: Path) -> None:
    """A number too large for SQLite is the caller's mistake; whoever comes after is served."""
    async with Stores.sqlite(tmp_path / "runs.db") as stores:
        with pytest.raises(OverflowError):
            await stores.events.read_range(RUN, 2**63)
        assert await stores.events.append(RUN, 0, told("a")) == 1
        assert len(await stores.events.read_range(RUN, 1)) == 1


async def test_what_another_process_wrote_is_seen_by_an_owner(tmp_path: Path) -> None:
    """An owner does not read its run again before each commit; it notices when somebody else has written."""
    path = tmp_path / "runs.db"
    async with Stores.sqlite(path) as stores, Stores.sqlite(path) as others:
        claim = await stores.claims.acquire(RUN, "owner", TTL)
        head = await stores.events.append(RUN, 0, told("first"), claim)
        head = await stores.events.append(RUN, head, told("second"), claim)
        await others.events.append(RUN, head, told("theirs"))
        with pytest.raises(ConcurrencyError) as caught:
            await stores.events.append(RUN, head, told("third"), claim)
        assert caught.value.code == "event_store_concurrency"
        assert await stores.events.append(RUN, head + 1, told("third"), claim) == head + 2


async def test_an_owner_notices_that_another_process_has_taken_its_run(tmp_path: Path) -> None:
    """Also when nothing was added to the run meanwhile: its claim has run out, and there is a later one."""
    path, clock = tmp_path / "runs.db", FakeClock()
    store, other = SqliteStore(path, clock=clock), SqliteStore(path, clock=clock)
    old = await store.acquire(RUN, "owner", TTL)
    head = await store.append(RUN, 0, told("first"), old)
    clock.advance(60_000)
    await other.commit([], [], await other.acquire(RUN, "next", TTL))
    with pytest.raises(ConcurrencyError) as caught:
        await store.append(RUN, head, told("second"), old)
    assert caught.value.code == "claim_lost"
    await store.close()
    await other.close()


async def test_what_is_not_the_owner_s_own_work_is_seen_by_it(tmp_path: Path) -> None:
    """Neither does it miss what this process wrote without its claim, or a claim that was given up."""
    async with Stores.sqlite(tmp_path / "runs.db") as stores:
        claim = await stores.claims.acquire(RUN, "owner", TTL)
        head = await stores.events.append(RUN, 0, told("first"), claim)
        head = await stores.events.append(RUN, head, told("not the owner's"))
        assert await stores.events.append(RUN, head, told("second"), claim) == 3
        await stores.claims.release(claim)
        with pytest.raises(ConcurrencyError) as caught:
            await stores.events.append(RUN, 3, told("too late"), claim)
        assert caught.value.code == "claim_lost"


async def test_what_was_rolled_back_is_not_known(tmp_path: Path) -> None:
    """Of commits that share a transaction, one that is refused takes nothing of the others along."""
    async with Stores.sqlite(tmp_path / "runs.db") as stores:
        runs = [RunId(UUID(int=number)) for number in range(1, 5)]
        claims = [await stores.claims.acquire(run, "owner", TTL) for run in runs]
        for head in range(3):
            appends = [
                stores.events.append(run, head, told(f"event {head}"), claim)
                for run, claim in zip(runs, claims, strict=True)
            ]
            late = stores.events.append(runs[0], head + 7, told("never"), claims[0])
            *heads, refused = await asyncio.gather(*appends, late, return_exceptions=True)
            assert heads == [head + 1] * len(runs)
            assert isinstance(refused, ConcurrencyError)
            assert refused.code == "event_store_concurrency"


async def test_a_closed_store_says_so(tmp_path: Path) -> None:
    """Closing twice is fine; using it afterwards is not."""
    stores = Stores.sqlite(tmp_path / "runs.db")
    await stores.close()
    await stores.close()
    with pytest.raises(StorageError, match="store_closed"):
        await stores.events.head_seq(RUN)


async def test_two_processes_write_without_losing_or_doubling(tmp_path: Path) -> None:
    """Each adds two hundred events to one run, whatever the other does; somebody reads meanwhile."""
    path = tmp_path / "runs.db"
    body = """
        async def main():
            async with Stores.sqlite(sys.argv[1]) as stores:
                run, left = RunId(sys.argv[2]), 200
                while left:
                    head = await stores.events.head_seq(run)
                    try:
                        await stores.events.append(run, head, [DomainEvent(sys.argv[3], {"n": left})])
                        left -= 1
                    except ConcurrencyError:
                        pass
        asyncio.run(main())
        """
    async with Stores.sqlite(path) as stores:
        writers = [python(body, path, RUN, name) for name in ("one", "two")]
        seen = 0
        while any(writer.poll() is None for writer in writers):
            stream = await stores.events.read_range(RUN, 1)
            assert len(stream) >= seen
            seen = len(stream)
        assert [writer.communicate()[0] for writer in writers] == ["", ""]
        assert [writer.returncode for writer in writers] == [0, 0]
        stream = await stores.events.read_range(RUN, 1)
        names = [
            (each.event.name, each.event.payload["n"])
            for each in stream
            if isinstance(each.event, DomainEvent)
        ]
        assert [each.seq for each in stream] == list(range(1, 401))
        for name in ("one", "two"):
            assert [number for by, number in names if by == name] == list(range(200, 0, -1))


async def test_a_killed_owner_frees_its_run_at_once(tmp_path: Path) -> None:
    """The system takes the lock back when the process dies; nobody waits for the time to live."""
    path = tmp_path / "runs.db"
    owner = python(
        """
        from datetime import timedelta
        from perdure.stores.ports import Append
        async def main():
            stores, run = Stores.sqlite(sys.argv[1]), RunId(sys.argv[2])
            claim = await stores.claims.acquire(run, "owner", timedelta(hours=1))
            await stores.commit([], [Append(run, 0, [DomainEvent("a")])], claim)
            print("mine", flush=True)
            signal.pause()
        asyncio.run(main())
        """,
        path,
        RUN,
    )
    assert owner.stdout is not None
    assert await asyncio.to_thread(owner.stdout.readline) == "mine\n"
    async with Stores.sqlite(path) as stores:
        with pytest.raises(StorageError, match="run_already_active"):
            await stores.claims.acquire(RUN, "other", TTL)
        owner.send_signal(signal.SIGKILL)
        owner.communicate()
        claim = await stores.claims.acquire(RUN, "other", TTL)
        assert claim.epoch == 2
        assert (await stores.commit([], [Append(RUN, 1, told("b"))], claim)).heads == [2]


async def test_who_comes_second_to_a_run_is_told_that_it_is_driven(tmp_path: Path) -> None:
    """Also if both looked before either wrote; the handler is run for one of them alone."""
    entered: list[str] = []
    go_on, path = asyncio.Event(), tmp_path / "runs.db"

    async def works(ctx: Context, io: IoProvider, rec: Recorder) -> None:
        entered.append("works")
        await go_on.wait()

    plan = plan_of(("a", Scripted(works)))
    async with Stores.sqlite(path) as stores:
        begun = await start_run(stores, plan, run_id=RUN)
        await Engine(FixedResolver(plan)).start(stores, begun, drive=False)
    here, there = two_hasty(path)
    async with here, there:
        engine = Engine(FixedResolver(plan))
        tasks = [asyncio.ensure_future(engine.resume(stores, RUN)) for stores in (here, there)]
        lost, won = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        with pytest.raises(ConcurrencyError, match="run_already_active"):
            await lost.pop()
        go_on.set()
        assert (await won.pop()).phase is RunPhase.COMPLETED
        assert entered == ["works"]


@pytest.mark.parametrize("key", ["order-7", None])
async def test_who_comes_second_to_start_a_run_finds_it_there(tmp_path: Path, key: str | None) -> None:
    """Whoever has its invocation key is given the run; whoever wanted the id for another is refused."""
    plan, path = plan_of(("a", Scripted(nothing))), tmp_path / "runs.db"
    here, there = two_hasty(path)
    async with here, there:
        begun = await start_run(here, plan, run_id=None if key else RUN, invocation_key=key)
        ended = await asyncio.gather(
            *(Engine(FixedResolver(plan)).start(stores, begun) for stores in (here, there)),
            return_exceptions=True,
        )
    results = [each.run_id for each in ended if isinstance(each, RunResult)]
    errors = [each.code for each in ended if isinstance(each, ConcurrencyError)]
    if key is None:
        assert (results, errors) == ([RUN], ["run_already_exists"])
    else:
        assert (results, errors) == ([RunId.for_invocation(key)] * 2, [])


def test_a_death_between_file_and_commit_leaves_no_half_artifact(tmp_path: Path) -> None:
    """The file is whole, nobody names it, and putting the artifact again works."""
    path = tmp_path / "runs.db"
    child = python(
        """
        stores = Stores.open(sys.argv[1], Failpoints.parse(["artifact_file.after=kill"]))
        asyncio.run(stores.artifacts.put(ArtifactKind.OUTPUT, bytes(2 << 20)))
        """,
        path,
    )
    child.communicate(timeout=60)
    assert child.returncode == -signal.SIGKILL
    artifact_id = ArtifactId(Blob(ArtifactKind.OUTPUT, bytes(2 << 20)).id)

    async def look() -> None:
        async with Stores.sqlite(path) as stores:
            assert not await stores.artifacts.exists(artifact_id)
            assert await stores.artifacts.put(ArtifactKind.OUTPUT, bytes(2 << 20)) == artifact_id
            assert await stores.artifacts.get(artifact_id) == bytes(2 << 20)

    asyncio.run(look())


def test_a_migrated_schema_equals_a_fresh_one(tmp_path: Path) -> None:
    """Whatever version a file begins with, it ends with the same schema; a failing step changes nothing."""
    steps = [*migrations(), "CREATE TABLE later (x INTEGER) STRICT; INSERT INTO later VALUES (1)"]

    def schema(connection: apsw.Connection) -> Sequence[object]:
        return connection.execute("SELECT type, name, sql FROM sqlite_schema ORDER BY name").fetchall()

    fresh = open_database(tmp_path / "fresh.db", steps)
    old = open_database(tmp_path / "old.db")
    before = schema(old)
    with pytest.raises(apsw.SQLError):
        migrate(old, tmp_path / "old.db", [*steps, "CREATE TABLE broken ("])
    assert schema(old) == before
    migrate(old, tmp_path / "old.db", steps)
    assert schema(old) == schema(fresh) != before
    assert old.pragma("user_version") == len(steps)
    fresh.close()
    old.close()


async def test_a_file_of_the_first_version_knows_which_runs_have_ended(tmp_path: Path) -> None:
    """Before the second version nothing said so; the migration reads it from the events, once."""
    path = tmp_path / "old.db"
    old = open_database(path, migrations()[:1])
    histories: list[list[Event]] = [[RunCompleted(RunStatus.COMPLETED, None)], [DomainEvent("a")]]
    for key, events in enumerate(histories, 1):
        old.execute("INSERT INTO run (key, run_id) VALUES (?, ?)", (key, str(RunId(UUID(int=key)))))
        old.executemany(
            "INSERT INTO event (run, seq, ts_millis, engine, crc, body) VALUES (?, ?, 0, 1, 0, ?)",
            [(key, seq, encode_event(event)) for seq, event in enumerate(events, 1)],
        )
    old.close()
    async with Stores.sqlite(path) as stores:
        assert await stores.events.list_runs(unfinished=True) == [RunId(UUID(int=2))]
        assert await stores.events.list_runs() == [RunId(UUID(int=2)), RunId(UUID(int=1))]


async def test_events_of_a_file_of_the_ninth_version_are_kept(tmp_path: Path) -> None:
    """They stood run by run then; what is read of a run is the same afterwards."""
    path = tmp_path / "old.db"
    old = open_database(path, migrations()[:9])
    written = {RunId(UUID(int=key)): told("a", "b", f"of {key}") for key in (1, 2)}
    for key, (run_id, events) in enumerate(written.items(), 1):
        old.execute("INSERT INTO run (key, run_id) VALUES (?, ?)", (key, str(run_id)))
        append = Append(run_id, 0, events)
        insert_events(old.cursor(), append, run_row(old.cursor(), run_id), 5)
    old.close()
    async with Stores.sqlite(path) as stores:
        for run_id, events in written.items():
            stored = await stores.events.read_range(run_id, 1)
            assert [(each.seq, each.ts_millis, each.event) for each in stored] == [
                (seq, 5, event) for seq, event in enumerate(events, 1)
            ]
            assert await stores.events.append(run_id, 3, told("more")) == 4


async def test_reading_pages_over_domain_events(tmp_path: Path) -> None:
    """Ten thousand domain events between two facts are passed over, not decoded."""
    async with Stores.sqlite(tmp_path / "runs.db") as stores:
        fact = DomainEvent("fact_recorded", {"key": "k", "payload_id": "0" * 64, "meta": {}})
        await stores.events.append(OTHER, 0, [fact, *told(*["x"] * 10_000), fact])
        found = await stores.events.read_engine_events(RunId(OTHER), 1, 10)
        assert [each.seq for each in found] == [1, 10_002]
