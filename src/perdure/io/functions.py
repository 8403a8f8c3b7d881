"""Transports that are one function."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable

from perdure.errors import Json
from perdure.io.port import Transport, TransportEnv
from perdure.model.handler import IoCall

Answering = Callable[[IoCall, TransportEnv], Json | Awaitable[Json]]


class FunctionTransportFactory:
    """Serves a namespace group by a function; made by :func:`transport`."""

    def __init__(self, namespace_group: str, function: Answering) -> None:
        self.namespace_group = namespace_group
        self.function = function
        self.__doc__ = function.__doc__
        self._is_async = inspect.iscoroutinefunction(function)

    def make(self, env: TransportEnv) -> Transport:
        """A transport for one attempt."""
        return _Bound(self, env)

    async def answer(self, call: IoCall, env: TransportEnv) -> Json:
        """What the function answers; one that is not async runs in a thread."""
        if self._is_async:
            answer = self.function(call, env)
        else:
            answer = await asyncio.to_thread(self.function, call, env)
        return await answer if inspect.isawaitable(answer) else answer


class _Bound:
    def __init__(self, factory: FunctionTransportFactory, env: TransportEnv) -> None:
        self._factory = factory
        self._env = env

    async def call(self, call: IoCall) -> Json:
        return await self._factory.answer(call, self._env)


def transport(namespace_group: str) -> Callable[[Answering], FunctionTransportFactory]:
    """Make a function a transport for the namespaces ``<namespace_group>`` and ``<namespace_group>.…``.

    The function takes the ``IoCall`` and a ``TransportEnv``, and returns JSON data; it may be async. It
    raises ``TransportError`` for what went wrong outside, ``retryable=True`` if trying again may help.
    """

    def decorate(function: Answering) -> FunctionTransportFactory:
        return FunctionTransportFactory(namespace_group, function)

    return decorate
