"""Facades for states that run in a thread: the same calls, waited for."""

from __future__ import annotations

import asyncio
from collections.abc import (
    AsyncIterable,
    AsyncIterator,
    Awaitable,
    Callable,
    Coroutine,
    Iterator,
    Mapping,
    Sequence,
)
from concurrent.futures import Future
from datetime import datetime, timedelta
from typing import Any, TypeVar

from perdure.errors import Json
from perdure.ids import ArtifactId
from perdure.model.events import ArtifactKind, DomainEvent
from perdure.model.handler import IoCall, IoProvider, IoResult, Recorder, Signal

T = TypeVar("T")


class Facade:
    """Waits in a thread for what the event loop does."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._waiting: set[Future[Any]] = set()

    def give_up(self) -> None:
        """Free the threads that wait: the attempt is over, or is to be run again from its beginning."""
        for future in list(self._waiting):
            future.cancel()

    def _wait(self, work: Coroutine[Any, Any, T]) -> T:
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        self._waiting.add(future)
        try:
            return future.result()
        finally:
            self._waiting.discard(future)


class BlockingIo(Facade):
    """``IoProvider`` for a function that is not ``async``; each method does what its twin there does."""

    def __init__(self, io: IoProvider, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop)
        self._io = io

    def wait(self, work: Awaitable[T]) -> T:
        """Wait for what only ``async`` functions are offered, such as ``perdure.spawn(…)``."""
        return self._wait(_awaited(work))

    def each(self, results: AsyncIterable[T]) -> Iterator[T]:
        """Go through what only ``async`` functions can, such as ``perdure.map_over(…)``."""
        stream = aiter(results)
        while (one := self._wait(_next_of(stream))) is not None:
            yield one[0]

    def call(self, call: IoCall) -> IoResult:
        """Ask, or be answered by the recorded fact."""
        return self._wait(self._io.call(call))

    def record_value(self, key: str, value: Json) -> ArtifactId:
        """Bind ``value`` to ``key``."""
        return self._wait(self._io.record_value(key, value))

    def get_recorded_fact(self, key: str) -> ArtifactId | None:
        """The payload's id of the fact bound to ``key``, if there is one."""
        return self._wait(self._io.get_recorded_fact(key))

    def now_millis(self) -> int:
        """Milliseconds since 1970-01-01 UTC, as a fact."""
        return self._wait(self._io.now_millis())

    def random_bytes(self, count: int) -> bytes:
        """``count`` random bytes, as a fact."""
        return self._wait(self._io.random_bytes(count))

    def uuid4(self) -> str:
        """A random UUID, as a fact."""
        return self._wait(self._io.uuid4())

    def read_artifact(self, artifact_id: ArtifactId) -> bytes:
        """The bytes of an artifact that an answer, the context or the input names."""
        return self._wait(self._io.read_artifact(artifact_id))

    def sleep(self, duration: timedelta, name: str | None = None) -> None:
        """Wait, durably."""
        self._wait(self._io.sleep(duration, name))

    def sleep_until(self, moment: datetime | int, name: str | None = None) -> None:
        """Wait for a moment: with a time zone, or in milliseconds since 1970."""
        self._wait(self._io.sleep_until(moment, name))

    def wait_signal(
        self, signal: str, *, timeout: timedelta | None = None, name: str | None = None
    ) -> Signal | None:
        """The next signal of this name that nobody has taken, or None once ``timeout`` is over."""
        return self._wait(self._io.wait_signal(signal, timeout=timeout, name=name))

    def wait_any(
        self, *signals: str, timeout: timedelta | None = None, name: str | None = None
    ) -> Signal | None:
        """The first signal that arrived of any of these names, or None once ``timeout`` is over."""
        return self._wait(self._io.wait_any(*signals, timeout=timeout, name=name))

    def patched(self, name: str) -> bool:
        """Whether the state goes the new way where its code was changed, as a fact of the state."""
        return self._wait(self._io.patched(name))

    def heartbeat(self, progress: Json = None) -> None:
        """Give a sign of life, and publish ``progress``."""
        self._wait(self._io.heartbeat(progress))


async def _awaited(work: Awaitable[T]) -> T:
    return await work


async def _next_of(stream: AsyncIterator[T]) -> tuple[T] | None:
    try:
        return (await anext(stream),)
    except StopAsyncIteration:
        return None


class BlockingRecorder(Facade):
    """``Recorder`` for a function that is not ``async``."""

    def __init__(self, rec: Recorder, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop)
        self._rec = rec

    def emit(self, event: DomainEvent) -> None:
        """Keep ``event``."""
        self._wait(self._rec.emit(event))

    def artifact(self, kind: ArtifactKind, data: bytes, meta: Json = None) -> ArtifactId:
        """Keep ``data`` as an artifact."""
        return self._wait(self._rec.artifact(kind, data, meta))

    def publish(self, name: str, value: Json) -> None:
        """Let outsiders read ``value`` under ``name``."""
        self._wait(self._rec.publish(name, value))


async def in_thread(function: Callable[..., T], args: Sequence[Any], kwargs: Mapping[str, Any]) -> T:
    """What ``function`` returns in a thread, which no longer waits for anything when this is cancelled."""
    try:
        return await asyncio.to_thread(called, function, *args, **kwargs)
    finally:
        for each in (*args, *kwargs.values()):
            if isinstance(each, Facade):
                each.give_up()


def called(function: Callable[..., T], *args: Any, **kwargs: Any) -> T:
    """What ``function`` returns, for a future to carry."""
    try:
        return function(*args, **kwargs)
    except StopIteration as error:
        # No future can carry it, so that whoever awaits the thread would wait for ever.
        raise RuntimeError("the function raised StopIteration") from error
