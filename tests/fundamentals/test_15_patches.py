"""The code of a state changes while runs are in it: each run goes one way, and keeps to it."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from perdure import (
    ArtifactId,
    Context,
    DomainEvent,
    Engine,
    ErrorCategory,
    ErrorInfo,
    EventEnvelope,
    Failpoints,
    IoCall,
    IoError,
    IoProvider,
    Recorder,
    RunId,
    RunPhase,
    SideEffectKind,
    StateEntered,
    StateErrorInfo,
    StateFailed,
    StateId,
    Stores,
    map_over,
)
from perdure.engine.letters import ResolveLetter, SignalLetter
from perdure.engine.recovery import read_view
from perdure.errors import Json
from perdure.io.patches import recorded_by
from perdure.model.events import Event
from perdure.proof.replay import replay_run
from tests.families import Ops, await_child, spawn, start_of
from tests.handlers import context_of, engine_of, plan
from tests.support import (
    CountingTransport,
    FixedResolver,
    Handler,
    InstantClock,
    start_run,
)


async def old(ctx: Context, io: IoProvider, rec: Recorder) -> None:
    """As it was: asks once, and once more after a signal."""
    await io.call(IoCall("test", "first", fact_key="first"))
    await io.wait_signal("go")
    await io.call(IoCall("test", "second", fact_key="second"))


async def test_a_run_that_begins_with_the_new_code_goes_the_new_way() -> None:
    """And says the same when it runs again after a wait, and when it is replayed."""
    told: list[bool] = []

    async def new(ctx: Context, io: IoProvider, rec: Recorder) -> None:
        await io.call(IoCall("test", "first", fact_key="first"))
        told.append(await io.patched("polite"))
        await io.wait_signal("go")
        told.append(await io.patched("polite"))

    stores, engine = Stores.in_memory(), engine_of(("a", new))
    run = await engine.start(stores, await start_run(stores, plan(("a", new))))
    await engine.send(stores, run.run_id, SignalLetter("go", None, "ann"), "l")
    assert (await engine.resume(stores, run.run_id)).phase is RunPhase.COMPLETED
    assert told == [True, True, True]
    assert (await replay_run(stores, run.run_id, FixedResolver(plan(("a", new))))).first_difference is None
    assert told == [True] * 5
    assert "patch:m.main.a|polite" in (await read_view(stores, run.run_id)).facts


async def test_a_run_that_went_past_the_point_keeps_to_the_old_way() -> None:
    """What it has on record beyond the point was answered to the code as it was."""
    stores = Stores.in_memory()
    run = await engine_of(("a", old)).start(stores, await start_run(stores, plan(("a", old))))
    assert run.waiting_for == "signal go"
    told: list[bool] = []

    async def new(ctx: Context, io: IoProvider, rec: Recorder) -> None:
        told.append(await io.patched("before all"))
        await io.call(IoCall("test", "first", fact_key="first"))
        told.append(await io.patched("before the wait"))
        await io.wait_signal("go")
        told.append(await io.patched("after the wait"))
        await io.call(IoCall("test", "second", fact_key="second"))
        told.append(await io.patched("before all"))

    engine = engine_of(("a", new))
    await engine.send(stores, run.run_id, SignalLetter("go", None, "ann"), "l")
    assert (await engine.resume(stores, run.run_id)).phase is RunPhase.COMPLETED
    assert told == [False, False, True, False]


async def test_what_a_map_s_items_did_lies_before_its_end() -> None:
    """An item that is on record is not worked on again, so what it asked is not asked again either."""
    told: list[bool] = []

    async def new(ctx: Context, io: IoProvider, rec: Recorder) -> None:
        async def ask(item: int) -> Json:
            return (await io.call(IoCall("test", item, fact_key=f"item {item}"))).response

        ctx.write("mapped", await map_over([1, 2, 3], ask, io=io))
        await io.wait_signal("go")
        told.append(await io.patched("polite"))

    stores, engine = Stores.in_memory(), engine_of(("a", new))
    run = await engine.start(stores, await start_run(stores, plan(("a", new))))
    await engine.send(stores, run.run_id, SignalLetter("go", None, "ann"), "l")
    assert (await engine.resume(stores, run.run_id)).phase is RunPhase.COMPLETED
    assert told == [True]


async def test_a_retry_is_told_by_what_earlier_attempts_have_recorded() -> None:
    """A fact answers every attempt, so one that lies beyond the point is the old code's."""

    async def breaks(ctx: Context, io: IoProvider, rec: Recorder) -> None:
        await io.now_millis()
        await io.call(IoCall("test", "first", fact_key="first"))
        await io.call(IoCall("test", "second", fact_key="second"))
        raise RuntimeError("stopped")

    stores = Stores.in_memory()
    points = Failpoints(stop_after_handler_once=True)
    breaking = Engine(FixedResolver(plan(("a", breaks))), CountingTransport(), failpoints=points)
    run = await breaking.start(stores, await start_run(stores, plan(("a", breaks))))
    assert run.phase is RunPhase.RUNNING
    told: list[bool] = []

    async def new(ctx: Context, io: IoProvider, rec: Recorder) -> None:
        await io.call(IoCall("test", "first", fact_key="first"))
        told.append(await io.patched("between"))
        await io.call(IoCall("test", "second", fact_key="second"))
        told.append(await io.patched("behind"))

    assert (await engine_of(("a", new)).resume(stores, run.run_id)).phase is RunPhase.COMPLETED
    assert told == [False, True]


