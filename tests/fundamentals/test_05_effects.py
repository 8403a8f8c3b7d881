"""Effects: calls that change the world are made once, or the run stops and asks."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import msgspec
import pytest

from perdure import (
    Context,
    EffectNotMadeError,
    EffectTraits,
    Engine,
    ErrorCategory,
    Failpoints,
    FixedBackoff,
    IoCall,
    IoError,
    IoMode,
    IoProvider,
    NotAppliedError,
    RateLimitedError,
    Recorder,
    RetryPolicy,
    RunConfig,
    RunId,
    RunPhase,
    SideEffectKind,
    StateMeta,
    Stores,
    TransportEnv,
    TransportError,
)
from perdure.engine.letters import ResolveLetter, SignalLetter
from perdure.engine.recovery import read_view
from perdure.errors import Json
from perdure.stores.memory import memory_stores
from perdure.stores.reading import read_json
from perdure.testing import FakeClock
from tests.slow_stores import slow_stores
from tests.support import FixedResolver, Scripted, plan_of, start_run, stream

APPLIES = StateMeta(side_effects=SideEffectKind.APPLY_SIDE_EFFECT, idempotency="pay")
EFFECT = ["effect_intended", "effect_settled", "fact_recorded"]


class Bank:
    """Pays. Each call is counted by its idempotency key; ``behave`` says how the call ends."""

    namespace_group = "bank"

    def __init__(
        self, traits: EffectTraits | None = None, behave: Callable[[int], None] = lambda number: None
    ) -> None:
        self.traits = traits or EffectTraits()
        self.behave = behave
        self.calls: Counter[str | None] = Counter()
        self.paid: dict[str | None, Json] = {}
        self.looked_up = 0

    def make(self, env: TransportEnv) -> Bank:
        return self

    def effect_traits(self, call: IoCall) -> EffectTraits:
        return self.traits

    async def call(self, call: IoCall) -> Json:
        self.calls[call.idempotency_key] += 1
        if call.request.get("kind") == "balance":
            return 100
        self.behave(self.calls.total())
        self.paid.setdefault(call.idempotency_key, {"receipt": len(self.paid) + 1})
        return self.paid[call.idempotency_key]

    async def look_up(self, call: IoCall) -> Json:
        self.looked_up += 1
        if call.idempotency_key not in self.paid:
            raise EffectNotMadeError.of("not_paid", "nothing of this key was paid")
        return self.paid[call.idempotency_key]


async def pay(ctx: Context, io: IoProvider, rec: Recorder) -> None:
    """Pay seven."""
    ctx.write("receipt", (await io.call(IoCall("bank", {"amount": 7}))).response)


class One:
    """A run of one state that pays, over memory."""

    def __init__(self, bank: Bank, handler: Any = pay, meta: StateMeta = APPLIES, attempts: int = 3) -> None:
        self.clock = FakeClock()
        self.bank = bank
        self.plan = plan_of(("a", Scripted(handler, meta)))
        self.config = RunConfig(retry_policy=RetryPolicy(attempts, FixedBackoff(timedelta(seconds=1))))
        self.stores = memory_stores(clock=self.clock)

    def engine(self, *failpoints: str) -> Engine:
        return Engine(FixedResolver(self.plan), self.bank, Failpoints.parse(failpoints), self.clock)

    async def start(self, *failpoints: str) -> Any:
        self.result = await self.engine(*failpoints).start(
            self.stores, await start_run(self.stores, self.plan, self.config)
        )
        return self.result

    async def resume(self) -> Any:
        self.result = await self.engine().resume(self.stores, self.result.run_id)
        return self.result

    async def story(self) -> list[str]:
        return await stream(self.stores, self.result)


def drops(*numbers: int) -> Callable[[int], None]:
    """Calls of these numbers end without an answer, before anything happened."""

    def behave(number: int) -> None:
        if number in numbers:
            raise TransportError.of("line_dropped", "no answer came")

    return behave


async def test_an_effect_is_written_down_before_it_is_made_and_after() -> None:
    """Two commits; the answer is a fact like any other. The key names the run, the state and the place."""
    one = One(Bank())
    commits: list[int] = []
    one.engine = lambda *_: Engine(  # type: ignore[method-assign]  # this once with an observer
        FixedResolver(one.plan),
        one.bank,
        clock=one.clock,
        observer=lambda _, events: commits.append(len(events)),
    )
    assert (await one.start()).phase is RunPhase.COMPLETED
    assert await one.story() == ["started", "entered a 0", *EFFECT, "completed a", "run Completed"]
    assert commits == [2, 1, 2, 2]
    assert one.bank.calls == {f"{one.result.run_id}:m.main.a:0": 1}


async def test_reads_of_the_same_state_are_no_effects() -> None:
    """The call says so, or the transport does; the state only says what it may do."""

    async def handler(ctx: Context, io: IoProvider, rec: Recorder) -> None:
        await io.call(
            IoCall("bank", {"kind": "balance"}, fact_key="balance", effect=SideEffectKind.READ_ONLY_IO)
        )
        await pay(ctx, io, rec)

    one = One(Bank(), handler)
    await one.start()
    assert (await one.story())[2:6] == ["fact_recorded", *EFFECT]


async def test_a_call_may_say_by_itself_that_it_is_an_effect() -> None:
    """Then its state need not, and the call may have a key of its own."""

    async def handler(ctx: Context, io: IoProvider, rec: Recorder) -> None:
        call = IoCall(
            "bank",
            {"amount": 7},
            fact_key="paid",
            effect=SideEffectKind.APPLY_SIDE_EFFECT,
            idempotency_key="invoice-17",
        )
        assert (await io.call(call)).response == (await io.call(call)).response

    one = One(Bank(), handler, StateMeta())
    assert (await one.start()).phase is RunPhase.COMPLETED
    assert one.bank.calls == {"invoice-17": 1}


async def test_an_effect_s_own_key_may_be_named_and_no_other_one() -> None:
    """Its answer has that key anyway; another's would be taken for the answer of that effect."""

    async def handler(ctx: Context, io: IoProvider, rec: Recorder) -> None:
        first = f"effect:{run_id}:m.main.a:0"
        with pytest.raises(IoError, match="fact_key_reserved"):
            await io.call(IoCall("bank", {}, first.replace(":0", ":1")))
        with pytest.raises(IoError, match="fact_key_reserved"):
            await io.call(IoCall("bank", {}, first, effect=SideEffectKind.READ_ONLY_IO))
        with pytest.raises(IoError, match="fact_key_reserved"):
            await io.call(IoCall("bank", {}, "effect:other", idempotency_key="k"))
        await io.call(IoCall("bank", {}, first))
        await io.call(IoCall("bank", {}, "effect:k", idempotency_key="k"))

    one, run_id = One(Bank(), handler), RunId.random()
    run = await start_run(one.stores, one.plan, one.config, run_id=run_id)
    one.result = await one.engine().start(one.stores, run)
    assert one.result.phase is RunPhase.COMPLETED
    assert one.bank.calls == {f"{run_id}:m.main.a:0": 1, "k": 1}
    config = RunConfig(io_mode=IoMode.REPLAY, replay_of=run_id)
    again = await Engine(FixedResolver(one.plan)).start(
        one.stores, await start_run(one.stores, one.plan, config)
    )
    assert again.phase is RunPhase.COMPLETED


