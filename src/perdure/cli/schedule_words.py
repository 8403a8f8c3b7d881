"""Schedules in words: what they are, and when they are due."""

from __future__ import annotations

from datetime import datetime

from perdure.cli.common import shown
from perdure.cli.output import UNITS, span
from perdure.errors import Json
from perdure.model.schedule import Schedule
from perdure.sdk.schedule_reading import in_zone


def minute(moment: datetime) -> str:
    """A moment, to the minute if it is a whole one, with its zone."""
    seconds = ":%S" if moment.second else ""
    return f"{moment.date()} {moment.strftime(f'%H:%M{seconds} %Z')}"


def next_due(schedule: Schedule) -> str:
    """When a schedule is due next."""
    if schedule.paused is not None:
        return "paused"
    return "never" if schedule.next_millis is None else minute(in_zone(schedule, schedule.next_millis))


def op(schedule: Schedule) -> str:
    """What a schedule starts."""
    return f"{schedule.target.op_id} {schedule.target.op_version or ''}".strip()


def when(schedule: Schedule) -> str:
    """By what a schedule is due."""
    timing = schedule.timing
    zone = "" if timing.zone == "UTC" else f" {timing.zone}"
    if timing.every_millis is not None:
        return f"every {brief(timing.every_millis)}{zone}"
    return f"{timing.cron}{zone}"


def brief(millis: int) -> str:
    """A time as it is typed: 1h30m."""
    seconds, text = millis // 1000, ""
    for unit, size in UNITS.items():
        count, seconds = divmod(seconds, size)
        text += f"{count}{unit}" if count else ""
    return text or span(millis / 1000)


def told(outcome: Json) -> str:
    """What became of a due time, or of several."""
    many = f" ({outcome['count']})" if outcome["count"] > 1 else ""
    return f"{outcome['outcome']}{many}"


def lines(schedule: Schedule) -> list[tuple[str, str]]:
    """What a schedule is, by name."""
    timing, target = schedule.timing, schedule.target
    lines = [
        ("schedule", schedule.id),
        ("op", op(schedule) + ("" if target.op_version else ", the newest version")),
        ("when", when(schedule)),
    ]
    if target.input is not None:
        lines.append(("input", shown(target.input)))
    if target.labels:
        lines.append(("labels", " ".join(f"{name}={value}" for name, value in sorted(target.labels.items()))))
    if timing.jitter_millis:
        lines.append(("jitter", f"up to {brief(timing.jitter_millis)}"))
    for name, millis in (("starts", timing.starts_millis), ("ends", timing.ends_millis)):
        if millis is not None:
            lines.append((name, minute(in_zone(schedule, millis))))
    lines.append(("overlap", schedule.overlap.value))
    lines.append(("catch up", brief(schedule.catchup_millis)))
    most = "" if schedule.max_runs is None else f" of {schedule.max_runs}"
    lines.append(("runs", f"{schedule.runs}{most}, {schedule.skipped} skipped, {schedule.missed} missed"))
    if schedule.paused is not None:
        lines.append(("paused", f"by {schedule.paused.by}: {schedule.paused.reason}"))
    if schedule.waiting_millis is not None:
        lines.append(("waits", f"{minute(in_zone(schedule, schedule.waiting_millis))}, for the last run"))
    for asked in schedule.requests:
        begin = minute(in_zone(schedule, asked.next_millis))
        if asked.until_millis is None:
            lines.append(("asked", f"a run, at {begin}"))
        else:
            lines.append(("asked", f"from {begin} until {minute(in_zone(schedule, asked.until_millis))}"))
    return lines
