"""``client.schedules``: having runs started at their times."""

from __future__ import annotations

import builtins
import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from itertools import islice
from types import NoneType
from typing import Any, NoReturn, TypeVar

import msgspec

from perdure.canonical import canonical_json_bytes
from perdure.clock import Clock
from perdure.engine.due_times import check_timing, due_after, due_times
from perdure.engine.schedules import backfilled, paused, resumed, starting, triggered
from perdure.errors import ConcurrencyError, ErrorCategory, InvalidPlanError
from perdure.ids import RunId
from perdure.model.config import RunConfig
from perdure.model.schedule import Overlap, Schedule, Target, Timing
from perdure.sdk.app import App
from perdure.sdk.checks import expect, expect_mapping, refuse_call
from perdure.sdk.runs import PROGRAM
from perdure.sdk.scheduling import checked_start, row_of
from perdure.stores.bundle import Stores

T = TypeVar("T")

CATCHUP = timedelta(days=1)
CATCHUP_MIN = timedelta(seconds=10)
BACKFILL_MAX = 10_000
_ID = re.compile(r"[a-z][a-z0-9_.-]{0,62}")
_PAGE = 500
_MILLISECOND = timedelta(milliseconds=1)
_TRIES = 20


class Schedules:
    """The schedules of a client's store.

    ``app`` knows what may be started; without one nothing can be created. ``nudge`` is called when something
    may be due. Times are datetimes with a time zone.
    """

    def __init__(
        self, stores: Stores, app: App | None, clock: Clock, nudge: Callable[[], None] = lambda: None
    ) -> None:
        self._stores = stores
        self._app = app
        self._clock = clock
        self._nudge = nudge

    async def create(
        self,
        schedule_id: str,
        op: Any,
        input: Any = None,  # noqa: A002 — the term
        *,
        cron: str | None = None,
        every: timedelta | None = None,
        anchor: datetime | None = None,
        zone: str = "UTC",
        jitter: timedelta = timedelta(),
        starts: datetime | None = None,
        ends: datetime | None = None,
        max_runs: int | None = None,
        overlap: Overlap | str = Overlap.SKIP,
        catchup: timedelta = CATCHUP,
        op_version: str | None = None,
        labels: Mapping[str, str] | None = None,
        run_config: RunConfig | None = None,
        config: Any = None,
    ) -> Schedule:
        """Have runs of an operation or a pipeline started from now on: by ``cron`` in ``zone``, or ``every``.

        Intervals are counted from ``anchor``, 1970-01-01 UTC unless given. Each run is started up to
        ``jitter`` late. Due times before ``starts`` or after ``ends`` are none, and none is left after
        ``max_runs``. ``overlap`` says what becomes of a due time that comes while the last run has not ended,
        ``catchup`` how old one may be that passed while nobody was there. Without ``op_version`` each run is
        of the newest version that whoever starts it knows. The rest is as in ``Client.start``.

        Raises before anything is written: ``InvalidPlanError`` (``schedule_invalid``,
        ``schedule_cron_invalid``, ``schedule_zone_unknown``, ``schedule_never_due``, and as
        ``Client.start``), ``CanonicalJsonError``; and ``ConcurrencyError`` (``schedule_exists``).
        """
        if self._app is None:
            raise TypeError("an app is needed to create schedules")
        now = self._clock.now_millis()
        timing = Timing(
            cron=_cron(cron),
            every_millis=None if every is None else _duration(every, "create(every=…)"),
            anchor_millis=0 if anchor is None else _moment(anchor, "create(anchor=…)"),
            zone=_text(zone, "create(zone=…)"),
            jitter_millis=_duration(jitter, "create(jitter=…)"),
            starts_millis=None if starts is None else _moment(starts, "create(starts=…)"),
            ends_millis=None if ends is None else _moment(ends, "create(ends=…)"),
        )
        check_timing(timing, now)
        catchup_millis = _duration(catchup, "create(catchup=…)")
        if catchup < CATCHUP_MIN:
            _refuse(f"the catch-up window is {CATCHUP_MIN.seconds} seconds or longer")
        schedule = Schedule(
            id=_checked_id(schedule_id),
            timing=timing,
            target=_target(self._app, op, op_version, input, labels, run_config, config),
            overlap=_overlap(overlap),
            catchup_millis=catchup_millis,
            max_runs=_max_runs(max_runs),
            created_millis=now,
        )
        first = due_after(schedule.timing, now)
        checked_start(self._app, schedule, starting(schedule.id, now if first is None else first))
        schedule = msgspec.structs.replace(schedule, next_millis=first)
        canonical_json_bytes(schedule.to_json())
        await self._stores.schedules.create(row_of(schedule))
        self._nudge()
        return schedule

    async def get(self, schedule_id: str) -> Schedule:
        """The schedule; ``NotFoundError`` (``schedule_not_found``)."""
        return Schedule.from_json((await self._stores.schedules.get(schedule_id)).body)

    async def list(self) -> builtins.list[Schedule]:
        """All schedules, in the order of their ids."""
        found: builtins.list[str] = []
        while page := await self._stores.schedules.list(found[-1] if found else None, _PAGE):
            found += page
        return [await self.get(each) for each in found]

    async def pause(self, schedule_id: str, reason: str, *, by: str = PROGRAM) -> Schedule:
        """Have nothing started any more, but for what is asked for by hand, until :meth:`resume`.

        A due time that waits is skipped. Raises as :meth:`get`.
        """
        _text(reason, "pause(…, reason)")
        _text(by, "pause(by=…)")

        def change(schedule: Schedule) -> tuple[Schedule, Schedule]:
            changed = paused(schedule, by, reason, self._clock.now_millis())
            canonical_json_bytes(changed.to_json())
            return changed, changed

        return await self._change(schedule_id, change)

    async def resume(self, schedule_id: str) -> Schedule:
        """Have a paused schedule go on from now; what was due meanwhile is not caught up."""

        def change(schedule: Schedule) -> tuple[Schedule, Schedule]:
            changed = resumed(schedule, self._clock.now_millis())
            return changed, changed

        return await self._change(schedule_id, change)

    async def trigger(self, schedule_id: str) -> RunId:
        """Have one run started now, also of a paused schedule; returns the id that it gets.

        Unless runs may overlap it waits for the end of the last one. Raises as :meth:`get`.
        """

        def change(schedule: Schedule) -> tuple[Schedule, RunId]:
            changed, start = triggered(schedule, self._clock.now_millis())
            return changed, start.run_id

        return await self._change(schedule_id, change)

    async def backfill(self, schedule_id: str, starts: datetime, ends: datetime | None = None) -> int:
        """Have the runs started of every due time from ``starts`` on and before ``ends``, now unless given.

        They are started in order, one after the other unless runs may overlap. A due time that has its run
        already gets no other. Returns how many due times there are. Raises ``InvalidPlanError``
        (``schedule_invalid``) for an empty range, one in the future, and one of more than
        ``BACKFILL_MAX``.
        """
        now = self._clock.now_millis()
        begin = _moment(starts, "backfill(…, starts)")
        end = now if ends is None else _moment(ends, "backfill(…, ends)")
        if end > now:
            _refuse("a backfill ends now or earlier: what comes later will be due by itself")

        def change(schedule: Schedule) -> tuple[Schedule, int]:
            timing = msgspec.structs.replace(schedule.timing, starts_millis=None, ends_millis=end - 1)
            count = sum(1 for _ in islice(due_times(timing, begin - 1), BACKFILL_MAX + 1))
            if not count:
                _refuse("no due time lies in the range")
            if count > BACKFILL_MAX:
                _refuse(f"the range has more than {BACKFILL_MAX} due times: ask for it in parts")
            return backfilled(schedule, begin, end), count

        return await self._change(schedule_id, change)

    async def delete(self, schedule_id: str) -> None:
        """Forget a schedule. Its runs are left as they are. Raises as :meth:`get`."""
        await self._stores.schedules.delete(schedule_id)

    async def _change(self, schedule_id: str, change: Callable[[Schedule], tuple[Schedule, T]]) -> T:
        """What ``change`` gives beside the changed schedule, which is kept."""
        for tries_left in reversed(range(_TRIES)):
            row = await self._stores.schedules.get(schedule_id)
            changed, result = change(Schedule.from_json(row.body))
            try:
                await self._stores.schedules.update(row_of(changed, row.revision))
            except ConcurrencyError:
                if not tries_left:
                    raise
                continue
            self._nudge()
            return result
        raise AssertionError("unreachable")


