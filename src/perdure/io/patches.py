"""Patches: changes of a handler's code that runs under way must not see. Everything here is pure.

A handler asks ``patched(name)`` where its code has changed. What it is told is a fact of its state, so that
it is told the same for ever: True if nothing is on record that lies beyond that point, False if something
is, for that was recorded by the code as it was before.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

from perdure.ids import FactKey, StateId
from perdure.io.facts import MAP_PREFIX, PATCH_PREFIX, is_attempt_key, is_key_of_attempt, state_of_fact
from perdure.io.waits import EFFECT_IN_DOUBT, SIGNAL_PREFIX, wait_key
from perdure.model.events import (
    EFFECT_INTENDED,
    FACT_RECORDED,
    WAIT_STARTED,
    DomainEvent,
    EventEnvelope,
    StateCompleted,
    StateEntered,
    StateFailed,
)


def patch_key(state_id: str, name: str) -> FactKey:
    """The key of the fact that says which way a state goes at a patch."""
    return FactKey.trusted(f"{PATCH_PREFIX}{state_id}|{name}")


def is_beyond(recorded: Collection[str], reached: Collection[str]) -> bool:
    """Whether something is ``recorded`` that the handler has not ``reached``, now that it runs again."""
    return any(key not in reached for key in recorded)


def recorded_by(events: Iterable[EventEnvelope], state_id: StateId, attempt: int) -> set[str]:
    """The fact keys under which a state's attempts have asked, waited or made effects.

    ``events`` begin with the state's first attempt, or before. Readings of time and randomness count for
    ``attempt`` alone: no other is answered by them. Of a state that runs beside others, which share their
    facts, theirs are counted too.
    """
    keys: set[str] = set()
    others: set[str] = set()
    doubts = wait_key(state_id, f"{EFFECT_IN_DOUBT}:")
    is_open = False
    for envelope in events:
        event = envelope.event
        if isinstance(event, StateEntered | StateCompleted | StateFailed):
            if event.state_id == state_id:
                is_open = isinstance(event, StateEntered)
        elif not isinstance(event, DomainEvent):
            continue
        elif event.name == WAIT_STARTED and event.payload["state_id"] == state_id:
            keys.add(event.payload["key"])
        elif event.name == EFFECT_INTENDED:
            (keys if event.payload["state_id"] == state_id else others).add(event.payload["fact_key"])
        elif event.name == FACT_RECORDED:
            key = event.payload["key"]
            owner = state_of_fact(key)
            if owner is None:
                if is_open and key not in others and not key.startswith(SIGNAL_PREFIX):
                    keys.add(key)
            elif owner == state_id and key.startswith(MAP_PREFIX):
                # What its item did is not asked for again, nor is what came before the map beyond it.
                keys = {key}
            elif (
                owner == state_id
                and not key.startswith(PATCH_PREFIX)
                and (not is_attempt_key(key) or is_key_of_attempt(key, attempt))
            ):
                keys.add(key)
    # Such a wait is the engine's; the effect itself is what the handler asks for.
    return {key for key in keys if not key.startswith(doubts)}
