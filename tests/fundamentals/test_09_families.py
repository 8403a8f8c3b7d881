"""Families that are stopped, shared, or too many at once: nobody hangs, and nobody is forgotten."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

import pytest

from perdure import (
    Context,
    Engine,
    ExecutionPlan,
    IoError,
    IoProvider,
    Recorder,
    RunManifest,
    RunPhase,
    RunResult,
    Stores,
)
from perdure.engine.letters import SignalLetter, StopLetter
from perdure.engine.recovery import read_view
from perdure.errors import Json
from perdure.ids import RunId
from perdure.model.events import Event, RunStarted
from perdure.stores.memory import MemoryState, memory_stores
from tests.families import (
    ENOUGH_SECONDS,
    Hanging,
    Ops,
    await_child,
    context_of,
    interrupt,
    resume,
    spawn,
    start,
    start_of,
    turns,
)
from tests.slow_stores import slow_stores
from tests.support import InstantClock, stream


async def check_interrupted(stores: Stores, runs: int) -> None:
    """Nobody executes anything any more; all runs can be resumed, and nothing is open."""
    others = asyncio.all_tasks() - {asyncio.current_task()}
    assert not [task for task in others if task.get_name().startswith("perdure-run")]
    listed = await stores.events.list_runs(limit=1000, unfinished=True)
    assert len(listed) == runs
    assert set(await stores.agenda.due_runs(1000)) == set(listed)
    for run_id in listed:
        assert not (await read_view(stores, run_id)).open_attempts


async def descend(ctx: Context, io: IoProvider, rec: Recorder) -> None:
    """Has a child do it: the first name of the input, which gets the others."""
    first, *rest = ctx.read("input")
    ctx.write("end", await await_child(io, "w", await spawn(io, "k", str(first), rest)))


async def ask(ctx: Context, io: IoProvider, rec: Recorder) -> None:
    """Awaits a child that somebody else has spawned: the input."""
    ctx.write("end", await await_child(io, "w", ctx.read("input")))


async def test_a_caller_gets_away_though_the_only_place_is_taken() -> None:
    """Its child waits for no place in order to be stopped: its own child has it."""
    hanging = Hanging()
    ops, stores = Ops({"descend": descend, "hang": hanging.handle}), Stores.in_memory()
    engine = Engine(ops, max_concurrency=1)
    run = await start_of(stores, ops, "descend", ["descend", "hang"], run_id=RunId.random())
    assert run.run_id is not None
    running = asyncio.create_task(engine.start(stores, run))
    await hanging.until_begun()
    await interrupt(running)
    await check_interrupted(stores, 3)
    hanging.go_on.set()
    assert (await resume(engine, stores, run.run_id)).phase is RunPhase.COMPLETED


async def test_branches_of_children_share_one_place() -> None:
    """However they alternate between work and waiting: one place is enough, and is never taken twice."""
    working = 0

    async def work(ctx: Context, io: IoProvider, rec: Recorder) -> None:
        nonlocal working
        working += 1
        assert working == 1
        await asyncio.sleep(0)
        working -= 1

    async def branches(ctx: Context, io: IoProvider, rec: Recorder) -> None:
        async def branch(number: int) -> None:
            for step in range(3):
                child = await spawn(io, f"k{number}{step}", "work", [number, step])
                await await_child(io, f"w{number}{step}", child)
                for _ in range(number):
                    await asyncio.sleep(0)

        await asyncio.gather(*(branch(number) for number in range(3)))

    async def impatient(ctx: Context, io: IoProvider, rec: Recorder) -> None:
        child = await spawn(io, "k", "work", "slowly")
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0):
                await await_child(io, "w", child)

    async def many(ctx: Context, io: IoProvider, rec: Recorder) -> None:
        names = ["branches", "impatient", "work"] * 3
        children = [await spawn(io, f"k{number}", name, number) for number, name in enumerate(names)]
        ends = await asyncio.gather(
            *(await_child(io, f"w{number}", child) for number, child in enumerate(children))
        )
        ctx.write("statuses", [end["status"] for end in ends])

    ops = Ops({"many": many, "branches": branches, "impatient": impatient, "work": work})
    stores = Stores.in_memory()
    result = await start(Engine(ops, max_concurrency=1), stores, await start_of(stores, ops, "many"))
    assert (await context_of(stores, result.run_id))["statuses"] == ["Completed"] * 9


def test_an_engine_works_in_one_loop_after_the_other(caplog: pytest.LogCaptureFixture) -> None:
    """Also when its places were fought for in the first."""

    async def both(ctx: Context, io: IoProvider, rec: Recorder) -> None:
        children = [await spawn(io, f"k{number}", "descend", ["leaf"]) for number in range(2)]
        await asyncio.gather(*(await_child(io, f"w{child['child_run_id']}", child) for child in children))

    async def leaf(ctx: Context, io: IoProvider, rec: Recorder) -> None:
        await turns(5)

    ops = Ops({"both": both, "descend": descend, "leaf": leaf})
    engine = Engine(ops, max_concurrency=1)

    async def run() -> RunResult:
        stores = Stores.in_memory()
        return await start(engine, stores, await start_of(stores, ops, "both"))

    assert [asyncio.run(run()).phase for _ in range(2)] == [RunPhase.COMPLETED] * 2
    assert caplog.messages == []


async def test_one_child_of_two_stores() -> None:
    """An invocation key gives the same ids everywhere; one place says nothing of the other."""
    hanging = Hanging()
    ops = Ops({"descend": descend, "hang": hanging.handle})
    engine = Engine(ops)
    places = [Stores.in_memory() for _ in range(2)]
    starts = [await start_of(stores, ops, "descend", ["hang"], invocation_key="k") for stores in places]
    running = [
        asyncio.create_task(engine.start(stores, run)) for stores, run in zip(places, starts, strict=True)
    ]
    await hanging.until_begun(2)
    await interrupt(running[0])
    hanging.go_on.set()
    assert (await asyncio.wait_for(running[1], ENOUGH_SECONDS)).phase is RunPhase.COMPLETED
    assert hanging.begun == 2


async def test_a_shared_child_is_interrupted_with_the_last_who_awaits_it() -> None:
    """Two siblings await a third; the caller of their parent is cancelled."""
    hanging = Hanging()

    async def family(ctx: Context, io: IoProvider, rec: Recorder) -> None:
        shared = await spawn(io, "s", "hang")
        siblings = [await spawn(io, f"k{number}", "ask", shared | {"n": number}) for number in range(2)]
        await asyncio.gather(*(await_child(io, f"w{child['child_run_id']}", child) for child in siblings))

    async def ask_one(ctx: Context, io: IoProvider, rec: Recorder) -> None:
        asked.append(1)
        await ask(ctx, io, rec)

    asked: list[int] = []
    ops = Ops({"family": family, "ask": ask_one, "hang": hanging.handle})
    stores = Stores.in_memory()
    running = asyncio.create_task(Engine(ops).start(stores, await start_of(stores, ops, "family")))
    await hanging.until_begun()
    await turns(50)
    assert len(asked) == 2
    await interrupt(running)
    await check_interrupted(stores, 4)


async def test_the_child_of_a_parked_child_is_interrupted_too() -> None:
    """Its parent left it to its grandparent."""
    hanging = Hanging()

    async def family(ctx: Context, io: IoProvider, rec: Recorder) -> None:
        parked = await spawn(io, "p", "park")
        await asyncio.gather(
            await_child(io, "w", parked), await_child(io, "h", await spawn(io, "h", "hang", "own"))
        )

    async def park(ctx: Context, io: IoProvider, rec: Recorder) -> None:
        await spawn(io, "k", "hang")
        await hanging.until_begun(2)
        await io.wait_signal("go")

    ops = Ops({"family": family, "park": park, "hang": hanging.handle})
    stores, run_id = Stores.in_memory(), RunId.random()
    engine = Engine(ops)
    running = asyncio.create_task(engine.start(stores, await start_of(stores, ops, "family", run_id=run_id)))
    await hanging.until_begun(2)
    await turns(50)
    assert (await read_view(stores, run_id.child("p"))).waiting_for == "signal go"
    await interrupt(running)
    others = asyncio.all_tasks() - {asyncio.current_task()}
    assert not [task for task in others if task.get_name().startswith("perdure-run")]


@pytest.mark.parametrize("places", [3, 100])
async def test_a_caller_of_fifty_gets_away(places: int) -> None:
    """Whatever is being written at that moment: nothing is open, all can be resumed, and all end."""
    hanging = Hanging()

    async def fifty(ctx: Context, io: IoProvider, rec: Recorder) -> None:
        children = [await spawn(io, f"k{number}", "hang", number) for number in range(50)]
        await asyncio.gather(*(await_child(io, f"w{n}", child) for n, child in enumerate(children)))

    ops = Ops({"fifty": fifty, "hang": hanging.handle})
    stores, _ = slow_stores(InstantClock())
    engine = Engine(ops, max_concurrency=places)
    run_id = RunId.random()
    running = asyncio.create_task(engine.start(stores, await start_of(stores, ops, "fifty", run_id=run_id)))
    await hanging.until_begun(min(places, 50))
    await interrupt(running)
    await check_interrupted(stores, len(await stores.events.list_runs(limit=1000)))
    hanging.go_on.set()
    assert (await resume(engine, stores, run_id)).phase is RunPhase.COMPLETED
    assert await stores.events.list_runs(unfinished=True) == []


@pytest.mark.parametrize("places", [1, 100])
async def test_runs_that_await_each_other_are_parked(places: int) -> None:
    """Nobody can help them, but they can be seen, and told to stop."""
    run_id = RunId.random()

    async def forward(ctx: Context, io: IoProvider, rec: Recorder) -> None:
        me = {"child_run_id": run_id.child("k"), "child_manifest_id": manifest_id}
        await await_child(io, "w", await spawn(io, "g", "ask", me))

    ops, stores = Ops({"descend": descend, "forward": forward, "ask": ask}), Stores.in_memory()
    manifest_id = (await start_of(stores, ops, "forward", [])).manifest_id
    engine = Engine(ops, max_concurrency=places)
    result = await start(engine, stores, await start_of(stores, ops, "descend", ["forward"], run_id=run_id))
    child, grandchild = run_id.child("k"), run_id.child("k").child("g")
    assert result.waiting_for == f"child {child}"
    assert (await read_view(stores, grandchild)).waiting_for == f"child {child}"
    await engine.send(stores, run_id, StopLetter("cancel", "ann", "a knot"), "letter")
    assert (await resume(engine, stores, run_id)).phase is RunPhase.CANCELLED
    assert (await read_view(stores, grandchild)).phase is RunPhase.CANCELLED


async def test_a_wait_for_one_child_says_nothing_of_another() -> None:
    """A handler that awaits another child under the key of a wait that is over waits again."""
    tries: list[int] = []

    async def wait(ctx: Context, io: IoProvider, rec: Recorder) -> None:
        await io.wait_signal("go")

    async def fickle(ctx: Context, io: IoProvider, rec: Recorder) -> None:
        children = [await spawn(io, f"k{number}", "wait", number) for number in range(2)]
        tries.append(1)
        await await_child(io, "w", children[len(tries) > 1])

    ops, stores = Ops({"fickle": fickle, "wait": wait}), Stores.in_memory()
    engine = Engine(ops)
    result = await start(engine, stores, await start_of(stores, ops, "fickle"))
    first, second = (result.run_id.child(f"k{number}") for number in range(2))
    assert result.waiting_for == f"child {first}"
    for child, then in ((first, f"child {second}"), (second, None)):
        await engine.send(stores, child, SignalLetter("go", 1, "ann"), "letter")
        await resume(engine, stores, child)
        result = await resume(engine, stores, result.run_id)
        assert result.waiting_for == then
    assert result.phase is RunPhase.COMPLETED


@pytest.mark.parametrize("name", ["child:k", "effect_in_doubt:k"])
async def test_the_names_of_the_engines_waits_are_taken(name: str) -> None:
    """A handler's wait is not taken for one of them."""

    async def doze(ctx: Context, io: IoProvider, rec: Recorder) -> None:
        with pytest.raises(IoError) as caught:
            await io.sleep(timedelta(), name=name)
        assert caught.value.code == "wait_invalid"

    ops, stores = Ops({"doze": doze}), Stores.in_memory()
    assert (await start(Engine(ops), stores, await start_of(stores, ops, "doze"))).phase is RunPhase.COMPLETED


