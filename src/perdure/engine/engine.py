"""The engine: starts runs, resumes them, and drives both through the one loop."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Coroutine, Sequence
from datetime import timedelta
from typing import Any
from weakref import WeakKeyDictionary

from perdure.arguments import expect, expect_duration, expect_many, expect_methods, expect_unless_none
from perdure.clock import Clock, SystemClock
from perdure.engine.dispatch import MAX_CONCURRENCY, Dispatcher, LocalDispatcher
from perdure.engine.driving import Driving, Tools
from perdure.engine.forking import ForkRun, planned_fork
from perdure.engine.letters import AnyLetter, LetterWatch, send
from perdure.engine.ownership import KEEPER, ClaimKeeper
from perdure.engine.prepared import PreparedRuns
from perdure.engine.recovery import PlanResolver, read_view
from perdure.engine.results import RunResult, result_of
from perdure.engine.starting import Beginning, StartRun, planned_start
from perdure.engine.writer import Observer
from perdure.errors import (
    ConcurrencyError,
)
from perdure.failpoints import NO_FAILPOINTS, Failpoints
from perdure.ids import RunId
from perdure.io.port import TransportFactory
from perdure.io.router import TransportRouter, expect_factory
from perdure.model.events import Event
from perdure.secrets import EnvironmentSecrets, SecretResolver, SecretSource
from perdure.stores.bundle import Stores
from perdure.stores.refusals import run_not_found

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
        router = TransportRouter() if transports is None else TransportRouter.around(transports)
        self._dispatcher = dispatcher or LocalDispatcher(self._resume_child, max_concurrency)
        self._prepared = PreparedRuns()
        self._watches: WeakKeyDictionary[Stores, LetterWatch] = WeakKeyDictionary()
        self._failpoints = failpoints or NO_FAILPOINTS
        self._observer = observer
        self._tools = Tools(
            owner=f"engine-{uuid.uuid4()}",
            keeper=claim_keeper or KEEPER,
            clock=clock or SystemClock(),
            resolver=resolver,
            dispatcher=self._dispatcher,
            prepared=self._prepared,
            make_transport=router.make,
            secrets=SecretResolver((EnvironmentSecrets(),) if secrets is None else secrets),
            park_after=park_after,
            max_child_depth=max_child_depth,
            watch=self._watch,
            send=self.send,
            resume=self._hear,
        )

    async def start(
        self,
        stores: Stores,
        run: StartRun,
        *,
        drive: bool = True,
        on_begun: Callable[[], None] | None = None,
    ) -> RunResult:
        """Start a run and drive it until it ends or is parked.

        Nothing is written before everything was checked. Raises ``InvalidPlanError``, ``StorageError``
        and ``ContextError``; a failing handler is no error here but a run that ``Failed``.

        Without ``drive`` the run is only begun, for whoever resumes it. ``on_begun`` is called when the run
        is durably there, perhaps more than once.
        """
        expect(stores, Stores, "start(stores, …)", "Stores")
        expect(run, StartRun, "start(…, run)", "a StartRun")
        beginning = await planned_start(stores, run)
        return await self._begin(stores, beginning, on_begun, drive=drive)

    async def fork(
        self,
        stores: Stores,
        fork: ForkRun,
        *,
        drive: bool = True,
        on_begun: Callable[[], None] | None = None,
    ) -> RunResult:
        """Begin a run where another one entered a state, and drive it, as :meth:`start` does.

        Raises as :meth:`start`; ``NotFoundError`` (``run_not_found``, ``fork_state_not_reached``) and
        ``InvalidPlanError`` (``fork_states_not_in_plan``, ``fork_order_changed``, ``fork_key_unknown``,
        ``fork_key_twice``).
        """
        expect(stores, Stores, "fork(stores, …)", "Stores")
        expect(fork, ForkRun, "fork(…, fork)", "a ForkRun")
        beginning = await planned_fork(stores, fork, self._tools.resolver)
        return await self._begin(stores, beginning, on_begun, drive=drive)

    def _begin(
        self, stores: Stores, beginning: Beginning, on_begun: Callable[[], None] | None, *, drive: bool
    ) -> Coroutine[Any, Any, RunResult]:
        """Begin a run, or go on with the one that its invocation key has begun before."""
        # A random id is new; were it not, the first commit would be refused.
        begin = self._begin_named if beginning.is_named else self._begin_new
        return begin(stores, beginning, on_begun, drive=drive)

    def _begin_new(
        self, stores: Stores, beginning: Beginning, on_begun: Callable[[], None] | None, *, drive: bool
    ) -> Coroutine[Any, Any, RunResult]:
        observer = _observing(self._observer, on_begun)
        return self._driving(stores, self._failpoints).begin(beginning, drive=drive, first_observer=observer)

    async def _begin_named(
        self, stores: Stores, beginning: Beginning, on_begun: Callable[[], None] | None, *, drive: bool
    ) -> RunResult:
        run_id = beginning.run_id
        if not await stores.events.head_seq(run_id):
            try:
                return await self._begin_new(stores, beginning, on_begun, drive=drive)
            except ConcurrencyError as error:
                if error.code != "run_already_active" or not await stores.events.head_seq(run_id):
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
        if on_begun is not None:
            on_begun()
        return await self._attach(stores, run_id, drive=drive)

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

    async def _hear(self, stores: Stores, run_id: RunId) -> RunResult:
        return await self.resume(stores, run_id, runs_handlers=False)

    async def _resume_child(self, stores: Stores, run_id: RunId) -> RunResult:
        return await self._resume(stores, run_id, self._failpoints.for_children())

    async def _resume(
        self, stores: Stores, run_id: RunId, failpoints: Failpoints, *, runs_handlers: bool = True
    ) -> RunResult:
        run_id = RunId(run_id)
        if not await stores.events.head_seq(run_id):
            raise run_not_found(run_id)
        driving = self._driving(stores, failpoints)
        return await driving.resume(run_id, runs_handlers=runs_handlers)

    async def _attach(self, stores: Stores, run_id: RunId, *, drive: bool) -> RunResult:
        """The run that an invocation key already names, driven on if nobody drives it."""
        if drive:
            try:
                return await self.resume(stores, run_id)
            except ConcurrencyError as error:
                if error.code != "run_already_active":
                    raise
        newest = await stores.newest_leg(run_id)
        return result_of(newest, await read_view(stores, newest))

    def _driving(self, stores: Stores, failpoints: Failpoints) -> Driving:
        return Driving(self._tools, stores, failpoints, self._observer)


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


def _observing(observer: Observer | None, on_begun: Callable[[], None] | None) -> Observer | None:
    if on_begun is None:
        return observer

    def observe(run_id: RunId, events: Sequence[tuple[int, Event]]) -> None:
        on_begun()
        if observer is not None:
            observer(run_id, events)

    return observe
