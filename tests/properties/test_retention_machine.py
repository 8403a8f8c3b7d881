"""Whatever is deleted, swept, put and named at once, by any process: what a run leads to can be read."""

from __future__ import annotations

import asyncio
import random
import tempfile
from collections.abc import Iterable, Iterator
from datetime import timedelta
from itertools import count
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from perdure import ArtifactId, ArtifactKind, Retention, RunId, RunStarted, RunStatus, Stores
from perdure.adapters.sqlite.store import SqliteStore
from perdure.canonical import canonical_json_bytes
from perdure.ids import OpId
from perdure.model.events import DomainEvent, Event, ParentRun, RunCompleted
from perdure.sdk.keeping import prune_stores, surveyed
from perdure.sdk.retention import planned
from perdure.stores.keeping import SPARED
from perdure.stores.ports import Append, Blob
from perdure.stores.sharing import SharedArtifacts
from perdure.testing.clock import FakeClock

HOUR_MILLIS = SPARED // timedelta(milliseconds=1)
SLACK_MILLIS = 120_000
NAMES = "abcdef"
names = st.sampled_from(NAMES)
minutes = st.sampled_from([1, 29, 30, 31, 59, 61, 90])
retentions = st.builds(
    Retention,
    older_than=st.none() | st.sampled_from([timedelta(0), timedelta(hours=2)]),
    keep_last=st.none() | st.integers(0, 2),
    statuses=st.sampled_from([(), (RunStatus.FAILED,), tuple(RunStatus)]),
)


class KnownRun:
    """A run as it must be."""

    def __init__(self, events: list[Event], parent: RunId | None) -> None:
        self.events = events
        self.parent = parent
        self.is_over = False
        self.named: set[ArtifactId] = set()


