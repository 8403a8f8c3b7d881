"""When schedules are due: fields, zones, changes of the clocks, intervals, jitter."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import islice, takewhile
from typing import Any
from zoneinfo import ZoneInfo

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from perdure import InvalidPlanError
from perdure.engine.due_times import (
    FIRST_MILLIS,
    LAST_MILLIS,
    MISSED_AT_ONCE,
    check_timing,
    due_after,
    due_times,
    fires_at,
    missed,
    moment_of,
)
from perdure.model.schedule import Timing
from tests.schedules import at, millis

BERLIN = "Europe/Berlin"
ZONES = (BERLIN, "UTC", "America/New_York", "Australia/Lord_Howe", "America/St_Johns", "Africa/Cairo")


def shown(timing: Timing, after: str, count: int) -> list[str]:
    """The next due times in the timing's zone, with its offset."""
    zone = ZoneInfo(timing.zone)
    found = islice(due_times(timing, millis(after)), count)
    return [datetime.fromtimestamp(due / 1000, zone).strftime("%d. %H:%M %Z") for due in found]


def test_a_time_that_a_day_lacks_comes_when_the_gap_ends() -> None:
    """In spring the clocks of Berlin go from 02:00 to 03:00; the day is not left out."""
    nightly = Timing(cron="30 2 * * *", zone=BERLIN)
    wanted = ["28. 02:30 CET", "29. 03:00 CEST", "30. 02:30 CEST"]
    assert shown(nightly, "2026-03-28 00:00", 3) == wanted


def test_a_time_that_a_day_has_twice_comes_once() -> None:
    """In autumn the hour from 02:00 to 03:00 comes twice; the first time counts."""
    nightly = Timing(cron="30 2 * * *", zone=BERLIN)
    wanted = ["24. 02:30 CEST", "25. 02:30 CEST", "26. 02:30 CET"]
    assert shown(nightly, "2026-10-24 00:00", 3) == wanted


@pytest.mark.parametrize("minute", range(0, 60, 7))
def test_asking_within_the_hour_that_comes_twice_gives_nothing_that_has_passed(minute: int) -> None:
    """From the second 02:xx on, the first 02:30 is over."""
    nightly = Timing(cron="30 2 * * *", zone=BERLIN)
    assert due_after(nightly, millis(f"2026-10-25 01:{minute:02}")) == millis("2026-10-26 01:30")


def test_a_rhythm_goes_on_through_both() -> None:
    """Every fifteen minutes is every fifteen minutes, whatever the clocks say."""
    quarterly = Timing(cron="*/15 * * * *", zone=BERLIN)
    for begin in ("2026-03-28 23:00", "2026-10-24 23:00"):
        dues = list(islice(due_times(quarterly, millis(begin)), 20))
        assert dues == [millis(begin) + number * 900_000 for number in range(1, 21)]
    spring = ["29. 01:45 CET", "29. 03:00 CEST", "29. 03:15 CEST"]
    assert shown(quarterly, "2026-03-29 00:30", 3) == spring
    autumn = ["25. 02:45 CEST", "25. 02:00 CET", "25. 02:15 CET"]
    assert shown(quarterly, "2026-10-25 00:30", 3) == autumn


def test_every_hour_is_every_hour() -> None:
    """A star for the hours is a rhythm too: the hour that comes twice has two."""
    hourly = Timing(cron="0 * * * *", zone=BERLIN)
    assert shown(hourly, "2026-10-24 23:30", 3) == ["25. 02:00 CEST", "25. 02:00 CET", "25. 03:00 CET"]


@pytest.mark.parametrize("zone", ZONES)
@pytest.mark.parametrize("expression", ["30 2 * * *", "0 0 * * *", "45 1 * * *", "15 3 * * *"])
def test_a_time_of_day_comes_once_a_day(zone: str, expression: str) -> None:
    """On every day of a year, in every zone."""
    timing = Timing(cron=expression, zone=zone)
    dues = list(islice(due_times(timing, millis("2026-01-05 00:00")), 365))
    days = [datetime.fromtimestamp(due / 1000, ZoneInfo(zone)).date() for due in dues]
    assert days == [days[0] + timedelta(days=number) for number in range(365)]


