"""A run, as whoever started or found it sees it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Generic, TypeVar

from perdure.engine.engine import RunResult, read_view
from perdure.errors import Json
from perdure.ids import RunId
from perdure.model.events import EventEnvelope, RunPhase
from perdure.proof.replay import ReplayReport, replay_run
from perdure.sdk.app import Startable
from perdure.sdk.reading import exports_of, manifest_of, run_failure
from perdure.stores.reading import read_json

if TYPE_CHECKING:
    from perdure.sdk.client import Client

Out = TypeVar("Out")


class Run(Generic[Out]):
    """A run, as its client sees it."""

    def __init__(self, client: Client, run_id: RunId, startable: Startable | None = None) -> None:
        self.id = run_id
        self._client = client
        self._startable = startable

    def __repr__(self) -> str:
        return f"<run {self.id}>"

    async def result(self) -> Out:
        """Wait for the end and give what the run exports: the value of the only export, or all by name.

        Raises ``RunError`` (``run_failed`` with the state and its error's code, ``run_cancelled``).
        """
        client = self._client
        ended = await client.wait(self.id)
        view = await read_view(client.stores, self.id)
        manifest = await manifest_of(client.stores, view)
        if ended.phase is not RunPhase.COMPLETED or manifest is None:
            raise run_failure(self.id, view)
        exports = await exports_of(client.stores, client.app.resolver.planner, ended)
        startable = self._startable or client.app.startable(manifest.op_id, manifest.op_version)
        result: Out = startable.result_of(exports)
        return result

    async def wait(self) -> RunResult:
        """Wait for the end; a run that failed is no error here."""
        return await self._client.wait(self.id)

    async def phase(self) -> RunPhase:
        """Running, or how the run ended."""
        return (await read_view(self._client.stores, self.id)).phase

    async def context(self) -> dict[str, Json]:
        """The context after the last state that completed."""
        view = await read_view(self._client.stores, self.id)
        if view.checkpoint is None:
            return {}
        context, _ = await read_json(self._client.stores.artifacts, view.checkpoint)
        return dict(context)

    async def replay(self) -> ReplayReport:
        """Execute the states that completed again, from the recorded facts alone, and compare.

        Raises ``InvalidPlanError`` if the app no longer has what the run was made of.
        """
        return await replay_run(self._client.stores, self.id, self._client.app.resolver)

    def events(self, after: int = 0) -> AsyncIterator[EventEnvelope]:
        """The run's events as they are written, from the one after ``after`` on, until it has ended."""
        return self._client.events_of(self.id, after)
