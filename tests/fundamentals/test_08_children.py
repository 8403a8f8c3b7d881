"""Child runs: spawned in one commit, executed once, awaited by anybody, and linked to their parent."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import pytest

from perdure import (
    ArtifactId,
    Context,
    DomainEvent,
    Engine,
    ExecutionPlan,
    Failpoints,
    IoCall,
    IoError,
    IoProvider,
    OpId,
    Recorder,
    RunCompleted,
    RunConfig,
    RunManifest,
    RunPhase,
    RunStarted,
    StateEntered,
    StateError,
    StateFailed,
    StateGraph,
    StateId,
    StateNode,
    Stores,
    artifact_id_for_json,
)
from perdure.engine.decide import PlannedRun, decide
from perdure.engine.history import RunView
from perdure.engine.letters import StopLetter
from perdure.errors import Json
from perdure.ids import RunId
from perdure.model.events import Event
from perdure.model.pipeline import Pipeline, manifest_for
from perdure.testing.clock import FakeClock
from tests.families import AWAIT, SPAWN, Ops, await_child, context_of, spawn, spawn_request, start_of
from tests.slow_stores import slow_stores
from tests.support import Scripted


async def double(ctx: Context, io: IoProvider, rec: Recorder) -> None:
    """The simplest child."""
    number: Any = ctx.read("input")
    ctx.write("doubled", number * 2)


async def two_children(ctx: Context, io: IoProvider, rec: Recorder) -> None:
    """Spawns two, then awaits both."""
    children = [await spawn(io, f"spawn:{number}", "double", number) for number in range(2)]
    ends = [await await_child(io, f"await:{number}", child) for number, child in enumerate(children)]
    ctx.write("ends", ends)


OPS = Ops({"double": double, "two": two_children})


async def links_of(stores: Stores, run_id: RunId) -> list[tuple[str, str]]:
    """The links of a parent to its children, in order."""
    return [
        (envelope.event.name, envelope.event.payload["child_run_id"])
        for envelope in await stores.events.read_range(run_id, 1)
        if isinstance(envelope.event, DomainEvent) and envelope.event.name.startswith("child_run")
    ]


async def test_a_parent_has_its_children_do_part_of_the_work() -> None:
    """Two links each way, ids that anybody can compute, and answers of the wire's shape."""
    stores = Stores.in_memory()
    result = await Engine(OPS).start(stores, await start_of(stores, OPS, "two"))
    assert result.phase is RunPhase.COMPLETED
    parent = result.run_id
    ids = [parent.child(f"spawn:{number}") for number in range(2)]
    assert await links_of(stores, parent) == [
        *(("child_run_spawned", each) for each in ids),
        *(("child_run_completed", each) for each in ids),
    ]
    for number, child in enumerate(ids):
        first = (await stores.events.read_range(child, 1, 1))[0].event
        assert isinstance(first, RunStarted)
        assert first.parent is not None
        assert (first.parent.run_id, first.parent.depth) == (parent, 1)
        manifest = manifest_for(Pipeline.of_op("double", "1"), number, RunConfig())
        assert first.manifest_id == artifact_id_for_json(manifest.to_json())
        assert await context_of(stores, child) == {"input": number, "doubled": 2 * number}
    ends = (await context_of(stores, parent))["ends"]
    assert [end["final_snapshot"]["doubled"] for end in ends] == [0, 2]
    assert ends[0].keys() == {"child_run_id", "status", "final_snapshot_id", "final_snapshot"}


async def test_replay_reaches_the_recorded_ids() -> None:
    """A parent is replayed from its own facts; no child is executed."""
    stores = Stores.in_memory()
    engine = Engine(OPS)
    result = await engine.start(stores, await start_of(stores, OPS, "two"))
    config = RunConfig.from_json(RunConfig().to_json() | {"io_mode": "Replay", "replay_of": result.run_id})
    replayed = await engine.start(stores, await start_of(stores, OPS, "two", config=config))
    assert replayed.final_snapshot_id == result.final_snapshot_id
    assert len(await stores.events.list_runs(limit=100)) == 4