async def test_a_transport_that_changes_the_world_must_be_declared() -> None:
    """Nothing is sent from a state that says it is pure."""
    one = One(Bank(EffectTraits(is_effect=True)), meta=StateMeta())
    assert (await one.start()).phase is RunPhase.FAILED
    assert (await one.story())[2:] == ["failed a effect_not_declared", "run Failed"]
    assert not one.bank.calls


@pytest.mark.parametrize("crash", ["transport.before:1", "transport.after:1", "commit.before:3"])
async def test_after_a_crash_an_idempotent_effect_is_made_again_with_its_key(crash: str) -> None:
    """The server sees the same key, and pays once."""
    one = One(Bank(EffectTraits(is_idempotent=True)))
    await one.start(f"{crash}=stop")
    assert (await one.resume()).phase is RunPhase.COMPLETED
    assert list(one.bank.paid.values()) == [{"receipt": 1}]
    assert len(one.bank.calls) == 1
    assert "effect_intended" not in (await one.story())[4:]


async def test_a_key_that_the_server_has_forgotten_is_not_used_again() -> None:
    """Past its lifetime the same key would pay a second time; the run asks."""
    one = One(Bank(EffectTraits(is_idempotent=True, key_lifetime=timedelta(hours=24))))
    await one.start("transport.after:1=stop")
    one.clock.advance(24 * 3600 * 1000)
    assert (await one.resume()).waiting_for.startswith("effect_in_doubt ")
    assert one.bank.calls.total() == 1


