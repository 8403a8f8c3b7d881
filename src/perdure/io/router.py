"""Which transport serves which namespace."""

from __future__ import annotations

from collections.abc import Sequence

from perdure.errors import ErrorCategory, IoError, Json
from perdure.io.port import Transport, TransportEnv, TransportFactory
from perdure.model.handler import IoCall


class TransportRouter:
    """Several factories as one: a call goes to the longest group that its namespace belongs to."""

    def __init__(self, factories: Sequence[TransportFactory] = ()) -> None:
        self.factories = sorted(factories, key=lambda each: len(each.namespace_group), reverse=True)

    @classmethod
    def around(cls, factory: TransportFactory) -> TransportRouter:
        """``factory`` itself if it is a router, else one that serves the factory's own group alone."""
        return factory if isinstance(factory, TransportRouter) else cls([factory])

    @property
    def namespace_group(self) -> str:
        """A router serves every namespace, as far as its factories do."""
        return ""

    def make(self, env: TransportEnv) -> Transport:
        """A transport that makes each factory's own on first use."""
        return _Routed(self.factories, env)


class _Routed:
    def __init__(self, factories: Sequence[TransportFactory], env: TransportEnv) -> None:
        self._factories = factories
        self._env = env
        self._made: dict[int, Transport] = {}

    async def call(self, call: IoCall) -> Json:
        for index, factory in enumerate(self._factories):
            if serves(factory.namespace_group, call.namespace):
                if index not in self._made:
                    self._made[index] = factory.make(self._env)
                return await self._made[index].call(call)
        if not self._factories:
            raise IoError.of("io_unimplemented", "no transport is configured")
        raise IoError.of(
            "io_unknown_namespace",
            "no transport serves this namespace",
            category=ErrorCategory.PARSING_INPUT,
            details={"groups": sorted(each.namespace_group for each in self._factories)},
        )


def serves(group: str, namespace: str) -> bool:
    """Whether ``namespace`` is ``group`` or lies below it."""
    return namespace == group or namespace.startswith(group + ".")
