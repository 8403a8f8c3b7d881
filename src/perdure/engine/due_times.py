"""When a schedule is due: cron expressions in time zones, intervals, and what a change of the clocks does.

An expression whose minutes and hours both name times (``30 2 * * *``) means times of day, each once a day:
one that a day lacks comes when the gap ends, one that a day has twice comes the first time. Where minutes or
hours begin with a star (``*/15 * * * *``) it means a rhythm, which goes on through both. Debian's cron does
the same. Intervals know no clocks.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, tzinfo
from functools import lru_cache
from typing import NamedTuple, NoReturn

from perdure.errors import ErrorCategory, InvalidPlanError
from perdure.model.schedule import Timing

EVERY_MILLIS_MIN = 1000
MISSED_AT_ONCE = 5000
"""How many due times that were missed are counted in one step: the loop has other things to do."""
FIRST_MILLIS, LAST_MILLIS = -62_135_510_400_000, 253_402_214_400_000
"""0001-01-02 and 9999-12-31, UTC: every zone's calendar has the moments between them."""
_SECOND = timedelta(seconds=1)
_FIELDS = 5
_CRON_CHARACTERS_MAX = 200


def due_after(timing: Timing, millis: int) -> int | None:
    """The first due time after ``millis``; None if there is none."""
    return next(due_times(timing, millis), None)


def due_times(timing: Timing, after: int) -> Iterator[int]:
    """The due times after ``after``, in order, within the calendar."""
    if timing.starts_millis is not None:
        after = max(after, timing.starts_millis - 1)
    after = max(after, FIRST_MILLIS - 1)
    last = LAST_MILLIS if timing.ends_millis is None else min(timing.ends_millis, LAST_MILLIS)
    if after >= last:
        return
    for due in _by_interval(timing, after) if timing.cron is None else _by_cron(timing, after):
        if due > last:
            return
        yield due


def fires_at(schedule_id: str, timing: Timing, due_millis: int) -> int:
    """The moment at which a due time's run is to be started: later by its own part of the jitter."""
    if not timing.jitter_millis:
        return due_millis
    digest = hashlib.sha256(f"{schedule_id}|{due_millis}".encode()).digest()
    return due_millis + int.from_bytes(digest[:8], "big") % (timing.jitter_millis + 1)


class Missed(NamedTuple):
    """Due times that are too old: how many, the last of them, and the one that follows it."""

    number: int
    last: int
    following: int | None


def missed(schedule_id: str, timing: Timing, first: int, before: int) -> Missed | None:
    """The due times from ``first`` on whose runs were to be started before ``before``; None if none was.

    At most ``MISSED_AT_ONCE``, unless they can be counted without looking at each.
    """
    if fires_at(schedule_id, timing, first) >= before:
        return None
    count, last = 1, first
    if timing.cron is None and timing.every_millis is not None:
        until = before - timing.jitter_millis - 1
        if timing.ends_millis is not None:
            until = min(until, timing.ends_millis)
        surely = max(0, until - first) // timing.every_millis
        count, last = count + surely, last + surely * timing.every_millis
    limit = count + MISSED_AT_ONCE
    for due in due_times(timing, last):
        if count >= limit or fires_at(schedule_id, timing, due) >= before:
            return Missed(count, last, due)
        count, last = count + 1, due
    return Missed(count, last, None)


def check_timing(timing: Timing, now_millis: int) -> None:
    """Raise ``InvalidPlanError`` for a timing that makes no sense, or by which nothing is ever due.

    ``schedule_invalid``, ``schedule_cron_invalid``, ``schedule_zone_unknown``, ``schedule_never_due``.
    """
    if (timing.cron is None) == (timing.every_millis is None):
        _refuse("schedule_invalid", "a schedule has either a cron expression or an interval")
    if timing.every_millis is not None and timing.every_millis < EVERY_MILLIS_MIN:
        _refuse("schedule_invalid", "an interval is a second or longer")
    if timing.jitter_millis < 0:
        _refuse("schedule_invalid", "jitter is not negative")
    zone_of(timing.zone)
    if timing.cron is not None:
        _check_cron(timing.cron)
    after = now_millis if timing.starts_millis is None else max(now_millis, timing.starts_millis - 1)
    if due_after(timing, after) is None:
        _refuse("schedule_never_due", "nothing will ever be due by this schedule")