async def test_a_transport_that_can_look_it_up_is_asked() -> None:
    """What was paid is recorded, what was not is paid."""
    for crash, calls in [("transport.before:1", 1), ("transport.after:1", 1)]:
        one = One(Bank(EffectTraits(looks_up=True)))
        await one.start(f"{crash}=stop")
        assert (await one.resume()).phase is RunPhase.COMPLETED, crash
        assert (one.bank.looked_up, one.bank.calls.total()) == (1, calls)


@pytest.mark.parametrize("crash", ["transport.before:1", "transport.after:1", "commit.before:3"])
async def test_otherwise_the_run_waits_until_somebody_says_what_happened(crash: str) -> None:
    """It is never made blindly twice; what is said is recorded, with who and why."""
    one = One(Bank())
    await one.start(f"{crash}=stop")
    calls = one.bank.calls.total()
    parked = await one.resume()
    assert parked.phase is RunPhase.RUNNING
    key = f"{parked.run_id}:m.main.a:0"
    assert parked.waiting_for == f"effect_in_doubt {key}"
    assert [effect.key for effect in (await read_view(one.stores, parked.run_id)).in_doubt] == [key]
    assert (await one.resume()).waiting_for == parked.waiting_for

    told = ResolveLetter(key, True, {"receipt": 99}, "ann", "it is on the statement")
    await one.engine().send(one.stores, parked.run_id, told, "a")
    done = await one.resume()
    assert done.phase is RunPhase.COMPLETED
    assert one.bank.calls.total() == calls
    settled = [
        envelope.event.payload  # type: ignore[union-attr]  # a domain event
        for envelope in await one.stores.events.read_range(done.run_id, 1)
        if getattr(envelope.event, "name", "") == "effect_settled"
    ]
    assert [(each["outcome"], each["by"], each["why"]) for each in settled] == [
        ("applied", "ann", "it is on the statement")
    ]


async def test_what_somebody_says_of_an_effect_that_is_being_made_is_not_heard() -> None:
    """It cannot be known yet. The answer counts, and the history holds no other."""
    asked, answering = asyncio.Event(), asyncio.Event()

    class Slow(Bank):
        async def call(self, call: IoCall) -> Json:
            asked.set()
            await answering.wait()
            return await super().call(call)

    one = One(Slow())
    engine, run_id = one.engine(), RunId.random()
    run = await start_run(one.stores, one.plan, one.config, run_id=run_id)
    driving = asyncio.create_task(engine.start(one.stores, run))
    await asked.wait()
    told = ResolveLetter(f"{run_id}:m.main.a:0", True, {"receipt": 99}, "ann", "it must have")
    await engine.send(one.stores, run_id, told, "a")
    while await one.stores.mailbox.unread(run_id):  # noqa: ASYNC110 — whoever reads it announces nothing
        await asyncio.sleep(0)
    answering.set()
    done = await driving
    assert done.phase is RunPhase.COMPLETED
    assert (await stream(one.stores, done))[2:5] == EFFECT
    assert len(await stream(one.stores, done)) == 7


