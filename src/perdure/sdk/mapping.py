"""Maps for authors: a function called for each of many items, which are recorded one by one."""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import typing
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    AsyncIterator,
    Awaitable,
    Callable,
    Generator,
    Iterable,
    Mapping,
)
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from types import NoneType
from typing import Any, Generic, Literal, TypeVar, overload

from perdure.errors import ErrorCategory, StateError
from perdure.ids import OpId
from perdure.io.maps import KeepsItems
from perdure.model.config import RetryPolicy
from perdure.model.handler import IoProvider
from perdure.sdk.blocking_io import called
from perdure.sdk.checks import expect, refuse_call
from perdure.sdk.map_items import Reader
from perdure.sdk.map_work import ItemError, MapError, MapWork, Policy
from perdure.sdk.processes import call_in_process, unreachable
from perdure.sdk.spawning import SPAWNER
from perdure.sdk.values import UNTYPED, Codec

__all__ = ["ItemError", "MapError", "MapOver", "map_over"]

In = TypeVar("In")
Out = TypeVar("Out")


class MapOver(Generic[Out]):
    """A map that is to be done: ``await`` it for a list, or go through it with ``async for``."""

    def __init__(
        self,
        items: Iterable[Any] | AsyncIterable[Any],
        fn: Callable[[Any], Any],
        name: str | None,
        policy: Policy,
        io: IoProvider,
        *,
        in_process: bool,
    ) -> None:
        self._given = items
        self._fn = fn
        self._name = name
        self._policy = policy
        self._io = io
        self._in_process = in_process
        self._is_in_loop = _is_in_loop()
        self._threads: ThreadPoolExecutor | None = None

    def __await__(self) -> Generator[Any, None, list[Out]]:
        return self._list().__await__()

    def __aiter__(self) -> AsyncIterator[Out]:
        return self._results()

    async def _list(self) -> list[Out]:
        return [each async for each in self._results()]

    async def _results(self) -> AsyncGenerator[Out, None]:
        if not isinstance(self._io, KeepsItems):
            raise _outside()
        reader = Reader(self._given, None if self._is_in_loop else self._in_thread)
        is_async = inspect.iscoroutinefunction(self._fn)
        call = self._fn if is_async else self._by_process if self._in_process else self._by_thread
        items = self._io.items(self._name)
        results = MapWork(items, reader, call, _codec_of(self._fn), self._policy, self._io).results()
        try:
            async for each in results:
                yield each
        finally:
            await results.aclose()
            if self._threads is not None:
                self._threads.shutdown(wait=False, cancel_futures=True)

    async def _by_thread(self, item: Any) -> Any:
        result = await self._in_thread(lambda: self._fn(item))
        return await result if inspect.isawaitable(result) else result

    async def _by_process(self, item: Any) -> Any:
        return await call_in_process(self._fn, [item], {})

    def _in_thread(self, work: Callable[[], Any]) -> Awaitable[Any]:
        # Threads of its own: the loop's may all be taken by functions that wait for maps.
        if self._threads is None:
            self._threads = ThreadPoolExecutor(self._policy.max_concurrency + 1, "perdure-map")
        context = contextvars.copy_context()
        return asyncio.get_running_loop().run_in_executor(self._threads, context.run, called, work)


