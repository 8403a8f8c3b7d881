"""What every store must do, as tests that run whole against any of them.

Subclass :class:`StoreConformance` in a test module, and say how a place is made and opened; pytest finds the
rest. Every test opens its own place.
"""

from __future__ import annotations

import asyncio
import hashlib

from perdure.errors import ConcurrencyError, NotFoundError
from perdure.ids import ArtifactId, RunId
from perdure.model.events import ArtifactKind, DomainEvent, Event, RunStarted
from perdure.stores.ports import Append, Blob, Claim, Release
from perdure.testing.agenda_conformance import AgendaConformance
from perdure.testing.awaiting_conformance import AwaitingConformance
from perdure.testing.keeping_conformance import KeepingConformance
from perdure.testing.legs_conformance import LegsConformance
from perdure.testing.mailbox_conformance import MailboxConformance
from perdure.testing.schedule_conformance import ScheduleConformance
from perdure.testing.store_places import ENDED, OTHER, RUN, TTL, begin, own, refusal, told


class StoreConformance(
    MailboxConformance,
    AgendaConformance,
    AwaitingConformance,
    ScheduleConformance,
    KeepingConformance,
    LegsConformance,
):
    """The suite."""

    # Events

    async def test_events_are_numbered_from_one_and_stamped(self) -> None:
        """The store numbers what it is given, and says when."""
        async with self.place() as (clock, (stores,)):
            assert await stores.events.head_seq(RUN) == 0
            assert await stores.events.append(RUN, 0, told("a", "b")) == 2
            clock.advance(5)
            assert await stores.events.append(RUN, 2, told("c")) == 3
            stream = await stores.events.read_range(RUN, 1)
            assert [each.seq for each in stream] == [1, 2, 3]
            assert [each.run_id for each in stream] == [RUN] * 3
            assert [each.event for each in stream] == told("a", "b", "c")
            assert [each.ts_millis for each in stream] == [clock.millis - 5] * 2 + [clock.millis]
            assert await stores.events.head_seq(RUN) == 3

    async def test_a_stale_expectation_changes_nothing(self) -> None:
        """``event_store_concurrency`` for a head that was, and for one that never was."""
        async with self.place() as (_, (stores,)):
            await stores.events.append(RUN, 0, told("a", "b"))
            for expected in (0, 1, 3):
                error = await refusal(stores.events.append(RUN, expected, told("x")))
                assert isinstance(error, ConcurrencyError)
                assert error.code == "event_store_concurrency"
            assert [each.event for each in await stores.events.read_range(RUN, 1)] == told("a", "b")
            assert await stores.events.append(RUN, 2, told("c")) == 3

    async def test_ranges_include_both_ends(self) -> None:
        """An unknown run, and a range past the end, give nothing."""
        async with self.place() as (_, (stores,)):
            await stores.events.append(RUN, 0, told(*"abcdef"))
            for first, last, seqs in [
                (1, None, [1, 2, 3, 4, 5, 6]),
                (3, 4, [3, 4]),
                (6, 6, [6]),
                (5, 99, [5, 6]),
                (7, None, []),
                (4, 3, []),
            ]:
                assert [each.seq for each in await stores.events.read_range(RUN, first, last)] == seqs
            assert await stores.events.read_range(OTHER, 1) == []

    async def test_recovery_reads_engine_events_page_by_page(self) -> None:
        """Domain events are left out, numbers stay."""
        async with self.place() as (_, (stores,)):
            fact = DomainEvent("fact_recorded", {"key": "k", "payload_id": "0" * 64, "meta": {}})
            await stores.events.append(RUN, 0, [*told("a"), fact, *told("b", "c"), fact, fact])
            assert [each.seq for each in await stores.events.read_engine_events(RUN, 1, 2)] == [2, 5]
            assert [each.seq for each in await stores.events.read_engine_events(RUN, 6, 2)] == [6]
            assert await stores.events.read_engine_events(OTHER, 1, 2) == []

    async def test_every_kind_of_payload_comes_back(self) -> None:
        """Stores take any event, also what no engine would write."""
        async with self.place() as (_, (stores,)):
            events: list[Event] = [
                DomainEvent("", None),
                DomainEvent("é\n\0", {"a": [1, "\u2028", {"deep": [None, True, -(2**63), 2**64 - 1]}]}),
                DomainEvent("fact_recorded", "malformed"),
                DomainEvent("password", {"password": "hunter2"}, ArtifactId("0" * 64)),
            ]
            await stores.events.append(RUN, 0, events)
            assert [each.event for each in await stores.events.read_range(RUN, 1)] == events

    async def test_runs_are_listed_in_order(self) -> None:
        """The newest first, page by page; a run without events is none."""
        async with self.place() as (_, (stores,)):
            assert await stores.events.list_runs() == []
            runs = [RunId(f"{number:08x}-0000-0000-0000-000000000000") for number in (3, 1, 6, 0, 5, 2, 4)]
            for run_id in reversed(runs):
                await stores.events.append(run_id, 0, told("a"))
            await stores.events.append(runs[4], 1, told("again"))
            assert await stores.events.list_runs(None, 3) == runs[:3]
            assert await stores.events.list_runs(runs[2], 100) == runs[3:]
            assert await stores.events.list_runs(RUN, 100) == []

    async def test_unfinished_runs_are_listed_apart(self) -> None:
        """A run is unfinished until its stream holds ``RunCompleted``."""
        async with self.place() as (_, (stores,)):
            await stores.events.append(RUN, 0, told("a"))
            await stores.events.append(OTHER, 0, told("a"))
            assert await stores.events.list_runs(unfinished=True) == [OTHER, RUN]
            await stores.events.append(OTHER, 1, [ENDED, *told("after the end")])
            assert await stores.events.list_runs(unfinished=True) == [RUN]
            assert await stores.events.list_runs() == [OTHER, RUN]

    async def test_of_racing_appends_one_wins(self) -> None:
        """Twenty writers with one expectation: one event lands, nineteen are told."""
        async with self.place() as (_, (stores,)):
            outcomes = await asyncio.gather(
                *[stores.events.append(RUN, 0, told(str(number))) for number in range(20)],
                return_exceptions=True,
            )
            assert sorted(type(each).__name__ for each in outcomes) == ["ConcurrencyError"] * 19 + ["int"]
            assert await stores.events.head_seq(RUN) == 1

    async def test_many_runs_grow_side_by_side(self) -> None:
        """No run's events end up in another's."""
        async with self.place() as (_, (stores,)):

            async def grow(run_id: RunId) -> None:
                for head in range(5):
                    await stores.events.append(run_id, head, told(f"{run_id} {head}"))

            runs = [RunId(f"{number:08x}-0000-0000-0000-000000000000") for number in range(20)]
            await asyncio.gather(*map(grow, runs))
            for run_id in runs:
                stream = await stores.events.read_range(run_id, 1)
                assert [each.event for each in stream] == told(*[f"{run_id} {head}" for head in range(5)])

    # Artifacts

    async def test_artifacts_are_named_by_their_content(self) -> None:
        """Any bytes come back; putting them again is fine, under whatever kind."""
        async with self.place() as (_, (stores,)):
            for data in (b"", b"\0\xff", b"hello", b"x" * (3 << 20)):
                wanted = hashlib.sha256(data).hexdigest()
                assert not await stores.artifacts.exists(ArtifactId(wanted))
                assert await stores.artifacts.put(ArtifactKind.OUTPUT, data) == wanted
                assert await stores.artifacts.put(ArtifactKind.other("again"), data) == wanted
                assert await stores.artifacts.exists(ArtifactId(wanted))
                assert await stores.artifacts.get(ArtifactId(wanted)) == data

    async def test_json_comes_back_as_it_was_put(self) -> None:
        """Byte for byte, canonical or not, also from another handle, and beside others that share much."""
        items = ",".join(f'{{"n":{number},"text":"item {number}"}}' for number in range(400))
        documents = [
            f'{{"all":[{items}]}}',
            f'{{"all":[{items},7]}}',
            f'{{ "all" : [{items}]}}',
            f"[{items}]",
        ]
        async with self.place(2) as (_, (stores, other)):
            ids = [await stores.artifacts.put(ArtifactKind.OUTPUT, each.encode()) for each in documents]
            assert ids == [hashlib.sha256(each.encode()).hexdigest() for each in documents]
            for artifact_id, document in zip(ids, documents, strict=True):
                assert await other.artifacts.get(artifact_id) == document.encode()
                assert await other.artifacts.exists(artifact_id)

    async def test_an_unknown_artifact_is_not_found(self) -> None:
        """``artifact_not_found``."""
        async with self.place() as (_, (stores,)):
            error = await refusal(stores.artifacts.get(ArtifactId("0" * 64)))
            assert isinstance(error, NotFoundError)
            assert error.code == "artifact_not_found"

    # Commit

    async def test_a_commit_holds_all_it_was_given(self) -> None:
        """Artifacts and the events of several runs; ids and heads in the order asked for."""
        async with self.place() as (_, (stores,)):
            blobs = [Blob(ArtifactKind.OUTPUT, b"one"), Blob(ArtifactKind.OUTPUT, b"two")]
            done = await stores.commit(blobs, [Append(OTHER, 0, told("x", "y")), Append(RUN, 0, told("a"))])
            assert done.artifact_ids == [blob.id for blob in blobs]
            assert done.heads == [2, 1]
            assert [each.event for each in await stores.events.read_range(OTHER, 1)] == told("x", "y")
            assert await stores.artifacts.get(blobs[1].id) == b"two"

    async def test_a_cancelled_commit_is_whole(self) -> None:
        """Once begun it goes on to its end, and only then its caller is told of the cancellation."""
        async with self.place() as (_, (stores,)):
            blob = Blob(ArtifactKind.OUTPUT, b"one")
            commit = asyncio.create_task(stores.commit([blob], [Append(RUN, 0, told("a"))]))
            await asyncio.sleep(0)
            commit.cancel()
            await asyncio.wait([commit])
            assert commit.cancelled() or commit.result().heads == [1]
            assert await stores.events.head_seq(RUN) == 1
            assert await stores.artifacts.exists(blob.id)

    async def test_a_refused_commit_leaves_nothing(self) -> None:
        """One stale run, and neither the artifact nor the other run's events are there."""
        if not self.is_atomic:
            return
        async with self.place() as (_, (stores,)):
            await stores.events.append(OTHER, 0, told("x"))
            blob = Blob(ArtifactKind.OUTPUT, b"orphan")
            appends = [Append(RUN, 0, told("a")), Append(OTHER, 0, told("y"))]
            assert (await refusal(stores.commit([blob], appends))).code == "event_store_concurrency"
            assert await stores.events.head_seq(RUN) == 0
            assert not await stores.artifacts.exists(blob.id)

    async def test_a_refused_commit_leaves_its_owner_the_run(self) -> None:
        """One stale run, and the claim's own run has no events, is not given up, and awaits nothing.

        Where a commit is not atomic, what was asked for first is there, and the run is not given up either.
        """
        async with self.place() as (_, (stores,)):
            claim = await own(stores, RUN)
            await begin(stores, OTHER)
            blob = Blob(ArtifactKind.OUTPUT, b"x" * (3 << 20))
            appends = [Append(RUN, 1, told("a")), Append(OTHER, 0, told("y"))]
            commit = stores.commit([blob], appends, claim, release=Release(None, (OTHER,)))
            assert (await refusal(commit)).code == "event_store_concurrency"
            kept = not self.is_atomic
            assert await stores.artifacts.exists(blob.id) is kept
            assert await stores.events.head_seq(RUN) == 1 + kept
            assert await stores.events.head_seq(OTHER) == 1
            assert (await refusal(stores.claims.acquire(RUN, "two", TTL))).code == "run_already_active"
            await stores.commit([], [Append(OTHER, 1, [ENDED])], claim, release=Release(None))
            assert await stores.agenda.due_runs(9) == []

    async def test_a_commit_may_append_to_a_run_twice(self) -> None:
        """In the order asked for, each expecting what the one before has left."""
        async with self.place() as (_, (stores,)):
            done = await stores.commit([], [Append(RUN, 0, told("a", "b")), Append(RUN, 2, told("c"))])
            assert done.heads == [2, 3]
            assert [each.event for each in await stores.events.read_range(RUN, 1)] == told("a", "b", "c")

    async def test_a_refused_commit_does_not_hurt_its_neighbours(self) -> None:
        """Of commits made at the same time, a stale one fails alone."""
        async with self.place() as (_, (stores,)):
            runs = [RunId(f"{number:08x}-0000-0000-0000-000000000000") for number in range(9)]
            expected = [5 if number % 3 == 0 else 0 for number in range(9)]
            outcomes = await asyncio.gather(
                *[
                    stores.commit([], [Append(run_id, head, told("a"))])
                    for run_id, head in zip(runs, expected, strict=True)
                ],
                return_exceptions=True,
            )
            assert [isinstance(each, ConcurrencyError) for each in outcomes] == [
                head == 5 for head in expected
            ]
            assert [await stores.events.head_seq(run_id) for run_id in runs] == [
                0 if head else 1 for head in expected
            ]

    # Claims

    async def test_a_run_has_one_owner_at_a_time(self) -> None:
        """The second to ask is refused, until the first gives the run up; every owner's epoch is higher."""
        async with self.place() as (_, (stores,)):
            first = await stores.claims.acquire(RUN, "one", TTL)
            assert (await refusal(stores.claims.acquire(RUN, "two", TTL))).code == "run_already_active"
            await stores.commit([], [Append(RUN, 0, told("a"))], first)
            assert (await refusal(stores.claims.acquire(RUN, "two", TTL))).code == "run_already_active"
            await stores.commit([], [Append(RUN, 1, told("b"))], first, release=Release())
            second = await stores.claims.acquire(RUN, "two", TTL)
            assert second.epoch > first.epoch
            await stores.claims.release(second)
            await stores.claims.release(await stores.claims.acquire(RUN, "three", TTL))

    async def test_another_handle_sees_who_owns_a_run(self) -> None:
        """A claim that a commit has carried holds for everybody."""
        if not self.shares_claims:
            return
        async with self.place(handles=2) as (_, (here, there)):
            claim = await here.claims.acquire(RUN, "one", TTL)
            await here.commit([], [Append(RUN, 0, told("a"))], claim)
            assert (await refusal(there.claims.acquire(RUN, "two", TTL))).code == "run_already_active"
            await here.claims.release(claim)
            await there.claims.acquire(RUN, "two", TTL)

    async def test_an_expired_owner_is_fenced_off(self) -> None:
        """Its run may be taken over; what it appends afterwards is refused, whatever its expectation."""
        if not self.shares_claims:
            return
        async with self.place(handles=2) as (clock, (here, there)):
            old = await here.claims.acquire(RUN, "one", TTL)
            await here.commit([], [Append(RUN, 0, told("a"))], old)
            clock.advance(31_000)
            new = await there.claims.acquire(RUN, "two", TTL)
            await there.commit([], [Append(RUN, 1, told("b"))], new)
            late = Append(RUN, 2, told("x"))
            assert (await refusal(here.commit([], [late], old))).code == "claim_lost"
            assert (await refusal(here.events.append(*late, old))).code == "claim_lost"
            assert await asyncio.to_thread(here.claims.renew, [old], TTL) == [old]
            assert await asyncio.to_thread(there.claims.renew, [new], TTL) == []
            assert await there.events.append(RUN, 2, told("c"), new) == 3

    async def test_renewing_keeps_a_run(self) -> None:
        """Nobody takes over a run whose owner goes on renewing."""
        if not self.shares_claims:
            return
        async with self.place(handles=2) as (clock, (here, there)):
            claim = await here.claims.acquire(RUN, "one", TTL)
            await here.commit([], [Append(RUN, 0, told("a"))], claim)
            for _ in range(3):
                clock.advance(20_000)
                assert await asyncio.to_thread(here.claims.renew, [claim], TTL) == []
            assert (await refusal(there.claims.acquire(RUN, "two", TTL))).code == "run_already_active"

    async def test_what_was_written_is_there_for_the_next_handle(self) -> None:
        """Nothing lives in the handle alone."""
        if not self.shares_claims:
            return
        async with self.place(handles=2) as (_, (here, there)):
            started = RunStarted.from_json(
                {
                    "Kernel": {
                        "RunStarted": {
                            "op_id": "op",
                            "manifest_id": "0" * 64,
                            "initial_snapshot_id": "1" * 64,
                        }
                    }
                }
            )
            blob = Blob(ArtifactKind.MANIFEST, b"{}")
            await here.commit([blob], [Append(RUN, 0, [started])])
            assert [each.event for each in await there.events.read_range(RUN, 1)] == [started]
            assert await there.artifacts.get(blob.id) == b"{}"

    async def test_a_late_release_does_not_free_the_next_owner_s_run(self) -> None:
        """A claim that was given up has nothing more to give."""
        async with self.place() as (_, (stores,)):
            first = await stores.claims.acquire(RUN, "one", TTL)
            await stores.commit([], [Append(RUN, 0, told("a"))], first, release=Release())
            second = await stores.claims.acquire(RUN, "two", TTL)
            await stores.claims.release(first)
            assert (await refusal(stores.claims.acquire(RUN, "three", TTL))).code == "run_already_active"
            assert (await stores.commit([], [Append(RUN, 1, told("b"))], second)).heads == [2]

    async def test_a_claim_for_another_epoch_is_refused(self) -> None:
        """A claim nobody was given is no claim."""
        async with self.place() as (_, (stores,)):
            claim = await stores.claims.acquire(RUN, "one", TTL)
            await stores.commit([], [Append(RUN, 0, told("a"))], claim)
            if not self.shares_claims:
                return
            forged = Claim(RUN, claim.owner, claim.epoch + 7)
            assert (
                await refusal(stores.commit([], [Append(RUN, 1, told("x"))], forged))
            ).code == "claim_lost"
