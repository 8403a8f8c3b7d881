"""Runs that go on as new ones: each leg is short, and whoever deals with the first deals with the last."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Mapping
from datetime import timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec
import pytest

from perdure import (
    ConcurrencyError,
    Context,
    ContinueAsNew,
    Engine,
    ExecutionPlan,
    Failpoints,
    IoCall,
    IoMode,
    IoProvider,
    Recorder,
    RunConfig,
    RunId,
    RunManifest,
    RunPhase,
    RunResult,
    RunStarted,
    StateMeta,
    StateOutcome,
    Stores,
)
from perdure.engine.history import RunView
from perdure.engine.letters import ResolveLetter, SignalLetter, StopLetter
from perdure.engine.ownership import KEEPER
from perdure.engine.recovery import read_manifest, read_view
from perdure.errors import Json
from perdure.failpoints import FailpointStop
from perdure.model.events import ContinuedRun
from perdure.proof.replay import replay_run
from perdure.stores.memory import MemoryState, MemoryStore, memory_stores
from perdure.stores.reading import read_json
from perdure.testing import FakeClock
from tests.families import Hanging, Ops, await_child, resume, spawn, start, start_of, turns, write_run
from tests.fundamentals.test_05_effects import APPLIES, Bank
from tests.support import CountingTransport, FixedResolver, Handler, Scripted, plan_of, start_run, stream

LEG = ["started", "entered count 0", "completed count", "run_continued", "run Completed"]


def again(context: Mapping[str, Json] | None = None, **more: Any) -> StateOutcome:
    """That the run is to go on as a new one."""
    return StateOutcome(continuation=ContinueAsNew(context or {}, **more))


async def count(ctx: Context, io: IoProvider, rec: Recorder) -> StateOutcome | None:
    """Counts up to ``until``, one a leg."""
    n, until = (ctx.read("n") or 0) + 1, ctx.read("until")
    ctx.write("n", n)
    return again({"n": n, "until": until}) if n < until else None


def twice(first: Handler, second: Handler) -> Handler:
    """A handler that is ``first`` in a run's first leg, which then goes on, and ``second`` in the next."""

    async def handle(ctx: Context, io: IoProvider, rec: Recorder) -> StateOutcome | None:
        if ctx.read("leg") is None:
            return await first(ctx, io, rec) or again({"leg": 2})
        return await second(ctx, io, rec)

    return handle


async def nothing(ctx: Context, io: IoProvider, rec: Recorder) -> None:
    """Does nothing."""


async def take(ctx: Context, io: IoProvider, rec: Recorder) -> None:
    """Takes three signals."""
    taken = [await io.wait_any("a", "b") for _ in range(3)]
    ctx.write("taken", [each and each.value for each in taken])


async def legs_of(stores: Stores, run_id: RunId) -> list[RunId]:
    """The run and what it goes on as, one after the other."""
    legs = [run_id]
    while (heir := (await read_view(stores, legs[-1])).continued_as) is not None:
        legs.append(heir)
    return legs


async def started(stores: Stores, run_id: RunId) -> RunStarted:
    """A run's first event."""
    event = (await stores.events.read_range(run_id, 1, 1))[0].event
    assert isinstance(event, RunStarted)
    return event


async def context_of(stores: Stores, result: RunResult) -> Any:
    """The context that a run ended with."""
    assert result.final_snapshot_id is not None
    return (await read_json(stores.artifacts, result.final_snapshot_id))[0]


class One:
    """A run of one state, over memory."""

    def __init__(self, handler: Handler, meta: StateMeta | None = None, **more: Any) -> None:
        self.clock = FakeClock()
        self.plan = plan_of(("count", Scripted(handler, meta)))
        self.stores = memory_stores(clock=self.clock)
        self.engine = Engine(FixedResolver(self.plan), clock=self.clock, **more)
        self.run_id = RunId("00000000-0000-0000-0000-000000000001")

    async def start(
        self, context: dict[str, Json] | None = None, config: RunConfig | None = None
    ) -> RunResult:
        run = await start_run(self.stores, self.plan, config, context, self.run_id)
        return await start(self.engine, self.stores, run)

    async def view(self, run_id: RunId | None = None) -> RunView:
        return await read_view(self.stores, run_id or self.run_id)

    @property
    def next_id(self) -> RunId:
        return self.run_id.next_leg()


