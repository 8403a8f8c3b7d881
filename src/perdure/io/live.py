"""Live IO: recorded facts answer first; what nobody knows yet is asked once and recorded."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Awaitable, Callable
from typing import Protocol, TypeVar

import msgspec

from perdure.canonical import CanonicalJsonError, canonical_json_bytes, encode, encode_string
from perdure.clock import Clock
from perdure.errors import ErrorCategory, IoError, Json, PerdureError, StorageError, TransportError
from perdure.failpoints import Failpoints, FailpointStop
from perdure.ids import ArtifactId, FactKey, RunId, StateId
from perdure.io.facts import FactBinding, Facts, attempt_key, recordable, request_id_of
from perdure.io.port import Transport, TransportEnv
from perdure.model.events import ArtifactKind
from perdure.model.handler import IoCall, IoResult
from perdure.secrets import SecretResolver, redact
from perdure.secrets.prefilter import surely_clean
from perdure.secrets.resolved import RESOLVED
from perdure.stores.bundle import Stores
from perdure.stores.ports import Blob
from perdure.stores.reading import read_bytes, read_json

T = TypeVar("T")


class FactJournal(Protocol):
    """Where an attempt's facts are kept; the engine's."""

    @property
    def facts(self) -> Facts:
        """The run's durable facts."""

    async def record(self, key: FactKey, payload: Blob, request_id: str | None) -> None:
        """Bind ``key`` durably, together with what rides along. ``StorageError`` if it was not kept."""

    def ride(self, key: FactKey, payload: Blob) -> None:
        """Bind ``key`` with the next durable write that must happen anyway."""

    def keep(self, blob: Blob) -> None:
        """Keep ``blob`` with the next durable write."""

    def check_may_call(self) -> None:
        """Raise ``ConcurrencyError`` when the owner may no longer act for the run."""


class AttemptScope:
    """The life of one attempt: everything handed to its handler stops working when it is over."""

    def __init__(self, run_id: RunId, state_id: StateId, attempt: int) -> None:
        self.run_id = run_id
        self.state_id = state_id
        self.attempt = attempt
        self.fatal: BaseException | None = None
        """An error that ends the stint whatever the handler makes of it."""
        self._closed = False

    def check(self) -> None:
        """Raise ``IoError`` (``attempt_closed``) once the attempt is over."""
        if self._closed:
            raise IoError.of(
                "attempt_closed",
                "the attempt is over; what it left running can do nothing more",
                details={"state_id": self.state_id, "attempt": self.attempt},
            )
        if self.fatal is not None:
            raise self.fatal

    def close(self) -> None:
        """End the attempt for its handler."""
        self._closed = True


