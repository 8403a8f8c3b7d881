"""Side by side: states that do not wait for each other run together, and see what they would see alone."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta
from typing import Any

import pytest

import perdure
from perdure import (
    ConcurrencyError,
    Context,
    DomainEvent,
    Engine,
    ErrorCategory,
    ErrorInfo,
    Failpoints,
    FanOutJoin,
    FixedBackoff,
    InvalidPlanError,
    IoCall,
    IoProvider,
    Recorder,
    RetryPolicy,
    RunConfig,
    RunId,
    RunPhase,
    RunResult,
    Sequential,
    StateError,
    StateMeta,
    Stores,
)
from perdure.engine.history import fold
from perdure.engine.letters import AnyLetter, SignalLetter, StopLetter
from perdure.errors import Json
from perdure.model.config import ExecutionMode
from perdure.stores.memory import memory_stores
from perdure.stores.reading import read_json
from perdure.testing import FakeClock
from tests.slow_stores import slow_stores
from tests.support import CountingTransport, FixedResolver, Scripted, plan_of, start_run, state_id, stream

Handler = Callable[[Context, IoProvider, Recorder], Awaitable[None]]
RUN_ID = RunId("00000000-0000-0000-0000-00000000000f")
DIAMOND = [("start", "left"), ("start", "right"), ("left", "join"), ("right", "join")]


class Gates:
    """Handlers that end when they are let go, and who is inside at the moment."""

    def __init__(self) -> None:
        self.inside: list[str] = []
        self.most = 0
        self.left: list[str] = []
        self._gates: dict[str, asyncio.Event] = {}
        self._entered: dict[str, asyncio.Event] = {}

    def state(self, name: str, work: Handler | None = None, meta: StateMeta | None = None) -> Scripted:
        """A state that writes its name when it is let go, or does ``work`` then."""

        async def handler(ctx: Context, io: IoProvider, rec: Recorder) -> None:
            self.inside.append(name)
            self.most = max(self.most, len(self.inside))
            self.entered(name).set()
            try:
                await self.gate(name).wait()
                if work is not None:
                    await work(ctx, io, rec)
                else:
                    ctx.write(name, sorted(ctx.dump()))
            finally:
                self.inside.remove(name)
                self.left.append(name)

        return Scripted(handler, meta)

    def gate(self, name: str) -> asyncio.Event:
        return self._gates.setdefault(name, asyncio.Event())

    def entered(self, name: str) -> asyncio.Event:
        return self._entered.setdefault(name, asyncio.Event())

    def open(self, *names: str) -> None:
        for name in names:
            self.gate(name).set()


class Driven:
    """A run that is driven, and what it left."""

    def __init__(
        self,
        *states: tuple[str, Scripted],
        edges: Sequence[tuple[str, str]] = (),
        places: int = 4,
        mode: ExecutionMode | None = None,
        **config: Any,
    ) -> None:
        self.plan = plan_of(*states, edges=edges)
        self.config = RunConfig(execution_mode=mode or FanOutJoin(places), **config)
        self.stores = Stores.in_memory()
        self.transport = CountingTransport()
        self.engine = self.new_engine()

    def new_engine(self, **options: Any) -> Engine:
        return Engine(FixedResolver(self.plan), transports=self.transport, **options)

    async def start(self, context: dict[str, Json] | None = None) -> RunResult:
        run = await start_run(self.stores, self.plan, self.config, context, RUN_ID)
        return await self.engine.start(self.stores, run)

    async def resume(self, **options: Any) -> RunResult:
        return await self.engine.resume(self.stores, RUN_ID, **options)

    async def tell(self, letter: AnyLetter) -> None:
        await self.engine.send(self.stores, RUN_ID, letter, repr(letter))

    async def story(self) -> list[str]:
        return await stream(self.stores, RUN_ID)

    async def has_told(self, word: str) -> None:
        """Let the loop turn until the story tells it."""
        while word not in (story := await self.story()):
            assert "run Failed" not in story
            await asyncio.sleep(0)

    async def context(self, result: RunResult) -> Json:
        assert result.final_snapshot_id is not None
        return (await read_json(self.stores.artifacts, result.final_snapshot_id))[0]


def writes(**values: Json) -> Scripted:
    """A state that writes this; None deletes."""

    async def handler(ctx: Context, io: IoProvider, rec: Recorder) -> None:
        for key, value in values.items():
            if value is None:
                ctx.delete(key)
            else:
                ctx.write(key, value)

    return Scripted(handler)


async def until(condition: Callable[[], bool]) -> None:
    """Let the loop turn until it is so."""
    while True:
        if condition():
            return
        await asyncio.sleep(0)


async def test_states_that_are_ready_run_together() -> None:
    """As many as there are places, in plan order."""
    gates = Gates()
    names = ["a", "b", "c", "d", "e"]
    run = Driven(*[(name, gates.state(name)) for name in names], places=3)
    driving = asyncio.create_task(run.start())
    await gates.entered("c").wait()
    assert gates.inside == ["a", "b", "c"]
    gates.open("b")
    await gates.entered("d").wait()
    assert gates.inside == ["a", "c", "d"]
    gates.open(*names)
    assert (await driving).phase is RunPhase.COMPLETED
    assert gates.most == 3


async def test_a_state_sees_what_its_ancestors_wrote_and_nothing_else() -> None:
    """Whichever branch is first: neither sees the other's writes, and who joins them sees both."""
    ends: list[Json] = []
    for order in (["left", "right"], ["right", "left"]):
        gates = Gates()
        names = ["start", "left", "right", "join"]
        run = Driven(*[(name, gates.state(name)) for name in names], edges=DIAMOND)
        driving = asyncio.create_task(run.start({"first": 1}))
        gates.open("start", "join")
        await until(lambda gates=gates: len(gates.inside) == 2)  # type: ignore[misc]  # mypy takes the default for an argument
        for name in order:
            gates.open(name)
            await until(lambda gates=gates, name=name: name in gates.left)  # type: ignore[misc]  # as above
        ends.append(await run.context(await driving))
        assert gates.left == ["start", *order, "join"]
    assert ends[0] == {
        "first": 1,
        "start": ["first"],
        "left": ["first", "start"],
        "right": ["first", "start"],
        "join": ["first", "left", "right", "start"],
    }
    assert ends[0] == ends[1]


