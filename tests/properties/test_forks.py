"""A fork of anything, anywhere, does what the other run did from there on, and nothing that it did before."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from typing import Any

import msgspec
from hypothesis import given, note, settings
from hypothesis import strategies as st

from perdure import (
    Context,
    EffectTraits,
    Engine,
    ErrorCategory,
    ErrorInfo,
    ExecutionPlan,
    ForkRun,
    IoCall,
    IoProvider,
    Recorder,
    RunId,
    RunPhase,
    SideEffectKind,
    StateError,
    StateMeta,
    StateOutcome,
    Stores,
    TransportEnv,
)
from perdure.engine.carrying import carried_before, entered_states
from perdure.engine.history import fold
from perdure.errors import Json
from perdure.model.events import EventEnvelope, StateEntered
from perdure.proof.replay import replay_run
from perdure.stores.memory import MemoryState, memory_stores
from tests.support import FixedResolver, InstantClock, Scripted, plan_of, start_run, state_id

FORK, AGAIN = (RunId(f"00000000-0000-0000-0000-00000000000{digit}") for digit in "bc")


class Script(msgspec.Struct, frozen=True):
    """What a state does, one after the other, and whether its first attempt fails at the end."""

    actions: tuple[str, ...]
    fails_once: bool = False


class World:
    """A machine of scripts, and what it asks of the outside, by the state that asks."""

    def __init__(self, scripts: Sequence[Script]) -> None:
        self.scripts = scripts
        self.asked: Counter[str] = Counter()

    def make(self, env: TransportEnv) -> World:
        return self

    namespace_group = "test"

    def effect_traits(self, call: IoCall) -> EffectTraits:
        return EffectTraits(is_effect=call.namespace == "test.pay", is_idempotent=True)

    async def call(self, call: IoCall) -> Json:
        self.asked[call.request["by"]] += 1
        return {"answer": call.request}

    def plan(self) -> ExecutionPlan:
        meta = StateMeta(side_effects=SideEffectKind.APPLY_SIDE_EFFECT)
        return plan_of(*((self.name(i), Scripted(self.handler(i), meta)) for i in range(len(self.scripts))))

    @staticmethod
    def name(number: int) -> str:
        return f"s{number}"

    def handler(self, number: int) -> Any:
        async def handle(ctx: Context, io: IoProvider, rec: Recorder) -> StateOutcome | None:
            by = self.name(number)
            for index, action in enumerate(self.scripts[number].actions):
                key = f"{by}_{index}"
                if action == "write":
                    ctx.write(key, sorted(ctx.dump()))
                elif action == "ask":
                    ctx.write(key, (await io.call(IoCall("test.ask", {"by": by, "n": index}, key))).response)
                elif action == "pay":
                    ctx.write(key, (await io.call(IoCall("test.pay", {"by": by, "n": index}))).response)
                elif action == "read":
                    ctx.write(key, [await io.now_millis(), (await io.random_bytes(2)).hex()])
                elif action == "patch":
                    ctx.write(key, await io.patched(key))
                else:
                    await rec.publish(key, index)
            if self.scripts[number].fails_once and await io.get_recorded_fact(f"tried {by}") is None:
                await io.record_value(f"tried {by}", True)
                raise StateError(ErrorInfo("flaky", ErrorCategory.UNKNOWN, True))
            return None

        return handle

    def engine(self) -> Engine:
        return Engine(FixedResolver(self.plan()), self, clock=InstantClock())


actions = st.sampled_from(["write", "ask", "pay", "read", "patch", "publish"])
scripts = st.builds(Script, st.lists(actions, max_size=4).map(tuple), st.booleans())
machines = st.lists(scripts, min_size=1, max_size=4)


@settings(max_examples=30)
@given(machines, st.data())
def test_a_fork_ends_as_the_other_run_did(drawn: list[Script], data: st.DataObject) -> None:
    """At every state, and forks of forks too; what was carried over is asked for by nobody."""

    async def body() -> None:
        world, stores = World(drawn), Stores.in_memory()
        engine, resolver = world.engine(), FixedResolver(world.plan())
        run = await engine.start(stores, await start_run(stores, world.plan()))
        assert run.phase is RunPhase.COMPLETED
        whole = dict(world.asked)
        for _ in range(3):
            number = data.draw(st.integers(0, len(drawn) - 1))
            note(f"at s{number} of {run.run_id}")
            world.asked.clear()
            fork = await engine.fork(stores, ForkRun(run.run_id, world.name(number)))
            assert fork.final_snapshot_id == run.final_snapshot_id
            later = {world.name(each) for each in range(number, len(drawn))}
            assert dict(world.asked) == {by: times for by, times in whole.items() if by in later}
            report = await replay_run(stores, fork.run_id, resolver)
            assert (report.first_difference, report.states_recorded) == (None, len(drawn))
            await is_self_contained(stores, run.run_id, fork.run_id, world.name(number))
            run = fork

    asyncio.run(body())


async def is_self_contained(stores: Stores, origin: RunId, fork: RunId, at: str) -> None:
    """Copied events are the other run's, in its order, and the stream that holds them can be folded alone."""
    theirs, ours = [await stores.events.read_range(each, 1) for each in (origin, fork)]
    carried = carried_before(theirs, state_id(at))
    copied = [each.event for each in ours[1 : 1 + len(carried.events)]]
    assert copied == list(carried.events)
    assert copied == [each.event for each in theirs[1 : carried.seq - 1]]
    entry = ours[len(copied) + 2].event
    assert entry == StateEntered(state_id(at), 0, carried.base_snapshot_id)
    view = fold(ours)
    assert list(view.completed) == list(fold(theirs).completed)
    assert entered_states(ours) == entered_states(theirs)


