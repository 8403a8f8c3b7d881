"""Deletion and retention: whole families of ended runs go, then what nothing leads to any more."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

import perdure
from perdure import (
    App,
    ArtifactId,
    Client,
    ConcurrencyError,
    Context,
    Engine,
    InvalidPlanError,
    IoMode,
    IoProvider,
    NotFoundError,
    Recorder,
    Retention,
    RunConfig,
    RunError,
    RunId,
    RunStatus,
    StateError,
    Stores,
)
from perdure.adapters.sqlite.store import SqliteStore
from perdure.model.events import ArtifactKind
from perdure.sdk.finding import all_runs
from perdure.stores.memory import MemoryState, memory_stores
from perdure.stores.ports import Claim, ScheduleRow
from perdure.stores.sharing import SharedArtifacts
from perdure.testing.clock import FakeClock
from perdure.testing.store_places import ENDED, TTL
from tests.families import Ops, start_of

DAY = 86_400_000
report, parent_op, waiter = (
    perdure.op("report", input=str, output=str),
    perdure.op("parent", input=int, output=str),
    perdure.op("waiter", input=str, output=str),
)


@report.state
async def write(input: str, rec: Recorder) -> str:  # noqa: A002 — the term
    """Leaves an artifact, unless it is to fail."""
    if input == "fail":
        raise StateError.of("refused", "as asked for")
    return str(await rec.artifact(ArtifactKind.OUTPUT, f"the report on {input}".encode()))


@parent_op.state
async def two(input: int, io: IoProvider) -> str:  # noqa: A002 — the term
    """Has a child, and one of that has none."""
    child = await perdure.spawn(waiter, "the child")
    if input:
        await io.wait_signal("go")
    return await child.result()


@waiter.state
async def wait(input: str, io: IoProvider) -> str:  # noqa: A002 — the term
    """Has a child of its own."""
    return await (await perdure.spawn(report, input)).result()


async def nothing(ctx: Context, io: IoProvider, rec: Recorder) -> None:
    """The simplest state."""


OPS = Ops({"op": nothing})
APP = App([report, parent_op, waiter])


class Place:
    """Stores, a client, and their time."""

    def __init__(self, stores: Stores, clock: FakeClock) -> None:
        self.stores = stores
        self.clock = clock
        self.client = Client(stores, APP, clock=clock)

    async def run(self, op: perdure.Op[str, str], given: str, key: str | None = None) -> RunId:
        """A run that has ended."""
        run = await self.client.start(op, given, key=key)
        await self.client.wait(run.id)
        return run.id

    async def runs(self) -> set[RunId]:
        """All runs that are kept."""
        return set(await self.stores.events.list_runs())


@pytest.fixture(params=["memory", "sqlite"])
async def place(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Place]:
    clock = FakeClock()
    if request.param == "memory":
        stores = memory_stores(MemoryState(), clock)
    else:
        store = SqliteStore(tmp_path / "runs.db", clock=clock)
        shared = SharedArtifacts(store)
        more: dict[str, Any] = {"mailbox": store, "agenda": store, "keeping": store.keeping}
        more["schedules"] = store.schedules
        stores = Stores(
            store,
            shared,
            store,
            shared,
            store.close,
            mailbox=store,
            agenda=store,
            keeping=store.keeping,
            schedules=store.schedules,
        )
    async with stores:
        place = Place(stores, clock)
        yield place
        await place.client.aclose()


async def test_a_deleted_run_is_not_there_any_more(place: Place) -> None:
    """Whoever asks for it is told what they are told of runs that never were."""
    run_id = await place.run(report, "tea")
    assert await place.client.delete(run_id) == [run_id]
    for work in (place.client.get(run_id), place.client.wait(run_id), place.client.delete(run_id)):
        with pytest.raises(NotFoundError, match="run_not_found"):
            await work
    assert await place.client.list() == []


async def test_the_key_of_a_deleted_run_begins_anew(place: Place) -> None:
    """It names no run any more, so another operation may have it too."""
    first = await place.run(report, "tea", key="k")
    with pytest.raises(ConcurrencyError, match="invocation_conflict"):
        await place.client.start(report, "milk", key="k")
    await place.client.delete(first)
    assert await place.run(report, "milk", key="k") == first
    run = await place.client.get(first, report)
    assert await place.stores.artifacts.get(ArtifactId(await run.result())) == b"the report on milk"


async def test_what_has_not_ended_cannot_be_deleted(place: Place) -> None:
    """Nor can what an unfinished parent may still need; terminating the parent is what helps."""
    run_id, child, grandchild = await waiting_family(place)
    parent = await place.client.get(run_id)
    for run_id, code in (
        (parent.id, "run_not_ended"),
        (child, "run_parent_unfinished"),
        (RunId.random(), "run_not_found"),
    ):
        with pytest.raises((RunError, NotFoundError), match=code):
            await place.client.delete(run_id)
    assert await place.runs() == {parent.id, child, grandchild}
    await parent.terminate("enough")
    await place.client.wait(parent.id)
    with pytest.raises(RunError, match="run_has_children"):
        await place.client.delete(parent.id)
    assert await place.client.delete(parent.id, with_children=True) == [grandchild, child, parent.id]
    assert await place.runs() == set()


def kin(run_id: RunId) -> tuple[RunId, RunId]:
    """The child of a run, and that of the child."""
    child = run_id.child("child:parent.main.two|waiter|0")
    return child, child.child("child:waiter.main.wait|report|0")


async def waiting_family(place: Place) -> tuple[RunId, RunId, RunId]:
    """A run that waits for a signal, its child, and that of the child, which have ended."""
    parent = await place.client.start(parent_op, 1)
    await place.client.drive_result(parent.id)
    for each in kin(parent.id):
        await place.client.wait(each)
    return parent.id, *kin(parent.id)


async def test_a_child_of_an_ended_parent_may_go_alone(place: Place) -> None:
    """Named one by one, or with the parent, in any order; the parent's result is in its own stream."""
    run = await place.client.start(parent_op, 0)
    result = await run.result()
    child, grandchild = kin(run.id)
    assert await place.client.delete(grandchild) == [grandchild]
    assert await run.result() == result
    assert await place.client.delete(run.id, child) == [child, run.id]


