"""Work that runs to its end even if its caller is cancelled, so that nobody wonders what was written."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Any, TypeVar

T = TypeVar("T")


class UninterruptedFuture(asyncio.Future[T]):
    """A future that a cancelled task waits for all the same; the cancellation is raised when it is done.

    It costs nothing: a task whose future declines to be cancelled remembers the cancellation by itself.
    """

    def cancel(self, msg: Any = None) -> bool:
        """Decline."""
        return False


async def uninterrupted(work: Awaitable[T]) -> T:
    """The result of any ``work``, which a cancelled caller waits for before it is told so."""
    task = asyncio.ensure_future(work)
    done: UninterruptedFuture[None] = UninterruptedFuture(loop=asyncio.get_running_loop())
    task.add_done_callback(lambda _: done.set_result(None))
    try:
        await done
    except asyncio.CancelledError:
        if not task.cancelled():
            task.exception()
        raise
    return task.result()
