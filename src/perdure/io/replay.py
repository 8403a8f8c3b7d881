"""Replay: recorded facts answer, and nothing else does. No transport is ever made."""

from __future__ import annotations

from datetime import datetime, timedelta

import msgspec

from perdure.errors import (
    ErrorCategory,
    ErrorInfo,
    Json,
    MissingFactError,
    MissingFactKeyError,
    shaped,
)
from perdure.ids import ArtifactId, FactKey, RunId
from perdure.io.asking import (
    answer_bytes,
    check_request,
    checked_duration,
    checked_fact_key,
    checked_moment,
    checked_name,
    checked_patch,
    checked_request_id,
    checked_signals,
    fact_payload_conflict,
    own_fact_key,
)
from perdure.io.effects import effect_fact_key, effect_key
from perdure.io.facts import FactBinding, Facts, attempt_key
from perdure.io.patches import patch_key
from perdure.io.replay_maps import ReplayItems
from perdure.io.scope import AttemptScope
from perdure.io.waits import wait_key
from perdure.model.events import ArtifactKind
from perdure.model.handler import IoCall, IoResult, Signal
from perdure.model.meta import SideEffectKind
from perdure.stores.bundle import Stores
from perdure.stores.ports import Blob
from perdure.stores.reading import read_bytes, read_json


class ReplayIo:
    """The IO provider of one attempt in replay.

    ``recorded_run_id`` and ``recorded_attempt`` are those under which the facts were recorded.
    """

    def __init__(
        self,
        scope: AttemptScope,
        stores: Stores,
        facts: Facts,
        recorded_run_id: RunId,
        recorded_attempt: int,
        missing_fact_retryable: bool,
        side_effects: SideEffectKind = SideEffectKind.PURE,
        effect_fact_keys: frozenset[str] = frozenset(),
    ) -> None:
        self._scope = scope
        self._stores = stores
        self._facts = facts
        self._recorded_run_id = recorded_run_id
        self._recorded_attempt = recorded_attempt
        self._missing_fact_retryable = missing_fact_retryable
        self._side_effects = side_effects
        self._effect_fact_keys = effect_fact_keys

    async def call(self, call: IoCall) -> IoResult:
        self._scope.check()
        of_effect = self._effect_fact_key(call)
        fact_key = call.fact_key or of_effect
        if fact_key is None:
            raise MissingFactKeyError.of(
                "missing_fact_key", "a call without a fact key cannot be answered in replay"
            )
        key = own_fact_key(fact_key, of_effect)
        if key in self._effect_fact_keys and call.idempotency_key is None:
            self._scope.place.effects += 1
        request_id = checked_request_id(call)
        payload_id = self._payload_id(key)
        check_request(key, self._facts[key], request_id)
        value, _ = await read_json(self._stores.artifacts, payload_id)
        return IoResult(value, payload_id)

    async def record_value(self, key: str, value: Json) -> ArtifactId:
        self._scope.check()
        checked = own_fact_key(key)
        payload = Blob(ArtifactKind.FACT_PAYLOAD, answer_bytes(value))
        if self._payload_id(checked) != payload.id:
            raise fact_payload_conflict(checked)
        return payload.id

    async def get_recorded_fact(self, key: str) -> ArtifactId | None:
        self._scope.check()
        bound = self._facts.get(checked_fact_key(key))
        return None if bound is None else bound.payload_id

    async def now_millis(self) -> int:
        return int(await self._reading("now_millis"))

    async def random_bytes(self, count: int) -> bytes:
        return await self._reading("random_bytes")

    async def uuid4(self) -> str:
        return str(msgspec.json.decode(await self._reading("uuid4")))

    async def patched(self, name: str) -> bool:
        self._scope.check()
        bound = self._facts.get(patch_key(self._scope.state_id, checked_patch(name)))
        if bound is None:
            return False  # it was recorded before the code was changed
        value, _ = await read_json(self._stores.artifacts, bound.payload_id)
        return bool(value)

    async def read_artifact(self, artifact_id: ArtifactId) -> bytes:
        self._scope.check()
        return await read_bytes(self._stores.artifacts, ArtifactId(artifact_id))

    async def sleep(self, duration: timedelta, name: str | None = None) -> None:
        checked_duration(duration)
        self._end_of_wait(name)

    async def sleep_until(self, moment: datetime | int, name: str | None = None) -> None:
        checked_moment(moment)
        self._end_of_wait(name)

    async def wait_signal(
        self, signal: str, *, timeout: timedelta | None = None, name: str | None = None
    ) -> Signal | None:
        return await self.wait_any(signal, timeout=timeout, name=name)

    async def wait_any(
        self, *signals: str, timeout: timedelta | None = None, name: str | None = None
    ) -> Signal | None:
        checked_signals(signals)
        value, _ = await read_json(self._stores.artifacts, self._end_of_wait(name))
        return None if value is None else shaped(value, Signal)

    async def heartbeat(self, progress: Json = None) -> None:
        self._scope.check()

    def items(self, name: str | None) -> ReplayItems:
        """As ``KeepsItems.items``."""
        self._scope.check()
        return ReplayItems(self._scope, self._stores.artifacts, self._bound, name)

    def close(self) -> tuple[()]:
        """Nothing runs behind a replayed handler."""
        return ()

    def _end_of_wait(self, name: str | None) -> ArtifactId:
        self._scope.check()
        named, place = checked_name(name), self._scope.place
        if named is None:
            named = str(place.waits)
            place.waits += 1
        return self._payload_id(wait_key(place.key, named))

    def _effect_fact_key(self, call: IoCall) -> str | None:
        """The key under which an effect was recorded that has no fact key of its own."""
        place = self._scope.place
        key = effect_key(call, self._recorded_run_id, place.key, place.effects)
        return effect_fact_key(call, self._side_effects, key)

    async def _reading(self, kind: str) -> bytes:
        self._scope.check()
        place = self._scope.place
        key = attempt_key(
            kind, self._recorded_run_id, place.readings_key, self._recorded_attempt, place.readings
        )
        place.readings += 1
        return await read_bytes(self._stores.artifacts, self._payload_id(key))

    def _payload_id(self, key: FactKey) -> ArtifactId:
        return self._bound(key).payload_id

    def _bound(self, key: FactKey) -> FactBinding:
        bound = self._facts.get(key)
        if bound is None:
            info = ErrorInfo(
                "missing_fact",
                ErrorCategory.RPC,
                self._missing_fact_retryable,
                "the recorded run never learned this fact",
                {"key": str(key)},
            )
            raise MissingFactError(info, key)
        return bound
