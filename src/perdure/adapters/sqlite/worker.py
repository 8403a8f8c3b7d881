"""A thread that does database work for any number of event loops and threads."""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import apsw

from perdure.errors import StorageError

T = TypeVar("T")
Work = Callable[[apsw.Connection], Any]
Answer = Callable[[Any, BaseException | None], None]


class Job:
    """Work, and who is to be told how it went."""

    __slots__ = ("answer", "error", "result", "work")

    def __init__(self, work: Work, answer: Answer) -> None:
        self.work = work
        self.answer = answer
        self.result: Any = None
        self.error: BaseException | None = None


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
        """The result of ``work``, without blocking the loop."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()

        def settle(result: T, error: BaseException | None) -> None:
            if future.done():
                return
            if error is None:
                future.set_result(result)
            else:
                future.set_exception(error)

        def answer(result: T, error: BaseException | None) -> None:
            # The loop may have ended without waiting; then nobody is left to be told.
            if not loop.is_closed():
                loop.call_soon_threadsafe(settle, result, error)

        self._submit(Job(work, answer))
        return await future

    def run_blocking(self, work: Callable[[apsw.Connection], T]) -> T:
        """The result of ``work``; blocks the calling thread."""
        done = threading.Event()
        outcome: list[Any] = [None, None]

        def answer(result: T, error: BaseException | None) -> None:
            outcome[:] = [result, error]
            done.set()

        self._submit(Job(work, answer))
        done.wait()
        result, error = outcome
        if error is not None:
            raise error
        return result  # type: ignore[no-any-return]  # what `work` returned

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
                each.answer(each.result, each.error)
            if last:
                return
