"""Side by side, a run comes to what it comes to one state at a time: at any timing, wherever it dies."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from datetime import timedelta
from typing import NamedTuple

from hypothesis import assume, given, note, settings
from hypothesis import strategies as st

from perdure import (
    Context,
    Engine,
    ErrorCategory,
    ErrorInfo,
    ExecutionPlan,
    FanOutJoin,
    FixedBackoff,
    IoCall,
    IoProvider,
    Recorder,
    RetryPolicy,
    RunConfig,
    RunPhase,
    RunResult,
    Sequential,
    StateError,
    StateMeta,
    Stores,
)
from perdure.engine.history import fold
from perdure.model.config import ExecutionMode
from perdure.model.events import EventEnvelope, StateEntered
from perdure.proof.replay import replay_run
from perdure.stores.memory import memory_stores
from tests.properties.test_runs import RUN_ID, Died, World, check_history, process
from tests.support import FixedResolver, InstantClock, Scripted, plan_of, start_run

HOUR = timedelta(hours=1)


class JumpingClock(InstantClock):
    """Jumps to the end of every sleep, without any claim growing old."""

    def monotonic_seconds(self) -> float:
        return 0.0


class Script(NamedTuple):
    """What one state does. ``turns`` is for how long each of its actions lasts, in turns of the loop."""

    name: str
    writes: tuple[str, ...]
    deletes: tuple[str, ...]
    calls: tuple[str, ...]
    sleeps: bool
    failures: int
    retryable: bool
    skipped: bool
    turns: tuple[int, ...]


class Machine(NamedTuple):
    """States and the edges between them, by number."""

    scripts: tuple[Script, ...]
    edges: tuple[tuple[int, int], ...]
    places: int
    max_attempts: int
    has_backoff: bool

    def before(self, index: int) -> set[int]:
        """All that precede a state."""
        direct = {first for first, then in self.edges if then == index}
        return direct.union(*(self.before(each) for each in direct))

    def config(self, mode: ExecutionMode) -> RunConfig:
        backoff = FixedBackoff(HOUR if self.has_backoff else timedelta())
        policy = RetryPolicy(self.max_attempts, backoff)
        return RunConfig(
            execution_mode=mode, retry_policy=policy, skip_tags=("skipped",), recovery_limit=1000
        )

    def plan(self, world: World) -> ExecutionPlan:
        names = [script.name for script in self.scripts]
        return plan_of(
            *[(script.name, self._state(index, world)) for index, script in enumerate(self.scripts)],
            edges=[(names[first], names[then]) for first, then in self.edges],
        )

    def _state(self, index: int, world: World) -> Scripted:
        script = self.scripts[index]
        # What may be read: what nobody but those before the state, and the state itself, can have written.
        others = set(range(len(self.scripts))) - self.before(index) - {index}
        hidden = {key for each in others for key in (*self.scripts[each].writes, *self.scripts[each].deletes)}

        async def handle(ctx: Context, io: IoProvider, rec: Recorder) -> None:
            turns = iter(script.turns * 20)
            await _pass(turns)
            for key in script.writes:
                seen = {each: value for each, value in ctx.dump().items() if each not in hidden}
                ctx.write(key, {"by": script.name, "seen": sorted(seen), "was": seen.get(key)})
                await _pass(turns)
            for key in script.deletes:
                ctx.delete(key)
            for key in script.calls:
                answer = (await io.call(IoCall("test", {"of": key}, fact_key=key))).response
                if script.writes:
                    ctx.write(script.writes[0], [ctx.read(script.writes[0]), answer])
                await _pass(turns)
            if script.sleeps:
                await io.sleep(HOUR)
                await _pass(turns)
            if world.own_failures(script.name) < script.failures:
                raise StateError(ErrorInfo("flaky", ErrorCategory.UNKNOWN, script.retryable))

        return Scripted(handle, StateMeta(tags=("skipped",) if script.skipped else ()))


async def _pass(turns: Iterator[int]) -> None:
    for _ in range(next(turns, 0)):
        await asyncio.sleep(0)


async def live(machine: Machine, world: World, stores: Stores, mode: ExecutionMode) -> RunResult:
    """Start the run, or resume it if it was started; every time it waits, its moment comes."""
    plan = machine.plan(world)
    clock = JumpingClock()
    engine = Engine(FixedResolver(plan), transports=world.transport, clock=clock, park_after=timedelta())
    if await memory_stores(world.state).events.head_seq(RUN_ID):
        result = await engine.resume(stores, RUN_ID)
    else:
        config = machine.config(mode)
        run = await start_run(memory_stores(world.state), plan, config, {"first": 1, "gone": 2}, RUN_ID)
        result = await engine.start(stores, run)
    while result.phase is RunPhase.RUNNING:
        assert result.due_millis is not None
        clock.millis = max(clock.millis, result.due_millis)
        result = await engine.resume(stores, RUN_ID)
    return result


async def run_of(machine: Machine, mode: ExecutionMode) -> tuple[World, RunResult]:
    world = World()
    return world, await live(machine, world, process(world), mode)


def check_places(history: Sequence[EventEnvelope], places: int) -> None:
    """Never do more attempts run than there are places; those that wait do not run."""
    for length in range(1, len(history) + 1):
        view = fold(history[:length])
        if isinstance(history[length - 1].event, StateEntered):
            running = [each for each in view.open_attempts.values() if not view.waits_of(each)]
            assert len(running) <= places


@st.composite
def machines(draw: st.DrawFn, *, may_contradict: bool = False) -> Machine:
    count = draw(st.integers(1, 7))
    pairs = [(first, then) for then in range(count) for first in range(then)]
    edges = draw(st.lists(st.sampled_from(pairs), unique=True)) if pairs else []
    bare = Machine((), tuple(edges), 1, 1, False)
    taken: dict[str, set[int]] = {}
    scripts: list[Script] = []
    for index in range(count):
        before = bare.before(index)

        def may_write(key: str, before: set[int] = before) -> bool:
            return may_contradict or taken.get(key, set()) <= before

        shared = [key for key in ("x", "y", "gone") if may_write(key) and draw(st.booleans())]
        own = [f"k{index}"] if draw(st.booleans()) else []
        deleted = [key for key in shared if draw(st.integers(0, 3)) == 0] if not may_contradict else []
        for key in shared:
            taken.setdefault(key, set()).add(index)
        scripts.append(
            Script(
                f"s{index}",
                tuple(own + [key for key in shared if key not in deleted]),
                tuple(deleted),
                tuple(draw(st.lists(st.sampled_from([f"of {index}", "shared"]), max_size=2))),
                draw(st.integers(0, 4)) == 0,
                draw(st.sampled_from([0, 0, 0, 0, 1, 2])) if not may_contradict else 0,
                draw(st.integers(0, 9)) > 0,
                draw(st.integers(0, 9)) == 0 if not may_contradict else False,
                tuple(draw(st.lists(st.integers(0, 6), min_size=1, max_size=4))),
            )
        )
    return Machine(
        tuple(scripts), tuple(edges), draw(st.integers(1, 5)), draw(st.integers(2, 4)), draw(st.booleans())
    )


@given(machines())
def test_side_by_side_comes_to_the_same_as_one_at_a_time(machine: Machine) -> None:
    """The last snapshot, byte for byte; and a replay finds every state as it was."""

    async def body() -> None:
        _, expected = await run_of(machine, Sequential())
        world, result = await run_of(machine, FanOutJoin(machine.places))
        assert result.phase is expected.phase
        if result.phase is RunPhase.COMPLETED:
            assert result.final_snapshot_id == expected.final_snapshot_id
        assert world.refetched == []
        history = world.state.streams[RUN_ID]
        check_history(history)
        check_places(history, machine.places)
        if not any(script.failures for script in machine.scripts):
            resolver = FixedResolver(machine.plan(world))
            report = await replay_run(process(world), RUN_ID, resolver)
            assert report.first_difference is None

    asyncio.run(body())


@given(machines(), st.lists(st.tuples(st.integers(1, 40), st.booleans()), max_size=6))
def test_a_run_that_died_anywhere_comes_to_the_same(machine: Machine, deaths: list[tuple[int, bool]]) -> None:
    """The process dies at any call to its store, any number of times."""

    async def body() -> None:
        mode = FanOutJoin(machine.places)
        _, expected = await run_of(machine, Sequential())
        world = World()
        for dies_after, after in deaths:
            try:
                await live(machine, world, process(world, dies_after, after=after), mode)
                break
            except Died:
                note(f"died at call {dies_after} {'after' if after else 'before'} its effect")
        result = await live(machine, world, process(world), mode)
        assert result.phase is expected.phase
        if result.phase is RunPhase.COMPLETED:
            assert result.final_snapshot_id == expected.final_snapshot_id
        assert world.refetched == []
        check_history(world.state.streams[RUN_ID])

    asyncio.run(body())


@settings(max_examples=40)
@given(machines())
def test_a_history_cut_after_any_event_comes_to_the_same(machine: Machine) -> None:
    """Every prefix of every history is a run that can be resumed."""

    async def body() -> None:
        mode = FanOutJoin(machine.places)
        calm, expected = await run_of(machine, mode)
        history = calm.state.streams[RUN_ID]
        for length in range(1, len(history) + 1):
            world = World()
            world.state.blobs.update(calm.state.blobs)
            world.state.recipes.update(calm.state.recipes)
            world.state.streams[RUN_ID] = history[:length]
            result = await live(machine, world, process(world), mode)
            assert result.phase is expected.phase
            if result.phase is RunPhase.COMPLETED:
                assert result.final_snapshot_id == expected.final_snapshot_id
            assert world.refetched == []
            check_history(world.state.streams[RUN_ID])
            if length == len(history):
                assert world.state.streams[RUN_ID] == history

    asyncio.run(body())


@settings(max_examples=60)
@given(machines(may_contradict=True))
def test_unordered_states_that_write_one_key_are_found_out(machine: Machine) -> None:
    """Whatever the timing, and even if the process died after any event."""
    writers = [
        (first, then)
        for then, script in enumerate(machine.scripts)
        for first in range(then)
        if first not in machine.before(then) and set(machine.scripts[first].writes) & set(script.writes)
    ]
    assume(len(machine.scripts) > 1)

    async def body() -> None:
        mode = FanOutJoin(machine.places)
        calm, result = await run_of(machine, mode)
        assert result.phase is (RunPhase.FAILED if writers else RunPhase.COMPLETED)
        history = calm.state.streams[RUN_ID]
        codes = {
            progress.last_error.code
            for progress in fold(history).states.values()
            if progress.last_error is not None
        }
        assert codes == ({"context_write_conflict"} if writers else set())
        for length in range(1, len(history), 3):
            world = World()
            world.state.blobs.update(calm.state.blobs)
            world.state.recipes.update(calm.state.recipes)
            world.state.streams[RUN_ID] = history[:length]
            assert (await live(machine, world, process(world), mode)).phase is result.phase

    asyncio.run(body())
