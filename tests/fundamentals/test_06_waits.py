"""Waiting: for time and for signals. Whoever waits costs nothing, and goes on where it was."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta

import pytest

from perdure import (
    ConcurrencyError,
    Context,
    DomainEvent,
    Engine,
    Failpoints,
    IoCall,
    IoError,
    IoProvider,
    NotFoundError,
    Recorder,
    RetryPolicy,
    RunConfig,
    RunError,
    RunId,
    RunPhase,
    SideEffectKind,
    StateMeta,
    Stores,
)
from perdure.canonical import CanonicalJsonError
from perdure.engine.letters import SignalLetter
from perdure.engine.recovery import read_view
from perdure.errors import Json
from perdure.model.events import Event
from perdure.stores.memory import memory_stores
from perdure.testing import FakeClock
from tests.slow_stores import slow_stores
from tests.support import (
    CountingTransport,
    FixedResolver,
    InstantClock,
    Scripted,
    plan_of,
    start_run,
    state_id,
    stream,
)

MONTH = timedelta(days=30)


def ask(key: str) -> IoCall:
    """A question."""
    return IoCall("test", {"q": 1}, fact_key=key)


async def until(holds: Callable[[], bool]) -> None:
    """Let the loop turn until something holds."""
    while not holds():  # noqa: ASYNC110 — what is waited for is not the test's to announce
        await asyncio.sleep(0)


def approval(value: object = True, by: str = "ann", name: str = "approval") -> SignalLetter:
    """What a person says."""
    return SignalLetter(name, value, by)


async def test_a_long_sleep_parks_the_run() -> None:
    """Start returns at once and says until when; nothing stays in memory, and the claim is given up."""

    async def handler(ctx: Context, io: IoProvider, rec: Recorder) -> None:
        await io.sleep(MONTH)
        ctx.write("slept", True)

    clock, plan = FakeClock(), plan_of(("a", Scripted(handler)))
    stores, engine = memory_stores(clock=clock), Engine(FixedResolver(plan), clock=clock)
    parked = await engine.start(stores, await start_run(stores, plan))
    assert (parked.phase, parked.waiting_for) == (RunPhase.RUNNING, "sleep")
    assert parked.due_millis == clock.now_millis() + MONTH // timedelta(milliseconds=1)
    assert await stream(stores, parked) == ["started", "entered a 0", "wait_started"]
    assert await stores.agenda.due_runs(10) == []
    assert await stores.agenda.next_due_millis() == parked.due_millis

    clock.millis = parked.due_millis
    assert await stores.agenda.due_runs(10) == [parked.run_id]
    done = await engine.resume(stores, parked.run_id)
    assert done.phase is RunPhase.COMPLETED
    assert await stream(stores, parked) == [
        "started",
        "entered a 0",
        "wait_started",
        "fact_recorded",
        "completed a",
        "run Completed",
    ]


async def test_waking_too_early_changes_nothing() -> None:
    """Resuming a run that is not due parks it again, for the rest of the time."""

    async def handler(ctx: Context, io: IoProvider, rec: Recorder) -> None:
        await io.sleep(MONTH)

    clock, plan = FakeClock(), plan_of(("a", Scripted(handler)))
    stores, engine = memory_stores(clock=clock), Engine(FixedResolver(plan), clock=clock)
    parked = await engine.start(stores, await start_run(stores, plan))
    clock.advance(1000)
    again = await engine.resume(stores, parked.run_id)
    assert again == parked
    assert await stores.events.head_seq(parked.run_id) == 3


async def test_a_short_sleep_stays_in_the_process() -> None:
    """Nobody has to wake the run; the same events tell of it."""

    async def handler(ctx: Context, io: IoProvider, rec: Recorder) -> None:
        await io.sleep(timedelta(seconds=2))

    clock, plan = FakeClock(), plan_of(("a", Scripted(handler)))
    stores, engine = memory_stores(clock=clock), Engine(FixedResolver(plan), clock=clock)
    result = await engine.start(stores, await start_run(stores, plan))
    assert result.phase is RunPhase.COMPLETED
    assert await stream(stores, result) == [
        "started",
        "entered a 0",
        "wait_started",
        "fact_recorded",
        "completed a",
        "run Completed",
    ]


@pytest.mark.parametrize(("millis", "end"), [(400, "completed a"), (600, "failed a state_timeout")])
async def test_waiting_is_no_work(millis: int, end: str) -> None:
    """A state's timeout counts what is done before and between waits that stay in the process."""
    clock = InstantClock()

    async def handler(ctx: Context, io: IoProvider, rec: Recorder) -> None:
        clock.millis += millis
        await asyncio.gather(io.sleep(timedelta(seconds=2)), io.sleep(timedelta(seconds=3)))
        clock.millis += millis
        await io.sleep(timedelta(seconds=2))

    plan = plan_of(("a", Scripted(handler, StateMeta(timeout=timedelta(seconds=1)))))
    stores, engine = memory_stores(clock=clock), Engine(FixedResolver(plan), clock=clock)
    config = RunConfig(retry_policy=RetryPolicy(1))
    result = await engine.start(stores, await start_run(stores, plan, config))
    assert (await stream(stores, result))[-2] == end


