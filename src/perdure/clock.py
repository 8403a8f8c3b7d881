"""Where time and randomness come from, so that a test can stand in for both."""

from __future__ import annotations

import os
import time
from typing import Protocol


class Clock(Protocol):
    """A source of wall-clock time, of time that only goes forward, and of random bytes."""

    def now_millis(self) -> int:
        """Milliseconds since 1970-01-01 UTC."""

    def monotonic_seconds(self) -> float:
        """Seconds since some moment; never goes back."""

    def random_bytes(self, count: int) -> bytes:
        """``count`` bytes nobody can guess."""

    async def sleep_until(self, due_millis: int) -> None:
        """Return when ``now_millis()`` has reached ``due_millis``."""


class SystemClock:
    """The machine's own clock and entropy."""

    def now_millis(self) -> int:
        return time.time_ns() // 1_000_000

    def monotonic_seconds(self) -> float:
        return time.monotonic()

    def random_bytes(self, count: int) -> bytes:
        return os.urandom(count)

    async def sleep_until(self, due_millis: int) -> None:
        import asyncio  # heavy, and only a program that runs a loop needs it

        # The wall clock may be set while we sleep, so it is read again, at least once a minute.
        while (left := due_millis - self.now_millis()) > 0:  # noqa: ASYNC110 — a clock gives no signal
            await asyncio.sleep(min(left / 1000, 60.0))
