"""Effects, in a live attempt: made once, or the run stops and asks."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import timedelta

import msgspec

from perdure.clock import Clock
from perdure.errors import (
    EffectNotMadeError,
    ErrorCategory,
    ErrorInfo,
    IoError,
    Json,
    PerdureError,
    StorageError,
)
from perdure.ids import FactKey
from perdure.io.effects import (
    APPLIED,
    EFFECT_PREFIX,
    NOT_APPLIED,
    Effect,
    EffectTraits,
    effect_answer_lost,
    effect_intended,
    effect_key,
    effect_request_mismatch,
    effect_settled,
)
from perdure.io.facts import fact_event
from perdure.io.journal import Entry, Journal
from perdure.io.live_waits import LiveWaits
from perdure.io.port import Transport, look_up
from perdure.io.scope import AttemptScope
from perdure.io.storing import append, read_recorded
from perdure.model.events import ArtifactKind
from perdure.model.handler import IoCall
from perdure.model.meta import SideEffectKind
from perdure.stores.ports import ArtifactStore, Blob

Ask = Callable[[Callable[[Transport], Awaitable[Json]]], Awaitable[Json]]


class PlannedEffect(msgspec.Struct, frozen=True):
    """A call that is an effect: with its idempotency key, and the key of the fact that its answer becomes."""

    call: IoCall
    key: str
    fact_key: FactKey
    traits: EffectTraits


def is_effect(declared: SideEffectKind | None, of_state: SideEffectKind, traits: EffectTraits) -> bool:
    """Whether a call changes the world: the call says it, else the transport, else the state.

    ``IoError`` (``effect_not_declared``) where the transport says so, and neither call nor state does.
    """
    if declared is not None:
        return declared is SideEffectKind.APPLY_SIDE_EFFECT
    applies = of_state is SideEffectKind.APPLY_SIDE_EFFECT
    if traits.is_effect and not applies:
        raise IoError.of(
            "effect_not_declared",
            "the call changes the world, but its state is not declared to",
            category=ErrorCategory.PARSING_INPUT,
        )
    return applies and traits.is_effect is not False


class LiveEffects:
    """The effects of one attempt."""

    def __init__(
        self,
        scope: AttemptScope,
        artifacts: ArtifactStore,
        journal: Journal,
        clock: Clock,
        waits: LiveWaits,
    ) -> None:
        self._scope = scope
        self._artifacts = artifacts
        self._journal = journal
        self._clock = clock
        self._waits = waits

    def skip(self, fact_key: FactKey, call: IoCall, request_id: str) -> None:
        """Take note that ``call`` is answered by a fact: it keeps its place if it is an effect."""
        for effect in self._journal.effects.values():
            if effect.fact_key == fact_key:
                if effect.request_id != request_id:
                    raise effect_request_mismatch(effect.key)
                self._scope.place.effects += call.idempotency_key is None

    def key_of(self, call: IoCall) -> str:
        """The key of ``call`` as the attempt's next effect."""
        place = self._scope.place
        return effect_key(call, self._scope.run_id, place.key, place.effects)

    def plan(self, call: IoCall, traits: EffectTraits) -> PlannedEffect:
        """Give ``call`` its keys: its own, or those of its place among the attempt's effects."""
        key, place = self.key_of(call), self._scope.place
        place.effects += call.idempotency_key is None
        place.effect_keys.append(key)
        fact_key = FactKey(EFFECT_PREFIX + key if call.fact_key is None else call.fact_key)
        return PlannedEffect(msgspec.structs.replace(call, idempotency_key=key), key, fact_key, traits)

    def check_request(self, effect: PlannedEffect, request_id: str) -> None:
        """Refuse another request under the key of an effect (``effect_request_mismatch``)."""
        known = self._journal.effects.get(effect.key)
        if known is not None and known.request_id != request_id:
            raise effect_request_mismatch(effect.key)

    async def apply(
        self, effect: PlannedEffect, request_id: str, ask: Ask, payload_of: Callable[[Json], Blob]
    ) -> Blob:
        """Make the effect, and record its answer; the answer's payload.

        Raises what the transport raises. Where it is not known what became of the effect, that is
        retryable if the next attempt can find out; else the run is parked until somebody says it.
        """
        while True:
            with self._scope:  # the run is not parked between an intent and what comes of it
                payload = await self._try(effect, request_id, ask, payload_of)
            if payload is not None:
                return payload
            await self._waits.settlement(effect.key, self._journal.effects[effect.key].intents)

    async def _try(
        self, effect: PlannedEffect, request_id: str, ask: Ask, payload_of: Callable[[Json], Blob]
    ) -> Blob | None:
        """The answer, recorded; None if there is none, and no attempt can find it out."""

        async def learn(
            asking: Callable[[Transport], Awaitable[Json]], denies: Callable[[PerdureError], bool]
        ) -> Blob | None:
            return await self._learn(effect, request_id, ask, payload_of, asking, denies)

        known = self._journal.effects.get(effect.key)
        if known is not None and known.outcome == APPLIED:
            return await self._answer_of(known, effect.fact_key, request_id)
        if known is None or not known.is_in_doubt:
            if await self._intend(effect, request_id):
                return await learn(lambda to: to.call(effect.call), _refuses)
            return await self._try(effect, request_id, ask, payload_of)
        if self._may_repeat(effect.traits, known):
            # That this call was refused says nothing about the one before.
            return await learn(lambda to: to.call(effect.call), lambda error: False)
        if effect.traits.looks_up:
            try:
                return await learn(lambda to: look_up(to, effect.call), _was_not_found)
            except EffectNotMadeError:
                return await self._try(effect, request_id, ask, payload_of)
        return None

    async def _answer_of(self, known: Effect, fact_key: FactKey, request_id: str) -> Blob:
        """The answer that an effect got, bound to ``fact_key``; ``IoError`` if it was not kept."""
        if known.payload_id is None:
            raise effect_answer_lost(known.key)
        _, data = await read_recorded(self._scope, self._artifacts, known.payload_id)
        payload = Blob(ArtifactKind.FACT_PAYLOAD, data, known.payload_id)
        told = [fact_event(fact_key, payload.id, request_id)]
        await append(
            self._scope, self._journal, lambda: Entry() if fact_key in self._journal.facts else Entry(told)
        )
        return payload

    async def _intend(self, effect: PlannedEffect, request_id: str) -> bool:
        """Write down that ``effect`` is about to be made; False if somebody else is making it."""
        state_id, namespace = self._scope.state_id, effect.call.namespace
        intent = Effect(
            effect.key, effect.fact_key, state_id, namespace, request_id, self._clock.now_millis()
        )
        is_ours = False

        def make() -> Entry:
            nonlocal is_ours
            known = self._journal.effects.get(effect.key)
            is_ours = known is None or known.outcome == NOT_APPLIED
            return Entry([effect_intended(intent)] if is_ours else [])

        await append(self._scope, self._journal, make)
        return is_ours

    def _may_repeat(self, traits: EffectTraits, known: Effect) -> bool:
        if not traits.is_idempotent or traits.key_lifetime is None:
            return traits.is_idempotent
        age_millis = self._clock.now_millis() - known.intended_millis
        return age_millis < traits.key_lifetime // timedelta(milliseconds=1)

    async def _learn(
        self,
        effect: PlannedEffect,
        request_id: str,
        ask: Ask,
        payload_of: Callable[[Json], Blob],
        asking: Callable[[Transport], Awaitable[Json]],
        denies: Callable[[PerdureError], bool],
    ) -> Blob | None:
        try:
            answer = await ask(asking)
        except StorageError:
            raise
        except PerdureError as error:
            self._scope.check()
            if denies(error):
                await self._settle(effect.key, Entry([effect_settled(effect.key, NOT_APPLIED)]))
                raise
            is_final = _refuses(error) and not error.info.retryable and not effect.traits.looks_up
            if (effect.traits.is_idempotent or effect.traits.looks_up) and not is_final:
                raise _retryable(error) from error
            return None
        try:
            payload = payload_of(answer)
        except PerdureError:
            await self._settle(effect.key, Entry([effect_settled(effect.key, APPLIED)]))
            raise
        told = [
            effect_settled(effect.key, APPLIED, payload.id),
            fact_event(effect.fact_key, payload.id, request_id),
        ]
        await self._settle(effect.key, Entry(told, [payload]))
        known = self._journal.effects[effect.key]
        if known.payload_id == payload.id:
            return payload
        return await self._answer_of(known, effect.fact_key, request_id)

    async def _settle(self, key: str, entry: Entry) -> None:
        """Write down what became of an effect, unless somebody has said meanwhile that it was made."""
        await append(
            self._scope,
            self._journal,
            lambda: Entry() if self._journal.effects[key].outcome == APPLIED else entry,
        )


def _refuses(error: PerdureError) -> bool:
    """Whether the error of an effect's first call says that nothing happened."""
    # Whoever refuses a request for its form has not begun with it.
    return getattr(error, "not_applied", False) or error.info.category is ErrorCategory.PARSING_INPUT


def _was_not_found(error: PerdureError) -> bool:
    """Whether the error of looking an effect up says that it was never made."""
    # Any other that says that nothing was applied speaks of the look-up's own requests.
    return isinstance(error, EffectNotMadeError)


def _retryable(error: PerdureError) -> PerdureError:
    """The error, for another attempt: what became of the effect can still be found out."""
    if error.info.retryable:
        return error
    info = ErrorInfo(error.info.code, error.info.category, True, error.info.message, error.info.details)
    return type(error)(info, hint=error.hint)
