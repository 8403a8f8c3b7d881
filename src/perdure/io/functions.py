"""Transports that are functions."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from typing import TypeVar

import msgspec

from perdure.errors import Json
from perdure.io.effects import EffectTraits
from perdure.io.port import Transport, TransportEnv
from perdure.model.handler import IoCall

Answering = Callable[[IoCall, TransportEnv], Json | Awaitable[Json]]
Looking = TypeVar("Looking", bound=Answering)


class FunctionTransportFactory:
    """Serves a namespace group by a function; made by :func:`transport`."""

    def __init__(self, namespace_group: str, function: Answering, traits: EffectTraits) -> None:
        self.namespace_group = namespace_group
        self.function = function
        self.traits = traits
        self.look_up: Answering | None = None
        self.__doc__ = function.__doc__

    def looks_up(self, function: Looking) -> Looking:
        """Decorates the function that finds out what became of an effect which may have been made.

        It takes the same ``IoCall`` and a ``TransportEnv``; ``call.idempotency_key`` names the effect. It
        returns the answer that the effect had, or raises ``EffectNotMadeError`` if it never was made; any
        other error says that this is not known yet, ``NotAppliedError`` too.
        """
        self.look_up = function
        self.traits = msgspec.structs.replace(self.traits, looks_up=True)
        return function

    def make(self, env: TransportEnv) -> Transport:
        """A transport for one attempt."""
        return _Bound(self, env) if self.look_up is None else _LookingUp(self.look_up, self, env)


class _Bound:
    def __init__(self, factory: FunctionTransportFactory, env: TransportEnv) -> None:
        self._factory = factory
        self._env = env

    async def call(self, call: IoCall) -> Json:
        return await _answer_of(self._factory.function, call, self._env)

    def effect_traits(self, call: IoCall) -> EffectTraits:
        return self._factory.traits


class _LookingUp(_Bound):
    def __init__(self, function: Answering, factory: FunctionTransportFactory, env: TransportEnv) -> None:
        super().__init__(factory, env)
        self._function = function

    async def look_up(self, call: IoCall) -> Json:
        return await _answer_of(self._function, call, self._env)


async def _answer_of(function: Answering, call: IoCall, env: TransportEnv) -> Json:
    """What the function answers; one that is not async runs in a thread."""
    if inspect.iscoroutinefunction(function):
        return await function(call, env)
    answer = await asyncio.to_thread(function, call, env)
    return await answer if inspect.isawaitable(answer) else answer


def transport(
    namespace_group: str, *, traits: EffectTraits | None = None
) -> Callable[[Answering], FunctionTransportFactory]:
    """Make a function a transport for the namespaces ``<namespace_group>`` and ``<namespace_group>.…``.

    The function takes the ``IoCall`` and a ``TransportEnv``, and returns JSON data; it may be async. It
    raises ``TransportError`` for what went wrong outside, ``retryable=True`` if trying again may help, and
    ``NotAppliedError`` where it is sure that nothing happened.

    ``traits`` say what the calls do: ``EffectTraits(is_effect=True, is_idempotent=True)`` for a service that
    honours ``call.idempotency_key``. For one that can be asked what became of a call, decorate the function
    that asks: ``@<this transport>.looks_up``.
    """
    given = traits or EffectTraits()
    if given.looks_up:
        raise ValueError("looks_up is said by decorating the function that does it: @<transport>.looks_up")

    def decorate(function: Answering) -> FunctionTransportFactory:
        return FunctionTransportFactory(namespace_group, function, given)

    return decorate