class LiveIo:
    """The IO provider of one attempt of a live run."""

    def __init__(
        self,
        scope: AttemptScope,
        stores: Stores,
        journal: FactJournal,
        make_transport: Callable[[TransportEnv], Transport],
        secrets: SecretResolver,
        clock: Clock,
        failpoints: Failpoints,
    ) -> None:
        self._scope = scope
        self._stores = stores
        self._journal = journal
        self._make_transport = make_transport
        self._clock = clock
        self._failpoints = failpoints
        self._secrets = secrets
        self._transport: Transport | None = None
        self._kept: dict[ArtifactId, bytes] = {}
        self._in_flight: dict[str, _Flight] = {}
        self._handler = asyncio.current_task()
        self._ordinal = 0

    async def call(self, call: IoCall) -> IoResult:
        self._scope.check()
        if call.fact_key is None:
            return IoResult(await self._ask(call))
        key = checked_fact_key(call.fact_key)
        request_id = checked_request_id(call)
        return await self._once(key, request_id, lambda: self._ask_and_record(key, call, request_id))

    async def record_value(self, key: str, value: Json) -> ArtifactId:
        self._scope.check()
        checked = checked_fact_key(key)
        payload = Blob(ArtifactKind.FACT_PAYLOAD, answer_bytes(value))

        async def record() -> IoResult:
            await self._record(checked, payload, None)
            return IoResult(None, payload.id)

        # Whoever binds the key first decides; the others are compared with that.
        while (bound := self._journal.facts.get(checked)) is None:
            flight = self._in_flight.get(checked)
            if flight is None:
                await self._once(checked, None, record)
            else:
                await flight.landing()
        if bound.payload_id != payload.id:
            raise fact_payload_conflict(checked)
        return payload.id

    async def get_recorded_fact(self, key: str) -> ArtifactId | None:
        self._scope.check()
        bound = self._journal.facts.get(checked_fact_key(key))
        return None if bound is None else bound.payload_id

    async def now_millis(self) -> int:
        data = await self._reading("now_millis", lambda: b"%d" % self._clock.now_millis())
        return int(data)

    async def random_bytes(self, count: int) -> bytes:
        if count < 0:
            raise IoError.of(
                "io_request_invalid",
                "the number of random bytes is negative",
                category=ErrorCategory.PARSING_INPUT,
            )
        return await self._reading("random_bytes", lambda: self._clock.random_bytes(count))

    async def uuid4(self) -> str:
        def draw() -> bytes:
            return encode(str(uuid.UUID(bytes=self._clock.random_bytes(16), version=4)))

        return str(msgspec.json.decode(await self._reading("uuid4", draw)))

    async def read_artifact(self, artifact_id: ArtifactId) -> bytes:
        self._scope.check()
        kept = self._kept.get(artifact_id)
        return kept or await read_bytes(self._stores.artifacts, ArtifactId(artifact_id))

    async def close(self) -> None:
        """Stop the calls that the handler left running."""
        if not self._in_flight:
            return
        tasks = [flight.task for flight in self._in_flight.values() if flight.task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _once(
        self, key: FactKey, request_id: str | None, fetch: Callable[[], Awaitable[IoResult]]
    ) -> IoResult:
        """The recorded answer of ``key``, or that of the one fetch which all who ask for it share."""
        while True:
            bound = self._journal.facts.get(key)
            if bound is not None:
                check_request(key, bound, request_id)
                return await self._recorded(bound)
            flight = self._in_flight.get(key)
            if flight is None:
                flight = self._in_flight[key] = _Flight(request_id)
                if asyncio.current_task() is self._handler:
                    # Without a task of its own: the handler that awaits its call directly, as most do.
                    return await self._fly(key, flight, fetch)
                flight.task = asyncio.create_task(self._fly(key, flight, fetch))
            else:
                check_request(key, FactBinding(ArtifactId.trusted(""), flight.request_id), request_id)
            result = await flight.landing()
            if result is not None:
                return result

    async def _fly(self, key: FactKey, flight: _Flight, fetch: Callable[[], Awaitable[IoResult]]) -> IoResult:
        try:
            flight.result = await fetch()
        except asyncio.CancelledError:
            raise  # nothing was learned: whoever still waits asks for itself
        except BaseException as error:
            if isinstance(error, FailpointStop):
                self._scope.fatal = error
            flight.error = error
            raise
        finally:
            del self._in_flight[key]
            flight.land()
        return flight.result

    async def _ask(self, call: IoCall) -> Json:
        try:
            self._journal.check_may_call()
        except StorageError as error:
            self._scope.fatal = error
            raise
        if self._transport is None:
            self._transport = self._make_transport(self._env())
        self._failpoints.hit("transport.before")
        try:
            answer = await self._transport.call(call)
        except (PerdureError, asyncio.CancelledError):
            raise
        except Exception as error:
            raise TransportError.of(
                "transport_raised",
                f"the transport raised {type(error).__name__}",
                details={"namespace": str(call.namespace)},
            ) from error
        self._failpoints.hit("transport.after")
        return answer

    def _env(self) -> TransportEnv:
        scope = self._scope
        return TransportEnv(
            self._stores,
            scope.run_id,
            scope.state_id,
            scope.attempt,
            self._secrets,
            self._keep,
            self.read_artifact,
        )

    def _keep(self, data: bytes, redacted: bool) -> ArtifactId:
        data = recordable(data, redacted)
        blob = Blob(ArtifactKind.FACT_PAYLOAD, data)
        self._kept[blob.id] = data
        self._journal.keep(blob)
        return blob.id

    async def _ask_and_record(self, key: FactKey, call: IoCall, request_id: str | None) -> IoResult:
        answer = await self._ask(call)
        self._scope.check()
        if call.redact:
            answer, _ = redact(answer)
        payload = Blob(ArtifactKind.FACT_PAYLOAD, answer_bytes(answer))
        await self._record(key, payload, request_id)
        # Decoded anew, so that live and recorded answers are alike to the last tuple.
        return IoResult(msgspec.json.decode(payload.data), payload.id)

    async def _record(self, key: FactKey, payload: Blob, request_id: str | None) -> None:
        try:
            await self._journal.record(key, payload, request_id)
        except StorageError as error:
            if error.code != "fact_not_recorded":
                self._scope.fatal = error
            raise

    async def _recorded(self, bound: FactBinding) -> IoResult:
        try:
            value, _ = await read_json(self._stores.artifacts, bound.payload_id)
        except StorageError as error:
            self._scope.fatal = error
            raise
        return IoResult(value, bound.payload_id)

    async def _reading(self, kind: str, read: Callable[[], bytes]) -> bytes:
        """The attempt's next reading of time or randomness."""
        self._scope.check()
        key = attempt_key(kind, self._scope.run_id, self._scope.state_id, self._scope.attempt, self._ordinal)
        self._ordinal += 1
        bound = self._journal.facts.get(key)
        if bound is not None:
            return await read_bytes(self._stores.artifacts, bound.payload_id)
        data = read()
        self._journal.ride(key, Blob(ArtifactKind.FACT_PAYLOAD, data))
        return data


class _Flight:
    """A call that is being made, and whoever waits for it. It is given up when nobody does any more."""

    def __init__(self, request_id: str | None) -> None:
        self.request_id = request_id
        self.task: asyncio.Task[IoResult] | None = None
        self.result: IoResult | None = None
        self.error: BaseException | None = None
        self._waiting: set[asyncio.Future[None]] = set()

    async def landing(self) -> IoResult | None:
        """Wait for the result, or None if the call was given up. Raises what the call raised."""
        future = asyncio.get_running_loop().create_future()
        self._waiting.add(future)
        try:
            await future
        except asyncio.CancelledError:
            self._waiting.discard(future)
            if not self._waiting and self.task is not None:
                self.task.cancel()
            raise
        if self.error is not None:
            raise self.error
        return self.result

    def land(self) -> None:
        """Tell whoever waits."""
        if self.task is not None:
            # The waiters raise it; nobody asks the task.
            self.task.add_done_callback(lambda task: task.cancelled() or task.exception())
        for future in self._waiting:
            if not future.done():
                future.set_result(None)


def checked_fact_key(key: str) -> FactKey:
    """``key`` as a fact key, free of secrets: it stands in events."""
    checked = FactKey(key)
    data = encode_string(checked)
    if surely_clean(data) and not RESOLVED.occurs_in(data):
        return checked
    try:
        canonical_json_bytes(checked)
    except CanonicalJsonError:
        raise IoError.of("secrets_detected", "the fact key holds what looks like a secret") from None
    return checked


def checked_request_id(call: IoCall) -> str:
    """The id of the call's request; ``IoError`` for a request that may not be written."""
    try:
        return request_id_of(call.namespace, call.request)
    except CanonicalJsonError as error:
        if error.code == "secrets_detected":
            raise IoError(error.info) from None
        raise IoError.of(
            error.code,
            f"the request cannot be recorded: {error.info.message}",
            category=ErrorCategory.PARSING_INPUT,
            details=error.info.details,
        ) from None


def answer_bytes(answer: Json) -> bytes:
    """An answer's canonical bytes; ``IoError`` (``fact_payload_not_canonical``, ``secrets_detected``)."""
    try:
        return canonical_json_bytes(answer)
    except CanonicalJsonError as error:
        if error.code == "secrets_detected":
            raise IoError(error.info) from None
        raise IoError.of(
            "fact_payload_not_canonical",
            f"the answer cannot be recorded: {error.info.message}",
            category=ErrorCategory.PARSING_INPUT,
            details={"reason": error.code, "pointer": error.pointer},
        ) from None


def check_request(key: FactKey, bound: FactBinding, request_id: str | None) -> None:
    """Refuse a key that was bound by another question (``fact_request_mismatch``)."""
    if None not in (bound.request_id, request_id) and bound.request_id != request_id:
        raise IoError.of(
            "fact_request_mismatch",
            "the fact key is bound to the answer of another request",
            category=ErrorCategory.PARSING_INPUT,
            details={"key": str(key)},
        )


def fact_payload_conflict(key: FactKey) -> IoError:
    """The refusal of a second value for a key."""
    return IoError.of(
        "fact_payload_conflict",
        "the fact key is bound to another value",
        category=ErrorCategory.STORAGE,
        details={"key": str(key)},
    )
