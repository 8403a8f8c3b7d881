"""The life of one attempt, and the ways in which it is stopped from outside its handler."""

from __future__ import annotations

import asyncio
import enum
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import timedelta
from functools import cached_property
from types import TracebackType
from typing import Any

from perdure.clock import Clock
from perdure.errors import IoError
from perdure.ids import RunId, StateId
from perdure.io.waits import Wait


class Stopped(enum.Enum):
    """Why a handler was stopped before it had ended."""

    PARKED = "parked"
    CANCELLED = "cancelled"
    TERMINATED = "terminated"
    STALE = "stale"
    EXPIRED = "expired"


class AttemptScope:
    """Everything handed to a handler stops working when its attempt is over. ``task`` runs the handler."""

    # Most attempts have none of these.
    reached: set[str] | None = None
    """The keys of all facts that the handler has asked for since it was called; None for none."""
    fatal: BaseException | None = None
    """An error that ends the stint whatever the handler makes of it."""
    stopped: Stopped | None = None
    cancellations = 0
    """How often the handler's task was cancelled because of that."""
    work_limit: WorkLimit | None = None
    """How long the handler may work, if there is a limit."""
    _closed = False
    _calls = 0
    _idle: asyncio.Event | None = None

    def __init__(
        self, run_id: RunId, state_id: StateId, attempt: int, task: asyncio.Task[Any] | None
    ) -> None:
        self.run_id = run_id
        self.state_id = state_id
        self.attempt = attempt
        self.task = task

    @cached_property
    def parking(self) -> dict[str, Wait]:
        """The waits for whose end the handler would have to stay in memory."""
        return {}

    @cached_property
    def _course(self) -> Place:
        return Place(self, self.state_id, self.state_id)

    @property
    def place(self) -> Place:
        """Where what is done now is done: in an item of a map of this attempt, or in the handler itself."""
        here = HERE.get()
        return here if here is not None and here.scope is self else self._course

    @property
    def is_over(self) -> bool:
        """Whether nothing that was handed to the handler works any more."""
        return self._closed

    def check(self) -> None:
        """Raise ``IoError`` (``attempt_closed``) once the attempt is over."""
        if self._closed:
            raise IoError.of(
                "attempt_closed",
                "the attempt is over; what it left running can do nothing more",
                details={"state_id": self.state_id, "attempt": self.attempt},
            )
        if self.fatal is not None:
            raise self.fatal

    def reach(self, key: str) -> None:
        """Take note that the handler has asked for the fact of ``key``, or waits for it."""
        if self.reached is None:
            self.reached = set()
        self.reached.add(key)

    def close(self) -> None:
        """End the attempt for its handler."""
        self._closed = True

    def stop(self, why: Stopped) -> None:
        """Cancel the handler's task. Only who is cancelled may still use what it was handed, to clean up.

        The first reason counts, but what is being cancelled may be terminated.
        """
        if self._closed or self.stopped not in (None, Stopped.CANCELLED) or self.stopped is why:
            return
        self.stopped = why
        self._closed = why is not Stopped.CANCELLED
        if self.task is not None:
            self.cancellations += 1
            self.task.cancel()

    def __enter__(self) -> None:
        """A call is under way, or its answer is being written: the attempt is not to be parked meanwhile."""
        self._calls += 1

    def __exit__(self, *_: object) -> None:
        self._calls -= 1
        if self._idle is not None and not self._calls:
            self._idle.set()

    async def park(self, wait: Wait) -> None:
        """Have the attempt parked until ``wait`` is over, when no call is under way; never returns."""
        self.parking[wait.key] = wait
        await self.quiet()
        self.stop(Stopped.PARKED)
        await asyncio.get_running_loop().create_future()

    async def quiet(self) -> None:
        """Wait until no call is under way."""
        # What a call's answer leads to comes in the next turns of the loop.
        turns = 0
        while turns < 3:
            if self._calls:
                if self._idle is None or self._idle.is_set():
                    self._idle = asyncio.Event()
                await self._idle.wait()
                turns = 0
            await asyncio.sleep(0)
            turns += 1


