"""What goes wrong in a handler ends its attempt, and nothing else."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any

import pytest

from perdure import (
    ConcurrencyError,
    Context,
    DomainEvent,
    Engine,
    ErrorCategory,
    ErrorInfo,
    ExponentialBackoff,
    Failpoints,
    FixedBackoff,
    IoCall,
    IoProvider,
    Recorder,
    RetryPolicy,
    RunConfig,
    RunPhase,
    StateError,
    StateFailed,
    StateMeta,
    Stores,
)
from perdure.engine.history import fold
from perdure.ids import RunId
from tests.support import (
    START_MILLIS,
    CountingTransport,
    FixedResolver,
    InstantClock,
    Scripted,
    plan_of,
    start_run,
    stream,
)

Body = Callable[[Context, IoProvider, Recorder], Awaitable[Any]]


async def last_error(body: Body, meta: StateMeta | None = None) -> ErrorInfo:
    """The error with which a one-state run of ``body`` fails."""
    stores, plan = Stores.in_memory(), plan_of(("a", Scripted(body, meta)))
    config = RunConfig(retry_policy=RetryPolicy(1))
    engine = Engine(FixedResolver(plan), transports=CountingTransport())
    result = await engine.start(stores, await start_run(stores, plan, config))
    assert result.phase is RunPhase.FAILED
    (failed,) = [
        envelope.event
        for envelope in await stores.events.read_range(result.run_id, 1)
        if isinstance(envelope.event, StateFailed)
    ]
    return failed.error.info


async def test_whatever_a_handler_raises_fails_its_attempt() -> None:
    """Exceptions, ``sys.exit`` and a cancellation of its own are all the handler's failure."""

    async def raises(ctx: Context, io: IoProvider, rec: Recorder) -> None:
        raise KeyError("gone")

    async def exits(ctx: Context, io: IoProvider, rec: Recorder) -> None:
        sys.exit(3)

    async def cancels_itself(ctx: Context, io: IoProvider, rec: Recorder) -> None:
        raise asyncio.CancelledError

    async def groups(ctx: Context, io: IoProvider, rec: Recorder) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(raises(ctx, io, rec))

    for body, message in [
        (raises, "KeyError: 'gone'"),
        (exits, "SystemExit: 3"),
        (cancels_itself, "CancelledError"),
        (groups, "KeyError: 'gone'"),
    ]:
        info = await last_error(body)
        assert (info.code, info.message, info.retryable) == ("handler_raised", message, False)


async def test_an_error_of_ours_keeps_its_code_and_loses_its_details() -> None:
    """Details come from anywhere, so none are written; a message that may hold a secret is replaced."""

    async def raises(ctx: Context, io: IoProvider, rec: Recorder) -> None:
        raise StateError(ErrorInfo("declined", ErrorCategory.OFF_CHAIN, True, "card 4", {"card": 4}))

    async def leaks(ctx: Context, io: IoProvider, rec: Recorder) -> None:
        raise ValueError("login failed: password=hunter2hunter2")

    assert await last_error(raises) == ErrorInfo("declined", ErrorCategory.OFF_CHAIN, True, "card 4")
    assert (await last_error(leaks)).message == "error details redacted"


async def test_a_context_that_cannot_be_written_fails_the_attempt() -> None:
    """The place is named, the value never."""

    async def a_float(ctx: Context, io: IoProvider, rec: Recorder) -> None:
        ctx.write("price", {"eur": 1.5})

    async def a_secret(ctx: Context, io: IoProvider, rec: Recorder) -> None:
        ctx.write("login", {"password": "hunter2hunter2"})

    assert (await last_error(a_float)).code == "context_not_canonical"
    info = await last_error(a_secret)
    assert info.code == "secrets_detected"
    assert "hunter2" not in str(info)


async def test_a_state_may_take_only_so_long() -> None:
    """A handler that waits is stopped; one that blocks the loop is found out when it returns."""
    clock = InstantClock()

    async def waits(ctx: Context, io: IoProvider, rec: Recorder) -> None:
        await asyncio.Event().wait()

    async def blocks(ctx: Context, io: IoProvider, rec: Recorder) -> None:
        clock.millis += 60_000

    info = await last_error(waits, StateMeta(timeout=timedelta(milliseconds=1)))
    assert (info.code, info.retryable) == ("state_timeout", True)

    stores = Stores.in_memory()
    plan = plan_of(("a", Scripted(blocks, StateMeta(timeout=timedelta(seconds=1)))))
    config = RunConfig(retry_policy=RetryPolicy(1))
    result = await Engine(FixedResolver(plan), clock=clock).start(
        stores, await start_run(stores, plan, config)
    )
    assert "failed a state_timeout" in await stream(stores, result)


async def test_what_a_handler_left_running_can_do_nothing_more() -> None:
    """Its context, IO and recorder raise ``attempt_closed``."""
    kept: list[tuple[Context, IoProvider, Recorder]] = []

    async def keeps(ctx: Context, io: IoProvider, rec: Recorder) -> None:
        kept.append((ctx, io, rec))

    stores, plan = Stores.in_memory(), plan_of(("a", Scripted(keeps)))
    await Engine(FixedResolver(plan)).start(stores, await start_run(stores, plan))
    ((ctx, io, rec),) = kept
    attempts: list[Callable[[], Any]] = [lambda: ctx.read("x"), lambda: ctx.write("x", 1), ctx.dump]
    for attempt in attempts:
        with pytest.raises(Exception, match="attempt_closed"):
            attempt()
    for awaitable in (io.now_millis(), io.call(IoCall("test", 1)), rec.emit(DomainEvent("x"))):
        with pytest.raises(Exception, match="attempt_closed"):
            await awaitable