async def test_the_handler_runs_again_from_the_start_and_facts_answer() -> None:
    """What was learned before the wait is not asked again, and the clock is read once."""
    seen: list[int] = []

    async def handler(ctx: Context, io: IoProvider, rec: Recorder) -> None:
        seen.append(await io.now_millis())
        await io.call(ask("k"))
        await rec.emit(DomainEvent("told", {}))
        await io.sleep(MONTH)
        await io.sleep(MONTH, name="second")

    clock, transport, plan = FakeClock(), CountingTransport(), plan_of(("a", Scripted(handler)))
    stores = memory_stores(clock=clock)
    engine = Engine(FixedResolver(plan), transport, clock=clock)
    result = await engine.start(stores, await start_run(stores, plan))
    while result.due_millis is not None:
        clock.millis = result.due_millis
        result = await engine.resume(stores, result.run_id)
    assert result.phase is RunPhase.COMPLETED
    assert len(seen) == 3
    assert len(set(seen)) == 1
    assert transport.calls == {"k": 1}
    assert [word for word in await stream(stores, result) if word in ("told", "wait_started")] == [
        "wait_started",
        "wait_started",
        "told",
    ]
    assert [word for word in await stream(stores, result) if word.startswith("entered")] == ["entered a 0"]


async def test_a_crash_neither_ends_nor_restarts_a_sleep() -> None:
    """The attempt that waits is no orphan: it is gone on with when its time has come."""

    async def handler(ctx: Context, io: IoProvider, rec: Recorder) -> None:
        await io.sleep(timedelta(seconds=4))

    clock, plan = FakeClock(), plan_of(("a", Scripted(handler)))
    stores, begun = memory_stores(clock=clock), clock.now_millis()
    crashing = Engine(FixedResolver(plan), None, Failpoints.parse(["commit.after:2=stop"]), clock)
    crashed = await crashing.start(stores, await start_run(stores, plan))
    assert await stream(stores, crashed) == ["started", "entered a 0", "wait_started"]
    clock.advance(1000)
    done = await Engine(FixedResolver(plan), clock=clock).resume(stores, crashed.run_id)
    assert clock.now_millis() == begun + 4000
    assert done.phase is RunPhase.COMPLETED
    assert (await stream(stores, done))[3:] == ["fact_recorded", "completed a", "run Completed"]


async def test_a_signal_ends_a_wait() -> None:
    """With its value, who sent it, and when; the run goes on at once."""
    got: list[object] = []

    async def handler(ctx: Context, io: IoProvider, rec: Recorder) -> None:
        signal = await io.wait_signal("approval")
        assert signal is not None
        got.append((signal.value, signal.by, signal.id, signal.sent_millis))

    clock, plan = FakeClock(), plan_of(("a", Scripted(handler)))
    stores, engine = memory_stores(clock=clock), Engine(FixedResolver(plan), clock=clock)
    parked = await engine.start(stores, await start_run(stores, plan))
    assert (parked.waiting_for, parked.due_millis) == ("signal approval", None)
    assert await engine.send(stores, parked.run_id, approval({"amount": 7}), "letter-1")
    assert await stores.agenda.due_runs(10) == [parked.run_id]
    done = await engine.resume(stores, parked.run_id)
    assert done.phase is RunPhase.COMPLETED
    assert got == [({"amount": 7}, "ann", "letter-1", clock.now_millis())]
    assert await stream(stores, done) == [
        "started",
        "entered a 0",
        "wait_started",
        "fact_recorded",
        "fact_recorded",
        "completed a",
        "run Completed",
    ]
    assert await stores.mailbox.unread(parked.run_id) == []


