"""What callers are told who wait for a run in vain."""

from __future__ import annotations

from perdure.engine.history import RunView
from perdure.errors import ErrorCategory, RunError
from perdure.ids import RunId
from perdure.model.events import RunPhase


def run_failure(run_id: RunId, view: RunView) -> RunError:
    """What a caller who waits for a result is told of a run that ended without one."""
    if view.phase is RunPhase.CANCELLED:
        return RunError.of("run_cancelled", "the run was cancelled", details={"run_id": run_id})
    state_id, info = view.failure or (None, None)
    return RunError.of(
        "run_failed",
        "the run failed" if info is None else f"{state_id} failed with {info.code}: {info.message}",
        category=ErrorCategory.UNKNOWN if info is None else info.category,
        details={"run_id": run_id, "state_id": state_id, "code": None if info is None else info.code},
    )


def client_closed(run_id: RunId) -> RunError:
    """What a caller who waits for a run is told when the client goes away."""
    return RunError.of(
        "client_closed",
        "the client was closed before the run was seen to end; it can be resumed",
        details={"run_id": run_id},
    )