class Place:
    """One course of an attempt. What is done in it is numbered by itself, whatever others do meanwhile.

    ``key`` stands for the state's id in the keys of waits, effects, children and maps; ``readings_key`` in
    those of time and randomness, which every try of an item reads anew.
    """

    def __init__(self, scope: AttemptScope, key: str, readings_key: str, *, is_item: bool = False) -> None:
        self.scope = scope
        self.key = key
        self.readings_key = self._readings_key = readings_key
        self.is_item = is_item
        """Whether the attempt is not to be parked before it rests."""
        self._rests = 0
        self.begin(0)

    def begin(self, number: int) -> None:
        """Number anew, for the ``number``-th other try."""
        if number:
            self.readings_key = f"{self._readings_key}@{number}"
        self.readings = self.waits = self.effects = 0
        self.effect_keys: list[str] = []
        self.maps: set[str | None] = set()

    @contextmanager
    def resting(self) -> Iterator[None]:
        """Let the attempt be parked meanwhile, unless another course keeps it from that."""
        self._rests += 1
        if self.is_item and self._rests == 1:
            self.scope.__exit__()
        try:
            yield
        finally:
            self._rests -= 1
            if self.is_item and not self._rests:
                self.scope.__enter__()


HERE: ContextVar[Place | None] = ContextVar("HERE", default=None)
"""The item that is worked on; of another attempt, where that has begun the child run which is executed."""


class WorkLimit:
    """Ends what is done ``async with`` it, as ``asyncio.timeout`` does, after ``limit`` of work.

    The time between :meth:`rest` and :meth:`go_on` is none.
    """

    def __init__(self, limit: timedelta, clock: Clock) -> None:
        self._clock = clock
        self._left = limit.total_seconds()
        self._since = clock.monotonic_seconds()
        self._rests = 0
        self._is_over = False
        self._timeout = asyncio.timeout(self._left)

    async def __aenter__(self) -> None:
        await self._timeout.__aenter__()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._is_over = True
        await self._timeout.__aexit__(kind, error, traceback)

    @property
    def has_struck(self) -> bool:
        """Whether the limit ended it."""
        return self._timeout.expired()

    @property
    def is_exceeded(self) -> bool:
        """Whether there was more work: what blocks the event loop keeps the limit from striking."""
        return self._left_now() < 0

    def rest(self) -> None:
        """The handler waits; several waits may overlap."""
        self._left = self._left_now()
        self._rests += 1
        self._reschedule(None)

    def go_on(self) -> None:
        """A wait is over."""
        self._rests -= 1
        if not self._rests:
            self._since = self._clock.monotonic_seconds()
            self._reschedule(asyncio.get_running_loop().time() + self._left)

    def _left_now(self) -> float:
        return self._left if self._rests else self._left - (self._clock.monotonic_seconds() - self._since)

    def _reschedule(self, when: float | None) -> None:
        if not self._is_over and not self._timeout.expired():
            self._timeout.reschedule(when)


class Pulse:
    """Stops a handler that gives no sign of life for ``limit``; None is no limit."""

    __slots__ = ("_limit", "_rests", "_scope", "_timer")

    def __init__(self, scope: AttemptScope, limit: timedelta | None) -> None:
        self._scope = scope
        self._limit = limit
        self._timer: asyncio.TimerHandle | None = None
        self._rests = 0

    def __enter__(self) -> None:
        """The handler waits, and need not give any sign meanwhile."""
        self._rests += 1
        self.end()
        if self._scope.work_limit is not None:
            self._scope.work_limit.rest()

    def __exit__(self, *_: object) -> None:
        self._rests -= 1
        self.beat()
        if self._scope.work_limit is not None:
            self._scope.work_limit.go_on()

    def beat(self) -> None:
        """Take note of a sign of life."""
        self.end()
        if self._limit is not None and not self._rests:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(self._limit.total_seconds(), self._scope.stop, Stopped.STALE)

    def end(self) -> None:
        """Watch no longer."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