async def test_a_record_from_before_the_change_replays_the_old_way() -> None:
    """It has no word on the patch."""

    async def plain(ctx: Context, io: IoProvider, rec: Recorder) -> None:
        ctx.write("way", "old")

    async def patched(ctx: Context, io: IoProvider, rec: Recorder) -> None:
        ctx.write("way", "new" if await io.patched("way") else "old")

    stores = Stores.in_memory()
    before = await engine_of(("a", plain)).start(stores, await start_run(stores, plan(("a", plain))))
    after = await engine_of(("a", patched)).start(stores, await start_run(stores, plan(("a", patched))))
    resolver = FixedResolver(plan(("a", patched)))
    for run, way in ((before, "old"), (after, "new")):
        assert (await context_of(stores, run)) == {"way": way}
        assert (await replay_run(stores, run.run_id, resolver)).first_difference is None


async def test_the_key_of_a_patch_is_the_engines() -> None:
    """And its name is a short printable text."""
    codes: list[str] = []

    async def handler(ctx: Context, io: IoProvider, rec: Recorder) -> None:
        for work in (
            io.record_value("patch:m.main.a|x", True),
            io.patched(""),
            io.patched("a\nb"),
        ):
            with pytest.raises(IoError) as caught:
                await work
            codes.append(caught.value.code)

    stores = Stores.in_memory()
    await engine_of(("a", handler)).start(stores, await start_run(stores, plan(("a", handler))))
    assert codes == ["fact_key_reserved", "patch_name_invalid", "patch_name_invalid"]


async def test_a_patch_is_told_once_in_an_attempt() -> None:
    """Though nothing was written in between, and more of the record was reached; in all branches too."""
    stores, engine = Stores.in_memory(), engine_of(("a", old))
    run = await engine.start(stores, await start_run(stores, plan(("a", old))))
    told: list[bool] = []

    async def new(ctx: Context, io: IoProvider, rec: Recorder) -> None:
        told.extend(await asyncio.gather(io.patched("x"), io.patched("x"), io.patched("x")))
        await io.call(IoCall("test", "first", fact_key="first"))
        await io.wait_signal("go")
        told.append(await io.patched("x"))

    await engine.send(stores, run.run_id, SignalLetter("go", None, "ann"), "l")
    assert (await engine_of(("a", new)).resume(stores, run.run_id)).phase is RunPhase.COMPLETED
    assert told == [False] * 4
    events = [each.event for each in await stores.events.read_range(run.run_id, 1)]
    facts = [
        each.payload["key"] for each in events if isinstance(each, DomainEvent) and "key" in each.payload
    ]
    assert facts.count("patch:m.main.a|x") == 1