async def test_a_spawn_is_one_commit_for_both_runs() -> None:
    """Whichever commit is the last one: a child has its link, and a link its child."""
    for hit in range(1, 12):
        stores = Stores.in_memory()
        engine = Engine(OPS, failpoints=Failpoints.parse([f"commit.before:{hit}=stop"]))
        start = await start_of(stores, OPS, "two", run_id=RunId.random())
        result = await engine.start(stores, start)
        runs = set(await stores.events.list_runs(limit=100))
        if result.run_id not in runs:
            continue
        linked = {child for name, child in await links_of(stores, result.run_id) if "spawned" in name}
        assert linked == runs - {result.run_id}
        resumed = await Engine(OPS).resume(stores, result.run_id)
        assert resumed.phase is RunPhase.COMPLETED
        assert [end["status"] for end in (await context_of(stores, result.run_id))["ends"]] == [
            "Completed",
            "Completed",
        ]


async def refusal(
    request: Any, namespace: str = SPAWN, key: str | None = "k", **options: Any
) -> tuple[str, int]:
    """The code of a request's refusal, and how many runs there are then besides the one that asked."""
    codes: list[str] = []

    async def ask(ctx: Context, io: IoProvider, rec: Recorder) -> None:
        with pytest.raises(IoError) as caught:
            await io.call(IoCall(namespace, request, key))
        codes.append(caught.value.code)

    ops = Ops({"ask": ask, "double": double})
    stores = Stores.in_memory()
    result = await Engine(ops, **options).start(stores, await start_of(stores, ops, "ask"))
    assert result.phase is RunPhase.COMPLETED
    return codes[0], len(await stores.events.list_runs(limit=10)) - 1


BAD_SPAWNS: list[tuple[str, Any]] = [
    ("child_run_request_invalid", {}),
    ("child_run_request_invalid", None),
    ("child_run_request_invalid", spawn_request("double") | {"kind": "child_run_spawn_v2"}),
    ("child_run_request_invalid", spawn_request("double") | {"run_config": {}}),
    ("child_run_request_invalid", spawn_request("double") | {"run_config": None}),
    ("child_run_request_invalid", spawn_request("double") | {"initial_context": []}),
    ("child_run_request_invalid", spawn_request("not an id")),
    ("child_run_request_invalid", spawn_request("double") | {"close_policy": "forget"}),
    ("op_not_found", spawn_request("nobody")),
    ("float_not_allowed", spawn_request("double", 1.5)),
    ("secrets_detected", spawn_request("double", {"password": "correct horse"})),
    (
        "child_run_request_invalid",
        spawn_request(
            "double",
            run_config=RunConfig().to_json() | {"execution_mode": {"FanOutJoin": {"max_concurrency": 0}}},
        ),
    ),
]


@pytest.mark.parametrize(("code", "request_"), BAD_SPAWNS)
async def test_a_bad_spawn_leaves_nothing(code: str, request_: Any) -> None:
    """It fails where it is asked for, with its code, and nothing of the child exists."""
    assert await refusal(request_) == (code, 0)


async def test_calls_about_children_need_a_key() -> None:
    """What could not be recorded is not begun."""
    assert await refusal(spawn_request("double"), key=None) == ("missing_fact_key", 0)
    assert await refusal({}, AWAIT, None) == ("missing_fact_key", 0)


async def test_what_a_resolver_raises_is_the_engines_failure() -> None:
    """A mistake in it is told apart from a plan that cannot be."""

    class Broken(Ops):
        def resolve(self, manifest: Any) -> Any:
            if manifest.op_id == "double":
                raise ZeroDivisionError
            return super().resolve(manifest)

    codes: list[str] = []

    async def ask(ctx: Context, io: IoProvider, rec: Recorder) -> None:
        with pytest.raises(IoError) as caught:
            await spawn(io, "k", "double")
        codes.append(caught.value.code)

    ops, stores = Broken({"ask": ask}), Stores.in_memory()
    await Engine(ops).start(stores, await start_of(stores, ops, "ask"))
    assert codes == ["child_run_engine_failed"]


