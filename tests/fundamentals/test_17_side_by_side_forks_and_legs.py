"""Runs whose states run side by side are forked, and go on as new ones, as others are and do."""

from __future__ import annotations

import pytest

from perdure import (
    Context,
    ContinueAsNew,
    Engine,
    ExecutionPlan,
    FanOutJoin,
    ForkRun,
    InvalidPlanError,
    IoProvider,
    Recorder,
    RunConfig,
    RunManifest,
    RunPhase,
    RunResult,
    StateMeta,
    StateOutcome,
    Stores,
)
from perdure.engine.letters import StopLetter
from perdure.engine.recovery import read_view
from perdure.errors import Json
from perdure.proof.replay import replay_run
from perdure.stores.reading import read_json
from tests.support import CountingTransport, FixedResolver, Handler, Scripted, plan_of, start_run, stream

CONFIG = RunConfig(execution_mode=FanOutJoin(4))


def adds(name: str) -> Handler:
    """A handler that writes what it sees of ``x``, and the names that it sees."""

    async def handler(ctx: Context, io: IoProvider, rec: Recorder) -> None:
        ctx.write(name, [ctx.read("x"), sorted(ctx.dump())])

    return handler


def diamond() -> ExecutionPlan:
    return plan_of(
        *((name, Scripted(adds(name))) for name in ("a", "left", "right", "join")),
        edges=[("a", "left"), ("a", "right"), ("left", "join"), ("right", "join")],
    )


async def context_of(stores: Stores, result: RunResult) -> Json:
    assert result.final_snapshot_id is not None
    return (await read_json(stores.artifacts, result.final_snapshot_id))[0]


@pytest.mark.parametrize(
    ("at", "x_seen"),
    [
        ("a", {"a": 2, "left": 2, "right": 2, "join": 2}),
        ("left", {"a": 1, "left": 2, "right": 1, "join": 2}),
        ("right", {"a": 1, "left": 1, "right": 2, "join": 2}),
        ("join", {"a": 1, "left": 1, "right": 1, "join": 2}),
    ],
)
async def test_what_is_set_is_seen_by_the_state_and_by_all_after_it(at: str, x_seen: dict[str, int]) -> None:
    """It counts as written by the state at which the run was forked; who runs beside that sees it not."""
    stores, resolver = Stores.in_memory(), FixedResolver(diamond())
    engine = Engine(resolver, transports=CountingTransport())
    origin = await engine.start(stores, await start_run(stores, diamond(), CONFIG, {"x": 1}))
    fork = await engine.fork(stores, ForkRun(origin.run_id, at, {"x": 2}))
    assert fork.phase is RunPhase.COMPLETED
    context = await context_of(stores, fork)
    assert {name: context[name][0] for name in x_seen} == x_seen
    assert context["x"] == 2
    assert (await replay_run(stores, fork.run_id, resolver)).first_difference is None
    unchanged = await engine.fork(stores, ForkRun(origin.run_id, at))
    assert unchanged.final_snapshot_id == origin.final_snapshot_id


async def test_a_fork_that_was_left_goes_on_with_what_was_set() -> None:
    """Whoever takes it up knows of it from the stream alone."""
    stores, resolver = Stores.in_memory(), FixedResolver(diamond())
    engine = Engine(resolver)
    origin = await engine.start(stores, await start_run(stores, diamond(), CONFIG, {"x": 1}))
    fork = await engine.fork(stores, ForkRun(origin.run_id, "left", {"x": 2}), drive=False)
    assert fork.phase is RunPhase.RUNNING
    done = await Engine(resolver).resume(stores, fork.run_id)
    context = await context_of(stores, done)
    assert (context["left"][0], context["right"][0], context["join"][0]) == (2, 1, 2)


FORKED_TWICE = [(first, second) for first in ("left", "right") for second in ("left", "right", "join")]


