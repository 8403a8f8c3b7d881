"""Who executes a run: a port, and the one that executes it in this process."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, Protocol

from perdure.engine.results import RunResult
from perdure.errors import PerdureError
from perdure.ids import RunId
from perdure.stores.bundle import Stores

MAX_CONCURRENCY = 100

Resume = Callable[[Stores, RunId], Coroutine[Any, Any, RunResult]]


class Dispatcher(Protocol):
    """Has runs executed that others wait for: here, or wherever it hands them to."""

    def submit(self, stores: Stores, run_id: RunId, parent: RunId) -> asyncio.Future[RunResult]:
        """Have a run driven, sometime soon, for ``parent``; one that is driven already is not driven twice.

        The future tells how it was left: ended, or still running because it waits or because others drive it.
        Cancelling who waits for the future does not stop the run.
        """

    def resting(self, run_id: RunId) -> AbstractAsyncContextManager[None]:
        """While it is entered, ``run_id`` waits for others, and takes none of the places to run."""

    async def withdraw(self, parent: RunId) -> None:
        """Interrupt, resumable, what is driven here for ``parent`` alone."""


class LocalDispatcher:
    """Executes runs as tasks of the running event loop, at most ``max_concurrency`` at a time."""

    def __init__(self, resume: Resume, max_concurrency: int = MAX_CONCURRENCY) -> None:
        self._resume = resume
        self._places = asyncio.Semaphore(max_concurrency)
        self._placed: set[RunId] = set()
        self._resting: dict[RunId, int] = {}
        self._tasks: dict[tuple[Stores, RunId], asyncio.Task[RunResult]] = {}
        self._parents: dict[asyncio.Task[RunResult], set[RunId]] = {}
        self._submitted: dict[RunId, set[asyncio.Task[RunResult]]] = {}

    def submit(self, stores: Stores, run_id: RunId, parent: RunId) -> asyncio.Future[RunResult]:
        task = self._tasks.get((stores, run_id))
        if task is None:
            task = asyncio.create_task(self.drive(stores, run_id), name=f"perdure-run-{run_id}")
            self._tasks[stores, run_id] = task
            self._parents[task] = set()
            task.add_done_callback(lambda done: self._ended(stores, run_id, done))
        self._parents[task].add(parent)
        self._submitted.setdefault(parent, set()).add(task)
        return task

    async def drive(self, stores: Stores, run_id: RunId) -> RunResult:
        """Drive a run on when there is a place for it."""
        async with self._places:
            self._placed.add(run_id)
            try:
                return await self._resume(stores, run_id)
            finally:
                self._placed.discard(run_id)

    @asynccontextmanager
    async def resting(self, run_id: RunId) -> AsyncIterator[None]:
        if run_id not in self._placed:
            yield
            return
        # However many children a run waits for, it has one place to give.
        self._resting[run_id] = self._resting.get(run_id, 0) + 1
        if self._resting[run_id] == 1:
            self._places.release()
        try:
            yield
        finally:
            self._resting[run_id] -= 1
            if not self._resting[run_id]:
                del self._resting[run_id]
                await self._places.acquire()

    async def withdraw(self, parent: RunId) -> None:
        alone = [task for task in self._submitted.get(parent, ()) if self._parents[task] == {parent}]
        for task in alone:
            task.cancel()
        if alone:
            await asyncio.wait(alone)

    def _ended(self, stores: Stores, run_id: RunId, task: asyncio.Task[RunResult]) -> None:
        del self._tasks[stores, run_id]
        for parent in self._parents.pop(task):
            self._submitted[parent].discard(task)
            if not self._submitted[parent]:
                del self._submitted[parent]
        if not task.cancelled() and (error := task.exception()) is not None:
            level = logging.DEBUG if is_driven_elsewhere(error) else logging.WARNING
            logging.getLogger("perdure").log(level, "run %s cannot be driven here: %s", run_id, error)


def is_driven_elsewhere(error: BaseException) -> bool:
    """Whether a run was not driven because somebody else does it."""
    return isinstance(error, PerdureError) and error.code in ("run_already_active", "claim_lost")
