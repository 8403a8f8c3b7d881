"""Work that runs to its end even if its caller is cancelled, so that nobody wonders what was written."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextvars import Context
from typing import Any, TypeVar

T = TypeVar("T")


class UninterruptedFuture(asyncio.Future[T]):
    """A future that a cancelled task waits for all the same; the cancellation is raised when it is done.

    It costs nothing: a task whose future declines to be cancelled remembers the cancellation by itself.
    """

    def cancel(self, msg: Any = None) -> bool:
        """Decline."""
        return False


class SharedFuture(UninterruptedFuture[None]):
    """One that many tasks wait for, and nobody else. They go on where it is settled, one after the other.

    The loop would have a callback for each; as many as there are tasks, they are much of what waiting costs.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop=loop)
        self._waiting: list[tuple[Callable[[Any], object], Context]] = []

    def add_done_callback(
        self, callback: Callable[[Any], object], /, *, context: Context | None = None
    ) -> None:
        """Have ``callback`` called where the future is settled."""
        if context is None or self.done():
            super().add_done_callback(callback, context=context)
        else:
            self._waiting.append((callback, context))

    def settle(self) -> None:
        """Have the tasks go on. Called by the loop, and not by a task."""
        self.set_result(None)
        waiting, self._waiting = iter(self._waiting), []
        try:
            for callback, context in waiting:
                context.run(callback, self)
        finally:
            # One was told to end the process: the loop may yet be run on, and the others with it.
            for callback, context in waiting:
                self.get_loop().call_soon(callback, self, context=context)


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