async def test_an_attempt_ends_and_the_next_begin_in_one_commit() -> None:
    """A diamond is one commit a state, and none more for the join; the story tells who was entered when."""
    commits: list[list[str]] = []
    run = Driven(*[(name, writes(**{name: 1})) for name in ("start", "left", "right", "join")], edges=DIAMOND)
    run.engine = run.new_engine(
        observer=lambda _, events: commits.append([type(event).__name__ for _, event in events])
    )
    await run.start()
    assert commits == [
        ["RunStarted", "StateEntered"],
        ["StateCompleted", "StateEntered", "StateEntered"],
        ["StateCompleted", "StateCompleted", "StateEntered"],
        ["StateCompleted", "RunCompleted"],
    ]
    assert await run.story() == [
        "started",
        "entered start 0",
        "completed start",
        "entered left 0",
        "entered right 0",
        "completed left",
        "completed right",
        "entered join 0",
        "completed join",
        "run Completed",
    ]


async def test_what_no_state_joins_is_joined_by_the_end() -> None:
    """The last snapshot is the merge of all: values that were written, and deletions."""
    run = Driven(("a", writes(x=1)), ("b", writes(y=2, old=None)), ("c", writes(z=[3])))
    result = await run.start({"old": 0, "kept": 0})
    assert await run.context(result) == {"kept": 0, "x": 1, "y": 2, "z": [3]}


async def test_one_at_a_time_comes_to_the_same() -> None:
    """The same snapshots, byte for byte."""
    states = [
        ("start", writes(x=1)),
        ("left", writes(x=2, l=1)),
        ("right", writes(r=1)),
        ("join", writes(j=1)),
    ]
    results = [
        await Driven(*states, edges=DIAMOND, mode=mode).start({"first": 1})
        for mode in (FanOutJoin(4), FanOutJoin(1), Sequential())
    ]
    assert len({result.final_snapshot_id for result in results}) == 1


# Contradictions