@given(
    st.sampled_from(
        [
            "*/7 * * * *",
            "30 2 * * *",
            "0,30 1-3 * * *",
            "5 */2 * * *",
            "0 0 29 2 *",
            "15 2 * * SUN",
            "0 12 L * *",
        ]
    ),
    st.sampled_from(ZONES),
    st.integers(millis("2024-01-01 00:00") // 1000, millis("2027-01-01 00:00") // 1000),
)
def test_due_times_do_not_depend_on_where_one_begins(expression: str, zone: str, begin: int) -> None:
    """What follows a due time is what follows it for whoever begins there; all lie ahead."""
    timing, after = Timing(cron=expression, zone=zone), begin * 1000
    dues = list(islice(due_times(timing, after), 15))
    assert [after, *dues] == sorted({after, *dues})
    assert [due_after(timing, due) for due in dues[:-1]] == dues[1:]


def test_intervals_are_counted_from_their_anchor() -> None:
    """In both directions, and whatever the clocks do."""
    every = Timing(every_millis=900_000, anchor_millis=millis("2026-03-29 00:10"), zone=BERLIN)
    wanted = ["29. 00:40 CET", "29. 00:55 CET", "29. 01:10 CET", "29. 01:25 CET"]
    assert shown(every, "2026-03-28 23:25", 4) == wanted
    assert due_after(every, millis("2026-03-29 00:10")) == millis("2026-03-29 00:25")


def test_nothing_is_due_before_the_start_or_after_the_end() -> None:
    """Both belong to it."""
    hourly = Timing(
        every_millis=3_600_000,
        starts_millis=millis("2026-01-02 03:00"),
        ends_millis=millis("2026-01-02 05:00"),
    )
    dues = list(due_times(hourly, millis("2026-01-01 00:00")))
    assert dues == [millis(f"2026-01-02 0{hour}:00") for hour in (3, 4, 5)]


def test_jitter_is_the_same_for_everybody() -> None:
    """It follows from the schedule and the due time, and stays below its bound."""
    timing = Timing(cron="0 * * * *", jitter_millis=60_000)
    dues = list(islice(due_times(timing, 0), 200))
    late = [fires_at("a", timing, due) - due for due in dues]
    assert late == [fires_at("a", timing, due) - due for due in dues]
    assert late != [fires_at("b", timing, due) - due for due in dues]
    assert 0 <= min(late) < 10_000
    assert 50_000 < max(late) <= 60_000


@given(
    st.integers(1, 50),
    st.integers(0, 300_000),
    st.integers(-5, 2000),
    st.sampled_from([None, 40]),
)
def test_missed_due_times_are_counted_without_looking_at_each(
    minutes: int, jitter: int, late: int, ends: int | None
) -> None:
    """As many as looking at each would give."""
    every = minutes * 60_000
    timing = Timing(every_millis=every, jitter_millis=jitter, ends_millis=ends and ends * every)
    before = late * every // 7
    wanted = list(takewhile(lambda due: fires_at("a", timing, due) < before, due_times(timing, 0)))
    found = missed("a", timing, every, before)
    if not wanted:
        assert found is None
    else:
        assert found is not None
        assert (found.number, found.last) == (len(wanted), wanted[-1])
        assert found.following == due_after(timing, wanted[-1])


def test_missed_due_times_of_an_expression_are_counted_in_parts() -> None:
    """A year of minutes would keep the loop from everything else."""
    timing = Timing(cron="* * * * *")
    found = missed("a", timing, 60_000, 60_000 * 1_000_000)
    assert found == (MISSED_AT_ONCE + 1, 60_000 * (MISSED_AT_ONCE + 1), 60_000 * (MISSED_AT_ONCE + 2))


@pytest.mark.parametrize(
    ("timing", "code"),
    [
        (Timing(), "schedule_invalid"),
        (Timing(cron="* * * * *", every_millis=60_000), "schedule_invalid"),
        (Timing(every_millis=999), "schedule_invalid"),
        (Timing(every_millis=1000, jitter_millis=-1), "schedule_invalid"),
        (Timing(cron="* * * *"), "schedule_cron_invalid"),
        (Timing(cron="0 * * * * *"), "schedule_cron_invalid"),
        (Timing(cron="60 * * * *"), "schedule_cron_invalid"),
        (Timing(cron="0 0 32 * *"), "schedule_cron_invalid"),
        (Timing(cron="0 0 * * MOON"), "schedule_cron_invalid"),
        (Timing(cron="0 0 * 13 *"), "schedule_cron_invalid"),
        (Timing(cron=f"{'0,' * 200}0 * * * *"), "schedule_cron_invalid"),
        (Timing(cron="0 0 30 2 *"), "schedule_never_due"),
        (Timing(cron="0 0 31 4,6,9,11 *"), "schedule_never_due"),
        (Timing(cron="0 0 1 1 *", ends_millis=millis("2026-06-01 00:00")), "schedule_never_due"),
        (Timing(every_millis=1000, ends_millis=0), "schedule_never_due"),
        (
            Timing(
                every_millis=1000,
                starts_millis=millis("2026-06-01 00:00"),
                ends_millis=millis("2026-05-01 00:00"),
            ),
            "schedule_never_due",
        ),
        (Timing(cron="* * * * *", zone="Europe/Berlun"), "schedule_zone_unknown"),
        (Timing(cron="* * * * *", zone="europe"), "schedule_zone_unknown"),
        (Timing(cron="* * * * *", zone="../etc/passwd"), "schedule_zone_unknown"),
        (Timing(cron="* * * * *", zone=""), "schedule_zone_unknown"),
        (Timing(every_millis=1000, zone="Nowhere"), "schedule_zone_unknown"),
    ],
)
def test_what_makes_no_sense_is_refused(timing: Timing, code: str) -> None:
    """With a code of its own, and a hint."""
    with pytest.raises(InvalidPlanError) as caught:
        check_timing(timing, millis("2026-03-01 00:00"))
    assert caught.value.code == code
    assert caught.value.hint


def test_a_misspelt_zone_has_a_suggestion() -> None:
    """If one is near."""
    with pytest.raises(InvalidPlanError) as caught:
        check_timing(Timing(cron="* * * * *", zone="europe/berlin"), 0)
    assert caught.value.hint == "did you mean Europe/Berlin?"


def test_what_is_rarely_due_is_due() -> None:
    """A 29th of February that is a Saturday, in the next century if need be."""
    timing = Timing(cron="0 0 */28 2 SAT#5")
    check_timing(timing, millis("2026-03-01 00:00"))
    assert due_after(timing, millis("2026-03-01 00:00")) == int(at("2048-02-29 00:00").timestamp() * 1000)


@pytest.mark.parametrize("zone", ["UTC", "Pacific/Kiritimati", "Pacific/Pago_Pago"])
@pytest.mark.parametrize("by", [{"cron": "0 0 * * *"}, {"every_millis": 999_999 * 86_400_000}])
def test_nothing_is_due_outside_the_calendar(zone: str, by: dict[str, Any]) -> None:
    """Beyond the year 9999 there is nothing, and before the year 1 there was nothing."""
    timing = Timing(**by, zone=zone)
    assert due_after(timing, LAST_MILLIS) is None
    assert due_after(timing, 2 * LAST_MILLIS) is None
    first = due_after(timing, 2 * FIRST_MILLIS)
    assert first is not None
    assert first >= FIRST_MILLIS
    with pytest.raises(InvalidPlanError, match="nothing will ever be due"):
        check_timing(msgspec.structs.replace(timing, starts_millis=LAST_MILLIS + 1), 0)


@pytest.mark.parametrize(
    ("zone", "clock", "moment"),
    [
        (BERLIN, "2027-03-28T01:59:59", "2027-03-28T01:59:59+01:00"),
        (BERLIN, "2027-03-28T02:00", "2027-03-28T03:00+02:00"),
        (BERLIN, "2027-03-28T02:30", "2027-03-28T03:00+02:00"),
        (BERLIN, "2027-10-31T02:30", "2027-10-31T02:30+02:00"),
        ("Australia/Lord_Howe", "2026-10-04T02:10", "2026-10-04T02:30+11:00"),
        ("Pacific/Apia", "2011-12-30T12:00", "2011-12-31T00:00+14:00"),
    ],
)
def test_a_clock_that_is_left_out_means_the_end_of_the_gap(zone: str, clock: str, moment: str) -> None:
    """And one that comes twice the first time, also where half an hour or a day is left out."""
    found = moment_of(datetime.fromisoformat(clock), ZoneInfo(zone))
    assert found.astimezone(UTC) == datetime.fromisoformat(moment)
