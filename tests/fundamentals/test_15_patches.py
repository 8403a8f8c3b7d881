"""The code of a state changes while runs are in it: each run goes one way, and keeps to it."""

from __future__ import annotations

from datetime import timedelta

import pytest

from perdure import (
    Context,
    Engine,
    ExecutionPlan,
    Failpoints,
    IoCall,
    IoError,
    IoProvider,
    Recorder,
    RunPhase,
    RunResult,
    Stores,
    map_over,
)
from perdure.engine.letters import SignalLetter
from perdure.engine.recovery import read_view
from perdure.errors import Json
from perdure.proof.replay import replay_run
from perdure.stores.reading import read_json
from tests.support import (
    CountingTransport,
    FixedResolver,
    Handler,
    InstantClock,
    Scripted,
    plan_of,
    start_run,
)


def engine_of(*handlers: tuple[str, Handler], transport: CountingTransport | None = None) -> Engine:
    """An engine that knows one plan, whose clock jumps, and that parks every wait."""
    return Engine(
        FixedResolver(plan(*handlers)),
        transports=transport or CountingTransport(),
        clock=InstantClock(),
        park_after=timedelta(),
    )


def plan(*handlers: tuple[str, Handler]) -> ExecutionPlan:
    return plan_of(*((name, Scripted(handler)) for name, handler in handlers))


async def context_of(stores: Stores, result: RunResult) -> dict[str, object]:
    assert result.final_snapshot_id is not None
    return dict((await read_json(stores.artifacts, result.final_snapshot_id))[0])


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
