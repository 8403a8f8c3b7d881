"""What every agenda must do: the part of the conformance suite about runs that wait for the end of others."""

from __future__ import annotations

from perdure.ids import RunId
from perdure.stores.bundle import Stores
from perdure.stores.ports import Append, Release
from perdure.testing.store_places import ENDED, OTHER, RUN, TTL, StorePlaces, agenda, own, park, refusal, told

THIRD = RunId("00000000-0000-0000-0000-000000000003")


async def end(stores: Stores, run_id: RunId) -> None:
    """Append the run's end to what there is."""
    await stores.events.append(run_id, await stores.events.head_seq(run_id), [ENDED])


async def due(stores: Stores, run_id: RunId) -> bool:
    """Whether this run is due."""
    return await stores.agenda.due_runs(9, among=[run_id]) == [run_id]


class AwaitingConformance(StorePlaces):
    """Awaited, ended, due."""

    async def test_the_end_of_a_run_makes_due_who_awaits_it(self) -> None:
        """At once, and nothing less than the end does."""
        async with self.place() as (clock, (stores,)):
            claim = await own(stores, OTHER)
            for head, (run_id, due_millis) in enumerate([(RUN, None), (THIRD, clock.millis + 1000)], 1):
                await park(stores, run_id, due_millis, OTHER)
                await stores.commit([], [Append(OTHER, head, told("a"))], claim)
                assert await agenda(stores) == ([], due_millis)
                await stores.commit([], [], claim, release=Release(None))
                assert await agenda(stores) == ([], due_millis)
                claim = await own(stores, OTHER)
            await stores.commit([], [Append(OTHER, 3, [ENDED])], claim, release=Release())
            assert await agenda(stores) == ([RUN, THIRD], 0)
            claim = await stores.claims.acquire(RUN, "one", TTL)
            assert await agenda(stores) == ([THIRD], 0)
            await stores.claims.release(claim)
            assert await agenda(stores) == ([RUN, THIRD], 0)

    async def test_who_awaits_a_run_may_be_due_before_its_end(self) -> None:
        """At its time, or when a letter comes."""
        async with self.place() as (clock, (stores,)):
            claim = await own(stores, OTHER)
            await park(stores, RUN, clock.millis + 1000, OTHER)
            await park(stores, THIRD, None, OTHER)
            clock.advance(1000)
            assert await agenda(stores) == ([RUN], clock.millis)
            await stores.mailbox.post(THIRD, "a", 1)
            assert await agenda(stores) == ([THIRD, RUN], 0)
            await stores.commit([], [Append(OTHER, 1, [ENDED])], claim, release=Release())
            assert await agenda(stores) == ([RUN, THIRD], 0)

    async def test_who_awaits_what_has_ended_is_due(self) -> None:
        """At once, if only one of several has, and also if it ends with the same commit."""
        async with self.place() as (clock, (stores,)):
            await end(stores, OTHER)
            for due_millis in (None, clock.millis + 1000):
                await park(stores, RUN, due_millis, THIRD, OTHER)
                assert await agenda(stores) == ([RUN], 0)
                await park(stores, RUN, due_millis, THIRD)
                assert await agenda(stores) == ([], due_millis)
            claim = await own(stores, RUN)
            await stores.commit([], [Append(THIRD, 0, [ENDED])], claim, release=Release(None, (THIRD,)))
            assert await agenda(stores) == ([RUN], 0)

    async def test_a_run_may_be_awaited_before_it_begins(self) -> None:
        """It has not ended; nor has one that begins with the commit of who awaits it."""
        async with self.place() as (_, (stores,)):
            await park(stores, RUN, None, OTHER)
            assert await agenda(stores) == ([], None)
            claim = await own(stores, OTHER)
            assert await agenda(stores) == ([], None)
            await stores.commit([], [Append(OTHER, 1, [ENDED])], claim, release=Release())
            assert await agenda(stores) == ([RUN], 0)
            claim = await own(stores, RUN)
            begun = Append(THIRD, 0, told("begun"))
            await stores.commit([], [begun], claim, release=Release(None, (THIRD,)))
            assert await agenda(stores) == ([THIRD], 0)
            await end(stores, THIRD)
            assert await agenda(stores) == ([RUN], 0)

    async def test_one_end_makes_all_due_who_await_it(self) -> None:
        """Those and no others; the first of several ends is enough, whichever it is."""
        async with self.place() as (_, (stores,)):
            runs = [RunId(f"{number:08x}-0000-0000-0000-000000000000") for number in range(6)]
            for run_id in runs[:3]:
                await park(stores, run_id, None, OTHER, OTHER)
            await park(stores, runs[3], None, THIRD, OTHER)
            await park(stores, runs[4], None, THIRD)
            await park(stores, runs[5], None)
            await end(stores, OTHER)
            assert await agenda(stores) == (runs[:4], 0)
            for run_id in runs[:4]:
                await park(stores, run_id, None)
            await end(stores, THIRD)
            assert await agenda(stores) == ([runs[4]], 0)

    async def test_a_later_release_replaces_what_was_awaited(self) -> None:
        """By other runs, by a time, or by nothing at all."""
        async with self.place() as (clock, (stores,)):
            later = clock.millis + 1000
            for number, release in enumerate((Release(None, (THIRD,)), Release(later), Release(None)), 10):
                awaited = RunId(f"{number:08x}-0000-0000-0000-000000000000")
                await park(stores, RUN, None, awaited)
                await park(stores, RUN, release.due_millis, *release.awaits)
                await end(stores, awaited)
                assert await agenda(stores) == ([], release.due_millis)
            await park(stores, RUN, None, THIRD)
            await stores.claims.release(await own(stores, RUN))
            await park(stores, RUN, None, OTHER)
            await end(stores, THIRD)
            assert await agenda(stores) == ([], None)
            await end(stores, OTHER)
            assert await agenda(stores) == ([RUN], 0)

    async def test_an_owned_run_is_not_due_whatever_it_awaited(self) -> None:
        """Its owner sees for itself; if it goes on waiting for the end that came meanwhile, it is due."""
        async with self.place() as (_, (stores,)):
            await park(stores, RUN, None, OTHER)
            claim = await own(stores, RUN)
            await end(stores, OTHER)
            assert await agenda(stores) == ([], None)
            await stores.commit([], [], claim, release=Release(None, (THIRD,)))
            assert await agenda(stores) == ([], None)
            await stores.commit([], [], await own(stores, RUN), release=Release(None, (OTHER, THIRD)))
            assert await agenda(stores) == ([RUN], 0)

    async def test_a_run_that_ended_awaits_nothing(self) -> None:
        """Whether it awaited something before, or its last commit says so; not even its own end."""
        async with self.place() as (_, (stores,)):
            await park(stores, RUN, None, OTHER, RUN)
            await end(stores, RUN)
            claim = await own(stores, THIRD)
            last = Append(THIRD, 1, [ENDED])
            await stores.commit([], [last], claim, release=Release(None, (OTHER, THIRD)))
            assert await agenda(stores) == ([], None)
            await end(stores, OTHER)
            assert await agenda(stores) == ([], None)

    async def test_an_end_that_does_not_land_makes_nobody_due(self) -> None:
        """Nor is anything awaited because of a commit that was refused."""
        async with self.place() as (_, (stores,)):
            await park(stores, RUN, None, OTHER)
            stale = Append(OTHER, 1, [ENDED])
            assert (await refusal(stores.commit([], [stale]))).code == "event_store_concurrency"
            assert await agenda(stores) == ([], None)
            claim = await own(stores, THIRD)
            late = stores.commit([], [Append(THIRD, 0, told("x"))], claim, release=Release(None, (OTHER,)))
            assert (await refusal(late)).code == "event_store_concurrency"
            await stores.commit([], [], claim, release=Release(None))
            await end(stores, OTHER)
            assert await agenda(stores) == ([RUN], 0)

    async def test_some_runs_can_be_asked_for(self) -> None:
        """Those that are due among them, longest due first; the others are passed over."""
        async with self.place() as (clock, (stores,)):
            runs = [RunId(f"{number:08x}-0000-0000-0000-000000000000") for number in (3, 1, 4, 0, 2)]
            times = [clock.millis + 2, 0, clock.millis, None, 0]
            for run_id, due_millis in zip(runs, times, strict=True):
                await park(stores, run_id, due_millis)
            assert await stores.agenda.due_runs(9) == [runs[1], runs[4], runs[2]]
            asked = [runs[0], runs[3], runs[2], runs[1], runs[2], OTHER]
            assert await stores.agenda.due_runs(9, among=asked) == [runs[1], runs[2]]
            assert await stores.agenda.due_runs(1, among=asked) == [runs[1]]
            assert await stores.agenda.due_runs(1, among=asked[:3]) == [runs[2]]
            soon = await stores.agenda.due_runs(9, within_millis=2, among=set(asked))
            assert soon == [runs[1], runs[2], runs[0]]
            assert await stores.agenda.due_runs(9, among=[]) == []
            claim = await own(stores, runs[1])
            await end(stores, runs[2])
            assert await stores.agenda.due_runs(9, among=asked) == []
            await stores.claims.release(claim)
            assert await stores.agenda.due_runs(9, among=asked) == [runs[1]]

    async def test_another_handle_s_runs_are_awaited(self) -> None:
        """Who waits, who ends and who asks may be three."""
        if not self.shares_claims:
            return
        async with self.place(handles=3) as (clock, (here, there, elsewhere)):
            claim = await own(there, OTHER)
            await park(here, RUN, None, OTHER)
            assert await agenda(elsewhere) == ([], None)
            await there.commit([], [Append(OTHER, 1, [ENDED])], claim, release=Release())
            assert await agenda(elsewhere) == ([RUN], 0)
            await park(elsewhere, RUN, None, OTHER)
            assert await agenda(here) == ([RUN], 0)
            await own(there, RUN)
            await own(there, OTHER)
            assert not await due(here, RUN)
            clock.advance(31_000)
            assert await due(here, RUN)
            assert await due(elsewhere, RUN)
            assert not await due(here, OTHER)