@overload
def map_over(
    items: Iterable[In] | AsyncIterable[In],
    fn: Callable[[In], Awaitable[Out]],
    *,
    name: str | None = None,
    max_concurrency: int = 16,
    retry: RetryPolicy | None = None,
    return_exceptions: Literal[False] = False,
    process: bool = False,
    io: IoProvider | None = None,
) -> MapOver[Out]: ...
@overload
def map_over(
    items: Iterable[In] | AsyncIterable[In],
    fn: Callable[[In], Awaitable[Out]],
    *,
    name: str | None = None,
    max_concurrency: int = 16,
    retry: RetryPolicy | None = None,
    return_exceptions: bool,
    failures_max: int | float | None = None,
    process: bool = False,
    io: IoProvider | None = None,
) -> MapOver[Out | ItemError]: ...
@overload
def map_over(
    items: Iterable[In] | AsyncIterable[In],
    fn: Callable[[In], Out],
    *,
    name: str | None = None,
    max_concurrency: int = 16,
    retry: RetryPolicy | None = None,
    return_exceptions: Literal[False] = False,
    process: bool = False,
    io: IoProvider | None = None,
) -> MapOver[Out]: ...
@overload
def map_over(
    items: Iterable[In] | AsyncIterable[In],
    fn: Callable[[In], Out],
    *,
    name: str | None = None,
    max_concurrency: int = 16,
    retry: RetryPolicy | None = None,
    return_exceptions: bool,
    failures_max: int | float | None = None,
    process: bool = False,
    io: IoProvider | None = None,
) -> MapOver[Out | ItemError]: ...
def map_over(
    items: Iterable[Any] | AsyncIterable[Any],
    fn: Callable[[Any], Any],
    *,
    name: str | None = None,
    max_concurrency: int = 16,
    retry: RetryPolicy | None = None,
    return_exceptions: bool = False,
    failures_max: float | None = None,
    process: bool = False,
    io: IoProvider | None = None,
) -> MapOver[Any]:
    """Call ``fn`` for each item, and give the results in the items' order.

    ``await`` gives a list; ``async for`` gives one result after another and holds a few hundred at a time, as
    items are read no sooner than they are needed. Each result is recorded under the item's number and is not
    computed again, whatever becomes of the process; what was not yet written then is computed again.
    ``fn`` may be ``async``, or else runs in a thread, or with ``process`` in a process of its own;
    ``max_concurrency`` are under way at a time, and of processes no more than there are processors.

    ``retry`` says how often an item is tried; without it a failed item is tried with the state. A failed item
    ends the map with :class:`MapError`. With ``return_exceptions`` failures are recorded too, and stand among
    the results as :class:`ItemError`; ``failures_max`` is how many may be there, or as a float what part of
    all items, before the map ends with :class:`MapError`.

    A state that maps more than once names its maps. States that are no functions give their ``io``.

    Raises ``StateError`` (``map_outside_state``), and when it is awaited ``IoError``: ``map_name_taken``,
    ``map_item_changed`` for another item than the one on record, ``map_item_invalid``.
    """
    if isinstance(items, str | bytes | Mapping) or not isinstance(items, Iterable | AsyncIterable):
        refuse_call(items, "what map_over(…) goes through", "a list or something else to go through")
    if not callable(fn):
        refuse_call(fn, "map_over(…, fn)", "a function of one item")
    expect(name, (str, NoneType), "map_over(name=…)", "a string")
    if name is not None and OpId.pattern.fullmatch(name) is None:
        refuse_call(name, "map_over(name=…)", "lower-case letters, digits and _, beginning with a letter")
    if type(max_concurrency) is not int or max_concurrency < 1:
        refuse_call(max_concurrency, "map_over(max_concurrency=…)", "an int of 1 or more")
    expect(retry, (RetryPolicy, NoneType), "map_over(retry=…)", "a RetryPolicy")
    if process and (inspect.iscoroutinefunction(fn) or unreachable(fn) is not None):
        refuse_call(fn, "map_over(…, fn, process=True)", "a def at the top of a module that can be imported")
    policy = Policy(max_concurrency, retry, bool(return_exceptions), _limit(failures_max, return_exceptions))
    spawner = SPAWNER.get()
    used = io or (None if spawner is None else spawner.io)
    if used is None:
        raise _outside()
    return MapOver(items, fn, name, policy, used, in_process=process)


def _outside() -> StateError:
    return StateError.of(
        "map_outside_state",
        "items are mapped by states, and this is called outside of one",
        category=ErrorCategory.PARSING_INPUT,
    )


def _limit(failures_max: float | None, return_exceptions: bool) -> int | Fraction | None:
    if failures_max is None:
        return None
    if not return_exceptions:
        refuse_call(failures_max, "map_over(failures_max=…)", "given with return_exceptions=True")
    if type(failures_max) is int and failures_max >= 0:
        return failures_max
    if type(failures_max) is not float or not 0 <= failures_max <= 1:
        refuse_call(failures_max, "map_over(failures_max=…)", "an int of 0 or more, or a float up to 1.0")
    return Fraction(repr(failures_max))  # as it is written: 0.29 of a hundred is 29


def _codec_of(fn: Callable[..., Any]) -> Codec:
    try:
        annotation = typing.get_type_hints(inspect.unwrap(fn), include_extras=True).get("return", UNTYPED)
    except (NameError, TypeError, AttributeError):
        annotation = UNTYPED
    return Codec(annotation)


def _is_in_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True
