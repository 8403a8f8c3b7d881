"""What states of random machines do, a clock that is held, and a bank."""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from datetime import timedelta
from typing import Any

import msgspec

from perdure import EffectNotMadeError, EffectTraits, IoCall, NotAppliedError, TransportEnv, TransportError
from perdure.errors import Json
from perdure.testing.clock import FakeClock

HOUR = 3600


class Sleep(msgspec.Struct, frozen=True):
    """Up to five seconds a run sleeps in its process; for longer it is parked."""

    seconds: int
    is_named: bool = False


class Await(msgspec.Struct, frozen=True):
    """Waits for the first of some signals, for so many seconds at most."""

    signals: tuple[str, ...]
    seconds: int | None = None
    is_named: bool = False


class Pay(msgspec.Struct, frozen=True):
    """Pays: at a bank that knows the key, at one that can be asked what became of it, or at neither."""

    bank: str
    has_key: bool = True
    has_name: bool = True


class Both(msgspec.Struct, frozen=True):
    """Does all of these at once."""

    actions: tuple[Any, ...]


class Note(msgspec.Struct, frozen=True):
    """Reads time and randomness, and tells of it."""


class Script(msgspec.Struct, frozen=True):
    """What a state does, and for how many attempts it raises at the end."""

    name: str
    actions: tuple[Any, ...]
    cleans_up: bool = False


class HeldClock(FakeClock):
    """Whoever sleeps wakes when the test says that it is time."""

    def __init__(self) -> None:
        super().__init__()
        self._sleepers: list[tuple[int, asyncio.Future[None]]] = []

    def advance(self, millis: int) -> None:
        super().advance(millis)
        for due, sleeper in self._sleepers:
            if due <= self.millis and not sleeper.done():
                sleeper.set_result(None)
        self._sleepers = [each for each in self._sleepers if not each[1].done()]

    async def sleep_until(self, due_millis: int) -> None:
        if due_millis > self.millis:
            sleeper = asyncio.get_running_loop().create_future()
            self._sleepers.append((due_millis, sleeper))
            await sleeper


class Bank:
    """Three: ``bank.same`` knows its keys for an hour, ``bank.looks`` can be asked, ``bank.blind`` neither.

    ``behaviours`` says how the next calls end; then they are answered.
    """

    namespace_group = "bank"

    def __init__(self, clock: HeldClock) -> None:
        self._clock = clock
        self.behaviours: deque[str] = deque()
        self.made: Counter[str] = Counter()
        self._first_millis: dict[str, int] = {}
        self._hanging: list[asyncio.Future[None]] = []

    def make(self, env: TransportEnv) -> Bank:
        return self

    def effect_traits(self, call: IoCall) -> EffectTraits:
        hour = timedelta(hours=1)
        return {
            "bank.same": EffectTraits(is_idempotent=True, key_lifetime=hour),
            "bank.looks": EffectTraits(looks_up=True),
        }.get(call.namespace, EffectTraits())

    async def call(self, call: IoCall) -> Json:
        key = str(call.idempotency_key)
        how = self.behaviours.popleft() if self.behaviours else "answer"
        if how == "hang before":
            await self._hang()
        if how == "refuse":
            raise NotAppliedError.of("closed", "come back later", retryable=True)
        if how != "drop before":
            self._pay(key, call.namespace == "bank.same")
        if how == "hang after":
            await self._hang()
        if how.startswith("drop"):
            raise TransportError.of("line_dropped", "no answer came")
        return {"receipt": key}

    async def look_up(self, call: IoCall) -> Json:
        how = self.behaviours.popleft() if self.behaviours else "answer"
        if how.startswith("hang"):
            await self._hang()
        elif how != "answer":
            raise TransportError.of("line_dropped", "no answer came")
        if not self.made[str(call.idempotency_key)]:
            raise EffectNotMadeError.of("not_paid", "nothing of this key was paid")
        return {"receipt": call.idempotency_key}

    def answer(self) -> None:
        """Let go of those that hang."""
        hanging, self._hanging = self._hanging, []
        for each in hanging:
            if not each.done():
                each.set_result(None)

    def _pay(self, key: str, knows_keys: bool) -> None:
        first = self._first_millis.setdefault(key, self._clock.millis)
        if not (knows_keys and self.made[key] and self._clock.millis - first < HOUR * 1000):
            self.made[key] += 1

    async def _hang(self) -> None:
        hanging = asyncio.get_running_loop().create_future()
        self._hanging.append(hanging)
        await hanging