async def test_a_parent_goes_on_in_time_while_its_child_works() -> None:
    """It waits for a moment and for a child: at the moment it is not parked but goes on."""
    hanging = Hanging()

    class Clock(InstantClock):
        """Sleeps until it is told to go on."""

        def __init__(self) -> None:
            super().__init__()
            self.go_on = asyncio.Event()

        async def sleep_until(self, due_millis: int) -> None:
            await self.go_on.wait()
            self.millis = max(self.millis, due_millis)

    async def slow(ctx: Context, io: IoProvider, rec: Recorder) -> None:
        await io.wait_signal("go")
        await hanging.handle(ctx, io, rec)

    async def both(ctx: Context, io: IoProvider, rec: Recorder) -> None:
        async def nap() -> None:
            await io.sleep(timedelta(hours=1))
            slept.set()

        await asyncio.gather(nap(), await_child(io, "w", await spawn(io, "k", "slow")))

    slept = asyncio.Event()
    ops, clock = Ops({"both": both, "slow": slow}), Clock()
    stores = memory_stores(clock=clock)
    engine = Engine(ops, clock=clock)
    parked = await start(engine, stores, await start_of(stores, ops, "both"))
    assert parked.waiting_for == f"sleep, child {parked.run_id.child('k')}"
    await engine.send(stores, parked.run_id.child("k"), SignalLetter("go", 1, "ann"), "letter")
    running = asyncio.create_task(engine.resume(stores, parked.run_id))
    await hanging.until_begun()
    clock.go_on.set()
    await asyncio.wait_for(slept.wait(), ENOUGH_SECONDS)
    hanging.go_on.set()
    assert (await asyncio.wait_for(running, ENOUGH_SECONDS)).phase is RunPhase.COMPLETED


