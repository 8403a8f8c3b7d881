"""What every agenda must do: the part of the conformance suite about runs that are due."""

from __future__ import annotations

import asyncio

from perdure.ids import RunId
from perdure.stores.ports import Append, Release
from perdure.testing.store_places import ENDED, OTHER, RUN, TTL, StorePlaces, agenda, ids, own, park, told


class AgendaConformance(StorePlaces):
    """Begun, parked, due, owned, and ended."""

    async def test_a_run_that_nobody_drives_is_due(self) -> None:
        """From its first event to its end, but for the time in which somebody owns it."""
        async with self.place() as (_, (stores,)):
            assert await stores.agenda.due_runs(9) == []
            assert await stores.agenda.next_due_millis() is None
            await stores.events.append(RUN, 0, told("a"))
            assert await agenda(stores) == ([RUN], 0)
            claim = await stores.claims.acquire(RUN, "one", TTL)
            assert await agenda(stores) == ([], None)
            await stores.commit([], [Append(RUN, 1, told("b"))], claim)
            assert await agenda(stores) == ([], None)
            await stores.claims.release(claim)
            assert await agenda(stores) == ([RUN], 0)
            await stores.events.append(RUN, 2, [ENDED])
            assert await agenda(stores) == ([], None)

    async def test_a_run_is_due_when_its_release_says(self) -> None:
        """Not a millisecond earlier; then it stays due until somebody owns it."""
        async with self.place() as (clock, (stores,)):
            await park(stores, RUN, clock.millis + 1000)
            assert await agenda(stores) == ([], clock.millis + 1000)
            clock.advance(999)
            assert await agenda(stores) == ([], clock.millis + 1)
            clock.advance(1)
            assert await agenda(stores) == ([RUN], clock.millis)
            clock.advance(60_000)
            assert await agenda(stores) == ([RUN], clock.millis - 60_000)
            claim = await stores.claims.acquire(RUN, "one", TTL)
            assert await agenda(stores) == ([], None)
            await stores.commit([], [], claim, release=Release())
            assert await agenda(stores) == ([RUN], 0)

    async def test_a_claim_given_up_by_itself_leaves_its_run_due(self) -> None:
        """At once, whatever the run waited for before."""
        async with self.place() as (clock, (stores,)):
            for due_millis in (None, clock.millis + 1000):
                await park(stores, RUN, due_millis)
                assert await stores.agenda.due_runs(9) == []
                await stores.claims.release(await stores.claims.acquire(RUN, "one", TTL))
                assert await agenda(stores) == ([RUN], 0)
            await park(stores, RUN, None)
            claim = await stores.claims.acquire(RUN, "one", TTL)
            await stores.commit([], [Append(RUN, await stores.events.head_seq(RUN), told("x"))], claim)
            await stores.claims.release(claim)
            assert await agenda(stores) == ([RUN], 0)

    async def test_runs_longest_due_come_first(self) -> None:
        """As many as are asked for; those that are due at the same time in the order of beginning."""
        async with self.place() as (clock, (stores,)):
            runs = [RunId(f"{number:08x}-0000-0000-0000-000000000000") for number in (4, 2, 5, 0, 3, 1)]
            times = [clock.millis + 3, 0, clock.millis + 1, None, clock.millis + 2, 0]
            for run_id, due_millis in zip(runs, times, strict=True):
                await park(stores, run_id, due_millis)
            assert await agenda(stores) == ([runs[1], runs[5]], 0)
            clock.advance(2)
            wanted = [runs[1], runs[5], runs[2], runs[4]]
            assert await stores.agenda.due_runs(9) == wanted
            assert await stores.agenda.due_runs(3) == wanted[:3]
            assert await stores.agenda.due_runs(9, within_millis=1) == [*wanted, runs[0]]
            claim = await stores.claims.acquire(runs[1], "one", TTL)
            assert await stores.agenda.due_runs(3) == wanted[1:]
            assert await stores.agenda.next_due_millis() == 0
            await stores.commit([], [], claim, release=Release(None))
            await park(stores, runs[5], None)
            assert await agenda(stores) == (wanted[2:], clock.millis - 1)

    async def test_a_letter_makes_its_run_due(self) -> None:
        """At once, whether the run waited for a time or for letters alone."""
        async with self.place() as (clock, (stores,)):
            await park(stores, RUN, None)
            await park(stores, OTHER, clock.millis + 1000)
            clock.advance(999)
            assert await agenda(stores) == ([], clock.millis + 1)
            await stores.mailbox.post(RUN, "a", 1)
            assert await agenda(stores) == ([RUN], 0)
            await stores.mailbox.post(OTHER, "a", 1)
            assert await agenda(stores) == ([RUN, OTHER], 0)

    async def test_a_run_with_letters_cannot_be_parked(self) -> None:
        """What came while its owner was busy is due at once; letters that the same commit takes are not."""
        async with self.place() as (clock, (stores,)):
            for due_millis in (None, clock.millis + 1000):
                claim = await own(stores, RUN)
                await stores.mailbox.post(RUN, "a", 1)
                await stores.mailbox.post(RUN, "b", 2)
                assert await agenda(stores) == ([], None)
                await stores.commit([], [], claim, read=["a"], release=Release(due_millis))
                assert await agenda(stores) == ([RUN], 0)
                claim = await stores.claims.acquire(RUN, "two", TTL)
                await stores.commit([], [], claim, read=["b"], release=Release(due_millis))
                assert await agenda(stores) == ([], due_millis)

    async def test_a_run_that_ended_is_never_due(self) -> None:
        """Whatever its last commit says, with letters or without."""
        async with self.place() as (_, (stores,)):
            for run_id, due_millis in ((RUN, 0), (OTHER, None)):
                claim = await own(stores, run_id)
                await stores.mailbox.post(run_id, "a", 1)
                await stores.commit([], [Append(run_id, 1, [ENDED])], claim, release=Release(due_millis))
                assert await agenda(stores) == ([], None)
                await stores.claims.release(await stores.claims.acquire(run_id, "two", TTL))
                assert await agenda(stores) == ([], None)
                assert await ids(stores, run_id) == ["a"]

    async def test_a_run_whose_owner_expired_is_due(self) -> None:
        """At once, whatever it waited for before it had this owner; renewing prevents it."""
        if not self.shares_claims:
            return
        async with self.place(handles=2) as (clock, (here, there)):
            await park(here, RUN, clock.millis + 10_000_000)
            await park(here, OTHER, clock.millis)
            claim = await here.claims.acquire(RUN, "one", TTL)
            await here.commit([], [Append(RUN, 1, told("a"))], claim)
            assert await agenda(there) == ([OTHER], clock.millis)
            clock.advance(29_000)
            await asyncio.to_thread(here.claims.renew, [claim], TTL)
            clock.advance(29_000)
            assert await there.agenda.due_runs(9) == [OTHER]
            clock.advance(1_000)
            assert await there.agenda.due_runs(9) == [RUN, OTHER]
            assert await there.agenda.due_runs(1) == [RUN]
            await there.commit([], [], await there.claims.acquire(RUN, "two", TTL), release=Release(None))
            assert await there.agenda.due_runs(9) == [OTHER]

    async def test_another_handle_sees_what_is_due(self) -> None:
        """Due times are the place's, and so are letters that make runs due."""
        if not self.shares_claims:
            return
        async with self.place(handles=2) as (clock, (here, there)):
            await park(here, RUN, clock.millis + 1000)
            await park(here, OTHER, None)
            assert await agenda(there) == ([], clock.millis + 1000)
            await here.mailbox.post(OTHER, "a", 1)
            clock.advance(1000)
            assert await agenda(there) == ([OTHER, RUN], 0)
