"""A store and an app, opened together: starting runs and waiting for them from any program."""

from __future__ import annotations

import asyncio
import builtins
import contextlib
import logging
from collections.abc import AsyncIterator, Callable, Coroutine, Generator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, overload

from perdure.clock import Clock
from perdure.engine.engine import Engine, RunResult, StartRun, read_view
from perdure.errors import Json, NotFoundError, PerdureError
from perdure.ids import RunId
from perdure.model.config import RunConfig
from perdure.model.context import JsonContext
from perdure.model.events import Event, EventEnvelope, RunCompleted, RunPhase
from perdure.sdk.app import App, Startable
from perdure.sdk.manifests import manifest_for
from perdure.sdk.ops import Op
from perdure.sdk.pipelines import PipelineDefinition
from perdure.sdk.reading import (
    RunSummary,
    all_runs,
    client_closed,
    existing_events,
    find_run,
    list_summaries,
)
from perdure.sdk.runs import Run
from perdure.stores.bundle import Stores

if TYPE_CHECKING:
    from perdure.sdk.blocking import BlockingClient

__all__ = ["Client", "Opening", "Run", "open"]

In = TypeVar("In")
Out = TypeVar("Out")

POLL_SECONDS = 0.25
"""How often a run that another process drives is looked at."""
RECOVERIES_AT_ONCE = 100


