"""Keeping what a process owns: one thread renews all claims, whatever the event loop is doing."""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from datetime import timedelta

from perdure.clock import Clock
from perdure.errors import StorageError
from perdure.stores.ports import Claim, ClaimStore
from perdure.stores.refusals import claim_lost
from perdure.stores.uninterrupted import uninterrupted

CLAIM_TTL = timedelta(seconds=30)


class HeldClaim:
    """A claim and how long it surely holds, by this process's monotonic clock."""

    def __init__(self, claim: Claim, store: ClaimStore, clock: Clock, ttl: timedelta = CLAIM_TTL) -> None:
        self.claim = claim
        self.store = store
        self.durable = False
        """Whether a commit has carried the claim; before that there is nothing to renew."""
        self.given_up = False
        """Whether a commit that was seen to end has given the claim up."""
        self._clock = clock
        self._ttl = ttl
        self._lost = False
        self._deadline = clock.monotonic_seconds() + ttl.total_seconds()

    def check(self) -> None:
        """Raise ``ConcurrencyError`` (``claim_lost``) unless the run is surely still ours."""
        if self._lost or self._clock.monotonic_seconds() >= self._deadline:
            raise claim_lost(self.claim)

    def renewed(self, begun_seconds: float) -> None:
        """Take note of a renewal that was begun at this moment of the monotonic clock."""
        self._deadline = begun_seconds + self._ttl.total_seconds()

    def lost(self) -> None:
        """Take note that another owner has the run, for good."""
        self._lost = True

    def now_seconds(self) -> float:
        """The monotonic clock that the deadline is measured by."""
        return self._clock.monotonic_seconds()


def renew_together(held: Sequence[HeldClaim], ttl: timedelta) -> None:
    """Prolong claims, those of one store in one commit; a claim that another owner took over is lost."""
    for store in {id(each.store): each.store for each in held}.values():
        group = [each for each in held if each.store is store]
        begun = [each.now_seconds() for each in group]
        try:
            lost = store.renew([each.claim for each in group], ttl)
        except StorageError:
            continue  # the store may answer next time; until then the deadlines decide
        for each, begun_seconds in zip(group, begun, strict=True):
            if each.claim in lost:
                each.lost()
            else:
                each.renewed(begun_seconds)


class ClaimKeeper:
    """Renews the claims that it was given, every third of their time to live, from a thread of its own."""

    def __init__(self, ttl: timedelta = CLAIM_TTL) -> None:
        self.ttl = ttl
        self._held: set[HeldClaim] = set()
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None

    def keep(self, held: HeldClaim) -> None:
        """Renew ``held`` from now on."""
        with self._changed:
            self._held.add(held)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="perdure-claims", daemon=True)
                self._thread.start()

    def drop(self, held: HeldClaim) -> None:
        """Stop renewing ``held``; the thread ends with the last claim."""
        with self._changed:
            self._held.discard(held)
            if not self._held:
                self._changed.notify_all()

    def _run(self) -> None:
        while True:
            with self._changed:
                if not self._changed.wait_for(lambda: not self._held, self.ttl.total_seconds() / 3):
                    due = [held for held in self._held if held.durable]
                else:
                    self._thread = None
                    return
            renew_together(due, self.ttl)


async def let_go(holding: Sequence[HeldClaim], keeper: ClaimKeeper) -> None:
    """Keep claims no longer, and give up those that the last commit has not given up."""
    for held in holding:
        keeper.drop(held)
    left = [held for held in holding if not held.given_up]
    if left:
        await uninterrupted(_release(left))


async def _release(holding: Sequence[HeldClaim]) -> None:
    # Some may have been given up by a commit whose end was not seen; anything else must not stay behind.
    for held in holding:
        try:
            await held.store.release(held.claim)
        except StorageError:
            logging.getLogger("perdure").warning(
                "run %s could not be released; it is free when its claim expires", held.claim.run_id
            )


KEEPER = ClaimKeeper()
"""The process's keeper."""
