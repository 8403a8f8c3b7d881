"""Forks: runs that begin where another one entered a state."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

import perdure
from perdure import (
    ArtifactId,
    ConcurrencyError,
    Context,
    ContextError,
    CorruptionError,
    DomainEvent,
    EffectTraits,
    Engine,
    ErrorCategory,
    ErrorInfo,
    EventEnvelope,
    ExecutionPlan,
    Failpoints,
    ForkRun,
    InvalidPlanError,
    IoCall,
    IoProvider,
    NotFoundError,
    OpId,
    Recorder,
    RunManifest,
    RunPhase,
    RunResult,
    RunStarted,
    SideEffectKind,
    StateCompleted,
    StateEntered,
    StateError,
    StateId,
    StateMeta,
    Stores,
    TransportEnv,
)
from perdure.engine.carrying import carried_before
from perdure.engine.letters import SignalLetter, StopLetter
from perdure.engine.recovery import read_view
from perdure.errors import Json
from perdure.failpoints import Failpoint
from perdure.ids import RunId
from perdure.model.events import Event
from perdure.proof.replay import replay_run
from tests.families import Ops, await_child, spawn
from tests.handlers import context_of, engine_of, plan
from tests.support import (
    FixedResolver,
    InstantClock,
    Scripted,
    plan_of,
    start_run,
    stream,
)


class Shop:
    """Four states: a price, asked for; money, taken; a bill, in which both stand; and a word of thanks."""

    def __init__(self, *, breaks: bool = False) -> None:
        self.asked: list[str] = []
        self.keys: list[str | None] = []
        self.breaks = breaks
        self.transport = perdure.transport("shop", traits=EffectTraits(is_idempotent=True))(self._answer)

    def _answer(self, call: IoCall, env: TransportEnv) -> Json:
        self.asked.append(call.namespace)
        if call.namespace == "shop.pay":
            self.keys.append(call.idempotency_key)
        return {"answer": len(self.asked)}

    async def price(self, ctx: Context, io: IoProvider, rec: Recorder) -> None:
        await rec.emit(DomainEvent("priced", {}))
        ctx.write("price", (await io.call(IoCall("shop.price", {}, fact_key="price"))).response)
        ctx.write("at", [await io.now_millis(), await io.uuid4()])

    async def pay(self, ctx: Context, io: IoProvider, rec: Recorder) -> None:
        ctx.write("paid", (await io.call(IoCall("shop.pay", {"price": ctx.read("price")}))).response)

    async def bill(self, ctx: Context, io: IoProvider, rec: Recorder) -> None:
        ctx.write("bill", [ctx.read("price"), ctx.read("paid"), await io.now_millis()])
        ctx.write("rate", (await io.call(IoCall("shop.rate", {}, fact_key="rate"))).response)
        if self.breaks:
            raise StateError(ErrorInfo("broken", ErrorCategory.UNKNOWN, False))

    async def thank(self, ctx: Context, io: IoProvider, rec: Recorder) -> None:
        ctx.write("thanks", True)

    def plan(self) -> ExecutionPlan:
        applies = StateMeta(side_effects=SideEffectKind.APPLY_SIDE_EFFECT)
        return plan_of(
            ("price", Scripted(self.price)),
            ("pay", Scripted(self.pay, applies)),
            ("bill", Scripted(self.bill)),
            ("thank", Scripted(self.thank)),
        )

    def engine(self, **options: Any) -> Engine:
        return Engine(FixedResolver(self.plan()), self.transport, clock=InstantClock(), **options)

    async def run(self, stores: Stores) -> RunResult:
        return await self.engine().start(stores, await start_run(stores, self.plan()))


BEFORE_BILL = [
    "entered price 0",
    "fact_recorded",
    "fact_recorded",
    "fact_recorded",
    "priced",
    "completed price",
    "entered pay 0",
    "effect_intended",
    "effect_settled",
    "fact_recorded",
    "completed pay",
]


async def test_a_fork_begins_where_another_run_entered_a_state() -> None:
    """What came before is copied into its stream, which can be read alone; the rest is done anew."""
    shop, stores = Shop(), Stores.in_memory()
    origin = await shop.run(stores)
    before = await stream(stores, origin)
    assert shop.asked == ["shop.price", "shop.pay", "shop.rate"]
    fork = await shop.engine().fork(stores, ForkRun(origin.run_id, "bill", by="ann", reason="to see"))
    assert fork.phase is RunPhase.COMPLETED
    assert shop.asked == ["shop.price", "shop.pay", "shop.rate", "shop.rate"]
    story = await stream(stores, fork)
    assert story[:14] == ["started", *BEFORE_BILL, "run_forked", "entered bill 0"]
    assert story[-3:] == ["entered thank 0", "completed thank", "run Completed"]
    first: Any = (await stores.events.read_range(fork.run_id, 1, 1))[0].event
    where = first.forked_from
    assert (where.run_id, where.state_id, where.seq) == (origin.run_id, "m.main.bill", 13)
    assert (where.set_keys, where.by, where.reason) == ((), "ann", "to see")
    assert RunStarted.from_json(first.to_json()) == first
    assert await stream(stores, origin) == before


async def test_a_fork_is_there_whole_or_not_at_all() -> None:
    """It begins in one commit; a fork that was interrupted goes on as any run."""
    shop, stores = Shop(), Stores.in_memory()
    origin = await shop.run(stores)
    run_id = RunId.random()
    for point, there in (("commit.before", 0), ("commit.after", 14)):
        engine = shop.engine(failpoints=Failpoints(points=[Failpoint(point, 1, kill=False)]))
        await engine.fork(stores, ForkRun(origin.run_id, "bill", run_id=run_id))
        assert await stores.events.head_seq(run_id) == there
    assert (await shop.engine().resume(stores, run_id)).phase is RunPhase.COMPLETED
    assert shop.asked.count("shop.pay") == 1


async def test_values_are_set_in_what_the_state_finds() -> None:
    """Nothing else changes; who set them, and why, is recorded, and they are checked as a handler's are."""
    shop, stores = Shop(), Stores.in_memory()
    origin = await shop.run(stores)
    engine = shop.engine()
    fork = await engine.fork(stores, ForkRun(origin.run_id, "bill", {"price": 7}))
    assert (await context_of(stores, fork))["bill"] == [7, {"answer": 2}, 1_700_000_000_000]
    view = await read_view(stores, fork.run_id)
    assert view.started is not None
    assert view.started.forked_from is not None
    assert view.started.forked_from.set_keys == ("price",)
    assert (await context_of(stores, origin))["price"] == {"answer": 1}
    for values, code in (
        ({"price": 0.5}, "context_not_canonical"),
        ({"price": {"password": "hunter22hunter22"}}, "secrets_detected"),
    ):
        with pytest.raises(ContextError, match=code):
            await engine.fork(stores, ForkRun(origin.run_id, "bill", values))
    with pytest.raises(InvalidPlanError, match="fork_key_unknown") as caught:
        await engine.fork(stores, ForkRun(origin.run_id, "bill", {"prize": 7}))
    assert caught.value.info.details == {"key": "prize", "known": ["at", "paid", "price"]}
    assert len(await stores.events.list_runs()) == 2