async def test_an_await_names_a_run_that_exists_and_its_manifest() -> None:
    """It never starts what is missing."""
    nobody = {"kind": "child_run_await_v1", "child_run_id": RunId.random(), "child_manifest_id": "0" * 64}
    assert await refusal(nobody, AWAIT) == ("child_run_missing_after_spawn", 0)
    assert await refusal({}, AWAIT) == ("child_run_request_invalid", 0)
    assert await refusal(nobody | {"child_run_id": "7"}, AWAIT) == ("child_run_request_invalid", 0)
    codes: list[str] = []

    async def ask(ctx: Context, io: IoProvider, rec: Recorder) -> None:
        child = await spawn(io, "k", "double", 1)
        with pytest.raises(IoError) as caught:
            await await_child(io, "w", child | {"child_manifest_id": "0" * 64})
        codes.append(caught.value.code)

    ops, stores = Ops({"ask": ask, "double": double}), Stores.in_memory()
    await Engine(ops).start(stores, await start_of(stores, ops, "ask"))
    assert codes == ["child_run_manifest_id_mismatch"]


async def test_a_child_that_was_written_before_is_adopted() -> None:
    """The same manifest and context: driven on if it has to be. Anything else is a conflict."""
    stores, parent = Stores.in_memory(), RunId.random()
    for number in range(2):
        begun = await start_of(stores, OPS, "double", number, run_id=parent.child(f"spawn:{number}"))
        await Engine(OPS).start(stores, begun, drive=bool(number))
    result = await Engine(OPS).start(stores, await start_of(stores, OPS, "two", run_id=parent))
    assert result.phase is RunPhase.COMPLETED
    assert len(await links_of(stores, parent)) == 4

    other = RunId.random()
    await Engine(OPS).start(stores, await start_of(stores, OPS, "double", 7, run_id=other.child("spawn:0")))
    result = await Engine(OPS).start(stores, await start_of(stores, OPS, "two", run_id=other))
    assert result.phase is RunPhase.FAILED
    failed = [
        each.event for each in await stores.events.read_range(other, 1) if isinstance(each.event, StateFailed)
    ]
    assert [each.error.info.code for each in failed] == ["child_run_conflict"]
    assert await links_of(stores, other) == []


async def test_spawns_at_once_share_commits_and_fail_alone() -> None:
    """One that is refused costs the others nothing but their sharing."""
    writes: list[list[str]] = []
    codes: list[str] = []

    async def many(ctx: Context, io: IoProvider, rec: Recorder) -> None:
        prefix = ctx.read("input")
        asked = (spawn(io, f"{prefix}:{number}", "double", number) for number in range(10))
        spawned = await asyncio.gather(*asked, return_exceptions=True)
        codes.extend(each.code for each in spawned if isinstance(each, IoError))
        children = [each for each in spawned if not isinstance(each, BaseException)]
        ends = await asyncio.gather(
            *(await_child(io, f"w{number}", each) for number, each in enumerate(children))
        )
        ctx.write("doubled", [end["final_snapshot"]["doubled"] for end in ends])

    def observe(run_id: RunId, events: Sequence[tuple[int, Event]]) -> None:
        if run_id == parent:
            writes.append([event.name for _, event in events if isinstance(event, DomainEvent)])

    ops = Ops({"many": many, "double": double})
    stores, _ = slow_stores(FakeClock())
    engine = Engine(ops, observer=observe)
    parent = RunId.random()
    await engine.start(stores, await start_of(stores, ops, "many", "a", run_id=parent))
    assert (await context_of(stores, parent))["doubled"] == [2 * number for number in range(10)]
    # The first is written while the others are being asked for.
    assert sum("child_run_spawned" in names for names in writes) == 2
    parent = RunId.random()
    await engine.start(stores, await start_of(stores, ops, "double", 7, run_id=parent.child("b:4")))
    await engine.start(stores, await start_of(stores, ops, "many", "b", run_id=parent))
    assert codes == ["child_run_conflict"]
    rest = [2 * number for number in range(10) if number != 4]
    assert (await context_of(stores, parent))["doubled"] == rest


