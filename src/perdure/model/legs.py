"""Chains of runs: one ends by going on as another, its next leg."""

from __future__ import annotations

from collections.abc import Sequence

from perdure.ids import InvalidIdError, RunId
from perdure.model.events import (
    RUN_CONTINUED,
    ContinuedRun,
    DomainEvent,
    Event,
    RunCompleted,
    RunStarted,
)


def run_continued(heir: RunId, continues: ContinuedRun) -> DomainEvent:
    """That the run goes on as ``heir``, whose first event says what it ``continues``."""
    payload = {"next_run_id": heir, "first_run_id": continues.first_run_id, "leg": continues.leg}
    return DomainEvent(RUN_CONTINUED, payload)


def next_run_of(event: Event) -> RunId | None:
    """The run that a ``run_continued`` event names; None for any other event."""
    if not isinstance(event, DomainEvent) or event.name != RUN_CONTINUED:
        return None
    try:
        return RunId(event.payload["next_run_id"])
    except (TypeError, KeyError, IndexError, InvalidIdError):
        return None


def heir_in(last: Sequence[Event]) -> RunId | None:
    """The run as which a run goes on whose stream ends with ``last``; None if it does not, or runs still."""
    if len(last) < 2 or type(last[-1]) is not RunCompleted:
        return None
    return next_run_of(last[-2])


def continued_by(event: Event) -> ContinuedRun | None:
    """What a run continues, by its first event."""
    return event.continues if type(event) is RunStarted else None
