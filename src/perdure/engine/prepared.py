"""What is known of children that were spawned here a moment ago: it need not be read to drive them."""

from __future__ import annotations

from typing import NamedTuple

from perdure.engine.decide import PlannedRun
from perdure.ids import ArtifactId, RunId
from perdure.model.config import RunManifest
from perdure.model.context import Snapshot

PREPARED_MAX = 1000
"""Of more children at once the rest is read: one takes about three kilobytes."""


class Prepared(NamedTuple):
    """How a run is to begin, by the artifacts that its first event names."""

    manifest_id: ArtifactId
    manifest: RunManifest
    plan: PlannedRun
    initial: Snapshot


class PreparedRuns:
    """Those of one engine that wait for a place to run."""

    def __init__(self) -> None:
        self._runs: dict[RunId, Prepared] = {}

    def keep(self, run_id: RunId, prepared: Prepared) -> None:
        """Remember a run until it is taken."""
        if len(self._runs) < PREPARED_MAX:
            self._runs[run_id] = prepared

    def take(self, run_id: RunId) -> Prepared | None:
        """What is known of a run, and forget it."""
        return self._runs.pop(run_id, None)