async def test_a_child_does_what_its_manifest_says() -> None:
    """It is planned once, where it is spawned; what becomes of the request afterwards is not its concern."""
    planned: list[str] = []

    class Noting(Ops):
        def resolve(self, manifest: RunManifest) -> ExecutionPlan:
            planned.append(manifest.op_id)
            return super().resolve(manifest)

    async def ask(ctx: Context, io: IoProvider, rec: Recorder) -> None:
        given: list[Json] = [1]
        child = await spawn(io, "k", "double", given)
        given.append(2)
        ctx.write("end", await await_child(io, "w", child))

    ops, stores = Noting({"ask": ask, "double": double}), Stores.in_memory()
    engine = Engine(ops)
    result = await engine.start(stores, await start_of(stores, ops, "ask"))
    end = (await context_of(stores, result.run_id))["end"]
    assert end["final_snapshot"] == {"input": [1], "doubled": [1, 1]}
    assert planned == ["ask", "double"]
    await engine.resume(stores, result.run_id.child("k"))
    assert planned == ["ask", "double", "double"]


async def test_a_failed_child_is_an_answer() -> None:
    """With the code and the state that ended it."""

    async def fail(ctx: Context, io: IoProvider, rec: Recorder) -> None:
        raise StateError.of("no_funds", "the account is empty")

    async def ask(ctx: Context, io: IoProvider, rec: Recorder) -> None:
        ctx.write("end", await await_child(io, "w", await spawn(io, "k", "fail")))

    ops, stores = Ops({"ask": ask, "fail": fail}), Stores.in_memory()
    result = await Engine(ops).start(stores, await start_of(stores, ops, "ask"))
    end = (await context_of(stores, result.run_id))["end"]
    assert end["status"] == "Failed"
    assert end["error"] == {"code": "no_funds", "state_id": "fail.main.work"}


async def test_depth_is_limited_and_needs_no_places() -> None:
    """A family of depth 3 completes one at a time; one without end stops at its limit."""

    async def descend(ctx: Context, io: IoProvider, rec: Recorder) -> None:
        left: Any = ctx.read("input")
        if left:
            ctx.write("end", await await_child(io, "w", await spawn(io, "k", "descend", left - 1)))

    async def for_ever(ctx: Context, io: IoProvider, rec: Recorder) -> None:
        ctx.write("end", await await_child(io, "w", await spawn(io, "k", "for_ever")))

    ops, stores = Ops({"descend": descend, "for_ever": for_ever}), Stores.in_memory()
    engine = Engine(ops, max_concurrency=1)
    result = await asyncio.wait_for(engine.start(stores, await start_of(stores, ops, "descend", 3)), 10)
    assert result.phase is RunPhase.COMPLETED
    result = await asyncio.wait_for(engine.start(stores, await start_of(stores, ops, "for_ever")), 10)
    end = (await context_of(stores, result.run_id))["end"]
    depth = 1
    while "end" in (end["final_snapshot"] or {}):
        end, depth = end["final_snapshot"]["end"], depth + 1
    assert (depth, end["error"]["code"]) == (16, "child_run_too_deep")


async def test_awaiters_share_one_execution() -> None:
    """Any number of them, also of other runs; one that gives up leaves the others alone."""
    executions: list[Any] = []
    go_on = asyncio.Event()

    async def slow(ctx: Context, io: IoProvider, rec: Recorder) -> None:
        executions.append(ctx.read("input"))
        await go_on.wait()

    async def many(ctx: Context, io: IoProvider, rec: Recorder) -> None:
        child = await spawn(io, "k", "slow", 1)
        stranger = await spawn(io, "s", "stranger", child)
        waiting = [asyncio.ensure_future(await_child(io, f"w{number}", child)) for number in range(5)]
        await asyncio.sleep(0)
        waiting[0].cancel()
        await asyncio.sleep(0)
        go_on.set()
        ends = await asyncio.gather(*waiting[1:], await_child(io, "ws", stranger))
        ctx.write("statuses", [end["status"] for end in ends])

    async def stranger(ctx: Context, io: IoProvider, rec: Recorder) -> None:
        ctx.write("end", await await_child(io, "w", ctx.read("input")))

    ops, stores = Ops({"many": many, "slow": slow, "stranger": stranger}), Stores.in_memory()
    result = await Engine(ops).start(stores, await start_of(stores, ops, "many"))
    assert (await context_of(stores, result.run_id))["statuses"] == ["Completed"] * 5
    assert executions == [1]