class Client:
    """Starts runs, drives them in this process, and answers questions about them.

    Made by :func:`perdure.open`. Everything that it drives ends with it, resumable. An ``observer`` is told
    of the events that it has made durable, with their numbers.
    """

    def __init__(
        self,
        stores: Stores,
        app: App,
        *,
        clock: Clock | None = None,
        closes_stores: bool = False,
        observer: Callable[[RunId, Sequence[tuple[int, Event]]], None] = lambda *_: None,
    ) -> None:
        self.stores = stores
        self.app = app
        self._closes_stores = closes_stores
        self._observer = observer
        self._engine = Engine(
            app.resolver,
            transports=app.transports,
            clock=clock,
            observer=self._observe,
            secrets=app.secrets,
        )
        self._driven: dict[RunId, asyncio.Task[RunResult]] = {}
        self._changed: dict[RunId, asyncio.Event] = {}
        self._failures: dict[RunId, BaseException] = {}
        """Why a run that was driven here is not any more, though it has not ended."""
        self._is_closed = False
        self._slots = asyncio.Semaphore(RECOVERIES_AT_ONCE)

    @overload
    async def start(
        self,
        op: Op[In, Out] | PipelineDefinition[In, Out],
        input: In | None = None,
        *,
        key: str | None = None,
        labels: Mapping[str, str] | None = None,
        run_config: RunConfig | None = None,
        run_id: RunId | None = None,
        context: Mapping[str, Json] | None = None,
        config: Any = None,
        detach: bool = False,
    ) -> Run[Out]: ...
    @overload
    async def start(
        self,
        op: str,
        input: Any = None,
        *,
        key: str | None = None,
        labels: Mapping[str, str] | None = None,
        run_config: RunConfig | None = None,
        run_id: RunId | None = None,
        context: Mapping[str, Json] | None = None,
        config: Any = None,
        detach: bool = False,
    ) -> Run[Any]: ...
    async def start(
        self,
        op: Any,
        input: Any = None,  # noqa: A002 — the term
        *,
        key: str | None = None,
        labels: Mapping[str, str] | None = None,
        run_config: RunConfig | None = None,
        run_id: RunId | None = None,
        context: Mapping[str, Json] | None = None,
        config: Any = None,
        detach: bool = False,
    ) -> Run[Any]:
        """Start a run of an operation or a pipeline, and drive it here; returns when it is durably there.

        ``key`` makes starting idempotent: the same key, operation and input give the same run back.
        ``labels`` help to find it again. ``context`` is the initial context, ``config`` the operation's
        configuration. With ``detach`` the run is left to a worker.

        Raises before anything is written: ``InvalidPlanError`` (``op_not_found``, ``op_invalid``,
        ``input_invalid``), ``CanonicalJsonError`` and ``ContextError``; and ``ConcurrencyError``
        (``invocation_conflict``, ``run_already_exists``).
        """
        startable: Startable = self.app.startable(op) if isinstance(op, str) else op
        run_config = run_config or RunConfig()
        pipeline = startable.pipeline_of(config)
        manifest = manifest_for(pipeline, startable.input_json(input), run_config, labels=labels)
        plan = self.app.resolver.resolve(manifest)
        wanted = run_id or (RunId.for_invocation(key) if key is not None else RunId.random())
        manifest_id = await self.stores.put_manifest(manifest)
        begun = StartRun(manifest, manifest_id, plan, run_config, JsonContext(context or {}), wanted, key)
        await self._begin(begun, wanted, drive=not detach)
        return Run(self, wanted, startable)

    @overload
    async def get(self, run_id: str, op: Op[In, Out] | PipelineDefinition[In, Out]) -> Run[Out]: ...
    @overload
    async def get(self, run_id: str, op: None = None) -> Run[Any]: ...
    async def get(self, run_id: str, op: Any = None) -> Run[Any]:
        """The run of this id, or of the beginning of one; ``op`` gives its result a type.

        Raises ``NotFoundError`` (``run_not_found``) and ``RunError`` (``run_ambiguous``).
        """
        found = await find_run(self.stores, run_id)
        if not await self.stores.events.head_seq(found):
            raise NotFoundError.of("run_not_found", "no such run is kept here", details={"run_id": found})
        return Run(self, found, op)

    async def list(
        self, *, phase: RunPhase | None = None, labels: Mapping[str, str] | None = None, limit: int = 100
    ) -> list[RunSummary]:
        """The newest runs that are in ``phase`` and bear all ``labels``."""
        return await list_summaries(self.stores, phase=phase, labels=labels or {}, limit=limit)

    async def resume(self, run_id: str) -> Run[Any]:
        """Drive a run on in this process, unless somebody does already."""
        run = await self.get(run_id)
        if run.id not in self._driven:
            self._drive(run.id, self._engine.resume(self.stores, run.id))
        return run

    async def recover(self) -> builtins.list[RunId]:
        """Drive on every unfinished run that nobody owns; returns those that were taken up.

        A run that cannot be driven here (its operation is not in the app, its history is damaged) is left
        alone for as long as this client lives.
        """
        found = [
            run_id
            async for run_id in all_runs(self.stores, unfinished=True)
            if run_id not in self._driven and run_id not in self._failures
        ]
        for run_id in found:
            self._drive(run_id, self._recover_one(run_id))
        return found

    async def aclose(self) -> None:
        """Interrupt what is driven here, resumable, and let go of transports and stores."""
        self._is_closed = True
        tasks = list(self._driven.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for run_id in list(self._changed):
            self._notify(run_id)
        await self.app.transports.aclose()
        if self._closes_stores:
            await self.stores.close()

    async def wait(self, run_id: RunId) -> RunResult:
        """Wait until a run has ended, wherever it is driven.

        Raises what kept this process from driving it on: ``StorageError``, ``InvalidPlanError``; and
        ``RunError`` (``client_closed``).
        """
        while True:
            task = self._driven.get(run_id)
            if task is not None:
                await asyncio.wait({task})
                if task.cancelled():
                    raise client_closed(run_id)
            self._refuse_closed_stores(run_id)
            view = await read_view(self.stores, run_id)
            if view.ended is not None:
                return RunResult(run_id, view.phase, view.ended.final_snapshot_id)
            if run_id in self._failures:
                raise self._failures[run_id]
            await self._change(run_id)

    async def events_of(self, run_id: RunId, after: int = 0) -> AsyncIterator[EventEnvelope]:
        """A run's events as they are written, from the one after ``after`` on, until the run has ended.

        Raises ``NotFoundError`` (``run_not_found``) and ``RunError`` (``client_closed``).
        """
        self._refuse_closed_stores(run_id)
        await existing_events(self.stores, run_id, after + 1)
        view = await read_view(self.stores, run_id)
        if view.ended is not None and view.head_seq <= after:
            return
        while True:
            changed = self._changed.setdefault(run_id, asyncio.Event())
            for envelope in await self.stores.events.read_range(run_id, after + 1):
                after = envelope.seq
                yield envelope
                if isinstance(envelope.event, RunCompleted):
                    return
            await self._change(run_id, changed)

    async def _begin(self, begun: StartRun, run_id: RunId, *, drive: bool) -> None:
        if not drive or run_id in self._driven:
            # Whoever drives the run already goes on; what is asked for is only compared with it.
            await self._engine.start(self.stores, begun, drive=False)
            return
        there = asyncio.Event()
        work = self._engine.start(self.stores, begun, on_begun=there.set)
        task = self._drive(run_id, work)
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
        self._failures.pop(run_id, None)
        task.result()

    def _drive(self, run_id: RunId, work: Coroutine[Any, Any, RunResult]) -> asyncio.Task[RunResult]:
        if self._is_closed:
            work.close()
            raise client_closed(run_id)
        self._failures.pop(run_id, None)
        task = asyncio.create_task(work, name=f"perdure-run-{run_id}")
        self._driven[run_id] = task
        task.add_done_callback(lambda done: self._ended(run_id, done))
        return task

    def _ended(self, run_id: RunId, task: asyncio.Task[RunResult]) -> None:
        if self._driven.get(run_id) is task:
            del self._driven[run_id]
        error = None if task.cancelled() else task.exception()
        if error is not None and getattr(error, "code", None) != "run_already_active":
            self._failures[run_id] = error
        self._notify(run_id)

    async def _recover_one(self, run_id: RunId) -> RunResult:
        async with self._slots:
            try:
                return await self._engine.resume(self.stores, run_id)
            except PerdureError as error:
                if error.code != "run_already_active":
                    logging.getLogger("perdure").warning("run %s cannot be recovered: %s", run_id, error)
                raise

    def _observe(self, run_id: RunId, events: Sequence[tuple[int, Event]]) -> None:
        self._notify(run_id)
        self._observer(run_id, events)

    def _notify(self, run_id: RunId) -> None:
        changed = self._changed.pop(run_id, None)
        if changed is not None:
            changed.set()

    async def _change(self, run_id: RunId, changed: asyncio.Event | None = None) -> None:
        """Wait for news of a run: told in this process, looked for in others."""
        if self._is_closed:
            raise client_closed(run_id)
        changed = changed or self._changed.setdefault(run_id, asyncio.Event())
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(changed.wait(), POLL_SECONDS)
        self._refuse_closed_stores(run_id)

    def _refuse_closed_stores(self, run_id: RunId) -> None:
        if self._is_closed and self._closes_stores:
            raise client_closed(run_id)


class Opening:
    """What :func:`perdure.open` gives: enter it with ``async with``, with ``with``, or await it."""

    def __init__(self, store: str | Path | Stores, app: App, *, recover: bool, clock: Clock | None) -> None:
        self._store = store
        self._app = app
        self._recover = recover
        self._clock = clock
        self._client: Client | None = None
        self._blocking: BlockingClient | None = None

    async def open(self) -> Client:
        """A client that its caller closes with ``aclose()``."""
        if isinstance(self._store, Stores):
            stores = self._store
        else:
            stores = Stores.sqlite(self._store) if isinstance(self._store, Path) else Stores.open(self._store)
        owned = stores is not self._store
        client = Client(stores, self._app, clock=self._clock, closes_stores=owned)
        try:
            if self._recover:
                await client.recover()
        except BaseException:
            await client.aclose()
            raise
        return client

    def __await__(self) -> Generator[Any, None, Client]:
        return self.open().__await__()

    async def __aenter__(self) -> Client:
        self._client = await self.open()
        return self._client

    async def __aexit__(self, *_: object) -> None:
        if self._client is not None:
            await asyncio.shield(self._client.aclose())

    def __enter__(self) -> BlockingClient:
        from perdure.sdk.blocking import BlockingClient

        self._blocking = BlockingClient(self)
        return self._blocking

    def __exit__(self, *_: object) -> None:
        if self._blocking is not None:
            self._blocking.close()


def open(  # noqa: A001 — read as perdure.open
    store: str | Path | Stores,
    app: App | Op[Any, Any] | PipelineDefinition[Any, Any] | Sequence[Any],
    *,
    recover: bool = True,
    clock: Clock | None = None,
) -> Opening:
    """Open a store for an app: ``async with perdure.open("runs.db", app=app) as p: …``.

    ``store`` is a path, an address such as ``sqlite:PATH``, or stores that the caller closes. ``app`` may be
    one operation or pipeline too, or several. With ``recover`` every unfinished run that nobody owns is
    driven on, here and now.

    In programs without an event loop ``with perdure.open(…) as p`` gives a ``BlockingClient``. In a
    notebook ``p = await perdure.open(…)``, and ``await p.aclose()`` in the end.
    """
    if isinstance(app, (Op, PipelineDefinition)):
        app = App([app])
    elif not isinstance(app, App):
        app = App(app)
    return Opening(store, app, recover=recover, clock=clock)