async def test_a_run_goes_on_as_a_new_one() -> None:
    """The engine drives one leg after the other; the result is the last one's, with its own id."""
    one = One(count)
    result = await one.start({"until": 3})
    legs = await legs_of(one.stores, one.run_id)
    assert (result.phase, result.run_id) == (RunPhase.COMPLETED, legs[2])
    assert await context_of(one.stores, result) == {"n": 3, "until": 3}
    assert [await stream(one.stores, leg) for leg in legs] == [LEG, LEG, [*LEG[:3], LEG[4]]]


async def test_legs_know_each_other() -> None:
    """A leg's id follows from the one before; each names that one, the first, and its own number."""
    one = One(count)
    await one.start({"until": 3})
    legs = await legs_of(one.stores, one.run_id)
    for before, after in pairwise(legs):
        assert after == str(uuid.uuid5(uuid.UUID(before), "continue"))
    assert [(await started(one.stores, leg)).continues for leg in legs] == [
        None,
        ContinuedRun(legs[0], legs[0], 2),
        ContinuedRun(legs[1], legs[0], 3),
    ]
    (link,) = [
        each.event.to_json()["Domain"]["payload"]
        for each in await one.stores.events.read_range(legs[1], 1)
        if "run_continued" in str(each.event.to_json())
    ]
    assert link == {"next_run_id": legs[2], "first_run_id": legs[0], "leg": 3}
    assert [await one.stores.newest_leg(leg) for leg in legs] == [legs[2]] * 3


async def test_a_run_that_does_not_go_on_is_as_it_was() -> None:
    """Its first event has no new field."""
    one = One(nothing)
    await one.start()
    first = (await started(one.stores, one.run_id)).to_json()["Kernel"]["RunStarted"]
    assert list(first) == ["op_id", "manifest_id", "initial_snapshot_id"]
    assert await one.stores.newest_leg(one.run_id) == one.run_id


async def test_what_comes_after_the_state_is_for_the_last_leg() -> None:
    """A leg ends with the state that goes on; the others run when none does."""
    told: list[str] = []

    async def tell(ctx: Context, io: IoProvider, rec: Recorder) -> None:
        told.append("told")

    plan = plan_of(("count", Scripted(count)), ("tell", Scripted(tell)))
    stores = Stores.in_memory()
    run = await start_run(stores, plan, context={"until": 3})
    await start(Engine(FixedResolver(plan)), stores, run)
    assert told == ["told"]


async def test_the_next_leg_is_started_as_the_first_was() -> None:
    """With its manifest, or with another input in it; its context is what was given and nothing else."""

    async def handle(ctx: Context, io: IoProvider, rec: Recorder) -> StateOutcome | None:
        ctx.write("seen", ctx.dump())
        step = ctx.read("step") or 0
        given: list[Json] = [None, [1, {"a": 2}]]
        more = {"input": given[step - 1]} if 1 <= step < 3 else {}
        return again({"step": step + 1}, **more) if step < 3 else None

    one = One(handle)
    result = await one.start({"begun": True})
    manifests = [
        await read_manifest(one.stores, (await started(one.stores, leg)).manifest_id)
        for leg in await legs_of(one.stores, one.run_id)
    ]
    assert manifests[0] == manifests[1]
    assert [each.input_params for each in manifests[2:]] == [{"input": None}, {"input": [1, {"a": 2}]}]
    assert (await context_of(one.stores, result))["seen"] == {"step": 3}


class Picky:
    """A resolver that knows no manifest with an input."""

    def __init__(self, plan: ExecutionPlan) -> None:
        self._plan = plan

    def resolve(self, manifest: RunManifest) -> ExecutionPlan:
        if manifest.input_params:
            raise KeyError("no such input")
        return self._plan


