"""The client: starting runs and waiting for them from any program."""

from __future__ import annotations

import asyncio
import builtins
import logging
import uuid
from collections.abc import (
    AsyncIterator,
    Callable,
    Collection,
    Mapping,
    Sequence,
)
from datetime import timedelta
from functools import cached_property, partial
from types import NoneType
from typing import TYPE_CHECKING, Any, TypeVar, overload

from perdure.clock import Clock, SystemClock
from perdure.engine.engine import PARK_AFTER, Engine
from perdure.engine.letters import AnyLetter, StopLetter
from perdure.engine.recovery import read_view
from perdure.engine.results import RunResult
from perdure.engine.starting import StartRun, run_id_of
from perdure.errors import (
    ConcurrencyError,
    InvalidPlanError,
    Json,
)
from perdure.ids import RunId
from perdure.model.config import RunConfig
from perdure.model.context import JsonContext
from perdure.model.events import Event, EventEnvelope, RunCompleted, RunPhase
from perdure.model.legs import continued_by
from perdure.model.pipeline import manifest_for
from perdure.sdk.app import App, Startable
from perdure.sdk.checks import expect, expect_key, expect_mapping, refuse_call
from perdure.sdk.dispatching import ClientDispatcher
from perdure.sdk.driven import DrivenRuns
from perdure.sdk.execution import configured
from perdure.sdk.finding import find_run, manifest_of
from perdure.sdk.forks import fork_of
from perdure.sdk.keeping import Keeper
from perdure.sdk.ops import Op
from perdure.sdk.pipelines import PipelineDefinition
from perdure.sdk.planner import pipeline_of
from perdure.sdk.reading import RunSummary, list_summaries
from perdure.sdk.runs import PROGRAM, Run
from perdure.sdk.scheduling import Scheduler
from perdure.sdk.signals import SignalDefinition, declared_signals
from perdure.sdk.waking import Waker
from perdure.sdk.watching import Watcher
from perdure.stores.bundle import Stores
from perdure.stores.refusals import run_not_found

if TYPE_CHECKING:
    from perdure.sdk.schedules import Schedules

In = TypeVar("In")
Out = TypeVar("Out")

RECOVERIES_MAX = 1000
MAX_CONCURRENCY = 1000


