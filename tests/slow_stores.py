"""A store as one with a disk is: whoever commits waits for a few turns of the loop."""

from __future__ import annotations

import asyncio
from typing import Any

from perdure import Stores
from perdure.clock import Clock
from perdure.stores.memory import MemoryState, MemoryStore
from perdure.stores.ports import Committed
from perdure.stores.uninterrupted import uninterrupted


class SlowStore(MemoryStore):
    """In memory; a commit takes ``turns`` before it lands, and as many before it is told of."""

    def __init__(self, state: MemoryState, clock: Clock, turns: int = 5) -> None:
        super().__init__(state, clock)
        self.turns = turns
        self.committing = 0
        """How many commits have begun and are not told of yet."""

    async def commit(self, *args: Any, **options: Any) -> Committed:
        self.committing += 1
        try:
            return await uninterrupted(self._commit_slowly(*args, **options))
        finally:
            self.committing -= 1

    async def _commit_slowly(self, *args: Any, **options: Any) -> Committed:
        for _ in range(self.turns):
            await asyncio.sleep(0)
        committed = await self._land(*args, **options)
        for _ in range(self.turns):
            await asyncio.sleep(0)
        return committed

    async def _land(self, *args: Any, **options: Any) -> Committed:
        return await super().commit(*args, **options)


def slow_stores(clock: Clock, turns: int = 5, state: MemoryState | None = None) -> tuple[Stores, SlowStore]:
    """Stores over a slow store, and the store."""
    store = SlowStore(MemoryState() if state is None else state, clock, turns)
    return Stores(store, store, store, store, mailbox=store, agenda=store), store