def _target(
    app: App,
    op: Any,
    op_version: str | None,
    given: Any,
    labels: Mapping[str, str] | None,
    run_config: RunConfig | None,
    config: Any,
) -> Target:
    if not isinstance(op, str) and not hasattr(op, "pipeline_of"):
        refuse_call(op, "what a schedule starts", "an operation, a pipeline or the name of one")
    expect(op_version, (str, NoneType), "create(op_version=…)", "a string")
    expect_mapping(labels or {}, str, "create(labels=…)", "strings")
    expect(run_config, (RunConfig, NoneType), "create(run_config=…)", "a RunConfig")
    op_id = op if isinstance(op, str) else str(op.op_id)
    startable = app.startable(op_id, op_version)
    step_configs = [step.op_config for step in startable.pipeline_of(config).steps]
    return Target(
        op_id=op_id,
        op_version=op_version,
        input=startable.input_json(given),
        op_config=None if config is None else step_configs[0],
        run_config=None if run_config is None else run_config.to_json(),
        labels=dict(labels or {}),
    )


def _checked_id(schedule_id: str) -> str:
    expect(schedule_id, str, "a schedule's id", "a string")
    if _ID.fullmatch(schedule_id) is None:
        _refuse(
            "a schedule's id begins with a lower-case letter; letters, digits, _ . and - follow, 63 at most"
        )
    return schedule_id


def _cron(cron: str | None) -> str | None:
    expect(cron, (str, NoneType), "create(cron=…)", "a string")
    return None if cron is None else " ".join(cron.split())


def _text(value: str, what: str) -> str:
    expect(value, str, what, "a string")
    return value


def _overlap(value: Overlap | str) -> Overlap:
    try:
        return Overlap(value)
    except ValueError:
        names = ", ".join(each.value for each in Overlap)
        _refuse(f"overlap is one of {names}")


def _max_runs(value: int | None) -> int | None:
    expect(value, (int, NoneType), "create(max_runs=…)", "a whole number")
    if value is not None and value < 1:
        _refuse("max_runs is 1 or more")
    return value


def _duration(value: timedelta, what: str) -> int:
    expect(value, timedelta, what, "a timedelta")
    if value < timedelta():
        _refuse(f"{what} is not negative")
    return value // _MILLISECOND


def _moment(value: datetime, what: str) -> int:
    expect(value, datetime, what, "a datetime with a time zone")
    if value.utcoffset() is None:
        _refuse(f"{what} needs a time zone: it would be another moment on another machine")
    return (value - datetime(1970, 1, 1, tzinfo=UTC)) // _MILLISECOND


def _refuse(message: str) -> NoReturn:
    raise InvalidPlanError.of("schedule_invalid", message, category=ErrorCategory.PARSING_INPUT)
