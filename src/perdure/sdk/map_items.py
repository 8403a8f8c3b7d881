"""Reading the items of a map, one at a time, from whatever holds them."""

from __future__ import annotations

from collections.abc import AsyncIterable, Awaitable, Callable, Iterable, Sequence, Sized
from typing import Any, TypeVar

T = TypeVar("T")
END = object()
"""What is read after the last item."""


class Reader:
    """Reads items lazily. ``size`` is how many there are, where that is known."""

    def __init__(
        self,
        items: Iterable[Any] | AsyncIterable[Any],
        in_thread: Callable[[Callable[[], Any]], Awaitable[Any]] | None,
    ) -> None:
        self.size = len(items) if isinstance(items, Sized) else None
        self.is_plain = isinstance(items, Sequence)
        """Whether nothing can happen while the next item is read, so that :meth:`next` may be called."""
        self._in_thread = in_thread
        self._asynchronous = aiter(items) if isinstance(items, AsyncIterable) else None
        self._plain = iter(()) if isinstance(items, AsyncIterable) else iter(items)

    def next(self) -> Any:
        """The next item, or :data:`END`."""
        return next(self._plain, END)

    async def next_of_any(self) -> Any:
        """As :meth:`next`, for what may wait."""
        if self._asynchronous is not None:
            return await anext(self._asynchronous, END)
        return self.next() if self._in_thread is None else await self._in_thread(self.next)
