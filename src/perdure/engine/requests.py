"""What outsiders want of a run as a whole: that it stops, stands still, or goes on."""

from __future__ import annotations

import msgspec

from perdure.errors import CorruptionError
from perdure.model.events import DomainEvent


class Request(msgspec.Struct, frozen=True):
    """That somebody wants the run to stop or to stand still, who, and why."""

    by: str
    reason: str
    terminates: bool = False
    """Whether to stop without the handler's and the plan's own cleaning up."""
    letter_id: str = ""
    reach_seq: int = 0
    """Of the run's children, it concerns those that were spawned before this event."""


def request_of(event: DomainEvent, seq: int, ended_pause: Request | None = None) -> Request:
    """What event ``seq`` asks for; ``CorruptionError`` (``run_request_malformed``).

    Who ends a pause speaks to those that it reached.
    """
    payload = event.payload
    if not isinstance(payload, dict):
        raise CorruptionError.of(
            "run_request_malformed", "a request to the run cannot be read", details={"seq": seq}
        )
    return Request(
        str(payload.get("by")),
        str(payload.get("reason")),
        payload.get("terminate") is True,
        str(payload.get("id")),
        seq if ended_pause is None else ended_pause.reach_seq,
    )
