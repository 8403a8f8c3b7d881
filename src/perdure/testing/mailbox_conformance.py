"""What every mailbox must do: the part of the conformance suite about letters."""

from __future__ import annotations

import asyncio
from typing import Any

from perdure.errors import ConcurrencyError, NotFoundError
from perdure.ids import RunId
from perdure.stores.ports import Append, Claim, Letter, Release
from perdure.testing.store_places import ENDED, OTHER, RUN, TTL, StorePlaces, begin, ids, own, refusal, told


class MailboxConformance(StorePlaces):
    """Posted, read, and taken away."""

    async def test_letters_wait_in_the_order_of_posting(self) -> None:
        """Whatever JSON they hold, with the store's time, until somebody takes them away."""
        async with self.place() as (clock, (stores,)):
            await begin(stores, RUN, OTHER)
            bodies: list[Any] = [None, {"z": [1, "é\n", {}], "a": -(2**63)}, [], "text", True, 2**64 - 1]
            wanted = []
            for letter_id, body in zip(["m", "z", "é ", "a", "B", "b"], bodies, strict=True):
                clock.advance(1)
                assert await stores.mailbox.post(RUN, letter_id, body)
                wanted.append(Letter(letter_id, body, clock.millis))
            assert await stores.mailbox.unread(RUN) == wanted
            assert await stores.mailbox.unread(RUN) == wanted
            assert await stores.mailbox.unread(OTHER) == []
            assert await stores.events.head_seq(RUN) == 1

    async def test_readers_share_no_data(self) -> None:
        """What a sender or a reader does to a body afterwards, nobody else sees."""
        async with self.place() as (_, (stores,)):
            await begin(stores, RUN)
            body = {"items": [1]}
            await stores.mailbox.post(RUN, "a", body)
            body["items"].append(2)
            (letter,) = await stores.mailbox.unread(RUN)
            letter.body["items"].append(3)
            assert [each.body for each in await stores.mailbox.unread(RUN)] == [{"items": [1]}]

    async def test_a_letter_that_waits_is_not_posted_again(self) -> None:
        """The first one stays as it is; ids are a run's own, and free again once a letter was taken away."""
        async with self.place() as (clock, (stores,)):
            claim = await own(stores, RUN)
            await begin(stores, OTHER)
            posted = clock.millis
            assert await stores.mailbox.post(RUN, "a", 1)
            assert await stores.mailbox.post(RUN, "b", 2)
            clock.advance(1)
            assert not await stores.mailbox.post(RUN, "a", 3)
            assert await stores.mailbox.post(OTHER, "a", 4)
            assert await stores.mailbox.unread(RUN) == [Letter("a", 1, posted), Letter("b", 2, posted)]
            await stores.commit([], [Append(RUN, 1, told("heard"))], claim, read=["a"])
            assert await stores.mailbox.post(RUN, "a", 5)
            assert [each.body for each in await stores.mailbox.unread(RUN)] == [2, 5]

    async def test_letters_posted_at_once_are_all_kept(self) -> None:
        """Each once, though every one of them is posted twice, here and there."""
        async with self.place(2 if self.shares_claims else 1) as (_, handles):
            await begin(handles[0], RUN)
            outcomes = await asyncio.gather(
                *[
                    handles[number % len(handles)].mailbox.post(RUN, str(number % 20), number % 20)
                    for number in range(39)
                ]
            )
            assert sum(outcomes) == 20
            letters = await handles[-1].mailbox.unread(RUN)
            assert sorted(each.body for each in letters) == list(range(20))

    async def test_letters_to_runs_that_are_not_there_are_refused(self) -> None:
        """``run_not_found`` for a run without events; ``run_already_terminal`` for one that has ended."""
        async with self.place() as (_, (stores,)):
            error = await refusal(stores.mailbox.post(RUN, "a", 1))
            assert isinstance(error, NotFoundError)
            assert error.code == "run_not_found"
            await begin(stores, RUN)
            assert await stores.mailbox.post(RUN, "a", 1)
            await stores.events.append(RUN, 1, [ENDED, *told("after the end")])
            for letter_id in ("a", "b"):
                error = await refusal(stores.mailbox.post(RUN, letter_id, 2))
                assert isinstance(error, ConcurrencyError)
                assert error.code == "run_already_terminal"
            assert [each.body for each in await stores.mailbox.unread(RUN)] == [1]
            assert await stores.mailbox.addressed([RUN]) == {RUN}

    async def test_a_commit_takes_letters_away(self) -> None:
        """Those it names, of its claim's run; what it names and is not there is passed over."""
        async with self.place() as (_, (stores,)):
            claim = await own(stores, RUN)
            await begin(stores, OTHER)
            for run_id in (RUN, OTHER):
                for letter_id in "abcd":
                    await stores.mailbox.post(run_id, letter_id, letter_id)
            appends = [Append(RUN, 1, told("heard")), Append(OTHER, 1, told("x"))]
            await stores.commit([], appends, claim, read=["c", "a", "no such letter"])
            assert await ids(stores, RUN) == ["b", "d"]
            assert await ids(stores, OTHER) == ["a", "b", "c", "d"]
            await stores.commit([], [], claim, read=["b"], release=Release())
            assert await ids(stores, RUN) == ["d"]

    async def test_a_commit_that_does_not_land_leaves_letters(self) -> None:
        """A stale expectation takes nothing away, nor does a claim that is lost."""
        async with self.place() as (_, (stores,)):
            claim = await own(stores, RUN)
            await stores.mailbox.post(RUN, "a", 1)
            late = stores.commit([], [Append(RUN, 0, told("x"))], claim, read=["a"], release=Release())
            assert (await refusal(late)).code == "event_store_concurrency"
            assert await ids(stores, RUN) == ["a"]
            assert (await refusal(stores.claims.acquire(RUN, "two", TTL))).code == "run_already_active"
            if not self.shares_claims:
                return
            forged = Claim(RUN, claim.owner, claim.epoch + 7)
            assert (await refusal(stores.commit([], [], forged, read=["a"]))).code == "claim_lost"
            assert await ids(stores, RUN) == ["a"]

    async def test_a_cancelled_commit_takes_its_letters_along(self) -> None:
        """It goes on to its end, and letters go with the events that tell of them."""
        async with self.place() as (_, (stores,)):
            claim = await own(stores, RUN)
            await stores.mailbox.post(RUN, "a", 1)
            commit = asyncio.create_task(
                stores.commit([], [Append(RUN, 1, told("heard"))], claim, read=["a"], release=Release())
            )
            await asyncio.sleep(0)
            commit.cancel()
            await asyncio.wait([commit])
            assert await stores.events.head_seq(RUN) == 2
            assert await ids(stores, RUN) == []

    async def test_runs_with_letters_are_found_among_many(self) -> None:
        """Only those that were asked for, and only while letters wait."""
        async with self.place() as (_, (stores,)):
            runs = [RunId(f"{number:08x}-0000-0000-0000-000000000000") for number in range(9)]
            claim = await own(stores, runs[3])
            await begin(stores, *runs)
            assert await stores.mailbox.addressed(runs) == set()
            for run_id in (runs[3], runs[5], runs[7], runs[5]):
                await stores.mailbox.post(run_id, "a", 1)
            assert await stores.mailbox.addressed(runs[:6]) == {runs[3], runs[5]}
            assert await stores.mailbox.addressed([OTHER]) == set()
            assert await stores.mailbox.addressed([]) == set()
            await stores.commit([], [], claim, read=["a"])
            assert await stores.mailbox.addressed(runs) == {runs[5], runs[7]}

    async def test_another_handle_s_letters_are_seen(self) -> None:
        """What is posted here waits there, and what is taken away there is gone here."""
        if not self.shares_claims:
            return
        async with self.place(handles=2) as (_, (here, there)):
            claim = await own(there, RUN)
            assert await here.mailbox.post(RUN, "a", 1)
            assert not await there.mailbox.post(RUN, "a", 1)
            assert await ids(there, RUN) == ["a"]
            assert await there.mailbox.addressed([RUN]) == {RUN}
            await there.commit([], [Append(RUN, 1, told("heard"))], claim, read=["a"])
            assert await ids(here, RUN) == []
