"""Maps: one attempt over many items, each of which is a fact."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from datetime import timedelta
from typing import Any

import pytest

import perdure
from perdure import (
    Context,
    DomainEvent,
    Engine,
    Failpoints,
    FixedBackoff,
    IoCall,
    IoError,
    IoProvider,
    ItemError,
    Recorder,
    RetryPolicy,
    RunConfig,
    RunPhase,
    RunResult,
    SideEffectKind,
    StateError,
    StateFailed,
    StateMeta,
    TransportEnv,
    TransportError,
    TransportFactory,
)
from perdure.engine.letters import SignalLetter
from perdure.errors import Json
from perdure.io.effects import EffectTraits
from perdure.io.facts import state_of_fact
from perdure.stores.memory import memory_stores
from tests.support import (
    CountingTransport,
    FixedResolver,
    Handler,
    InstantClock,
    Scripted,
    plan_of,
    start_run,
    stream,
)


class Mapping:
    """A run of one state, in memory, and the items that were worked on."""

    def __init__(
        self, handler: Handler, meta: StateMeta | None = None, config: RunConfig | None = None
    ) -> None:
        self.clock = InstantClock()
        self.stores = memory_stores(clock=self.clock)
        self.transport: TransportFactory = CountingTransport()
        self.plan = plan_of(("a", Scripted(handler, meta)))

    def engine(self, *failpoints: str) -> Engine:
        return Engine(
            FixedResolver(self.plan),
            transports=self.transport,
            clock=self.clock,
            failpoints=Failpoints.parse(failpoints),
        )

    async def run(self, *failpoints: str) -> RunResult:
        start = await start_run(self.stores, self.plan)
        return await self.engine(*failpoints).start(self.stores, start)

    async def facts(self, result: RunResult) -> dict[str, Json]:
        """The payloads of the items' facts, in the order of the stream."""
        return {
            event.payload["key"]: (await self.payload(event.payload["payload_id"]))
            for envelope in await self.stores.events.read_range(result.run_id, 1)
            if isinstance(event := envelope.event, DomainEvent) and event.name == "fact_recorded"
        }

    async def payload(self, payload_id: Any) -> Json:
        import msgspec

        return msgspec.json.decode(await self.stores.artifacts.get(payload_id))

    async def context(self, result: RunResult) -> Json:
        assert result.final_snapshot_id is not None
        return await self.payload(result.final_snapshot_id)

    async def error(self, result: RunResult) -> Any:
        """The error of the last attempt that failed."""
        events = [each.event for each in await self.stores.events.read_range(result.run_id, 1)]
        return [each.error.info for each in events if isinstance(each, StateFailed)][-1]


async def double(number: int) -> int:
    """What items come to."""
    return number * 2


async def doubles(ctx: Context, io: IoProvider, rec: Recorder) -> None:
    """Maps over three."""
    ctx.write("doubles", await perdure.map_over([1, 2, 3], double, io=io))


async def test_each_item_is_a_fact_of_one_attempt() -> None:
    """The results are in the items' order, and on record under the items' numbers."""
    mapping = Mapping(doubles)
    result = await mapping.run()
    assert (await mapping.context(result))["doubles"] == [2, 4, 6]
    assert await mapping.facts(result) == {
        "map:m.main.a|0": {"value": 2},
        "map:m.main.a|1": {"value": 4},
        "map:m.main.a|2": {"value": 6},
    }
    assert [each for each in await stream(mapping.stores, result) if each != "fact_recorded"] == [
        *("started", "entered a 0", "completed a", "run Completed")
    ]


async def test_items_share_commits() -> None:
    """A thousand items are a handful of commits, and not a thousand."""

    async def many(ctx: Context, io: IoProvider, rec: Recorder) -> None:
        results = await perdure.map_over(range(1000), double, io=io)
        ctx.write("sum", sum(results))

    mapping = Mapping(many)
    failpoints = Failpoints()
    start = await start_run(mapping.stores, mapping.plan)
    engine = Engine(FixedResolver(mapping.plan), failpoints=failpoints)
    result = await engine.start(mapping.stores, start)
    assert (await mapping.context(result))["sum"] == 999_000
    assert failpoints.hits["commit.before"] < 50


