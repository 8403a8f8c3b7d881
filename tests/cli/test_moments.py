"""Moments that a person types for a schedule: at the ends of the calendar, and where clocks change."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.test_cli import Terminal

APP = ("--app", "tests.schedules:app")
DAILY = ("--cron", "30 2 * * *", "--input", '"x"', *APP)
BERLIN = (*DAILY, "--zone", "Europe/Berlin")
FAR = ("--every", "999999d", "--input", '"x"', *APP)


@pytest.fixture
def terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Terminal:
    """A terminal, and an empty store."""
    made = Terminal(tmp_path / "runs.db", capsys)
    assert made.type("store", "init")[0] == 0
    return made


def test_a_schedule_may_be_due_once_in_a_thousand_years(terminal: Terminal) -> None:
    """What lies beyond the calendar is not shown."""
    assert terminal.type("schedule", "create", "far", "report", *FAR)[0] == 0
    assert [each[:2] for each in terminal.read("schedule", "show", "far")["upcoming"]] == ["47", "74"]
    assert "next due 4" in terminal.type("schedule", "show", "far")[1]


@pytest.mark.parametrize("end", ["9999-12-31", "9999-12-31T23:59-14:00", "9999-12-31T23:59+14:00"])
def test_a_schedule_may_end_with_the_calendar(terminal: Terminal, end: str) -> None:
    """Many write "for ever" like this."""
    words = (*DAILY, "--starts", "0001-01-01", "--ends", end, "--zone", "America/New_York")
    assert terminal.type("schedule", "create", "ever", "report", *words)[0] == 0
    out = terminal.type("schedule", "show", "ever")[1]
    assert "starts   0001-01-01 19:03:58 LMT" in out
    assert "ends     9999-12-30" in out


@pytest.mark.parametrize("words", [DAILY, FAR])
@pytest.mark.parametrize("start", ["9999-12-31T23:59", "9999-12-31T23:59-14:00"])
def test_a_schedule_does_not_begin_when_the_calendar_ends(
    terminal: Terminal, words: tuple[str, ...], start: str
) -> None:
    """Nothing would be due."""
    told = terminal.error("schedule", "create", "late", "report", *words, "--starts", start)
    assert told == (2, "schedule_never_due")


@pytest.mark.parametrize("begin", ["0001-01-01", "0001-01-01T00:00+14:00"])
def test_a_backfill_from_the_beginning_of_time_is_too_long(terminal: Terminal, begin: str) -> None:
    """And not an error of the program."""
    assert terminal.type("schedule", "create", "daily", "report", *DAILY)[0] == 0
    told = terminal.error("schedule", "backfill", "daily", "--from", begin)
    assert told == (2, "schedule_invalid")


@pytest.mark.parametrize(
    ("begin", "end", "count"),
    [
        ("2025-03-30T02:30", "2025-03-31", 1),
        ("2025-03-30T02:00", "2025-03-30T02:59", None),
        ("2025-03-30T03:00", "2025-03-30T03:01", 1),
        ("2025-03-30T03:01", "2025-03-31", None),
        ("2025-10-26T02:30", "2025-10-27", 1),
    ],
)
def test_a_time_that_the_day_lacks_is_the_end_of_the_gap(
    terminal: Terminal, begin: str, end: str, count: int | None
) -> None:
    """There, at 03:00, what was due in the gap is due."""
    assert terminal.type("schedule", "create", "nightly", "report", *BERLIN)[0] == 0
    words = ("schedule", "backfill", "nightly", "--from", begin, "--until", end)
    if count is None:
        assert terminal.error(*words) == (2, "schedule_invalid")
    else:
        assert terminal.read(*words) == {"due_times": count}
