"""The refusals that every store shares."""

from __future__ import annotations

from perdure.errors import ConcurrencyError, CorruptionError, InvalidPlanError, NotFoundError
from perdure.stores.ports import Append, Claim


def check_head(append: Append, head: int) -> None:
    """Refuse an append whose expectation is stale."""
    if head != append.expected_seq:
        raise ConcurrencyError.of(
            "event_store_concurrency",
            "the run's stream has moved on",
            details={"run_id": append.run_id, "expected_seq": append.expected_seq, "head_seq": head},
        )


def artifact_not_found(artifact_id: str) -> NotFoundError:
    """The error for an id that a store does not hold."""
    return NotFoundError.of(
        "artifact_not_found", "no such artifact is kept here", details={"artifact_id": str(artifact_id)}
    )


def artifact_corruption(artifact_id: str) -> CorruptionError:
    """The error for stored bytes that do not have their id."""
    return CorruptionError.of(
        "artifact_corruption",
        "the stored bytes are not those of this artifact",
        details={"artifact_id": str(artifact_id)},
    )


def run_already_active(run_id: str) -> ConcurrencyError:
    """The error for a run that a live owner has."""
    return ConcurrencyError.of(
        "run_already_active", "another owner is driving this run", details={"run_id": str(run_id)}
    )


def run_not_found(run_id: str) -> NotFoundError:
    """The error for a run without events."""
    return NotFoundError.of("run_not_found", "no such run is kept here", details={"run_id": str(run_id)})


def run_not_started() -> InvalidPlanError:
    """The error for a stream that no engine began."""
    return InvalidPlanError.of("missing_run_started", "the history has no RunStarted event")


def run_already_terminal(run_id: str) -> ConcurrencyError:
    """The error for a letter to a run that has ended."""
    return ConcurrencyError.of(
        "run_already_terminal", "the run has ended, nobody will read it", details={"run_id": str(run_id)}
    )


def claim_lost(claim: Claim) -> ConcurrencyError:
    """The error for a claim that another owner has taken over, or that was given up."""
    return ConcurrencyError.of(
        "claim_lost",
        "this owner's claim on the run is gone",
        details={"run_id": claim.run_id, "epoch": claim.epoch},
    )


def schedule_not_found(schedule_id: str) -> NotFoundError:
    """The error for a schedule that a store does not hold."""
    return NotFoundError.of(
        "schedule_not_found", "there is no such schedule", details={"schedule_id": str(schedule_id)}
    )


def schedule_exists(schedule_id: str) -> ConcurrencyError:
    """The error for a schedule that is there already."""
    return ConcurrencyError.of(
        "schedule_exists", "there is a schedule of this id", details={"schedule_id": str(schedule_id)}
    )


def schedule_changed(schedule_id: str) -> ConcurrencyError:
    """The error for a change to a revision that is not the last one any more."""
    return ConcurrencyError.of(
        "schedule_changed",
        "somebody else has changed the schedule, or deleted it",
        details={"schedule_id": str(schedule_id)},
    )


def schedule_corruption(schedule_id: str) -> CorruptionError:
    """The error for a stored schedule that is not what was written."""
    return CorruptionError.of(
        "schedule_corruption",
        "a stored schedule is not what was written",
        details={"schedule_id": str(schedule_id)},
    )
