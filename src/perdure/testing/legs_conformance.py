"""What every store must do with runs that go on as others: that part of the conformance suite."""

from __future__ import annotations

from itertools import pairwise

from perdure.ids import ArtifactId, OpId, RunId
from perdure.model.events import ContinuedRun, Event, RunCompleted, RunStarted, RunStatus
from perdure.model.legs import run_continued
from perdure.stores.bundle import Stores
from perdure.stores.ports import Append, Claim, Release
from perdure.testing.store_places import OTHER, RUN, TTL, StorePlaces, agenda, begin, ids, own, park, refusal

_ARTIFACT = ArtifactId("0" * 64)
_END = RunCompleted(RunStatus.COMPLETED, None)


def leg(number: int, first: RunId = RUN) -> RunId:
    """The ``number``-th leg of a chain."""
    run_id = first
    for _ in range(number - 1):
        run_id = run_id.next_leg()
    return run_id


def beginning(number: int, first: RunId = RUN) -> RunStarted:
    """The first event of the ``number``-th leg of a chain, from the second on."""
    continued = ContinuedRun(leg(number - 1, first), first, number)
    return RunStarted(OpId("op"), _ARTIFACT, _ARTIFACT, continues=continued)


def ending(number: int, first: RunId = RUN) -> list[Event]:
    """The last events of the leg before the ``number``-th."""
    continued = beginning(number, first).continues
    assert continued is not None
    return [run_continued(leg(number, first), continued), _END]


async def go_on(
    stores: Stores,
    number: int,
    first: RunId = RUN,
    claim: Claim | None = None,
    *,
    read: tuple[str, ...] = (),
    heir: Claim | None = None,
) -> None:
    """End one leg and begin the ``number``-th, in one commit of the owner's."""
    before = leg(number - 1, first)
    claim = claim or await own(stores, before)
    appends = [
        Append(leg(number, first), 0, [beginning(number, first)]),
        Append(before, await stores.events.head_seq(before), ending(number, first)),
    ]
    await stores.commit([], appends, claim, release=Release(None, heir=heir), read=read)


