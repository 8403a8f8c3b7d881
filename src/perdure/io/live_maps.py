"""The items of maps, in a live attempt."""

from __future__ import annotations

from datetime import timedelta

from perdure.clock import Clock
from perdure.errors import Json, StorageError
from perdure.io.facts import FactBinding
from perdure.io.journal import Journal
from perdure.io.maps import MapPlaces
from perdure.io.scope import AttemptScope, Place, Pulse
from perdure.io.storing import read_recorded
from perdure.model.events import ArtifactKind
from perdure.stores.ports import ArtifactStore, Blob


class LiveItems(MapPlaces):
    """The items of one map. Their outcomes ride along until somebody lands them, or the handler ends."""

    def __init__(
        self,
        scope: AttemptScope,
        artifacts: ArtifactStore,
        journal: Journal,
        clock: Clock,
        pulse: Pulse,
        name: str | None,
    ) -> None:
        super().__init__(scope, name)
        self._artifacts = artifacts
        self._journal = journal
        self._clock = clock
        self._pulse = pulse

    def recorded(self, index: int) -> FactBinding | None:
        self._scope.check()
        key = self.fact_key(index)
        self._scope.reach(key)
        return self._journal.facts.get(key)

    def first_recorded(self, index: int, count: int) -> int | None:
        facts = self._journal.facts
        return next((each for each in range(index, index + count) if self.fact_key(each) in facts), None)

    async def outcome(self, bound: FactBinding) -> Json:
        value, _ = await read_recorded(self._scope, self._artifacts, bound.payload_id)
        return value

    def keep(self, index: int, request_id: str, payload: bytes) -> bytes:
        self._scope.check()
        blob = Blob(ArtifactKind.FACT_PAYLOAD, payload)
        return self._journal.ride(self.fact_key(index), blob, request_id).data

    async def land(self) -> None:
        self._scope.check()
        try:
            await self._journal.land()
        except StorageError as error:
            if error.code != "fact_not_recorded":
                self._scope.fatal = error
            raise

    async def pause(self, delay: timedelta) -> None:
        due_millis = self._clock.now_millis() + -(-delay // timedelta(milliseconds=1))
        with self._pulse:
            await self._clock.sleep_until(due_millis)

    def leaves_doubt(self, place: Place) -> bool:
        effects = self._journal.effects
        return any(key in effects and effects[key].is_in_doubt for key in place.effect_keys)
