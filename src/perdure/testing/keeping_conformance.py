"""What every store must do that forgets: the part of the conformance suite about deletion and sweeping."""

from __future__ import annotations

import asyncio
import hashlib

from perdure.canonical import canonical_json_bytes
from perdure.ids import ArtifactId, OpId, RunId
from perdure.model.events import (
    ArtifactKind,
    DomainEvent,
    Event,
    ParentRun,
    RunCompleted,
    RunStarted,
    RunStatus,
)
from perdure.stores.bundle import Stores
from perdure.stores.keeping import SPARED, Deleted, RunTrace
from perdure.stores.ports import Append, Blob, Release
from perdure.testing.store_places import ENDED, OTHER, RUN, TTL, StorePlaces, agenda, ids, own, park, told

THIRD = RunId("00000000-0000-0000-0000-000000000003")
HOUR = int(SPARED.total_seconds() * 1000)
MINUTE = 60_000
_SLACK = 2 * MINUTE
"""A store may note the time of a renewal as much as a minute late, and spare by as much longer."""


async def traces(stores: Stores) -> list[RunTrace]:
    """The traces of all runs."""
    return [trace async for page in stores.keeping.traces() for trace in page]


async def put(stores: Stores, data: bytes) -> ArtifactId:
    """Keep ``data``."""
    return await stores.artifacts.put(ArtifactKind.OUTPUT, data)


def document(name: str, size: int = 200) -> bytes:
    """Canonical JSON that stores may cut into parts."""
    members = {
        f"{name}{number}": hashlib.sha256(f"{name}{number}".encode()).hexdigest()[1:]
        for number in range(size)
    }
    return canonical_json_bytes(members, secrets=None)


async def ended_run(stores: Stores, run_id: RunId, *events: Event) -> None:
    """A run that has ended, with these events."""
    await stores.events.append(run_id, 0, [*events, ENDED])


def naming(artifact_id: str) -> DomainEvent:
    """An event that names an artifact."""
    return DomainEvent("named", {"it": artifact_id})