def zone_of(name: str) -> tzinfo:
    """The time zone of an IANA name; ``InvalidPlanError`` (``schedule_zone_unknown``)."""
    import zoneinfo

    try:
        return _zone(name)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
        from difflib import get_close_matches

        known = zoneinfo.available_timezones()
        folded = {each.casefold(): each for each in known}
        close = [folded[each] for each in get_close_matches(name.casefold(), folded, 1)]
        if not known:
            hint: str | None = "this system has no time zone database: install the package tzdata"
        else:
            hint = f"did you mean {close[0]}?" if close else None
        _refuse("schedule_zone_unknown", f"there is no time zone {name!r}", hint)


def moment_of(clock: datetime, zone: tzinfo) -> datetime:
    """The moment at which clocks of ``zone`` show ``clock``, which names no zone.

    The first one if they show it twice, and the end of the gap if they leave it out: what is due then is due
    when the gap ends.
    """
    moment = clock.replace(tzinfo=zone)
    try:
        later, earlier = moment.astimezone(UTC), moment.replace(fold=1).astimezone(UTC)
    except OverflowError:  # a day at an end of the calendar, where no clock changes
        return moment
    if later <= earlier:
        return moment
    after = later.astimezone(zone).utcoffset()
    while later - earlier > _SECOND:
        middle = earlier + (later - earlier) // _SECOND // 2 * _SECOND
        if middle.astimezone(zone).utcoffset() == after:
            later = middle
        else:
            earlier = middle
    return later.astimezone(zone)


@lru_cache(maxsize=64)
def _zone(name: str) -> tzinfo:
    from zoneinfo import ZoneInfo

    # UTC needs no database, which a minimal system may lack.
    return UTC if name == "UTC" else ZoneInfo(name)


def _by_interval(timing: Timing, after: int) -> Iterator[int]:
    every = timing.every_millis or EVERY_MILLIS_MIN
    due = after + every - (after - timing.anchor_millis) % every
    while True:
        yield due
        due += every


def _by_cron(timing: Timing, after: int) -> Iterator[int]:
    from cronsim import CronSim

    begin = datetime.fromtimestamp(after // 1000, zone_of(timing.zone))
    try:
        for moment in CronSim(timing.cron or "", begin):
            due = int(moment.timestamp()) * 1000
            # In the hour that comes twice, a time of day may lie before the moment that was asked about.
            if due > after:
                yield due
    except OverflowError:  # the calendar ends with the year 9999
        return


def _check_cron(expression: str) -> None:
    from cronsim import CronSim, CronSimError

    fields = expression.split()
    if len(expression) > _CRON_CHARACTERS_MAX or len(fields) != _FIELDS:
        _refuse(
            "schedule_cron_invalid",
            "a cron expression has five fields: minute, hour, day of month, month, day of week",
        )
    begin = datetime(2000, 1, 1, tzinfo=UTC)
    try:
        CronSim(expression, begin)
    except CronSimError as error:
        minute, hour, day, month, weekday = fields
        try:
            # Each field is fine by itself: then no month has such a day.
            CronSim(f"{minute} {hour} {day} * {weekday}", begin)
            CronSim(f"{minute} {hour} * {month} {weekday}", begin)
        except CronSimError:
            _refuse("schedule_cron_invalid", f"{expression!r} is no cron expression: {_lower(error)}")
        _refuse("schedule_never_due", f"no month has the day that {expression!r} names")


def _lower(error: Exception) -> str:
    text = str(error)
    return text[:1].lower() + text[1:]


def _refuse(code: str, message: str, hint: str | None = None) -> NoReturn:
    raise InvalidPlanError.of(code, message, category=ErrorCategory.PARSING_INPUT, hint=hint)