async def test_two_branches_that_write_one_key_contradict_each_other() -> None:
    """The state that joins them fails, and its handler is never called: even over one and the same value."""
    called: list[str] = []

    async def join(ctx: Context, io: IoProvider, rec: Recorder) -> None:
        called.append("join")

    states = [("start", writes(s=1)), ("left", writes(x=1)), ("right", writes(x=1)), ("join", Scripted(join))]
    run = Driven(*states, edges=DIAMOND)
    result = await run.start()
    assert (result.phase, called) == (RunPhase.FAILED, [])
    assert (await run.story())[-3:] == [
        "entered join 0",
        "failed join context_write_conflict",
        "run Failed",
    ]
    error = fold(await run.stores.events.read_range(RUN_ID, 1)).states[state_id("join")].last_error
    assert error is not None
    assert error.message == "m.main.left and m.main.right both write x, and neither comes before the other"
    assert error.details == {"key": "x", "states": ["m.main.left", "m.main.right"]}


async def test_where_nobody_joins_them_the_last_to_end_fails() -> None:
    """Instead of completing."""
    gates = Gates()

    async def write(ctx: Context, io: IoProvider, rec: Recorder) -> None:
        ctx.write("x", len(gates.left))
        await rec.emit(DomainEvent("told", {}))

    run = Driven(("a", gates.state("a", write)), ("b", gates.state("b", write)))
    driving = asyncio.create_task(run.start())
    await gates.entered("b").wait()
    gates.open("b")
    await until(lambda: "b" in gates.left)
    gates.open("a")
    assert (await driving).phase is RunPhase.FAILED
    assert (await run.story())[-5:] == [
        "told",
        "completed b",
        "told",
        "failed a context_write_conflict",
        "run Failed",
    ]


async def test_a_skipped_state_answers_for_a_contradiction_too() -> None:
    """As the one that joins, and as the last one."""
    skipped = Scripted(writes().handle, StateMeta(tags=("off",)))
    joined = Driven(
        *[("start", writes(s=1)), ("left", writes(x=1)), ("right", writes(x=2)), ("join", skipped)],
        edges=DIAMOND,
        skip_tags=("off",),
    )
    assert (await joined.start()).phase is RunPhase.FAILED
    assert "failed join context_write_conflict" in await joined.story()
    last = Driven(("a", writes(x=1)), ("b", writes(x=2)), ("c", skipped), places=1, skip_tags=("off",))
    assert (await last.start()).phase is RunPhase.FAILED
    assert (await last.story())[-2:] == ["failed c context_write_conflict", "run Failed"]


async def test_an_order_between_them_is_no_contradiction() -> None:
    """The later one says what the key holds, however long the way between them."""
    states = [("a", writes(x=1)), ("b", writes(b=1)), ("c", writes(x=2)), ("d", writes(d=1))]
    run = Driven(*states, edges=[("a", "b"), ("b", "c"), ("a", "d")])
    assert await run.context(await run.start()) == {"x": 2, "b": 1, "d": 1}


async def test_a_declared_contradiction_is_refused_before_the_run_starts() -> None:
    """Nothing is written."""
    meta = StateMeta(writes=("x", "y"))
    run = Driven(("a", Scripted(writes().handle, meta)), ("b", Scripted(writes().handle, meta)))
    with pytest.raises(InvalidPlanError, match="context_write_conflict") as caught:
        await run.start()
    assert caught.value.info.details == {"key": "x", "states": ["m.main.a", "m.main.b"]}
    assert not await run.stores.events.head_seq(RUN_ID)
    ordered = Driven(
        ("a", Scripted(writes().handle, meta)), ("b", Scripted(writes().handle, meta)), edges=[("a", "b")]
    )
    assert (await ordered.start()).phase is RunPhase.COMPLETED


async def test_what_ends_and_what_is_recorded_take_turns() -> None:
    """On a store that takes its time, while facts of some are written and others end: nothing is lost."""

    def work(name: str) -> Scripted:
        async def handler(ctx: Context, io: IoProvider, rec: Recorder) -> None:
            for number in range(name.count("x")):
                await io.record_value(f"{name} {number}", number)
            ctx.write(name, 1)

        return Scripted(handler)

    names = ["x" * number + "a" for number in range(1, 6)]
    run = Driven(*[(name, work(name)) for name in names], places=3)
    run.stores, _ = slow_stores(FakeClock())
    result = await run.start()
    assert await run.context(result) == dict.fromkeys(names, 1)
    facts = [word for word in await run.story() if word == "fact_recorded"]
    assert len(facts) == 1 + 2 + 3 + 4 + 5