class KeepingConformance(StorePlaces):
    """Traced, deleted, marked, swept."""

    #: Whether the stores of :meth:`open_place` can delete what they keep.
    can_delete = True

    # Traces

    async def test_every_run_leaves_a_trace(self) -> None:
        """Its op, its parent, its manifest, how and when it ended, and whether somebody has it."""
        if not self.can_delete:
            return
        async with self.place() as (clock, (stores,)):
            assert await traces(stores) == []
            manifest, snapshot = ArtifactId("a" * 64), ArtifactId("b" * 64)
            began = clock.millis
            await stores.events.append(RUN, 0, [RunStarted(OpId("op"), manifest, snapshot)])
            clock.advance(5)
            child = RunStarted(OpId("op"), manifest, snapshot, ParentRun(RUN, 1))
            await stores.events.append(OTHER, 0, [child, RunCompleted(RunStatus.COMPLETED, None)])
            await own(stores, THIRD)
            assert await traces(stores) == [
                RunTrace(THIRD, None, None, None, None, began + 5, is_owned=True),
                RunTrace(OTHER, "op", RUN, manifest, RunStatus.COMPLETED, began + 5, is_owned=False),
                RunTrace(RUN, "op", None, manifest, None, began, is_owned=False),
            ]
            await stores.events.append(OTHER, 2, told("after the end"))
            texts = (b'{"run_config":{}}', b'{"run_config":{"replay_of":"' + RUN.encode() + b'"}}')
            for number, text in enumerate(texts):
                blob = Blob(ArtifactKind.MANIFEST, text)
                run_id = RunId(f"00000000-0000-0000-0000-{number + 10:012}")
                begun = Append(run_id, 0, [RunStarted(OpId("op"), ArtifactId(blob.id), snapshot)])
                await stores.commit([blob], [begun])
            assert (await traces(stores))[0].may_replay
            assert (await traces(stores))[3].status is RunStatus.COMPLETED

    # Deletion

    async def test_a_deleted_run_is_as_if_it_had_never_been(self) -> None:
        """Its events, letters and traces are gone, and its id begins anew."""
        if not self.can_delete:
            return
        async with self.place() as (_, (stores,)):
            claim = await own(stores, RUN)
            await stores.mailbox.post(RUN, "a", 1)
            await stores.commit([], [Append(RUN, 1, [*told("x"), ENDED])], claim, release=Release())
            await ended_run(stores, OTHER)
            deleted = await stores.keeping.delete([RUN])
            assert (deleted.run_ids, deleted.events) == ([RUN], 3)
            assert deleted.event_bytes > 0
            assert await stores.events.head_seq(RUN) == 0
            assert await stores.events.read_range(RUN, 1) == []
            assert await stores.events.read_engine_events(RUN, 1, 9) == []
            assert await stores.events.list_runs() == [OTHER]
            assert [trace.run_id for trace in await traces(stores)] == [OTHER]
            assert await ids(stores, RUN) == []
            assert await stores.mailbox.addressed([RUN]) == set()
            assert await stores.events.append(RUN, 0, told("anew")) == 1
            assert await agenda(stores) == ([RUN], 0)
            assert await stores.events.list_runs() == [RUN, OTHER]
            assert [each.event for each in await stores.events.read_range(RUN, 1)] == told("anew")
            assert await stores.mailbox.post(RUN, "a", 2)

    async def test_only_runs_that_are_over_can_be_deleted(self) -> None:
        """Not one that is unknown, unfinished, parked, or had by a live owner though it has ended."""
        if not self.can_delete:
            return
        async with self.place() as (_, (stores,)):
            await park(stores, RUN, None)
            claim = await own(stores, OTHER)
            await stores.commit([], [Append(OTHER, 1, [ENDED])], claim)
            assert await stores.keeping.delete([RUN, OTHER, THIRD]) == Deleted([], 0, 0)
            assert await stores.events.list_runs() == [OTHER, RUN]
            await stores.claims.release(claim)
            assert (await stores.keeping.delete([RUN, OTHER, OTHER])).run_ids == [OTHER]
            assert await stores.events.list_runs() == [RUN]

    async def test_a_dry_deletion_changes_nothing(self) -> None:
        """It says what would go."""
        if not self.can_delete:
            return
        async with self.place() as (_, (stores,)):
            await ended_run(stores, RUN, *told("a", "b"))
            await stores.events.append(OTHER, 0, told("a"))
            dry = await stores.keeping.delete([RUN, OTHER, THIRD], is_dry=True)
            assert await stores.events.head_seq(RUN) == 3
            assert await stores.keeping.delete([RUN, OTHER, THIRD]) == dry
            assert (dry.run_ids, dry.events) == ([RUN], 3)

    async def test_a_long_stream_is_gone_at_once(self) -> None:
        """Whoever looks while it is being deleted sees all of it or nothing."""
        if not self.can_delete:
            return
        async with self.place() as (_, (stores,)):
            await stores.events.append(RUN, 0, [*told(*["x"] * 3000), ENDED])
            seen = set()

            async def look() -> None:
                while True:
                    seen.add(len(await stores.events.read_range(RUN, 1)))
                    await asyncio.sleep(0)

            looking = asyncio.create_task(look())
            await stores.keeping.delete([RUN])
            looking.cancel()
            await asyncio.gather(looking, return_exceptions=True)
            assert seen <= {0, 3001}
            assert await stores.events.head_seq(RUN) == 0

    async def test_another_handle_deletes_too(self) -> None:
        """And what it deleted is gone everywhere; what a handle has, no other deletes."""
        if not (self.can_delete and self.shares_claims):
            return
        async with self.place(handles=2) as (_, (here, there)):
            await ended_run(here, RUN)
            claim = await own(here, OTHER)
            await here.commit([], [Append(OTHER, 1, [ENDED])], claim)
            assert (await there.keeping.delete([RUN, OTHER])).run_ids == [RUN]
            assert await here.events.list_runs() == [OTHER]

    # Sweeping

    async def test_what_nothing_leads_to_is_swept_after_an_hour(self) -> None:
        """Not a minute earlier, and an hour after it was put last."""
        if not self.can_delete:
            return
        async with self.place() as (clock, (stores,)):
            artifact_id, other_id = await put(stores, document("a")), await put(stores, b"plain \xff bytes")
            clock.advance(MINUTE // 2)
            await put(stores, document("a"))
            clock.advance(HOUR - MINUTE)
            assert (await stores.keeping.sweep()).artifacts == 0
            clock.advance(MINUTE - 1)
            await stores.keeping.sweep()
            assert await stores.artifacts.get(artifact_id) == document("a")
            await put(stores, document("a"))
            clock.advance(HOUR - 1)
            await stores.keeping.sweep()
            assert not await stores.artifacts.exists(other_id)
            assert await stores.artifacts.get(artifact_id) == document("a")
            clock.advance(_SLACK)
            dry = await stores.keeping.sweep(is_dry=True)
            assert await stores.artifacts.get(artifact_id) == document("a")
            assert await stores.keeping.sweep() == dry
            assert dry.artifacts >= 1
            assert not await stores.artifacts.exists(artifact_id)
            assert await put(stores, document("a")) == artifact_id
            assert await stores.artifacts.get(artifact_id) == document("a")

    async def test_what_a_run_names_is_kept(self) -> None:
        """In any event and in any field, in engine events and others, as long as the run is there."""
        if not self.can_delete:
            return
        async with self.place() as (clock, (stores,)):
            kept = [await put(stores, document(name, 90)) for name in "abcd"]
            events: list[Event] = [
                RunStarted(OpId("op"), kept[0], kept[1]),
                naming(f"see {kept[2]}, please"),
                DomainEvent("x", None, kept[3]),
                ENDED,
            ]
            await stores.events.append(RUN, 0, events)
            clock.advance(HOUR + _SLACK)
            assert (await stores.keeping.sweep()).artifacts == 0
            assert [await stores.artifacts.get(each) for each in kept] == [
                document(name, 90) for name in "abcd"
            ]
            await stores.keeping.delete([RUN])
            assert (await stores.keeping.sweep()).artifacts >= 4
            assert not any([await stores.artifacts.exists(each) for each in kept])

    async def test_what_an_artifact_names_is_kept(self) -> None:
        """Through any number of artifacts, also from within one that is kept in parts."""
        if not self.can_delete:
            return
        async with self.place() as (clock, (stores,)):
            last = await put(stores, b"the last of them")
            chain, texts = [last], list[bytes]()
            for name in "abc":
                members = {f"{name}{number}": "x" * 40 for number in range(100)}
                texts.append(canonical_json_bytes(members | {"m": {"next": [chain[-1]]}}, secrets=None))
                chain.append(await put(stores, texts[-1]))
            await stores.events.append(RUN, 0, [naming(chain[-1])])
            clock.advance(HOUR + _SLACK)
            assert (await stores.keeping.sweep()).artifacts == 0
            assert await stores.artifacts.get(last) == b"the last of them"
            assert [await stores.artifacts.get(each) for each in chain[1:]] == texts

    async def test_artifacts_may_share_what_they_are_made_of(self) -> None:
        """What one of two needs stays when the other goes, and is whole."""
        if not self.can_delete:
            return
        async with self.place() as (clock, (stores,)):
            members = {f"key{number:03}": "x" * 40 + str(number) for number in range(300)}
            one = canonical_json_bytes(members, secrets=None)
            other = canonical_json_bytes(members | {"key150": "changed"}, secrets=None)
            ids = [await put(stores, each) for each in (one, other)]
            await ended_run(stores, RUN, naming(ids[0]))
            await ended_run(stores, OTHER, naming(ids[1]))
            clock.advance(HOUR + _SLACK)
            await stores.keeping.delete([RUN])
            await stores.keeping.sweep()
            assert not await stores.artifacts.exists(ids[0])
            assert await stores.artifacts.get(ids[1]) == other
            assert await put(stores, one) == ids[0]
            assert await stores.artifacts.get(ids[0]) == one
            assert (await stores.keeping.sweep()).artifacts == 0

    async def test_what_a_letter_names_is_kept(self) -> None:
        """As long as it waits to be read."""
        if not self.can_delete or not self.shares_claims:
            return
        async with self.place() as (clock, (stores,)):
            artifact_id = await put(stores, b"for you")
            await stores.events.append(RUN, 0, told("begun"))
            await stores.mailbox.post(RUN, "a", {"see": artifact_id})
            clock.advance(HOUR + _SLACK)
            await stores.keeping.sweep()
            assert await stores.artifacts.get(artifact_id) == b"for you"
            claim = await stores.claims.acquire(RUN, "one", TTL)
            await stores.commit([], [], claim, read=["a"], release=Release())
            await stores.keeping.sweep()
            assert not await stores.artifacts.exists(artifact_id)

    async def test_a_sweep_can_tell_what_would_go_without_some_runs(self) -> None:
        """What only these lead to; they lead to it still."""
        if not self.can_delete:
            return
        async with self.place() as (clock, (stores,)):
            shared, alone = await put(stores, b"shared"), await put(stores, b"alone")
            await ended_run(stores, RUN, naming(shared), naming(alone))
            await stores.events.append(OTHER, 0, [naming(shared)])
            clock.advance(HOUR + _SLACK)
            assert tuple(await stores.keeping.sweep([RUN, THIRD], is_dry=True)) == (1, len(b"alone"))
            assert (await stores.keeping.sweep()).artifacts == 0
            assert await stores.artifacts.get(alone) == b"alone"

    async def test_a_writer_beside_a_sweep_loses_nothing(self) -> None:
        """It may name what it puts at any moment, also what was about to be swept."""
        if not self.can_delete:
            return
        async with self.place() as (clock, (stores,)):
            texts = [document(f"text{number}", 30) for number in range(40)]
            for text in texts:
                await put(stores, text)
            clock.advance(HOUR + _SLACK)
            sweeping = asyncio.create_task(stores.keeping.sweep())
            for head, text in enumerate(texts[::2]):
                blob = Blob(ArtifactKind.OUTPUT, text)
                await stores.commit([blob], [Append(RUN, head, [naming(blob.id)])])
                await asyncio.sleep(0)
            await sweeping
            await stores.keeping.sweep()
            for text in texts[::2]:
                assert await stores.artifacts.get(Blob(ArtifactKind.OUTPUT, text).id) == text
            for text in texts[1::2]:
                assert not await stores.artifacts.exists(Blob(ArtifactKind.OUTPUT, text).id)

    async def test_long_work_says_how_far_it_has_come(self) -> None:
        """Stage by stage."""
        if not self.can_delete:
            return
        async with self.place() as (clock, (stores,)):
            heard = set()
            await put(stores, b"garbage")
            await ended_run(stores, RUN)
            clock.advance(HOUR + _SLACK)
            await stores.keeping.delete([RUN], tell=lambda stage, done: heard.add((stage, done)))
            assert heard == {("runs", 1)}
            await stores.keeping.sweep(tell=lambda stage, done: heard.add((stage, done)))
            assert ("garbage", 1) in heard
            await stores.keeping.compact()
            assert await stores.events.list_runs() == []