async def test_a_word_on_a_doubt_is_not_taken_for_one_on_a_later_doubt() -> None:
    """The same effect was made again since somebody looked; nothing is known of that."""
    one = One(Bank(behave=drops(1, 2)))
    parked = await one.start()
    key = f"{parked.run_id}:m.main.a:0"
    not_paid = ResolveLetter(key, False, None, "ann", "nothing on the statement", doubt=1)
    for letter_id in ("ann's", "bob's"):
        await one.engine().send(one.stores, parked.run_id, not_paid, letter_id)
        parked = await one.resume()
    assert parked.waiting_for == f"effect_in_doubt {key}"
    assert one.bank.calls.total() == 2
    told = msgspec.structs.replace(not_paid, doubt=2)
    await one.engine().send(one.stores, parked.run_id, told, "carl's")
    assert (await one.resume()).phase is RunPhase.COMPLETED


async def test_a_word_that_comes_while_a_handler_runs_is_heard_when_it_has_ended() -> None:
    """The state is tried again, and the server asked, when somebody says what became of the first try."""
    asked, answering = asyncio.Event(), asyncio.Event()

    class Slow(Bank):
        async def call(self, call: IoCall) -> Json:
            self.calls[call.idempotency_key] += 1
            if self.calls.total() > 1:
                asked.set()
                await answering.wait()
            raise TransportError.of("line_dropped", "no answer came")

    one = One(Slow(EffectTraits(is_idempotent=True)), attempts=2)
    engine, run_id = one.engine(), RunId.random()
    driving = asyncio.create_task(
        engine.start(one.stores, await start_run(one.stores, one.plan, one.config, run_id=run_id))
    )
    await asked.wait()
    told = ResolveLetter(f"{run_id}:m.main.a:0", True, {"receipt": 99}, "ann", "seen", doubt=1)
    await engine.send(one.stores, run_id, told, "a")
    for _ in range(20):
        await asyncio.sleep(0)
    assert [letter.id for letter in await one.stores.mailbox.unread(run_id)] == ["a"]
    answering.set()
    assert (await driving).phase is RunPhase.COMPLETED
    assert one.bank.calls.total() == 2
    assert await one.stores.mailbox.unread(run_id) == []


@pytest.mark.parametrize("happened", [True, False])
async def test_a_word_that_comes_before_the_answer_counts_if_it_gives_one(happened: bool) -> None:
    """A run that waits for a word is woken by something else, and may ask by now: one answer is recorded."""
    asked, answering = asyncio.Event(), asyncio.Event()

    class Slow(Bank):
        async def call(self, call: IoCall) -> Json:
            self.calls[call.idempotency_key] += 1
            if self.calls.total() == 1:
                raise TransportError.of("line_dropped", "no answer came")
            asked.set()
            await answering.wait()
            return {"receipt": 1}

    async def handler(ctx: Context, io: IoProvider, rec: Recorder) -> None:
        await asyncio.gather(pay(ctx, io, rec), io.wait_signal("go"))

    one = One(Slow(), handler)
    parked = await one.start()
    one.bank.traits = EffectTraits(is_idempotent=True)
    engine, key = one.engine(), f"{parked.run_id}:m.main.a:0"
    await engine.send(one.stores, parked.run_id, SignalLetter("go", None, "ann"), "go")
    driving = asyncio.create_task(engine.resume(one.stores, parked.run_id))
    await asked.wait()
    told = ResolveLetter(key, happened, {"receipt": 99}, "ann", "seen", doubt=1)
    await engine.send(one.stores, parked.run_id, told, "a")
    while await one.stores.mailbox.unread(parked.run_id):  # noqa: ASYNC110 — whoever reads it announces nothing
        await asyncio.sleep(0)
    answering.set()
    done = await driving
    assert done.phase is RunPhase.COMPLETED
    assert done.final_snapshot_id is not None
    context, _ = await read_json(one.stores.artifacts, done.final_snapshot_id)
    assert context == {"receipt": {"receipt": 99 if happened else 1}}
    await read_view(one.stores, done.run_id)