async def test_observers_see_the_child_of_a_spawn_that_was_cancelled() -> None:
    """The handler gave it up while it was written; it is written all the same."""
    stores, store = slow_stores(InstantClock())
    seen: list[tuple[RunId, Event]] = []

    def observe(run_id: RunId, events: Sequence[tuple[int, Event]]) -> None:
        seen.extend((run_id, event) for _, event in events)

    async def leaf(ctx: Context, io: IoProvider, rec: Recorder) -> None:
        pass

    async def hasty(ctx: Context, io: IoProvider, rec: Recorder) -> None:
        spawning = asyncio.create_task(spawn(io, "k", "leaf"))
        await turns(2)
        assert store.committing
        spawning.cancel()
        await asyncio.wait({spawning})

    ops = Ops({"hasty": hasty, "leaf": leaf})
    result = await start(Engine(ops, observer=observe), stores, await start_of(stores, ops, "hasty"))
    assert result.phase is RunPhase.COMPLETED
    begun = [run_id for run_id, event in seen if isinstance(event, RunStarted)]
    assert begun == [result.run_id, result.run_id.child("k")]


@pytest.mark.parametrize("is_file", [False, True])
async def test_parents_in_two_processes_await_one_child(tmp_path: Path, is_file: bool) -> None:
    """One of them drives it; the other one is parked, and due when it has ended."""
    hanging, state = Hanging(), MemoryState()
    ops = Ops({"ask": ask, "hang": hanging.handle})
    places = [
        Stores.sqlite(tmp_path / "runs.db") if is_file else memory_stores(state, InstantClock())
        for _ in range(2)
    ]
    engines = [Engine(ops) for _ in range(2)]
    begun = await engines[0].start(
        places[0], await start_of(places[0], ops, "hang", run_id=RunId.random()), drive=False
    )
    first = (await places[0].events.read_range(begun.run_id, 1, 1))[0].event
    assert isinstance(first, RunStarted)
    child: dict[str, Json] = {"child_run_id": begun.run_id, "child_manifest_id": first.manifest_id}
    run_ids = [RunId.random() for _ in range(2)]
    running = [
        asyncio.create_task(engine.start(stores, await start_of(stores, ops, "ask", child, run_id=run_id)))
        for engine, stores, run_id in zip(engines, places, run_ids, strict=True)
    ]
    await hanging.until_begun()
    done, _ = await asyncio.wait(running, timeout=ENOUGH_SECONDS, return_when=asyncio.FIRST_COMPLETED)
    (parked,) = (task.result() for task in done)
    assert parked.waiting_for == f"child {begun.run_id}"
    assert await places[0].agenda.due_runs(9) == []
    hanging.go_on.set()
    results = await asyncio.wait_for(asyncio.gather(*running), ENOUGH_SECONDS)
    assert {result.phase for result in results} == {RunPhase.COMPLETED, RunPhase.RUNNING}
    assert await places[0].agenda.due_runs(9) == [parked.run_id]
    which = run_ids.index(parked.run_id)
    assert (await resume(engines[which], places[which], parked.run_id)).phase is RunPhase.COMPLETED
    assert hanging.begun == 1
    for stores in places:
        await stores.close()


