"""A run: states, context, events, and how it ends."""

from __future__ import annotations

import pytest

from perdure import (
    Context,
    DomainEvent,
    Engine,
    EventProfile,
    IoProvider,
    NotFoundError,
    Recorder,
    RunConfig,
    RunId,
    RunPhase,
    StateError,
    StateMeta,
    Stores,
)
from perdure.errors import ErrorCategory, ErrorInfo, PerdureError
from perdure.ids import ArtifactId
from perdure.model.events import ArtifactKind
from perdure.stores.reading import read_json
from tests.support import FixedResolver, InstantClock, Scripted, plan_of, start_run, stream


async def nothing(ctx: Context, io: IoProvider, rec: Recorder) -> None:
    """A handler that leaves everything as it is."""


async def count(ctx: Context, io: IoProvider, rec: Recorder) -> None:
    """A handler that counts itself."""
    ctx.write("n", (ctx.read("n") or 0) + 1)


async def test_states_run_in_order_and_share_a_context() -> None:
    """Each state starts from the snapshot that the one before it left."""
    stores, plan = Stores.in_memory(), plan_of(("a", Scripted(count)), ("b", Scripted(count)))
    result = await Engine(FixedResolver(plan)).start(stores, await start_run(stores, plan, context={"n": 40}))
    assert result.phase is RunPhase.COMPLETED
    assert result.final_snapshot_id is not None
    assert (await read_json(stores.artifacts, result.final_snapshot_id))[0] == {"n": 42}
    assert await stream(stores, result) == [
        "started",
        "entered a 0",
        "completed a",
        "entered b 0",
        "completed b",
        "run Completed",
    ]


async def test_ties_are_broken_by_the_order_in_the_plan() -> None:
    """Dependencies decide first; among ready states the first in the plan runs."""
    states = [(name, Scripted(nothing)) for name in ("d", "c", "b", "a")]
    plan = plan_of(*states, edges=[("a", "c")])
    stores = Stores.in_memory()
    result = await Engine(FixedResolver(plan)).start(stores, await start_run(stores, plan))
    entered = [word.split()[1] for word in await stream(stores, result) if word.startswith("entered")]
    assert entered == ["d", "b", "a", "c"]


async def test_domain_events_come_just_before_the_end_of_their_attempt() -> None:
    """What a handler tells is kept in order, when its attempt ends, also when it fails."""

    async def tell(ctx: Context, io: IoProvider, rec: Recorder) -> None:
        await rec.emit(DomainEvent("first", {"n": 1}))
        await rec.emit(DomainEvent("second"))
        raise ValueError("no")

    stores, plan = Stores.in_memory(), plan_of(("a", Scripted(tell)))
    result = await Engine(FixedResolver(plan)).start(stores, await start_run(stores, plan))
    assert await stream(stores, result) == [
        "started",
        "entered a 0",
        "first",
        "second",
        "failed a handler_raised",
        "run Failed",
    ]


async def test_the_minimal_profile_keeps_only_what_recovery_needs() -> None:
    """Domain events of the user's go; facts stay."""

    async def tell(ctx: Context, io: IoProvider, rec: Recorder) -> None:
        await rec.emit(DomainEvent("told"))
        await io.now_millis()

    stores, plan = Stores.in_memory(), plan_of(("a", Scripted(tell)))
    config = RunConfig(event_profile=EventProfile.MINIMAL)
    result = await Engine(FixedResolver(plan)).start(stores, await start_run(stores, plan, config))
    assert await stream(stores, result) == [
        "started",
        "entered a 0",
        "fact_recorded",
        "completed a",
        "run Completed",
    ]


async def test_names_of_engine_events_are_reserved() -> None:
    """A handler cannot forge a fact."""

    async def forge(ctx: Context, io: IoProvider, rec: Recorder) -> None:
        await rec.emit(DomainEvent("fact_recorded", {"key": "k"}))

    stores, plan = Stores.in_memory(), plan_of(("a", Scripted(forge)))
    result = await Engine(FixedResolver(plan)).start(stores, await start_run(stores, plan))
    assert "failed a event_name_reserved" in await stream(stores, result)


