"""What the ends of a run's stream tell of it."""

from __future__ import annotations

from perdure.model.events import EventEnvelope, RunStarted, RunStatus
from perdure.stores.ports import RunTrace


def trace_of(
    first: EventEnvelope, last: EventEnvelope, status: RunStatus | None, *, is_owned: bool
) -> RunTrace:
    """The trace of a run whose stream begins and ends so."""
    started = first.event if isinstance(first.event, RunStarted) else None
    return RunTrace(
        first.run_id,
        None if started is None else started.op_id,
        None if started is None or started.parent is None else started.parent.run_id,
        None if started is None else started.manifest_id,
        status,
        last.ts_millis or 0,
        is_owned,
        None if started is None or started.continues is None else started.continues.first_run_id,
    )
