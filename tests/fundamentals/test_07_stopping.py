"""Stopping: cancelling, terminating and pausing runs from outside; time limits and signs of life."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import timedelta
from typing import Any, Literal

import pytest

from perdure import (
    ConcurrencyError,
    Context,
    DomainEvent,
    Engine,
    ErrorCategory,
    ErrorInfo,
    Failpoints,
    IoError,
    IoProvider,
    Recorder,
    RetryPolicy,
    RunConfig,
    RunId,
    RunPhase,
    StateError,
    StateMeta,
    Stores,
)
from perdure.engine.letters import SignalLetter, StopLetter
from perdure.engine.recovery import read_view
from perdure.stores.memory import memory_stores
from perdure.testing import FakeClock
from tests.slow_stores import slow_stores
from tests.support import FixedResolver, Scripted, plan_of, start_run, stream

How = Literal["cancel", "terminate", "pause", "unpause"]


class Driven:
    """A run that is being driven, and letters to it."""

    def __init__(self, *states: tuple[str, Scripted], config: RunConfig | None = None) -> None:
        self.plan = plan_of(*states)
        self.config = config or RunConfig()
        self.stores = Stores.in_memory()
        self.engine = Engine(FixedResolver(self.plan))
        self.run_id = RunId.random()
        self.sent = 0

    async def start(self) -> Any:
        return await self.engine.start(
            self.stores, await start_run(self.stores, self.plan, self.config, run_id=self.run_id)
        )

    async def resume(self, **options: Any) -> Any:
        return await self.engine.resume(self.stores, self.run_id, **options)

    async def tell(self, how: How) -> bool:
        self.sent += 1
        letter = StopLetter(how, "ann", "enough")
        return await self.engine.send(self.stores, self.run_id, letter, f"letter {self.sent}")

    async def story(self) -> list[str]:
        return await stream(self.stores, self.run_id)


def endless(entered: asyncio.Event, left: Callable[[], None] = lambda: None) -> Scripted:
    """A state that ends only if it is stopped."""

    async def handler(ctx: Context, io: IoProvider, rec: Recorder) -> None:
        entered.set()
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            left()

    return Scripted(handler)


async def nothing(ctx: Context, io: IoProvider, rec: Recorder) -> None:
    """Do nothing."""


async def test_a_running_handler_is_cancelled() -> None:
    """Its ``finally`` runs, its attempt is closed, and the run ends with the last checkpoint."""
    entered, left = asyncio.Event(), asyncio.Event()
    run = Driven(("a", Scripted(nothing)), ("b", endless(entered, left.set)))
    driving = asyncio.create_task(run.start())
    await entered.wait()
    await run.tell("cancel")
    done = await driving
    assert left.is_set()
    assert done.phase is RunPhase.CANCELLED
    assert await run.story() == [
        "started",
        "entered a 0",
        "completed a",
        "entered b 0",
        "run_cancel_requested",
        "failed b run_cancelled",
        "run Cancelled",
    ]
    with pytest.raises(ConcurrencyError, match="run_already_terminal"):
        await run.tell("cancel")


async def test_a_parked_run_is_cancelled_without_running_anything() -> None:
    """Whoever sends the letter may end it, if nobody drives it."""

    async def handler(ctx: Context, io: IoProvider, rec: Recorder) -> None:
        await io.wait_signal("never")

    run = Driven(("a", Scripted(handler)))
    await run.start()
    await run.tell("cancel")
    done = await run.resume(runs_handlers=False)
    assert done.phase is RunPhase.CANCELLED
    assert (await run.story())[3:] == ["run_cancel_requested", "failed a run_cancelled", "run Cancelled"]


async def test_states_that_clean_up_run_when_a_run_is_cancelled() -> None:
    """And only then; they see the last checkpoint, and may take their time."""
    entered = asyncio.Event()

    async def clean(ctx: Context, io: IoProvider, rec: Recorder) -> None:
        await rec.emit(DomainEvent("cleaned", {}))
        ctx.write("cleaned", True)

    async def first(ctx: Context, io: IoProvider, rec: Recorder) -> None:
        ctx.write("n", 1)

    cleanup = ("clean", Scripted(clean, StateMeta(on_cancel=True)))
    undisturbed = Driven(("a", Scripted(first)), cleanup)
    assert (await undisturbed.start()).phase is RunPhase.COMPLETED
    assert "entered clean 0" not in await undisturbed.story()

    run = Driven(("a", Scripted(first)), ("b", endless(entered)), cleanup)
    driving = asyncio.create_task(run.start())
    await entered.wait()
    await run.tell("cancel")
    assert (await driving).phase is RunPhase.CANCELLED
    assert (await run.story())[4:] == [
        "run_cancel_requested",
        "failed b run_cancelled",
        "entered clean 0",
        "cleaned",
        "completed clean",
        "run Cancelled",
    ]


async def test_terminating_cleans_nothing_up() -> None:
    """Also not for a handler that does not want to be cancelled."""
    entered = asyncio.Event()
    refusals: list[str] = []

    async def stubborn(ctx: Context, io: IoProvider, rec: Recorder) -> None:
        entered.set()
        for _ in range(2):
            try:
                await asyncio.get_running_loop().create_future()
            except asyncio.CancelledError:
                try:
                    await io.now_millis()
                except IoError as error:
                    refusals.append(error.code)
                entered.set()

    cleanup = ("clean", Scripted(nothing, StateMeta(on_cancel=True)))
    run = Driven(("a", Scripted(stubborn)), cleanup)
    driving = asyncio.create_task(run.start())
    await entered.wait()
    entered.clear()
    await run.tell("cancel")
    await entered.wait()
    assert refusals == []
    await run.tell("terminate")
    assert (await driving).phase is RunPhase.CANCELLED
    assert refusals == ["attempt_closed"]
    assert "entered clean 0" not in await run.story()


async def test_a_terminated_run_is_not_cancelled_as_well() -> None:
    """Not even by a letter that is read together with the one before."""
    cleanup = ("clean", Scripted(nothing, StateMeta(on_cancel=True)))
    run = Driven(("a", endless(asyncio.Event())), cleanup)
    await run.engine.start(run.stores, await start_run(run.stores, run.plan, run_id=run.run_id), drive=False)
    for how in ("terminate", "cancel"):
        await run.tell(how)
    assert (await run.resume()).phase is RunPhase.CANCELLED
    assert await run.story() == ["started", "run_cancel_requested", "run Cancelled"]


async def test_what_cleans_up_hears_signals_and_can_be_terminated() -> None:
    """It runs because the run was cancelled: only terminating stops it."""
    entered, heard = asyncio.Event(), asyncio.Event()

    async def clean(ctx: Context, io: IoProvider, rec: Recorder) -> None:
        entered.set()
        await io.wait_signal("go on", timeout=timedelta(seconds=4))
        heard.set()
        await asyncio.get_running_loop().create_future()

    waits = Scripted(endless(asyncio.Event()).handle)
    run = Driven(("a", waits), ("clean", Scripted(clean, StateMeta(on_cancel=True))))
    driving = asyncio.create_task(run.start())
    while "entered a 0" not in await run.story():  # noqa: ASYNC110 — the engine announces it in the stream
        await asyncio.sleep(0)
    await run.tell("cancel")
    await entered.wait()
    await run.engine.send(run.stores, run.run_id, SignalLetter("go on", 1, "ann"), "signal")
    await heard.wait()
    await run.tell("cancel")
    while await run.stores.mailbox.unread(run.run_id):  # noqa: ASYNC110 — nor is that announced
        await asyncio.sleep(0)
    assert not driving.done()
    await run.tell("terminate")
    assert (await driving).phase is RunPhase.CANCELLED
    assert (await run.story())[-3:] == ["run_cancel_requested", "failed clean run_cancelled", "run Cancelled"]


@pytest.mark.parametrize("crash", ["commit.before:2", "commit.after:2"])
async def test_a_crash_while_a_letter_is_taken_in_ends_the_stint(crash: str) -> None:
    """Also though the handler has nothing to do with it."""
    entered = asyncio.Event()
    run = Driven(("a", endless(entered)))
    run.engine = Engine(FixedResolver(run.plan), None, Failpoints.parse([f"{crash}=stop"]))
    driving = asyncio.create_task(run.start())
    await entered.wait()
    await run.tell("pause")
    assert (await driving).phase is RunPhase.RUNNING
    assert ("run_paused" in await run.story()) == ("after" in crash)
    assert bool(await run.stores.mailbox.unread(run.run_id)) == ("before" in crash)


async def test_a_paused_run_stands_still_before_its_next_state() -> None:
    """What runs is finished; then the run is parked until it is unpaused, whoever resumes it."""
    entered, go_on = asyncio.Event(), asyncio.Event()

    async def handler(ctx: Context, io: IoProvider, rec: Recorder) -> None:
        entered.set()
        await go_on.wait()

    run = Driven(("a", Scripted(handler)), ("b", Scripted(nothing)))
    driving = asyncio.create_task(run.start())
    await entered.wait()
    await run.tell("pause")
    while "run_paused" not in await run.story():  # noqa: ASYNC110 — the engine announces it in the stream
        await asyncio.sleep(0)
    go_on.set()
    parked = await driving
    assert (parked.phase, parked.waiting_for, parked.due_millis) == (RunPhase.RUNNING, "being unpaused", None)
    assert (await run.resume()).waiting_for == "being unpaused"
    await run.tell("pause")
    await run.tell("unpause")
    assert (await run.resume()).phase is RunPhase.COMPLETED
    assert await run.story() == [
        "started",
        "entered a 0",
        "run_paused",
        "completed a",
        "run_paused",
        "run_unpaused",
        "entered b 0",
        "completed b",
        "run Completed",
    ]


async def test_a_pause_that_changed_nothing_is_not_taken_again_when_it_would() -> None:
    """The same letter, sent once more by somebody who cannot know that it arrived. The first counts."""
    run = Driven(("a", Scripted(nothing)))
    run.engine = Engine(FixedResolver(run.plan), None, Failpoints.parse(["handler.before:1=stop"]))
    await run.start()
    run.engine = Engine(FixedResolver(run.plan))
    for by in ("ann", "bob"):
        await run.engine.send(run.stores, run.run_id, StopLetter("pause", by, ""), by)
    assert (await run.resume(runs_handlers=False)).waiting_for == "being unpaused"
    pause = (await read_view(run.stores, run.run_id)).pause
    assert pause is not None
    assert pause.by == "ann"
    await run.tell("unpause")
    await run.resume(runs_handlers=False)
    await run.engine.send(run.stores, run.run_id, StopLetter("pause", "bob", ""), "bob")
    assert (await run.resume()).phase is RunPhase.COMPLETED


async def test_a_paused_run_is_not_woken_by_what_it_waits_for() -> None:
    """Its time may come; it goes on when it is unpaused."""

    async def handler(ctx: Context, io: IoProvider, rec: Recorder) -> None:
        await io.sleep(timedelta(days=1))

    run, clock = Driven(("a", Scripted(handler))), FakeClock()
    run.stores, run.engine = memory_stores(clock=clock), Engine(FixedResolver(run.plan), clock=clock)
    parked = await run.start()
    await run.tell("pause")
    assert (await run.resume()).due_millis is None
    clock.millis = parked.due_millis
    assert (await run.resume()).waiting_for == "being unpaused"
    await run.tell("unpause")
    assert (await run.resume()).phase is RunPhase.COMPLETED


async def test_a_paused_run_that_is_cancelled_cleans_up() -> None:
    """Whatever that waits for: nobody has to unpause what is being ended."""

    async def slow(ctx: Context, io: IoProvider, rec: Recorder) -> None:
        await io.sleep(timedelta(days=1))

    clean = Scripted(slow, StateMeta(on_cancel=True))
    run, clock = Driven(("a", Scripted(slow)), ("clean", clean)), FakeClock()
    run.stores, run.engine = memory_stores(clock=clock), Engine(FixedResolver(run.plan), clock=clock)
    await run.start()
    await run.tell("pause")
    await run.tell("cancel")
    parked = await run.resume()
    assert parked.waiting_for == "sleep"
    clock.millis = parked.due_millis
    assert (await run.resume()).phase is RunPhase.CANCELLED


async def test_a_run_that_takes_too_long_fails() -> None:
    """Counted from its start, also over what it waits for."""

    async def handler(ctx: Context, io: IoProvider, rec: Recorder) -> None:
        await io.sleep(timedelta(days=30))

    run, clock = Driven(("a", Scripted(handler)), config=RunConfig(timeout=timedelta(days=1))), FakeClock()
    run.stores, run.engine = memory_stores(clock=clock), Engine(FixedResolver(run.plan), clock=clock)
    parked = await run.start()
    assert parked.due_millis == clock.now_millis() + 24 * 3600 * 1000
    clock.millis = parked.due_millis
    assert (await run.resume()).phase is RunPhase.FAILED
    assert (await run.story())[-2:] == ["failed a run_timeout", "run Failed"]


async def test_a_handler_is_stopped_when_its_run_has_taken_too_long() -> None:
    """It need not wait for anything of ours."""
    left = asyncio.Event()
    run = Driven(
        ("a", endless(asyncio.Event(), left.set)), config=RunConfig(timeout=timedelta(milliseconds=20))
    )
    assert (await run.start()).phase is RunPhase.FAILED
    assert left.is_set()
    assert (await run.story())[-2:] == ["failed a run_timeout", "run Failed"]


async def test_a_handler_that_gives_no_sign_of_life_is_given_up() -> None:
    """Another attempt begins; one that gives them may take as long as it likes."""
    attempts: list[int] = []

    async def handler(ctx: Context, io: IoProvider, rec: Recorder) -> None:
        attempts.append(len(attempts))
        if len(attempts) == 1:
            await asyncio.get_running_loop().create_future()
        for _ in range(3):
            await io.heartbeat()

    meta = StateMeta(heartbeat_timeout=timedelta(seconds=0.02))
    run = Driven(("a", Scripted(handler, meta)), config=RunConfig(retry_policy=RetryPolicy(2)))
    assert (await run.start()).phase is RunPhase.COMPLETED
    assert (await run.story())[2:4] == ["failed a heartbeat_missed", "entered a 1"]


async def test_who_waits_need_not_give_signs_of_life() -> None:
    """As little in the process as parked; afterwards they are asked for again."""
    attempts: list[int] = []

    async def handler(ctx: Context, io: IoProvider, rec: Recorder) -> None:
        async def beat_early() -> None:
            await io.sleep(timedelta(seconds=0.01))
            for _ in range(20):
                await asyncio.sleep(0)
            await io.heartbeat()

        attempts.append(len(attempts))
        await asyncio.gather(beat_early(), io.sleep(timedelta(seconds=0.1)))
        if len(attempts) == 1:
            await asyncio.get_running_loop().create_future()

    meta = StateMeta(heartbeat_timeout=timedelta(seconds=0.02))
    run = Driven(("a", Scripted(handler, meta)), config=RunConfig(retry_policy=RetryPolicy(2)))
    assert (await run.start()).phase is RunPhase.COMPLETED
    story = await run.story()
    assert story.count("wait_started") == 2
    assert "failed a heartbeat_missed" in story


async def test_a_limit_that_rested_strikes_all_the_same() -> None:
    """After the wait, when the rest of the time is over."""

    async def handler(ctx: Context, io: IoProvider, rec: Recorder) -> None:
        await io.sleep(timedelta(seconds=0.1))
        ctx.write("waited", value=True)
        await asyncio.get_running_loop().create_future()

    meta = StateMeta(timeout=timedelta(seconds=0.02))
    run = Driven(("a", Scripted(handler, meta)), config=RunConfig(retry_policy=RetryPolicy(1)))
    assert (await run.start()).phase is RunPhase.FAILED
    assert (await run.story())[-3:] == ["fact_recorded", "failed a state_timeout", "run Failed"]


async def test_published_values_are_there_at_once() -> None:
    """Outsiders read them while the handler runs."""
    entered = asyncio.Event()

    async def handler(ctx: Context, io: IoProvider, rec: Recorder) -> None:
        await rec.publish("progress", {"done": 1, "of": 2})
        entered.set()
        await asyncio.get_running_loop().create_future()

    run = Driven(("a", Scripted(handler)))
    driving = asyncio.create_task(run.start())
    await entered.wait()
    assert (await run.story())[-1] == "value_published"
    await run.tell("cancel")
    await driving


async def test_a_handler_that_begins_again_publishes_what_is_new() -> None:
    """What it says again in the same attempt is there already."""
    wakings: list[int] = []

    async def handler(ctx: Context, io: IoProvider, rec: Recorder) -> None:
        wakings.append(len(wakings))
        await rec.publish("stage", {"sown": True})
        await rec.publish("woken", len(wakings))
        await io.wait_signal("go")
        await rec.publish("stage", {"sown": True})
        await io.wait_signal("go")
        await rec.publish("stage", {"sown": 1})
        if len(wakings) == 3:
            raise StateError(ErrorInfo("again", ErrorCategory.UNKNOWN, retryable=True))

    run = Driven(("a", Scripted(handler)))
    await run.start()
    for number in range(2):
        await run.engine.send(run.stores, run.run_id, SignalLetter("go", None, "ann"), f"go {number}")
        await run.resume()
    published = [
        (each.event.payload["name"], each.event.payload["value"])
        for each in await run.stores.events.read_range(run.run_id, 1)
        if isinstance(each.event, DomainEvent) and each.event.name == "value_published"
    ]
    stage = ("stage", {"sown": True})
    first_attempt = [stage, ("woken", 1), ("woken", 2), stage, ("woken", 3), ("stage", {"sown": 1})]
    assert published == [*first_attempt, stage, ("woken", 4), stage, ("stage", {"sown": 1})]
    kinds = [type(value["sown"]) for name, value in published if name == "stage"]
    assert kinds == [bool, bool, int, bool, bool, int]


async def test_what_a_handler_leaves_running_writes_nothing_after_its_attempt() -> None:
    """Also if it had begun to while somebody else was writing."""
    left: list[asyncio.Task[None]] = []

    async def handler(ctx: Context, io: IoProvider, rec: Recorder) -> None:
        left.extend(asyncio.create_task(rec.publish("progress", number)) for number in range(2))
        await asyncio.sleep(0)

    run = Driven(("a", Scripted(handler)))
    run.stores, _ = slow_stores(FakeClock())
    assert (await run.start()).phase is RunPhase.COMPLETED
    assert await run.story() == ["started", "entered a 0", "value_published", "completed a", "run Completed"]
    with pytest.raises(IoError, match="attempt_closed"):
        await asyncio.gather(*left)


async def test_a_storm_of_cancellations_is_one() -> None:
    """Whoever asks, and however often, the run ends once."""
    entered = asyncio.Event()
    run = Driven(("a", endless(entered)))
    driving = asyncio.create_task(run.start())
    await entered.wait()
    outcomes = await asyncio.gather(*(run.tell("cancel") for _ in range(100)), return_exceptions=True)
    assert (await driving).phase is RunPhase.CANCELLED
    assert {True} == {each for each in outcomes if not isinstance(each, ConcurrencyError)}
    story = await run.story()
    assert (story.count("run_cancel_requested"), story.count("run Cancelled")) == (1, 1)
