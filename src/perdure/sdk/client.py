"""The client: starting runs and waiting for them from any program."""

from __future__ import annotations

import asyncio
import builtins
import contextlib
import logging
import uuid
from collections.abc import (
    AsyncIterator,
    Callable,
    Collection,
    Coroutine,
    Mapping,
    Sequence,
)
from datetime import timedelta
from functools import cached_property, partial
from types import NoneType
from typing import TYPE_CHECKING, Any, TypeVar, overload

from perdure.clock import Clock, SystemClock
from perdure.engine.dispatch import is_driven_elsewhere
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
from perdure.sdk.checks import expect, expect_mapping, refuse_call
from perdure.sdk.dispatching import ClientDispatcher
from perdure.sdk.execution import configured
from perdure.sdk.forks import fork_of
from perdure.sdk.keeping import Keeper
from perdure.sdk.ops import Op
from perdure.sdk.pipelines import PipelineDefinition
from perdure.sdk.planner import pipeline_of
from perdure.sdk.reading import (
    RunSummary,
    client_closed,
    existing_events,
    find_run,
    list_summaries,
    manifest_of,
    run_not_found,
)
from perdure.sdk.runs import PROGRAM, Run
from perdure.sdk.scheduling import Scheduler
from perdure.sdk.signals import SignalDefinition, declared_signals
from perdure.sdk.waking import POLL_SECONDS, Waker
from perdure.stores.bundle import Stores

if TYPE_CHECKING:
    from perdure.sdk.schedules import Schedules

In = TypeVar("In")
Out = TypeVar("Out")