async def test_what_is_recorded_is_not_worked_on_again() -> None:
    """A crash repeats what was not yet written, and nothing else."""
    worked: Counter[int] = Counter()

    async def work(number: int) -> int:
        worked[number] += 1
        return number

    async def many(ctx: Context, io: IoProvider, rec: Recorder) -> None:
        ctx.write("all", await perdure.map_over(range(600), work, io=io, max_concurrency=4))

    mapping = Mapping(many)
    stopped = await mapping.run("commit.before:4=stop")
    recorded = {int(key.rpartition("|")[2]) for key in await mapping.facts(stopped)}
    assert 0 < len(recorded) < 600
    result = await mapping.engine().resume(mapping.stores, stopped.run_id)
    assert (await mapping.context(result))["all"] == list(range(600))
    assert {number for number, times in worked.items() if times > 1}.isdisjoint(recorded)
    assert set(worked) == set(range(600))


async def test_replay_takes_results_from_the_record() -> None:
    """Nothing is worked on, and the context is the same."""
    worked: list[int] = []

    async def work(number: int) -> int:
        worked.append(number)
        return number + len(worked)

    async def many(ctx: Context, io: IoProvider, rec: Recorder) -> None:
        ctx.write("all", await perdure.map_over(range(5), work, io=io))

    mapping = Mapping(many)
    result = await mapping.run()
    config = RunConfig.from_json(RunConfig().to_json() | {"io_mode": "Replay", "replay_of": result.run_id})
    start = await start_run(mapping.stores, mapping.plan, config)
    replayed = await mapping.engine().start(mapping.stores, start)
    assert replayed.final_snapshot_id == result.final_snapshot_id
    assert len(worked) == 5


async def test_results_come_one_by_one_and_items_are_read_when_needed() -> None:
    """Of ten thousand items a few hundred are held at a time."""
    read = given = held_max = 0

    def numbers() -> Iterator[int]:
        nonlocal read
        for number in range(10_000):
            read += 1
            yield number

    async def handle(ctx: Context, io: IoProvider, rec: Recorder) -> None:
        nonlocal given, held_max
        async for result in perdure.map_over(numbers(), double, io=io):
            assert result == given * 2
            given += 1
            held_max = max(held_max, read - given)

    mapping = Mapping(handle)
    assert (await mapping.run()).phase is RunPhase.COMPLETED
    assert given == 10_000
    assert held_max < 300


async def test_items_may_come_from_an_async_iterator() -> None:
    """What it reads by itself has numbers of its own, whatever the items do."""

    async def pages(io: IoProvider) -> AsyncIterator[str]:
        for page in range(3):
            answer = await io.call(IoCall("test", page, fact_key=f"page-{page}"))
            yield f"{answer.response['asked']} {await io.uuid4()}"

    async def handle(ctx: Context, io: IoProvider, rec: Recorder) -> None:
        async def tell(page: str) -> str:
            return f"{page} {await io.uuid4()}"

        ctx.write("all", await perdure.map_over(pages(io), tell, io=io))

    mapping = Mapping(handle)
    result = await mapping.run()
    assert [each.split()[0] for each in (await mapping.context(result))["all"]] == ["0", "1", "2"]
    readings = [key for key in await mapping.facts(result) if key.startswith("mfm:")]
    assert sorted(key.split("state:")[1] for key in readings) == [
        *(f"m.main.a#{item}|attempt:0|ord:0" for item in range(3)),
        *(f"m.main.a#items|attempt:0|ord:{number}" for number in range(3)),
    ]


async def test_no_more_than_max_concurrency_at_once() -> None:
    """And no fewer, while there are items."""
    now = most = 0

    async def handle(ctx: Context, io: IoProvider, rec: Recorder) -> None:
        async def work(number: int) -> int:
            nonlocal now, most
            now += 1
            most = max(most, now)
            await asyncio.sleep(0)
            now -= 1
            return number

        await perdure.map_over(range(50), work, io=io, max_concurrency=5)

    assert (await Mapping(handle).run()).phase is RunPhase.COMPLETED
    assert most == 5