class Client(Keeper):
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
        park_after: timedelta = PARK_AFTER,
        max_concurrency: int = MAX_CONCURRENCY,
        observer: Callable[[RunId, Sequence[tuple[int, Event]]], None] = lambda *_: None,
    ) -> None:
        self.stores = stores
        self.app = app
        self._closes_stores = closes_stores
        self._clock = clock or SystemClock()
        self._observer = observer
        self._driven = DrivenRuns(self._ended)
        self._watcher = Watcher(stores, self._driven, closes_stores=closes_stores)
        self._dispatcher = ClientDispatcher(self._resume_here, max_concurrency, self._driven)
        self._engine = Engine(
            app.resolver,
            transports=app.transports,
            clock=self._clock,
            observer=self._observe,
            secrets=app.secrets,
            park_after=park_after,
            dispatcher=self._dispatcher,
        )
        self._scheduler = Scheduler(stores, app, self._engine, self._clock, self.tell)
        self._waker = Waker(stores, self._clock, park_after, self._wake, self._take_up)

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
        op_version: str | None = None,
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
        op_version: str | None = None,
        key: str | None = None,
        labels: Mapping[str, str] | None = None,
        run_config: RunConfig | None = None,
        run_id: RunId | None = None,
        context: Mapping[str, Json] | None = None,
        config: Any = None,
        detach: bool = False,
    ) -> Run[Any]:
        """Start a run of an operation or a pipeline, and drive it here; returns when it is durably there.

        An operation that is given by name is started in its newest version, or in ``op_version``. ``key``
        makes starting idempotent: the same key, operation and input give the same run back. ``labels`` help
        to find it again. ``context`` is the initial context, ``config`` the operation's configuration. With
        ``detach`` the run is left to a worker, or to another client that recovers.

        Raises before anything is written: ``InvalidPlanError`` (``op_not_found``, ``op_invalid``,
        ``input_invalid``), ``CanonicalJsonError`` and ``ContextError``; and ``ConcurrencyError``
        (``invocation_conflict``, ``run_already_exists``).
        """
        expect(op_version, (str, NoneType), "start(op_version=…)", "a string")
        startable: Startable = self.app.startable(op, op_version) if isinstance(op, str) else op
        if op_version not in (None, getattr(startable, "op_version", None)):
            refuse_call(op_version, "start(op_version=…)", "the version of the operation that is given")
        if not hasattr(startable, "pipeline_of"):
            refuse_call(op, "what start(…) starts", "an operation, a pipeline or the name of one")
        expect_key(key, "start(key=…)")
        expect_mapping(labels or {}, str, "start(labels=…)", "strings")
        expect_mapping(context or {}, object, "start(context=…)", "JSON values")
        expect(run_config, (RunConfig, NoneType), "start(run_config=…)", "a RunConfig")
        run_config = configured(run_config, startable.execution)
        pipeline = startable.pipeline_of(config)
        manifest = manifest_for(pipeline, startable.input_json(input), run_config, labels=labels)
        plan = self.app.resolver.resolve(manifest)
        wanted = run_id_of(run_id, key)
        manifest_id = await self.stores.put_manifest(manifest)
        begun = StartRun(manifest, manifest_id, plan, run_config, JsonContext(context or {}), wanted, key)
        await self._driven.begin(partial(self._engine.start, self.stores, begun), wanted, drive=not detach)
        return Run(self, wanted, startable)

    async def fork(
        self,
        run_id: str,
        at: str,
        *,
        set: Mapping[str, Json] | None = None,  # noqa: A002 — the command line's word
        op_version: str | None = None,
        key: str | None = None,
        new_run_id: RunId | None = None,
        by: str = PROGRAM,
        reason: str = "",
        detach: bool = False,
    ) -> Run[Any]:
        """Begin a new run where another one, in whatever phase, first entered the state ``at``.

        What the other run had completed by then counts as completed, with its snapshots, facts and effects;
        ``at`` and what follows it are executed anew. ``set`` changes values of the context that ``at`` finds,
        ``op_version`` has the fork go on in another version of the operation. ``key``, ``new_run_id`` and
        ``detach`` are ``key``, ``run_id`` and ``detach`` of :meth:`start`.

        Raises before anything is written: ``NotFoundError`` (``run_not_found``, ``fork_state_not_reached``),
        ``InvalidPlanError`` (``fork_states_not_in_plan``, ``fork_order_changed``, ``fork_key_unknown``,
        ``fork_key_twice``, ``run_blocked_by_version``, ``op_not_found``), and as :meth:`start`.
        """
        origin = await find_run(self.stores, run_id)
        wanted = run_id_of(new_run_id, key)
        fork = await fork_of(
            self.stores,
            self.app,
            origin,
            at,
            values=set,
            op_version=op_version,
            run_id=wanted,
            key=key,
            by=by,
            reason=reason,
        )
        await self._driven.begin(partial(self._engine.fork, self.stores, fork), wanted, drive=not detach)
        return Run(self, wanted)

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
            raise run_not_found(found)
        return Run(self, found, op)

    async def list(
        self,
        *,
        phase: RunPhase | None = None,
        labels: Mapping[str, str] | None = None,
        limit: int = 100,
        legs: bool = False,
    ) -> list[RunSummary]:
        """The newest runs that are in ``phase`` and bear all ``labels``.

        Of a run that goes on as others its newest leg alone, unless all ``legs`` are wanted.
        """
        expect(phase, (RunPhase, NoneType), "list(phase=…)", "a RunPhase")
        expect_mapping(labels or {}, str, "list(labels=…)", "strings")
        expect(limit, int, "list(limit=…)", "a number")
        return await list_summaries(self.stores, phase=phase, labels=labels or {}, limit=limit, legs=legs)

    async def resume(self, run_id: str) -> Run[Any]:
        """Drive a run, or what it goes on as, on in this process, unless somebody does already."""
        run = await self.get(run_id)
        newest = await self.stores.newest_leg(run.id)
        if newest not in self._driven.tasks:
            self._driven.drive(newest, self._engine.resume(self.stores, newest))
        return run

    async def recover(self) -> builtins.list[RunId]:
        """Drive on every unfinished run that is due and that nobody owns; returns those that were taken up.

        Runs that are due by schedules are started first. A run that cannot be driven here (its operation is
        not in the app, its history is damaged) is left alone for as long as this client lives. At most
        :data:`RECOVERIES_MAX` are taken up; call it again for more.
        """
        return await self._recover_all_but(frozenset())

    async def _take_up(self) -> int | None:
        """Take up what is due but for what was left to others; when the next schedule is due."""
        await self._recover_all_but(self._driven.left)
        return self._scheduler.next_millis

    async def _recover_all_but(self, left: Collection[RunId]) -> builtins.list[RunId]:
        await self._scheduler.follow()
        driven, failures = self._driven.tasks, self._driven.failures
        limit = RECOVERIES_MAX + len(failures) + len(driven) + len(left)
        found = [
            run_id
            for run_id in await self.stores.agenda.due_runs(limit, within_millis=self._waker.ahead_millis)
            if run_id not in driven and run_id not in failures and run_id not in left
        ]
        for run_id in found:
            self._dispatcher.take_up(self.stores, run_id)
        return found

    @cached_property
    def schedules(self) -> Schedules:
        """Having runs started at their times."""
        from perdure.sdk.schedules import Schedules

        return Schedules(self.stores, self.app, self._clock, self._waker.nudge)

    @property
    def driven(self) -> builtins.list[RunId]:
        """The runs that are driven here now, or wait for a place."""
        return [*self._driven.tasks]

    async def drive_result(self, run_id: RunId) -> RunResult:
        """How driving the run here ends: with its end, or with what it waits for. Raises what stopped it."""
        tasks = self._driven.tasks
        task = tasks.get(run_id) or tasks.get(await self.stores.newest_leg(run_id))
        return await self.wait(run_id) if task is None else await asyncio.shield(task)

    async def seconds_until_due(self, limit: float) -> float:
        """How long nothing is due that nobody owns, nor by a schedule, at most ``limit``."""
        return self._scheduler.seconds_until_due(await self._waker.seconds_until_due(limit))

    def keep_recovering(self) -> None:
        """From now on drive on whatever is due and nobody owns, as :meth:`recover` does."""
        self._waker.recover_from_now_on()

    async def signals_of(self, run_id: RunId) -> Mapping[str, SignalDefinition[Any]]:
        """The signals that a run's operations declare; none if this client's app does not have these."""
        manifest = await manifest_of(self.stores, await read_view(self.stores, run_id))
        if manifest is None:
            return {}
        ops = map(self.app.resolver.planner.op_of, pipeline_of(manifest)[0].steps)
        return declared_signals(op for op in ops if op is not None)

    async def tell(self, run_id: RunId, letter: AnyLetter, letter_id: str | None = None) -> bool:
        """Post a letter to a run, and have it read if nobody drives the run.

        False if a letter of this id waits to be read already. Raises before anything is written:
        ``CanonicalJsonError``, ``NotFoundError`` (``run_not_found``), ``ConcurrencyError``
        (``run_already_terminal``), ``RunError`` (``letter_invalid``).
        """
        posted = await self._engine.send(self.stores, run_id, letter, letter_id or str(uuid.uuid4()))
        self._waker.nudge()
        if isinstance(letter, StopLetter) and run_id not in self._driven.tasks:
            # Nobody may be there to wake a parked run, and nothing has to be executed to end it.
            try:
                await self._engine.resume(self.stores, run_id, runs_handlers=False)
            except (InvalidPlanError, ConcurrencyError) as error:
                logging.getLogger("perdure").debug("run %s is left to whoever drives it: %s", run_id, error)
            self._watcher.notify(run_id)
        return posted

    async def aclose(self) -> None:
        """Interrupt what is driven here, resumable, and let go of transports and stores."""
        self._driven.is_closed = True
        await self._waker.aclose()
        await self._driven.interrupt()
        self._watcher.notify_all()
        await self.app.transports.aclose()
        if self._closes_stores:
            await self.stores.close()

    async def wait(self, run_id: RunId) -> RunResult:
        """Wait until a run has ended, wherever it is driven; one that goes on as another, until that has.

        Raises what kept this process from driving it on: ``StorageError``, ``InvalidPlanError``; and
        ``NotFoundError`` (``run_not_found``) and ``RunError`` (``client_closed``).
        """
        return await self._watcher.wait(run_id)

    def events_of(self, run_id: RunId, after: int = 0) -> AsyncIterator[EventEnvelope]:
        """A run's events as they are written, from the one after ``after`` on, until the run has ended.

        Raises ``NotFoundError`` (``run_not_found``) and ``RunError`` (``client_closed``).
        """
        return self._watcher.events_of(run_id, after)

    def _ended(self, run_id: RunId, result: RunResult | None) -> None:
        if result is not None and result.waiting_for is not None:
            self._waker.park(result.run_id, result.due_millis)
        self._watcher.notify(run_id)

    def _wake(self, run_id: RunId) -> None:
        self._dispatcher.take_up(self.stores, run_id)

    async def _resume_here(self, stores: Stores, run_id: RunId) -> RunResult:
        return await self._engine.resume(stores, run_id)

    def _observe(self, run_id: RunId, events: Sequence[tuple[int, Event]]) -> None:
        if (continued := continued_by(events[0][1])) is not None:
            self._driven.hand_on(continued.run_id, run_id)
        self._watcher.notify(run_id)
        if any(type(event) is RunCompleted for _, event in events):
            self._waker.nudge()  # others may wait for its end
        self._observer(run_id, events)