async def test_awaiting_a_deleted_child_is_an_error(place: Place) -> None:
    """Only a store that was told to deletes it: the parent fails, and says for want of what."""
    parent, child, _ = await waiting_family(place)
    assert (await place.stores.keeping.delete([child])).run_ids == [child]
    await place.client.aclose()
    later = Client(place.stores, APP, clock=place.clock)
    run = await later.get(parent)
    await run.signal("go")
    await later.resume(parent)
    with pytest.raises(RunError, match="child_run_missing_after_spawn"):
        await run.result()
    await later.aclose()


async def test_what_a_run_leads_to_stays_as_long_as_it(place: Place) -> None:
    """Two runs lead to one artifact; an hour after both are gone it can go."""
    first, second = await place.run(report, "tea"), await place.run(report, "tea")
    artifact_id = ArtifactId(await (await place.client.get(first, report)).result())
    place.clock.advance(DAY)
    await place.client.delete(first)
    assert (await place.client.prune(apply=True)).runs == 0
    assert await place.stores.artifacts.get(artifact_id) == b"the report on tea"
    await place.client.delete(second)
    await place.client.prune(apply=True)
    assert not await place.stores.artifacts.exists(artifact_id)


async def test_first_it_is_told_what_would_go(place: Place) -> None:
    """Nothing goes before it is asked for, and then exactly that."""
    old = [await place.run(report, name) for name in ("tea", "milk", "fail")]
    place.clock.advance(31 * DAY)
    young = await place.run(report, "new")
    policy = Retention(older_than=timedelta(days=30), statuses=(RunStatus.COMPLETED,))
    told = await place.client.prune(policy)
    assert await place.runs() == {*old, young}
    assert (told.applied, told.runs, dict(told.ops)) == (False, 2, {"report": 2})
    assert dict(told.kept) == {"other_status": 1, "too_young": 1}
    assert told.artifacts >= 2
    done = await place.client.prune(policy, apply=True)
    assert done.to_json() == told.to_json() | {"applied": True}
    assert await place.runs() == {old[2], young}
    assert (await place.client.prune(policy, apply=True)).artifacts == 0


async def test_families_go_whole(place: Place) -> None:
    """One that waits for a signal stays, with its ended children; when it has ended all go together."""
    run = await place.client.get((await waiting_family(place))[0])
    place.clock.advance(DAY)
    everything = Retention(older_than=timedelta(0))
    assert dict((await place.client.prune(everything, apply=True)).kept) == {"unfinished": 3}
    assert len(await place.runs()) == 3
    await run.signal("go")
    await run.result()
    place.clock.advance(1)
    assert (await place.client.prune(everything, apply=True)).runs == 3
    assert await place.runs() == set()


async def test_the_last_of_each_operation_stay(place: Place) -> None:
    """By when they began; children do not count."""
    reports = [await place.run(report, str(number)) for number in range(4)]
    waiters = [await place.run(waiter, str(number)) for number in range(2)]
    done = await place.client.prune(Retention(keep_last=1), apply=True)
    assert (done.runs, dict(done.kept)) == (5, {"among_the_last": 3})
    assert {reports[3], waiters[1]} <= await place.runs()
    assert (await place.client.prune(Retention(keep_last=0, op="report"), apply=True)).runs == 1
    assert waiters[1] in await place.runs()


