"""Looking at schedules: what lists and screens are made of."""

from __future__ import annotations

from datetime import UTC, datetime
from itertools import islice

from perdure.engine.due_times import FIRST_MILLIS, LAST_MILLIS, due_times, zone_of
from perdure.engine.recovery import read_view
from perdure.engine.schedules import resumed
from perdure.errors import Json, PerdureError
from perdure.ids import RunId
from perdure.model.schedule import Outcome, Schedule
from perdure.stores.bundle import Stores

UPCOMING = 5


def in_zone(schedule: Schedule, millis: int) -> datetime:
    """A moment in the schedule's time zone; the calendar's first or last one if it lies outside."""
    within = min(max(millis, FIRST_MILLIS), LAST_MILLIS)
    return datetime.fromtimestamp(within / 1000, UTC).astimezone(zone_of(schedule.timing.zone))


def upcoming(schedule: Schedule, count: int, now_millis: int) -> list[datetime]:
    """The next due times, at most ``count``; of a paused schedule, as they were if it went on now."""
    going_on = resumed(schedule, now_millis)
    if going_on.next_millis is None:
        return []
    left = count if schedule.max_runs is None else min(count, schedule.max_runs - schedule.runs)
    found = islice(due_times(schedule.timing, going_on.next_millis - 1), left)
    return [in_zone(schedule, due) for due in found]


async def schedule_status(stores: Stores, schedule: Schedule, now_millis: int) -> Json:
    """A schedule's fields, with ``upcoming``, the next due times in its zone, and how its runs stand.

    ``recent`` is the newest first; each has ``due``, its due time in the schedule's zone, and ``outcome``:
    ``skipped``, ``missed``, or its run's phase in lower case.
    """
    soon = upcoming(schedule, UPCOMING, now_millis)
    return schedule.to_json() | {
        "upcoming": [each.isoformat() for each in soon],
        "recent": [await _outcome_json(stores, schedule, each) for each in reversed(schedule.recent)],
    }


async def last_outcome(stores: Stores, schedule: Schedule) -> Json:
    """What became of the last due time, as in ``schedule_status``; None before the first."""
    return await _outcome_json(stores, schedule, schedule.recent[-1]) if schedule.recent else None


async def _outcome_json(stores: Stores, schedule: Schedule, outcome: Outcome) -> Json:
    return {
        "due": in_zone(schedule, outcome.due_millis).isoformat(),
        "due_millis": outcome.due_millis,
        "at_millis": outcome.at_millis,
        "kind": outcome.kind,
        "run_id": outcome.run_id,
        "outcome": await _word(stores, outcome),
        "reason": outcome.reason,
        "count": outcome.count,
    }


async def _word(stores: Stores, outcome: Outcome) -> str:
    if outcome.run_id is None:
        return outcome.kind
    try:
        view = await read_view(stores, RunId(outcome.run_id))
    except PerdureError as error:
        return error.code
    return view.phase.value.lower() if view.head_seq else "gone"
