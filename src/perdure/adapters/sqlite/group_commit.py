"""Transactions that runs share."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence
from typing import TypeVar

import apsw

from perdure.adapters.sqlite.worker import Job, Worker
from perdure.stores.uninterrupted import UninterruptedFuture

T = TypeVar("T")

SLOW_SECONDS = 0.0005
"""A disk that takes longer to synchronise, on average, is waited for in a thread."""
_WEIGHT = 0.1


class GroupCommit:
    """Runs writing jobs, those of one turn of an event loop in one transaction.

    Handing a job to a thread and back takes as long as synchronising a quick disk does. So where the disk is
    quick, the loop itself commits; where it is slow, a thread does, and takes whatever has come up while
    it was busy. ``run_batch`` does a batch, and gives the seconds that synchronising took.
    """

    def __init__(self, name: str, run_batch: Callable[[Sequence[Job]], float]) -> None:
        self._run_batch = run_batch
        self._worker = Worker(name, self._run_in_thread)
        self._busy = threading.Lock()
        self._mean_seconds = 0.0
        self._turns: dict[asyncio.AbstractEventLoop, list[tuple[Job, UninterruptedFuture[None]]]] = {}

    async def run(self, work: Callable[[apsw.Connection], T], *, alone: bool) -> T:
        """The result of ``work``, once it is committed.

        Who is ``alone`` has nobody to share a transaction with and waits for no turn. A caller that is
        cancelled meanwhile is told so when the work is done.
        """
        if self._mean_seconds > SLOW_SECONDS:
            return await self._worker.run(work)
        self._worker.check_open()
        loop = asyncio.get_running_loop()
        if alone and loop not in self._turns:
            job = Job(work, _nobody)
            if not self._run_here([job]):
                return await self._worker.run(work)
        else:
            future: UninterruptedFuture[None] = UninterruptedFuture(loop=loop)
            job = Job(work, lambda: _settle(loop, future))
            turn = self._turns.setdefault(loop, [])
            if not turn:
                loop.call_soon(self._end_turn, loop)
            turn.append((job, future))
            await future
        result: T = job.outcome()
        return result

    def run_blocking(self, work: Callable[[apsw.Connection], T]) -> T:
        """The result of ``work``; blocks the calling thread."""
        return self._worker.run_blocking(work)

    def close(self) -> None:
        """Finish the jobs that wait."""
        for loop in list(self._turns):
            for job, _ in self._turns.pop(loop):
                self._worker.submit(job)
        self._worker.close()

    def _end_turn(self, loop: asyncio.AbstractEventLoop) -> None:
        turn = self._turns.pop(loop, [])
        if self._run_here([job for job, _ in turn]):
            for _, future in turn:
                future.set_result(None)
        else:
            for job, _ in turn:
                self._worker.submit(job)

    def _run_here(self, jobs: Sequence[Job]) -> bool:
        """Run ``jobs`` in this thread, unless another is at it."""
        if not self._busy.acquire(blocking=False):
            return False
        try:
            self._run_timed(jobs)
        finally:
            self._busy.release()
        return True

    def _run_in_thread(self, jobs: Sequence[Job]) -> None:
        with self._busy:
            self._run_timed(jobs)

    def _run_timed(self, jobs: Sequence[Job]) -> None:
        self._mean_seconds += (self._run_batch(jobs) - self._mean_seconds) * _WEIGHT


def _settle(loop: asyncio.AbstractEventLoop, future: UninterruptedFuture[None]) -> None:
    # Called by the worker's thread, which may find that the loop has ended without waiting.
    if not loop.is_closed():
        loop.call_soon_threadsafe(future.set_result, None)


def _nobody() -> None:
    """Whoever ran the job knows that it is done."""