@pytest.mark.parametrize(
    ("wanted", "code"),
    [
        (again({"n": 1.5}), "context_not_canonical"),
        (again({"n": object()}), "context_not_canonical"),
        (again({"password": "correct horse battery"}), "secrets_detected"),
        (again(input=0.5), "manifest_not_canonical"),
        (again(input={"api_key": "correct horse battery"}), "secrets_detected"),
        (again(input=1), "handler_raised"),
    ],
)
async def test_what_could_not_be_started_is_not_gone_on_as(wanted: StateOutcome, code: str) -> None:
    """The attempt fails, with what starting such a run would raise; nothing of the next leg is there."""

    async def handle(ctx: Context, io: IoProvider, rec: Recorder) -> StateOutcome:
        return wanted

    one = One(handle)
    one.engine = Engine(Picky(one.plan), clock=one.clock)
    assert (await one.start()).phase is RunPhase.FAILED
    view = await one.view()
    assert [progress.last_error and progress.last_error.code for progress in view.states.values()] == [code]
    assert not await one.stores.events.head_seq(one.next_id)
    assert await one.stores.newest_leg(one.run_id) == one.run_id


async def test_an_input_needs_a_place() -> None:
    """In a manifest whose parameters are no object there is none."""

    async def handle(ctx: Context, io: IoProvider, rec: Recorder) -> StateOutcome:
        return again(input=1)

    one = One(handle)
    manifest = RunManifest(one.plan.op_id, "1", [1], RunConfig())
    run = await start_run(one.stores, one.plan, run_id=one.run_id)
    manifest_id = await one.stores.put_manifest(manifest)
    run = msgspec.structs.replace(run, manifest=manifest, manifest_id=manifest_id)
    await start(one.engine, one.stores, run)
    errors = [progress.last_error for progress in (await one.view()).states.values()]
    assert [error and error.code for error in errors] == ["continue_input_unsupported"]


async def test_letters_that_nobody_has_read_are_the_next_leg_s() -> None:
    """In their order, however they came: as letters, or as signals that nobody has taken."""

    async def first(ctx: Context, io: IoProvider, rec: Recorder) -> StateOutcome | None:
        await io.wait_signal("go")
        taken = await io.wait_signal("a")
        assert taken is not None
        assert taken.value == "a0"
        return None

    one = One(twice(first, take))
    await one.start()
    for name, value in [("a", "a0"), ("b", "b0"), ("go", None), ("a", "a1"), ("b", "b1")]:
        await one.engine.send(one.stores, one.run_id, SignalLetter(name, value, "ann"), f"{name}{value}")
    result = await resume(one.engine, one.stores, one.run_id)
    assert result.run_id == one.next_id
    assert (await context_of(one.stores, result))["taken"] == ["b0", "a1", "b1"]
    view = await one.view(one.next_id)
    assert view.inbox.letters == {"bb0", "aa1", "bb1"}


async def test_a_letter_that_comes_at_the_last_moment_is_not_lost() -> None:
    """It lies unread when the leg ends, and is read by the next one."""

    async def first(ctx: Context, io: IoProvider, rec: Recorder) -> None:
        for letter in "xyz":
            body = {"kind": "signal", "name": "a", "value": letter, "by": "ann"}
            await one.stores.mailbox.post(one.run_id, letter, body)

    one = One(twice(first, take))
    result = await one.start()
    assert (await context_of(one.stores, result))["taken"] == ["x", "y", "z"]
    assert await one.stores.mailbox.unread(one.run_id) == []


async def test_a_letter_that_the_next_leg_took_over_is_not_heard_twice() -> None:
    """Its id goes along."""
    begun = Hanging()
    one = One(twice(begun.handle, take))
    running = asyncio.create_task(one.start())
    await begun.until_begun()
    await one.engine.send(one.stores, one.run_id, SignalLetter("a", 1, "ann"), "once")
    while not (await one.view()).inbox.letters:
        await turns(1)
    begun.go_on.set()
    assert (await running).waiting_for == "signal a or b"
    for value, letter_id in ((1, "once"), (2, "2"), (3, "3")):
        await one.engine.send(one.stores, one.run_id, SignalLetter("a", value, "ann"), letter_id)
    result = await resume(one.engine, one.stores, one.run_id)
    assert (await context_of(one.stores, result))["taken"] == [1, 2, 3]


