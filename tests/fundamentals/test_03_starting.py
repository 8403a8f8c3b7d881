"""Starting a run: what is checked, in which order, and that nothing is written before."""

from __future__ import annotations

import sys
from typing import Any

import msgspec
import pytest

from perdure import (
    ConcurrencyError,
    Context,
    CorruptionError,
    DomainEvent,
    Engine,
    ExecutionPlan,
    InvalidPlanError,
    IoProvider,
    JsonContext,
    NotFoundError,
    OpId,
    PerdureError,
    Recorder,
    RunConfig,
    RunId,
    RunManifest,
    RunStarted,
    StartRun,
    StateCompleted,
    StateEntered,
    StateGraph,
    Stores,
)
from perdure.model.events import Event
from perdure.stores.memory import MemoryState, memory_stores
from tests.support import FixedResolver, Scripted, plan_of, start_run, state_id

RUN = RunId("00000000-0000-0000-0000-00000000000c")
SNAPSHOT = "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"


async def nothing(ctx: Context, io: IoProvider, rec: Recorder) -> None:
    """A handler that leaves everything as it is."""


PLAN = plan_of(("a", Scripted(nothing)), ("b", Scripted(nothing)))


async def refused(code: str, run: StartRun, stores: Stores, state: MemoryState) -> PerdureError:
    """The error with which ``run`` is refused; no event and no further artifact were written."""
    before = set(state.blobs)
    with pytest.raises(PerdureError) as caught:
        await Engine(FixedResolver(PLAN)).start(stores, run)
    assert caught.value.code == code
    assert set(state.blobs) == before
    assert state.streams == {}
    return caught.value


async def test_a_run_that_contradicts_itself_is_refused() -> None:
    """Each contradiction by its code."""
    state = MemoryState()
    stores = memory_stores(state)
    good = await start_run(stores, PLAN)
    replace = msgspec.structs.replace
    floaty = RunManifest(OpId("op"), "1", {"x": 1.5}, RunConfig())
    secret = RunManifest(OpId("op"), "1", {"password": "hunter2"}, RunConfig())
    other = RunManifest(OpId("other"), "1", {}, RunConfig())
    other_id = await stores.put_manifest(other)
    for code, run in [
        ("manifest_not_canonical", replace(good, manifest=floaty)),
        ("secrets_detected", replace(good, manifest=secret)),
        ("manifest_id_mismatch", replace(good, manifest_id=other_id)),
        ("manifest_op_id_mismatch", replace(good, manifest=other, manifest_id=other_id)),
        ("run_config_mismatch", replace(good, run_config=RunConfig(skip_tags=("x",)))),
        ("context_not_canonical", replace(good, initial_context=JsonContext({"x": {"y": 0.5}}))),
        ("secrets_detected", replace(good, initial_context=JsonContext({"password": "hunter2"}))),
    ]:
        error = await refused(code, run, stores, state)
        assert error.hint
        assert "hunter2" not in str(error)


async def test_the_manifest_must_be_stored() -> None:
    """``manifest_not_found``; and what is stored must be the manifest."""
    state = MemoryState()
    run = await start_run(Stores.in_memory(), PLAN)
    error = await refused("manifest_not_found", run, memory_stores(state), state)
    assert isinstance(error, NotFoundError)


@pytest.mark.parametrize(
    ("plan", "code", "states"),
    [
        (ExecutionPlan(OpId("op"), StateGraph([])), "empty_plan", []),
        (plan_of(("a", Scripted(nothing)), ("a", Scripted(nothing)), edges=[]), "duplicate_state", ["a"]),
        (plan_of(("a", Scripted(nothing)), edges=[("a", "z")]), "missing_state", ["z"]),
        (
            plan_of(
                *[(name, Scripted(nothing)) for name in "abcd"],
                edges=[("a", "b"), ("b", "c"), ("c", "b"), ("c", "d")],
            ),
            "circular_dependency",
            ["b", "c"],
        ),
    ],
)
async def test_a_plan_without_an_order_is_refused(plan: ExecutionPlan, code: str, states: list[str]) -> None:
    """The states are named, those of a circle alone."""
    state = MemoryState()
    stores = memory_stores(state)
    error = await refused(code, await start_run(stores, plan), stores, state)
    assert isinstance(error, InvalidPlanError)
    assert sorted(error.info.details["states"]) == [str(state_id(name)) for name in states]


