"""What the attempts of a live run share."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Protocol

import msgspec

from perdure.clock import Clock
from perdure.errors import Json
from perdure.failpoints import Failpoints
from perdure.io.flights import Flights
from perdure.io.journal import Journal
from perdure.io.live_children import ChildRuns
from perdure.io.port import Transport, TransportEnv
from perdure.secrets import SecretResolver
from perdure.stores.bundle import Stores


class World(msgspec.Struct, frozen=True):
    """What the attempts of a live run reach the outside with, and where they write down what they learn."""

    stores: Stores
    journal: Journal
    make_transport: Callable[[TransportEnv], Transport]
    secrets: SecretResolver
    clock: Clock
    failpoints: Failpoints
    park_after: timedelta
    child_runs: ChildRuns
    flights: Flights = msgspec.field(default_factory=dict)
    """The calls under way in the run, which attempts side by side share."""


class Publisher(Protocol):
    """What writes values down at once."""

    async def publish(self, name: str, value: Json) -> None:
        """Write ``value`` under ``name``."""