class Broken(Ops):
    """Knows nothing but what it was given, and has a mistake besides."""

    def resolve(self, manifest: RunManifest) -> ExecutionPlan:
        if manifest.op_id not in self._ops:
            raise LookupError
        return super().resolve(manifest)


async def test_a_process_that_does_not_know_the_childs_operation() -> None:
    """It leaves the child to those who know it, and whoever awaits it waits. A mistake it is told of."""

    async def wait(ctx: Context, io: IoProvider, rec: Recorder) -> None:
        await io.wait_signal("go")

    stores = Stores.in_memory()
    knows, other = (
        Engine(Ops({"descend": descend, "wait": wait})),
        Engine(Ops({"descend": descend, "ask": ask})),
    )
    ops = Ops({"descend": descend, "ask": ask})
    result = await start(knows, stores, await start_of(stores, ops, "descend", ["wait"]))
    child = result.run_id.child("k")
    assert (await resume(other, stores, result.run_id)).waiting_for == f"child {child}"
    first = (await stores.events.read_range(child, 1, 1))[0].event
    assert isinstance(first, RunStarted)
    asked: dict[str, Json] = {"child_run_id": child, "child_manifest_id": first.manifest_id}
    waiting = await start(other, stores, await start_of(stores, ops, "ask", asked))
    assert waiting.waiting_for == f"child {child}"
    failed = await start(Engine(Broken({"ask": ask})), stores, await start_of(stores, ops, "ask", asked))
    assert failed.phase is RunPhase.FAILED
    assert (await stream(stores, failed))[-2] == "failed work child_run_task_failed"
    assert await stores.agenda.due_runs(9) == [child]
    await knows.send(stores, child, SignalLetter("go", 1, "ann"), "letter")
    assert (await resume(knows, stores, result.run_id)).phase is RunPhase.COMPLETED
    assert await stores.agenda.due_runs(9) == [waiting.run_id]
    assert (await resume(other, stores, waiting.run_id)).phase is RunPhase.COMPLETED