async def test_a_run_can_be_forked_in_every_phase() -> None:
    """One that failed, one that was cancelled, one that waits: the fork is told nothing that they were."""
    shop, stores = Shop(breaks=True), Stores.in_memory()
    failed = await shop.run(stores)
    assert failed.phase is RunPhase.FAILED
    shop.breaks = False
    assert (await shop.engine().fork(stores, ForkRun(failed.run_id, "bill"))).phase is RunPhase.COMPLETED

    async def waits(ctx: Context, io: IoProvider, rec: Recorder) -> None:
        signal = await io.wait_signal("go")
        assert signal is not None
        ctx.write(f"signal {len(ctx.dump())}", signal.value)

    engine = engine_of(("a", waits), ("b", waits), ("c", waits))
    run = await engine.start(stores, await start_run(stores, plan(("a", waits), ("b", waits), ("c", waits))))

    async def tell(run_id: RunId, letter: Any, letter_id: str) -> str | None:
        await engine.send(stores, run_id, letter, letter_id)
        return (await engine.resume(stores, run_id)).waiting_for

    assert await tell(run.run_id, StopLetter("pause", "ann", "lunch"), "p") == "being unpaused"
    assert await tell(run.run_id, SignalLetter("go", 1, "ann"), "1") == "being unpaused"
    assert await tell(run.run_id, StopLetter("unpause", "ann", "back"), "u") == "signal go"
    told: list[StopLetter | None] = [
        None,
        StopLetter("pause", "ann", "enough"),
        StopLetter("cancel", "ann", "enough"),
    ]
    for letter in told:
        if letter is not None:
            await tell(run.run_id, letter, letter.how)
        fork = await engine.fork(stores, ForkRun(run.run_id, "b"))
        assert fork.waiting_for == "signal go"
        assert await tell(fork.run_id, SignalLetter("go", 2, "ann"), "2") == "signal go"
        assert await tell(fork.run_id, SignalLetter("go", 3, "ann"), "3") is None
        assert (await read_view(stores, fork.run_id)).phase is RunPhase.COMPLETED


