"""Who executes the child runs of a client's runs: the client."""

from __future__ import annotations

import asyncio

from perdure.engine.dispatch import Drive, LocalDispatcher, Resume
from perdure.engine.results import RunResult
from perdure.ids import RunId
from perdure.sdk.driven import DrivenRuns
from perdure.stores.bundle import Stores


class ClientDispatcher(LocalDispatcher):
    """Executes runs as a client drives them: seen by its observers, and until it is closed."""

    def __init__(self, resume: Resume, max_concurrency: int, driven: DrivenRuns) -> None:
        super().__init__(resume, max_concurrency)
        self._by_client = driven

    def take_up(self, stores: Stores, run_id: RunId) -> asyncio.Task[RunResult]:
        return self._by_client.tasks.get(run_id) or super().take_up(stores, run_id)

    def _begin(self, run_id: RunId, drive: Drive) -> asyncio.Task[RunResult]:
        return self._by_client.drive(run_id, drive())

    async def withdraw(self, stores: Stores, parent: RunId) -> None:
        """Nothing is interrupted: the client drives its runs until it is closed."""
