"""Random families of runs, and a world in which several processes drive them, stop and die."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from datetime import timedelta
from itertools import pairwise
from typing import Any

import msgspec

from perdure import (
    ArtifactId,
    Context,
    DomainEvent,
    Engine,
    ErrorCategory,
    ErrorInfo,
    ExecutionPlan,
    Failpoints,
    IoCall,
    IoProvider,
    OpId,
    PerdureError,
    Recorder,
    RetryPolicy,
    RunConfig,
    RunManifest,
    RunResult,
    StateError,
    StateGraph,
    StateId,
    StateNode,
    Stores,
    TransportEnv,
)
from perdure.engine.history import RunView, fold
from perdure.engine.letters import SignalLetter, StopLetter, StopWord
from perdure.engine.recovery import read_view
from perdure.errors import Json
from perdure.ids import RunId
from perdure.io.children import ClosePolicy
from perdure.model.events import (
    RUN_CANCEL_REQUESTED,
    RUN_PAUSED,
    RUN_UNPAUSED,
    EventEnvelope,
    RunPhase,
    StateEntered,
)
from perdure.model.plan import DependencyEdge
from perdure.stores.ports import Claim
from perdure.stores.sharing import SharedArtifacts
from tests.families import await_child, spawn, start_of, turns
from tests.support import InstantClock, Scripted
from tests.waiting import Died, Gate, StillKeeper

ROOT_ID = RunId("00000000-0000-0000-0000-00000000000a")
ENOUGH_SECONDS = 10
FOR_EVER = timedelta(days=3650)
CONFIG = RunConfig(retry_policy=RetryPolicy(2), recovery_limit=1000)


End = tuple[RunPhase, ArtifactId | None]
"""How a run ended, and its last snapshot."""


class Member(msgspec.Struct, frozen=True):
    """A run of a family: what its states do, and how often the last one fails before it succeeds."""

    actions: tuple[tuple[str, ...], ...]
    children: tuple[Link, ...] = ()
    failures: int = 0
    is_retryable: bool = True


class Link(msgspec.Struct, frozen=True):
    """A child of a run: when it is spawned and, under how many keys, awaited."""

    child: Member
    policy: ClosePolicy
    spawned_in: int
    awaited_in: int | None
    awaits: int = 1


class Clock(InstantClock):
    """Every sleep is over in a few turns."""

    async def sleep_until(self, due_millis: int) -> None:
        await turns(3)
        await super().sleep_until(due_millis)


class Claims:
    """A store, and the claims that were had of it."""

    def __init__(self, store: Any) -> None:
        self._store = store
        self._had: list[Claim] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    async def acquire(self, run_id: RunId, owner: str, ttl: timedelta) -> Claim:
        """As ``ClaimStore.acquire``."""
        claim: Claim = await self._store.acquire(run_id, owner, ttl)
        self._had.append(claim)
        return claim

    async def release_all(self) -> None:
        """What the operating system does with the locks of the dead."""
        for claim in self._had:
            await self._store.release(claim)


class Process:
    """Stores of the place, and the engine that works there."""

    def __init__(self, store: Any) -> None:
        self.claims = Claims(store)
        self.gate = Gate(self.claims)
        any_store: Any = self.gate
        shared = SharedArtifacts(any_store)
        self.stores = Stores(any_store, shared, any_store, shared, mailbox=any_store, agenda=any_store)
        self.engine: Engine | None = None


class Trees:
    """A place with processes, and one family that lives there. ``open_store`` gives the place's store."""

    namespace_group = "test"

    def __init__(
        self, root: Member, open_store: Callable[[Clock], Any], places: int = 100, processes: int = 2
    ) -> None:
        self.clock = Clock()
        self.members: dict[str, tuple[Member, RunId]] = {}
        self.parents: dict[RunId, RunId] = {}
        self._number(root, "m", ROOT_ID)
        self._places = places
        self._open_store = open_store
        self.processes = [self._process() for _ in range(processes)]
        self.stores = self._process().stores
        """Those of an onlooker, who does not die."""
        self.told: dict[RunId, set[str]] = {}
        """The ids of the letters that were sent to a run itself."""
        self.asked: list[str] = []
        self.asked_again: list[str] = []

    def _number(self, member: Member, name: str, run_id: RunId) -> None:
        self.members[name] = member, run_id
        for index, link in enumerate(member.children):
            child_id = run_id.child(f"spawn:{index}")
            self.parents[child_id] = run_id
            self._number(link.child, f"{name}{index}", child_id)

    def _process(self) -> Process:
        return Process(self._open_store(self.clock))

    def engine_of(self, process: Process, failpoint: str | None = None) -> Engine:
        """The process's engine, a new one if it is to stop somewhere."""
        if process.engine is None or failpoint is not None:
            process.engine = Engine(
                self,
                self,
                Failpoints.parse([] if failpoint is None else [f"{failpoint}=stop"]),
                self.clock,
                claim_keeper=StillKeeper(FOR_EVER),
                max_concurrency=self._places,
            )
        return process.engine

    def make(self, env: TransportEnv) -> Trees:
        """As a factory of transports."""
        return self

    async def call(self, call: IoCall) -> Json:
        """Answer, and take note if the answer was recorded before."""
        name = str(call.fact_key)
        await turns(2)
        self.asked.append(name)
        _, run_id = self.members[name.split(":", maxsplit=1)[0]]
        if name in (await read_view(self.stores, run_id)).facts:
            self.asked_again.append(name)
        return {"answer": name}

    def resolve(self, manifest: RunManifest) -> ExecutionPlan:
        """As a resolver: an operation is a member's name."""
        name = str(manifest.op_id)
        member, _ = self.members[name]
        ids = [StateId(f"{name}.main.s{number}") for number in range(len(member.actions))]
        nodes = [
            StateNode(state_id, Scripted(self._state(name, number))) for number, state_id in enumerate(ids)
        ]
        edges = [DependencyEdge(before, after) for before, after in pairwise(ids)]
        return ExecutionPlan(OpId(name), StateGraph(nodes, edges))

    def _state(self, name: str, number: int) -> Callable[[Context, IoProvider, Recorder], Any]:
        member, run_id = self.members[name]

        async def handle(ctx: Context, io: IoProvider, rec: Recorder) -> None:
            for index, action in enumerate(member.actions[number]):
                await self._act(f"{name}:{number}{index}", action, ctx, io, rec)
            for index, link in enumerate(member.children):
                if link.spawned_in == number:
                    policy = {"close_policy": link.policy.value, "run_config": CONFIG.to_json()}
                    spawned = await spawn(io, f"spawn:{index}", f"{name}{index}", **policy)
                    ctx.write(f"child{index}", spawned)
            awaits = [
                self._await(f"{index}{nth}", ctx.read(f"child{index}"), ctx, io)
                for index, link in enumerate(member.children)
                if link.awaited_in == number
                for nth in range(link.awaits)
            ]
            await asyncio.gather(*awaits)
            if number == len(member.actions) - 1 and await self._own_failures(run_id, name) < member.failures:
                raise StateError(ErrorInfo("flaky", ErrorCategory.UNKNOWN, member.is_retryable))

        return handle

    async def _await(self, key: str, spawned: Json, ctx: Context, io: IoProvider) -> None:
        ctx.write(f"end{key}", await await_child(io, f"await:{key}", spawned))

    async def _act(self, key: str, action: str, ctx: Context, io: IoProvider, rec: Recorder) -> None:
        if action == "call":
            ctx.write(key, (await io.call(IoCall("test", key, fact_key=key))).response)
        elif action == "nap":
            await io.sleep(timedelta(seconds=2))
        elif action == "sleep":
            await io.sleep(timedelta(hours=1))
        elif action == "signal":
            signal = await io.wait_signal("go")
            ctx.write(key, signal and signal.value)
        else:
            await rec.emit(DomainEvent("told", {"by": key}))

    async def _own_failures(self, run_id: RunId, name: str) -> int:
        states = (await read_view(self.stores, run_id)).states
        return max((progress.own_failures for progress in states.values()), default=0)

    async def drive(
        self, which: int, run_id: RunId = ROOT_ID, failpoint: str | None = None
    ) -> RunResult | None:
        """Start the root, or resume a run; None if the process died, or another one drives the run."""
        process = self.processes[which]
        engine = self.engine_of(process, failpoint)
        try:
            if run_id == ROOT_ID and not await self.stores.events.head_seq(run_id):
                run = await start_of(self.stores, self, "m", config=CONFIG, run_id=run_id)
                return await asyncio.wait_for(engine.start(process.stores, run), ENOUGH_SECONDS)
            return await asyncio.wait_for(engine.resume(process.stores, run_id), ENOUGH_SECONDS)
        except Died:
            return None
        except PerdureError as error:
            if error.code not in ("run_already_active", "run_already_exists", "run_not_found"):
                raise
            return None

    async def settle(self) -> None:
        """Wait until nobody drives anything any more."""
        while running := [task for task in asyncio.all_tasks() if task.get_name().startswith("perdure-run")]:
            done, _ = await asyncio.wait(running, timeout=ENOUGH_SECONDS)
            assert done, "a child run hangs"

    async def bury(self) -> None:
        """Have new processes take the place of the dead."""
        for which, process in enumerate(self.processes):
            if process.gate.is_closed:
                await process.claims.release_all()
                self.processes[which] = self._process()

    async def histories(self) -> dict[RunId, list[EventEnvelope]]:
        """All runs."""
        run_ids = await self.stores.events.list_runs(limit=1000)
        return {run_id: await self.stores.events.read_range(run_id, 1) for run_id in run_ids}

    async def views(self) -> dict[RunId, RunView]:
        """Where they stand."""
        return {run_id: fold(history) for run_id, history in (await self.histories()).items()}

    async def drive_to_end(self, order: Sequence[int] = ()) -> dict[RunId, End]:
        """Bring everything that is waited for until all runs have ended; how they did.

        ``order`` says which of those that are due is next, and who drives it.
        """
        for turn in range(500):
            await self.settle()
            await self.bury()
            choice = order[turn % len(order)] if order else 0
            if not await self.stores.events.head_seq(ROOT_ID):
                await self.drive(0)
                continue
            due = sorted(await self.stores.agenda.due_runs(1000))
            if due:
                await self.drive(choice % len(self.processes), due[choice % len(due)])
                continue
            unfinished = await self.stores.events.list_runs(limit=1000, unfinished=True)
            if not unfinished:
                views = await self.views()
                return {run_id: (view.phase, view.checkpoint) for run_id, view in views.items()}
            if self.told:
                check_told(await self.views())
            sent = [await self._bring(run_id) for run_id in sorted(unfinished)]
            next_due = await self.stores.agenda.next_due_millis()
            if not any(sent):
                assert next_due is not None, "everybody waits, and nobody is due"
                self.clock.millis = max(self.clock.millis, next_due)
        raise AssertionError("the family does not end")

    async def tell(self, which: int, run_id: RunId, how: StopWord, letter_id: str) -> None:
        """Have a process send a run a letter, unless the run has ended, or is not there yet."""
        process = self.processes[which]
        try:
            sending = self.engine_of(process).send(
                process.stores, run_id, StopLetter(how, "ann", "enough"), letter_id
            )
            await asyncio.wait_for(sending, ENOUGH_SECONDS)
        except Died:
            pass
        except PerdureError as error:
            if error.code not in ("run_already_terminal", "run_not_found"):
                raise

    async def _bring(self, run_id: RunId) -> bool:
        """What a run waits for; but who was paused with its parent goes on with it too."""
        view = await read_view(self.stores, run_id)
        if view.pause is not None and view.is_paused and view.pause.letter_id in self.told.get(run_id, ()):
            letter_id = f"after {view.pause.letter_id}"
            self.told[run_id].add(letter_id)
            await self.tell(0, run_id, "unpause", letter_id)
            return True
        if view.waiting_for is None or "signal" not in view.waiting_for:
            return False
        number = len(view.inbox.arrived.get("go", []))
        letter = SignalLetter("go", {"number": number}, "ann")
        return await self.engine_of(self.processes[0]).send(self.stores, run_id, letter, f"go {number}")