async def test_a_delayed_retry_waits_until_its_recorded_time() -> None:
    """The due time is in the stream, with the failure: a crash neither skips nor restarts the delay."""

    async def fails(ctx: Context, io: IoProvider, rec: Recorder) -> None:
        raise StateError(ErrorInfo("busy", ErrorCategory.RPC, retryable=True))

    backoff = ExponentialBackoff(timedelta(seconds=10), timedelta(seconds=15))
    config = RunConfig(retry_policy=RetryPolicy(3, backoff))
    stores, plan, clock = Stores.in_memory(), plan_of(("a", Scripted(fails))), InstantClock()
    engine = Engine(FixedResolver(plan), clock=clock, park_after=timedelta(minutes=1))
    result = await engine.start(stores, await start_run(stores, plan, config))
    assert await stream(stores, result) == [
        "started",
        "entered a 0",
        "failed a busy",
        "retry_scheduled",
        "entered a 1",
        "failed a busy",
        "retry_scheduled",
        "entered a 2",
        "failed a busy",
        "run Failed",
    ]
    assert clock.slept_until == [START_MILLIS + 10_000, START_MILLIS + 25_000]


async def test_cancelling_the_caller_leaves_a_run_that_resumes_at_once() -> None:
    """The attempt is closed as interrupted, which is no failure of its own."""
    entered = asyncio.Event()
    patience = [asyncio.Event()]

    async def waits(ctx: Context, io: IoProvider, rec: Recorder) -> None:
        await rec.emit(DomainEvent("told"))
        entered.set()
        await patience[-1].wait()

    stores, plan = Stores.in_memory(), plan_of(("a", Scripted(waits)))
    config = RunConfig(retry_policy=RetryPolicy(1, FixedBackoff(timedelta(hours=1))))
    run_id = RunId.random()
    engine = Engine(FixedResolver(plan))
    task = asyncio.ensure_future(engine.start(stores, await start_run(stores, plan, config, run_id=run_id)))
    await entered.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (await stream(stores, run_id))[-2:] == ["told", "failed a attempt_interrupted"]

    patience[-1].set()
    result = await engine.resume(stores, run_id)
    assert result.phase is RunPhase.COMPLETED
    assert (await stream(stores, run_id))[-4:] == ["entered a 1", "told", "completed a", "run Completed"]


async def test_a_run_has_one_owner() -> None:
    """Resuming a run that is being driven is refused, and does not disturb it."""
    entered, go_on = asyncio.Event(), asyncio.Event()

    async def waits(ctx: Context, io: IoProvider, rec: Recorder) -> None:
        entered.set()
        await go_on.wait()

    stores, plan = Stores.in_memory(), plan_of(("a", Scripted(waits)))
    run_id = RunId.random()
    engine = Engine(FixedResolver(plan))
    task = asyncio.ensure_future(engine.start(stores, await start_run(stores, plan, run_id=run_id)))
    await entered.wait()
    with pytest.raises(ConcurrencyError) as caught:
        await Engine(FixedResolver(plan)).resume(stores, run_id)
    assert caught.value.code == "run_already_active"
    assert caught.value.hint
    go_on.set()
    assert (await task).phase is RunPhase.COMPLETED


async def test_a_stopped_run_recovers_its_orphan() -> None:
    """A failpoint stops the run as a crash would; resume closes the attempt and starts the next."""

    async def works(ctx: Context, io: IoProvider, rec: Recorder) -> None:
        ctx.write("done", (await io.call(IoCall("test", "q", fact_key="k"))).response)

    stores, plan, transport = Stores.in_memory(), plan_of(("a", Scripted(works))), CountingTransport()
    stopping = Engine(
        FixedResolver(plan), transports=transport, failpoints=Failpoints(stop_after_handler_once=True)
    )
    stopped = await stopping.start(stores, await start_run(stores, plan))
    assert stopped.phase is RunPhase.RUNNING
    assert fold(await stores.events.read_range(stopped.run_id, 1)).open_attempts

    result = await stopping.resume(stores, stopped.run_id)
    assert result.phase is RunPhase.COMPLETED
    assert await stream(stores, result) == [
        "started",
        "entered a 0",
        "fact_recorded",
        "failed a orphan_attempt_recovered",
        "entered a 1",
        "completed a",
        "run Completed",
    ]
    assert transport.calls == {"k": 1}


async def test_a_state_that_always_kills_its_worker_gives_up() -> None:
    """Past the recovery limit the state fails; progress of the run starts the count anew."""

    async def works(ctx: Context, io: IoProvider, rec: Recorder) -> None:
        await io.now_millis()

    stores, plan = Stores.in_memory(), plan_of(("a", Scripted(works)))
    config = RunConfig(recovery_limit=2)
    result = await Engine(FixedResolver(plan), failpoints=Failpoints(stop_after_handler_once=True)).start(
        stores, await start_run(stores, plan, config)
    )
    while result.phase is RunPhase.RUNNING:
        engine = Engine(FixedResolver(plan), failpoints=Failpoints(stop_after_handler_once=True))
        result = await engine.resume(stores, result.run_id)
    words = await stream(stores, result)
    assert words.count("failed a orphan_attempt_recovered") == 2
    assert words[-2:] == ["failed a recovery_limit_exceeded", "run Failed"]
