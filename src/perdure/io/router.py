"""Which transport serves which namespace."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from perdure.arguments import expect_many, expect_methods
from perdure.errors import ErrorCategory, IoError, Json
from perdure.io.effects import EffectTraits
from perdure.io.port import Transport, TransportEnv, TransportFactory, effect_traits_of, look_up
from perdure.model.handler import IoCall


class TransportRouter:
    """Several factories as one: a call goes to the longest group that its namespace belongs to.

    ``find`` is asked for a factory when none serves a namespace.
    """

    def __init__(
        self,
        factories: Sequence[TransportFactory] = (),
        find: Callable[[str], TransportFactory | None] = lambda _: None,
    ) -> None:
        factories = expect_many(factories, object, "TransportRouter(factories=…)", "factories")
        for factory in factories:
            expect_factory(factory, "each of TransportRouter(factories=…)")
        self._find = find
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
        return _Routed(self, env)

    def factory_for(self, namespace: str) -> TransportFactory:
        """The factory of a namespace; ``IoError``: ``io_unknown_namespace``, ``io_unimplemented``."""
        for factory in self.factories:
            if serves(factory.namespace_group, namespace):
                return factory
        found = self._find(namespace)
        if found is not None and serves(found.namespace_group, namespace):
            # Kept, since a factory may hold what its transports share.
            self.factories.append(found)
            return found
        if not self.factories:
            raise IoError.of("io_unimplemented", "no transport is configured")
        raise IoError.of(
            "io_unknown_namespace",
            "no transport serves this namespace",
            category=ErrorCategory.PARSING_INPUT,
            details={"groups": sorted(each.namespace_group for each in self.factories)},
        )

    async def aclose(self) -> None:
        """Let go of what factories keep between attempts: those that have an ``aclose`` of their own."""
        for factory in self.factories:
            aclose: Callable[[], Awaitable[None]] | None = getattr(factory, "aclose", None)
            if aclose is not None:
                await aclose()


class _Routed:
    def __init__(self, router: TransportRouter, env: TransportEnv) -> None:
        self._router = router
        self._env = env
        self._made: dict[int, Transport] = {}

    async def call(self, call: IoCall) -> Json:
        return await self._of(call).call(call)

    def effect_traits(self, call: IoCall) -> EffectTraits:
        return effect_traits_of(self._of(call), call)

    async def look_up(self, call: IoCall) -> Json:
        return await look_up(self._of(call), call)

    def _of(self, call: IoCall) -> Transport:
        factory = self._router.factory_for(call.namespace)
        if id(factory) not in self._made:
            self._made[id(factory)] = factory.make(self._env)
        return self._made[id(factory)]


def expect_factory(value: object, what: str) -> None:
    """Raise ``TypeError`` unless ``value`` is a factory of transports."""
    wanted = "a factory of transports or a TransportRouter([…])"
    expect_methods(value, ("make",), what, wanted)
    if not isinstance(getattr(value, "namespace_group", None), str):
        raise TypeError(f"{what} is to be {wanted}: its namespace_group is no string")


def serves(group: str, namespace: str) -> bool:
    """Whether ``namespace`` is ``group`` or lies below it. Everything lies below the group without a name."""
    return not group or namespace == group or namespace.startswith(group + ".")