async def test_a_run_that_is_replayed_stays(place: Place) -> None:
    """Its facts answer the one that replays it; both may go together."""
    run_id = await place.run(report, "tea")
    replaying = RunConfig(io_mode=IoMode.REPLAY, replay_of=run_id)
    replay = await place.client.start(report, "tea", run_config=replaying)
    await place.client.wait(replay.id)
    with pytest.raises(RunError, match="run_referred_to"):
        await place.client.delete(run_id)
    kept = (await place.client.prune(Retention(keep_last=1), apply=True)).kept
    assert dict(kept) == {"among_the_last": 1, "referred_to": 1}
    assert await place.client.delete(run_id, replay.id) == [replay.id, run_id]


async def test_a_run_that_somebody_has_stays(place: Place) -> None:
    """Though it has ended: its owner is about to look."""
    run_id = await place.run(report, "tea")
    claim = await place.stores.claims.acquire(run_id, "me", TTL)
    await place.stores.commit([], [], claim)
    with pytest.raises(ConcurrencyError, match="run_already_active"):
        await place.client.delete(run_id)
    assert dict((await place.client.prune(Retention(keep_last=0), apply=True)).kept) == {"owned": 1}
    await place.stores.claims.release(claim)
    assert await place.client.delete(run_id) == [run_id]


@pytest.mark.parametrize(
    "wrong", [{"older_than": 7}, {"older_than": timedelta(-1)}, {"keep_last": -1}, {"statuses": ("Failed",)}]
)
def test_a_policy_that_cannot_be_meant_is_refused(wrong: dict[str, object]) -> None:
    """Where it is made, and not when runs have gone."""
    with pytest.raises(InvalidPlanError, match="call_invalid"):
        Retention(**wrong)  # type: ignore[arg-type]  # on purpose


async def test_a_run_renews_the_manifest_with_which_it_begins(place: Place) -> None:
    """However long ago that was put: a sweep that has looked before finds it fresh."""
    start = await start_of(place.stores, OPS, "op")
    place.clock.advance(DAY)
    result = await Engine(OPS, clock=place.clock).start(place.stores, start)
    await place.client.delete(result.run_id)
    await place.client.prune(apply=True)
    assert await place.stores.artifacts.exists(start.manifest_id)
    place.clock.advance(DAY)
    await place.client.prune(apply=True)
    assert not await place.stores.artifacts.exists(start.manifest_id)


async def test_a_list_goes_on_past_what_is_deleted_meanwhile(place: Place) -> None:
    """Page by page: the last run of a page is gone when the next page is asked for."""
    numbers = range(1, 1203)
    for number in numbers:
        run_id = RunId(f"00000000-0000-0000-0000-{number:012}")
        await place.stores.events.append(run_id, 0, [ENDED])
    seen: list[int] = []
    async for run_id in all_runs(place.stores):
        seen.append(int(run_id[-12:]))
        if len(seen) in (500, 1000):
            await place.stores.keeping.delete([run_id])
    assert seen == sorted(numbers, reverse=True)


async def test_a_fork_begins_only_where_its_origin_still_is(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It takes over what the origin wrote: deleted in between, that could be swept unseen."""
    origin = await place.run(report, "tea")
    acquire = place.stores.claims.acquire

    async def acquire_late(run_id: RunId, owner: str, ttl: timedelta) -> Claim:
        if run_id != origin:
            assert await place.client.delete(origin) == [origin]
        return await acquire(run_id, owner, ttl)

    fork_id = RunId.random()
    with monkeypatch.context() as patch:
        patch.setattr(place.stores.claims, "acquire", acquire_late)
        with pytest.raises(ConcurrencyError, match="event_store_concurrency"):
            await place.client.fork(origin, "write", new_run_id=fork_id)
    assert await place.runs() == set()
    again = await place.run(report, "tea")
    fork = await place.client.fork(again, "write")
    await fork.result()
    place.clock.advance(DAY)
    await place.client.delete(again)
    await place.client.prune(apply=True)
    assert (await (await place.client.get(fork.id)).replay()).first_difference is None


async def test_what_a_schedule_names_stays(place: Place) -> None:
    """Its runs will ask for it, however late."""
    artifact_id = await place.stores.artifacts.put(ArtifactKind.OUTPUT, b"for every week")
    row = ScheduleRow("weekly", {"input": {"see": artifact_id}})
    await place.stores.schedules.create(row)
    place.clock.advance(DAY)
    await place.client.prune(apply=True)
    assert await place.stores.artifacts.get(artifact_id) == b"for every week"
    await place.stores.schedules.delete("weekly")
    await place.client.prune(apply=True)
    assert not await place.stores.artifacts.exists(artifact_id)