# Waiting and retrying


async def test_who_waits_holds_no_place() -> None:
    """The others go on in it, and the run is parked when nothing else is left to do."""

    async def ask(ctx: Context, io: IoProvider, rec: Recorder) -> None:
        told = await io.wait_signal("go")
        ctx.write("told", None if told is None else told.value)

    gates = Gates()
    gates.open("a", "b", "c")
    run = Driven(("asks", Scripted(ask)), *[(name, gates.state(name)) for name in "abc"], places=1)
    parked = await run.start()
    assert (parked.phase, parked.waiting_for) == (RunPhase.RUNNING, "signal go")
    assert gates.left == ["a", "b", "c"]
    await run.tell(SignalLetter("go", "yes", "ann"))
    result = await run.resume()
    assert await run.context(result) == {"told": "yes", "a": [], "b": [], "c": []}
    assert (await run.story()).count("entered asks 0") == 1


async def test_who_waits_is_woken_while_others_run() -> None:
    """By a letter to a run that somebody drives."""
    gates = Gates()

    async def ask(ctx: Context, io: IoProvider, rec: Recorder) -> None:
        await io.wait_signal("go")
        gates.open("slow")

    run = Driven(("asks", Scripted(ask)), ("slow", gates.state("slow")))
    driving = asyncio.create_task(run.start())
    await gates.entered("slow").wait()
    await run.has_told("wait_started")
    await run.tell(SignalLetter("go", 1, "ann"))
    assert (await driving).phase is RunPhase.COMPLETED


async def test_signals_are_taken_once_by_those_who_wait_for_one_name() -> None:
    """In plan order."""

    async def ask(ctx: Context, io: IoProvider, rec: Recorder) -> None:
        told = await io.wait_signal("go")
        assert told is not None
        ctx.write(told.value, 1)

    run = Driven(("a", Scripted(ask)), ("b", Scripted(ask)), ("c", Scripted(ask)))
    await run.start()
    for value in ("one", "two"):
        await run.tell(SignalLetter("go", value, "ann"))
    parked = await run.resume()
    assert parked.waiting_for == "signal go"
    await run.tell(SignalLetter("go", "three", "ann"))
    assert await run.context(await run.resume()) == {"one": 1, "two": 1, "three": 1}


async def test_who_is_to_be_tried_again_later_holds_no_place() -> None:
    """The next one begins at once; the retry comes at its time."""
    tries: list[str] = []

    async def flaky(ctx: Context, io: IoProvider, rec: Recorder) -> None:
        tries.append("flaky")
        if tries.count("flaky") == 1:
            raise StateError(ErrorInfo("flaky", ErrorCategory.UNKNOWN, True))

    async def steady(ctx: Context, io: IoProvider, rec: Recorder) -> None:
        tries.append("steady")

    run = Driven(
        ("flaky", Scripted(flaky)),
        ("steady", Scripted(steady)),
        places=1,
        retry_policy=RetryPolicy(3, FixedBackoff(timedelta(hours=1))),
    )
    clock = FakeClock()
    run.stores, run.engine = memory_stores(clock=clock), run.new_engine(clock=clock)
    parked = await run.start()
    assert (tries, parked.waiting_for) == (["flaky", "steady"], "retry")
    clock.advance(3_600_000)
    assert (await run.resume()).phase is RunPhase.COMPLETED
    assert tries == ["flaky", "steady", "flaky"]


async def test_a_fact_that_two_ask_for_is_asked_for_once() -> None:
    """They share the call that is under way."""
    answered = asyncio.Event()

    class Slow(CountingTransport):
        async def call(self, call: IoCall) -> Json:
            answer = await super().call(call)
            await answered.wait()
            return answer

    async def ask(ctx: Context, io: IoProvider, rec: Recorder) -> None:
        assert (await io.call(IoCall("test", 1, fact_key="one"))).response == {"asked": 1}

    run = Driven(*[(name, Scripted(ask)) for name in "abc"])
    run.transport = Slow()
    run.engine = run.new_engine()
    driving = asyncio.create_task(run.start())
    await until(lambda: bool(run.transport.calls))
    answered.set()
    assert (await driving).phase is RunPhase.COMPLETED
    assert run.transport.calls == {"one": 1}


