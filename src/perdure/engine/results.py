"""How the engine lets go of a run."""

from __future__ import annotations

import msgspec

from perdure.engine.decide import Pause
from perdure.engine.history import RunView
from perdure.errors import Json
from perdure.ids import ArtifactId, RunId
from perdure.model.events import RunPhase


class RunResult(msgspec.Struct, frozen=True):
    """Where a run stood when the engine let go of it.

    ``final_snapshot_id`` is the last checkpoint, also of a run that goes on. ``waiting_for`` says what a
    parked run waits for, and ``due_millis`` when it is to be resumed if no letter comes before.
    """

    run_id: RunId
    phase: RunPhase
    final_snapshot_id: ArtifactId | None = None
    waiting_for: str | None = None
    due_millis: int | None = None

    def to_json(self) -> Json:
        """``{"run_id", "phase", "final_snapshot_id"}``; with ``waiting_for``, ``due_millis`` if parked."""
        data: dict[str, Json] = {
            "run_id": self.run_id,
            "phase": self.phase.value,
            "final_snapshot_id": self.final_snapshot_id,
        }
        if self.waiting_for is not None:
            data |= {"waiting_for": self.waiting_for, "due_millis": self.due_millis}
        return data


def result_of(run_id: RunId, view: RunView, waiting: Pause | None = None) -> RunResult:
    """Where a run stands by its view; if it is parked, with what it is ``waiting`` for."""
    final = view.checkpoint if view.ended is None else view.ended.final_snapshot_id
    if waiting is None:
        return RunResult(run_id, view.phase, final)
    return RunResult(run_id, view.phase, final, waiting.waiting_for, waiting.until_millis)
