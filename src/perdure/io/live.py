"""Live IO: recorded facts answer first; what nobody knows yet is asked once and recorded."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime, timedelta
from functools import cached_property
from typing import TypeVar

import msgspec

from perdure.canonical import encode
from perdure.errors import ErrorCategory, IoError, Json, PerdureError, StorageError, TransportError, shaped
from perdure.failpoints import FailpointStop
from perdure.ids import ArtifactId, FactKey
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
from perdure.io.children import AWAIT, SPAWN, is_child_call
from perdure.io.effects import EffectTraits, effect_fact_key
from perdure.io.facts import FactBinding, attempt_key, recordable
from perdure.io.flights import Flight
from perdure.io.live_children import LiveChildren
from perdure.io.live_effects import LiveEffects, PlannedEffect, is_effect
from perdure.io.live_maps import LiveItems
from perdure.io.live_patches import LivePatches
from perdure.io.live_waits import LiveWaits
from perdure.io.port import Transport, TransportEnv, effect_traits_of
from perdure.io.scope import AttemptScope, Pulse
from perdure.io.storing import read_recorded
from perdure.io.waits import CHILD, wait_key
from perdure.io.world import Publisher, World
from perdure.model.events import ArtifactKind
from perdure.model.handler import IoCall, IoResult, Signal
from perdure.model.meta import StateMeta
from perdure.secrets import redact
from perdure.stores.ports import Blob
from perdure.stores.reading import read_bytes, read_json

T = TypeVar("T")


PROGRESS_SECONDS = 1.0
"""How often progress is written down, at most."""


class LiveIo:
    """The IO provider of one attempt of a live run."""

    # Most attempts have none of these.
    _transport: Transport | None = None
    _published_seconds = -PROGRESS_SECONDS

    def __init__(
        self,
        world: World,
        scope: AttemptScope,
        meta: StateMeta,
        publisher: Publisher,
    ) -> None:
        self._world = world
        self._journal = world.journal
        self._scope = scope
        self._meta = meta
        self._publisher = publisher
        self._in_flight = world.flights
        if meta.heartbeat_timeout is not None:
            self._pulse.beat()

    @cached_property
    def _pulse(self) -> Pulse:
        return Pulse(self._scope, self._meta.heartbeat_timeout)

    @cached_property
    def _kept(self) -> dict[ArtifactId, bytes]:
        return {}

    @cached_property
    def _waits(self) -> LiveWaits:
        world = self._world
        return LiveWaits(self._scope, self._journal, world.clock, world.park_after, self._pulse)

    @cached_property
    def _effects(self) -> LiveEffects:
        world = self._world
        return LiveEffects(self._scope, world.stores.artifacts, self._journal, world.clock, self._waits)

    @cached_property
    def _children(self) -> LiveChildren:
        world = self._world
        return LiveChildren(
            self._scope, world.stores, self._journal, self._waits, world.child_runs, self._pulse
        )

    @cached_property
    def _patches(self) -> LivePatches:
        return LivePatches(self._scope, self._world.stores.artifacts, self._journal)

    async def call(self, call: IoCall) -> IoResult:
        self._scope.check()
        key = None
        if call.fact_key is not None:
            own = effect_fact_key(call, self._meta.side_effects, self._effects.key_of(call))
            key = own_fact_key(call.fact_key, own)
        bound = None if key is None else self._journal.facts.get(key)
        if key is not None and bound is not None:
            self._asks(call, key)
            request_id = checked_request_id(call)
            if self._journal.effects:
                self._effects.skip(key, call, request_id)
            check_request(key, bound, request_id)
            recorded = await self._recorded(bound)
            if call.namespace == SPAWN:
                await self._children.spawned_before(call, key, recorded.response)
            return recorded
        if is_child_call(call) and key is not None:
            self._asks(call, key)
            request_id, asked_key = checked_request_id(call), key
            return await self._once(key, request_id, lambda: self._children.call(call, asked_key, request_id))
        traits = self._traits_of(call)
        if is_effect(call.effect, self._meta.side_effects, traits):
            return await self._apply_once(call, traits)
        if key is None:
            return IoResult(await self._ask(call))
        own_fact_key(key)  # one of an effect's, which the transport says this is not, is refused
        request_id, asked_key = checked_request_id(call), key
        return await self._once(key, request_id, lambda: self._ask_and_record(asked_key, call, request_id))

    async def sleep(self, duration: timedelta, name: str | None = None) -> None:
        await self._waits.sleep_until(None, checked_name(name), checked_duration(duration))

    async def sleep_until(self, moment: datetime | int, name: str | None = None) -> None:
        await self._waits.sleep_until(checked_moment(moment), checked_name(name))

    async def wait_signal(
        self, signal: str, *, timeout: timedelta | None = None, name: str | None = None
    ) -> Signal | None:
        return await self.wait_any(signal, timeout=timeout, name=name)

    async def wait_any(
        self, *signals: str, timeout: timedelta | None = None, name: str | None = None
    ) -> Signal | None:
        limit = None if timeout is None else checked_duration(timeout)
        payload_id = await self._waits.signal(checked_signals(signals), checked_name(name), limit)
        value, _ = await read_json(self._world.stores.artifacts, payload_id)
        return None if value is None else shaped(value, Signal)

    async def heartbeat(self, progress: Json = None) -> None:
        self._scope.check()
        self._pulse.beat()
        now = self._world.clock.monotonic_seconds()
        if progress is not None and now - self._published_seconds >= PROGRESS_SECONDS:
            self._published_seconds = now
            await self._publisher.publish("progress", progress)

    async def record_value(self, key: str, value: Json) -> ArtifactId:
        self._scope.check()
        checked = own_fact_key(key)
        payload = Blob(ArtifactKind.FACT_PAYLOAD, answer_bytes(value))

        async def record() -> IoResult:
            with self._scope:
                await self._record(checked, payload, None)
            return IoResult(None, payload.id)

        self._scope.reach(checked)
        # Whoever binds the key first decides; the others are compared with that.
        while (bound := self._journal.facts.get(checked)) is None:
            flight = self._in_flight.get(checked)
            if flight is None:
                await self._once(checked, None, record)
            else:
                await flight.landing(self._scope)
        if bound.payload_id != payload.id:
            raise fact_payload_conflict(checked)
        return payload.id

    async def get_recorded_fact(self, key: str) -> ArtifactId | None:
        self._scope.check()
        checked = checked_fact_key(key)
        self._scope.reach(checked)
        bound = self._journal.facts.get(checked)
        return None if bound is None else bound.payload_id

    async def now_millis(self) -> int:
        data = await self._reading("now_millis", lambda: b"%d" % self._world.clock.now_millis())
        return int(data)

    async def random_bytes(self, count: int) -> bytes:
        if count < 0:
            raise IoError.of(
                "io_request_invalid",
                "the number of random bytes is negative",
                category=ErrorCategory.PARSING_INPUT,
            )
        return await self._reading("random_bytes", lambda: self._world.clock.random_bytes(count))

    async def uuid4(self) -> str:
        def draw() -> bytes:
            return encode(str(uuid.UUID(bytes=self._world.clock.random_bytes(16), version=4)))

        return str(msgspec.json.decode(await self._reading("uuid4", draw)))

    async def patched(self, name: str) -> bool:
        self._scope.check()
        return await self._patches.answer(checked_patch(name))

    async def read_artifact(self, artifact_id: ArtifactId) -> bytes:
        self._scope.check()
        kept = self._kept.get(artifact_id)
        return kept or await read_bytes(self._world.stores.artifacts, ArtifactId(artifact_id))

    def items(self, name: str | None) -> LiveItems:
        """As ``KeepsItems.items``."""
        self._scope.check()
        artifacts = self._world.stores.artifacts
        return LiveItems(self._scope, artifacts, self._journal, self._world.clock, self._pulse, name)

    def close(self) -> Sequence[asyncio.Task[IoResult]]:
        """Cancel the calls that the handler left running; they are to be waited for."""
        if self._meta.heartbeat_timeout is not None:
            self._pulse.end()
        if not self._in_flight:
            return ()
        flights = [flight for flight in self._in_flight.values() if flight.owner is self._scope]
        tasks = [flight.task for flight in flights if flight.task is not None]
        for task in tasks:
            task.cancel()
        return tasks

    async def _once(
        self, key: FactKey, request_id: str | None, fetch: Callable[[], Awaitable[IoResult]]
    ) -> IoResult:
        """The recorded answer of ``key``, or that of the one fetch which all who ask for it share."""
        self._scope.reach(key)
        while True:
            self._scope.check()  # a call that was given up because the attempt is over is not made again
            bound = self._journal.facts.get(key)
            if bound is not None:
                check_request(key, bound, request_id)
                return await self._recorded(bound)
            flight = self._in_flight.get(key)
            if flight is None:
                flight = self._in_flight[key] = Flight(self._scope, request_id)
                if asyncio.current_task() is self._scope.task:
                    # Without a task of its own: the handler that awaits its call directly, as most do.
                    return await self._fly(key, flight, fetch)
                flight.task = asyncio.create_task(self._fly(key, flight, fetch))
            else:
                check_request(key, FactBinding(ArtifactId.trusted(""), flight.request_id), request_id)
            result = await flight.landing(self._scope)
            if result is not None:
                return result

    async def _fly(self, key: FactKey, flight: Flight, fetch: Callable[[], Awaitable[IoResult]]) -> IoResult:
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

    def _asks(self, call: IoCall, key: FactKey) -> None:
        self._scope.reach(key)
        if call.namespace == AWAIT and isinstance(call.request, dict):
            # Awaiting is perhaps not a wait this time: the child may have ended since.
            awaited = f"{CHILD}:{call.request.get('child_run_id')}"
            self._scope.reach(wait_key(self._scope.place.key, awaited))

    def _traits_of(self, call: IoCall) -> EffectTraits:
        if self._transport is None:
            self._transport = self._world.make_transport(self._env())
        return effect_traits_of(self._transport, call)

    async def _apply_once(self, call: IoCall, traits: EffectTraits) -> IoResult:
        effect, request_id = self._effects.plan(call, traits), checked_request_id(call)
        self._effects.check_request(effect, request_id)
        key = checked_fact_key(effect.fact_key)
        return await self._once(key, request_id, lambda: self._apply(effect, request_id))

    async def _apply(self, effect: PlannedEffect, request_id: str) -> IoResult:
        def payload_of(answer: Json) -> Blob:
            return self._payload_of(effect.call, answer)

        payload = await self._effects.apply(
            effect, request_id, lambda asking: self._reach(effect.call, asking), payload_of
        )
        return IoResult(msgspec.json.decode(payload.data), payload.id)

    async def _ask(self, call: IoCall) -> Json:
        return await self._reach(call, lambda transport: transport.call(call))

    async def _reach(self, call: IoCall, asking: Callable[[Transport], Awaitable[Json]]) -> Json:
        try:
            self._journal.check_may_call()
        except StorageError as error:
            self._scope.fatal = error
            raise
        if self._transport is None:
            self._transport = self._world.make_transport(self._env())
        self._world.failpoints.hit("transport.before")
        try:
            with self._scope:
                answer = await asking(self._transport)
        except (PerdureError, asyncio.CancelledError):
            raise
        except Exception as error:
            raise TransportError.of(
                "transport_raised",
                f"the transport raised {type(error).__name__}",
                details={"namespace": str(call.namespace)},
            ) from error
        self._world.failpoints.hit("transport.after")
        return answer

    def _env(self) -> TransportEnv:
        scope = self._scope
        return TransportEnv(
            self._world.stores,
            scope.run_id,
            scope.state_id,
            scope.attempt,
            self._world.secrets,
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
        with self._scope:
            answer = await self._ask(call)
            self._scope.check()
            payload = self._payload_of(call, answer)
            await self._record(key, payload, request_id)
        # Decoded anew, so that live and recorded answers are alike to the last tuple.
        return IoResult(msgspec.json.decode(payload.data), payload.id)

    def _payload_of(self, call: IoCall, answer: Json) -> Blob:
        if call.redact:
            answer, _ = redact(answer)
        return Blob(ArtifactKind.FACT_PAYLOAD, answer_bytes(answer))

    async def _record(self, key: FactKey, payload: Blob, request_id: str | None) -> None:
        try:
            await self._journal.record(key, payload, request_id)
        except StorageError as error:
            if error.code != "fact_not_recorded":
                self._scope.fatal = error
            raise

    async def _recorded(self, bound: FactBinding) -> IoResult:
        value, _ = await read_recorded(self._scope, self._world.stores.artifacts, bound.payload_id)
        return IoResult(value, bound.payload_id)

    async def _reading(self, kind: str, read: Callable[[], bytes]) -> bytes:
        """The attempt's next reading of time or randomness."""
        self._scope.check()
        place = self._scope.place
        key = attempt_key(kind, self._scope.run_id, place.readings_key, self._scope.attempt, place.readings)
        place.readings += 1
        self._scope.reach(key)
        bound = self._journal.facts.get(key)
        if bound is not None:
            return await read_bytes(self._world.stores.artifacts, bound.payload_id)
        data = read()
        self._journal.ride(key, Blob(ArtifactKind.FACT_PAYLOAD, data))
        return data
