"""Waits: the one way a run stops to be woken: by time, a signal, a child, or what became of an effect.

A wait is begun by ``wait_started`` and ended by the fact under its key, which has no attempt number: neither
a crash nor a retry begins it anew. Everything here is pure.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

import msgspec

from perdure.errors import CorruptionError, InvalidShapeError, Json, shaped
from perdure.ids import ArtifactId, FactKey, InvalidIdError, RunId, StateId
from perdure.io.effects import Effect
from perdure.io.facts import fact_event
from perdure.model.events import WAIT_STARTED, ArtifactKind, DomainEvent
from perdure.stores.ports import Blob

SLEEP, SIGNAL, EFFECT_IN_DOUBT, CHILD = "sleep", "signal", "effect_in_doubt", "child"
WAIT_PREFIX, SIGNAL_PREFIX = "wait:", "signal:"

NOTHING = Blob(ArtifactKind.FACT_PAYLOAD, b"null")
"""The payload of a wait that ended without anything being told: its time had come."""


class Wait(msgspec.Struct, frozen=True):
    """What an attempt waits for: a moment, the first of some signals, a settled effect, or a run's end."""

    state_id: StateId
    attempt: int
    key: FactKey
    kind: str
    until_millis: int | None = None
    signals: tuple[str, ...] = ()
    effect: str | None = None
    child_run_id: RunId | None = None

    def __str__(self) -> str:
        if self.kind == SIGNAL:
            return f"signal {' or '.join(self.signals)}"
        if self.child_run_id is not None:
            return f"{self.kind} {self.child_run_id}"
        return self.kind if self.effect is None else f"{self.kind} {self.effect}"


class Arrival(msgspec.Struct, frozen=True):
    """A signal that has arrived: its place in the stream, its payload, and the letter that it came in."""

    seq: int
    payload_id: ArtifactId
    letter_id: str | None = None


class Inbox(msgspec.Struct):
    """The signals of a run by name, in the order of their arrival, and how many of each were taken."""

    arrived: dict[str, list[Arrival]] = {}
    taken: dict[str, int] = {}
    letters: set[str] = set()
    """The ids of all letters that the stream holds."""

    def next_of(self, names: tuple[str, ...]) -> tuple[str, Arrival] | None:
        """The signal that arrived first among those of these names which nobody has taken."""
        waiting = [
            (name, self.arrived[name][self.taken.get(name, 0)])
            for name in names
            if len(self.arrived.get(name, ())) > self.taken.get(name, 0)
        ]
        return min(waiting, key=lambda each: each[1].seq, default=None)


def wait_key(place: str, name: str | int) -> FactKey:
    """The key of the wait of this name, or of this number among those without one, of a state or an item."""
    return FactKey.trusted(f"{WAIT_PREFIX}{place}|{name}")


def signal_key(name: str, number: int) -> FactKey:
    """The key of the ``number``-th signal of this name."""
    return FactKey.trusted(f"{SIGNAL_PREFIX}{name}|{number}")


def wait_started(wait: Wait) -> DomainEvent:
    """The event that begins ``wait``."""
    payload: dict[str, Json] = {
        "state_id": wait.state_id,
        "attempt": wait.attempt,
        "key": str(wait.key),
        "kind": wait.kind,
        "until_millis": wait.until_millis,
    }
    if wait.signals:
        payload["signals"] = list(wait.signals)
    if wait.effect is not None:
        payload["effect"] = wait.effect
    if wait.child_run_id is not None:
        payload["child_run_id"] = wait.child_run_id
    return DomainEvent(WAIT_STARTED, payload)


def wait_of(event: DomainEvent, seq: int) -> Wait:
    """The wait of a ``wait_started`` event; ``CorruptionError`` (``wait_started_malformed``)."""
    try:
        return shaped(event.payload, Wait)
    except (InvalidShapeError, InvalidIdError):
        raise CorruptionError.of(
            "wait_started_malformed", "the start of a wait cannot be read", details={"seq": seq}
        ) from None


def answer_to(
    wait: Wait,
    inbox: Inbox,
    effects: Mapping[str, Effect],
    now_millis: int,
    ended: Collection[RunId] = (),
) -> DomainEvent | None:
    """The fact that ends ``wait`` now; None if it is not over. Its payload may be :data:`NOTHING`.

    ``ended`` are the awaited runs that are known to have ended.
    """
    arrival = inbox.next_of(wait.signals)
    if arrival is not None:
        name, signal = arrival
        return fact_event(wait.key, signal.payload_id, meta={"signal": name})
    is_due = wait.until_millis is not None and now_millis >= wait.until_millis
    effect = None if wait.effect is None else effects.get(wait.effect)
    has_ended = wait.child_run_id in ended
    if is_due or has_ended or (effect is not None and effect.outcome is not None):
        return fact_event(wait.key, NOTHING.id)
    return None