@pytest.mark.parametrize(
    ("policy", "has_ended", "fails"), [(None, False, False), (None, True, True), ("abandon", False, True)]
)
def test_a_child_that_kills_its_process_is_not_its_parents_fault(
    policy: str | None, has_ended: bool, fails: bool
) -> None:
    """It has a limit of its own. Its parent, which dies along with it, is to learn of that."""
    state_id, artifact, child = StateId("ask.main.work"), ArtifactId("0" * 64), RunId.random()
    config = RunConfig(recovery_limit=2)
    plan = PlannedRun.of(
        ExecutionPlan(OpId("ask"), StateGraph([StateNode(state_id, Scripted(double))])), config
    )
    link: Any = {"parent_run_id": RunId.random(), "child_run_id": child, "child_manifest_id": artifact}
    events: list[Event] = [
        RunStarted(OpId("ask"), artifact, artifact),
        StateEntered(state_id, 0, artifact),
        DomainEvent("child_run_spawned", link | ({} if policy is None else {"close_policy": policy})),
    ]
    if has_ended:
        end = {"child_run_id": child, "status": "Failed", "final_snapshot_id": None}
        events.append(DomainEvent("child_run_completed", end))
    view = RunView()
    for event in events:
        view.advance(event, view.head_seq + 1)
    codes = []
    for _ in range(5):
        (closing,) = decide(view, plan, config, 0).events
        assert isinstance(closing, StateFailed)
        codes.append(closing.error.info.code)
        for event in (closing, StateEntered(state_id, len(codes), artifact)):
            view.advance(event, view.head_seq + 1)
    assert ("recovery_limit_exceeded" in codes) == fails


async def test_a_parked_child_parks_its_parent() -> None:
    """It is no failure: whoever resumes the child later, the parent goes on after it."""

    async def sleepy(ctx: Context, io: IoProvider, rec: Recorder) -> None:
        await io.sleep(timedelta(days=30))

    async def ask(ctx: Context, io: IoProvider, rec: Recorder) -> None:
        ctx.write("end", await await_child(io, "w", await spawn(io, "k", "sleepy")))

    ops, stores, clock = Ops({"ask": ask, "sleepy": sleepy}), Stores.in_memory(), FakeClock()
    engine = Engine(ops, clock=clock)
    result = await engine.start(stores, await start_of(stores, ops, "ask"))
    child = result.run_id.child("k")
    assert (result.phase, result.waiting_for) == (RunPhase.RUNNING, f"child {child}")
    clock.advance(31 * 24 * 3600 * 1000)
    result = await engine.resume(stores, result.run_id)
    assert result.phase is RunPhase.COMPLETED
    assert (await context_of(stores, result.run_id))["end"]["status"] == "Completed"


@pytest.mark.parametrize(
    ("policy", "child_status"), [("await", "Completed"), ("cancel", "Cancelled"), ("abandon", "Running")]
)
async def test_a_parent_ends_before_its_child(policy: str, child_status: str) -> None:
    """What becomes of the child is what the spawn said."""
    go_on, begun = asyncio.Event(), asyncio.Event()

    async def slow(ctx: Context, io: IoProvider, rec: Recorder) -> None:
        begun.set()
        await go_on.wait()

    async def leave(ctx: Context, io: IoProvider, rec: Recorder) -> None:
        await spawn(io, "k", "slow", **({} if policy == "await" else {"close_policy": policy}))
        await begun.wait()

    stopped = asyncio.Event()

    def observe(run_id: RunId, events: Sequence[tuple[int, Event]]) -> None:
        if any(isinstance(event, RunCompleted) for _, event in events) and run_id == child:
            stopped.set()

    ops, stores, run_id = Ops({"leave": leave, "slow": slow}), Stores.in_memory(), RunId.random()
    child = run_id.child("k")
    engine = Engine(ops, observer=observe)
    parent = asyncio.ensure_future(engine.start(stores, await start_of(stores, ops, "leave", run_id=run_id)))
    await begun.wait()
    if policy == "await":
        await asyncio.wait({parent}, timeout=0.05)
        assert not parent.done()
        go_on.set()
    result = await parent
    assert result.phase is RunPhase.COMPLETED
    if policy == "cancel":
        await stopped.wait()
    last: Any = (await stores.events.read_range(child, await stores.events.head_seq(child)))[0].event
    assert getattr(getattr(last, "status", None), "value", "Running") == child_status
    names = [name for name, _ in await links_of(stores, result.run_id)]
    assert names == ["child_run_spawned"] + ["child_run_completed"] * (policy == "await")


