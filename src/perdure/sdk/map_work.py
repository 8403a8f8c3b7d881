"""The work of a map: items are read, worked on side by side, written together and given back in order."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from datetime import timedelta
from fractions import Fraction
from typing import Any

import msgspec

from perdure.canonical import CanonicalJsonError
from perdure.engine.attempt import info_of, retry_after
from perdure.errors import (
    ErrorCategory,
    ErrorInfo,
    IoError,
    Json,
    MissingFactError,
    PerdureError,
    StateError,
    StorageError,
)
from perdure.failpoints import FailpointStop
from perdure.io.asking import answer_bytes
from perdure.io.facts import FactBinding, request_id_of
from perdure.io.maps import MAP_NAMESPACE, Items, item_changed
from perdure.io.scope import Place
from perdure.model.config import RetryPolicy
from perdure.model.handler import IoProvider
from perdure.sdk.map_items import END, Reader
from perdure.sdk.spawning import SPAWNER, Spawner
from perdure.sdk.values import UNTYPED, Codec

TOGETHER = 256
"""How many finished items are written at once at most."""
LINGER_SECONDS = 0.02
"""How long a finished item waits at most for others to be written with it."""
_ROOM = 64
"""For how many items there must be room again before others are begun: one by one would cost more."""
_NAMED_MAX = 10


class ItemError(StateError):
    """An item of a map has failed for good. ``index`` says which, ``info`` why."""

    index: int = -1


class MapError(StateError):
    """A map has ended before its items: too many have failed. ``errors`` are theirs, by index."""

    errors: tuple[ItemError, ...] = ()


class Policy(msgspec.Struct, frozen=True):
    """How items are worked on, and what becomes of those that fail."""

    max_concurrency: int
    retry: RetryPolicy | None
    collects: bool
    failures_max: int | Fraction | None
    """How many may fail, or what part of all; None for any number."""


class Outcome(msgspec.Struct, frozen=True):
    """What became of an item: its value, or an ``ItemError``; or that nobody knows, in replay."""

    value: Any
    missing: MissingFactError | None = None


class MapWork:
    """One map, from its first item to its last."""

    def __init__(
        self,
        items: Items,
        reader: Reader,
        call: Callable[[Any], Awaitable[Any]],
        codec: Codec,
        policy: Policy,
        io: IoProvider,
    ) -> None:
        self._items = items
        self._reader = reader
        self._call = call
        self._codec = codec
        self._policy = policy
        self._io = io
        self._ahead = TOGETHER + policy.max_concurrency
        self._begun = self._given = 0
        self._working = 0
        self._has_ended = False
        self._error: BaseException | None = None
        self._errors: dict[int, ItemError] = {}
        self._finished: list[tuple[int, Outcome]] = []
        self._ready: dict[int, Outcome] = {}
        self._reading = asyncio.Lock()
        self._room, self._news, self._due = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self._timer: asyncio.TimerHandle | None = None
        self._tasks: list[asyncio.Task[None]] = []

    async def results(self) -> AsyncGenerator[Any, None]:
        """The outcomes in the items' order, each once it is durable. Raises :class:`MapError` and others."""
        workers = [self._work() for _ in range(self._policy.max_concurrency)]
        self._tasks = [asyncio.create_task(each) for each in (self._write(), *workers)]
        try:
            while not self._is_over:
                outcome = self._ready.pop(self._given, None)
                if outcome is None:
                    self._news.clear()
                    with self._items.around():
                        await self._news.wait()
                    continue
                self._given += 1
                if self._ahead - (self._begun - self._given) >= _ROOM:
                    self._room.set()
                if outcome.missing is not None:
                    raise outcome.missing
                yield outcome.value
            error = self._error
        finally:
            await self._stop()
        if error is not None:
            raise error
        lost = self._items.first_recorded(self._begun, self._ahead)
        if lost is not None:
            raise item_changed(lost)

    @property
    def _is_over(self) -> bool:
        return self._error is not None or (self._has_ended and self._given == self._begun)

    async def _stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        tasks, self._tasks = self._tasks, []
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _fail(self, error: BaseException) -> None:
        if self._error is None:
            self._error = error
        self._news.set()

    async def _work(self) -> None:
        try:
            while (read := await self._next()) is not END:
                self._working += 1
                index, item = read
                await self._do(index, item)
                self._working -= 1
                if self._has_ended:
                    self._hurry()
        except asyncio.CancelledError as error:
            self._fail(error)
            raise
        except BaseException as error:  # noqa: BLE001 — raised by whoever maps
            self._fail(error)

    async def _next(self) -> Any:
        """The next item and its index, when there is room for its outcome; or :data:`END`."""
        async with self._reading:
            while self._begun - self._given >= self._ahead:
                self._hurry()
                self._room.clear()
                await self._room.wait()
            if self._has_ended or self._error is not None:
                return END
            if self._reader.is_plain:
                item = self._reader.next()
            else:
                with self._items.reading():
                    item = await self._reader.next_of_any()
            if item is END:
                self._end()
                return END
            self._begun += 1
            return self._begun - 1, item

    def _end(self) -> None:
        """All items have been read."""
        self._has_ended = True
        self._judge()
        self._hurry()
        self._news.set()

    def _hurry(self) -> None:
        """Have what is finished written, if nothing is about to be finished too."""
        if not self._working:
            self._due.set()

    async def _do(self, index: int, item: Any) -> None:
        request_id = _request_id(index, item)
        try:
            bound = self._items.recorded(index)
            known = None if bound is None else await self._recorded(index, bound, request_id)
        except MissingFactError as missing:
            # The recorded run had begun it at most, and may never have asked what it came to.
            known = Outcome(None, missing)
        if known is not None:
            self._ready[index] = known
            if index == self._given:
                self._news.set()
            return
        with self._items.at(index) as place:
            payload = await self._outcome_of(index, item, place)
            if payload is not None:
                kept = self._items.keep(index, request_id, payload)
                self._finished.append((index, self._read(index, msgspec.json.decode(kept))))
        if len(self._finished) >= TOGETHER:
            self._due.set()
        elif self._timer is None and self._finished:
            self._timer = asyncio.get_running_loop().call_later(LINGER_SECONDS, self._due.set)

    async def _write(self) -> None:
        """Write what is finished, whenever it is time."""
        try:
            while True:
                await self._due.wait()
                self._due.clear()
                if self._timer is not None:
                    self._timer.cancel()
                    self._timer = None
                finished, self._finished = self._finished, []
                if finished:
                    await self._items.land()
                    self._ready.update(finished)
                    self._news.set()
        except asyncio.CancelledError:
            raise
        except BaseException as error:  # noqa: BLE001 — raised by whoever maps
            self._fail(error)

    async def _recorded(self, index: int, bound: FactBinding, request_id: str) -> Outcome:
        if bound.request_id != request_id:
            raise item_changed(index)
        outcome = self._read(index, await self._items.outcome(bound))
        if isinstance(outcome.value, ItemError):
            self._count_failure(index, outcome.value)
        return outcome

    def _read(self, index: int, payload: Json) -> Outcome:
        if "error" in payload:
            error = ItemError(ErrorInfo.from_json(payload["error"]))
            error.index = index
            return Outcome(error)
        try:
            return Outcome(self._codec.from_json(payload["value"]))
        except ValueError as error:
            raise StateError.of(
                "result_mistyped",
                f"what is recorded of item {index} is not {self._codec.name}: {error}",
                category=ErrorCategory.PARSING_INPUT,
                hint="`perdure run facts RUN` shows it as it was recorded",
            ) from error

    async def _outcome_of(self, index: int, item: Any, place: Place) -> bytes | None:
        """The item's outcome as it is recorded; None if it failed, and that ends the map."""
        tries = 0
        while True:
            place.begin(tries)
            SPAWNER.set(Spawner(self._io, place.key))
            tries += 1
            try:
                return self._written(index, await self._call(item))
            except (FailpointStop, KeyboardInterrupt, StorageError):
                raise
            except asyncio.CancelledError as cancelled:
                task = asyncio.current_task()
                if task is not None and task.cancelling():
                    raise
                error: BaseException = cancelled
            except BaseException as raised:  # noqa: BLE001 — a handler's errors are told as they are
                error = raised
            info = info_of(error)
            if info.code == "attempt_closed":
                raise error
            policy = self._policy.retry
            if policy is None or not info.retryable or tries >= policy.max_attempts:
                break
            delay = max(policy.backoff.before_retry(tries), retry_after(error))
            if delay > timedelta():
                await self._items.pause(delay)
        if self._items.leaves_doubt(place):
            self._fail(_of_item(index, error, info, info.retryable))
            return None
        if not self._policy.collects:
            # One without tries of its own is tried again with the state.
            self._fail(_of_item(index, error, info, info.retryable and policy is None))
            return None
        failed = ErrorInfo(info.code, info.category, info.retryable, info.message)
        item_error = ItemError(failed)
        item_error.index = index
        self._count_failure(index, item_error)
        return answer_bytes({"error": failed.to_json()})

    def _written(self, index: int, result: Any) -> bytes:
        try:
            data = self._codec.to_json(result)
            payload = answer_bytes({"value": data})
            self._codec.from_json(msgspec.json.decode(payload)["value"])
        except (TypeError, ValueError) as error:
            raise StateError.of(
                "result_invalid",
                f"item {index} came to a {type(result).__name__}, not {self._codec.name}",
                category=ErrorCategory.PARSING_INPUT,
            ) from error
        return payload

    def _count_failure(self, index: int, error: ItemError) -> None:
        self._errors[index] = error
        self._judge()

    def _judge(self) -> None:
        """End the map if too many have failed."""
        limit = self._policy.failures_max
        if isinstance(limit, Fraction):
            size = self._begun if self._has_ended else self._reader.size
            limit = None if size is None else int(limit * size)
        if limit is not None and len(self._errors) > limit:
            errors = tuple(self._errors[index] for index in sorted(self._errors))
            failure = MapError.of(
                "map_items_failed",
                f"{len(errors)} {'items' if len(errors) > 1 else 'item'} failed, "
                f"and {limit} may: {_named(errors)}",
                details={"indexes": [each.index for each in errors]},
            )
            failure.errors = errors
            self._fail(failure)