async def test_a_word_that_is_said_twice_counts_once() -> None:
    """Who sends a letter again, not knowing whether it arrived, has not looked again."""
    one = One(Bank(behave=drops(1, 2)))
    parked = await one.start()
    told = ResolveLetter(f"{parked.run_id}:m.main.a:0", False, None, "ann", "nothing on the statement")
    for _ in range(2):
        await one.engine().send(one.stores, parked.run_id, told, "one letter")
        parked = await one.resume()
    assert parked.waiting_for == f"effect_in_doubt {told.effect}"
    assert one.bank.calls.total() == 2


async def test_what_did_not_happen_is_done() -> None:
    """Somebody says that it did not: it is made now, and may come to be in doubt again."""
    one = One(Bank(behave=drops(1, 2)))
    parked = await one.start()
    assert await one.story() == ["started", "entered a 0", "effect_intended", "wait_started"]
    key = f"{parked.run_id}:m.main.a:0"
    for number in (1, 2):
        assert parked.waiting_for == f"effect_in_doubt {key}"
        assert one.bank.calls.total() == number
        told = ResolveLetter(key, False, None, "ann", "nothing on the statement")
        await one.engine().send(one.stores, parked.run_id, told, f"letter {number}")
        parked = await one.resume()
    assert parked.phase is RunPhase.COMPLETED
    assert one.bank.calls == {key: 3}
    assert len(one.bank.paid) == 1


async def test_only_a_transport_that_knows_that_nothing_happened_is_asked_again() -> None:
    """The attempt fails, and the next one makes the effect anew."""

    def behave(number: int) -> None:
        if number == 1:
            raise NotAppliedError.of("bank_closed", "come back later", retryable=True)

    one = One(Bank(behave=behave))
    assert (await one.start()).phase is RunPhase.COMPLETED
    assert await one.story() == [
        "started",
        "entered a 0",
        "effect_intended",
        "effect_settled",
        "failed a bank_closed",
        "retry_scheduled",
        "entered a 1",
        *EFFECT,
        "completed a",
        "run Completed",
    ]


async def test_without_an_answer_an_idempotent_effect_is_retried_as_the_policy_says() -> None:
    """Also where the transport's error says nothing of trying again."""
    one = One(Bank(EffectTraits(is_idempotent=True), drops(1, 2)))
    assert (await one.start()).phase is RunPhase.COMPLETED
    assert one.bank.calls == {f"{one.result.run_id}:m.main.a:0": 3}
    assert (await one.story()).count("effect_intended") == 1


@pytest.mark.parametrize("happened", [True, False])
async def test_when_the_retries_are_used_up_in_doubt_the_run_waits_for_a_word(happened: bool) -> None:
    """It has not failed: the money may be gone. What is told is taken up by one more attempt."""
    one = One(Bank(EffectTraits(is_idempotent=True), drops(1, 2, 3, 4)))
    parked = await one.start()
    key = f"{parked.run_id}:m.main.a:0"
    for calls in (3,) if happened else (3, 4):
        assert (parked.phase, parked.waiting_for) == (RunPhase.RUNNING, f"effect_in_doubt {key}")
        assert one.bank.calls == {key: calls}
        assert (await read_view(one.stores, parked.run_id)).waiting_for == parked.waiting_for
        assert await one.resume() == parked
        told = ResolveLetter(key, happened, {"receipt": 99}, "ann", "it is on the statement")
        await one.engine().send(one.stores, parked.run_id, told, f"letter {calls}")
        parked = await one.resume()
    assert parked.phase is RunPhase.COMPLETED
    assert one.bank.calls == {key: 3 if happened else 5}
    assert (await one.story()).count("entered a 4") == (not happened)


