"""Facts: asked once, bound once, and the same in every attempt and in replay."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from perdure import (
    ConcurrencyError,
    Context,
    Engine,
    ErrorCategory,
    ErrorInfo,
    IoCall,
    IoError,
    IoMode,
    IoProvider,
    MissingFactKeyError,
    Recorder,
    RetryPolicy,
    RunConfig,
    RunPhase,
    StateError,
    StateFailed,
    StorageError,
    Stores,
    TransportRouter,
)
from perdure.errors import Json
from perdure.stores.memory import MemoryState, MemoryStore
from perdure.stores.reading import read_json
from perdure.testing.clock import FakeClock
from tests.support import CountingTransport, FixedResolver, InstantClock, Scripted, plan_of, start_run, stream


class One:
    """One state's run over memory: what it wrote, how it ended, and what was asked."""

    def __init__(self, handler: Any, transport: Any = None, config: RunConfig | None = None) -> None:
        self.stores = Stores.in_memory()
        self.plan = plan_of(("a", Scripted(handler)))
        self.transport = transport or CountingTransport()
        self.config = config or RunConfig()

    async def run(self) -> Any:
        """The final context, or the error that the last attempt ended with."""
        engine = Engine(FixedResolver(self.plan), transports=self.transport, clock=InstantClock())
        self.result = await engine.start(self.stores, await start_run(self.stores, self.plan, self.config))
        if self.result.phase is RunPhase.FAILED:
            failures = [
                envelope.event.error.info
                for envelope in await self.stores.events.read_range(self.result.run_id, 1)
                if isinstance(envelope.event, StateFailed)
            ]
            return failures[-1]
        assert self.result.final_snapshot_id is not None
        return (await read_json(self.stores.artifacts, self.result.final_snapshot_id))[0]


async def test_a_fact_is_shared_by_all_attempts() -> None:
    """The second attempt does not ask again."""
    attempts: list[Json] = []

    async def handler(ctx: Context, io: IoProvider, rec: Recorder) -> None:
        attempts.append((await io.call(IoCall("test", {"q": 1}, "k"))).response)
        if len(attempts) == 1:
            raise StateError(ErrorInfo("again", ErrorCategory.UNKNOWN, retryable=True))
        ctx.write("id", await io.get_recorded_fact("k"))

    one = One(handler)
    context = await one.run()
    assert attempts == [{"asked": {"q": 1}}] * 2
    assert one.transport.calls == {"k": 1}
    assert (await read_json(one.stores.artifacts, context["id"]))[0] == {"asked": {"q": 1}}


async def test_a_key_belongs_to_one_request() -> None:
    """Another request under it is refused, and so is another value."""

    async def other_request(ctx: Context, io: IoProvider, rec: Recorder) -> None:
        await io.call(IoCall("test", 1, "k"))
        await io.call(IoCall("test", 2, "k"))

    async def other_value(ctx: Context, io: IoProvider, rec: Recorder) -> None:
        assert await io.record_value("v", 1) == await io.record_value("v", 1)
        await io.record_value("v", 2)

    assert (await One(other_request).run()).code == "fact_request_mismatch"
    assert (await One(other_value).run()).code == "fact_payload_conflict"


async def test_concurrent_calls_with_one_key_share_one() -> None:
    """Twenty callers, one call; a caller that goes away takes nobody along."""

    async def handler(ctx: Context, io: IoProvider, rec: Recorder) -> None:
        calls = [asyncio.ensure_future(io.call(IoCall("test", 1, "k"))) for _ in range(20)]
        await asyncio.sleep(0)
        calls[0].cancel()
        answers = await asyncio.gather(*calls, return_exceptions=True)
        ctx.write("answers", [getattr(each, "response", None) for each in answers])

    one = One(handler)
    assert (await one.run())["answers"] == [None] + [{"asked": 1}] * 19
    assert one.transport.calls == {"k": 1}


class Silent:
    """A transport whose first call gets no answer."""

    namespace_group = "test"

    def __init__(self) -> None:
        self.asked = asyncio.Event()
        self.given_up = 0

    def make(self, env: Any) -> Silent:
        return self

    async def call(self, call: IoCall) -> Json:
        if self.asked.is_set():
            return "answer"
        self.asked.set()
        try:
            return await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.given_up += 1
            raise


async def test_a_call_that_nobody_waits_for_is_given_up() -> None:
    """It ends at once, nothing is recorded, and the key is free."""
    transport = Silent()

    async def handler(ctx: Context, io: IoProvider, rec: Recorder) -> None:
        calls = [asyncio.ensure_future(io.call(IoCall("test", 1, "k"))) for _ in range(2)]
        await transport.asked.wait()
        for each in calls:
            assert transport.given_up == 0
            each.cancel()
            await asyncio.gather(each, return_exceptions=True)
        answer = await io.call(IoCall("test", 1, "k"))
        ctx.write("found", [transport.given_up, answer.response])

    assert (await One(handler, transport).run())["found"] == [1, "answer"]