def check_families(views: dict[RunId, RunView]) -> None:
    """A child has its link, a link its child, and who has ended has ended after its children."""
    for run_id, view in views.items():
        assert view.started is not None
        parent = view.started.parent
        if parent is not None:
            assert run_id in views[parent.run_id].children, "a child without its link"
        for child in view.children.values():
            assert child.run_id in views, "a link without its child"
            ended = views[child.run_id].ended
            assert ended or not child.has_ended, "the link of a child that has not ended says that it has"
            if view.ended is not None and child.close_policy is ClosePolicy.AWAIT:
                is_terminated = view.cancel is not None and view.cancel.terminates
                assert child.has_ended or is_terminated, "a parent has ended before its child"


def check_letters(histories: dict[RunId, list[EventEnvelope]], told: dict[RunId, set[str]]) -> None:
    """A letter is read once; a run reads its own, and what its parent read unless it was abandoned.

    A paused run enters no state.
    """
    views = {run_id: fold(history) for run_id, history in histories.items()}
    for run_id, history in histories.items():
        started = views[run_id].started
        parent = None if started is None or started.parent is None else started.parent.run_id
        policy = None if parent is None else views[parent].children[run_id].close_policy
        may_read = set(told.get(run_id, ()))
        if parent is not None and policy is not ClosePolicy.ABANDON:
            may_read |= views[parent].inbox.letters
        if policy is ClosePolicy.CANCEL and parent is not None and views[parent].ended is not None:
            may_read.add(f"{parent}:ended")
        read = [
            each.event.payload["id"]
            for each in history
            if isinstance(each.event, DomainEvent) and each.event.name in STOPS
        ]
        assert len(set(read)) == len(read), "a letter is read twice"
        assert set(read) <= may_read, "a run is told what does not concern it"
        view = RunView()
        for each in history:
            assert not (isinstance(each.event, StateEntered) and view.is_paused)
            view.advance(each.event, each.seq)
        assert (view.phase is RunPhase.CANCELLED) <= (view.cancel is not None)


STOPS = (RUN_CANCEL_REQUESTED, RUN_PAUSED, RUN_UNPAUSED)


def check_told(views: dict[RunId, RunView]) -> None:
    """When nobody has anything to do: who was spawned before its parent was stopped is stopped too."""
    for view in views.values():
        for child in view.children.values():
            own = views[child.run_id]
            if own.ended is not None or child.close_policy is ClosePolicy.ABANDON:
                continue
            if view.cancel is not None and child.spawned_seq < view.cancel.reach_seq:
                assert own.cancel is not None, "a child is not told of its parent's end"
                assert own.cancel.terminates >= view.cancel.terminates
            elif view.pause is not None and child.spawned_seq < view.pause.reach_seq:
                assert own.pause is not None or own.cancel is not None, "a child is not told to pause"