async def test_an_item_has_tries_of_its_own() -> None:
    """Only what may be tried again is, as often as the policy says, after its delay."""
    tries: Counter[str] = Counter()

    async def handle(ctx: Context, io: IoProvider, rec: Recorder) -> None:
        async def work(kind: str) -> int:
            tries[kind] += 1
            if kind == "sound" or (kind == "flaky" and tries[kind] == 3):
                return tries[kind]
            raise StateError.of("refused", "no", retryable=kind != "broken")

        retry = RetryPolicy(max_attempts=3, backoff=FixedBackoff(timedelta(seconds=1)))
        kinds = ["sound", "flaky", "broken", "lost"]
        results = await perdure.map_over(kinds, work, io=io, retry=retry, return_exceptions=True)
        ctx.write("all", [str(each.code) if isinstance(each, ItemError) else each for each in results])

    mapping = Mapping(handle)
    result = await mapping.run()
    assert (await mapping.context(result))["all"] == [1, 3, "refused", "refused"]
    assert tries == {"sound": 1, "flaky": 3, "broken": 1, "lost": 3}
    assert len(mapping.clock.slept_until) == 4


async def test_the_first_failure_ends_a_map() -> None:
    """The error names the item by its number and never by its value; others are not tried again."""
    worked: Counter[str] = Counter()

    async def handle(ctx: Context, io: IoProvider, rec: Recorder) -> None:
        async def work(name: str) -> str:
            worked[name] += 1
            if name == "zoe":
                raise ValueError(f"no such customer: {name}")
            return name

        await perdure.map_over(["eve", "bob", "zoe", "ann"], work, io=io, max_concurrency=1)

    mapping = Mapping(handle)
    result = await mapping.run()
    assert result.phase is RunPhase.FAILED
    error = await mapping.error(result)
    assert (error.code, error.message) == ("map_items_failed", "item 2 failed: handler_raised (ValueError)")
    assert list(await mapping.facts(result)) == ["map:m.main.a|0", "map:m.main.a|1"]
    assert worked == {"eve": 1, "bob": 1, "zoe": 1}


async def test_a_failed_item_without_tries_of_its_own_is_tried_with_its_state() -> None:
    """What others came to is on record by then."""
    worked: Counter[int] = Counter()

    async def handle(ctx: Context, io: IoProvider, rec: Recorder) -> None:
        async def work(number: int) -> int:
            worked[number] += 1
            if number == 1 and worked[number] == 1:
                raise StateError.of("not_yet", "try again", retryable=True)
            return number

        ctx.write("all", await perdure.map_over(range(3), work, io=io, max_concurrency=1))

    mapping = Mapping(handle)
    result = await mapping.run()
    assert (await mapping.context(result))["all"] == [0, 1, 2]
    assert worked == {0: 1, 1: 2, 2: 1}


async def test_recorded_failures_are_not_tried_again() -> None:
    """With return_exceptions they are facts, in the next attempt too."""
    worked: Counter[int] = Counter()

    async def handle(ctx: Context, io: IoProvider, rec: Recorder) -> None:
        async def work(number: int) -> int:
            worked[number] += 1
            if number == 1:
                raise StateError.of("refused", "not this one", retryable=True)
            return number

        results = await perdure.map_over(range(3), work, io=io, return_exceptions=True)
        if worked[0] == 1 and not await io.get_recorded_fact("again"):
            await io.record_value("again", True)
            raise StateError.of("not_yet", "try again", retryable=True)
        error = results[1]
        assert isinstance(error, ItemError)
        ctx.write("failed", [error.index, str(error.code), error.info.message])

    mapping = Mapping(handle)
    result = await mapping.run()
    assert (await mapping.context(result))["failed"] == [1, "refused", "not this one"]
    assert worked == {0: 1, 1: 1, 2: 1}


@pytest.mark.parametrize(
    ("failures_max", "fails"), [(2, True), (3, False), (0.25, True), (0.3, False), (1.0, False)]
)
async def test_too_many_failures_end_a_map(failures_max: float, fails: bool) -> None:
    """Three of ten fail; how many may is a number, or a part of all."""

    async def handle(ctx: Context, io: IoProvider, rec: Recorder) -> None:
        async def work(number: int) -> int:
            if number % 4 == 1:
                raise StateError.of("refused", "no")
            return number

        results = await perdure.map_over(
            range(10), work, io=io, return_exceptions=True, failures_max=failures_max
        )
        ctx.write("failed", sum(isinstance(each, ItemError) for each in results))

    mapping = Mapping(handle)
    result = await mapping.run()
    if fails:
        error = await mapping.error(result)
        assert error.code == "map_items_failed"
        assert error.message == "3 items failed, and 2 may: 1 (refused), 5 (refused), 9 (refused)"
    else:
        assert (await mapping.context(result))["failed"] == 3


