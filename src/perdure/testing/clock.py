"""A clock that a test sets."""

from __future__ import annotations


class FakeClock:
    """Stands still until told otherwise, and jumps to the end of every sleep.

    Random bytes are counted up, so that two machines with one history draw the same. A sleep that it jumps
    over takes no monotonic time: claims are renewed by real time, and would be lost.
    """

    def __init__(self, now_millis: int = 1_700_000_000_000) -> None:
        self.millis = now_millis
        self._jumped_millis = 0
        self._drawn = 0

    def advance(self, millis: int) -> None:
        """Let ``millis`` milliseconds pass."""
        self.millis += millis

    def now_millis(self) -> int:
        return self.millis

    def monotonic_seconds(self) -> float:
        return (self.millis - self._jumped_millis) / 1000

    def random_bytes(self, count: int) -> bytes:
        self._drawn += 1
        return self._drawn.to_bytes(8, "big").rjust(count, b"\0")[-count:] if count else b""

    async def sleep_until(self, due_millis: int) -> None:
        jump = max(0, due_millis - self.millis)
        self.millis += jump
        self._jumped_millis += jump
