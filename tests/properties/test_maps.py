"""Laws of maps: whatever fails, waits or dies, and whatever is first, each item comes to the same, once."""

from __future__ import annotations

import asyncio
from collections import Counter
from datetime import timedelta
from typing import Literal, NamedTuple

import msgspec
from hypothesis import given, note, settings
from hypothesis import strategies as st

import perdure
from perdure import (
    Context,
    Engine,
    Failpoints,
    IoCall,
    IoProvider,
    ItemError,
    Recorder,
    RetryPolicy,
    RunId,
    RunResult,
    SideEffectKind,
    StateError,
    StateMeta,
    TransportEnv,
)
from perdure.engine.history import fold
from perdure.engine.recovery import read_view
from perdure.errors import Json
from perdure.io.effects import EffectTraits
from perdure.stores.memory import MemoryState, memory_stores
from tests.support import FixedResolver, InstantClock, Scripted, plan_of, start_run

RUN_ID = RunId("00000000-0000-0000-0000-00000000000b")
TRIES = 3
Action = Literal["turn", "call", "effect", "sleep", "time"]


class Item(NamedTuple):
    """What an item does, how often it fails before it does not, and whether it fails for good."""

    actions: list[Action]
    failures: int
    is_broken: bool


class Script(NamedTuple):
    """A map: its items, how many are under way at a time, and whether they come one by one."""

    items: list[Item]
    max_concurrency: int
    one_by_one: bool


items = st.builds(
    Item,
    st.lists(st.sampled_from(["turn", "turn", "call", "effect", "sleep", "time"]), max_size=4),
    st.sampled_from([0, 0, 1, TRIES - 1]),
    st.sampled_from([False, False, False, True]),
)
scripts = st.builds(Script, st.lists(items, min_size=1, max_size=6), st.integers(1, 4), st.booleans())


class Bank:
    """Makes each effect once under its key."""

    namespace_group = "bank"

    def __init__(self, made: dict[str, Json]) -> None:
        self.made = made

    def make(self, env: TransportEnv) -> Bank:
        return self

    def effect_traits(self, call: IoCall) -> EffectTraits:
        return EffectTraits(is_effect=call.request["pays"], is_idempotent=True)

    async def call(self, call: IoCall) -> Json:
        await asyncio.sleep(0)
        if call.idempotency_key is not None:
            assert self.made.setdefault(call.idempotency_key, call.request) == call.request
        return call.request


class World:
    """Everything that outlives a process."""

    def __init__(self, script: Script) -> None:
        self.script = script
        self.state = MemoryState()
        self.clock = InstantClock()
        self.bank = Bank({})
        self.failed: Counter[int] = Counter()
        self.recorded: set[int] = set()
        self.stores = memory_stores(self.state, self.clock)

    async def handle(self, ctx: Context, io: IoProvider, rec: Recorder) -> None:
        async def work(index: int) -> list[Json]:
            assert index not in self.recorded
            item, done = self.script.items[index], list[Json]()
            for number, action in enumerate(item.actions):
                if action == "turn":
                    await asyncio.sleep(0)
                elif action == "sleep":
                    await io.sleep(timedelta(days=1 + index % 2))
                elif action == "time":
                    await io.now_millis()
                else:
                    request = {"item": index, "action": number, "pays": action == "effect"}
                    key = None if action == "effect" else f"{index} {number}"
                    done.append((await io.call(IoCall("bank", request, fact_key=key))).response)
                if self.failed[index] < item.failures:
                    self.failed[index] += 1
                    raise StateError.of("flaky", "not yet", retryable=True)
            if item.is_broken:
                raise StateError.of("broken", "never")
            return done

        found = list[Json]()
        mapped = perdure.map_over(
            range(len(self.script.items)),
            work,
            io=io,
            max_concurrency=self.script.max_concurrency,
            retry=RetryPolicy(TRIES),
            return_exceptions=True,
        )
        if self.script.one_by_one:
            async for each in mapped:
                found.append(str(each.code) if isinstance(each, ItemError) else each)
                await asyncio.sleep(0)
        else:
            found = [str(each.code) if isinstance(each, ItemError) else each for each in await mapped]
        ctx.write("found", found)

    async def live(self, *points: str) -> RunResult:
        """One process's life, in which failpoints stop it; or the end."""
        meta = StateMeta(side_effects=SideEffectKind.APPLY_SIDE_EFFECT, idempotency="k")
        plan = plan_of(("a", Scripted(self.handle, meta)))
        engine = Engine(
            FixedResolver(plan),
            transports=self.bank,
            clock=self.clock,
            failpoints=Failpoints.parse(points),
            park_after=timedelta(seconds=5),
        )
        view = await read_view(self.stores, RUN_ID)
        self.recorded = {int(key.rpartition("|")[2]) for key in view.facts if key.startswith("map:")}
        if view.started is None:
            return await engine.start(self.stores, await start_run(self.stores, plan, run_id=RUN_ID))
        return await engine.resume(self.stores, RUN_ID)

    async def to_the_end(self) -> RunResult:
        """Live until the run has ended; what it waits for comes."""
        for _ in range(60):
            result = await self.live()
            if result.waiting_for is None:
                return result
            assert result.due_millis is not None
            self.clock.millis = max(self.clock.millis, result.due_millis)
        raise AssertionError("the run does not end")

    def expected(self) -> list[Json]:
        """What the items come to."""
        items = enumerate(self.script.items)
        return ["broken" if item.is_broken else self._done(index) for index, item in items]

    def _done(self, index: int) -> Json:
        return [
            {"item": index, "action": number, "pays": action == "effect"}
            for number, action in enumerate(self.script.items[index].actions)
            if action in ("call", "effect")
        ]

    async def check(self, result: RunResult) -> None:
        """It has completed as expected, and every effect was made once."""
        assert result.final_snapshot_id is not None
        _, data = self.state.blobs[result.final_snapshot_id]
        assert msgspec.json.decode(data) == {"found": self.expected()}
        paid = sum(item.actions.count("effect") for item in self.script.items)
        assert len(self.bank.made) == paid


@settings(max_examples=40)
@given(scripts, st.lists(st.tuples(st.sampled_from(["before", "after"]), st.integers(1, 8)), max_size=4))
def test_a_map_comes_to_the_same_whatever_dies(script: Script, deaths: list[tuple[str, int]]) -> None:
    """Recorded items are not worked on again, nor effects made."""

    async def body() -> None:
        world = World(script)
        for when, hit in deaths:
            result = await world.live(f"commit.{when}:{hit}=stop")
            if result.due_millis is not None:
                world.clock.millis = max(world.clock.millis, result.due_millis)
        await world.check(await world.to_the_end())

    asyncio.run(body())


@settings(max_examples=20)
@given(scripts)
def test_a_map_cut_after_any_event_goes_on_to_the_same_end(script: Script) -> None:
    """Every prefix of its history is a run that can be resumed."""

    async def body() -> None:
        calm = World(script)
        expected = await calm.to_the_end()
        history = calm.state.streams[RUN_ID]
        for length in range(1, len(history)):
            note(f"cut after event {length}")
            world = World(script)
            world.state.blobs.update(calm.state.blobs)
            world.state.recipes.update(calm.state.recipes)
            world.state.streams[RUN_ID] = history[:length]
            world.clock.millis = history[length - 1].ts_millis or 0
            begun = fold(history[:length]).effects
            world.bank.made.update({key: calm.bank.made[key] for key in begun if key in calm.bank.made})
            result = await world.to_the_end()
            assert result.final_snapshot_id == expected.final_snapshot_id
            await world.check(result)

    asyncio.run(body())