async def test_a_run_id_is_used_once() -> None:
    """``run_already_exists``."""
    stores = Stores.in_memory()
    engine = Engine(FixedResolver(PLAN))
    await engine.start(stores, await start_run(stores, PLAN, run_id=RUN))
    with pytest.raises(ConcurrencyError) as caught:
        await engine.start(stores, await start_run(stores, PLAN, run_id=RUN))
    assert caught.value.code == "run_already_exists"


async def history(*events: Event) -> Stores:
    """Stores with a run of these events after its start."""
    stores = Stores.in_memory()
    run = await start_run(stores, PLAN)
    await stores.artifacts.put(_kind(), b"{}")
    await stores.events.append(RUN, 0, [RunStarted(PLAN.op_id, run.manifest_id, SNAPSHOT), *events])  # type: ignore[arg-type]  # an id of text
    return stores


def _kind() -> Any:
    from perdure import ArtifactKind

    return ArtifactKind.CONTEXT_SNAPSHOT


def entered(name: str, attempt: int = 0) -> StateEntered:
    """The state was entered from the empty context."""
    return StateEntered(state_id(name), attempt, SNAPSHOT)  # type: ignore[arg-type]  # an id of text


def completed(name: str) -> StateCompleted:
    """The state left the context empty."""
    return StateCompleted(state_id(name), SNAPSHOT)  # type: ignore[arg-type]  # an id of text


def fact(**payload: Any) -> DomainEvent:
    """A recorded fact."""
    return DomainEvent("fact_recorded", payload)


@pytest.mark.parametrize(
    ("events", "code"),
    [
        ([completed("a")], "invalid_attempt_envelopes"),
        ([entered("a"), entered("a")], "invalid_attempt_envelopes"),
        ([entered("a", 1), entered("a", 0)], "invalid_attempt_envelopes"),
        ([entered("a"), entered("b")], "invalid_attempt_envelopes"),
        ([entered("a"), completed("a"), completed("a")], "invalid_attempt_envelopes"),
        ([entered("a"), completed("a"), entered("a", 1)], "invalid_attempt_envelopes"),
        ([entered("z")], "recovery_state_not_in_plan"),
        ([fact(key="k")], "fact_recorded_malformed"),
        ([fact(key="", payload_id=SNAPSHOT, meta={})], "fact_recorded_malformed"),
        ([DomainEvent("fact_recorded", "text")], "fact_recorded_malformed"),
        (
            [fact(key="k", payload_id=SNAPSHOT, meta={}), fact(key="k", payload_id="0" * 64, meta={})],
            "fact_recorded_conflict",
        ),
    ],
)
async def test_a_broken_history_is_refused(events: list[Event], code: str) -> None:
    """Nothing is appended to it, and the run stays as it was."""
    stores = await history(*events)
    before = await stores.events.read_range(RUN, 1)
    with pytest.raises(PerdureError) as caught:
        await Engine(FixedResolver(PLAN)).resume(stores, RUN)
    assert caught.value.code == code
    assert caught.value.hint
    assert await stores.events.read_range(RUN, 1) == before


async def test_another_engine_s_unclosed_orphan_is_resumed() -> None:
    """Streams in which an orphan was never closed still load."""
    stores = await history(entered("a"), entered("a", 1))
    result = await Engine(FixedResolver(PLAN)).resume(stores, RUN)
    assert result.final_snapshot_id == SNAPSHOT


async def test_a_damaged_snapshot_stops_the_run_and_loses_nothing() -> None:
    """The store finds it; the run stays resumable."""
    state = MemoryState()
    stores = memory_stores(state)
    run = await start_run(stores, PLAN, context={"x": 1}, run_id=RUN)
    engine = Engine(FixedResolver(PLAN))
    await engine.start(stores, run)
    snapshot = next(key for key, (kind, _) in state.blobs.items() if kind == _kind())
    good = state.blobs[snapshot]
    state.streams[RUN] = state.streams[RUN][:2]
    state.blobs[snapshot] = (good[0], b'{"x":2}')
    with pytest.raises(CorruptionError, match="artifact_corruption"):
        await engine.resume(stores, RUN)
    state.blobs[snapshot] = good
    assert (await engine.resume(stores, RUN)).final_snapshot_id == snapshot


async def test_a_context_of_fifty_megabytes() -> None:
    """Large is slow, not wrong."""
    stores = Stores.in_memory()
    result = await Engine(FixedResolver(PLAN)).start(
        stores, await start_run(stores, PLAN, context={"big": "x" * 50_000_000})
    )
    assert result.final_snapshot_id is not None
    assert len(await stores.artifacts.get(result.final_snapshot_id)) > 50_000_000
    assert sys.getsizeof(result) < 1000