@pytest.mark.parametrize(("first", "second"), FORKED_TWICE)
async def test_what_was_set_in_a_fork_holds_in_a_fork_of_it(first: str, second: str) -> None:
    """Whether the state at which it was set is carried over, or executed anew."""
    stores, resolver = Stores.in_memory(), FixedResolver(diamond())
    engine = Engine(resolver)
    origin = await engine.start(stores, await start_run(stores, diamond(), CONFIG, {"x": 1, "y": 1}))
    fork = await engine.fork(stores, ForkRun(origin.run_id, first, {"x": 2}))
    again = await engine.fork(stores, ForkRun(fork.run_id, second))
    assert again.final_snapshot_id == fork.final_snapshot_id
    changed = await context_of(stores, await engine.fork(stores, ForkRun(fork.run_id, second, {"y": 2})))
    assert (changed["x"], changed["y"]) == (2, 2)
    assert changed[first][0] == 2


async def test_what_is_set_does_not_hide_what_new_states_before_it_write() -> None:
    """Of a version with another state before that at which the run is forked."""
    stores = Stores.in_memory()
    origin = await Engine(FixedResolver(diamond())).start(
        stores, await start_run(stores, diamond(), CONFIG, {"x": 1})
    )
    names = ("a", "left", "right", "new", "join")
    more = plan_of(
        *((name, Scripted(adds(name))) for name in names),
        edges=[("a", "left"), ("a", "new"), ("new", "right"), ("left", "join"), ("right", "join")],
    )
    manifest = RunManifest(more.op_id, "2", {}, CONFIG)
    at_right = ForkRun(origin.run_id, "right", {"x": 2}, manifest)
    context = await context_of(stores, await Engine(FixedResolver(more)).fork(stores, at_right))
    assert context["right"] == [2, ["a", "new", "x"]]
    assert context["join"] == [2, ["a", "left", "new", "right", "x"]]


OTHER_ORDERS = [
    [("a", "left"), ("left", "right"), ("right", "join")],
    [("left", "join"), ("right", "join")],
]


@pytest.mark.parametrize("edges", OTHER_ORDERS)
async def test_carried_states_have_found_what_they_find_in_the_plan(edges: list[tuple[str, str]]) -> None:
    """Else what one of them has written would be lost, or be seen by who does not come after it."""
    stores = Stores.in_memory()
    origin = await Engine(FixedResolver(diamond())).start(
        stores, await start_run(stores, diamond(), CONFIG, {"x": 1})
    )
    names = ("a", "left", "right", "join")
    changed = plan_of(*((name, Scripted(adds(name))) for name in names), edges=edges)
    manifest = RunManifest(changed.op_id, "2", {}, CONFIG)
    engine = Engine(FixedResolver(changed))
    with pytest.raises(InvalidPlanError, match="fork_order_changed"):
        await engine.fork(stores, ForkRun(origin.run_id, "join", manifest=manifest))
    sooner = await engine.fork(stores, ForkRun(origin.run_id, "left", manifest=manifest))
    assert set(await context_of(stores, sooner)) == {*names, "x"}
    same = RunManifest(changed.op_id, "3", {}, CONFIG)
    fork = await Engine(FixedResolver(diamond())).fork(stores, ForkRun(origin.run_id, "join", manifest=same))
    assert fork.final_snapshot_id == origin.final_snapshot_id


async def test_what_is_set_settles_a_contradiction_about_it_and_no_other() -> None:
    """Two states have written two keys, and who joins them is told what one of these holds, or both."""

    async def both(ctx: Context, io: IoProvider, rec: Recorder) -> None:
        ctx.write("x", 0)
        ctx.write("y", 0)

    plan = plan_of(
        ("left", Scripted(both)),
        ("right", Scripted(both)),
        ("join", Scripted(adds("join"))),
        edges=[("left", "join"), ("right", "join")],
    )
    stores, engine = Stores.in_memory(), Engine(FixedResolver(plan))
    origin = await engine.start(stores, await start_run(stores, plan, CONFIG))
    assert origin.phase is RunPhase.FAILED
    assert (await engine.fork(stores, ForkRun(origin.run_id, "join", {"x": 5}))).phase is RunPhase.FAILED
    settled = await engine.fork(stores, ForkRun(origin.run_id, "join", {"x": 5, "y": 6}))
    assert await context_of(stores, settled) == {"x": 5, "y": 6, "join": [5, ["x", "y"]]}


