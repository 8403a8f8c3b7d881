"""Claims are renewed behind the loop's back, and a lost one stops everything."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import pytest

from perdure import ConcurrencyError, RunId, StorageError
from perdure.engine.ownership import ClaimKeeper, HeldClaim, renew_together
from perdure.stores.ports import Claim
from perdure.testing.clock import FakeClock

CLAIM = Claim(RunId("00000000-0000-0000-0000-0000000000ee"), "me", 1)
TTL = timedelta(seconds=30)


class Claims:
    """A claim store that answers renewals as told, and counts them."""

    def __init__(self, *answers: Any) -> None:
        self._answers = list(answers)
        self.renewed = threading.Event()
        self.asked: list[list[Claim]] = []

    def renew(self, claims: Sequence[Claim], ttl: timedelta) -> list[Claim]:
        self.renewed.set()
        self.asked.append(list(claims))
        answer = self._answers.pop(0) if self._answers else []
        if isinstance(answer, Exception):
            raise answer
        return list(answer)

    async def acquire(self, run_id: RunId, owner: str, ttl: timedelta) -> Claim:
        return CLAIM

    async def release(self, claim: Claim) -> None:
        """Nothing is kept."""


def test_a_claim_holds_until_its_deadline_and_renewing_moves_it() -> None:
    """A store that does not answer moves nothing."""
    clock = FakeClock()
    held = HeldClaim(CLAIM, Claims([], StorageError.of("store_locked", "busy")), clock, TTL)
    clock.advance(29_000)
    held.check()
    renew_together([held], TTL)
    clock.advance(29_000)
    renew_together([held], TTL)
    held.check()
    clock.advance(1_000)
    with pytest.raises(ConcurrencyError, match="claim_lost"):
        held.check()


def test_a_claim_that_was_taken_over_is_lost_for_good() -> None:
    """Whatever the clock says."""
    held = HeldClaim(CLAIM, Claims([CLAIM]), FakeClock(), TTL)
    renew_together([held], TTL)
    renew_together([held], TTL)
    with pytest.raises(ConcurrencyError, match="claim_lost"):
        held.check()


def test_claims_of_one_store_are_renewed_in_one_commit() -> None:
    """The lost one is told apart."""
    other = Claim(RunId("00000000-0000-0000-0000-0000000000ef"), "me", 1)
    claims = Claims([other])
    kept, lost = HeldClaim(CLAIM, claims, FakeClock(), TTL), HeldClaim(other, claims, FakeClock(), TTL)
    renew_together([kept, lost], TTL)
    assert claims.asked == [[CLAIM, other]]
    kept.check()
    with pytest.raises(ConcurrencyError, match="claim_lost"):
        lost.check()


def test_the_keeper_renews_durable_claims_from_a_thread() -> None:
    """And its thread ends with the last claim."""
    keeper = ClaimKeeper(timedelta(milliseconds=3))
    claims, never = Claims(), Claims()
    held = HeldClaim(CLAIM, claims, FakeClock(), TTL)
    waiting = HeldClaim(CLAIM, never, FakeClock(), TTL)
    held.durable = True
    keeper.keep(held)
    keeper.keep(waiting)
    assert claims.renewed.wait(30)
    assert not never.renewed.is_set()
    thread = keeper._thread
    assert thread is not None
    keeper.drop(held)
    keeper.drop(waiting)
    thread.join(30)
    assert not thread.is_alive()