async def test_a_state_must_have_been_entered() -> None:
    """The error names those that were."""
    shop, stores = Shop(breaks=True), Stores.in_memory()
    origin = await shop.run(stores)
    with pytest.raises(NotFoundError, match="fork_state_not_reached") as caught:
        await shop.engine().fork(stores, ForkRun(origin.run_id, "thank"))
    reached = ["m.main.price", "m.main.pay", "m.main.bill"]
    assert caught.value.info.details == {"states": reached}
    assert ", ".join(reached) in caught.value.info.message
    with pytest.raises(NotFoundError, match="run_not_found"):
        await shop.engine().fork(stores, ForkRun(RunId.random(), "bill"))


async def test_forks_are_replayed_as_other_runs_are() -> None:
    """And forks of forks: each state by the facts of the run in which it was executed."""
    shop, stores = Shop(), Stores.in_memory()
    run = await shop.run(stores)
    resolver = FixedResolver(shop.plan())
    executed: list[set[RunId]] = []
    for at in ("thank", "bill", "pay", "pay", "thank", "price"):
        run = await shop.engine().fork(stores, ForkRun(run.run_id, at))
        report = await replay_run(stores, run.run_id, resolver)
        assert (report.states_recorded, report.first_difference) == (4, None)
        executed.append(set((await read_view(stores, run.run_id)).executed_by.values()))
    assert [len(each) for each in executed] == [1, 1, 1, 1, 2, 0]


async def test_a_fork_that_is_made_twice_is_one() -> None:
    """Under one key; another fork under it is refused, and so is a second run of one id."""
    shop, stores = Shop(), Stores.in_memory()
    origin = await shop.run(stores)
    engine = shop.engine()
    once = ForkRun(origin.run_id, "bill", {"price": 7}, invocation_key="again", reason="first")
    fork = await engine.fork(stores, once)
    again = ForkRun(origin.run_id, "m.main.bill", {"price": 7}, invocation_key="again", reason="second")
    assert await engine.fork(stores, again) == fork
    assert shop.asked.count("shop.rate") == 2
    for at, price in (("bill", 8), ("pay", 7)):
        other = ForkRun(origin.run_id, at, {"price": price}, invocation_key="again")
        with pytest.raises(ConcurrencyError, match="invocation_conflict"):
            await engine.fork(stores, other)
    with pytest.raises(ConcurrencyError, match="run_already_exists"):
        await engine.fork(stores, ForkRun(origin.run_id, "bill", run_id=fork.run_id))


async def test_another_state_that_finds_the_same_context_is_another_fork() -> None:
    """Its key is taken, too."""

    async def nothing(ctx: Context, io: IoProvider, rec: Recorder) -> None:
        pass

    engine, stores = engine_of(("a", nothing), ("b", nothing)), Stores.in_memory()
    run = await engine.start(stores, await start_run(stores, plan(("a", nothing), ("b", nothing))))
    await engine.fork(stores, ForkRun(run.run_id, "a", invocation_key="k"))
    with pytest.raises(ConcurrencyError, match="invocation_conflict"):
        await engine.fork(stores, ForkRun(run.run_id, "b", invocation_key="k"))


async def test_effects_of_the_state_are_made_again_under_their_own_keys() -> None:
    """A key that somebody chose is the same again: who honours keys answers as it did, others pay twice."""
    shop, stores = Shop(), Stores.in_memory()
    origin = await shop.run(stores)
    fork = await shop.engine().fork(stores, ForkRun(origin.run_id, "pay"))
    assert shop.keys == [f"{origin.run_id}:m.main.pay:0", f"{fork.run_id}:m.main.pay:0"]
    assert shop.asked.count("shop.price") == 1

    applies = StateMeta(side_effects=SideEffectKind.APPLY_SIDE_EFFECT)

    async def pay(ctx: Context, io: IoProvider, rec: Recorder) -> None:
        await io.call(IoCall("shop.pay", {}, idempotency_key="order-7"))

    states = plan_of(("pay", Scripted(pay, applies)), ("twice", Scripted(pay, applies)))
    engine = Engine(FixedResolver(states), shop.transport)
    run = await engine.start(stores, await start_run(stores, states))
    assert shop.keys[2:] == ["order-7"]
    await engine.fork(stores, ForkRun(run.run_id, "twice"))
    assert shop.keys[2:] == ["order-7"]
    await engine.fork(stores, ForkRun(run.run_id, "pay"))
    assert shop.keys[2:] == ["order-7", "order-7"]