RECOVERIES_MAX = 1000
MAX_CONCURRENCY = 1000
_SEQ_BITS = 62
"""No event has a larger number; stores count with signed numbers of 64 bits."""


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
        self._driven: dict[RunId, asyncio.Task[RunResult]] = {}
        self._ids: dict[asyncio.Task[RunResult], RunId] = {}
        """Which run is driven, since it may go on as another."""
        self._dispatcher = ClientDispatcher(self._resume_here, max_concurrency, self._driven, self._drive)
        self._engine = Engine(
            app.resolver,
            transports=app.transports,
            clock=self._clock,
            observer=self._observe,
            secrets=app.secrets,
            park_after=park_after,
            dispatcher=self._dispatcher,
        )
        self._changed: dict[RunId, asyncio.Event] = {}
        self._failures: dict[RunId, BaseException] = {}
        """Why a run that was driven here is not any more, though it has not ended."""
        self._is_closed = False
        self._scheduler = Scheduler(stores, app, self._engine, self._clock, self.tell)
        self._waker = Waker(stores, self._clock, park_after, self._wake, self._take_up)
        self._left: set[RunId] = set()
        """Runs that were begun here for others to drive."""

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
        expect(key, (str, NoneType), "start(key=…)", "a string")
        if key == "":
            refuse_call(key, "start(key=…)", "more than an empty string, with which all runs would be one")
        expect_mapping(labels or {}, str, "start(labels=…)", "strings")
        expect_mapping(context or {}, object, "start(context=…)", "JSON values")
        expect(run_config, (RunConfig, NoneType), "start(run_config=…)", "a RunConfig")
        run_config = configured(run_config, startable.execution)
        pipeline = startable.pipeline_of(config)
        manifest = manifest_for(pipeline, startable.input_json(input), run_config, labels=labels)
        plan = self.app.resolver.resolve(manifest)
        named = RunId.random() if key is None else RunId.for_invocation(key)
        wanted = named if run_id is None else RunId(run_id)
        manifest_id = await self.stores.put_manifest(manifest)
        begun = StartRun(manifest, manifest_id, plan, run_config, JsonContext(context or {}), wanted, key)
        if detach:
            self._left.add(wanted)
        await self._begin(partial(self._engine.start, self.stores, begun), wanted, drive=not detach)
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
        if detach:
            self._left.add(wanted)
        await self._begin(partial(self._engine.fork, self.stores, fork), wanted, drive=not detach)
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
        if newest not in self._driven:
            self._drive(newest, self._engine.resume(self.stores, newest))
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
        await self._recover_all_but(self._left)
        return self._scheduler.next_millis

    async def _recover_all_but(self, left: Collection[RunId]) -> builtins.list[RunId]:
        await self._scheduler.follow()
        limit = RECOVERIES_MAX + len(self._failures) + len(self._driven) + len(left)
        found = [
            run_id
            for run_id in await self.stores.agenda.due_runs(limit, within_millis=self._waker.ahead_millis)
            if run_id not in self._driven and run_id not in self._failures and run_id not in left
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
        return [*self._driven]

    async def drive_result(self, run_id: RunId) -> RunResult:
        """How driving the run here ends: with its end, or with what it waits for. Raises what stopped it."""
        task = self._driven.get(run_id) or self._driven.get(await self.stores.newest_leg(run_id))
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
        steps = pipeline_of(manifest)[0].steps
        known = {(str(each.op_id), str(each.op_version)): each for each in self.app.ops}
        wanted = ((str(step.op_id), str(step.op_version)) for step in steps)
        return declared_signals(known[each] for each in wanted if each in known)

    async def tell(self, run_id: RunId, letter: AnyLetter, letter_id: str | None = None) -> bool:
        """Post a letter to a run, and have it read if nobody drives the run.

        False if a letter of this id waits to be read already. Raises before anything is written:
        ``CanonicalJsonError``, ``NotFoundError`` (``run_not_found``), ``ConcurrencyError``
        (``run_already_terminal``), ``RunError`` (``letter_invalid``).
        """
        posted = await self._engine.send(self.stores, run_id, letter, letter_id or str(uuid.uuid4()))
        self._waker.nudge()
        if isinstance(letter, StopLetter) and run_id not in self._driven:
            # Nobody may be there to wake a parked run, and nothing has to be executed to end it.
            try:
                await self._engine.resume(self.stores, run_id, runs_handlers=False)
            except (InvalidPlanError, ConcurrencyError) as error:
                logging.getLogger("perdure").debug("run %s is left to whoever drives it: %s", run_id, error)
            self._notify(run_id)
        return posted

    async def aclose(self) -> None:
        """Interrupt what is driven here, resumable, and let go of transports and stores."""
        self._is_closed = True
        tasks = list(self._driven.values())
        await self._waker.aclose()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for run_id in list(self._changed):
            self._notify(run_id)
        await self.app.transports.aclose()
        if self._closes_stores:
            await self.stores.close()

    async def wait(self, run_id: RunId) -> RunResult:
        """Wait until a run has ended, wherever it is driven; one that goes on as another, until that has.

        Raises what kept this process from driving it on: ``StorageError``, ``InvalidPlanError``; and
        ``NotFoundError`` (``run_not_found``) and ``RunError`` (``client_closed``).
        """
        seen = -1
        asked = run_id = RunId(run_id)
        while True:
            task = self._driven.get(run_id)
            if task is not None:
                await asyncio.wait({task})
                if task.cancelled():
                    raise client_closed(run_id)
            self._refuse_closed_stores(run_id)
            # A run may wait for a month; its history is read again only when it has grown.
            head = await self.stores.events.head_seq(run_id)
            if head != seen:
                seen = head
                view = await read_view(self.stores, run_id)
                if not view.head_seq:
                    raise run_not_found(run_id)
                if view.ended is not None:
                    newest = await self.stores.newest_leg(run_id)
                    if newest == run_id:
                        return RunResult(run_id, view.phase, view.ended.final_snapshot_id)
                    run_id, seen = newest, -1
                    continue
            for each in (run_id, asked):
                if each in self._failures:
                    raise self._failures[each]
            await self._change(run_id)

    async def events_of(self, run_id: RunId, after: int = 0) -> AsyncIterator[EventEnvelope]:
        """A run's events as they are written, from the one after ``after`` on, until the run has ended.

        Raises ``NotFoundError`` (``run_not_found``) and ``RunError`` (``client_closed``).
        """
        run_id = RunId(run_id)
        expect(after, int, "events(after=…)", "the number of an event")
        if after.bit_length() > _SEQ_BITS:
            refuse_call(after, "events(after=…)", "the number of an event")
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

    async def _begin(
        self, begin: Callable[..., Coroutine[Any, Any, RunResult]], run_id: RunId, *, drive: bool
    ) -> None:
        if not drive or run_id in self._driven:
            # Whoever drives the run already goes on; what is asked for is only compared with it.
            await begin(drive=False)
            return
        there = asyncio.Event()
        task = self._drive(run_id, begin(on_begun=there.set))
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
        self._left.discard(run_id)
        task = asyncio.create_task(work, name=f"perdure-run-{run_id}")
        self._driven[run_id] = task
        self._ids[task] = run_id
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[RunResult]) -> None:
        run_id = self._ids.pop(task)
        if self._driven.get(run_id) is task:
            del self._driven[run_id]
        error = None if task.cancelled() else task.exception()
        if not task.cancelled() and error is None and (result := task.result()).waiting_for is not None:
            self._waker.park(result.run_id, result.due_millis)
        if error is not None and not is_driven_elsewhere(error):
            self._failures[run_id] = error
        self._notify(run_id)

    def _wake(self, run_id: RunId) -> None:
        self._dispatcher.take_up(self.stores, run_id)

    async def _resume_here(self, stores: Stores, run_id: RunId) -> RunResult:
        return await self._engine.resume(stores, run_id)

    def _hand_on(self, run_id: RunId, heir: RunId) -> None:
        """Know the run that is driven here as that which it goes on as."""
        task = self._driven.pop(run_id, None)
        if task is not None:
            self._driven[heir] = task
            self._ids[task] = heir

    def _observe(self, run_id: RunId, events: Sequence[tuple[int, Event]]) -> None:
        if (continued := continued_by(events[0][1])) is not None:
            self._hand_on(continued.run_id, run_id)
        self._notify(run_id)
        if any(type(event) is RunCompleted for _, event in events):
            self._waker.nudge()  # others may wait for its end
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
