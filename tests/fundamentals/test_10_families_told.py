"""Families of which a member is told something: whom it concerns, and whom not."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from perdure import (
    Context,
    Engine,
    ExecutionPlan,
    Failpoints,
    IoProvider,
    Recorder,
    RunManifest,
    RunPhase,
    StateGraph,
    StateId,
    StateMeta,
    StateNode,
    Stores,
)
from perdure.engine.letters import SignalLetter, StopLetter
from perdure.engine.recovery import read_view
from perdure.ids import RunId
from perdure.stores.memory import MemoryState, memory_stores
from tests.families import (
    ENOUGH_SECONDS,
    Hanging,
    Ops,
    await_child,
    context_of,
    interrupt,
    nobody_drives,
    resume,
    spawn,
    start,
    start_of,
    turns,
)
from tests.support import Scripted, stream


class WithCleanup(Ops):
    """Resolves ``work`` to a plan that has a cleanup besides."""

    async def clean(self, ctx: Context, io: IoProvider, rec: Recorder) -> None:
        ctx.write("refund", (await await_child(io, "w", await spawn(io, "refund", "refund")))["status"])

    def resolve(self, manifest: RunManifest) -> ExecutionPlan:
        plan = super().resolve(manifest)
        if manifest.op_id != "work":
            return plan
        clean = StateNode(StateId("work.main.clean"), Scripted(self.clean, StateMeta(on_cancel=True)))
        return ExecutionPlan(plan.op_id, StateGraph([*plan.graph.states, clean]))


async def test_a_cleanup_has_children_that_are_not_cancelled() -> None:
    """Nor when its process dies meanwhile: they are none of those that were told to stop."""
    working, refunding = Hanging(), Hanging()

    async def work(ctx: Context, io: IoProvider, rec: Recorder) -> None:
        await await_child(io, "w", await spawn(io, "hang", "hang"))

    ops = WithCleanup({"work": work, "hang": working.handle, "refund": refunding.handle})
    stores, run_id = Stores.in_memory(), RunId.random()
    engine = Engine(ops)
    running = asyncio.create_task(engine.start(stores, await start_of(stores, ops, "work", run_id=run_id)))
    await working.until_begun()
    await engine.send(stores, run_id, StopLetter("cancel", "ann", "enough"), "letter")
    await refunding.until_begun()
    await interrupt(running)
    refunding.go_on.set()
    assert (await resume(engine, stores, run_id)).phase is RunPhase.CANCELLED
    assert (await context_of(stores, run_id))["refund"] == "Completed"
    assert (await read_view(stores, run_id.child("hang"))).phase is RunPhase.CANCELLED


async def test_a_pause_is_ended_for_whom_it_was_begun() -> None:
    """What somebody else pauses stays so, however often its parent is resumed."""

    async def wait(ctx: Context, io: IoProvider, rec: Recorder) -> None:
        await io.wait_signal("go")

    async def two(ctx: Context, io: IoProvider, rec: Recorder) -> None:
        await spawn(io, "a", "wait", 1)
        await io.wait_signal("then")
        await spawn(io, "b", "wait", 2)
        await io.wait_signal("never")

    ops, stores, run_id = Ops({"two": two, "wait": wait}), Stores.in_memory(), RunId.random()
    engine = Engine(ops)

    async def tell(run_id: RunId, letter: Any, letter_id: str) -> str | None:
        await engine.send(stores, run_id, letter, letter_id)
        return (await resume(engine, stores, run_id)).waiting_for

    await start(engine, stores, await start_of(stores, ops, "two", run_id=run_id))
    assert await tell(run_id, StopLetter("pause", "ann", "lunch"), "l1") == "being unpaused"
    assert await tell(run_id, StopLetter("unpause", "ann", "back"), "l2") == "signal then"
    a, b = run_id.child("a"), run_id.child("b")
    assert (await stream(stores, a)).count("run_paused") == 1
    await resume(engine, stores, a)
    assert (await stream(stores, a)).count("run_unpaused") == 1
    assert await tell(run_id, SignalLetter("then", 1, "ann"), "l3") == "signal never"
    await nobody_drives()  # the second child was begun just now
    assert await tell(b, StopLetter("pause", "bob", "mine"), "l4") == "being unpaused"
    await resume(engine, stores, run_id)
    assert (await resume(engine, stores, b)).waiting_for == "being unpaused"


async def test_a_child_is_parted_from_when_the_parents_end_is_sure() -> None:
    """A last attempt that a crash takes back, and that goes another way then, finds its child running."""
    hanging, tries = Hanging(), list[int]()

    async def leave(ctx: Context, io: IoProvider, rec: Recorder) -> None:
        child = await spawn(io, "k", "hang", close_policy="cancel")
        await hanging.until_begun()
        tries.append(1)
        if len(tries) > 1:
            hanging.go_on.set()
            ctx.write("end", (await await_child(io, "w", child))["status"])

    ops, state = Ops({"leave": leave, "hang": hanging.handle}), MemoryState()
    stores = memory_stores(state)
    points = Failpoints()
    run = await start_of(stores, ops, "leave", run_id=RunId.random())
    assert run.run_id is not None
    assert (await start(Engine(ops, failpoints=points), stores, run)).phase is RunPhase.COMPLETED
    commits = points.hits["commit.before"]
    ends: list[str] = []
    for hit in range(1, commits + 1):
        hanging.go_on.clear()
        tries.clear()
        run = await start_of(stores, ops, "leave", run_id=RunId.random())
        assert run.run_id is not None
        engine = Engine(ops, failpoints=Failpoints.parse([f"commit.before:{hit}=stop"]))
        result = await start(engine, stores, run)
        if not await stores.events.head_seq(run.run_id):
            continue
        result = await resume(Engine(ops), stores, run.run_id)
        assert result.phase is RunPhase.COMPLETED
        ends.append((await context_of(stores, run.run_id)).get("end", "parted"))
    assert set(ends) == {"Completed", "parted"}


async def wait(ctx: Context, io: IoProvider, rec: Recorder) -> None:
    """Is parked."""
    await io.wait_signal("go")


async def await_both(ctx: Context, io: IoProvider, rec: Recorder) -> None:
    """Awaits one child, and leaves another one to itself."""
    await spawn(io, "alone", "wait", "alone", close_policy="abandon")
    ctx.write("end", (await await_child(io, "w", await spawn(io, "k", "wait", "awaited")))["status"])


@pytest.mark.parametrize("point", ["commit.before", "commit.after"])
async def test_a_word_reaches_everybody_whoever_dies_between(point: str) -> None:
    """The owner may die after it has read it, and before, while or after it passes it on: it is read once."""
    ops = Ops({"both": await_both, "wait": wait})
    for hit in range(1, 12):
        stores, run_id = Stores.in_memory(), RunId.random()
        await start(Engine(ops), stores, await start_of(stores, ops, "both", run_id=run_id))
        await Engine(ops).send(stores, run_id, StopLetter("cancel", "ann", "enough"), "letter")
        points = Failpoints.parse([f"{point}:{hit}=stop"])
        await resume(Engine(ops, failpoints=points), stores, run_id)
        assert (await resume(Engine(ops), stores, run_id)).phase is RunPhase.CANCELLED
        assert (await read_view(stores, run_id.child("k"))).phase is RunPhase.CANCELLED
        assert (await stream(stores, run_id.child("k"))).count("run_cancel_requested") == 1
        assert (await stream(stores, run_id))[-2:] == ["child_run_completed", "run Cancelled"]
        assert (await read_view(stores, run_id.child("alone"))).waiting_for == "signal go"
        if points.hits[point] < hit:
            return
    raise AssertionError("there is no end to the commits")


async def test_a_paused_family_goes_on_after_it() -> None:
    """Handlers go on until they wait; nobody is woken then; each word is passed on once, in any process."""
    hanging = Hanging()

    async def slow(ctx: Context, io: IoProvider, rec: Recorder) -> None:
        await hanging.handle(ctx, io, rec)
        await io.wait_signal("go")

    ops, stores, run_id = Ops({"both": await_both, "wait": slow}), Stores.in_memory(), RunId.random()
    engine, other = Engine(ops), Engine(ops)
    running = asyncio.create_task(engine.start(stores, await start_of(stores, ops, "both", run_id=run_id)))
    await hanging.until_begun(2)
    await engine.send(stores, run_id, StopLetter("pause", "ann", "lunch"), "l1")
    await turns(20)
    hanging.go_on.set()
    paused = await asyncio.wait_for(running, ENOUGH_SECONDS)
    assert paused.waiting_for == "being unpaused"
    child, alone = run_id.child("k"), run_id.child("alone")
    for run, waiting_for in ((child, "being unpaused"), (alone, None)):
        await other.send(stores, run, SignalLetter("go", 1, "ann"), "go")
        assert (await resume(other, stores, run)).waiting_for == waiting_for
    assert (await resume(other, stores, run_id)).waiting_for == "being unpaused"
    await other.send(stores, run_id, StopLetter("unpause", "ann", "back"), "l2")
    assert (await resume(other, stores, run_id)).phase is RunPhase.COMPLETED
    words = [each for each in await stream(stores, child) if "paused" in each]
    assert words == ["run_paused", "run_unpaused"]
    assert not [each for each in await stream(stores, alone) if "paused" in each]


async def test_who_is_terminated_terminates_its_children() -> None:
    """They clean nothing up either, and their parent does not wait for them."""
    ops = WithCleanup({"ask": await_work, "work": wait, "refund": wait})
    stores = Stores.in_memory()
    engine = Engine(ops)
    result = await start(engine, stores, await start_of(stores, ops, "ask"))
    child = result.run_id.child("k")
    assert result.waiting_for == f"child {child}"
    await engine.send(stores, result.run_id, StopLetter("terminate", "ann", "now"), "letter")
    assert (await resume(engine, stores, result.run_id)).phase is RunPhase.CANCELLED
    ended = await resume(engine, stores, child)
    assert ended.phase is RunPhase.CANCELLED
    assert "entered clean 0" not in await stream(stores, child)
    assert (await read_view(stores, child)).children == {}


async def await_work(ctx: Context, io: IoProvider, rec: Recorder) -> None:
    """Awaits a child that would clean up."""
    await await_child(io, "w", await spawn(io, "k", "work"))