@pytest.mark.parametrize(("before", "after"), [(CONFIG, RunConfig()), (RunConfig(), CONFIG)])
async def test_a_fork_s_states_run_side_by_side_as_the_run_s_did(before: RunConfig, after: RunConfig) -> None:
    """What was carried over was put together otherwise; what a state beside had written would be lost."""
    stores, engine = Stores.in_memory(), Engine(FixedResolver(diamond()))
    origin = await engine.start(stores, await start_run(stores, diamond(), before, {"x": 1}))
    manifest = RunManifest(diamond().op_id, "1", {}, after)
    with pytest.raises(InvalidPlanError, match="fork_mode_changed"):
        await engine.fork(stores, ForkRun(origin.run_id, "join", manifest=manifest))
    places = RunManifest(diamond().op_id, "1", {}, RunConfig(execution_mode=FanOutJoin(1)))
    if before is CONFIG:
        fork = await engine.fork(stores, ForkRun(origin.run_id, "join", manifest=places))
        assert fork.final_snapshot_id == origin.final_snapshot_id


async def goes_on(ctx: Context, io: IoProvider, rec: Recorder) -> StateOutcome | None:
    """Goes on as a new run, twice."""
    leg = (ctx.read("leg") or 0) + 1
    return StateOutcome(continuation=ContinueAsNew({"leg": leg})) if leg < 3 else None


async def test_a_run_goes_on_as_a_new_one_from_where_its_states_meet() -> None:
    """The state that says so comes after all others, so nothing else is under way."""
    last = Scripted(goes_on)
    plan = plan_of(
        ("left", Scripted(adds("left"))),
        ("right", Scripted(adds("right"))),
        ("last", last),
        edges=[("left", "last"), ("right", "last")],
    )
    stores = Stores.in_memory()
    engine = Engine(FixedResolver(plan))
    start = await start_run(stores, plan, CONFIG)
    first_leg = await engine.start(stores, start)
    assert first_leg.phase is RunPhase.COMPLETED
    view = await read_view(stores, first_leg.run_id)
    assert view.started is not None
    assert view.started.continues is not None
    assert view.started.continues.leg == 3
    assert (await stream(stores, view.started.continues.first_run_id))[-2:] == [
        "run_continued",
        "run Completed",
    ]
    assert (await context_of(stores, first_leg))["left"] == [None, ["leg"]]


async def test_who_may_run_beside_others_does_not_go_on() -> None:
    """Whether others are under way at that moment is a matter of chance; the plan is not."""
    plan = plan_of(("left", Scripted(goes_on)), ("right", Scripted(adds("right"))), edges=[])
    stores = Stores.in_memory()
    result = await Engine(FixedResolver(plan)).start(stores, await start_run(stores, plan, CONFIG))
    assert result.phase is RunPhase.FAILED
    error = (await read_view(stores, result.run_id)).states["m.main.left"].last_error  # type: ignore[index]
    assert error is not None
    assert error.code == "continued_side_by_side"
    assert "m.main.right" in error.message


@pytest.mark.parametrize("config", [CONFIG, RunConfig()])
async def test_a_state_that_cleans_up_cannot_go_on_either(config: RunConfig) -> None:
    """The run was told to stop: it is cancelled, with what the state has written."""

    async def waits(ctx: Context, io: IoProvider, rec: Recorder) -> None:
        await io.wait_signal("never")

    plan = plan_of(
        ("waits", Scripted(waits)), ("cleans", Scripted(goes_on, StateMeta(on_cancel=True))), edges=[]
    )
    stores, engine = Stores.in_memory(), Engine(FixedResolver(plan))
    run = await engine.start(stores, await start_run(stores, plan, config))
    await engine.send(stores, run.run_id, StopLetter("cancel", "ann", "enough"), "letter")
    assert (await engine.resume(stores, run.run_id)).phase is RunPhase.CANCELLED
    assert (await stream(stores, run.run_id))[-2:] == ["completed cleans", "run Cancelled"]