@pytest.mark.parametrize("how", ["cancel", "terminate"])
async def test_who_stops_the_first_leg_stops_the_last(how: Any) -> None:
    """A letter to a leg that went on is one to the newest."""
    one = One(twice(nothing, take))
    assert (await one.start()).run_id == one.next_id
    await one.engine.send(one.stores, one.run_id, StopLetter(how, "ann", "enough"), "stop")
    result = await resume(one.engine, one.stores, one.run_id)
    assert (result.run_id, result.phase) == (one.next_id, RunPhase.CANCELLED)
    assert (await one.view()).phase is RunPhase.COMPLETED
    with pytest.raises(ConcurrencyError) as refused:
        await one.engine.send(one.stores, one.run_id, StopLetter(how, "ann", "enough"), "again")
    assert refused.value.code == "run_already_terminal"


async def test_a_pause_holds_the_next_leg() -> None:
    """A pause lets the attempt end; if it goes on as a new run, that one stands still."""
    begun = Hanging()
    one = One(twice(begun.handle, nothing))
    running = asyncio.create_task(one.start())
    await begun.until_begun()
    await one.engine.send(one.stores, one.run_id, StopLetter("pause", "ann", "lunch"), "p")
    while not (await one.view()).is_paused:
        await turns(1)
    begun.go_on.set()
    parked = await running
    assert (parked.run_id, parked.waiting_for) == (one.next_id, "being unpaused")
    assert await stream(one.stores, one.next_id) == ["started", "run_paused"]
    await one.engine.send(one.stores, one.run_id, StopLetter("unpause", "ann", ""), "u")
    assert (await resume(one.engine, one.stores, one.run_id)).phase is RunPhase.COMPLETED


async def test_a_run_that_is_told_to_stop_does_not_go_on() -> None:
    """Though its handler takes no notice: the state completes, and the run ends as cancelled."""

    async def stubborn(ctx: Context, io: IoProvider, rec: Recorder) -> StateOutcome:
        return again()

    plan = plan_of(("count", Scripted(nothing)), ("clean", Scripted(stubborn, StateMeta(on_cancel=True))))
    stores = Stores.in_memory()
    engine = Engine(FixedResolver(plan))
    run = await start_run(stores, plan)
    begun = await engine.start(stores, run, drive=False)
    await engine.send(stores, begun.run_id, StopLetter("cancel", "ann", "enough"), "stop")
    result = await resume(engine, stores, begun.run_id)
    assert (result.run_id, result.phase) == (begun.run_id, RunPhase.CANCELLED)
    assert (await stream(stores, begun.run_id))[-2:] == ["completed clean", "run Cancelled"]


async def test_whoever_starts_with_the_key_gets_the_last_leg() -> None:
    """The key names the first leg, from which the others follow."""
    stores, plan = Stores.in_memory(), plan_of(("count", Scripted(count)))
    engine = Engine(FixedResolver(plan))
    run = await start_run(stores, plan, context={"until": 3}, invocation_key="k")
    first, again, looked = [await engine.start(stores, run, drive=drive) for drive in (True, True, False)]
    assert first == again == looked
    assert (await legs_of(stores, RunId.for_invocation("k")))[-1] == first.run_id
    other = await start_run(stores, plan, context={"until": 4}, invocation_key="k")
    with pytest.raises(ConcurrencyError) as refused:
        await engine.start(stores, other)
    assert refused.value.code == "invocation_conflict"


async def test_open_children_are_the_next_leg_s() -> None:
    """It can await them, ends after them, and passes on to them what it is told; ended ones stay behind."""
    hanging = Hanging()

    async def parent(ctx: Context, io: IoProvider, rec: Recorder) -> StateOutcome | None:
        if ctx.read("child") is None:
            ended = await spawn(io, "ended", "quick")
            await await_child(io, "w", ended)
            return again({"child": await spawn(io, "k", "hang"), "other": await spawn(io, "l", "hang", 1)})
        ctx.write("end", await await_child(io, "w", ctx.read("child")))
        return None

    ops, stores = Ops({"parent": parent, "hang": hanging.handle, "quick": nothing}), Stores.in_memory()
    engine = Engine(ops, max_concurrency=3)
    run = await start_of(stores, ops, "parent", run_id=RunId.random())
    assert run.run_id is not None
    heir = run.run_id.next_leg()
    running = asyncio.create_task(engine.start(stores, run))
    await hanging.until_begun(2)
    while not await stores.events.head_seq(heir):
        await turns(1)
    view = await read_view(stores, heir)
    assert len(view.children) == 2
    spawned = list((await read_view(stores, run.run_id)).children)
    assert list(view.children) == spawned[1:]
    hanging.go_on.set()
    result = await asyncio.wait_for(running, 10)
    assert (await context_of(stores, result))["end"]["status"] == "Completed"
    assert (await stream(stores, heir)).count("child_run_completed") == 2
    assert (await stream(stores, run.run_id)).count("child_run_completed") == 1


