"""The engine: starts runs, resumes them, and drives both through the one loop."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable, Sequence
from datetime import timedelta
from weakref import WeakKeyDictionary

from perdure.arguments import expect, expect_duration, expect_many, expect_methods, expect_unless_none
from perdure.clock import Clock, SystemClock
from perdure.engine.children import Children
from perdure.engine.decide import Pause, PlannedRun
from perdure.engine.dispatch import MAX_CONCURRENCY, Dispatcher, LocalDispatcher
from perdure.engine.executing import Hands
from perdure.engine.forking import ForkRun, planned_fork
from perdure.engine.history import RunView
from perdure.engine.legs import Legs
from perdure.engine.letters import AnyLetter, LetterWatch, send
from perdure.engine.loop import Stint
from perdure.engine.ownership import KEEPER, ClaimKeeper, HeldClaim
from perdure.engine.prepared import PreparedRuns
from perdure.engine.recovery import PlanResolver, checked_plan, read_manifest, read_view
from perdure.engine.replaying import replay_source
from perdure.engine.results import RunResult
from perdure.engine.side_by_side import SideBySide
from perdure.engine.starting import Beginning, StartRun, checked_manifest, run_id_of
from perdure.engine.unplanned import NO_PLAN, is_terminated
from perdure.engine.writer import Observer, RunWriter
from perdure.errors import (
    ConcurrencyError,
    CorruptionError,
    InvalidPlanError,
    NotFoundError,
    StorageError,
)
from perdure.failpoints import Failpoints, FailpointStop
from perdure.ids import RunId
from perdure.io.port import TransportFactory
from perdure.io.router import TransportRouter, expect_factory
from perdure.model.config import RunManifest
from perdure.model.context import Snapshot
from perdure.model.events import ArtifactKind, Event, RunPhase, RunStarted
from perdure.secrets import EnvironmentSecrets, SecretResolver, SecretSource
from perdure.stores.bundle import Stores
from perdure.stores.ports import Blob, snapshot_blob
from perdure.stores.uninterrupted import uninterrupted

PARK_AFTER = timedelta(seconds=5)
MAX_CHILD_DEPTH = 16


class Engine:
    """Drives runs. One engine serves any number of runs and stores at once.

    ``transports`` is a router or a single factory; without one, live calls are ``io_unimplemented``.
    ``observer`` is called after every durable write with the run's new events. ``secrets`` are the sources of
    named secrets, asked in order; the environment unless given. A run that has to wait for longer than
    ``park_after``, or for an outsider, is parked. Child runs are executed by ``dispatcher``, or here,
    ``max_concurrency`` at a time; children of children may go ``max_child_depth`` deep.
    """

    def __init__(
        self,
        resolver: PlanResolver,
        transports: TransportFactory | None = None,
        failpoints: Failpoints | None = None,
        clock: Clock | None = None,
        observer: Observer | None = None,
        claim_keeper: ClaimKeeper | None = None,
        secrets: Sequence[SecretSource] | None = None,
        park_after: timedelta = PARK_AFTER,
        dispatcher: Dispatcher | None = None,
        max_concurrency: int = MAX_CONCURRENCY,
        max_child_depth: int = MAX_CHILD_DEPTH,
    ) -> None:
        _expect_collaborators(resolver, transports, failpoints, clock, observer, claim_keeper, secrets)
        expect_duration(park_after, "Engine(park_after=…)")
        expect(max_concurrency, int, "Engine(max_concurrency=…)", "a number")
        expect(max_child_depth, int, "Engine(max_child_depth=…)", "a number")
        self._resolver = resolver
        self._dispatcher = dispatcher or LocalDispatcher(self._resume_child, max_concurrency)
        self._max_child_depth = max_child_depth
        self._park_after = park_after
        self._prepared = PreparedRuns()
        self._watches: WeakKeyDictionary[Stores, LetterWatch] = WeakKeyDictionary()
        self._transports = transports
        self._failpoints = failpoints or Failpoints()
        self._clock = clock or SystemClock()
        self._observer = observer
        self._keeper = claim_keeper or KEEPER
        self._secrets = SecretResolver((EnvironmentSecrets(),) if secrets is None else secrets)
        self._owner = f"engine-{uuid.uuid4()}"

    async def start(
        self,
        stores: Stores,
        run: StartRun,
        *,
        drive: bool = True,
        on_begun: Callable[[], None] = lambda: None,
    ) -> RunResult:
        """Start a run and drive it until it ends or is parked.

        Nothing is written before everything was checked. Raises ``InvalidPlanError``, ``StorageError``
        and ``ContextError``; a failing handler is no error here but a run that ``Failed``.

        Without ``drive`` the run is only begun, for whoever resumes it. ``on_begun`` is called when the run
        is durably there, perhaps more than once.
        """
        expect(stores, Stores, "start(stores, …)", "Stores")
        expect(run, StartRun, "start(…, run)", "a StartRun")
        manifest_bytes = checked_manifest(run)
        try:
            stored_bytes = await stores.artifacts.get(run.manifest_id)
        except NotFoundError:
            raise NotFoundError.of(
                "manifest_not_found",
                "the manifest is not in the artifact store",
                details={"manifest_id": str(run.manifest_id)},
            ) from None
        if stored_bytes != manifest_bytes:
            raise CorruptionError.of(
                "manifest_artifact_mismatch",
                "the stored manifest is another one",
                details={"manifest_id": str(run.manifest_id)},
            )
        plan = PlannedRun.of(run.plan, run.run_config)
        initial = Snapshot.of_values(run.initial_context.dump())
        beginning = Beginning(
            run_id_of(run.run_id, run.invocation_key),
            run.run_id is not None or run.invocation_key is not None,
            run.invocation_key is not None,
            plan,
            run.manifest,
            RunStarted(run.plan.op_id, run.manifest_id, initial.id),
            (),
            (Blob(ArtifactKind.MANIFEST, manifest_bytes, run.manifest_id), snapshot_blob(initial)),
            initial,
        )
        return await self._begin_once(stores, beginning, on_begun, drive=drive)

    async def fork(
        self,
        stores: Stores,
        fork: ForkRun,
        *,
        drive: bool = True,
        on_begun: Callable[[], None] = lambda: None,
    ) -> RunResult:
        """Begin a run where another one entered a state, and drive it, as :meth:`start` does.

        Raises as :meth:`start`; ``NotFoundError`` (``run_not_found``, ``fork_state_not_reached``) and
        ``InvalidPlanError`` (``fork_states_not_in_plan``, ``fork_order_changed``, ``fork_key_unknown``,
        ``fork_key_twice``).
        """
        expect(stores, Stores, "fork(stores, …)", "Stores")
        expect(fork, ForkRun, "fork(…, fork)", "a ForkRun")
        beginning = await planned_fork(stores, fork, self._resolver)
        return await self._begin_once(stores, beginning, on_begun, drive=drive)

    async def _begin_once(
        self, stores: Stores, beginning: Beginning, on_begun: Callable[[], None], *, drive: bool
    ) -> RunResult:
        """Begin a run, or go on with the one that its invocation key has begun before."""
        run_id, is_named = beginning.run_id, beginning.is_named
        # A random id is new; were it not, the first commit would be refused.
        if not is_named or not await stores.events.head_seq(run_id):
            try:
                return await self._begin(stores, beginning, on_begun, drive=drive)
            except ConcurrencyError as error:
                came_second = error.code == "run_already_active" and await stores.events.head_seq(run_id)
                if not is_named or not came_second:
                    raise
        if not beginning.has_key:
            raise ConcurrencyError.of(
                "run_already_exists", "a run of this id exists", details={"run_id": run_id}
            )
        first = await stores.events.read_range(run_id, 1, 1)
        if not beginning.is_begun_by(first[0].event):
            raise ConcurrencyError.of(
                "invocation_conflict",
                "the invocation key belongs to a run with another manifest or initial context",
                details={"run_id": run_id},
            )
        on_begun()
        return await self._attach(stores, run_id, drive=drive)

    async def _begin(
        self, stores: Stores, beginning: Beginning, on_begun: Callable[[], None], *, drive: bool
    ) -> RunResult:
        """Begin a run that nobody has begun; ``run_already_active`` if somebody does meanwhile."""
        run_id = beginning.run_id
        holding: list[HeldClaim] = []
        try:
            held = await self._claim(stores, run_id, holding)
            view = RunView(started_millis=self._clock.now_millis())
            stint = await self._stint(
                stores,
                run_id,
                held,
                view,
                beginning.plan,
                beginning.manifest,
                holding,
                self._failpoints,
                on_begun,
            )
            stint.begin(beginning)
            if drive:
                result = await self._drive(stores, stint, run_id, view)
                return await self._follow(stores, stint, result, holding, self._failpoints)
            await stint.leave()
            return _result_of(run_id, view)
        finally:
            await self._let_go(holding)

    async def send(self, stores: Stores, run_id: RunId, letter: AnyLetter, letter_id: str) -> bool:
        """Tell a run something; whoever drives it takes note within a second.

        The same ``letter_id`` again changes nothing; False if that letter is still unread. Raises before
        anything is written: ``CanonicalJsonError``, ``RunError`` (``letter_invalid``), ``NotFoundError``
        (``run_not_found``), ``ConcurrencyError`` (``run_already_terminal``).
        """
        run_id = RunId(run_id)
        posted = await send(stores, run_id, letter, letter_id)
        watch = self._watch(stores)
        watch.nudge(run_id if watch.is_watched(run_id) else await stores.newest_leg(run_id))
        return posted

    def _watch(self, stores: Stores) -> LetterWatch:
        watch = self._watches.get(stores)
        if watch is None:
            watch = self._watches[stores] = LetterWatch(stores.mailbox)
        return watch

    async def resume(self, stores: Stores, run_id: RunId, *, runs_handlers: bool = True) -> RunResult:
        """Drive a run on from its recorded history until it ends or is parked.

        Without ``runs_handlers`` it is driven only as far as nothing is executed: its letters become
        events, and a parked run that was cancelled ends. A run that has ended gives its result, and nothing
        is appended. Of a run that goes on as another the newest leg is driven on, and of those that begin
        meanwhile each; the result is the last one's. Raises ``NotFoundError``
        (``run_not_found``), ``ConcurrencyError`` (``run_already_active``), ``InvalidPlanError`` and
        ``CorruptionError``.
        """
        expect(stores, Stores, "resume(stores, …)", "Stores")
        return await self._resume(stores, run_id, self._failpoints, runs_handlers=runs_handlers)

    async def _resume_child(self, stores: Stores, run_id: RunId) -> RunResult:
        return await self._resume(stores, run_id, self._failpoints.for_children())

    async def _resume(
        self, stores: Stores, run_id: RunId, failpoints: Failpoints, *, runs_handlers: bool = True
    ) -> RunResult:
        run_id = RunId(run_id)
        if not await stores.events.head_seq(run_id):
            raise NotFoundError.of("run_not_found", "no such run is kept here", details={"run_id": run_id})
        holding: list[HeldClaim] = []
        try:
            await self._claim(stores, run_id, holding)
            view = await read_view(stores, run_id)
            if view.continued_as is not None and (newest := await stores.newest_leg(run_id)) != run_id:
                await self._let_go([holding.pop()])
                self._dispatcher.hand_on(stores, run_id, newest)
                await self._claim(stores, newest, holding)
                run_id, view = newest, await read_view(stores, newest)
            stint, result = await self._resume_leg(stores, run_id, view, holding, failpoints, runs_handlers)
            return await self._follow(stores, stint, result, holding, failpoints)
        finally:
            await self._let_go(holding)

    async def _resume_leg(
        self,
        stores: Stores,
        run_id: RunId,
        view: RunView,
        holding: list[HeldClaim],
        failpoints: Failpoints,
        runs_handlers: bool = True,
    ) -> tuple[Stint | None, RunResult]:
        """Drive a run on that is the last one claimed; no stint if it has ended."""
        prepared = self._prepared.take(run_id)
        try:
            manifest, plan = await checked_plan(stores, view, self._resolver, prepared)
        except InvalidPlanError:
            if view.started is None or not await is_terminated(stores, run_id, view):
                raise
            manifest, plan = await read_manifest(stores, view.started.manifest_id), NO_PLAN
        if view.ended is not None:
            return None, _result_of(run_id, view)
        stint = await self._stint(stores, run_id, holding[-1], view, plan, manifest, holding, failpoints)
        if prepared is not None:
            stint.know(prepared.initial)
        result = await self._drive(stores, stint, run_id, view, runs_handlers=runs_handlers, has_mail=True)
        return stint, result

    async def _follow(
        self,
        stores: Stores,
        stint: Stint | None,
        result: RunResult,
        holding: list[HeldClaim],
        failpoints: Failpoints,
    ) -> RunResult:
        """Drive the legs as which a run goes on, one after the other; the last one's result."""
        while stint is not None and (leg := stint.legs.next) is not None:
            self._dispatcher.hand_on(stores, result.run_id, leg.run_id)
            self._prepared.keep(leg.run_id, leg.prepared)
            self._keeper.drop(holding.pop(0))  # given up in the commit that began the leg
            view = await read_view(stores, leg.run_id)
            stint, result = await self._resume_leg(stores, leg.run_id, view, holding, failpoints)
        return result

    async def _attach(self, stores: Stores, run_id: RunId, *, drive: bool) -> RunResult:
        """The run that an invocation key already names, driven on if nobody drives it."""
        if drive:
            try:
                return await self.resume(stores, run_id)
            except ConcurrencyError as error:
                if error.code != "run_already_active":
                    raise
        newest = await stores.newest_leg(run_id)
        return _result_of(newest, await read_view(stores, newest))

    async def _claim(self, stores: Stores, run_id: RunId, holding: list[HeldClaim]) -> HeldClaim:
        """A claim on the run, which is then the last of those that are to be let go."""
        claim = await stores.claims.acquire(run_id, self._owner, self._keeper.ttl)
        held = HeldClaim(claim, stores.claims, self._clock, self._keeper.ttl)
        self._keeper.keep(held)
        holding.append(held)
        return held

    async def _let_go(self, holding: Sequence[HeldClaim]) -> None:
        for held in holding:
            self._keeper.drop(held)
        if holding:
            await uninterrupted(_release(holding))

    async def _stint(
        self,
        stores: Stores,
        run_id: RunId,
        held: HeldClaim,
        view: RunView,
        plan: PlannedRun,
        manifest: RunManifest,
        holding: list[HeldClaim],
        failpoints: Failpoints,
        on_begun: Callable[[], None] = lambda: None,
    ) -> Stint:
        async def reserve(heir: RunId) -> HeldClaim:
            return await self._claim(stores, heir, holding)

        def observe(run_id: RunId, events: Sequence[tuple[int, Event]]) -> None:
            on_begun()
            if self._observer is not None:
                self._observer(run_id, events)

        config = manifest.run_config
        writer = RunWriter(stores, run_id, view, held, failpoints, observe)
        replay = await replay_source(stores, run_id, view, config)
        legs = Legs(
            run_id,
            stores.events,
            writer,
            manifest,
            self._resolver,
            reserve,
            is_replayed=replay is not None,
        )
        hands = Hands(
            stores,
            run_id,
            writer,
            plan,
            config,
            TransportRouter() if self._transports is None else self._transports,
            self._secrets,
            self._clock,
            failpoints,
            replay,
            self._park_after,
            self._children_of(stores, run_id, view),
            legs,
        )
        return (Stint if plan.joins is None else SideBySide)(hands, self._watch(stores))

    def _children_of(self, stores: Stores, run_id: RunId, view: RunView) -> Children:
        async def send_letter(child: RunId, letter: AnyLetter, letter_id: str) -> bool:
            return await self.send(stores, child, letter, letter_id)

        async def tell(child: RunId) -> None:
            try:
                await self.resume(stores, child, runs_handlers=False)
            except (InvalidPlanError, ConcurrencyError, NotFoundError, CorruptionError) as error:
                logging.getLogger("perdure").debug("run %s is left to whoever drives it: %s", child, error)

        return Children(
            stores,
            view,
            run_id,
            self._resolver,
            self._dispatcher,
            self._max_child_depth,
            self._prepared,
            send_letter,
            tell,
        )

    async def _drive(
        self,
        stores: Stores,
        stint: Stint,
        run_id: RunId,
        view: RunView,
        *,
        runs_handlers: bool = True,
        has_mail: bool = False,
    ) -> RunResult:
        try:
            await stint.drive(runs_handlers=runs_handlers, has_mail=has_mail)
        except FailpointStop:
            await self._dispatcher.withdraw(stores, run_id)
            # What is staged is in the view, but was not written.
            return RunResult(run_id, RunPhase.RUNNING, view.checkpoint)
        except BaseException:
            await uninterrupted(self._dispatcher.withdraw(stores, run_id))
            raise
        return _result_of(run_id, view, stint.waiting)