async def test_who_shares_a_call_outlives_the_one_who_makes_it() -> None:
    """The maker runs into its time limit; the other asks for itself."""

    class Hanging(CountingTransport):
        async def call(self, call: IoCall) -> Json:
            answer = await super().call(call)
            if self.calls[call.fact_key] == 1:
                await asyncio.get_running_loop().create_future()
            return answer

    async def ask(ctx: Context, io: IoProvider, rec: Recorder) -> None:
        await io.call(IoCall("test", 1, fact_key="one"))

    hurried = Scripted(ask, StateMeta(timeout=timedelta(milliseconds=1), retry_policy=RetryPolicy(1)))
    run = Driven(("hurried", hurried), ("patient", Scripted(ask)))
    run.transport = Hanging()
    run.engine = run.new_engine()
    assert (await run.start()).phase is RunPhase.FAILED
    story = await run.story()
    assert "completed patient" in story
    assert "failed hurried state_timeout" in story


# Failing, and dying


async def test_when_one_fails_for_good_the_others_finish() -> None:
    """Nothing new begins; the run ends with the merge of what has completed."""
    gates = Gates()

    async def fail(ctx: Context, io: IoProvider, rec: Recorder) -> None:
        raise ValueError("no")

    run = Driven(
        ("bad", gates.state("bad", fail)),
        ("slow", gates.state("slow")),
        ("next", gates.state("next")),
        edges=[("slow", "next")],
    )
    driving = asyncio.create_task(run.start())
    await gates.entered("slow").wait()
    gates.open("bad", "next")
    await until(lambda: "bad" in gates.left)
    assert gates.inside == ["slow"]
    gates.open("slow")
    result = await driving
    assert (result.phase, await run.context(result)) == (RunPhase.FAILED, {"slow": []})
    assert (await run.story())[-3:] == ["failed bad handler_raised", "completed slow", "run Failed"]


async def test_a_crash_loses_the_attempts_that_were_open_and_no_more() -> None:
    """Each is closed as an orphan of its own, and tried again from the same base."""
    calls: list[str] = []

    def work(name: str) -> Scripted:
        async def handler(ctx: Context, io: IoProvider, rec: Recorder) -> None:
            calls.append(name)
            if name != "left":
                await asyncio.sleep(0)
            ctx.write(name, 1)

        return Scripted(handler)

    run = Driven(*[(name, work(name)) for name in ("start", "left", "right", "join")], edges=DIAMOND)
    run.engine = run.new_engine(failpoints=Failpoints.parse(["handler.after:3=stop"]))
    assert (await run.start()).phase is RunPhase.RUNNING
    assert calls == ["start", "left", "right"]
    run.engine = run.new_engine()
    assert (await run.resume()).phase is RunPhase.COMPLETED
    story = await run.story()
    orphans = [word.split()[1] for word in story if "orphan" in word]
    assert orphans == [name for name in ("left", "right") if f"entered {name} 1" in story]
    assert "entered right 1" in story


async def test_being_interrupted_closes_all_that_is_open() -> None:
    """Those that run and those that wait; the run is resumable at once."""
    gates = Gates()

    async def ask(ctx: Context, io: IoProvider, rec: Recorder) -> None:
        await io.wait_signal("go")

    run = Driven(("asks", Scripted(ask)), ("a", gates.state("a")), ("b", gates.state("b")))
    driving = asyncio.create_task(run.start())
    await gates.entered("b").wait()
    await run.has_told("wait_started")
    driving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await driving
    assert gates.left == ["a", "b"]
    assert sorted((await run.story())[-3:]) == [
        "failed a attempt_interrupted",
        "failed asks attempt_interrupted",
        "failed b attempt_interrupted",
    ]
    gates.open("a", "b")
    await run.tell(SignalLetter("go", 1, "ann"))
    assert (await run.resume()).phase is RunPhase.COMPLETED


async def test_an_interrupt_that_a_handler_raises_stops_all() -> None:
    """As one that reaches the program itself."""
    gates = Gates()

    async def stop(ctx: Context, io: IoProvider, rec: Recorder) -> None:
        raise KeyboardInterrupt

    run = Driven(("a", gates.state("a")), ("b", gates.state("b", stop)))
    driving = asyncio.ensure_future(_caught(run.start()))
    await gates.entered("b").wait()
    gates.open("b")
    assert isinstance(await driving, KeyboardInterrupt)
    assert (await run.story())[-2:] == ["failed a attempt_interrupted", "failed b attempt_interrupted"]


