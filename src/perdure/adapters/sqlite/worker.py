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
    """Work, and how it went.

    Its owner waits on the lock ``done``, or calls :meth:`when_done`.
    """

    __slots__ = ("_answer", "_guard", "done", "error", "result", "work")

    def __init__(self, work: Work) -> None:
        self.work = work
        self.result: Any = None
        self.error: BaseException | None = None
        self.done = threading.Lock()
        self.done.acquire()
        self._guard = threading.Lock()
        self._answer: Callable[[], object] | None = None

    def when_done(self, answer: Callable[[], object]) -> None:
        """Have ``answer`` called by the worker's thread, or at once if the job is done."""
        with self._guard:
            if self.done.locked():
                self._answer = answer
                return
        answer()

    def finish(self) -> None:
        """Tell whoever waits."""
        with self._guard:
            self.done.release()
        if self._answer is not None:
            self._answer()

    def outcome(self) -> Any:
        """The result, or the error raised."""
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

    async def run(self, work: Callable[[apsw.Connection], T], patience_seconds: float = 0.0) -> T:
        """The result of ``work``.

        The loop is not blocked, or for ``patience_seconds`` at most: going round the loop once takes
        longer than most work. A caller that is cancelled meanwhile is told so when the work is done.
        """
        job = Job(work)
        self._submit(job)
        if not (patience_seconds and job.done.acquire(timeout=patience_seconds)):
            loop = asyncio.get_running_loop()
            future: UninterruptedFuture[None] = UninterruptedFuture(loop=loop)

            def answer() -> None:
                # The loop may have ended without waiting; then nobody is left to be told.
                if not loop.is_closed():
                    loop.call_soon_threadsafe(future.set_result, None)

            job.when_done(answer)
            await future
        result: T = job.outcome()
        return result

    def run_blocking(self, work: Callable[[apsw.Connection], T]) -> T:
        """The result of ``work``; blocks the calling thread."""
        job = Job(work)
        self._submit(job)
        job.done.acquire()
        result: T = job.outcome()
        return result

    def close(self) -> None:
        """Finish the jobs that wait, and end the thread."""
        with self._lock:
            self._closed = True
            thread = self._thread
            self._jobs.put(None)
        if thread is not None:
            thread.join()

    def _submit(self, job: Job) -> None:
        with self._lock:
            if self._closed:
                raise StorageError.of("store_closed", "the store was closed")
            if self._thread is None:
                self._thread = threading.Thread(target=self._main, name=self._name, daemon=True)
                self._thread.start()
            self._jobs.put(job)

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
                each.finish()
            if last:
                return
