"""Driving one run: claiming it, making what it is driven with, and going on with its next legs."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from datetime import timedelta

import msgspec

from perdure.clock import Clock
from perdure.engine.children import Children
from perdure.engine.decide import PlannedRun
from perdure.engine.dispatch import Dispatcher
from perdure.engine.executing import Hands
from perdure.engine.history import RunView
from perdure.engine.legs import Legs
from perdure.engine.letters import AnyLetter, LetterWatch
from perdure.engine.loop import Stint
from perdure.engine.ownership import ClaimKeeper, HeldClaim, let_go
from perdure.engine.prepared import PreparedRuns
from perdure.engine.recovery import PlanResolver, checked_plan, read_manifest, read_view
from perdure.engine.replaying import replay_source
from perdure.engine.results import RunResult, result_of
from perdure.engine.side_by_side import SideBySide
from perdure.engine.starting import Beginning
from perdure.engine.unplanned import NO_PLAN, is_terminated
from perdure.engine.writer import Observer, RunWriter
from perdure.errors import ConcurrencyError, CorruptionError, InvalidPlanError, NotFoundError
from perdure.failpoints import Failpoints, FailpointStop
from perdure.ids import RunId
from perdure.io.port import Transport, TransportEnv
from perdure.io.world import World
from perdure.model.config import RunManifest
from perdure.model.events import RunPhase
from perdure.secrets import SecretResolver
from perdure.stores.bundle import Stores
from perdure.stores.uninterrupted import uninterrupted


class Tools(msgspec.Struct, frozen=True, kw_only=True):
    """What an engine drives its runs with.

    ``send`` posts a letter to a run, and ``resume`` has one take note of its letters: both are for the
    children of runs.
    """

    owner: str
    keeper: ClaimKeeper
    clock: Clock
    resolver: PlanResolver
    dispatcher: Dispatcher
    prepared: PreparedRuns
    make_transport: Callable[[TransportEnv], Transport]
    secrets: SecretResolver
    park_after: timedelta
    max_child_depth: int
    watch: Callable[[Stores], LetterWatch]
    send: Callable[[Stores, RunId, AnyLetter, str], Awaitable[bool]]
    resume: Callable[[Stores, RunId], Awaitable[RunResult]]


class Driving:
    """One piece of work: a run, and the runs as which it goes on. What it has claimed it lets go at its end.

    It begins a run or resumes one, once. ``observer`` is told of every durable write.
    """

    def __init__(
        self, tools: Tools, stores: Stores, failpoints: Failpoints, observer: Observer | None
    ) -> None:
        self._tools = tools
        self._stores = stores
        self._failpoints = failpoints
        self._observer = observer
        self._holding: list[HeldClaim] = []
        """Claims, the one of the run that is driven last."""

    async def begin(self, beginning: Beginning, *, drive: bool, first_observer: Observer | None) -> RunResult:
        """Begin a run that nobody has begun; ``run_already_active`` if somebody does meanwhile.

        Until it goes on as another run ``first_observer`` is told what happens.
        """
        run_id = beginning.run_id
        try:
            await self._claim(run_id)
            view = RunView(started_millis=self._tools.clock.now_millis())
            stint = await self._stint(run_id, view, beginning.plan, beginning.manifest, first_observer)
            stint.begin(beginning)
            if drive:
                result = await self._drive(stint, run_id, view)
                return await self._follow(stint, result)
            await stint.leave()
            return result_of(run_id, view)
        finally:
            await let_go(self._holding, self._tools.keeper)

    async def resume(self, run_id: RunId, *, runs_handlers: bool) -> RunResult:
        """Drive a run on, or the newest leg of one that has gone on as another; as ``Engine.resume``."""
        stores = self._stores
        try:
            await self._claim(run_id)
            view = await read_view(stores, run_id)
            if view.continued_as is not None and (newest := await stores.newest_leg(run_id)) != run_id:
                await let_go([self._holding.pop()], self._tools.keeper)
                self._tools.dispatcher.hand_on(stores, run_id, newest)
                await self._claim(newest)
                run_id, view = newest, await read_view(stores, newest)
            stint, result = await self._resume_leg(run_id, view, runs_handlers=runs_handlers)
            return await self._follow(stint, result)
        finally:
            await let_go(self._holding, self._tools.keeper)

    async def _resume_leg(
        self, run_id: RunId, view: RunView, *, runs_handlers: bool = True
    ) -> tuple[Stint | None, RunResult]:
        """Drive a run on that is the last one claimed; no stint if it has ended."""
        stores = self._stores
        prepared = self._tools.prepared.take(run_id)
        try:
            manifest, plan = await checked_plan(stores, view, self._tools.resolver, prepared)
        except InvalidPlanError:
            if view.started is None or not await is_terminated(stores, run_id, view):
                raise
            manifest, plan = await read_manifest(stores, view.started.manifest_id), NO_PLAN
        if view.ended is not None:
            return None, result_of(run_id, view)
        stint = await self._stint(run_id, view, plan, manifest, self._observer)
        if prepared is not None:
            stint.know(prepared.initial)
        return stint, await self._drive(stint, run_id, view, runs_handlers=runs_handlers, has_mail=True)

    async def _follow(self, stint: Stint | None, result: RunResult) -> RunResult:
        """Drive the legs as which a run goes on, one after the other; the last one's result."""
        tools = self._tools
        while stint is not None and (leg := stint.legs.next) is not None:
            tools.dispatcher.hand_on(self._stores, result.run_id, leg.run_id)
            tools.prepared.keep(leg.run_id, leg.prepared)
            tools.keeper.drop(self._holding.pop(0))  # given up in the commit that began the leg
            view = await read_view(self._stores, leg.run_id)
            stint, result = await self._resume_leg(leg.run_id, view)
        return result

    async def _claim(self, run_id: RunId) -> HeldClaim:
        claims, keeper = self._stores.claims, self._tools.keeper
        claim = await claims.acquire(run_id, self._tools.owner, keeper.ttl)
        held = HeldClaim(claim, claims, self._tools.clock, keeper.ttl)
        keeper.keep(held)
        self._holding.append(held)
        return held

    async def _stint(
        self,
        run_id: RunId,
        view: RunView,
        plan: PlannedRun,
        manifest: RunManifest,
        observer: Observer | None,
    ) -> Stint:
        """The work on a run that is the last one claimed."""
        tools, stores, config = self._tools, self._stores, manifest.run_config
        writer = RunWriter(stores, run_id, view, self._holding[-1], self._failpoints, observer)
        replay = await replay_source(stores, run_id, view, config)
        legs = Legs(
            run_id,
            stores.events,
            writer,
            manifest,
            tools.resolver,
            self._claim,
            is_replayed=replay is not None,
        )
        children = self._children_of(run_id, view)
        world = World(
            stores,
            writer,
            tools.make_transport,
            tools.secrets,
            tools.clock,
            self._failpoints,
            tools.park_after,
            children,
        )
        hands = Hands(run_id, writer, plan, config, world, replay, children, legs)
        return (Stint if plan.joins is None else SideBySide)(hands, tools.watch(stores))

    def _children_of(self, run_id: RunId, view: RunView) -> Children:
        tools = self._tools
        return Children(
            self._stores,
            view,
            run_id,
            tools.resolver,
            tools.dispatcher,
            tools.max_child_depth,
            tools.prepared,
            self._send,
            self._rouse,
        )

    async def _send(self, child: RunId, letter: AnyLetter, letter_id: str) -> bool:
        return await self._tools.send(self._stores, child, letter, letter_id)

    async def _rouse(self, child: RunId) -> None:
        try:
            await self._tools.resume(self._stores, child)
        except (InvalidPlanError, ConcurrencyError, NotFoundError, CorruptionError) as error:
            logging.getLogger("perdure").debug("run %s is left to whoever drives it: %s", child, error)

    async def _drive(
        self,
        stint: Stint,
        run_id: RunId,
        view: RunView,
        *,
        runs_handlers: bool = True,
        has_mail: bool = False,
    ) -> RunResult:
        dispatcher = self._tools.dispatcher
        stint.take_up(runs_handlers=runs_handlers, has_mail=has_mail)
        try:
            await stint.take_steps(runs_handlers=runs_handlers)
        except FailpointStop:
            await dispatcher.withdraw(self._stores, run_id)
            # What is staged is in the view, but was not written.
            return RunResult(run_id, RunPhase.RUNNING, view.checkpoint)
        except BaseException as error:
            try:
                if isinstance(error, (asyncio.CancelledError, KeyboardInterrupt)):
                    await stint.interrupt()
            finally:
                await uninterrupted(dispatcher.withdraw(self._stores, run_id))
            raise
        finally:
            stint.lay_down()
        return result_of(run_id, view, stint.waiting)
