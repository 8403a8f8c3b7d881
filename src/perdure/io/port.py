"""What a transport is: the seam behind which the outside world begins."""

from __future__ import annotations

from typing import Protocol

import msgspec

from perdure.errors import Json
from perdure.ids import RunId, StateId
from perdure.model.handler import IoCall
from perdure.stores.bundle import Stores


class TransportEnv(msgspec.Struct, frozen=True):
    """For whom a transport is made: one attempt at one state of one run."""

    stores: Stores
    run_id: RunId
    state_id: StateId
    attempt: int


class Transport(Protocol):
    """Asks the outside world, for one attempt."""

    async def call(self, call: IoCall) -> Json:
        """The answer, as JSON data. Raises ``IoError``; whatever else it raises becomes one."""


class TransportFactory(Protocol):
    """Makes transports for the namespaces of one group."""

    @property
    def namespace_group(self) -> str:
        """Serves the namespace of this name, and those below it: ``<group>.…``."""

    def make(self, env: TransportEnv) -> Transport:
        """A transport for one attempt."""