async def test_a_part_of_an_unknown_number_is_judged_in_the_end() -> None:
    """The first of four fails, which is a part of all only when all have been read."""

    async def handle(ctx: Context, io: IoProvider, rec: Recorder) -> None:
        async def work(number: int) -> int:
            if number == 0:
                raise StateError.of("refused", "no")
            return number

        items = (each for each in range(4))
        results = perdure.map_over(
            items, work, io=io, max_concurrency=1, return_exceptions=True, failures_max=0.25
        )
        ctx.write("count", len(await results))

    mapping = Mapping(handle)
    assert (await mapping.context(await mapping.run()))["count"] == 4


@pytest.mark.parametrize(("later", "index"), [([1, 7, 3], 1), ([1, 2], 2)])
async def test_another_item_where_one_is_on_record_is_refused(later: list[int], index: int) -> None:
    """The error tells the number; a map that is shorter than it was has lost one."""

    async def handle(ctx: Context, io: IoProvider, rec: Recorder) -> None:
        attempt = await io.get_recorded_fact("again")
        await perdure.map_over([1, 2, 3] if attempt is None else later, double, io=io)
        await io.record_value("again", True)
        raise StateError.of("not_yet", "try again", retryable=True)

    mapping = Mapping(handle)
    error = await mapping.error(await mapping.run())
    assert (error.code, error.message) == (
        "map_item_changed",
        f"item {index} is not the one that was worked on before",
    )


async def test_two_maps_of_one_state_have_names() -> None:
    """One may do without; a name that is taken is refused."""

    async def handle(ctx: Context, io: IoProvider, rec: Recorder) -> None:
        await perdure.map_over([1], double, io=io)
        await perdure.map_over([5], double, io=io, name="second")
        with pytest.raises(IoError) as refused:
            await perdure.map_over([1], double, io=io)
        assert refused.value.code == "map_name_taken"

    mapping = Mapping(handle)
    assert list(await mapping.facts(await mapping.run())) == ["map:m.main.a|0", "map:m.main.a|second|0"]


async def test_items_have_maps_of_their_own() -> None:
    """A map within a map: an item's place stands where the state's does."""

    async def handle(ctx: Context, io: IoProvider, rec: Recorder) -> None:
        async def row(number: int) -> list[int]:
            return await perdure.map_over(range(number), double, io=io)

        ctx.write("rows", await perdure.map_over([1, 2], row, io=io))

    mapping = Mapping(handle)
    result = await mapping.run()
    assert (await mapping.context(result))["rows"] == [[0], [0, 2]]
    assert sorted(await mapping.facts(result)) == [
        *("map:m.main.a#0|0", "map:m.main.a#1|0", "map:m.main.a#1|1", "map:m.main.a|0", "map:m.main.a|1"),
    ]


async def test_what_an_item_does_bears_its_number() -> None:
    """Readings and effects are numbered within the item, so that no other item can shift them."""

    async def handle(ctx: Context, io: IoProvider, rec: Recorder) -> None:
        async def work(turns: int) -> int:
            for _ in range(turns):
                await asyncio.sleep(0)
            await io.now_millis()
            await io.call(IoCall("test", turns))
            return turns

        await perdure.map_over([3, 0], work, io=io)

    mapping = Mapping(handle, StateMeta(side_effects=SideEffectKind.APPLY_SIDE_EFFECT, idempotency="k"))
    result = await mapping.run()
    run = result.run_id
    assert sorted(await mapping.facts(result)) == [
        f"effect:{run}:m.main.a#0:0",
        f"effect:{run}:m.main.a#1:0",
        "map:m.main.a|0",
        "map:m.main.a|1",
        f"mfm:now_millis|run:{run}|state:m.main.a#0|attempt:0|ord:0",
        f"mfm:now_millis|run:{run}|state:m.main.a#1|attempt:0|ord:0",
    ]


