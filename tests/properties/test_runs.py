"""Whatever fails and wherever the process dies, a resumed run ends as an undisturbed one does."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from hypothesis import given, note
from hypothesis import strategies as st

from perdure import (
    Context,
    DomainEvent,
    Engine,
    ErrorCategory,
    ErrorInfo,
    ExecutionPlan,
    IoCall,
    IoProvider,
    Recorder,
    RetryPolicy,
    RunConfig,
    RunId,
    RunPhase,
    RunResult,
    StateError,
    StateMeta,
    StateOutcome,
    Stores,
)
from perdure.engine.history import RunView, fold
from perdure.engine.recovery import read_view
from perdure.errors import Json
from perdure.io.facts import fact_of
from perdure.model.events import FACT_RECORDED, EventEnvelope
from perdure.stores.memory import MemoryState, MemoryStore, memory_stores
from perdure.stores.sharing import SharedArtifacts
from tests.support import (
    CountingTransport,
    FixedResolver,
    InstantClock,
    Scripted,
    plan_of,
    start_run,
    state_id,
)

RUN_ID = RunId("00000000-0000-0000-0000-00000000000a")


class Script:
    """One state of a random machine: what it does, and which of its attempts fail on their own."""

    def __init__(
        self, name: str, actions: Sequence[str], failures: int, retryable: bool, skipped: bool
    ) -> None:
        self.name = name
        self.actions = actions
        self.failures = failures
        self.retryable = retryable
        self.skipped = skipped

    def __repr__(self) -> str:
        marks = ("r" if self.retryable else "f") + "s" * self.skipped
        return f"{self.name}({','.join(self.actions)};{self.failures}{marks})"


class Machine:
    """A random machine. How often a state has failed on its own is the outside world's memory."""

    def __init__(
        self, scripts: Sequence[Script], edges: Sequence[tuple[int, int]], max_attempts: int
    ) -> None:
        self.scripts = scripts
        self.edges = edges
        self.config = RunConfig(
            retry_policy=RetryPolicy(max_attempts), skip_tags=("skipped",), recovery_limit=1000
        )

    def __repr__(self) -> str:
        return f"Machine({self.scripts}, {self.edges}, {self.config.retry_policy.max_attempts})"

    def plan(self, world: World) -> ExecutionPlan:
        def state(script: Script) -> Scripted:
            async def handle(ctx: Context, io: IoProvider, rec: Recorder) -> StateOutcome | None:
                return await self._act(script, world, ctx, io, rec)

            return Scripted(handle, StateMeta(tags=("skipped",) if script.skipped else ()))

        names = [script.name for script in self.scripts]
        return plan_of(
            *[(script.name, state(script)) for script in self.scripts],
            edges=[(names[before], names[after]) for before, after in self.edges],
        )

    async def _act(
        self, script: Script, world: World, ctx: Context, io: IoProvider, rec: Recorder
    ) -> StateOutcome | None:
        for index, action in enumerate(script.actions):
            key = f"{script.name}{index}"
            if action == "write":
                ctx.write(key, {"seen": sorted(ctx.dump())})
            elif action == "delete":
                ctx.delete(f"{script.name}{index - 1}")
            elif action == "call":
                ctx.write(key, (await io.call(IoCall("test", {"of": key}, fact_key=key))).response)
            elif action == "shared":
                ctx.write(key, (await io.call(IoCall("test", "one", fact_key="shared"))).response)
            elif action == "value":
                await io.record_value(f"value {key}", key)
            elif action == "time":
                ctx.write(key, [await io.now_millis(), (await io.random_bytes(3)).hex()])
            else:
                await rec.emit(DomainEvent("told", {"by": key}))
        if world.own_failures(script.name) < script.failures:
            raise StateError(ErrorInfo("flaky", ErrorCategory.UNKNOWN, script.retryable))
        return None


class World:
    """What does not die with the process: the store's state, and what happened outside."""

    def __init__(self) -> None:
        self.state = MemoryState()
        self.refetched: list[str] = []
        self.transport = CountingTransport(self._answer)

    def _answer(self, call: IoCall) -> Json:
        for envelope in self.state.streams.get(RUN_ID, []):
            event = envelope.event
            if isinstance(event, DomainEvent) and event.name == FACT_RECORDED:
                key, _ = fact_of(event, envelope.seq)
                if key == call.fact_key:
                    self.refetched.append(key)
        return {"answer": call.request}

    def own_failures(self, name: str) -> int:
        """How often a state has failed on its own, so far as the store knows."""
        progress = self.view().states.get(state_id(name))
        return 0 if progress is None else progress.own_failures

    def view(self) -> RunView:
        return fold(self.state.streams.get(RUN_ID, []))


class Died(BaseException):
    """The process is gone: nothing it does from now on reaches the store."""


