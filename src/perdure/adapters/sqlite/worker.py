"""A thread that does database work for any number of event loops and threads."""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import apsw

from perdure.errors import StorageError
from perdure.stores.uninterrupted import UninterruptedFuture

T = TypeVar("T")
Work = Callable[[apsw.Connection], Any]


class Job:
    """Work, how it went, and what is to be called when it is done."""

    __slots__ = ("answer", "error", "result", "work")

    def __init__(self, work: Work, answer: Callable[[], object]) -> None:
        self.work = work
        self.answer = answer
        self.result: Any = None
        self.error: BaseException | None = None

    def outcome(self) -> Any:
        """The result; raises the error if there was one."""
        if self.error is not None:
            raise self.error
        return self.result


class Worker:
    """Runs jobs on one connection, all that wait at once: ``run_batch`` decides what that means.

    The thread starts with the first job and ends with :meth:`close`.
    """

    def __init__(self, name: str, run_batch: Callable[[Sequence[Job]], None]) -> None:
        self._name = name
        self._run_batch = run_batch
        self._jobs: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._closed = False

    async def run(self, work: Callable[[apsw.Connection], T]) -> T:
        """The result of ``work``, without blocking the loop.

        A caller that is cancelled meanwhile is told so when the work is done.
        """
        loop = asyncio.get_running_loop()
        future: UninterruptedFuture[None] = UninterruptedFuture(loop=loop)

        def answer() -> None:
            # The loop may have ended without waiting; then nobody is left to be told.
            if not loop.is_closed():
                loop.call_soon_threadsafe(future.set_result, None)

        job = Job(work, answer)
        self.submit(job)
        await future
        result: T = job.outcome()
        return result

    def run_blocking(self, work: Callable[[apsw.Connection], T]) -> T:
        """The result of ``work``; blocks the calling thread."""
        done = threading.Event()
        job = Job(work, done.set)
        self.submit(job)
        done.wait()
        result: T = job.outcome()
        return result

    def submit(self, job: Job) -> None:
        """Have ``job`` done; its ``answer`` is called by the thread."""
        with self._lock:
            self.check_open()
            if self._thread is None:
                self._thread = threading.Thread(target=self._main, name=self._name, daemon=True)
                self._thread.start()
            self._jobs.put(job)

    def check_open(self) -> None:
        """Raise ``StorageError`` (``store_closed``) after :meth:`close`."""
        if self._closed:
            raise StorageError.of("store_closed", "the store was closed")

    def close(self) -> None:
        """Finish the jobs that wait, and end the thread."""
        with self._lock:
            self._closed = True
            thread = self._thread
            self._jobs.put(None)
        if thread is not None:
            thread.join()

    def _main(self) -> None:
        while (job := self._jobs.get()) is not None:
            batch = [job]
            last = False
            while not self._jobs.empty():
                following = self._jobs.get()
                if following is None:
                    last = True
                    break
                batch.append(following)
            self._run_batch(batch)
            for each in batch:
                each.answer()
            if last:
                return