class RetentionMachine(RuleBasedStateMachine):
    """Two handles on one file, in which parts are small and what is over 300 bytes is a file."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = FakeClock()
        self.folder = tempfile.TemporaryDirectory()
        self.handles = [self.opened(), self.opened()]
        self.numbers = count(1)
        self.runs: dict[RunId, KnownRun] = {}
        self.gone: set[RunId] = set()
        self.texts: dict[ArtifactId, bytes] = {}
        self.put_millis: dict[ArtifactId, int] = {}
        self.inside: dict[ArtifactId, set[ArtifactId]] = {}

    def opened(self) -> Stores:
        path = Path(self.folder.name) / "runs.db"
        store = SqliteStore(path, clock=self.clock, file_threshold_bytes=300)
        shared = SharedArtifacts(store)
        return Stores(
            store, shared, store, shared, store.close, mailbox=store, agenda=store, keeping=store.keeping
        )

    def teardown(self) -> None:
        for handle in self.handles:
            asyncio.run(handle.close())
        self.folder.cleanup()

    # What is put: texts that share parts, some of which name others

    def blobs(self, name: str, inner: str | None) -> list[Blob]:
        """A text, and before it the one that it names."""
        found = [] if inner is None else self.blobs(inner, None)
        members = {f"k{number:02}": str(number) * 9 for number in range(25)}
        members[f"k{NAMES.index(name) * 4:02}"] = f"changed by {name}"
        if inner is None and name == "f":
            data = b"\xff no JSON, and larger than what is no file " * 9
        else:
            named = {"names": {"it": [found[-1].id]}} if found else {}
            data = canonical_json_bytes(members | named, secrets=None)
        blob = Blob(ArtifactKind.OUTPUT, data)
        self.texts[ArtifactId(blob.id)] = data
        self.inside[ArtifactId(blob.id)] = {ArtifactId(each.id) for each in found}
        return [*found, blob]

    def was_put(self, blobs: Iterable[Blob]) -> None:
        for blob in blobs:
            self.put_millis[ArtifactId(blob.id)] = self.clock.millis

    def unfinished(self) -> list[RunId]:
        return [run_id for run_id, run in self.runs.items() if not run.is_over]

    async def name(self, handle: Stores, run_id: RunId, name: str, inner: str | None) -> None:
        blobs, run = self.blobs(name, inner), self.runs[run_id]
        event = DomainEvent("named", {"it": f"artifact {blobs[-1].id}."})
        await handle.commit(blobs, [Append(run_id, len(run.events), [event])])
        run.events.append(event)
        run.named.add(ArtifactId(blobs[-1].id))
        self.was_put(blobs)

    @rule(handle=st.integers(0, 1), name=names, parent=st.none() | st.integers(0, 9))
    def begin(self, handle: int, name: str, parent: int | None) -> None:
        unfinished = self.unfinished()
        of = None if parent is None or not unfinished else unfinished[parent % len(unfinished)]
        run_id = RunId(f"00000000-0000-0000-0000-{next(self.numbers):012}")
        blobs = self.blobs(name, None)
        artifact_id = ArtifactId(blobs[-1].id)
        above = None if of is None else ParentRun(of, 1)
        started = RunStarted(OpId("op"), artifact_id, artifact_id, above)
        asyncio.run(self.handles[handle].commit(blobs, [Append(run_id, 0, [started])]))
        self.was_put(blobs)
        self.runs[run_id] = KnownRun([started], of)
        self.runs[run_id].named.add(artifact_id)

    @rule(handle=st.integers(0, 1), run=st.integers(0, 9), name=names, inner=st.none() | names)
    def write(self, handle: int, run: int, name: str, inner: str | None) -> None:
        unfinished = self.unfinished()
        if unfinished:
            asyncio.run(self.name(self.handles[handle], unfinished[run % len(unfinished)], name, inner))

    @rule(handle=st.integers(0, 1), run=st.integers(0, 9), status=st.sampled_from(RunStatus))
    def end(self, handle: int, run: int, status: RunStatus) -> None:
        unfinished = self.unfinished()
        if unfinished:
            run_id = unfinished[run % len(unfinished)]
            known, event = self.runs[run_id], RunCompleted(status, None)
            asyncio.run(self.handles[handle].events.append(run_id, len(known.events), [event]))
            known.events.append(event)
            known.is_over = True

    @rule(handle=st.integers(0, 1), name=names, inner=st.none() | names)
    def put(self, handle: int, name: str, inner: str | None) -> None:
        async def body() -> None:
            blobs = self.blobs(name, inner)
            for blob in blobs:
                await self.handles[handle].artifacts.put(blob.kind, blob.data)
            self.was_put(blobs)

        asyncio.run(body())

    @rule(passed=minutes)
    def wait(self, passed: int) -> None:
        self.clock.advance(passed * 60_000)

    # What goes

    @rule(handle=st.integers(0, 1), chosen=st.sets(st.integers(0, 9), max_size=3))
    def delete(self, handle: int, chosen: set[int]) -> None:
        known = list(self.runs)
        wanted = [known[number % len(known)] for number in chosen] if known else []
        deleted = asyncio.run(self.handles[handle].keeping.delete(wanted)).run_ids
        assert set(deleted) == {run_id for run_id in wanted if self.runs[run_id].is_over}
        self.forget(deleted)

    @rule(handle=st.integers(0, 1), retention=retentions)
    def prune(self, handle: int, retention: Retention) -> None:
        """What the plan says goes, and nothing that a run still leads to."""

        async def body() -> list[RunId]:
            stores = self.handles[handle]
            plan = planned(await surveyed(stores), retention, self.clock.millis)
            dry = await prune_stores(stores, retention, self.clock.millis)
            assert dry.runs == len(plan.run_ids)
            report = await prune_stores(stores, retention, self.clock.millis, apply=True)
            assert (report.runs, report.events) == (dry.runs, dry.events)
            assert (report.artifacts, report.artifact_bytes) == (dry.artifacts, dry.artifact_bytes)
            return plan.run_ids

        pruned, unfinished = asyncio.run(body()), self.unfinished()
        parents = {run_id: run.parent for run_id, run in self.runs.items()}
        assert not any(parents[run_id] in pruned for run_id in unfinished)
        assert not any(parents[run_id] in unfinished for run_id in pruned)
        self.forget(pruned)
        self.all_garbage_is_gone()

    @rule(seed=st.integers(0, 1 << 30), wanted=st.lists(st.tuples(names, st.none() | names), max_size=6))
    def sweep_beside_writers(self, seed: int, wanted: list[tuple[str, str | None]]) -> None:
        """Of the other handle, and of the same; which take turns at random."""
        turns = random.Random(seed)
        unfinished = self.unfinished()

        async def write() -> None:
            for name, inner in wanted if unfinished else ():
                for _ in range(turns.randrange(6)):
                    await asyncio.sleep(0)
                run_id = unfinished[turns.randrange(len(unfinished))]
                await self.name(self.handles[turns.randrange(2)], run_id, name, inner)

        async def body() -> None:
            await asyncio.gather(*[handle.keeping.sweep() for handle in self.handles], write())

        asyncio.run(body())

    def forget(self, run_ids: Iterable[RunId]) -> None:
        for run_id in run_ids:
            del self.runs[run_id]
            self.gone.add(run_id)

    def reached(self) -> set[ArtifactId]:
        def inside(artifact_ids: Iterable[ArtifactId]) -> Iterator[ArtifactId]:
            for artifact_id in artifact_ids:
                yield artifact_id
                yield from inside(self.inside[artifact_id])

        return set(inside(each for run in self.runs.values() for each in run.named))

    def all_garbage_is_gone(self) -> None:
        """Once an hour and two minutes have passed since it was put last."""
        reached = self.reached()
        for artifact_id, put_millis in self.put_millis.items():
            if artifact_id not in reached and put_millis < self.clock.millis - HOUR_MILLIS - SLACK_MILLIS:
                assert not asyncio.run(self.handles[0].artifacts.exists(artifact_id))

    @invariant()
    def what_is_needed_is_there(self) -> None:
        async def body() -> None:
            for handle in self.handles:
                for artifact_id in self.reached():
                    assert await handle.artifacts.get(artifact_id) == self.texts[artifact_id]
                for artifact_id, put_millis in self.put_millis.items():
                    if put_millis >= self.clock.millis - HOUR_MILLIS:
                        assert await handle.artifacts.get(artifact_id) == self.texts[artifact_id]
                for run_id, run in self.runs.items():
                    assert [each.event for each in await handle.events.read_range(run_id, 1)] == run.events
                for run_id in self.gone:
                    assert not await handle.events.read_range(run_id, 1)
            assert set(await self.handles[0].events.list_runs()) == set(self.runs)

        asyncio.run(body())


TestRetentionMachine = RetentionMachine.TestCase
TestRetentionMachine.settings = settings(max_examples=20, stateful_step_count=25, deadline=None)
