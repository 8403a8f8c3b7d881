"""Database work for any number of event loops and threads: in a thread, or here where the disk is quick."""

from __future__ import annotations

import asyncio
import queue
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar

import apsw

from perdure.errors import StorageError
from perdure.stores.uninterrupted import SharedFuture

T = TypeVar("T")
Work = Callable[[apsw.Cursor], Any]
RunBatch = Callable[[Sequence["Job"], bool], float | None]


class Job:
    """Work, and how it went."""

    __slots__ = ("error", "result", "work")

    def __init__(self, work: Work) -> None:
        self.work = work
        self.result: Any = None
        self.error: BaseException | None = None

    def outcome(self) -> Any:
        """The result; raises the error if there was one."""
        if self.error is not None:
            raise self.error
        return self.result


_Woken = TypeVar("_Woken", SharedFuture, threading.Event)


class _Handful(Generic[_Woken]):
    """Jobs that are handed over together, and what whoever waits for them waits for."""

    __slots__ = ("done", "jobs")

    def __init__(self, done: _Woken) -> None:
        self.jobs: list[Job] = []
        self.done: _Woken = done


_AnyHandful = _Handful[SharedFuture] | _Handful[threading.Event]

SLOW_SECONDS = 0.0005
"""A disk that takes longer for a job, on average, is waited for in a thread."""
_WEIGHT = 0.1
YIELD_SECONDS = 0.01
"""How long jobs are done in the loop before its other tasks have a turn."""


class Worker:
    """Runs jobs on one connection, one batch at a time.

    Jobs share a cursor, since making one takes as long as a quick statement: none leaves rows to be read.

    ``run_batch`` does a batch, and gives the seconds that waiting for the disk took. Told not to wait for
    other processes, it gives None, and has done nothing, if it would have to. Handing a job to a thread and
    back takes as long as a quick disk does, so the caller may do it where it is.

    The thread starts with the first job that it is given, takes all that wait at once, and ends with
    :meth:`close`. What comes up in one turn of a loop is handed over together, at its end: before that the
    thread and the loop would only hinder each other.
    """

    def __init__(self, name: str, run_batch: RunBatch) -> None:
        self._name = name
        self._run_batch = run_batch
        self._handed: queue.SimpleQueue[_AnyHandful | None] = queue.SimpleQueue()
        self._gathered: dict[asyncio.AbstractEventLoop, _Handful[SharedFuture]] = {}
        self._lock = threading.Lock()
        self._busy = threading.Lock()
        self._mean_seconds = 0.0
        self._yielded_seconds = 0.0
        self._thread: threading.Thread | None = None
        self._closed = False

    async def run_soon(self, work: Callable[[apsw.Cursor], T]) -> T:
        """The result of ``work``, which is short: done here if the disk is quick, else as by :meth:`run`."""
        self._check_open()
        if self._mean_seconds <= SLOW_SECONDS and self._busy.acquire(blocking=False):
            job = Job(work)
            try:
                is_done = self._run_timed([job], False)
            finally:
                self._busy.release()
            if is_done:
                await self._yield_at_times()
                result: T = job.outcome()
                return result
        return await self.run(work)

    async def _yield_at_times(self) -> None:
        """Let the loop's other tasks have their turn: who never waits would never yield to them."""
        now = time.monotonic()
        if now - self._yielded_seconds > YIELD_SECONDS:
            self._yielded_seconds = now
            await asyncio.sleep(0)

    async def run(self, work: Callable[[apsw.Cursor], T]) -> T:
        """The result of ``work``, without blocking the loop.

        A caller that is cancelled meanwhile is told so when the work is done.
        """
        self._check_open()
        loop = asyncio.get_running_loop()
        handful = self._gathered.get(loop)
        if handful is None:
            handful = self._gathered[loop] = _Handful(SharedFuture(loop))
            loop.call_soon(self._hand_over, loop)
        job = Job(work)
        handful.jobs.append(job)
        await handful.done
        result: T = job.outcome()
        return result

    def run_blocking(self, work: Callable[[apsw.Cursor], T]) -> T:
        """The result of ``work``; blocks the calling thread."""
        done = threading.Event()
        handful, job = _Handful(done), Job(work)
        handful.jobs.append(job)
        self._submit(handful)
        done.wait()
        result: T = job.outcome()
        return result

    def close(self) -> None:
        """Finish the jobs that wait, and end the thread."""
        for loop in list(self._gathered):
            self._hand_over(loop)
        with self._lock:
            self._closed = True
            thread = self._thread
            self._handed.put(None)
        if thread is not None:
            thread.join()

    def _main(self) -> None:
        while self._do_what_waits():
            pass

    def _do_what_waits(self) -> bool:
        """Wait for jobs, and do them; whether more may come. What was done is not kept while waiting."""
        handful, may_come = self._handed.get(), True
        if handful is None:
            return False
        handfuls = [handful]
        while may_come and not self._handed.empty():
            following = self._handed.get()
            if following is None:
                may_come = False
            else:
                handfuls.append(following)
        with self._busy:
            self._run_timed([job for each in handfuls for job in each.jobs], True)
        for each in handfuls:
            each.jobs.clear()  # each waits for its own: none is kept until the last one has been told
        _tell(handfuls)
        return may_come

    def _check_open(self) -> None:
        if self._closed:
            raise _closed()

    def _hand_over(self, loop: asyncio.AbstractEventLoop) -> None:
        handful = self._gathered.pop(loop, None)
        if handful is not None:
            self._submit(handful)

    def _submit(self, handful: _AnyHandful) -> None:
        with self._lock:
            if not self._closed:
                if self._thread is None:
                    self._thread = threading.Thread(target=self._main, name=self._name, daemon=True)
                    self._thread.start()
                self._handed.put(handful)
                return
        for job in handful.jobs:
            job.error = _closed()
        _tell([handful])

    def _run_timed(self, jobs: Sequence[Job], may_wait: bool) -> bool:
        seconds = self._run_batch(jobs, may_wait)
        if seconds is None:
            return False
        self._mean_seconds += (seconds / len(jobs) - self._mean_seconds) * _WEIGHT
        return True


def _closed() -> StorageError:
    return StorageError.of("store_closed", "the store was closed")


def _tell(handfuls: Sequence[_AnyHandful]) -> None:
    """Wake whoever waits: each loop once, however many of its tasks do."""
    by_loop: dict[asyncio.AbstractEventLoop, list[SharedFuture]] = {}
    for done in (each.done for each in handfuls):
        if isinstance(done, threading.Event):
            done.set()
        else:
            by_loop.setdefault(done.get_loop(), []).append(done)
    for loop, futures in by_loop.items():
        # A loop may have ended without waiting; then nobody is left to be told.
        if not loop.is_closed():
            loop.call_soon_threadsafe(_settle, futures)


def _settle(futures: Sequence[SharedFuture]) -> None:
    for future in futures:
        future.settle()