def _request_id(index: int, item: Any) -> str:
    try:
        return request_id_of(MAP_NAMESPACE, Codec(UNTYPED).to_json(item))
    except CanonicalJsonError as error:
        code, problem = error.code, error.info.message
    except (TypeError, ValueError) as error:
        code, problem = "value_not_json", str(error)
    raise IoError.of(
        code if code == "secrets_detected" else "map_item_invalid",
        f"item {index} cannot be told from others: {problem}",
        category=ErrorCategory.PARSING_INPUT,
        details={"index": index, "reason": code},
    )


def _of_item(index: int, error: BaseException, info: ErrorInfo, retryable: bool) -> MapError:
    """The end of a map by one item. Only an error of ours is known not to repeat the item."""
    item_error = ItemError(info)
    item_error.index = index
    why = info.code if isinstance(error, PerdureError) else f"{info.code} ({type(error).__name__})"
    failure = MapError.of(
        "map_items_failed",
        f"item {index} failed: {why}",
        category=info.category,
        retryable=retryable,
        details={"indexes": [index]},
    )
    failure.errors = (item_error,)
    failure.__cause__ = error
    return failure


def _named(errors: tuple[ItemError, ...]) -> str:
    named = ", ".join(f"{each.index} ({each.code})" for each in errors[:_NAMED_MAX])
    more = len(errors) - _NAMED_MAX
    return f"{named} and {more} more" if more > 0 else named