async def test_ids_may_be_sent() -> None:
    """As names and in values: they are texts."""
    got: list[object] = []

    async def handler(ctx: Context, io: IoProvider, rec: Recorder) -> None:
        signal = await io.wait_signal("m.main.a")
        got.append(signal and signal.value)

    plan, stores = plan_of(("a", Scripted(handler))), Stores.in_memory()
    engine = Engine(FixedResolver(plan))
    run_id = (await engine.start(stores, await start_run(stores, plan), drive=False)).run_id
    await engine.send(stores, run_id, approval({"run": run_id}, name=state_id("a")), "letter")
    assert (await engine.resume(stores, run_id)).phase is RunPhase.COMPLETED
    assert got == [{"run": str(run_id)}]


async def test_signals_are_taken_once_and_in_order() -> None:
    """Also those that came before the run asked; a letter that is sent twice counts once."""
    got: list[object] = []

    async def handler(ctx: Context, io: IoProvider, rec: Recorder) -> None:
        got.clear()
        for _ in range(3):
            signal = await io.wait_signal("item")
            got.append(signal and signal.value)

    plan = plan_of(("a", Scripted(handler)))
    stores, engine = Stores.in_memory(), Engine(FixedResolver(plan))
    run_id = (await engine.start(stores, await start_run(stores, plan), drive=False)).run_id
    for number, letter_id in [(1, "one"), (2, "two"), (1, "one")]:
        await engine.send(stores, run_id, approval(number, name="item"), letter_id)
    parked = await engine.resume(stores, run_id)
    assert (parked.waiting_for, got) == ("signal item", [1, 2])
    assert await engine.send(stores, run_id, approval(2, name="item"), "two")
    assert (await engine.resume(stores, run_id)).phase is RunPhase.RUNNING
    await engine.send(stores, run_id, approval(3, name="item"), "three")
    assert (await engine.resume(stores, run_id)).phase is RunPhase.COMPLETED
    assert got == [1, 2, 3]


async def test_whichever_comes_first_ends_a_wait_for_any() -> None:
    """Of several signals the one that arrived first, or nothing once the time is over."""
    got: list[object] = []

    async def handler(ctx: Context, io: IoProvider, rec: Recorder) -> None:
        first = await io.wait_any("yes", "no", timeout=MONTH)
        second = await io.wait_signal("yes", timeout=MONTH)
        got[:] = [first and first.name, second]

    clock, plan = FakeClock(), plan_of(("a", Scripted(handler)))
    stores, engine = memory_stores(clock=clock), Engine(FixedResolver(plan), clock=clock)
    parked = await engine.start(stores, await start_run(stores, plan))
    assert parked.waiting_for == "signal yes or no"
    await engine.send(stores, parked.run_id, approval(name="no"), "a")
    parked = await engine.resume(stores, parked.run_id)
    assert parked.due_millis is not None
    clock.millis = parked.due_millis
    assert (await engine.resume(stores, parked.run_id)).phase is RunPhase.COMPLETED
    assert got == ["no", None]


async def test_a_signal_reaches_a_handler_that_waits_in_the_process() -> None:
    """A wait that ends soon anyway holds the handler; a signal is there within a moment."""
    got: list[object] = []

    async def handler(ctx: Context, io: IoProvider, rec: Recorder) -> None:
        signal = await io.wait_signal("go", timeout=timedelta(seconds=60))
        got.append(signal and signal.value)

    plan = plan_of(("a", Scripted(handler)))
    waits_begun: list[int] = []

    def observe(run_id: RunId, events: Sequence[tuple[int, Event]]) -> None:
        waits_begun.extend(seq for seq, event in events if getattr(event, "name", "") == "wait_started")

    engine = Engine(FixedResolver(plan), observer=observe, park_after=timedelta(hours=1))
    stores = Stores.in_memory()
    start = await start_run(stores, plan, run_id=RunId.random())
    assert start.run_id is not None
    driving = asyncio.create_task(engine.start(stores, start))
    await until(lambda: waits_begun == [3])
    await engine.send(stores, start.run_id, approval(5, name="go"), "a")
    assert (await driving).phase is RunPhase.COMPLETED
    assert got == [5]