async def test_who_stops_a_parent_stops_the_children_that_an_earlier_leg_spawned() -> None:
    """Also when both wait, and nobody drives them."""

    async def wait(ctx: Context, io: IoProvider, rec: Recorder) -> None:
        await io.wait_signal("never")

    async def parent(ctx: Context, io: IoProvider, rec: Recorder) -> StateOutcome | None:
        if ctx.read("leg") is None:
            return again({"leg": 2, "child": await spawn(io, "k", "wait")})
        await io.wait_signal("never")
        return None

    ops, stores = Ops({"parent": parent, "wait": wait}), Stores.in_memory()
    engine = Engine(ops)
    run = await start_of(stores, ops, "parent", run_id=RunId.random())
    assert run.run_id is not None
    await start(engine, stores, run)
    await engine.send(stores, run.run_id, StopLetter("cancel", "ann", "enough"), "stop")
    result = await resume(engine, stores, run.run_id)
    assert result.phase is RunPhase.CANCELLED
    for run_id in await stores.events.list_runs():
        assert (await read_view(stores, run_id)).phase is not RunPhase.RUNNING


@pytest.mark.parametrize("places", [1, 5])
async def test_a_child_that_goes_on_is_awaited_to_its_last_leg(places: int) -> None:
    """Its parent sees one child, which takes one place, and so do its own children."""

    async def leaf(ctx: Context, io: IoProvider, rec: Recorder) -> None:
        await turns(1)

    async def child(ctx: Context, io: IoProvider, rec: Recorder) -> StateOutcome | None:
        n = (ctx.read("n") or 0) + 1
        await await_child(io, "w", await spawn(io, "k", "leaf", n))
        ctx.write("n", n)
        return again({"n": n}) if n < 4 else None

    async def parent(ctx: Context, io: IoProvider, rec: Recorder) -> None:
        children = [await spawn(io, f"k{number}", "child", number) for number in range(2)]
        ends = await asyncio.gather(*(await_child(io, f"w{n}", each) for n, each in enumerate(children)))
        assert [end["child_run_id"] for end in ends] == [each["child_run_id"] for each in children]
        ctx.write("ends", [end["final_snapshot"]["n"] for end in ends])

    ops, stores = Ops({"parent": parent, "child": child, "leaf": leaf}), Stores.in_memory()
    engine = Engine(ops, max_concurrency=places)
    result = await start(engine, stores, await start_of(stores, ops, "parent"))
    assert (await context_of(stores, result))["ends"] == [4, 4]
    assert not engine._dispatcher._driven  # type: ignore[attr-defined]  # nothing is left behind
    assert not engine._dispatcher._driven_for  # type: ignore[attr-defined]  # nothing is left behind
    depths = {
        each.parent.depth
        for run_id in await stores.events.list_runs()
        if (each := await started(stores, run_id)).parent is not None
    }
    assert depths == {1, 2}


@pytest.mark.parametrize("place", ["memory", "sqlite"])
async def test_a_parked_parent_is_woken_by_its_child_s_last_leg(place: str, tmp_path: Path) -> None:
    """Not by those before: that one leg follows another is no end."""

    async def child(ctx: Context, io: IoProvider, rec: Recorder) -> StateOutcome | None:
        await io.wait_signal("go")
        n = (ctx.read("n") or 0) + 1
        ctx.write("n", n)
        return again({"n": n}) if n < 3 else None

    async def parent(ctx: Context, io: IoProvider, rec: Recorder) -> None:
        looked.append(1)
        end = await await_child(io, "w", await spawn(io, "k", "child"))
        ctx.write("n", end["final_snapshot"]["n"])

    looked: list[int] = []
    ops = Ops({"parent": parent, "child": child})
    async with memory_stores() if place == "memory" else Stores.sqlite(tmp_path / "runs.db") as stores:
        engine = Engine(ops)
        run = await start_of(stores, ops, "parent", run_id=RunId.random())
        parked = await start(engine, stores, run)
        assert run.run_id is not None
        (child_id,) = (await read_view(stores, run.run_id)).children
        assert parked.waiting_for == f"child {child_id}"
        for legs in (2, 3, 3):
            assert await stores.agenda.due_runs(9) == []
            await engine.send(stores, child_id, SignalLetter("go", None, "ann"), str(uuid.uuid4()))
            (due,) = await stores.agenda.due_runs(9)
            await resume(engine, stores, due)
            assert len(await legs_of(stores, child_id)) == legs
        assert len(looked) == 1
        assert await stores.agenda.due_runs(9) == [run.run_id]
        result = await resume(engine, stores, run.run_id)
        assert (await context_of(stores, result))["n"] == 3