async def test_a_state_that_fails_for_good_in_doubt_waits_for_a_word_and_is_tried_once_more() -> None:
    """The handler makes a failure of its own of it. An attempt that ends with its process does not count."""

    async def handler(ctx: Context, io: IoProvider, rec: Recorder) -> None:
        try:
            await pay(ctx, io, rec)
        except TransportError:
            raise ValueError("not paid") from None
        raise ValueError("something else")

    one = One(Bank(EffectTraits(is_idempotent=True), drops(1)), handler)
    parked = await one.start()
    assert parked.waiting_for == f"effect_in_doubt {parked.run_id}:m.main.a:0"
    told = ResolveLetter(f"{parked.run_id}:m.main.a:0", True, 1, "ann", "seen")
    await one.engine().send(one.stores, parked.run_id, told, "a")
    await one.engine("handler.before:1=stop").resume(one.stores, parked.run_id)
    assert (await one.resume()).phase is RunPhase.FAILED
    assert (await one.story())[3:] == [
        "failed a handler_raised",
        "effect_settled",
        "fact_recorded",
        "entered a 1",
        "failed a orphan_attempt_recovered",
        "entered a 2",
        "failed a handler_raised",
        "run Failed",
    ]


class Mute(Bank):
    """Pays on its first call and does not say so; how later ones end is for ``behave`` to say."""

    async def call(self, call: IoCall) -> Json:
        answer = await super().call(call)
        if self.calls.total() == 1:
            raise TransportError.of("line_dropped", "no answer came")
        return answer


async def test_a_repeat_that_is_refused_tells_nothing_of_the_first_call() -> None:
    """The bank cannot be reached just now, and has paid: the effect stays in doubt, as old as it is."""

    def behave(number: int) -> None:
        if number == 2:
            raise NotAppliedError.of("bank_closed", "come back later", retryable=True)

    one = One(Mute(EffectTraits(is_idempotent=True), behave), attempts=2)
    parked = await one.start()
    assert parked.waiting_for == f"effect_in_doubt {parked.run_id}:m.main.a:0"
    assert "effect_settled" not in await one.story()

    one = One(Mute(EffectTraits(is_idempotent=True), behave))
    assert (await one.start()).phase is RunPhase.COMPLETED
    assert (await one.story()).count("effect_intended") == 1
    assert len(one.bank.paid) == 1


async def test_after_a_repeat_that_is_refused_for_good_somebody_must_say_what_happened() -> None:
    """Asking again would end as it did, and what became of the first call is still not known."""

    def behave(number: int) -> None:
        if number > 1:
            raise NotAppliedError.of("account_closed", "no more payments")

    one = One(Mute(EffectTraits(is_idempotent=True), behave))
    parked = await one.start()
    assert parked.waiting_for == f"effect_in_doubt {parked.run_id}:m.main.a:0"
    assert one.bank.calls.total() == 2


async def test_a_look_up_that_is_refused_finds_nothing_out() -> None:
    """Being asked to look less often does not say that nothing was paid."""

    class Busy(Mute):
        async def look_up(self, call: IoCall) -> Json:
            if self.looked_up == 0:
                self.looked_up += 1
                busy = RateLimitedError.of("bank_busy", "come back later", retryable=True)
                busy.not_applied = True
                raise busy
            return await super().look_up(call)

    one = One(Busy(EffectTraits(looks_up=True)))
    assert (await one.start()).phase is RunPhase.COMPLETED
    assert (one.bank.looked_up, one.bank.calls.total()) == (2, 1)


