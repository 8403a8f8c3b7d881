"""Database work for any number of event loops and threads: in a thread, or here where it is quick."""

from __future__ import annotations

import asyncio
import queue
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar

import apsw

from perdure.errors import StorageError
from perdure.stores.uninterrupted import SharedFuture

T = TypeVar("T")
Work = Callable[[apsw.Cursor], Any]
Begin = Callable[[Sequence["Job"], bool], bool]
Finish = Callable[[Sequence["Job"]], None]


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

    __slots__ = ("done", "is_short", "jobs")

    def __init__(self, done: _Woken, *, is_short: bool = False) -> None:
        self.jobs: list[Job] = []
        self.done: _Woken = done
        self.is_short = is_short


_AnyHandful = _Handful[SharedFuture] | _Handful[threading.Event]

SLOW_SECONDS = 0.0005
"""What takes longer for a job, on average, is done in a thread: the work, or waiting for the disk."""
_WEIGHT = 0.1
TURN_SECONDS = 0.02
"""Jobs that are likely to take longer together are not done in the loop."""
YIELD_SECONDS = 0.01
"""How long jobs are done in the loop before its other tasks have a turn."""


class Worker:
    """Runs jobs on one connection, one batch at a time.

    ``begin`` does what a batch's jobs say, and ``finish`` makes it last, which is waiting for the disk. Told
    not to wait for other processes, ``begin`` gives False, and has done nothing, if it would have to.

    Jobs share a cursor, since making one takes as long as a quick statement: none leaves rows to be read.

    Short jobs are begun in the loop: what they are about is at hand there, and would have to be fetched by
    another processor, against which the loop would then contend for the interpreter. A thread finishes them
    while the loop goes on. It starts with the first batch that it is given, takes all that wait at once, and
    ends with :meth:`close`. What comes up in one turn of a loop is a batch, or while another one of the loop
    is finished. Of one job alone nothing is left to a thread where the disk is quick: handing it over and
    back takes as long.
    """

    def __init__(self, name: str, begin: Begin, finish: Finish | None = None) -> None:
        self._name = name
        self._begin = begin
        self._finish = finish
        self._handed: queue.SimpleQueue[_AnyHandful | None] = queue.SimpleQueue()
        self._gathered: dict[asyncio.AbstractEventLoop, _Handful[SharedFuture]] = {}
        self._under_way: Counter[asyncio.AbstractEventLoop] = Counter()
        """How many batches each loop waits for."""
        self._lock = threading.Lock()
        self._busy = threading.Lock()
        self._begun: _AnyHandful | None = None
        """What was begun in a loop and is to be finished, before anything else is done."""
        self._work_seconds = self._disk_seconds = 0.0
        self._yielded_seconds = 0.0
        self._thread: threading.Thread | None = None
        self._closed = False

    async def run_soon(self, work: Callable[[apsw.Cursor], T]) -> T:
        """The result of ``work``, which is short: done here if that is quick, else as by :meth:`run`."""
        self._check_open()
        is_quick = self._work_seconds <= SLOW_SECONDS and self._disk_seconds <= SLOW_SECONDS
        if is_quick and self._busy.acquire(blocking=False):
            job = Job(work)
            try:
                is_done = self._begin_here([job])
                if is_done:
                    self._finish_timed([job])
            finally:
                self._busy.release()
            if is_done:
                await self._yield_at_times()
                result: T = job.outcome()
                return result
        return await self.run(work, is_short=True)

    async def _yield_at_times(self) -> None:
        """Let the loop's other tasks have their turn: who never waits would never yield to them."""
        now = time.monotonic()
        if now - self._yielded_seconds > YIELD_SECONDS:
            self._yielded_seconds = now
            await asyncio.sleep(0)

    async def run(self, work: Callable[[apsw.Cursor], T], *, is_short: bool = False) -> T:
        """The result of ``work``; unless it ``is_short`` the loop is not blocked at all.

        A caller that is cancelled meanwhile is told so when the work is done.
        """
        self._check_open()
        loop = asyncio.get_running_loop()
        handful = self._gathered.get(loop)
        if handful is None:
            handful = self._gathered[loop] = _Handful(SharedFuture(loop), is_short=is_short)
            loop.call_soon(self._hand_over, loop)
        elif not is_short:
            handful.is_short = False
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
            self._send(loop, self._gathered.pop(loop))
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
            if self._begun is not None:
                begun, self._begun = self._begun, None
                self._finish_timed(begun.jobs)
                self._tell([begun])
            handfuls = [each for each in handfuls if each.jobs]
            if handfuls:
                jobs = [job for each in handfuls for job in each.jobs]
                self._begin(jobs, True)
                self._finish_timed(jobs)
        # Others hold the thread up, so that it cannot tell how quick the work is; it is tried again at times.
        self._work_seconds *= 1 - _WEIGHT
        self._tell(handfuls)
        return may_come

    def _check_open(self) -> None:
        if self._closed:
            raise _closed()

    def _hand_over(self, loop: asyncio.AbstractEventLoop) -> None:
        handful = self._gathered.get(loop)
        if handful is None:
            return
        is_quick = handful.is_short and self._is_quick(handful)
        if is_quick and self._under_way[loop] == 1:
            return  # until the loop is told of it: what comes up meanwhile, and then, comes along
        # Where more waits already, the thread takes all of it together: nothing waits for two batches.
        del self._gathered[loop]
        try:
            if is_quick and self._busy.acquire(blocking=False):
                try:
                    if self._begin_here(handful.jobs):
                        self._begun = handful
                finally:
                    self._busy.release()
        finally:
            self._send(loop, handful)

    def _send(self, loop: asyncio.AbstractEventLoop, handful: _Handful[SharedFuture]) -> None:
        self._under_way[loop] += 1
        self._submit(handful)

    def _is_quick(self, handful: _AnyHandful) -> bool:
        seconds = self._work_seconds
        return seconds <= SLOW_SECONDS and seconds * len(handful.jobs) <= TURN_SECONDS

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
        self._tell([handful])

    def _tell(self, handfuls: Sequence[_AnyHandful]) -> None:
        """Wake whoever waits: each loop once, however many of its tasks do."""
        for each in handfuls:
            each.jobs.clear()  # each waits for its own: none is kept until the last one has been told
        by_loop: dict[asyncio.AbstractEventLoop, list[SharedFuture]] = {}
        for done in (each.done for each in handfuls):
            if isinstance(done, threading.Event):
                done.set()
            else:
                by_loop.setdefault(done.get_loop(), []).append(done)
        for loop, futures in by_loop.items():
            if not loop.is_closed():
                loop.call_soon_threadsafe(self._settle, loop, futures)
            else:  # it ended without waiting, and nobody is left to be told
                self._under_way.pop(loop, None)

    def _settle(self, loop: asyncio.AbstractEventLoop, futures: Sequence[SharedFuture]) -> None:
        self._under_way[loop] -= len(futures)
        if not self._under_way[loop]:
            del self._under_way[loop]
        if loop in self._gathered:
            loop.call_soon(self._hand_over, loop)
        for future in futures[1:]:  # apart, so that nothing that happens in one keeps the others waiting
            loop.call_soon(future.settle)
        futures[0].settle()

    def _begin_here(self, jobs: Sequence[Job]) -> bool:
        """Begin a batch in the loop, unless another one is to be finished first."""
        if self._begun is not None:
            return False
        begun = time.perf_counter()
        if not self._begin(jobs, False):
            return False
        seconds = (time.perf_counter() - begun) / len(jobs)
        self._work_seconds += (seconds - self._work_seconds) * _WEIGHT
        return True

    def _finish_timed(self, jobs: Sequence[Job]) -> None:
        if self._finish is not None:
            begun = time.perf_counter()
            self._finish(jobs)
            seconds = (time.perf_counter() - begun) / len(jobs)
            self._disk_seconds += (seconds - self._disk_seconds) * _WEIGHT


def _closed() -> StorageError:
    return StorageError.of("store_closed", "the store was closed")