async def test_a_child_that_failed_in_a_later_leg_has_failed() -> None:
    """Its parent is told which state, and why."""

    async def fail(ctx: Context, io: IoProvider, rec: Recorder) -> None:
        raise ValueError("no")

    async def parent(ctx: Context, io: IoProvider, rec: Recorder) -> None:
        ctx.write("end", await await_child(io, "w", await spawn(io, "k", "child")))

    ops = Ops({"parent": parent, "child": twice(nothing, fail)})
    stores = Stores.in_memory()
    result = await start(Engine(ops), stores, await start_of(stores, ops, "parent"))
    end = (await context_of(stores, result))["end"]
    assert (end["status"], end["error"]) == (
        "Failed",
        {"code": "handler_raised", "state_id": "child.main.work"},
    )


async def test_no_leg_follows_an_effect_in_doubt() -> None:
    """The run waits for a word on it, tries the state once more, and goes on then."""
    swallowed = 0

    async def first(ctx: Context, io: IoProvider, rec: Recorder) -> None:
        nonlocal swallowed
        ctx.write("receipt", (await io.call(IoCall("bank", {"amount": 7}))).response)

    async def silent(ctx: Context, io: IoProvider, rec: Recorder) -> StateOutcome | None:
        nonlocal swallowed
        try:
            await asyncio.wait_for(first(ctx, io, rec), 0.01)
        except TimeoutError:
            swallowed += 1
        return again({"leg": 2})

    class Deaf(Bank):
        async def call(self, call: IoCall) -> Json:
            await asyncio.Event().wait()

    bank = Deaf()
    stores = Stores.in_memory()
    plan = plan_of(("count", Scripted(twice(silent, nothing), APPLIES)))
    engine = Engine(FixedResolver(plan), bank)
    parked = await start(engine, stores, await start_run(stores, plan))
    (effect,) = (await read_view(stores, parked.run_id)).in_doubt
    assert parked.waiting_for == f"effect_in_doubt {effect.key}"
    assert (await stream(stores, parked.run_id))[-1] == "failed count continued_in_doubt"
    assert (await read_view(stores, parked.run_id)).waiting_for == parked.waiting_for
    told = ResolveLetter(effect.key, True, {"receipt": 1}, "ann", "on the statement")
    await engine.send(stores, parked.run_id, told, "told")
    result = await resume(engine, stores, parked.run_id)
    assert (result.phase, result.run_id, swallowed) == (RunPhase.COMPLETED, parked.run_id.next_leg(), 1)


async def test_another_state_s_doubt_holds_the_next_leg_up_too() -> None:
    """Whoever swallowed it: the next leg would not know of it."""

    async def pay(ctx: Context, io: IoProvider, rec: Recorder) -> None:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(io.call(IoCall("bank", {"amount": 7})), 0.01)

    class Deaf(Bank):
        async def call(self, call: IoCall) -> Json:
            await asyncio.Event().wait()

    stores = Stores.in_memory()
    plan = plan_of(("pay", Scripted(pay, APPLIES)), ("count", Scripted(count)))
    engine = Engine(FixedResolver(plan), Deaf())
    parked = await start(engine, stores, await start_run(stores, plan, context={"until": 1, "n": -1}))
    (effect,) = (await read_view(stores, parked.run_id)).in_doubt
    assert parked.waiting_for == f"effect_in_doubt {effect.key}"
    assert (await read_view(stores, parked.run_id)).waiting_for == parked.waiting_for
    assert (await resume(engine, stores, parked.run_id)).waiting_for == parked.waiting_for
    told = ResolveLetter(effect.key, True, {"receipt": 1}, "ann", "on the statement")
    await engine.send(stores, parked.run_id, told, "told")
    result = await resume(engine, stores, parked.run_id)
    assert result.run_id == parked.run_id.next_leg()