async def test_waits_that_the_engine_names_lie_where_the_handler_made_it_wait() -> None:
    """For a child: at the await, which answers without a wait once the child has ended."""

    async def job(ctx: Context, io: IoProvider, rec: Recorder) -> None:
        await io.wait_signal("go")

    told: list[bool] = []

    async def parent(ctx: Context, io: IoProvider, rec: Recorder) -> None:
        child = await spawn(io, "k", "job")
        await await_child(io, "w", child)

    async def patched(ctx: Context, io: IoProvider, rec: Recorder) -> None:
        told.append(await io.patched("first"))
        child = await spawn(io, "k", "job")
        told.append(await io.patched("between"))
        await await_child(io, "w", child)
        told.append(await io.patched("behind"))

    stores = Stores.in_memory()

    def engine(handler: Handler) -> Engine:
        return Engine(Ops({"job": job, "parent": handler}), clock=InstantClock(), park_after=timedelta())

    run = await engine(parent).start(stores, await start_of(stores, Ops({"parent": parent}), "parent"))
    child = run.run_id.child("k")
    assert run.waiting_for == f"child {child}"
    await engine(parent).send(stores, child, SignalLetter("go", None, "ann"), "l")
    await engine(parent).resume(stores, child)
    assert (await engine(patched).resume(stores, run.run_id)).phase is RunPhase.COMPLETED
    assert told == [False, False, True]


async def test_a_doubt_lies_where_the_effect_was_made() -> None:
    """The run waited there to be told; with the word it goes on, past no wait."""

    def lost(call: IoCall) -> Json:
        raise TimeoutError

    told: list[bool] = []

    async def pays(ctx: Context, io: IoProvider, rec: Recorder) -> None:
        await io.call(IoCall("test", "pay", effect=SideEffectKind.APPLY_SIDE_EFFECT))

    async def patched(ctx: Context, io: IoProvider, rec: Recorder) -> None:
        told.append(await io.patched("before"))
        await pays(ctx, io, rec)
        told.append(await io.patched("behind"))

    stores = Stores.in_memory()
    engine = engine_of(("a", pays), transport=CountingTransport(lost))
    run = await engine.start(stores, await start_run(stores, plan(("a", pays))))
    (doubt,) = (await read_view(stores, run.run_id)).in_doubt
    await engine.send(stores, run.run_id, ResolveLetter(doubt.key, True, {}, "ann", "it is there", 1), "l")
    assert (await engine_of(("a", patched)).resume(stores, run.run_id)).phase is RunPhase.COMPLETED
    assert told == [False, True]


def test_what_a_state_has_recorded_is_told_from_what_others_have() -> None:
    """By the key where that names a state, by the effect, and else by who is being executed.

    What comes before an item of a map is not counted beside it: some of it was asked for by items.
    """
    run_id, snapshot = RunId.random(), ArtifactId("0" * 64)
    a, b = StateId("m.main.a"), StateId("m.main.b")

    def fact(key: str) -> DomainEvent:
        return DomainEvent("fact_recorded", {"key": key, "payload_id": snapshot, "meta": {}})

    def intent(state_id: StateId, key: str) -> DomainEvent:
        return DomainEvent("effect_intended", {"key": key, "fact_key": key, "state_id": state_id})

    def reading(state_id: StateId, attempt: int) -> str:
        return f"mfm:uuid4|run:{run_id}|state:{state_id}|attempt:{attempt}|ord:0"

    events: list[Event] = [
        fact("before"),
        StateEntered(b, 0, snapshot),
        StateEntered(a, 0, snapshot),
        *map(fact, ("of an item", f"map:{a}|1")),
        intent(a, "ours"),
        intent(b, "theirs"),
        *map(fact, ("ours", "theirs", "own", f"wait:{b}|0", f"patch:{a}|x", "signal:go|0")),
        *map(fact, (reading(a, 0), reading(b, 1))),
        DomainEvent("wait_started", {"state_id": a, "key": f"wait:{a}|0"}),
        DomainEvent("wait_started", {"state_id": a, "key": f"wait:{a}|effect_in_doubt:ours#1"}),
        DomainEvent("wait_started", {"state_id": b, "key": f"wait:{b}|1"}),
        DomainEvent("told", {}),
        StateFailed(a, StateErrorInfo(a, ErrorInfo("flaky", ErrorCategory.UNKNOWN, True))),
        fact("meanwhile"),
        StateEntered(a, 1, snapshot),
        *map(fact, ("again", reading(a, 1))),
    ]
    stored = [EventEnvelope(run_id, seq, None, event) for seq, event in enumerate(events, 1)]
    assert recorded_by(stored, a, 1) == {
        *("ours", "own", f"map:{a}|1", f"wait:{a}|0", "again"),
        reading(a, 1),
    }
