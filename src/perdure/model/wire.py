"""Events as bytes: how stores keep them. JSON of the wire shape, one object an event."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from perdure.errors import CorruptionError, PerdureError
from perdure.model.events import (
    DomainEvent,
    Event,
    RunCompleted,
    RunStarted,
    StateCompleted,
    StateEntered,
    StateFailed,
)


class _Kernel(msgspec.Struct, rename="pascal", gc=False):
    run_started: RunStarted | None = None
    state_entered: StateEntered | None = None
    state_completed: StateCompleted | None = None
    state_failed: StateFailed | None = None
    run_completed: RunCompleted | None = None


class _Event(msgspec.Struct, rename="pascal", gc=False):
    kernel: _Kernel | None = None
    domain: DomainEvent | None = None


def encode_event(event: Event) -> bytes:
    """``event`` as JSON bytes. A payload must have been checked: this writes what it is given."""
    opening, closing = _AROUND[type(event)]
    return opening + _ENCODER.encode(event) + closing


def decode_events(bodies: Sequence[bytes]) -> list[Event]:
    """The events of :func:`encode_event`'s bytes, in order.

    Ids are taken as they are: a store that keeps a checksum gives back what it was given. Raises
    :class:`CorruptionError` (``event_malformed``) whose details name the first bad one's index.
    """
    try:
        events = [_only(wire) for wire in _MANY.decode(b"[%b]" % b",".join(bodies))]
    except (msgspec.MsgspecError, PerdureError, ValueError, RecursionError):
        events = []
    if len(events) == len(bodies):
        return events
    return [_decode_one(index, body) for index, body in enumerate(bodies)]


def _decode_one(index: int, body: bytes) -> Event:
    try:
        return _only(_ONE.decode(body))
    except (msgspec.MsgspecError, PerdureError, ValueError, RecursionError):
        raise CorruptionError.of(
            "event_malformed", "a stored event is not of an event's shape", details={"index": index}
        ) from None


def _only(wire: _Event) -> Event:
    kernel = wire.kernel
    if kernel is None:
        if wire.domain is None:
            raise ValueError
        return wire.domain
    event = (
        kernel.state_entered
        or kernel.state_completed
        or kernel.state_failed
        or kernel.run_started
        or kernel.run_completed
    )
    if event is None:
        raise ValueError
    return event


_ENCODER = msgspec.json.Encoder(enc_hook=str.__str__)
_ONE = msgspec.json.Decoder(_Event, dec_hook=str.__new__)
_MANY = msgspec.json.Decoder(list[_Event], dec_hook=str.__new__)
_AROUND: dict[type[Event], tuple[bytes, bytes]] = {
    kind: (b'{"Kernel":{"%b":' % kind.__name__.encode(), b"}}")
    for kind in (RunStarted, StateEntered, StateCompleted, StateFailed, RunCompleted)
}
_AROUND[DomainEvent] = (b'{"Domain":', b"}")