async def test_every_leg_has_its_own_time() -> None:
    """The run's timeout counts from each leg's start."""

    async def slow(ctx: Context, io: IoProvider, rec: Recorder) -> StateOutcome | None:
        one.clock.advance(3000)
        return await count(ctx, io, rec)

    one = One(slow)
    result = await one.start({"until": 5}, RunConfig(timeout=timedelta(seconds=4)))
    assert result.phase is RunPhase.COMPLETED
    assert len(await legs_of(one.stores, one.run_id)) == 5


async def test_a_leg_is_replayed_by_itself() -> None:
    """Its record is whole; what it asked another leg did not."""

    async def handle(ctx: Context, io: IoProvider, rec: Recorder) -> StateOutcome | None:
        ctx.write("answer", (await io.call(IoCall("test", {"n": ctx.read("n")}, fact_key="k"))).response)
        ctx.write("at", await io.now_millis())
        return await count(ctx, io, rec)

    one = One(handle, transports=CountingTransport())
    await one.start({"until": 3})
    legs = await legs_of(one.stores, one.run_id)
    for leg in legs:
        report = await replay_run(one.stores, leg, FixedResolver(one.plan))
        assert (report.first_difference, len(report.states)) == (None, 1)
    config = RunConfig(io_mode=IoMode.REPLAY, replay_of=legs[1])
    context = {"n": 1, "until": 3}
    replayed = await start(one.engine, one.stores, await start_run(one.stores, one.plan, config, context))
    assert (await context_of(one.stores, replayed))["answer"] == {"asked": {"n": 1}}
    assert (await legs_of(one.stores, replayed.run_id)) == [replayed.run_id]
    assert (await read_view(one.stores, replayed.run_id)).phase is RunPhase.COMPLETED


@pytest.mark.parametrize("point", ["commit.before", "commit.after", "handler.before", "handler.after"])
async def test_whenever_the_process_dies_there_is_one_next_leg(point: str) -> None:
    """The end of one leg and the beginning of the next are one commit."""
    hit = 0
    while True:
        hit += 1
        one = One(count)
        points = Failpoints.parse([f"{point}:{hit}=stop"])
        dying = Engine(FixedResolver(one.plan), failpoints=points, clock=one.clock)
        run = await start_run(one.stores, one.plan, context={"until": 3}, run_id=one.run_id)
        left = await start(dying, one.stores, run)
        if left.phase is not RunPhase.RUNNING:
            break
        head = await one.stores.events.head_seq(one.run_id)
        if head:
            result = await resume(one.engine, one.stores, one.run_id)
            assert (await context_of(one.stores, result)) == {"n": 3, "until": 3}
            legs = await legs_of(one.stores, one.run_id)
            assert result.run_id == legs[-1]
            assert sorted(legs) == sorted(await one.stores.events.list_runs())
    assert hit > 3


async def test_a_dead_owner_s_next_leg_is_due_at_once() -> None:
    """It was begun, and nobody drives it."""
    clock = FakeClock()
    state = MemoryState()
    stores, plan = memory_stores(state, clock), plan_of(("count", Scripted(count)))
    dying = Engine(FixedResolver(plan), failpoints=Failpoints.parse(["commit.after:2=stop"]), clock=clock)
    left = await start(dying, stores, await start_run(stores, plan, context={"until": 2}))
    assert left.phase is RunPhase.RUNNING
    assert await stores.agenda.due_runs(9) == [left.run_id.next_leg()]


