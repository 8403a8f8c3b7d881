"""What the ends of a run's stream tell of it."""

from __future__ import annotations

from perdure.ids import ArtifactId
from perdure.model.events import EventEnvelope, RunStarted, RunStatus
from perdure.stores.keeping import RunTrace
from perdure.stores.ports import Row

REPLAY_OF = b'"replay_of"'


def trace_of(
    first: EventEnvelope,
    last: EventEnvelope,
    status: RunStatus | None,
    manifest: Row | None,
    *,
    is_owned: bool,
) -> RunTrace:
    """The trace of a run whose stream begins and ends so, and of whose manifest this is kept."""
    started = first.event if isinstance(first.event, RunStarted) else None
    return RunTrace(
        first.run_id,
        None if started is None else started.op_id,
        None if started is None or started.parent is None else started.parent.run_id,
        None if started is None else started.manifest_id,
        status,
        last.ts_millis or 0,
        is_owned,
        # A recipe's parts are not looked for here.
        manifest is not None and (manifest.is_recipe or REPLAY_OF in manifest.data),
        None if started is None or started.continues is None else started.continues.first_run_id,
    )


def manifest_in(first: EventEnvelope) -> ArtifactId | None:
    """The manifest that a run's first event names."""
    return first.event.manifest_id if isinstance(first.event, RunStarted) else None
