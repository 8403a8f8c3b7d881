"""Deleting and sweeping that is killed, raced and lied to: what is needed stays, the rest goes later."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Sequence
from pathlib import Path

import apsw
import pytest

from perdure import ArtifactId, ArtifactKind, Failpoints, Retention, RunId, StorageError, Stores
from perdure.adapters.sqlite import sweeping
from perdure.adapters.sqlite.keeping import SqliteKeeping
from perdure.adapters.sqlite.store import SqliteStore
from perdure.canonical import canonical_json_bytes
from perdure.errors import CorruptionError
from perdure.failpoints import FailpointStop
from perdure.model.events import DomainEvent
from perdure.sdk.keeping import prune_stores
from perdure.stores.ports import Append, Blob
from perdure.stores.sharing import SharedArtifacts
from perdure.testing.clock import FakeClock
from perdure.testing.store_places import ENDED
from tests.faults.processes import python

BEGAN = 1_700_000_000_000
LATER = BEGAN + 7_200_000
RUNS = [RunId(f"00000000-0000-0000-0000-{number:012}") for number in range(12)]
LARGE = 2000
ALL = Retention(keep_last=0)


def opened(path: Path, millis: int = LATER, failpoints: Failpoints | None = None) -> Stores:
    """Stores whose clock stands still, and in which what is over two kilobytes is a file."""
    store = SqliteStore(path, clock=FakeClock(millis), file_threshold_bytes=LARGE, failpoints=failpoints)
    shared = SharedArtifacts(store)
    return Stores(
        store, shared, store, shared, store.close, mailbox=store, agenda=store, keeping=store.keeping
    )


def texts_of(number: int) -> list[bytes]:
    """What a run names: parts that it shares with others, and a file of its own."""
    members = {f"k{place:03}": f"{place}" * 9 for place in range(300)} | {f"k{number * 20:03}": "mine"}
    return [canonical_json_bytes(members, secrets=None), bytes([number]) * (LARGE + 1)]


async def fill(path: Path) -> None:
    """Every second run has ended."""
    async with opened(path, BEGAN) as stores:
        for number, run_id in enumerate(RUNS):
            blobs = [Blob(ArtifactKind.OUTPUT, text) for text in texts_of(number)]
            named = [DomainEvent("named", {"it": blob.id}) for blob in blobs]
            padding = [DomainEvent("x", {"of": place}) for place in range(250)]
            ends = [ENDED] if number % 2 else []
            await stores.commit(blobs, [Append(run_id, 0, [*named, *padding, *ends])])


async def check_remaining(path: Path) -> None:
    """What has not ended is whole, and what has is whole or not there."""
    async with opened(path) as stores:
        for number, run_id in enumerate(RUNS):
            stream = await stores.events.read_range(run_id, 1)
            assert len(stream) == 252 if number % 2 == 0 else len(stream) in (0, 253)
            if stream:
                for text in texts_of(number):
                    artifact_id = Blob(ArtifactKind.OUTPUT, text).id
                    assert await stores.artifacts.get(artifact_id) == text


async def check_finished(path: Path) -> None:
    """Nothing is left of what has ended: no row and no file."""
    async with opened(path) as stores:
        await prune_stores(stores, ALL, LATER, apply=True)
        again = await prune_stores(stores, ALL, LATER, apply=True)
        assert (again.runs, again.artifacts) == (0, 0)
        assert sorted(await stores.events.list_runs()) == RUNS[::2]
    await check_remaining(path)
    connection = apsw.Connection(str(path))
    assert connection.execute("SELECT count(*), max(ended) FROM run").fetchall() == [(6, 0)]
    assert connection.execute("SELECT count(*) FROM event").fetchall() == [(6 * 252,)]
    assert connection.execute("SELECT count(*) FROM artifact WHERE data IS NULL").fetchall() == [(6,)]
    connection.close()
    assert len(list(path.with_name("runs.db.artifacts").glob("??/*"))) == 6


@pytest.mark.parametrize("point", ["delete.after", "sweep.before", "sweep.after"])
async def test_a_killed_prune_leaves_nothing_broken(tmp_path: Path, point: str) -> None:
    """SIGKILL, while others write; the next one finishes what it left."""
    path = tmp_path / "runs.db"
    await fill(path)
    child = python(
        """
        from pathlib import Path
        from tests.faults.test_retention import ALL, LATER, opened
        from perdure.sdk.keeping import prune_stores

        async def main():
            stores = opened(Path(sys.argv[1]), LATER, Failpoints.parse([sys.argv[2] + "=kill"]))
            print("ready", flush=True)
            await prune_stores(stores, ALL, LATER, apply=True)

        asyncio.run(main())
        """,
        path,
        point,
    )
    assert child.stdout is not None
    assert await asyncio.to_thread(child.stdout.readline) == "ready\n"
    dying = asyncio.create_task(asyncio.to_thread(child.communicate, timeout=60))
    head, run_id = 0, RunId("00000000-0000-0000-0000-0000000000ff")
    async with opened(path) as stores:
        while not dying.done() or head < 20:
            # Some of what is being swept.
            text = texts_of(head % 3 * 4 + 1)[head % 2]
            blob = Blob(ArtifactKind.OUTPUT, text)
            await stores.commit([blob], [Append(run_id, head, [DomainEvent("named", {"it": blob.id})])])
            head += 1
        await dying
        assert child.returncode == -signal.SIGKILL
        for text in [text for number in (1, 5, 9) for text in texts_of(number)]:
            assert await stores.artifacts.get(Blob(ArtifactKind.OUTPUT, text).id) == text
        await stores.events.append(run_id, head, [ENDED])
    await check_remaining(path)
    # What the writer put is an hour old only then.
    async with opened(path, LATER + 7_200_000) as stores:
        await prune_stores(stores, ALL, LATER + 7_200_000, apply=True)
    await check_finished(path)


def test_a_prune_may_stop_anywhere(tmp_path: Path) -> None:
    """At every place that can be stopped at."""
    passed = Failpoints()
    asyncio.run(fill(tmp_path / "whole.db"))
    asyncio.run(_prune(tmp_path / "whole.db", passed))
    assert set(passed.hits) >= {"delete.after", "sweep.before", "sweep.after"}
    for point, hits in passed.hits.items():
        for hit in range(1, hits + 1):
            folder = tmp_path / f"{point}{hit}"
            folder.mkdir()
            asyncio.run(fill(folder / "runs.db"))
            with pytest.raises(FailpointStop):
                asyncio.run(_prune(folder / "runs.db", Failpoints.parse([f"{point}:{hit}=stop"])))
            asyncio.run(check_remaining(folder / "runs.db"))
            asyncio.run(check_finished(folder / "runs.db"))


async def _prune(path: Path, failpoints: Failpoints) -> None:
    async with opened(path, LATER, failpoints) as stores:
        await prune_stores(stores, ALL, LATER, apply=True)


async def test_a_file_that_is_swept_while_it_is_put_is_written_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The writer finds its file there, the sweeper removes it, and only then comes the writer's commit."""
    path, data = tmp_path / "runs.db", b"\xff" * (LARGE + 1)
    artifact_id = ArtifactId(Blob(ArtifactKind.OUTPUT, data).id)
    async with opened(path, BEGAN) as stores:
        await stores.artifacts.put(ArtifactKind.OUTPUT, data)
    async with opened(path) as writer, opened(path) as sweeper:
        store = writer.events
        assert isinstance(store, SqliteStore)
        write_files, swept = store._write_files, asyncio.Event()
        loop = asyncio.get_running_loop()
        calls = 0

        def write_then_be_swept(blobs: Sequence[Blob]) -> None:
            nonlocal calls
            write_files(blobs)
            calls += 1
            if calls == 1:
                asyncio.run_coroutine_threadsafe(sweep(), loop).result(30)

        async def sweep() -> None:
            # Its clock says that the file, which was renewed just now, is old.
            async with opened(path, LATER + 7_200_000) as later:
                assert (await later.keeping.sweep()).artifacts == 1
            swept.set()

        monkeypatch.setattr(store, "_write_files", write_then_be_swept)
        assert await writer.artifacts.put(ArtifactKind.OUTPUT, data) == artifact_id
        assert swept.is_set()
        assert calls == 2
        assert await sweeper.artifacts.get(artifact_id) == data