class DyingStore:
    """A store in a process that dies at its ``calls_left``-th call, before or after the call's effect."""

    def __init__(self, inner: Any, calls_left: int, *, after: bool) -> None:
        self._inner = inner
        self._calls_left = calls_left
        self._after = after

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._inner, name)

        async def call(*args: Any, **kwargs: Any) -> Any:
            self._calls_left -= 1
            if self._calls_left < 0 or (self._calls_left == 0 and not self._after):
                raise Died
            result = await method(*args, **kwargs)
            if self._calls_left == 0:
                raise Died
            return result

        return call


def process(world: World, dies_after: int | None = None, *, after: bool = True) -> Stores:
    """A new process's view of the store. The claims of the dead are free: their locks died with them."""
    world.state.claims.clear()
    store: Any = MemoryStore(world.state, InstantClock())
    if dies_after is not None:
        store = DyingStore(store, dies_after, after=after)
    shared = SharedArtifacts(store)
    return Stores(store, shared, store, shared, mailbox=store, agenda=store)


async def live(machine: Machine, world: World, stores: Stores) -> RunResult:
    """Start the run, or resume it if it was started."""
    plan = machine.plan(world)
    engine = Engine(FixedResolver(plan), transports=world.transport, clock=InstantClock())
    if await memory_stores(world.state).events.head_seq(RUN_ID):
        return await engine.resume(stores, RUN_ID)
    run = await start_run(memory_stores(world.state), plan, machine.config, {"first": 1}, RUN_ID)
    return await engine.start(stores, run)


def check_history(history: Sequence[EventEnvelope]) -> None:
    """Numbers without gaps, and every attempt closed exactly once."""
    assert [envelope.seq for envelope in history] == list(range(1, len(history) + 1))
    view = fold(history)
    assert view.ended is not None
    assert not view.open_attempts


scripts = st.builds(
    Script,
    name=st.just(""),
    actions=st.lists(
        st.sampled_from(["write", "delete", "call", "shared", "value", "time", "tell"]), max_size=4
    ),
    failures=st.integers(0, 3),
    retryable=st.booleans(),
    skipped=st.integers(0, 9).map(lambda n: n == 0),
)


@st.composite
def machines(draw: st.DrawFn) -> Machine:
    chosen = draw(st.lists(scripts, min_size=1, max_size=5))
    for index, script in enumerate(chosen):
        script.name = f"s{index}"
    pairs = [(i, j) for i in range(len(chosen)) for j in range(i + 1, len(chosen))]
    edges = draw(st.lists(st.sampled_from(pairs), unique=True)) if pairs else []
    return Machine(chosen, edges, draw(st.integers(1, 4)))


async def undisturbed(machine: Machine) -> tuple[World, RunResult]:
    world = World()
    result = await drive_to_end(machine, world, [])
    return world, result


async def drive_to_end(machine: Machine, world: World, deaths: Sequence[tuple[int, bool]]) -> RunResult:
    for dies_after, after in deaths:
        try:
            return await live(machine, world, process(world, dies_after, after=after))
        except Died:
            note(f"died at call {dies_after} {'after' if after else 'before'} its effect")
    return await live(machine, world, process(world))


@given(machines(), st.lists(st.tuples(st.integers(1, 25), st.booleans()), max_size=6))
def test_a_run_that_died_anywhere_ends_as_an_undisturbed_one(
    machine: Machine, deaths: list[tuple[int, bool]]
) -> None:
    """The process dies at any call to its store, any number of times; the end is the same."""

    async def body() -> None:
        calm, expected = await undisturbed(machine)
        world = World()
        result = await drive_to_end(machine, world, deaths)
        assert (result.phase, result.final_snapshot_id) == (expected.phase, expected.final_snapshot_id)
        assert world.refetched == []
        check_history(world.state.streams[RUN_ID])
        check_history(calm.state.streams[RUN_ID])

    asyncio.run(body())


@given(machines())
def test_a_history_cut_after_any_event_resumes_to_the_same_end(machine: Machine) -> None:
    """Every prefix of every history is a run that can be resumed."""

    async def body() -> None:
        calm, expected = await undisturbed(machine)
        history = calm.state.streams[RUN_ID]
        for length in range(1, len(history) + 1):
            world = World()
            world.state.blobs.update(calm.state.blobs)
            world.state.recipes.update(calm.state.recipes)
            world.state.streams[RUN_ID] = history[:length]
            result = await live(machine, world, process(world))
            assert (result.phase, result.final_snapshot_id) == (expected.phase, expected.final_snapshot_id)
            assert world.refetched == []
            check_history(world.state.streams[RUN_ID])
            if length == len(history):
                assert world.state.streams[RUN_ID] == history

    asyncio.run(body())


@given(machines())
def test_folding_a_stream_equals_advancing_event_by_event(machine: Machine) -> None:
    """The view that recovery rebuilds, without the domain events, is the one that the loop kept."""

    async def body() -> None:
        calm, result = await undisturbed(machine)
        history = calm.state.streams[RUN_ID]
        assert await read_view(memory_stores(calm.state), RUN_ID) == fold(history)
        assert fold(history).phase is result.phase
        assert result.phase in (RunPhase.COMPLETED, RunPhase.FAILED)

    asyncio.run(body())