async def test_a_leg_that_awaits_an_earlier_leg_of_its_own_does_not_hang() -> None:
    """In memory it would wait for itself for ever; parked, it can be told to stop."""

    async def child(ctx: Context, io: IoProvider, rec: Recorder) -> StateOutcome | None:
        if ctx.read("me") is None:
            return again({"me": me[0]})
        await await_child(io, "w", ctx.read("me"))
        return None

    async def parent(ctx: Context, io: IoProvider, rec: Recorder) -> None:
        me.append(await spawn(io, "k", "child"))
        await await_child(io, "w", me[0])

    me: list[Any] = []
    ops, stores = Ops({"parent": parent, "child": child}), Stores.in_memory()
    engine = Engine(ops)
    parked = await start(engine, stores, await start_of(stores, ops, "parent"))
    assert parked.waiting_for == f"child {me[0]['child_run_id']}"
    await engine.send(stores, parked.run_id, StopLetter("cancel", "ann", "enough"), "stop")
    assert (await resume(engine, stores, parked.run_id)).phase is RunPhase.CANCELLED


async def test_two_ports_make_a_chain_too() -> None:
    """Without an index, and though one commit is two: a leg that a dead process began is the next one."""

    class EventsOnly:
        """The contract's events."""

        def __init__(self, store: MemoryStore) -> None:
            self.head_seq = store.head_seq
            self.read_range = store.read_range
            self.read_engine_events = store.read_engine_events
            self.list_runs = store.list_runs
            self._append = store.append
            self.appends_left: int | None = None

        async def append(self, run_id: RunId, expected_seq: int, events: Any, claim: Any = None) -> int:
            if self.appends_left is not None:
                self.appends_left -= 1
                if self.appends_left < 0:
                    raise FailpointStop
            return await self._append(run_id, expected_seq, events)

    for appends in range(1, 20):
        store = MemoryStore(MemoryState(), FakeClock())
        only = EventsOnly(store)
        plan = plan_of(("count", Scripted(count)))
        run = await start_run(Stores(store, store), plan, context={"until": 3}, run_id=RunId.random())
        only.appends_left = appends
        assert run.run_id is not None
        dying = Stores(only, store, clock=FakeClock())
        left = await start(Engine(FixedResolver(plan)), dying, run)
        only.appends_left = None
        later = Stores(only, store, clock=FakeClock())
        result = await resume(Engine(FixedResolver(plan)), later, run.run_id)
        assert (await context_of(later, result))["n"] == 3
        assert [await stream(later, leg) for leg in await legs_of(later, run.run_id)][-1][
            -1
        ] == "run Completed"
        assert len(await later.events.list_runs()) == 3
        assert await later.newest_leg(run.run_id) == result.run_id
        if left.phase is not RunPhase.RUNNING:
            return
    raise AssertionError("the run is longer than was thought")


async def test_another_run_of_the_next_leg_s_id_is_not_gone_on_as() -> None:
    """Somebody else has written it."""
    one = One(count)
    await write_run(one.stores, one.next_id)
    with pytest.raises(ConcurrencyError) as refused:
        await one.start({"until": 2})
    assert refused.value.code == "run_already_exists"


async def test_a_caller_who_is_interrupted_leaves_the_leg_to_others() -> None:
    """At whatever turn: no claim stays behind, neither on the old leg nor on the new one."""
    for number in range(1, 60):
        one = One(count)
        run = await start_run(one.stores, one.plan, context={"until": 3}, run_id=one.run_id)
        running = asyncio.create_task(one.engine.start(one.stores, run))
        await turns(number)
        running.cancel()
        await asyncio.wait({running})
        assert not KEEPER._held
        if not running.cancelled():
            return
        if await one.stores.events.head_seq(one.run_id):
            result = await resume(Engine(FixedResolver(one.plan), clock=one.clock), one.stores, one.run_id)
            assert (await context_of(one.stores, result))["n"] == 3
    raise AssertionError("the run is longer than was thought")


async def test_legs_leave_nothing_behind_in_memory() -> None:
    """However many they are: neither frames of calls, nor claims, nor letters that are looked for."""
    depths: list[int] = []

    async def handle(ctx: Context, io: IoProvider, rec: Recorder) -> StateOutcome | None:
        task = asyncio.current_task()
        assert task is not None
        depths.append(len(asyncio.all_tasks()))
        assert len(KEEPER._held) == 1
        return await count(ctx, io, rec)

    one = One(handle)
    result = await one.start({"until": 1500})
    assert (await context_of(one.stores, result))["n"] == 1500
    assert len(set(depths)) == 1
    assert len(one.engine._prepared._runs) == 0
    assert await one.stores.newest_leg(one.run_id) == result.run_id