class Uncertain:
    """A service that answers an effect only when it is asked again under its key."""

    namespace_group = "test"

    def __init__(self) -> None:
        self.asked: Counter[str | None] = Counter()

    def make(self, env: TransportEnv) -> Uncertain:
        return self

    def effect_traits(self, call: IoCall) -> EffectTraits:
        return EffectTraits(is_effect=True, is_idempotent=True)

    async def call(self, call: IoCall) -> Json:
        self.asked[call.idempotency_key] += 1
        if self.asked[call.idempotency_key] == 1:
            raise TransportError.of("lost", "no answer")
        return "paid"


async def test_an_item_in_doubt_is_no_failure_on_record() -> None:
    """Nobody knows yet whether it failed, so its state is tried again, and it with the same key."""

    async def handle(ctx: Context, io: IoProvider, rec: Recorder) -> None:
        async def pay(number: int) -> Json:
            return (await io.call(IoCall("test", number))).response

        ctx.write("all", await perdure.map_over(range(2), pay, io=io, return_exceptions=True))

    mapping = Mapping(handle, StateMeta(side_effects=SideEffectKind.APPLY_SIDE_EFFECT, idempotency="k"))
    uncertain = mapping.transport = Uncertain()
    result = await mapping.run()
    assert (await mapping.context(result))["all"] == ["paid", "paid"]
    assert all(key is not None and "#" in key and times == 2 for key, times in uncertain.asked.items())


async def test_an_item_that_waits_parks_the_run_when_the_others_are_done() -> None:
    """They have been recorded by then; the one that waited goes on alone."""
    worked: Counter[str] = Counter()

    async def handle(ctx: Context, io: IoProvider, rec: Recorder) -> None:
        async def work(name: str) -> str:
            worked[name] += 1
            if name != "eve":
                await asyncio.sleep(0)
                return name
            signal = await io.wait_signal("approval")
            assert signal is not None
            return f"{name} {signal.value}"

        ctx.write("all", await perdure.map_over(["eve", "bob", "zoe"], work, io=io, max_concurrency=2))

    mapping = Mapping(handle)
    parked = await mapping.run()
    assert parked.waiting_for == "signal approval"
    assert list(await mapping.facts(parked)) == ["map:m.main.a|1", "map:m.main.a|2"]
    engine = mapping.engine()
    await engine.send(mapping.stores, parked.run_id, SignalLetter("approval", "yes", "ann"), "1")
    result = await engine.resume(mapping.stores, parked.run_id)
    assert (await mapping.context(result))["all"] == ["eve yes", "bob", "zoe"]
    assert worked == {"eve": 2, "bob": 1, "zoe": 1}
    assert "wait:m.main.a#0|0" in await mapping.facts(result)


async def test_many_items_wait_at_once() -> None:
    """Each for a time of its own; none begins anew when another has ended."""

    async def handle(ctx: Context, io: IoProvider, rec: Recorder) -> None:
        async def work(days: int) -> int:
            await io.sleep(timedelta(days=days), name="pause")
            return days

        ctx.write("all", await perdure.map_over([3, 1, 2], work, io=io))

    mapping = Mapping(handle)
    result, begun = await mapping.run(), mapping.clock.now_millis()
    for days in (1, 2, 3):
        assert result.due_millis == begun + days * 86_400_000
        mapping.clock.millis = result.due_millis
        result = await mapping.engine().resume(mapping.stores, result.run_id)
    assert (await mapping.context(result))["all"] == [3, 1, 2]


@pytest.mark.parametrize(
    "key",
    [
        "map:m.main.a|0",
        "map:m.main.a|second|0",
        "map:m.main.a#0|0",
        "wait:m.main.a#0|0",
        "wait:m.main.a#second#0|pause",
        "mfm:uuid4|run:r|state:m.main.a#0@1|attempt:0|ord:0",
    ],
)
def test_what_an_item_does_belongs_to_its_state(key: str) -> None:
    """Forks and patches ask whose a fact is."""
    assert state_of_fact(key) == "m.main.a"


async def test_a_map_is_for_states() -> None:
    """Outside of one it is refused, and so are items that nobody can go through."""
    with pytest.raises(StateError) as refused:
        perdure.map_over([1], double)
    assert refused.value.code == "map_outside_state"
    with pytest.raises(perdure.InvalidPlanError) as mistaken:
        perdure.map_over("12", double)  # type: ignore[arg-type]  # the mistake
    assert mistaken.value.code == "call_invalid"