def _expect_collaborators(
    resolver: PlanResolver,
    transports: TransportFactory | None,
    failpoints: Failpoints | None,
    clock: Clock | None,
    observer: Observer | None,
    claim_keeper: ClaimKeeper | None,
    secrets: Sequence[SecretSource] | None,
) -> None:
    expect_methods(resolver, ("resolve",), "Engine(resolver=…)", "a resolver of plans")
    if transports is not None:
        expect_factory(transports, "Engine(transports=…)")
    expect_unless_none(failpoints, Failpoints, "Engine(failpoints=…)", "Failpoints")
    if clock is not None:
        expect_methods(
            clock, ("now_millis", "monotonic_seconds", "sleep_until"), "Engine(clock=…)", "a clock"
        )
    if observer is not None and not callable(observer):
        raise TypeError("Engine(observer=…) is to be a function of a run's id and its new events, or None")
    expect_unless_none(claim_keeper, ClaimKeeper, "Engine(claim_keeper=…)", "a ClaimKeeper")
    if secrets is not None:
        for source in expect_many(secrets, object, "Engine(secrets=…)", "sources of secrets"):
            expect_methods(source, ("get",), "each of Engine(secrets=…)", "a source of secrets")


async def _release(holding: Sequence[HeldClaim]) -> None:
    # A claim that the last commit gave up is released already; anything else must not stay behind.
    for held in holding:
        try:
            await held.store.release(held.claim)
        except StorageError:
            logging.getLogger("perdure").warning(
                "run %s could not be released; it is free when its claim expires", held.claim.run_id
            )


def _result_of(run_id: RunId, view: RunView, waiting: Pause | None = None) -> RunResult:
    final = view.checkpoint if view.ended is None else view.ended.final_snapshot_id
    if waiting is None:
        return RunResult(run_id, view.phase, final)
    return RunResult(run_id, view.phase, final, waiting.waiting_for, waiting.until_millis)
