"""What a schedule does next: pure decisions, one for each write of its row.

A step is done in the order start, or cancel, and then the write. Both may be done again: a start has an
invocation key that follows from the schedule and the due time, so whoever dies before the write, or comes
second, finds the run that is there.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, NamedTuple

import msgspec

from perdure.engine.due_times import due_after, fires_at, missed
from perdure.ids import RunId
from perdure.model.schedule import RECENT_MAX, Outcome, Overlap, Pause, Request, Schedule

_NOBODY = "nobody was there to start it"


class Start(NamedTuple):
    """A run to be started. ``due`` is its due time in ISO format, in UTC."""

    due: str
    key: str

    @property
    def run_id(self) -> RunId:
        """The id that the run gets."""
        return RunId.for_invocation(self.key)


class Step(NamedTuple):
    """What is to be done, and the schedule when it is done. ``cancel`` is a run to be told to stop."""

    schedule: Schedule
    start: Start | None = None
    cancel: RunId | None = None


class Wakening(NamedTuple):
    """When a schedule has something to do: at a time, or when a run has ended."""

    due_millis: int | None
    awaits: RunId | None


def coming(schedule: Schedule, now_millis: int) -> Start | None:
    """The run of the next due time, if that has come."""
    due = schedule.next_millis
    if due is None or fires_at(schedule.id, schedule.timing, due) > now_millis:
        return None
    return starting(schedule.id, due)


def next_step(schedule: Schedule, now_millis: int, *, is_busy: bool, is_started: bool = False) -> Step | None:
    """What is to be done now; None if nothing is.

    ``is_busy`` says whether the last run has not ended; it is not asked where runs may overlap.
    ``is_started`` says that the run which is :func:`coming` is there already: whoever began it died before
    that was noted, and it is neither skipped nor missed.
    """
    if is_started and schedule.next_millis is not None:
        following = due_after(schedule.timing, schedule.next_millis)
        return _start(schedule, now_millis, schedule.next_millis, "due", next_millis=following)
    is_busy = is_busy and schedule.overlap is not Overlap.ALLOW
    due = None if schedule.paused else schedule.next_millis
    if due is not None:
        too_old = missed(schedule.id, schedule.timing, due, now_millis - schedule.catchup_millis)
        if too_old is not None:
            outcome = Outcome(
                kind="missed",
                due_millis=too_old.last,
                at_millis=now_millis,
                reason=_NOBODY,
                count=too_old.number,
            )
            return Step(
                _told(
                    schedule, outcome, next_millis=too_old.following, missed=schedule.missed + too_old.number
                )
            )
    if schedule.waiting_millis is not None and not is_busy:
        return _start(schedule, now_millis, schedule.waiting_millis, "due", waiting_millis=None)
    if due is not None and fires_at(schedule.id, schedule.timing, due) <= now_millis:
        following = due_after(schedule.timing, due)
        if is_busy:
            return _overlapped(schedule, now_millis, due, following)
        return _start(schedule, now_millis, due, "due", next_millis=following)
    if schedule.requests and not is_busy:
        return _requested(schedule, now_millis, *schedule.requests)
    return None


def wakening(schedule: Schedule) -> Wakening:
    """When the schedule has something to do next."""
    due = None if schedule.paused else schedule.next_millis
    moment = None if due is None else fires_at(schedule.id, schedule.timing, due)
    if schedule.waiting_millis is None and not schedule.requests:
        return Wakening(moment, None)
    if schedule.overlap is Overlap.ALLOW or schedule.last_run is None:
        return Wakening(0, None)
    return Wakening(moment, schedule.last_run)


def paused(schedule: Schedule, by: str, reason: str, now_millis: int) -> Schedule:
    """The schedule without anything that is due. What waits is skipped; what was asked for is not."""
    if schedule.waiting_millis is not None:
        outcome = _skipped(schedule.waiting_millis, now_millis, "the schedule was paused")
        schedule = _told(schedule, outcome, waiting_millis=None, skipped=schedule.skipped + 1)
    return msgspec.structs.replace(schedule, paused=Pause(by, reason, now_millis))


def resumed(schedule: Schedule, now_millis: int) -> Schedule:
    """The schedule as it goes on from now: what was due while it was paused is not caught up."""
    if schedule.paused is None:
        return schedule
    following = None
    if not _is_used_up(schedule):
        following = due_after(schedule.timing, max(now_millis, (schedule.next_millis or 0) - 1))
    return msgspec.structs.replace(schedule, paused=None, next_millis=following)


def triggered(schedule: Schedule, now_millis: int) -> tuple[Schedule, Start]:
    """The schedule with one more run asked for, and what that will be."""
    number = schedule.triggers + 1
    asked = Request(now_millis, number=number)
    return msgspec.structs.replace(schedule, requests=(*schedule.requests, asked), triggers=number), starting(
        schedule.id, now_millis, number
    )


def backfilled(schedule: Schedule, from_millis: int, until_millis: int) -> Schedule:
    """The schedule with the runs asked for of every due time from one moment on, and before another."""
    first = due_after(_unlimited(schedule), from_millis - 1)
    if first is None or first >= until_millis:
        return schedule
    asked = Request(first, until_millis)
    return msgspec.structs.replace(schedule, requests=(*schedule.requests, asked))


def starting(schedule_id: str, due_millis: int, number: int | None = None) -> Start:
    """The run of a due time, or of the trigger of this number."""
    due = iso(due_millis)
    by_hand = "" if number is None else f"|trigger {number}"
    return Start(due, f"schedule:{schedule_id}|{due}{by_hand}")


def iso(millis: int) -> str:
    """A moment in ISO format, in UTC; with milliseconds only if it has some."""
    moment = datetime.fromtimestamp(millis // 1000, UTC).replace(microsecond=millis % 1000 * 1000)
    text = moment.isoformat(timespec="milliseconds" if millis % 1000 else "seconds")
    return text.replace("+00:00", "Z")


def _start(schedule: Schedule, now_millis: int, due: int, kind: str, **changes: Any) -> Step:
    number = changes.pop("number", None)
    start = starting(schedule.id, due, number)
    outcome = Outcome(due_millis=due, at_millis=now_millis, run_id=str(start.run_id), kind=kind)
    if kind == "due":
        changes["runs"] = schedule.runs + 1
        if schedule.max_runs is not None and changes["runs"] >= schedule.max_runs:
            changes |= {"next_millis": None, "waiting_millis": None}
    return Step(_told(schedule, outcome, last_run_id=str(start.run_id), **changes), start)


def _overlapped(schedule: Schedule, now_millis: int, due: int, following: int | None) -> Step:
    """What becomes of a due time while the last run goes on."""
    waiting = schedule.waiting_millis
    if schedule.overlap is Overlap.SKIP:
        outcome = _skipped(due, now_millis, "the last run had not ended")
    elif waiting is None:
        cancel = schedule.last_run if schedule.overlap is Overlap.CANCEL_OTHER else None
        waits = msgspec.structs.replace(schedule, next_millis=following, waiting_millis=due)
        return Step(waits, cancel=cancel)
    elif schedule.overlap is Overlap.QUEUE:
        outcome = _skipped(due, now_millis, "another one waited already")
    else:
        outcome = _skipped(waiting, now_millis, "a later one took its place")
        schedule = msgspec.structs.replace(schedule, waiting_millis=due)
    return Step(_told(schedule, outcome, next_millis=following, skipped=schedule.skipped + 1))


def _skipped(due: int, now_millis: int, reason: str) -> Outcome:
    return Outcome(kind="skipped", due_millis=due, at_millis=now_millis, reason=reason)


def _requested(schedule: Schedule, now_millis: int, asked: Request, *others: Request) -> Step:
    if asked.until_millis is None:
        return _start(
            schedule, now_millis, asked.next_millis, "trigger", number=asked.number, requests=others
        )
    following = due_after(_unlimited(schedule), asked.next_millis)
    left = others
    if following is not None and following < asked.until_millis:
        left = (msgspec.structs.replace(asked, next_millis=following), *others)
    return _start(schedule, now_millis, asked.next_millis, "backfill", requests=left)


def _unlimited(schedule: Schedule) -> Any:
    """The schedule's timing for what is asked for by hand: also before its start."""
    return msgspec.structs.replace(schedule.timing, starts_millis=None, ends_millis=None)


def _is_used_up(schedule: Schedule) -> bool:
    return schedule.max_runs is not None and schedule.runs >= schedule.max_runs


def _told(schedule: Schedule, outcome: Outcome, **changes: Any) -> Schedule:
    """The schedule with these changes and one more outcome."""
    recent = (*schedule.recent, outcome)[-RECENT_MAX:]
    return msgspec.structs.replace(schedule, recent=recent, **changes)
