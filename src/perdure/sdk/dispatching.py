"""Who executes the child runs of a client's runs: the client."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from typing import Any

from perdure.engine.dispatch import Drive, LocalDispatcher, Resume
from perdure.engine.results import RunResult
from perdure.ids import RunId
from perdure.stores.bundle import Stores


class ClientDispatcher(LocalDispatcher):
    """Executes runs as a client drives them: seen by its observers, and until it is closed.

    ``driven`` is what the client drives already, and ``drive`` has it drive a run on.
    """

    def __init__(
        self,
        resume: Resume,
        max_concurrency: int,
        driven: Mapping[RunId, asyncio.Task[RunResult]],
        drive: Callable[[RunId, Coroutine[Any, Any, RunResult]], asyncio.Task[RunResult]],
    ) -> None:
        super().__init__(resume, max_concurrency)
        self._by_client = driven
        self._drive_by_client = drive

    def take_up(self, stores: Stores, run_id: RunId) -> asyncio.Task[RunResult]:
        return self._by_client.get(run_id) or super().take_up(stores, run_id)

    def _begin(self, run_id: RunId, drive: Drive) -> asyncio.Task[RunResult]:
        return self._drive_by_client(run_id, drive())

    async def withdraw(self, stores: Stores, parent: RunId) -> None:
        """Nothing is interrupted: the client drives its runs until it is closed."""