async def _caught(work: Awaitable[object]) -> object:
    """What ``work`` raises: a task that ends with an interrupt takes the event loop with it."""
    try:
        return await work
    except KeyboardInterrupt as error:
        return error


async def test_a_lost_claim_stops_all() -> None:
    """Whatever the handlers make of it, nothing more is written."""
    gates = Gates()

    async def record(ctx: Context, io: IoProvider, rec: Recorder) -> None:
        try:
            await io.record_value("key", 1)
        except ConcurrencyError:
            await asyncio.get_running_loop().create_future()

    run = Driven(("a", gates.state("a")), ("b", gates.state("b", record)))
    driving = asyncio.create_task(run.start())
    await gates.entered("b").wait()
    story = await run.story()
    head = await run.stores.events.head_seq(RUN_ID)
    await run.stores.events.append(RUN_ID, head, [DomainEvent("stranger", {})])
    gates.open("a")
    with pytest.raises(ConcurrencyError):
        await driving
    assert gates.left == ["a", "b"]
    assert await run.story() == [*story, "stranger"]


async def test_recovery_limits_are_each_state_s_own() -> None:
    """One that kills its process every time fails; the other completes meanwhile."""

    async def deadly(ctx: Context, io: IoProvider, rec: Recorder) -> None:
        await asyncio.get_running_loop().create_future()

    run = Driven(("deadly", Scripted(deadly)), ("fine", writes(x=1)), recovery_limit=2)
    for hit in range(4):
        points = ["handler.before:1=stop"] if hit else ["handler.after:1=stop"]
        run.engine = run.new_engine(failpoints=Failpoints.parse(points))
        result = await (run.resume() if hit else run.start())
        if result.phase is not RunPhase.RUNNING:
            break
    else:
        result = await run.resume()
    assert result.phase is RunPhase.FAILED
    assert "recovery_limit_exceeded" in " ".join(await run.story())


# Being told to stop


async def test_cancelling_stops_all_handlers_and_cleans_up() -> None:
    """What cleans up sees the merge of all that has completed, and runs alone."""
    gates = Gates()
    seen: list[Json] = []

    async def clean(ctx: Context, io: IoProvider, rec: Recorder) -> None:
        seen.append(ctx.dump())
        ctx.write("cleaned", len(seen))

    cleaning = Scripted(clean, StateMeta(on_cancel=True))
    run = Driven(
        ("done", writes(x=1)),
        ("too", writes(y=2)),
        ("a", gates.state("a")),
        ("b", gates.state("b")),
        ("clean", cleaning),
        ("more", cleaning),
    )
    driving = asyncio.create_task(run.start())
    await gates.entered("b").wait()
    await until(lambda: len(gates.inside) == 2)
    await run.has_told("completed too")
    await run.tell(StopLetter("cancel", "ann", "enough"))
    result = await driving
    assert result.phase is RunPhase.CANCELLED
    assert gates.left == ["a", "b"]
    assert seen == [{"x": 1, "y": 2}, {"x": 1, "y": 2, "cleaned": 1}]
    assert await run.context(result) == {"x": 1, "y": 2, "cleaned": 2}
    assert (await run.story())[-8:] == [
        "run_cancel_requested",
        "failed a run_cancelled",
        "failed b run_cancelled",
        "entered clean 0",
        "completed clean",
        "entered more 0",
        "completed more",
        "run Cancelled",
    ]


async def test_terminating_stops_all_handlers_without_cleaning_up() -> None:
    """Not even by the plan's own states."""
    gates = Gates()
    cleaning = Scripted(writes(cleaned=1).handle, StateMeta(on_cancel=True))
    run = Driven(("a", gates.state("a")), ("b", gates.state("b")), ("clean", cleaning))
    driving = asyncio.create_task(run.start())
    await gates.entered("b").wait()
    await run.tell(StopLetter("terminate", "ann", "now"))
    assert (await driving).phase is RunPhase.CANCELLED
    assert (await run.story())[-4:] == [
        "run_cancel_requested",
        "failed a run_cancelled",
        "failed b run_cancelled",
        "run Cancelled",
    ]


