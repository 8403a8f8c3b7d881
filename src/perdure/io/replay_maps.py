"""The items of maps, in replay: all of them are on record."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

from perdure.errors import Json
from perdure.ids import FactKey
from perdure.io.facts import FactBinding
from perdure.io.maps import MapPlaces
from perdure.io.scope import AttemptScope, Place
from perdure.stores.ports import ArtifactStore
from perdure.stores.reading import read_json


class ReplayItems(MapPlaces):
    """The items of one map. ``bound`` gives a fact, or raises ``MissingFactError``."""

    def __init__(
        self,
        scope: AttemptScope,
        artifacts: ArtifactStore,
        bound: Callable[[FactKey], FactBinding],
        name: str | None,
    ) -> None:
        super().__init__(scope, name)
        self._artifacts = artifacts
        self._bound = bound

    def recorded(self, index: int) -> FactBinding | None:
        self._scope.check()
        return self._bound(self.fact_key(index))

    def first_recorded(self, index: int, count: int) -> int | None:
        """All of those that the recorded run had were asked for, or the context differs."""
        return None

    async def outcome(self, bound: FactBinding) -> Json:
        value, _ = await read_json(self._artifacts, bound.payload_id)
        return value

    def keep(self, index: int, request_id: str, payload: bytes) -> bytes:
        return payload

    async def land(self) -> None:
        """Nothing is written in replay."""

    async def pause(self, delay: timedelta) -> None:
        """Nobody waits in replay."""

    def leaves_doubt(self, place: Place) -> bool:
        return False