async def test_children_stay_their_parents() -> None:
    """A fork awaits a child that was spawned before it, and has no say in what becomes of it."""

    async def work(ctx: Context, io: IoProvider, rec: Recorder) -> None:
        await io.wait_signal("go")

    ops = Ops({"job": work})

    async def spawns(ctx: Context, io: IoProvider, rec: Recorder) -> None:
        ctx.write("child", await spawn(io, "k", "job", close_policy="cancel"))

    async def awaits(ctx: Context, io: IoProvider, rec: Recorder) -> None:
        again = await spawn(io, "k", "job", close_policy="cancel")
        assert again == ctx.read("child")
        ctx.write("end", (await await_child(io, "w", again))["status"])

    async def lingers(ctx: Context, io: IoProvider, rec: Recorder) -> None:
        await io.wait_signal("never")

    both = plan(("spawns", spawns), ("awaits", awaits), ("lingers", lingers))

    class Resolver:
        def resolve(self, manifest: RunManifest) -> ExecutionPlan:
            return both if manifest.op_id == "op" else ops.resolve(manifest)

    stores, engine = Stores.in_memory(), Engine(Resolver(), clock=InstantClock(), park_after=timedelta())
    origin = await engine.start(stores, await start_run(stores, both))
    child = origin.run_id.child("k")
    fork = await engine.fork(stores, ForkRun(origin.run_id, "awaits"))
    assert fork.waiting_for == origin.waiting_for == f"child {child}"
    assert (await read_view(stores, fork.run_id)).children == {}
    await engine.send(stores, fork.run_id, StopLetter("cancel", "ann", "enough"), "c")
    assert (await engine.resume(stores, fork.run_id)).phase is RunPhase.CANCELLED
    assert (await read_view(stores, child)).phase is RunPhase.RUNNING
    fork = await engine.fork(stores, ForkRun(origin.run_id, "awaits"))
    await engine.send(stores, child, SignalLetter("go", None, "ann"), "g")
    await engine.resume(stores, child)
    assert (await engine.resume(stores, fork.run_id)).waiting_for == "signal never"
    assert (await stream(stores, fork))[-3:-1] == ["completed awaits", "entered lingers 0"]


def test_a_fork_of_states_side_by_side_takes_none_that_was_under_way() -> None:
    """What has not completed when the state was entered is executed anew: of its own nothing is copied."""
    run_id, snapshot = RunId.random(), ArtifactId("0" * 64)
    a, b, c = (StateId(f"m.main.{name}") for name in "abc")

    def fact(key: str) -> DomainEvent:
        return DomainEvent("fact_recorded", {"key": key, "payload_id": snapshot, "meta": {}})

    def effect(state_id: StateId, key: str) -> list[DomainEvent]:
        intent = {"key": key, "fact_key": f"effect:{key}", "state_id": state_id}
        return [
            DomainEvent("effect_intended", intent),
            DomainEvent("effect_settled", {"key": key, "outcome": "applied"}),
            fact(f"effect:{key}"),
        ]

    kept: list[Event] = [
        StateEntered(a, 0, snapshot),
        fact(f"mfm:uuid4|run:{run_id}|state:{a}|attempt:0|ord:0"),
        fact("shared"),
        *effect(a, "one"),
        fact(f"wait:{a}|0"),
        StateCompleted(a, snapshot),
    ]
    left: list[Event] = [
        StateEntered(b, 0, snapshot),
        fact(f"mfm:uuid4|run:{run_id}|state:{b}|attempt:0|ord:0"),
        *effect(b, "two"),
        DomainEvent("wait_started", {"state_id": b, "attempt": 0, "key": f"wait:{b}|0", "kind": "sleep"}),
        fact(f"wait:{b}|0"),
        fact(f"map:{b}|3"),
        DomainEvent("run_paused", {}),
    ]
    started = RunStarted(OpId("op"), snapshot, snapshot)
    events: list[Event] = [started, *kept[:1], *left, *kept[1:], StateEntered(c, 0, snapshot), fact("later")]
    carried = carried_before(
        [EventEnvelope(run_id, seq, None, event) for seq, event in enumerate(events, 1)], c
    )
    assert (carried.states, list(carried.events)) == ((a,), kept)
    assert carried.seq == len(events) - 1


async def test_where_a_fork_begins_must_be_readable() -> None:
    """A stream that somebody has changed is corrupt."""
    shop, stores = Shop(), Stores.in_memory()
    for payload in (None, {}, {"executed_by": {"x": ["y"]}, "base_snapshot_id": "0" * 64}):
        run = await shop.engine().start(stores, await start_run(stores, shop.plan()), drive=False)
        head = await stores.events.head_seq(run.run_id)
        await stores.events.append(run.run_id, head, [DomainEvent("run_forked", payload)])
        with pytest.raises(CorruptionError, match="run_forked_malformed"):
            await read_view(stores, run.run_id)
