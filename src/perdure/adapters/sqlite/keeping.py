"""``Keeping`` over SQLite: short transactions with pauses between them, so that others write meanwhile."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Collection, Iterator, Sequence
from contextlib import aclosing
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any, Protocol, TypeVar

import apsw

from perdure.adapters.sqlite.artifacts import RENEWAL_MILLIS
from perdure.adapters.sqlite.database import BUSY_TIMEOUT_MILLIS, translated
from perdure.adapters.sqlite.deleting import IsFree, hide_runs, measured, purge, select_traces
from perdure.adapters.sqlite.files import ArtifactFiles
from perdure.adapters.sqlite.sweeping import Garbage, Marking, delete_artifacts, remove_files
from perdure.clock import Clock
from perdure.failpoints import Failpoints
from perdure.ids import RunId
from perdure.stores.keeping import SPARED, Deleted, RunTrace, Swept, Tell

T = TypeVar("T")

_TOGETHER = 100
_LAST_KEY = (1 << 63) - 1
_PAUSE_SECONDS_MAX = 0.1


class Runner(Protocol):
    """Does work on a connection without blocking the loop."""

    def __call__(self, work: Callable[[apsw.Cursor], T]) -> Awaitable[T]: ...


class SqliteKeeping:
    """Over one file, for the store that owns these collaborators."""

    def __init__(
        self,
        path: Path,
        files: ArtifactFiles,
        clock: Clock,
        failpoints: Failpoints,
        read: Runner,
        write: Runner,
        is_free: IsFree,
    ) -> None:
        self._path = path
        self._files = files
        self._clock = clock
        self._failpoints = failpoints
        self._read = read
        self._write = write
        self._is_free = is_free

    async def traces(self) -> AsyncIterator[list[RunTrace]]:
        before = _LAST_KEY
        while before:
            select = partial(select_traces, before_key=before, is_free=self._is_free)
            before, page = await self._read(select)
            yield page

    async def delete(
        self, run_ids: Sequence[RunId], *, is_dry: bool = False, tell: Tell = lambda *_: None
    ) -> Deleted:
        wanted = list(dict.fromkeys(run_ids))
        gone, events, size = list[RunId](), 0, 0
        for begin in range(0, len(wanted), _TOGETHER):
            batch = wanted[begin : begin + _TOGETHER]
            found = await self._read(partial(measured, run_ids=batch, is_free=self._is_free))
            if not is_dry:
                hidden = await self._gently(partial(hide_runs, run_ids=batch, is_free=self._is_free))
                self._failpoints.hit("delete.after")
            else:
                hidden = [each for each in batch if each in found]
            gone += hidden
            # One that has ended since it was measured is not counted.
            events += sum(found[each].events for each in hidden if each in found)
            size += sum(found[each].bytes for each in hidden if each in found)
            if not is_dry:
                await self._purge()
            tell("runs", len(gone))
        return Deleted(gone, events, size)

    async def sweep(
        self, without: Collection[RunId] = (), *, is_dry: bool = False, tell: Tell = lambda *_: None
    ) -> Swept:
        if not is_dry:
            await self._purge()
        # Of the time before anything is read: what is put from now on is not looked for.
        before = self._clock.now_millis() - SPARED // timedelta(milliseconds=1) - RENEWAL_MILLIS
        with translated(self._path):
            marking = await asyncio.to_thread(Marking, self._path, self._files, without)
            try:
                async with aclosing(_stepwise(marking.steps())) as steps:
                    async for stage, done in steps:
                        tell(stage, done)
                return await self._take_away(marking, before, tell, is_dry=is_dry)
            finally:
                marking.close()

    async def compact(self) -> None:
        await asyncio.to_thread(self._vacuum)

    async def _take_away(self, marking: Marking, before: int, tell: Tell, *, is_dry: bool) -> Swept:
        swept = Swept(0, 0)
        async with aclosing(_stepwise(marking.garbage(before))) as pages:
            async for page in pages:
                self._failpoints.hit("sweep.before")
                gone = page if is_dry else await self._deleted(page, before)
                in_files = [each.key for each in gone if each.size is None]
                swept = Swept(
                    swept.artifacts + len(gone),
                    swept.artifact_bytes
                    + sum(each.size or 0 for each in gone)
                    + sum(self._files.size(key.hex()) for key in in_files),
                )
                if in_files and not is_dry:
                    self._failpoints.hit("sweep.after")
                    await self._remove(in_files)
                tell("garbage", swept.artifacts)
        return await self._take_strays(marking, before, swept, is_dry=is_dry)

    async def _deleted(self, page: Sequence[Garbage], before: int) -> list[Garbage]:
        left, gone = page, list[Garbage]()
        while left:
            delete = partial(delete_artifacts, garbage=left, before_millis=before)
            count, some = await self._gently(delete)
            left = left[count:]
            gone += some
        return gone

    async def _remove(self, keys: Sequence[bytes]) -> None:
        while keys:
            count = await self._gently(partial(remove_files, files=self._files, keys=keys))
            keys = keys[count:]

    async def _take_strays(self, marking: Marking, before: int, swept: Swept, *, is_dry: bool) -> Swept:
        """Files whose rows are gone or never came, and files that were never finished."""
        async with aclosing(_stepwise(self._files.aged(before))) as aged:
            async for path, size in aged:
                key = _key_of(path)
                if key is not None and marking.has_row(key):
                    continue
                if not is_dry:
                    if key is None:
                        path.unlink(missing_ok=True)
                    else:
                        await self._remove([key])
                swept = Swept(swept.artifacts + 1, swept.artifact_bytes + size)
        return swept

    async def _purge(self) -> None:
        while not await self._gently(purge):
            pass

    async def _gently(self, work: Callable[[apsw.Cursor], T]) -> T:
        """The result of ``work``; whoever else wants to write has as long afterwards as it took."""
        begun = time.perf_counter()
        result = await self._write(work)
        await asyncio.sleep(min(time.perf_counter() - begun, _PAUSE_SECONDS_MAX))
        return result

    def _vacuum(self) -> None:
        with translated(self._path):
            connection = apsw.Connection(str(self._path))
            try:
                connection.set_busy_timeout(BUSY_TIMEOUT_MILLIS)
                connection.execute("VACUUM")
                connection.execute("PRAGMA wal_checkpoint(truncate)").fetchall()
            finally:
                connection.close()


def _key_of(path: Path) -> bytes | None:
    """The key of an artifact's file; None for a file that was never finished."""
    try:
        return bytes.fromhex(path.name)
    except ValueError:
        return None


async def _stepwise(steps: Iterator[T]) -> AsyncGenerator[T, None]:
    """What ``steps`` gives, each step in a thread."""
    end: Any = object()
    while (step := await asyncio.to_thread(next, steps, end)) is not end:
        yield step