async def test_pausing_lets_what_runs_end_and_begins_nothing() -> None:
    """Unpaused, the run goes on."""
    gates = Gates()
    run = Driven(*[(name, gates.state(name)) for name in "abc"], places=2)
    driving = asyncio.create_task(run.start())
    await gates.entered("b").wait()
    await run.tell(StopLetter("pause", "ann", ""))
    await run.has_told("run_paused")
    gates.open("a", "b", "c")
    paused = await driving
    assert (paused.waiting_for, gates.left) == ("being unpaused", ["a", "b"])
    await run.tell(StopLetter("unpause", "ann", ""))
    assert (await run.resume()).phase is RunPhase.COMPLETED


async def test_a_run_that_takes_too_long_closes_all_that_is_open() -> None:
    """Its deadline is every attempt's."""
    gates = Gates()
    run = Driven(("a", gates.state("a")), ("b", gates.state("b")), timeout=timedelta(milliseconds=20))
    result = await run.start()
    assert result.phase is RunPhase.FAILED
    *_, first, second, last = await run.story()
    assert {first, second} == {"failed a run_timeout", "failed b run_timeout"}
    assert last == "run Failed"


async def test_a_heartbeat_that_one_misses_is_nobody_else_s() -> None:
    """It alone is stopped, and tried again."""
    gates = Gates()
    silent = StateMeta(heartbeat_timeout=timedelta(milliseconds=1), retry_policy=RetryPolicy(1))
    run = Driven(("silent", gates.state("silent", None, silent)), ("fine", gates.state("fine")))
    driving = asyncio.create_task(run.start())
    await until(lambda: "silent" in gates.left)
    assert gates.inside == ["fine"]
    gates.open("fine")
    assert (await driving).phase is RunPhase.FAILED
    assert "completed fine" in await run.story()


async def test_a_bad_number_of_places_is_refused_where_it_is_given() -> None:
    """From code and from stored manifests."""
    for number in (0, -1, 10_001):
        with pytest.raises(ValueError, match=r"is to be 1 to 10000, and is"):
            FanOutJoin(number)
    for other in (True, "4", 2.0, None):
        with pytest.raises(TypeError, match="a whole number"):
            FanOutJoin(other)  # type: ignore[arg-type]  # what a caller may get wrong


# Children


async def test_a_parked_child_that_ends_is_heard_of_while_others_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever waits for it goes on beside them."""
    monkeypatch.setattr("perdure.engine.side_by_side.CHILD_POLL_SECONDS", 0)
    gate, told = asyncio.Event(), list[str]()
    child = perdure.op("child", output=str)
    parent = perdure.op("parent", execution=FanOutJoin(2))

    @child.state
    async def asked(io: IoProvider) -> str:
        answer = await io.wait_signal("go")
        return "nobody" if answer is None else str(answer.value)

    @parent.state
    async def awaiting() -> str:
        spawned = await perdure.spawn(child)
        told.append(str(spawned.id))
        answer = await spawned.result()
        gate.set()
        return answer

    @parent.state
    async def slow() -> str:
        await gate.wait()
        return "slow"

    async with perdure.open(Stores.in_memory(), app=[parent, child]) as client:
        run = await client.start(parent)
        while "wait_started" not in await stream(client.stores, run.id):  # noqa: ASYNC110 — the store is asked
            await asyncio.sleep(0)
        spawned = await client.get(told[0])
        await spawned.signal("go", "yes", by="ann")
        assert await run.result() == {"awaiting": "yes", "slow": "slow"}


async def test_children_of_several_states_run_at_once() -> None:
    """Each state awaits its own."""
    child = perdure.op("child", input=int, output=int)
    parent = perdure.op("parent", execution=FanOutJoin(4))

    @child.state
    async def double(input: int) -> int:  # noqa: A002 — the term
        return input * 2

    @parent.state
    async def one() -> int:
        return await (await perdure.spawn(child, 1)).result()

    @parent.state
    async def two() -> int:
        return await (await perdure.spawn(child, 2)).result()

    @parent.state
    async def both(one: int, two: int) -> int:
        return one + two

    async with perdure.open(Stores.in_memory(), app=[parent, child]) as client:
        run = await client.start(parent)
        assert await run.result() == 6
        assert (await run.replay()).first_difference is None