async def test_what_was_put_since_it_was_marked_is_not_swept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the sweep's look and its transaction another process puts the artifact, and names it."""
    path, run_id = tmp_path / "runs.db", RUNS[0]
    blob = Blob(ArtifactKind.OUTPUT, b"wanted after all")
    async with opened(path, BEGAN) as stores:
        await stores.artifacts.put(blob.kind, blob.data)
    async with opened(path) as sweeper, opened(path) as writer:
        garbage, loop = sweeping.Marking.garbage, asyncio.get_running_loop()

        def found(marking: sweeping.Marking, before_millis: int) -> object:
            for page in garbage(marking, before_millis):
                named = Append(run_id, 0, [DomainEvent("named", {"it": blob.id})])
                asyncio.run_coroutine_threadsafe(writer.commit([blob], [named]), loop).result(30)
                yield page

        monkeypatch.setattr(sweeping.Marking, "garbage", found)
        assert (await sweeper.keeping.sweep()).artifacts == 0
        assert await writer.artifacts.get(ArtifactId(blob.id)) == b"wanted after all"


async def test_files_that_nobody_names_go(tmp_path: Path) -> None:
    """Files of rows that never came or are gone, and files that were never finished; fresh ones stay."""
    path, folder = tmp_path / "runs.db", tmp_path / "runs.db.artifacts"
    async with opened(path, BEGAN) as stores:
        await stores.artifacts.put(ArtifactKind.OUTPUT, bytes(LARGE + 1))
        kept = Blob(ArtifactKind.OUTPUT, b"\1" * (LARGE + 1))
        await stores.commit([kept], [Append(RUNS[0], 0, [DomainEvent("named", {"it": kept.id})])])
    old, stray, part = (folder / "ab" / name for name in ("ab" * 32, "abc" * 21 + "d", ".part-0011"))
    for each in (old, stray, part):
        each.parent.mkdir(exist_ok=True)
        each.write_bytes(b"12345")
    for each, millis in ((old, BEGAN), (part, BEGAN), (stray, LATER)):
        os.utime(each, ns=(millis * 1_000_000,) * 2)
    async with opened(path) as stores:
        dry = await stores.keeping.sweep(is_dry=True)
        assert (dry.artifacts, dry.artifact_bytes) == (3, LARGE + 1 + 10)
        assert old.exists()
        assert part.exists()
        assert await stores.keeping.sweep() == dry
        assert await stores.artifacts.get(ArtifactId(kept.id)) == kept.data
    left = sorted(each.name for each in folder.glob("??/*"))
    assert left == sorted([kept.id, stray.name])