async def test_whoever_waits_asks_for_itself_when_the_handler_gives_up() -> None:
    """The handler's own call ends with its patience."""
    transport = Silent()

    async def handler(ctx: Context, io: IoProvider, rec: Recorder) -> None:
        async def follow() -> Any:
            await transport.asked.wait()
            patience.reschedule(asyncio.get_running_loop().time())
            return (await io.call(IoCall("test", 1, "k"))).response

        follower = asyncio.create_task(follow())
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(None) as patience:
                await io.call(IoCall("test", 1, "k"))
        ctx.write("found", [transport.given_up, await follower])

    assert (await One(handler, transport).run())["found"] == [1, "answer"]


async def test_a_call_without_a_key_goes_out_every_time() -> None:
    """It is not recorded, and may even carry what could not be."""

    async def handler(ctx: Context, io: IoProvider, rec: Recorder) -> None:
        for _ in range(2):
            assert (await io.call(IoCall("test", 1.5))).recorded_payload_id is None

    one = One(handler)
    await one.run()
    assert one.transport.calls == {None: 2}
    assert "fact_recorded" not in await stream(one.stores, one.result)


@pytest.mark.parametrize(
    ("call", "code"),
    [
        (IoCall("test", {"x": 1.5}, "k"), "float_not_allowed"),
        (IoCall("test", {"password": "hunter2"}, "k"), "secrets_detected"),
        (IoCall("test", 1, "password=hunter2"), "secrets_detected"),
        (IoCall("test", 1, ""), "invalid_id"),
        (IoCall("nowhere", 1, "k"), "io_unknown_namespace"),
        (IoCall("testing", 1, "k"), "io_unknown_namespace"),
    ],
)
async def test_what_may_not_be_recorded_is_not_asked(call: IoCall, code: str) -> None:
    """Refused before anything goes out."""

    async def handler(ctx: Context, io: IoProvider, rec: Recorder) -> None:
        await io.call(call)

    one = One(handler)
    assert (await one.run()).code == code
    assert not one.transport.calls


@pytest.mark.parametrize("key", ["wait:m.main.a|0", "signal:approval|0", "effect:another"])
@pytest.mark.parametrize("does", ["call", "record"])
async def test_keys_that_the_engine_gives_meaning_to_are_not_bound_by_handlers(does: str, key: str) -> None:
    """Else a handler could end its own waits, and invent signals. Nothing is asked; what is there is read."""

    async def handler(ctx: Context, io: IoProvider, rec: Recorder) -> None:
        assert await io.get_recorded_fact(key) is None
        if does == "call":
            await io.call(IoCall("test", {}, key))
        else:
            await io.record_value(key, None)

    one = One(handler)
    info = await one.run()
    assert (info.code, info.retryable) == ("fact_key_reserved", False)
    assert not one.transport.calls
    one.config = RunConfig(io_mode=IoMode.REPLAY)
    assert (await one.run()).code == "fact_key_reserved"


async def test_an_answer_that_may_not_be_recorded_is_refused() -> None:
    """Unless the call asks for redaction."""

    async def plain(ctx: Context, io: IoProvider, rec: Recorder) -> None:
        await io.call(IoCall("test", 1, "k"))

    async def redacted(ctx: Context, io: IoProvider, rec: Recorder) -> None:
        ctx.write("answer", (await io.call(IoCall("test", 1, "k", redact=True))).response)

    leaky = CountingTransport(lambda call: {"note": "password=hunter2"})
    assert (await One(plain, CountingTransport(lambda call: 1.5)).run()).code == "fact_payload_not_canonical"
    assert (await One(plain, leaky).run()).code == "secrets_detected"
    assert (await One(redacted, leaky).run())["answer"] == {"note": "password=[redacted:assignment]"}


async def test_transports_are_chosen_by_the_longest_group() -> None:
    """``a.b`` serves ``a.b.c``, ``a`` the rest of its own; without any there is nobody to ask."""

    class Named:
        def __init__(self, group: str) -> None:
            self.namespace_group = group

        def make(self, env: Any) -> Named:
            return self

        async def call(self, call: IoCall) -> Json:
            return self.namespace_group

    async def handler(ctx: Context, io: IoProvider, rec: Recorder) -> None:
        names = ("a", "a.b", "a.b.c", "a.x")
        ctx.write("by", [(await io.call(IoCall(name, 1))).response for name in names])

    assert (await One(handler, TransportRouter([Named("a"), Named("a.b")])).run())["by"] == [
        "a",
        "a.b",
        "a.b",
        "a",
    ]
    assert (await One(handler, TransportRouter([])).run()).code == "io_unimplemented"