async def test_a_call_under_way_is_finished_before_the_run_is_parked() -> None:
    """What was asked is asked once, though the handler is let go of."""
    answered = asyncio.Event()

    class Slow(CountingTransport):
        async def call(self, call: object) -> object:
            self.calls["k"] += 1
            await answered.wait()
            return 1

    async def handler(ctx: Context, io: IoProvider, rec: Recorder) -> None:
        await asyncio.gather(io.call(ask("k")), io.sleep(MONTH))

    clock, transport, plan = FakeClock(), Slow(), plan_of(("a", Scripted(handler)))
    stores = memory_stores(clock=clock)
    engine = Engine(FixedResolver(plan), transport, clock=clock)
    driving = asyncio.create_task(engine.start(stores, await start_run(stores, plan)))
    await until(lambda: bool(transport.calls))
    for _ in range(20):
        await asyncio.sleep(0)
    assert not driving.done()
    answered.set()
    parked = await driving
    assert parked.waiting_for == "sleep"
    clock.millis = parked.due_millis or 0
    assert (await engine.resume(stores, parked.run_id)).phase is RunPhase.COMPLETED
    assert transport.calls == {"k": 1}


async def test_a_run_that_is_parked_while_a_fact_is_written_has_the_fact() -> None:
    """The handler is let go of in the middle of a commit, which lands; the run goes on with what is there."""
    clock = FakeClock()
    stores, store = slow_stores(clock)

    async def handler(ctx: Context, io: IoProvider, rec: Recorder) -> None:
        async def wait_soon() -> None:
            await until(lambda: store.committing > 0)
            await io.sleep(MONTH)

        await asyncio.gather(io.record_value("k", 1), wait_soon())

    plan = plan_of(("a", Scripted(handler)))
    engine = Engine(FixedResolver(plan), clock=clock)
    parked = await engine.start(stores, await start_run(stores, plan))
    assert parked.waiting_for == "sleep"
    assert (await stream(stores, parked))[2:] == ["fact_recorded", "wait_started"]


async def test_what_is_still_waited_for_when_the_run_is_parked_again_is_not_begun_again() -> None:
    """One of two waits is over, and the handler has run again."""

    async def handler(ctx: Context, io: IoProvider, rec: Recorder) -> None:
        await asyncio.gather(io.sleep(MONTH), io.wait_signal("go"))

    clock, plan = FakeClock(), plan_of(("a", Scripted(handler)))
    stores, engine = memory_stores(clock=clock), Engine(FixedResolver(plan), clock=clock)
    parked = await engine.start(stores, await start_run(stores, plan))
    await engine.send(stores, parked.run_id, approval(name="go"), "letter")
    assert (await engine.resume(stores, parked.run_id)).waiting_for == "sleep"
    assert (await stream(stores, parked))[2:] == ["wait_started"] * 2 + ["fact_recorded"] * 2


async def test_an_answer_is_written_before_the_run_is_parked() -> None:
    """However many wait to be written: a call that was answered is not made again, an effect not in doubt."""
    clock, transport = FakeClock(), CountingTransport()
    stores, _ = slow_stores(clock)

    async def handler(ctx: Context, io: IoProvider, rec: Recorder) -> None:
        paying = IoCall("test", {"pay": 1}, effect=SideEffectKind.APPLY_SIDE_EFFECT, fact_key="paid")
        await asyncio.gather(*(io.call(ask(key)) for key in "klm"), io.call(paying), io.sleep(MONTH))

    plan = plan_of(("a", Scripted(handler)))
    engine = Engine(FixedResolver(plan), transport, clock=clock)
    parked = await engine.start(stores, await start_run(stores, plan))
    assert parked.waiting_for == "sleep"
    clock.millis = parked.due_millis or 0
    assert (await engine.resume(stores, parked.run_id)).phase is RunPhase.COMPLETED
    assert transport.calls == {"k": 1, "l": 1, "m": 1, "paid": 1}


