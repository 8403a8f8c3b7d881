"""Calls under way, which all who ask for the same fact share."""

from __future__ import annotations

import asyncio

from perdure.errors import PerdureError
from perdure.io.scope import AttemptScope
from perdure.model.handler import IoResult


class Flight:
    """A call that ``owner`` makes, and whoever waits for it. It is given up when nobody does any more."""

    def __init__(self, owner: AttemptScope, request_id: str | None) -> None:
        self.owner = owner
        self.request_id = request_id
        self.task: asyncio.Task[IoResult] | None = None
        self.result: IoResult | None = None
        self.error: BaseException | None = None
        self._waiting: set[asyncio.Future[None]] = set()

    async def landing(self, scope: AttemptScope) -> IoResult | None:
        """Wait for the result, or None if the call was given up. Raises what the call raised.

        What fails because its owner's attempt is over was given up, to those of another ``scope``.
        """
        future = asyncio.get_running_loop().create_future()
        self._waiting.add(future)
        try:
            await future
        except asyncio.CancelledError:
            self._waiting.discard(future)
            if not self._waiting and self.task is not None:
                self.task.cancel()
            raise
        if self.error is not None:
            if isinstance(self.error, PerdureError) and self.owner is not scope and self.owner.is_over:
                return None
            raise self.error
        return self.result

    def land(self) -> None:
        """Tell whoever waits."""
        if self.task is not None:
            # The waiters raise it; nobody asks the task.
            self.task.add_done_callback(lambda task: task.cancelled() or task.exception())
        for future in self._waiting:
            if not future.done():
                future.set_result(None)


Flights = dict[str, Flight]
"""By the key of the fact that will answer."""