async def test_a_parent_ends_after_the_last_of_its_children() -> None:
    """Those that end while it waits are noted, also if it has to be parked because of the others."""

    async def sleepy(ctx: Context, io: IoProvider, rec: Recorder) -> None:
        await io.sleep(timedelta(days=ctx.read("input")))

    async def leave(ctx: Context, io: IoProvider, rec: Recorder) -> None:
        for number, days in enumerate((2, 0, 3, 0)):
            await spawn(io, f"{number}", "sleepy", days)

    ops, stores, clock = Ops({"leave": leave, "sleepy": sleepy}), Stores.in_memory(), FakeClock()
    engine = Engine(ops, clock=clock)
    result = await engine.start(stores, await start_of(stores, ops, "leave"))
    children = [child for name, child in await links_of(stores, result.run_id) if "spawned" in name]
    for days, left in ((0, [0, 2]), (2, [2]), (1, [])):
        clock.advance(days * 24 * 3600 * 1000)
        result = await engine.resume(stores, result.run_id)
        waiting = ", ".join(f"child {children[number]}" for number in left) or None
        assert (result.waiting_for, result.phase is RunPhase.COMPLETED) == (waiting, not left)
        noted = {child for name, child in await links_of(stores, result.run_id) if "completed" in name}
        assert noted == {child for number, child in enumerate(children) if number not in left}


@pytest.mark.parametrize("policy", ["await", "abandon"])
async def test_cancelling_a_parent_cancels_its_children(policy: str) -> None:
    """All but the abandoned ones, and theirs."""
    begun = asyncio.Event()

    async def slow(ctx: Context, io: IoProvider, rec: Recorder) -> None:
        begun.set()
        await asyncio.get_running_loop().create_future()

    async def ask(ctx: Context, io: IoProvider, rec: Recorder) -> None:
        more = {} if policy == "await" else {"close_policy": policy}
        await await_child(io, "w", await spawn(io, "k", "slow", **more))

    ops, stores = Ops({"ask": ask, "slow": slow}), Stores.in_memory()
    engine = Engine(ops)
    start = await start_of(stores, ops, "ask", run_id=RunId.random())
    assert start.run_id is not None
    running = asyncio.ensure_future(engine.start(stores, start))
    await begun.wait()
    await engine.send(stores, start.run_id, StopLetter("cancel", "ann", "enough"), "letter")
    result = await running
    assert result.phase is RunPhase.CANCELLED
    child = start.run_id.child("k")
    last: Any = (await stores.events.read_range(child, await stores.events.head_seq(child)))[0].event
    assert getattr(getattr(last, "status", None), "value", "Running") == (
        "Cancelled" if policy == "await" else "Running"
    )


async def test_a_stop_of_the_parent_interrupts_its_children() -> None:
    """The failpoint does not apply to them, and resuming goes on with both."""
    begun, again = asyncio.Event(), asyncio.Event()

    async def slow(ctx: Context, io: IoProvider, rec: Recorder) -> None:
        if not begun.is_set():
            begun.set()
            await asyncio.get_running_loop().create_future()
        again.set()

    async def leave(ctx: Context, io: IoProvider, rec: Recorder) -> None:
        await spawn(io, "q", "double", 1)
        await spawn(io, "k", "slow")
        await begun.wait()

    ops, stores = Ops({"leave": leave, "slow": slow, "double": double}), Stores.in_memory()
    engine = Engine(ops, failpoints=Failpoints(stop_after_handler_once=True))
    result = await engine.start(stores, await start_of(stores, ops, "leave"))
    assert result.phase is RunPhase.RUNNING
    assert (await context_of(stores, result.run_id.child("q")))["doubled"] == 2
    result = await engine.resume(stores, result.run_id)
    assert result.phase is RunPhase.COMPLETED
    assert again.is_set()


def test_an_engine_needs_a_place_to_run_children() -> None:
    """Without one they would wait for ever."""
    with pytest.raises(ValueError, match="max_concurrency"):
        Engine(OPS, max_concurrency=0)