async def test_two_waits_at_once_take_a_signal_each() -> None:
    """Though both see the first one before either has taken it."""
    got: list[object] = []

    async def handler(ctx: Context, io: IoProvider, rec: Recorder) -> None:
        both = await asyncio.gather(*(io.wait_signal("item", timeout=timedelta(seconds=4)) for _ in range(2)))
        got[:] = [signal and signal.value for signal in both]

    clock, plan = FakeClock(), plan_of(("a", Scripted(handler)))
    stores, _ = slow_stores(clock)
    engine = Engine(FixedResolver(plan), clock=clock)
    run_id = (await engine.start(stores, await start_run(stores, plan), drive=False)).run_id
    for number in (1, 2):
        await engine.send(stores, run_id, approval(number, name="item"), f"letter {number}")
    assert (await engine.resume(stores, run_id)).phase is RunPhase.COMPLETED
    assert got == [1, 2]


async def test_two_waits_of_one_name_at_once_are_one() -> None:
    """Whichever ends it, both end with that."""
    got: list[object] = []

    async def handler(ctx: Context, io: IoProvider, rec: Recorder) -> None:
        soon = timedelta(seconds=4)
        both = await asyncio.gather(*(io.wait_signal(name, timeout=soon, name="w") for name in "xy"))
        got[:] = [signal and signal.name for signal in both]

    clock, plan = FakeClock(), plan_of(("a", Scripted(handler)))
    stores, _ = slow_stores(clock)
    engine = Engine(FixedResolver(plan), clock=clock)
    run_id = (await engine.start(stores, await start_run(stores, plan), drive=False)).run_id
    for name in "xy":
        await engine.send(stores, run_id, approval(name=name), name)
    assert (await engine.resume(stores, run_id)).phase is RunPhase.COMPLETED
    assert got == ["x", "x"]


async def test_a_letter_leaves_the_mailbox_with_its_own_event() -> None:
    """Not with what the handler happens to write before."""
    at_work, clock = asyncio.Event(), FakeClock()
    stores, _ = slow_stores(clock)

    async def handler(ctx: Context, io: IoProvider, rec: Recorder) -> None:
        facts = [asyncio.create_task(io.record_value(f"k{number}", number)) for number in range(9)]
        for _ in range(8):
            await asyncio.sleep(0)
        at_work.set()
        await asyncio.gather(*facts)
        await io.wait_signal("item")

    plan = plan_of(("a", Scripted(handler)))
    engine = Engine(FixedResolver(plan), clock=clock)
    run_id = RunId.random()
    driving = asyncio.create_task(engine.start(stores, await start_run(stores, plan, run_id=run_id)))
    await at_work.wait()
    await engine.send(stores, run_id, approval(name="item"), "letter")
    while not driving.done():
        view = await read_view(stores, run_id)
        assert bool(await stores.mailbox.unread(run_id)) != ("item" in view.inbox.arrived)
        await asyncio.sleep(0)
    assert (await driving).phase is RunPhase.COMPLETED


async def test_a_handler_that_swallows_its_cancellation_is_parked_all_the_same() -> None:
    """Whatever it does then comes to nothing."""

    async def handler(ctx: Context, io: IoProvider, rec: Recorder) -> None:
        try:
            await io.sleep(MONTH)
        except asyncio.CancelledError:
            ctx.write("x", 1)

    clock, plan = FakeClock(), plan_of(("a", Scripted(handler)))
    stores, engine = memory_stores(clock=clock), Engine(FixedResolver(plan), clock=clock)
    parked = await engine.start(stores, await start_run(stores, plan))
    assert parked.waiting_for == "sleep"
    assert await stream(stores, parked) == ["started", "entered a 0", "wait_started"]


