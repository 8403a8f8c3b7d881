"""Effects: calls that change the world, bound once to a key in a run. Everything here is pure.

``effect_intended`` is durable before the call and ``effect_settled`` after its definite answer. Whatever lies
between is in doubt: nobody knows whether it happened.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta

import msgspec

from perdure.errors import CorruptionError, InvalidShapeError, IoError, Json, shaped
from perdure.ids import ArtifactId, FactKey, InvalidIdError
from perdure.model.events import EFFECT_INTENDED, EFFECT_SETTLED, DomainEvent
from perdure.model.handler import IoCall
from perdure.model.meta import SideEffectKind

APPLIED, NOT_APPLIED = "applied", "not_applied"
EFFECT_PREFIX = "effect:"


class EffectTraits(msgspec.Struct, frozen=True):
    """What a transport says of a call.

    ``is_effect`` tells whether it changes the world; None is for the state or the call to say. A transport
    that is ``is_idempotent`` under the call's ``idempotency_key`` may be called again with that key, for
    ``key_lifetime`` from the first time on; None is for ever. One that ``looks_up`` has a method ``look_up``.
    """

    is_effect: bool | None = None
    is_idempotent: bool = False
    key_lifetime: timedelta | None = None
    looks_up: bool = False


class Effect(msgspec.Struct, frozen=True):
    """What is known of an effect. ``outcome`` is ``"applied"``, ``"not_applied"``, or None while in doubt.

    ``payload_id`` is the answer's artifact, if it was applied and the answer could be written.
    """

    key: str
    fact_key: FactKey
    state_id: str
    namespace: str
    request_id: str
    intended_millis: int
    outcome: str | None = None
    payload_id: ArtifactId | None = None
    intents: int = 1
    """How often it was begun: once, and again after each ``not_applied``."""

    @property
    def is_in_doubt(self) -> bool:
        """Whether nobody knows what became of it."""
        return self.outcome is None


def effect_key(call: IoCall, run_id: str, place: str, ordinal: int) -> str:
    """The key of the effect that ``call`` is: its own, or that of its number in its place."""
    return call.idempotency_key if call.idempotency_key is not None else f"{run_id}:{place}:{ordinal}"


def effect_fact_key(call: IoCall, of_state: SideEffectKind, key: str) -> str | None:
    """The key of the fact that the answer becomes where ``call`` names none; None if it can be no effect."""
    may_apply = (call.effect or of_state) is SideEffectKind.APPLY_SIDE_EFFECT
    return EFFECT_PREFIX + key if may_apply else None


def effect_intended(effect: Effect) -> DomainEvent:
    """The event that says what is about to be done."""
    return DomainEvent(
        EFFECT_INTENDED,
        {
            "key": effect.key,
            "fact_key": str(effect.fact_key),
            "state_id": effect.state_id,
            "namespace": effect.namespace,
            "request_id": effect.request_id,
            "intended_millis": effect.intended_millis,
        },
    )


def effect_settled(
    key: str,
    outcome: str,
    payload_id: ArtifactId | None = None,
    told_by: Mapping[str, str] | None = None,
) -> DomainEvent:
    """The event that says what became of it.

    By the transport's answer, or by somebody's word: ``told_by`` is who, why, and in which letter.
    """
    payload: dict[str, Json] = {"key": key, "outcome": outcome, "payload_id": payload_id}
    return DomainEvent(EFFECT_SETTLED, {**payload, **(told_by or {})})


def intended(event: DomainEvent, before: Effect | None, seq: int) -> Effect:
    """The effect of an ``effect_intended`` event; ``before`` is what was known of its key."""
    try:
        effect = shaped(event.payload, Effect)
    except (InvalidShapeError, ValueError):
        raise _malformed(seq) from None
    intents = 1 + (before.intents if before else 0)
    return msgspec.structs.replace(effect, outcome=None, payload_id=None, intents=intents)


def settled(event: DomainEvent, effects: dict[str, Effect], seq: int) -> Effect:
    """The effect that an ``effect_settled`` event settles."""
    try:
        before, outcome = effects[event.payload["key"]], event.payload["outcome"]
        payload_id = event.payload.get("payload_id")
        payload_id = None if payload_id is None else ArtifactId(payload_id)
    except (KeyError, TypeError, InvalidIdError):
        raise _malformed(seq) from None
    if outcome not in (APPLIED, NOT_APPLIED):
        raise _malformed(seq)
    return msgspec.structs.replace(before, outcome=outcome, payload_id=payload_id)


def effect_answer_lost(key: str) -> IoError:
    """The refusal to make an effect again whose answer could not be recorded."""
    return IoError.of(
        "effect_answer_lost",
        "the effect was made, but its answer could not be recorded",
        details={"key": key},
    )


def effect_request_mismatch(key: str) -> IoError:
    """The refusal of another request under an effect's key."""
    return IoError.of(
        "effect_request_mismatch",
        "the idempotency key belongs to an effect with another request",
        details={"key": key},
    )


def _malformed(seq: int) -> CorruptionError:
    return CorruptionError.of("effect_malformed", "an effect's event cannot be read", details={"seq": seq})
