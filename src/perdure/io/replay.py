"""Replay: recorded facts answer, and nothing else does. No transport is ever made."""

from __future__ import annotations

import msgspec

from perdure.errors import ErrorCategory, ErrorInfo, Json, MissingFactError, MissingFactKeyError
from perdure.ids import ArtifactId, FactKey, RunId
from perdure.io.facts import Facts, attempt_key
from perdure.io.live import (
    AttemptScope,
    answer_bytes,
    check_request,
    checked_fact_key,
    checked_request_id,
    fact_payload_conflict,
)
from perdure.model.events import ArtifactKind
from perdure.model.handler import IoCall, IoResult
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
    ) -> None:
        self._scope = scope
        self._stores = stores
        self._facts = facts
        self._recorded_run_id = recorded_run_id
        self._recorded_attempt = recorded_attempt
        self._missing_fact_retryable = missing_fact_retryable
        self._ordinal = 0

    async def call(self, call: IoCall) -> IoResult:
        self._scope.check()
        if call.fact_key is None:
            raise MissingFactKeyError.of(
                "missing_fact_key", "a call without a fact key cannot be answered in replay"
            )
        key = checked_fact_key(call.fact_key)
        request_id = checked_request_id(call)
        payload_id = self._payload_id(key)
        check_request(key, self._facts[key], request_id)
        value, _ = await read_json(self._stores.artifacts, payload_id)
        return IoResult(value, payload_id)

    async def record_value(self, key: str, value: Json) -> ArtifactId:
        self._scope.check()
        checked = checked_fact_key(key)
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

    async def read_artifact(self, artifact_id: ArtifactId) -> bytes:
        self._scope.check()
        return await read_bytes(self._stores.artifacts, ArtifactId(artifact_id))

    async def close(self) -> None:
        """Nothing runs behind a replayed handler."""

    async def _reading(self, kind: str) -> bytes:
        self._scope.check()
        key = attempt_key(
            kind, self._recorded_run_id, self._scope.state_id, self._recorded_attempt, self._ordinal
        )
        self._ordinal += 1
        return await read_bytes(self._stores.artifacts, self._payload_id(key))

    def _payload_id(self, key: FactKey) -> ArtifactId:
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
        return bound.payload_id