@pytest.mark.parametrize(
    "refusal",
    [
        NotAppliedError.of("connect_failed", "nobody there"),
        IoError.of("busy", "still at it", category=ErrorCategory.PARSING_INPUT),
    ],
)
async def test_that_a_repeated_call_is_refused_says_nothing_about_the_first(refusal: IoError) -> None:
    """It stays in doubt, and the key's lifetime is counted from the first call."""

    class Forgetful(Bank):
        async def call(self, call: IoCall) -> Json:
            if self.calls.total() == 1:
                self.calls[call.idempotency_key] += 1
                raise refusal
            await super().call(call)
            raise TransportError.of("line_dropped", "no answer came")

    one = One(Forgetful(EffectTraits(is_idempotent=True, key_lifetime=timedelta(hours=24))))
    one.config = RunConfig(retry_policy=RetryPolicy(3, FixedBackoff(timedelta(hours=23))))
    await one.start()
    while one.result.due_millis is not None:
        one.clock.millis = one.result.due_millis
        await one.resume()
    assert one.result.waiting_for == f"effect_in_doubt {one.result.run_id}:m.main.a:0"
    assert one.bank.calls.total() == 2
    assert "effect_settled" not in await one.story()


@pytest.mark.parametrize(
    "refusal",
    [
        NotAppliedError.of("connect_failed", "the journal cannot be reached"),
        RateLimitedError.of("slow_down", "later"),
        IoError.of("bad_question", "what?", category=ErrorCategory.PARSING_INPUT),
    ],
)
async def test_that_looking_up_is_refused_says_nothing_about_the_effect(refusal: IoError) -> None:
    """Only ``EffectNotMadeError`` says that it was never made."""
    refusal.not_applied = True

    class Shy(Bank):
        async def look_up(self, call: IoCall) -> Json:
            if not self.looked_up:
                self.looked_up += 1
                raise refusal
            return await super().look_up(call)

    one = One(Shy(EffectTraits(looks_up=True)))
    await one.start("transport.after:1=stop")
    assert (await one.resume()).phase is RunPhase.COMPLETED
    assert (one.bank.looked_up, one.bank.calls.total()) == (2, 1)


async def test_a_time_out_leaves_an_effect_in_doubt() -> None:
    """The state is tried again, and meets the effect that nobody knows about."""
    meta = StateMeta(
        side_effects=SideEffectKind.APPLY_SIDE_EFFECT, idempotency="pay", timeout=timedelta(seconds=0.01)
    )

    class Slow(Bank):
        async def call(self, call: IoCall) -> Json:
            await super().call(call)
            return await asyncio.get_running_loop().create_future()

    one = One(Slow(), meta=meta)
    one.config = RunConfig(retry_policy=RetryPolicy(3, FixedBackoff()))
    parked = await one.start()
    assert parked.phase is RunPhase.RUNNING
    assert parked.waiting_for.startswith("effect_in_doubt ")
    assert one.bank.calls.total() == 1


async def test_an_effect_s_answer_that_may_not_be_written_is_lost_and_the_effect_is_not_made_again() -> None:
    """It has happened; saying that nobody knows would be a lie."""

    class Odd(Bank):
        async def call(self, call: IoCall) -> Json:
            await super().call(call)
            return 1.5

    async def handler(ctx: Context, io: IoProvider, rec: Recorder) -> None:
        with pytest.raises(IoError, match="fact_payload_not_canonical"):
            await pay(ctx, io, rec)
        raise TransportError.of("again", "once more", retryable=True)

    one = One(Odd(), handler, attempts=2)
    await one.start()
    assert one.bank.calls.total() == 1
    assert "effect_settled" in await one.story()


async def test_another_request_under_the_key_is_refused() -> None:
    """The code has changed, or is not deterministic."""
    amounts = iter([7, 8])

    async def handler(ctx: Context, io: IoProvider, rec: Recorder) -> None:
        await io.call(IoCall("bank", {"amount": next(amounts)}, idempotency_key="k"))
        raise TransportError.of("again", "once more", retryable=True)

    one = One(Bank(), handler, attempts=2)
    await one.start()
    assert "failed a effect_request_mismatch" in await one.story()
    assert one.bank.calls.total() == 1


