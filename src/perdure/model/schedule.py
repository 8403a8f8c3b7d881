"""Schedules as values: when runs are to be started, of what, and what has become of that so far."""

from __future__ import annotations

import enum
from typing import Any

import msgspec

from perdure.errors import Json, shaped
from perdure.ids import RunId

RECENT_MAX = 10
"""How many outcomes a schedule remembers; the runs themselves are in the store."""


class Overlap(enum.Enum):
    """What happens to a due time that comes while the schedule's last run has not ended."""

    SKIP = "skip"
    """It is skipped."""
    QUEUE = "queue"
    """It waits for the end of that run. One waits at most; what comes meanwhile is skipped."""
    CANCEL_OTHER = "cancel_other"
    """That run is cancelled, and the due time waits for its end; a later one takes its place."""
    ALLOW = "allow"
    """Its run is started beside the other."""


class Timing(msgspec.Struct, frozen=True, kw_only=True):
    """When a schedule is due: by a cron expression, or every so many milliseconds counted from an anchor.

    Moments are milliseconds since 1970-01-01 UTC. ``zone`` is the IANA name of the time zone in which the
    expression is read. A run is started up to ``jitter_millis`` after its due time, always the same for one
    due time. Nothing is due before ``starts_millis`` or after ``ends_millis``.
    """

    cron: str | None = None
    every_millis: int | None = None
    anchor_millis: int = 0
    zone: str = "UTC"
    jitter_millis: int = 0
    starts_millis: int | None = None
    ends_millis: int | None = None


class Target(msgspec.Struct, frozen=True, kw_only=True):
    """What a schedule starts: as ``Client.start`` takes it, each in its JSON form.

    Without ``op_version`` it is the newest version that whoever starts a run knows.
    """

    op_id: str
    op_version: str | None = None
    input: Any = None
    op_config: Any = None
    run_config: Any = None
    labels: dict[str, str] = {}


class Request(msgspec.Struct, frozen=True):
    """Runs that somebody asked for besides those that are due.

    ``number`` tells a single one apart; a backfill has none, and goes on from ``next_millis`` until
    ``until_millis``, which does not belong to it.
    """

    next_millis: int
    until_millis: int | None = None
    number: int | None = None


class Pause(msgspec.Struct, frozen=True):
    """Who has paused a schedule, why, and when."""

    by: str
    reason: str
    at_millis: int


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a due time, or of ``count`` of them, of which ``due_millis`` is the last.

    ``kind`` is ``due``, ``trigger`` or ``backfill`` for a run that was started, whose id is ``run_id``;
    ``skipped`` or ``missed`` where none was, and ``reason`` says why.
    """

    kind: str
    due_millis: int
    at_millis: int
    run_id: str | None = None
    reason: str = ""
    count: int = 1


class Schedule(msgspec.Struct, frozen=True, kw_only=True):
    """A schedule, and how far it has come.

    ``next_millis`` is the next due time, None if there is none any more; ``waiting_millis`` one that has come
    and waits for the end of ``last_run_id``.
    """

    id: str
    timing: Timing
    target: Target
    overlap: Overlap = Overlap.SKIP
    catchup_millis: int
    max_runs: int | None = None
    created_millis: int
    paused: Pause | None = None
    next_millis: int | None = None
    waiting_millis: int | None = None
    requests: tuple[Request, ...] = ()
    triggers: int = 0
    last_run_id: str | None = None
    runs: int = 0
    skipped: int = 0
    missed: int = 0
    recent: tuple[Outcome, ...] = ()

    def to_json(self) -> Json:
        """The fields by name, as plain JSON data."""
        return msgspec.to_builtins(self, str_keys=True)

    @classmethod
    def from_json(cls, data: Json) -> Schedule:
        """The schedule of its JSON form; ``InvalidShapeError`` for anything else."""
        return shaped(data, cls)

    @property
    def last_run(self) -> RunId | None:
        """The run that was started last."""
        return None if self.last_run_id is None else RunId.trusted(self.last_run_id)