async def test_a_recipe_that_cannot_be_read_stops_the_sweep(tmp_path: Path) -> None:
    """Nobody knows what it is made of, so nothing is taken away, unless its run goes."""
    path = tmp_path / "runs.db"
    blob = Blob(ArtifactKind.OUTPUT, texts_of(1)[0])
    async with opened(path, BEGAN) as stores:
        await stores.commit([blob], [Append(RUNS[0], 0, [DomainEvent("named", {"it": blob.id}), ENDED])])
        await stores.artifacts.put(ArtifactKind.OUTPUT, b"garbage")
    connection = apsw.Connection(str(path))
    connection.execute("UPDATE artifact SET data = x'ff' WHERE id = ?", (bytes.fromhex(blob.id),))
    connection.close()
    async with opened(path) as stores:
        with pytest.raises(CorruptionError) as caught:
            await stores.keeping.sweep()
        assert (caught.value.code, caught.value.info.details) == (
            "artifact_corruption",
            {"artifact_id": blob.id},
        )
        assert await stores.artifacts.exists(ArtifactId(Blob(ArtifactKind.OUTPUT, b"garbage").id))
        await stores.keeping.delete([RUNS[0]])
        assert (await stores.keeping.sweep()).artifacts > 2


async def test_a_store_that_cannot_be_written_says_so(tmp_path: Path) -> None:
    """Another process keeps it locked; nothing has changed."""
    path = tmp_path / "runs.db"
    await fill(path)
    locker = apsw.Connection(str(path))
    store = SqliteStore(path, clock=FakeClock(LATER), busy_timeout_millis=1)
    async with Stores(store, store, store, store, store.close, keeping=store.keeping) as stores:
        locker.execute("BEGIN IMMEDIATE")
        with pytest.raises(StorageError, match="store_locked"):
            await stores.keeping.delete(RUNS)
        with pytest.raises(StorageError, match="store_locked"):
            await stores.keeping.sweep()
        locker.execute("ROLLBACK")
        locker.close()
        assert len(await stores.events.list_runs()) == 12


async def test_room_goes_back_to_the_disk(tmp_path: Path) -> None:
    """What is deleted is free for what comes; compacting makes the file smaller, and empties the log."""
    path = tmp_path / "runs.db"
    store = SqliteStore(path, clock=FakeClock(BEGAN))
    async with Stores(store, store, store, store, store.close, store.describe, keeping=store.keeping) as here:
        events = [DomainEvent("x", {"text": "y" * 1000}) for _ in range(2000)]
        await here.events.append(RUNS[0], 0, [*events, ENDED])
        await here.keeping.delete(RUNS)
        described = await here.describe()
        assert described["free_bytes"] > 2_000_000
        assert described["events"] == 0
        size = path.stat().st_size
        await here.keeping.compact()
        assert (await here.describe())["free_bytes"] == 0
        assert path.stat().st_size < size / 10
        assert path.with_name("runs.db-wal").stat().st_size == 0
        await here.events.append(RUNS[0], 0, events)
        assert await here.events.head_seq(RUNS[0]) == 2000


async def test_a_file_that_is_put_again_before_it_is_removed_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its row was swept, and is there again when the sweeper comes for the file."""
    path, data = tmp_path / "runs.db", b"\xff" * (LARGE + 1)
    async with opened(path, BEGAN) as stores:
        artifact_id = await stores.artifacts.put(ArtifactKind.OUTPUT, data)
    async with opened(path) as writer, opened(path) as sweeper:
        keeping = sweeper.keeping
        assert isinstance(keeping, SqliteKeeping)
        remove = keeping._remove

        async def put_again(keys: Sequence[bytes]) -> None:
            await writer.artifacts.put(ArtifactKind.OUTPUT, data)
            await remove(keys)

        monkeypatch.setattr(keeping, "_remove", put_again)
        assert (await keeping.sweep()).artifacts == 1
        assert await writer.artifacts.get(artifact_id) == data