async def test_an_effect_that_is_being_made_is_not_made_a_second_time() -> None:
    """Two calls at once under one key, which want the answer under different names."""

    async def handler(ctx: Context, io: IoProvider, rec: Recorder) -> None:
        calls = [IoCall("bank", {"amount": 7}, fact_key=name, idempotency_key="k") for name in "xy"]
        await asyncio.gather(*map(io.call, calls))

    one = One(Bank(), handler)
    one.stores, _ = slow_stores(one.clock)
    assert (await one.start()).phase is RunPhase.COMPLETED
    assert one.bank.calls == {"k": 1}
    assert (await one.story()).count("effect_intended") == 1


@pytest.mark.parametrize("effect", [SideEffectKind.APPLY_SIDE_EFFECT, SideEffectKind.READ_ONLY_IO])
async def test_a_call_that_ends_with_its_attempt_is_not_made_again_by_what_is_left_of_it(
    effect: SideEffectKind,
) -> None:
    """The handler fails while another branch of it waits for an answer: only the next attempt asks again."""
    asked, left = asyncio.Event(), list[asyncio.Task[Any]]()

    class Slow(Bank):
        async def call(self, call: IoCall) -> Json:
            self.calls[call.fact_key] += 1
            asked.set()
            return await asyncio.get_running_loop().create_future() if self.calls.total() == 1 else 1

    async def handler(ctx: Context, io: IoProvider, rec: Recorder) -> None:
        left.append(asyncio.create_task(io.call(IoCall("bank", {}, fact_key="k", effect=effect))))
        await asked.wait()
        await asyncio.sleep(0)
        raise TransportError.of("other_branch", "it went wrong")

    one = One(Slow(EffectTraits(is_idempotent=True)), handler)
    await one.start()
    assert (await one.story()).count("failed a other_branch") == 1
    with pytest.raises(IoError, match="attempt_closed"):
        await left[0]
    assert one.bank.calls == {"k": 1}


async def test_an_effect_that_was_made_has_its_answer_under_any_name() -> None:
    """It is not made again for a call that has its idempotency key and another fact key."""
    answers: list[Json] = []

    async def handler(ctx: Context, io: IoProvider, rec: Recorder) -> None:
        for name in "xy":
            call = IoCall("bank", {"amount": 7}, fact_key=name, idempotency_key="k")
            answers.append((await io.call(call)).response)

    one = One(Bank(), handler)
    assert (await one.start()).phase is RunPhase.COMPLETED
    assert answers == [{"receipt": 1}] * 2
    assert one.bank.calls == {"k": 1}


async def test_two_effects_of_one_state_keep_their_places_when_it_is_run_again() -> None:
    """The first is answered by its fact, and the second is still the second."""

    async def handler(ctx: Context, io: IoProvider, rec: Recorder) -> None:
        await io.call(IoCall("bank", {"amount": 1}, fact_key="first"))
        await io.call(IoCall("bank", {"amount": 2}))

    one = One(Bank(EffectTraits(is_idempotent=True), drops(2)), handler)
    assert (await one.start()).phase is RunPhase.COMPLETED
    run_id = one.result.run_id
    assert one.bank.calls == {f"{run_id}:m.main.a:0": 1, f"{run_id}:m.main.a:1": 2}


async def test_replay_keeps_what_was_answered_and_what_was_said() -> None:
    """Nothing outside is reached; the same context comes out."""
    one = One(Bank())
    await one.start("transport.after:1=stop")
    parked = await one.resume()
    told = ResolveLetter(f"{parked.run_id}:m.main.a:0", True, {"receipt": 99}, "ann", "seen")
    await one.engine().send(one.stores, parked.run_id, told, "a")
    done = await one.resume()
    config = RunConfig(io_mode=IoMode.REPLAY, replay_of=done.run_id, retry_policy=one.config.retry_policy)
    again = await Engine(FixedResolver(one.plan)).start(
        one.stores, await start_run(one.stores, one.plan, config)
    )
    assert again.phase is RunPhase.COMPLETED
    assert again.final_snapshot_id == done.final_snapshot_id
    assert isinstance(one.stores, Stores)