@settings(max_examples=25)
@given(machines, st.data())
def test_a_fork_cut_anywhere_goes_on_to_the_same_end(drawn: list[Script], data: st.DataObject) -> None:
    """As any run does: what it has on record is not asked again, and forking it makes the same of it."""

    async def body() -> None:
        world, state = World(drawn), MemoryState()
        stores = memory_stores(state)
        run = await world.engine().start(stores, await start_run(stores, world.plan()))
        number = data.draw(st.integers(0, len(drawn) - 1))
        fork = await world.engine().fork(stores, ForkRun(run.run_id, world.name(number), run_id=FORK))
        stream = list(state.streams[FORK])
        begun = len(carried_before(stream, state_id(world.name(number))).events) + 1
        cut = data.draw(st.integers(begun, len(stream)))
        del state.streams[FORK][cut:]
        note(f"at s{number}, cut after {cut} of {len(stream)} events")
        world.asked.clear()
        resumed = await world.engine().resume(stores, FORK)
        assert (resumed.phase, resumed.final_snapshot_id) == (RunPhase.COMPLETED, fork.final_snapshot_id)
        assert not set(world.asked) & {world.name(each) for each in range(number)}
        recorded = fold(stream[:cut]).facts
        assert not [by for by in world.asked if world.asked[by] > missing(stream, recorded, by)]

    asyncio.run(body())


def missing(stream: Sequence[EventEnvelope], recorded: Any, by: str) -> int:
    """How many answers to what a state asks a cut history lacks."""
    return sum(
        1
        for key in fold(stream).facts
        if key not in recorded and (key.startswith(f"{by}_") or f"m.main.{by}:" in key)
    )


@settings(max_examples=25)
@given(machines, st.data())
def test_a_fork_does_not_depend_on_what_the_other_run_did_afterwards(
    drawn: list[Script], data: st.DataObject
) -> None:
    """That may still be running: the fork takes over what came before the state, and looks at no more."""

    async def body() -> None:
        world, state = World(drawn), MemoryState()
        stores = memory_stores(state)
        run = await world.engine().start(stores, await start_run(stores, world.plan()))
        number = data.draw(st.integers(0, len(drawn) - 1))
        await world.engine().fork(stores, ForkRun(run.run_id, world.name(number), run_id=FORK))
        entry = carried_before(state.streams[run.run_id], state_id(world.name(number))).seq
        del state.streams[run.run_id][data.draw(st.integers(entry, len(state.streams[run.run_id]))) :]
        await world.engine().fork(stores, ForkRun(run.run_id, world.name(number), run_id=AGAIN))
        one, other = ([each.event for each in state.streams[run_id]] for run_id in (FORK, AGAIN))
        assert without_ids(one, FORK) == without_ids(other, AGAIN)

    asyncio.run(body())


def without_ids(events: Sequence[Any], run_id: RunId) -> list[str]:
    return [str(event.to_json()).replace(run_id, "FORK") for event in events]