@pytest.mark.parametrize(
    "wait",
    [
        lambda io: io.sleep(timedelta(seconds=-1)),
        lambda io: io.sleep(timedelta.max),
        lambda io: io.sleep(5),
        lambda io: io.sleep_until(datetime(2030, 1, 1)),  # noqa: DTZ001 — that is what is refused
        lambda io: io.sleep_until(-1),
        lambda io: io.sleep_until("tomorrow"),
        lambda io: io.wait_any(),
        lambda io: io.wait_signal(""),
        lambda io: io.wait_signal("x\n"),
        lambda io: io.sleep(timedelta(1), name="7"),
    ],
)
async def test_absurd_waits_are_refused(wait: object) -> None:
    """With a code, before anything is written."""
    seen: list[str] = []

    async def handler(ctx: Context, io: IoProvider, rec: Recorder) -> None:
        with pytest.raises(IoError) as caught:
            await wait(io)  # type: ignore[operator]  # one of the lambdas above
        seen.append(caught.value.code)
        assert caught.value.hint

    plan, stores = plan_of(("a", Scripted(handler))), Stores.in_memory()
    result = await Engine(FixedResolver(plan)).start(stores, await start_run(stores, plan))
    assert seen == ["wait_invalid"]
    assert "wait_started" not in await stream(stores, result)


async def test_moments_have_time_zones() -> None:
    """A moment is the same wherever it is said; one that has passed is not waited for."""

    async def handler(ctx: Context, io: IoProvider, rec: Recorder) -> None:
        await io.sleep_until(datetime(2020, 1, 1, tzinfo=UTC))
        await io.sleep_until(datetime.fromisoformat("2030-01-01T02:00:00+02:00"))

    clock, plan = FakeClock(), plan_of(("a", Scripted(handler)))
    stores, engine = memory_stores(clock=clock), Engine(FixedResolver(plan), clock=clock)
    parked = await engine.start(stores, await start_run(stores, plan))
    assert parked.due_millis == 1_893_456_000_000


async def test_letters_that_cannot_be_delivered_are_refused() -> None:
    """Each with its code, before anything is kept."""

    async def handler(ctx: Context, io: IoProvider, rec: Recorder) -> None:
        return None

    plan, stores = plan_of(("a", Scripted(handler))), Stores.in_memory()
    engine = Engine(FixedResolver(plan))
    with pytest.raises(NotFoundError, match="run_not_found"):
        await engine.send(stores, RunId.random(), approval(), "a")
    done = await engine.start(stores, await start_run(stores, plan))
    with pytest.raises(ConcurrencyError, match="run_already_terminal"):
        await engine.send(stores, done.run_id, approval(), "a")
    begun = await engine.start(stores, await start_run(stores, plan), drive=False)
    for bad in (1.5, {"password": "hunter22hunter22"}, object()):
        with pytest.raises(CanonicalJsonError):
            await engine.send(stores, begun.run_id, approval(bad), "a")
    for letter, letter_id in [(approval(by=""), "a"), (approval(), ""), (approval(name="\n"), "a")]:
        with pytest.raises(RunError, match="letter_invalid"):
            await engine.send(stores, begun.run_id, letter, letter_id)
    assert await stores.mailbox.unread(begun.run_id) == []


@pytest.mark.parametrize(
    ("letter_id", "body"),
    [
        ("a", None),
        ("a", {"kind": "signal", "name": "x", "value": 1.5, "by": "ann"}),
        ("a", {"kind": "signal", "name": 7, "value": 1, "by": "ann"}),
        ("Bearer 0123456789abcdef0123", {"kind": "signal", "name": "x", "value": 1, "by": "ann"}),
    ],
)
async def test_a_letter_that_may_not_be_heard_is_thrown_away(letter_id: str, body: Json) -> None:
    """It was not sent by this engine, which refuses it; a run is not to be stopped by it."""

    async def handler(ctx: Context, io: IoProvider, rec: Recorder) -> None:
        await io.wait_signal("x")

    plan, stores = plan_of(("a", Scripted(handler))), Stores.in_memory()
    engine = Engine(FixedResolver(plan))
    parked = await engine.start(stores, await start_run(stores, plan))
    await stores.mailbox.post(parked.run_id, letter_id, body)
    assert (await engine.resume(stores, parked.run_id)).waiting_for == "signal x"
    assert await stores.mailbox.unread(parked.run_id) == []
    assert await stream(stores, parked) == ["started", "entered a 0", "wait_started"]
