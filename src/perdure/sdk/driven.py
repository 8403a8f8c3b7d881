"""The runs that a client drives in its process."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from perdure.engine.dispatch import is_driven_elsewhere
from perdure.engine.results import RunResult
from perdure.ids import RunId
from perdure.sdk.refusals import client_closed


class DrivenRuns:
    """Each run that is driven here, as one task, however often it goes on as another.

    ``ended`` is told of every run that is driven no more, with how it was left, or None if it was interrupted
    or could not be driven.
    """

    def __init__(self, ended: Callable[[RunId, RunResult | None], None]) -> None:
        self.tasks: dict[RunId, asyncio.Task[RunResult]] = {}
        """By the leg that each run is now."""
        self.failures: dict[RunId, BaseException] = {}
        """Why a run that was driven here is not any more, though it has not ended."""
        self.left: set[RunId] = set()
        """Runs that were begun here for others to drive."""
        self.is_closed = False
        self._ended = ended
        self._ids: dict[asyncio.Task[RunResult], RunId] = {}
        """Which run is driven, since it may go on as another."""

    def drive(self, run_id: RunId, work: Coroutine[Any, Any, RunResult]) -> asyncio.Task[RunResult]:
        """Do the work of driving a run; ``RunError`` (``client_closed``) if nothing is driven any more."""
        if self.is_closed:
            work.close()
            raise client_closed(run_id)
        self.failures.pop(run_id, None)
        self.left.discard(run_id)
        task = asyncio.create_task(work, name=f"perdure-run-{run_id}")
        self.tasks[run_id] = task
        self._ids[task] = run_id
        task.add_done_callback(self._forget)
        return task

    async def begin(
        self, begin: Callable[..., Coroutine[Any, Any, RunResult]], run_id: RunId, *, drive: bool
    ) -> None:
        """Begin a run and drive it, or leave it to others; it is durably there on return.

        ``begin`` takes ``drive``, and ``on_begun``, which it calls when the run is there. Raises as it does.
        """
        if not drive:
            self.left.add(run_id)
        if not drive or run_id in self.tasks:
            # Whoever drives the run already goes on; what is asked for is only compared with it.
            await begin(drive=False)
            return
        there = asyncio.Event()
        task = self.drive(run_id, begin(on_begun=there.set))
        waiting = asyncio.ensure_future(there.wait())
        try:
            await asyncio.wait({task, waiting}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            waiting.cancel()
        if there.is_set():
            return
        if task.cancelled():
            raise client_closed(run_id)
        # Why this start was refused says nothing about a run of this id that may be there.
        self.failures.pop(run_id, None)
        task.result()

    def hand_on(self, run_id: RunId, heir: RunId) -> None:
        """Know the run that is driven here as that which it goes on as."""
        task = self.tasks.pop(run_id, None)
        if task is not None:
            self.tasks[heir] = task
            self._ids[task] = heir

    async def interrupt(self) -> None:
        """Stop driving whatever is driven here; all of it can be resumed."""
        tasks = list(self.tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _forget(self, task: asyncio.Task[RunResult]) -> None:
        run_id = self._ids.pop(task)
        if self.tasks.get(run_id) is task:
            del self.tasks[run_id]
        error = None if task.cancelled() else task.exception()
        if error is not None and not is_driven_elsewhere(error):
            self.failures[run_id] = error
        self._ended(run_id, None if task.cancelled() or error is not None else task.result())
