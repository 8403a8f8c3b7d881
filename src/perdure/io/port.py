"""What a transport is: the seam behind which the outside world begins."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Protocol, runtime_checkable

import msgspec

from perdure.errors import IoError, Json
from perdure.ids import ArtifactId, RunId, StateId
from perdure.io.effects import EffectTraits
from perdure.model.handler import IoCall
from perdure.secrets import SecretResolver
from perdure.stores.bundle import Stores


class TransportEnv(msgspec.Struct, frozen=True):
    """For whom a transport is made, one attempt at one state of one run, and what it may use.

    ``secrets`` resolves names at the moment of a call. ``keep(data, redact)`` takes bytes that are too
    large for an answer and gives their artifact id; they become durable with the fact that names them,
    and ``IoError`` (``secrets_detected``) refuses them if they hold a secret, unless ``redact`` has it taken
    out. ``read_artifact`` gives the bytes of an artifact that a request names.
    """

    stores: Stores
    run_id: RunId
    state_id: StateId
    attempt: int
    secrets: SecretResolver
    keep: Callable[[bytes, bool], ArtifactId]
    read_artifact: Callable[[ArtifactId], Awaitable[bytes]]


class Transport(Protocol):
    """Asks the outside world, for one attempt."""

    async def call(self, call: IoCall) -> Json:
        """The answer, as JSON data. Raises ``IoError``; whatever else it raises becomes one."""


@runtime_checkable
class KnowsEffects(Protocol):
    """What a transport may say of its calls besides; without it a state says what they are."""

    def effect_traits(self, call: IoCall) -> EffectTraits:
        """What is known of ``call`` before it is made."""


@runtime_checkable
class LooksUpEffects(Protocol):
    """What a transport offers whose traits say ``looks_up``."""

    async def look_up(self, call: IoCall) -> Json:
        """What became of ``call``, which may have been made: the answer that it got.

        ``EffectNotMadeError`` says that it never was; any other error, that this is not known yet.
        """


_UNKNOWN = EffectTraits()


def effect_traits_of(transport: Transport, call: IoCall) -> EffectTraits:
    """What ``transport`` says of ``call``."""
    return transport.effect_traits(call) if isinstance(transport, KnowsEffects) else _UNKNOWN


async def look_up(transport: Transport, call: IoCall) -> Json:
    """What became of an effect, as its transport finds out."""
    if not isinstance(transport, LooksUpEffects):
        raise IoError.of("io_unimplemented", "the transport's traits promise a look_up that it does not have")
    return await transport.look_up(call)


class TransportFactory(Protocol):
    """Makes transports for the namespaces of one group."""

    @property
    def namespace_group(self) -> str:
        """Serves the namespace of this name, and those below it: ``<group>.…``."""

    def make(self, env: TransportEnv) -> Transport:
        """A transport for one attempt."""