async def test_an_output_artifact_is_announced_and_kept() -> None:
    """A handler's output is an artifact; the stream says which."""

    async def write(ctx: Context, io: IoProvider, rec: Recorder) -> None:
        ctx.write("report", await rec.artifact(ArtifactKind.OUTPUT, b"# Hello\n", {"name": "hello.md"}))

    stores, plan = Stores.in_memory(), plan_of(("a", Scripted(write)))
    result = await Engine(FixedResolver(plan)).start(stores, await start_run(stores, plan))
    assert await stream(stores, result) == [
        "started",
        "entered a 0",
        "artifact_written",
        "completed a",
        "run Completed",
    ]
    assert result.final_snapshot_id is not None
    context, _ = await read_json(stores.artifacts, result.final_snapshot_id)
    assert await stores.artifacts.get(ArtifactId(context["report"])) == b"# Hello\n"


async def test_a_tag_can_be_skipped() -> None:
    """A skipped state is entered and completed with its base snapshot; its handler is never called."""

    async def never(ctx: Context, io: IoProvider, rec: Recorder) -> None:
        raise AssertionError

    plan = plan_of(("a", Scripted(count)), ("b", Scripted(never, StateMeta(tags=("slow",)))))
    stores = Stores.in_memory()
    config = RunConfig(skip_tags=("slow",))
    result = await Engine(FixedResolver(plan)).start(stores, await start_run(stores, plan, config))
    assert (await stream(stores, result))[-3:] == ["entered b 0", "completed b", "run Completed"]


async def test_resuming_what_has_ended_appends_nothing() -> None:
    """A terminal run gives its result again."""
    stores, plan = Stores.in_memory(), plan_of(("a", Scripted(count)))
    engine = Engine(FixedResolver(plan))
    result = await engine.start(stores, await start_run(stores, plan))
    before = await stream(stores, result)
    assert await engine.resume(stores, result.run_id) == result
    assert await stream(stores, result) == before


async def test_resuming_what_does_not_exist_is_an_error() -> None:
    """``run_not_found``."""
    with pytest.raises(NotFoundError) as caught:
        await Engine(FixedResolver(plan_of(("a", Scripted(count))))).resume(
            Stores.in_memory(), RunId.random()
        )
    assert caught.value.code == "run_not_found"


async def test_an_invocation_key_starts_a_run_once() -> None:
    """The same key and manifest give the same run; the same key with another context is a conflict."""
    stores, plan = Stores.in_memory(), plan_of(("a", Scripted(count)))
    engine = Engine(FixedResolver(plan))
    first = await engine.start(stores, await start_run(stores, plan, invocation_key="order-7"))
    again = await engine.start(stores, await start_run(stores, plan, invocation_key="order-7"))
    assert again == first
    assert first.run_id == RunId.for_invocation("order-7")
    with pytest.raises(PerdureError) as caught:
        await engine.start(stores, await start_run(stores, plan, context={"n": 1}, invocation_key="order-7"))
    assert caught.value.code == "invocation_conflict"


async def test_a_failing_state_is_retried_while_that_may_help() -> None:
    """A retryable error is tried again, from the same snapshot, up to ``max_attempts``."""
    seen: list[object] = []

    async def flaky(ctx: Context, io: IoProvider, rec: Recorder) -> None:
        seen.append(ctx.read("n"))
        ctx.write("n", "changed")
        if len(seen) < 3:
            raise StateError(ErrorInfo("busy", ErrorCategory.RPC, retryable=True))

    stores, plan = Stores.in_memory(), plan_of(("a", Scripted(flaky)))
    engine = Engine(FixedResolver(plan), clock=InstantClock())
    result = await engine.start(stores, await start_run(stores, plan, context={"n": 7}))
    assert result.phase is RunPhase.COMPLETED
    assert seen == [7, 7, 7]
    assert await stream(stores, result) == [
        "started",
        "entered a 0",
        "failed a busy",
        "entered a 1",
        "failed a busy",
        "entered a 2",
        "completed a",
        "run Completed",
    ]