async def test_what_a_transport_raises_reaches_the_handler() -> None:
    """As an ``IoError``; nothing is recorded."""

    def broken(call: IoCall) -> Json:
        raise OSError("secret plans")

    async def handler(ctx: Context, io: IoProvider, rec: Recorder) -> None:
        try:
            await io.call(IoCall("test", 1, "k"))
        except IoError as error:
            ctx.write("code", error.code)

    assert (await One(handler, CountingTransport(broken)).run())["code"] == "transport_raised"


async def test_a_fact_that_cannot_be_stored_is_taken_back() -> None:
    """The attempt fails, is tried again, and asks again; then the fact is bound once."""

    class FailsOnce(MemoryStore):
        failed = False

        async def commit(self, artifacts: Any, appends: Any, claim: Any = None, **rest: Any) -> Any:
            names = [getattr(event, "name", "") for append in appends for event in append.events]
            if names == ["fact_recorded"] and not self.failed:
                self.failed = True
                raise StorageError.of("store_full", "no room")
            return await super().commit(artifacts, appends, claim, **rest)

    async def handler(ctx: Context, io: IoProvider, rec: Recorder) -> None:
        await io.call(IoCall("test", 1, "k"))

    one = One(handler)
    store = FailsOnce(MemoryState(), FakeClock())
    one.stores = Stores(store, store, store, store, mailbox=store, agenda=store)
    await one.run()
    assert one.transport.calls == {"k": 2}
    assert await stream(one.stores, one.result) == [
        "started",
        "entered a 0",
        "failed a fact_not_recorded",
        "entered a 1",
        "fact_recorded",
        "completed a",
        "run Completed",
    ]


async def test_who_was_fenced_off_stops_whatever_the_handler_does() -> None:
    """Another writer moved the stream: the stint ends, even if the handler swallows the error."""

    async def handler(ctx: Context, io: IoProvider, rec: Recorder) -> None:
        from perdure import DomainEvent

        runs = await one.stores.events.list_runs()
        await one.stores.events.append(runs[0], 2, [DomainEvent("intruder")])
        for _ in range(2):
            with pytest.raises(ConcurrencyError):
                await io.call(IoCall("test", 1, "k"))

    one = One(handler)
    with pytest.raises(ConcurrencyError) as caught:
        await one.run()
    assert caught.value.code == "event_store_concurrency"
    assert one.transport.calls == {"k": 1}


async def readings(ctx: Context, io: IoProvider, rec: Recorder) -> None:
    """Everything that a handler may learn."""
    ctx.write("time", await io.now_millis())
    ctx.write("bytes", (await io.random_bytes(4)).hex())
    ctx.write("uuid", await io.uuid4())
    ctx.write("answer", (await io.call(IoCall("test", 1, "k"))).response)
    await io.record_value("v", 7)


async def test_a_replay_reaches_the_same_snapshot_without_asking() -> None:
    """Under another run id, with another clock and no transport."""
    one = One(readings)
    await one.run()
    config = RunConfig(io_mode=IoMode.REPLAY, replay_of=one.result.run_id)
    engine = Engine(FixedResolver(one.plan), clock=FakeClock(5))
    replayed = await engine.start(one.stores, await start_run(one.stores, one.plan, config))
    assert replayed.final_snapshot_id == one.result.final_snapshot_id
    assert await stream(one.stores, replayed) == ["started", "entered a 0", "completed a", "run Completed"]


async def test_a_replay_answers_nothing_that_was_never_learned() -> None:
    """A fact that is missing, and a call without a key."""

    async def more(ctx: Context, io: IoProvider, rec: Recorder) -> None:
        with pytest.raises(MissingFactKeyError):
            await io.call(IoCall("test", 1))
        assert await io.get_recorded_fact("never") is None
        await io.call(IoCall("test", 1, "never"))

    one = One(readings)
    await one.run()
    plan = plan_of(("a", Scripted(more)))
    for retryable in (False, True):
        config = RunConfig(
            io_mode=IoMode.REPLAY,
            replay_of=one.result.run_id,
            replay_missing_fact_retryable=retryable,
            retry_policy=RetryPolicy(2),
        )
        replayed = await Engine(FixedResolver(plan)).start(
            one.stores, await start_run(one.stores, plan, config)
        )
        words = await stream(one.stores, replayed)
        assert words.count("failed a missing_fact") == 1 + retryable
