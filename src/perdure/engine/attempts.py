"""What is known of attempts at states, and why some of them ended."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from perdure.errors import CorruptionError, ErrorInfo
from perdure.ids import ArtifactId, StateId
from perdure.model.events import DomainEvent

ORPHAN_ATTEMPT_RECOVERED = "orphan_attempt_recovered"
ATTEMPT_INTERRUPTED = "attempt_interrupted"
RUN_CANCELLED = "run_cancelled"
CONTINUED_IN_DOUBT = "continued_in_doubt"
NOT_OWN_FAILURES = frozenset({ORPHAN_ATTEMPT_RECOVERED, ATTEMPT_INTERRUPTED, RUN_CANCELLED})
"""Ends of attempts for which their states cannot be blamed."""


class OpenAttempt(msgspec.Struct, frozen=True, gc=False):
    """An attempt that was entered and has not ended."""

    state_id: StateId
    attempt: int
    base_snapshot_id: ArtifactId
    entered_seq: int
    """The number of the event that entered it."""


class StateProgress(msgspec.Struct, gc=False):
    """What is known of one state."""

    last_attempt: int
    base_snapshot_id: ArtifactId
    own_failures: int = 0
    orphans: int = 0
    """Consecutive attempts that ended as orphans, without progress of the run between them."""
    last_error: ErrorInfo | None = None
    """The error of the last attempt, if it failed."""
    retry_due_millis: int | None = None
    completed_attempt: int | None = None
    was_told: bool = False
    """Whether somebody has said what became of an effect of the state, and it has not failed since."""

    def fail(self, error: ErrorInfo) -> None:
        """Take note of how the last attempt failed."""
        self.last_error = error
        if error.code not in NOT_OWN_FAILURES:
            self.own_failures += 1
            self.was_told = False
        if error.code != ORPHAN_ATTEMPT_RECOVERED:
            self.orphans = 0
        else:
            self.orphans += 1


def note_retry(states: Mapping[StateId, StateProgress], event: DomainEvent, seq: int) -> None:
    """Take in a ``retry_scheduled`` event; ``CorruptionError`` (``retry_scheduled_malformed``)."""
    try:
        states[event.payload["state_id"]].retry_due_millis = int(event.payload["due_millis"])
    except (TypeError, KeyError, ValueError):
        raise CorruptionError.of(
            "retry_scheduled_malformed", "a scheduled retry cannot be read", details={"seq": seq}
        ) from None