class LegsConformance(StorePlaces):
    """Followed, told, awaited."""

    async def test_the_newest_leg_is_found_from_any(self) -> None:
        """However long the chain is; a run that does not go on as another is its own newest."""
        async with self.place() as (_, (stores,)):
            await begin(stores, RUN, OTHER)
            assert await stores.newest_leg(RUN) == RUN
            for number in range(2, 12):
                await go_on(stores, number)
                asked = [await stores.newest_leg(leg(each)) for each in range(1, number + 1)]
                assert asked == [leg(number)] * number
            assert await stores.newest_leg(OTHER) == OTHER
            assert await stores.newest_leg(leg(99)) == leg(99)
            newest = leg(11)
            await stores.events.append(newest, 1, [_END])
            assert await stores.newest_leg(RUN) == newest
            await go_on(stores, 2, OTHER)
            assert await stores.newest_leg(OTHER) == leg(2, OTHER)

    async def test_a_chain_may_lose_legs(self) -> None:
        """The newest of those that are left is the newest."""
        async with self.place() as (_, (stores,)):
            await begin(stores, RUN)
            for number in (2, 3, 4):
                await go_on(stores, number)
            await stores.events.append(leg(4), 1, [_END])
            if not self.shares_claims:
                return
            await stores.keeping.delete([leg(2)])
            assert await stores.newest_leg(RUN) == leg(4)
            await stores.keeping.delete([leg(4)])
            assert [await stores.newest_leg(each) for each in (RUN, leg(3))] == [leg(3)] * 2
            assert await stores.newest_leg(leg(2)) == leg(2)

    async def test_letters_that_are_left_pass_on(self) -> None:
        """In their order, with their times, to who reads them next; those that were read do not."""
        async with self.place() as (clock, (stores,)):
            claim = await own(stores, RUN)
            await begin(stores, OTHER)
            for letter_id in ("c", "a", "b", "read"):
                clock.advance(1)
                assert await stores.mailbox.post(RUN, letter_id, {"is": letter_id})
            await stores.mailbox.post(OTHER, "other", 1)
            before = await stores.mailbox.unread(RUN)
            await go_on(stores, 2, claim=claim, read=("read",))
            assert await stores.mailbox.unread(leg(2)) == before[:3]
            assert await stores.mailbox.unread(RUN) == []
            assert await stores.mailbox.addressed([RUN, leg(2), OTHER]) == {leg(2), OTHER}
            assert await ids(stores, OTHER) == ["other"]
            claim = await own(stores, leg(2))
            await go_on(stores, 3, claim=claim, read=("c",))
            assert await ids(stores, leg(3)) == ["a", "b"]

    async def test_a_letter_to_an_old_leg_is_one_to_the_newest(self) -> None:
        """Once for each id, whichever leg it is addressed to; to none when the newest has ended."""
        async with self.place() as (_, (stores,)):
            await begin(stores, RUN)
            for number in (2, 3):
                await go_on(stores, number)
            assert await stores.mailbox.post(RUN, "a", 1)
            assert not await stores.mailbox.post(leg(2), "a", 1)
            assert await stores.mailbox.post(leg(2), "b", 2)
            assert not await stores.mailbox.post(leg(3), "b", 2)
            assert await ids(stores, leg(3)) == ["a", "b"]
            assert await agenda(stores) == ([leg(3)], 0)
            claim = await own(stores, leg(3))
            await stores.commit([], [], claim, release=Release(None), read=["a", "b"])
            assert await agenda(stores) == ([], None)
            await stores.mailbox.post(RUN, "c", 3)
            assert await agenda(stores) == ([leg(3)], 0)
            await stores.events.append(leg(3), 1, [_END])
            for number in (1, 2, 3):
                error = await refusal(stores.mailbox.post(leg(number), "d", 4))
                assert error.code == "run_already_terminal"

    async def test_who_awaits_a_run_awaits_its_newest_leg(self) -> None:
        """That one leg follows another makes nobody due."""
        async with self.place() as (clock, (stores,)):
            third = RunId("00000000-0000-0000-0000-000000000003")
            claim = await own(stores, RUN)
            await park(stores, OTHER, None, RUN)
            for number in (2, 3):
                await go_on(stores, number, claim=claim)
                claim = await own(stores, leg(number))
                assert await agenda(stores) == ([], None)
            for late in (RUN, leg(2), leg(3)):
                await park(stores, third, clock.millis + 1000, late)
                assert await agenda(stores) == ([], clock.millis + 1000)
            await stores.commit([], [Append(leg(3), 1, [_END])], claim, release=Release())
            assert await agenda(stores) == ([OTHER, third], 0)
            for late in (RUN, leg(2), leg(3)):
                await park(stores, OTHER, None, late)
                await park(stores, third, None)
                assert await agenda(stores) == ([OTHER], 0)

    async def test_a_leg_that_nobody_claimed_is_due(self) -> None:
        """At once, as any run that was begun; the one before it never again."""
        async with self.place() as (_, (stores,)):
            await begin(stores, RUN)
            await go_on(stores, 2)
            assert await agenda(stores) == ([leg(2)], 0)
            assert await stores.events.list_runs(unfinished=True) == [leg(2)]

    async def test_who_goes_on_owns_the_next_leg(self) -> None:
        """The claim passes over in the commit: nobody can come in between."""
        async with self.place(handles=2 if self.shares_claims else 1) as (clock, handles):
            here = handles[0]
            claim = await own(here, RUN)
            heir = await here.claims.acquire(leg(2), "owner", TTL)
            await go_on(here, 2, claim=claim, heir=heir)
            for stores in handles:
                error = await refusal(stores.claims.acquire(leg(2), "other", TTL))
                assert error.code == "run_already_active"
                assert await agenda(stores) == ([], None)
            await here.commit([], [Append(leg(2), 1, [_END])], heir, release=Release())
            if self.shares_claims:
                clock.advance(31_000)
                assert await agenda(handles[1]) == ([], None)

    async def test_what_is_refused_passes_nothing_on(self) -> None:
        """A stale end leaves letters, waits and claims as they were."""
        async with self.place() as (_, (stores,)):
            claim = await own(stores, RUN)
            await park(stores, OTHER, None, RUN)
            await stores.mailbox.post(RUN, "a", 1)
            if not self.is_atomic:
                return
            appends = [Append(leg(2), 0, [beginning(2)]), Append(RUN, 9, ending(2))]
            error = await refusal(stores.commit([], appends, claim, release=Release(None)))
            assert error.code == "event_store_concurrency"
            assert await stores.events.head_seq(leg(2)) == 0
            assert await ids(stores, RUN) == ["a"]
            assert await stores.newest_leg(RUN) == RUN
            await go_on(stores, 2, claim=claim)
            assert await ids(stores, leg(2)) == ["a"]

    async def test_a_run_that_says_so_and_has_no_next_leg_has_ended(self) -> None:
        """Those who wait for it are due, and nobody reads letters."""
        async with self.place() as (_, (stores,)):
            await begin(stores, RUN)
            await park(stores, OTHER, None, RUN)
            await stores.events.append(RUN, 1, ending(2))
            assert await agenda(stores) == ([OTHER], 0)
            assert await stores.newest_leg(RUN) == RUN
            assert (await refusal(stores.mailbox.post(RUN, "a", 1))).code == "run_already_terminal"

    async def test_chains_are_known_to_other_handles(self) -> None:
        """Also to those that are opened later."""
        if not self.shares_claims:
            return
        async with self.place(handles=2) as (_, (here, there)):
            await begin(here, RUN)
            await park(there, OTHER, None, RUN)
            for before, number in pairwise(range(1, 4)):
                await go_on((here, there)[number % 2], number)
                assert await there.newest_leg(leg(before)) == await here.newest_leg(RUN) == leg(number)
            await there.mailbox.post(RUN, "a", 1)
            assert await ids(here, leg(3)) == ["a"]
