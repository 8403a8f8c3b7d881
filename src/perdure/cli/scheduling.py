"""Commands about schedules: create, list, show, pause, resume, trigger, backfill, delete."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime, timedelta
from typing import Annotated, TypeVar

from cyclopts import App as CommandApp
from cyclopts import Parameter, Token

from perdure.cli.common import (
    COMMON,
    SOURCE,
    Common,
    JsonText,
    Source,
    Whole,
    json_argument,
    label_arguments,
    reading,
    short,
    typed_command,
    wanted_app,
)
from perdure.cli.output import EXIT_COMPLETED, UNITS, Output, UsageError
from perdure.cli.schedule_words import lines, minute, next_due, op, told, when
from perdure.cli.telling import who
from perdure.clock import SystemClock
from perdure.engine.due_times import moment_of, zone_of
from perdure.errors import Json
from perdure.model.config import RetryPolicy, RunConfig
from perdure.model.schedule import Schedule
from perdure.sdk.app import App
from perdure.sdk.schedule_reading import in_zone, last_outcome, schedule_status, upcoming
from perdure.sdk.schedules import Schedules
from perdure.stores.bundle import Stores

T = TypeVar("T")


def add_to(schedule: CommandApp) -> None:
    """Add the commands to ``schedule``."""
    schedule.command(create)
    schedule.command(list_schedules, name="list")
    for command in (show, pause, resume, trigger, backfill, delete):
        schedule.command(command)


def _span(_: type, tokens: Sequence[Token]) -> timedelta:
    """How long, as in 15m, 1h30m or 2d."""
    token = tokens[0]
    parts = re.fullmatch(r"(?:(\d{1,6})d)?(?:(\d{1,6})h)?(?:(\d{1,6})m)?(?:(\d{1,6})s)?", token.value)
    if parts is None or not token.value:
        raise UsageError.of("usage", f"{token.keyword} is a time such as 45s, 15m, 1h30m or 2d")
    seconds = [int(count or 0) * unit for count, unit in zip(parts.groups(), UNITS.values(), strict=True)]
    return timedelta(seconds=sum(seconds))


Span = Annotated[timedelta, Parameter(converter=_span)]
MaybeSpan = Annotated[timedelta | None, Parameter(converter=_span)]


def create(
    schedule_id: str,
    op_id: str,
    /,
    *,
    cron: str | None = None,
    every: MaybeSpan = None,
    zone: str = "UTC",
    anchor: str | None = None,
    jitter: Span = timedelta(),
    starts: str | None = None,
    ends: str | None = None,
    max_runs: Whole | None = None,
    overlap: str = "skip",
    catchup: Span = timedelta(days=1),
    input: JsonText = None,  # noqa: A002 — the term
    op_version: str | None = None,
    op_config: JsonText = None,
    label: tuple[str, ...] = (),
    max_attempts: Whole = 3,
    common: Common = COMMON,
    source: Source = SOURCE,
) -> int:
    """Have runs of an operation or a pipeline started at their times, by workers.

    perdure schedule create nightly report --cron '30 2 * * *' --zone Europe/Berlin --app shop:app

    Moments are written as 2026-11-21T18:00, in the schedule's zone unless they name one.

    Parameters
    ----------
    schedule_id
        The schedule's name.
    op_id
        The operation's or pipeline's name; `perdure op list` shows them.
    cron
        Minute, hour, day of month, month, day of week, as in '30 2 * * MON-FRI'.
    every
        An interval instead, as in 15m or 1h30m.
    zone
        The time zone, such as Europe/Berlin; UTC unless given.
    anchor
        The moment from which intervals are counted; midnight of 1970-01-01 UTC unless given.
    jitter
        Start each run up to so much later, always as much for one due time.
    starts
        Nothing is due before this moment.
    ends
        Nothing is due after this moment.
    max_runs
        Stop after so many runs.
    overlap
        What becomes of a due time while the last run goes on: skip, queue, cancel_other or allow.
    catchup
        How old a due time may be that passed while no worker was there; 1d unless given.
    input
        The runs' input: JSON, @FILE, or - for standard input.
    op_version
        The version; the newest one, each time, unless given.
    op_config
        The operation's configuration: JSON, @FILE, or -.
    label
        A label of the runs, name=value; may be given several times.
    max_attempts
        How often a state is tried.
    """
    app = wanted_app(source)
    given = json_argument(input, None, "--input")
    config = json_argument(op_config, None, "--op-config")
    labels = label_arguments(label)

    async def make(stores: Stores) -> Schedule:
        return await _schedules(stores, app).create(
            schedule_id,
            op_id,
            given,
            cron=cron,
            every=every,
            zone=zone,
            anchor=_moment(anchor, zone, "--anchor"),
            jitter=jitter,
            starts=_moment(starts, zone, "--starts"),
            ends=_moment(ends, zone, "--ends"),
            max_runs=max_runs,
            overlap=overlap,
            catchup=catchup,
            op_version=op_version,
            labels=labels,
            run_config=RunConfig(retry_policy=RetryPolicy(max_attempts)),
            config=config,
        )

    # What is refused is refused here: a misspelt path must not become an empty store.
    asyncio.run(make(Stores.in_memory()))
    made = reading(common, make, makes=True)
    Output(as_json=common.json).answer(
        made.to_json(),
        f"schedule {made.id} created; next due {next_due(made)}",
        f"a worker starts its runs: {typed_command('worker', common, source)}",
    )
    return EXIT_COMPLETED


def list_schedules(*, common: Common = COMMON) -> int:
    """List schedules: when each is due next, and what became of it last.

    perdure schedule list
    """

    async def read(stores: Stores) -> list[tuple[Schedule, Json]]:
        return [(each, await last_outcome(stores, each)) for each in await _schedules(stores).list()]

    found = reading(common, read)
    output = Output(as_json=common.json)
    if common.json:
        output.data([each.to_json() | {"last": last} for each, last in found])
    elif not found:
        output.line("no schedules")
    else:
        output.table(
            ["schedule", "op", "when", "next due", "last"],
            [
                [each.id, op(each), when(each), next_due(each), "" if last is None else told(last)]
                for each, last in found
            ],
        )
    return EXIT_COMPLETED


def show(schedule_id: str, /, *, common: Common = COMMON) -> int:
    """Show a schedule: its next due times, and what became of the last ones.

    perdure schedule show nightly

    Parameters
    ----------
    schedule_id
        The schedule's name.
    """

    async def read(stores: Stores) -> tuple[Schedule, Json]:
        found = await _schedules(stores).get(schedule_id)
        return found, await schedule_status(stores, found, SystemClock().now_millis())

    found, status = reading(common, read)
    output = Output(as_json=common.json)
    if common.json:
        output.data(status)
        return EXIT_COMPLETED
    for name, text in lines(found):
        output.line(f"{name:8} {text}")
    for number, due in enumerate(upcoming(found, 5, SystemClock().now_millis())):
        output.line(f"{'' if number else 'next due':8} {minute(due)}")
    if status["recent"]:
        output.table(
            ["due", "outcome", "run", ""],
            [
                [
                    minute(in_zone(found, each["due_millis"])),
                    told(each),
                    short(each["run_id"] or ""),
                    each["reason"] or {"due": ""}.get(each["kind"], each["kind"]),
                ]
                for each in status["recent"]
            ],
        )
    return EXIT_COMPLETED


def pause(schedule_id: str, /, *, why: str, by: str | None = None, common: Common = COMMON) -> int:
    """Have nothing started any more, but for what is asked for by hand, until the schedule is resumed.

    perdure schedule pause nightly --why "the bank is closed"

    Parameters
    ----------
    schedule_id
        The schedule's name.
    why
        The reason, which is recorded.
    by
        Who wants it; the system's user unless given.
    """
    return _changing(
        common,
        lambda schedules: schedules.pause(schedule_id, why, by=who(by)),
        lambda changed: f"schedule {changed.id} is paused",
    )


def resume(schedule_id: str, /, *, common: Common = COMMON) -> int:
    """Have a paused schedule go on. What was due meanwhile is not caught up; a backfill does that.

    perdure schedule resume nightly

    Parameters
    ----------
    schedule_id
        The schedule's name.
    """
    return _changing(
        common,
        lambda schedules: schedules.resume(schedule_id),
        lambda changed: f"schedule {changed.id} goes on; next due {next_due(changed)}",
    )


def trigger(schedule_id: str, /, *, common: Common = COMMON) -> int:
    """Have one run started now, by a worker, also of a paused schedule.

    perdure schedule trigger nightly

    Parameters
    ----------
    schedule_id
        The schedule's name.
    """
    run_id = reading(common, lambda stores: _schedules(stores).trigger(schedule_id))
    words = f"run {run_id} is left to a worker: {typed_command('worker', common, Source())}"
    Output(as_json=common.json).answer({"run_id": run_id}, words)
    return EXIT_COMPLETED


def backfill(
    schedule_id: str,
    /,
    *,
    starts: Annotated[str, Parameter(name="--from")],
    ends: Annotated[str | None, Parameter(name="--until")] = None,
    common: Common = COMMON,
) -> int:
    """Have the runs started, by a worker, of due times that have passed.

    perdure schedule backfill nightly --from 2026-11-01 --until 2026-11-08

    A due time that has its run already gets no other.

    Parameters
    ----------
    schedule_id
        The schedule's name.
    starts
        The first moment of the range: 2026-11-01 or 2026-11-01T06:00, in the schedule's zone.
    ends
        The moment before which the range ends; now unless given.
    """

    async def ask(stores: Stores) -> int:
        schedules = _schedules(stores)
        zone = (await schedules.get(schedule_id)).timing.zone
        begin = _moment(starts, zone, "--from")
        assert begin is not None
        return await schedules.backfill(schedule_id, begin, _moment(ends, zone, "--until"))

    count = reading(common, ask)
    times = "due time is" if count == 1 else "due times are"
    words = f"{count} {times} left to a worker: {typed_command('worker', common, Source())}"
    Output(as_json=common.json).answer({"due_times": count}, words)
    return EXIT_COMPLETED


def delete(schedule_id: str, /, *, common: Common = COMMON) -> int:
    """Forget a schedule. Its runs are left as they are.

    perdure schedule delete nightly

    Parameters
    ----------
    schedule_id
        The schedule's name.
    """
    reading(common, lambda stores: _schedules(stores).delete(schedule_id))
    Output(as_json=common.json).answer({"id": schedule_id}, f"schedule {schedule_id} deleted")
    return EXIT_COMPLETED


def _schedules(stores: Stores, app: App | None = None) -> Schedules:
    return Schedules(stores, app, SystemClock())


def _changing(
    common: Common,
    change: Callable[[Schedules], Awaitable[Schedule]],
    words: Callable[[Schedule], str],
) -> int:
    changed = reading(common, lambda stores: change(_schedules(stores)))
    Output(as_json=common.json).answer(changed.to_json(), words(changed))
    return EXIT_COMPLETED


def _moment(text: str | None, zone: str, option: str) -> datetime | None:
    """A moment as a person writes it, in ``zone`` unless it names one."""
    if text is None:
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise UsageError.of("usage", f"{option} is a moment such as 2026-11-21T18:00") from None
    return moment if moment.tzinfo is not None else moment_of(moment, zone_of(zone))
