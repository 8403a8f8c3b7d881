"""Schedules: runs that are started at their times, once each, whoever is there."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from typing import Any

import pytest

import perdure
from perdure import App, Client, IoProvider, PerdureError, RunConfig, RunPhase, StorageError, Stores
from perdure.model.schedule import Overlap, Schedule
from perdure.sdk.reading import summary_of
from perdure.stores.memory import MemoryStore, memory_stores
from perdure.stores.ports import ScheduleRow
from perdure.stores.schedules import MemorySchedules
from perdure.testing import FakeClock
from tests.schedules import Office, app, at, iso, millis, report, run_of, shift

MINUTE, HOUR = timedelta(minutes=1), timedelta(hours=1)


@pytest.fixture
async def office() -> AsyncIterator[Office]:
    """A store on the first of January 2026."""
    made = Office()
    yield made
    await made.close()


def last(schedule: Schedule) -> tuple[str, str, str]:
    """The last outcome: its kind, due time and reason."""
    outcome = schedule.recent[-1]
    return outcome.kind, iso(outcome.due_millis), outcome.reason


# Due times


async def test_a_run_is_started_when_it_is_due(office: Office) -> None:
    """Not a minute before; then once."""
    client = office.worker()
    made = await client.schedules.create("daily", report, "news", cron="0 6 * * *")
    assert made.next_millis == millis("2026-01-01 06:00")
    await office.pass_on(client, "2026-01-01 05:59")
    assert await office.dues() == []
    await office.pass_on(client, "2026-01-01 06:00")
    await office.pass_on(client, "2026-01-01 06:01")
    assert await office.dues(RunPhase.COMPLETED) == ["01-01 06:00"]
    seen = await client.schedules.get("daily")
    assert (seen.runs, seen.next_millis) == (1, millis("2026-01-02 06:00"))
    assert seen.last_run_id == run_of("daily", "2026-01-01 06:00")


async def test_a_run_knows_its_due_time_and_its_schedule(office: Office) -> None:
    """The first by the initial context, which an operation may import; the second is in its manifest."""
    client = office.worker()
    await client.schedules.create("daily", "report", "news", cron="0 6 * * *", labels={"desk": "7"})
    await office.pass_on(client, "2026-01-01 06:30")
    run = await client.get(run_of("daily", "2026-01-01 06:00"), report)
    assert await run.result() == "news of 2026-01-01T06:00:00Z"
    summary = await summary_of(office.stores, run.id)
    assert summary.schedule == {"id": "daily", "due": "2026-01-01T06:00:00Z"}
    assert summary.labels == {"desk": "7"}


async def test_intervals_need_no_expression(office: Office) -> None:
    """They are counted from an anchor, and in a zone only shown."""
    client = office.worker()
    anchor = at("2026-01-01 00:05")
    await client.schedules.create("often", report, "", every=20 * MINUTE, anchor=anchor, zone="Asia/Tokyo")
    for now in ("00:00", "00:24", "00:25", "00:44", "00:50"):
        await office.pass_on(client, f"2026-01-01 {now}")
    assert await office.dues() == ["01-01 00:05", "01-01 00:25", "01-01 00:45"]


async def test_a_day_on_which_the_clocks_change_has_its_run(office: Office) -> None:
    """In spring at the end of the gap, in autumn once."""
    client = office.worker()
    office.move_to("2026-03-28 12:00")
    await client.schedules.create("nightly", report, "", cron="30 2 * * *", zone="Europe/Berlin")
    await office.pass_on(client, "2026-03-29 00:59")
    assert await office.dues() == []
    await office.pass_on(client, "2026-03-29 01:00")
    await office.pass_on(client, "2026-03-29 01:30")
    assert await office.dues() == ["03-29 01:00"]
    await client.schedules.delete("nightly")
    office.move_to("2026-10-24 12:00")
    await client.schedules.create("nightly", report, "", cron="30 2 * * *", zone="Europe/Berlin")
    for now in ("2026-10-25 00:30", "2026-10-25 01:30", "2026-10-25 12:00"):
        await office.pass_on(client, now)
    assert await office.dues() == ["03-29 01:00", "10-25 00:30"]


async def test_jitter_delays_a_run_by_what_its_due_time_says(office: Office) -> None:
    """The due time stays what it is."""
    client = office.worker()
    made = await client.schedules.create("a", report, "", every=HOUR, jitter=30 * MINUTE)
    row = await office.stores.schedules.get("a")
    assert row.due_millis is not None
    late = row.due_millis - millis("2026-01-01 01:00")
    assert 0 < late < 1_800_000
    assert made.next_millis == millis("2026-01-01 01:00")
    office.clock.millis = row.due_millis - 1
    await office.pass_on(client)
    assert await office.dues() == []
    office.clock.millis = row.due_millis
    await office.pass_on(client)
    assert await office.dues() == ["01-01 01:00"]


async def test_a_schedule_has_a_beginning_and_an_end(office: Office) -> None:
    """By time, or by a number of runs; then nothing is due by it any more."""
    client = office.worker()
    limits: dict[str, Any] = {"starts": at("2026-01-01 02:00"), "ends": at("2026-01-01 03:00")}
    await client.schedules.create("a", report, "", every=HOUR, **limits)
    await client.schedules.create("b", report, "", every=HOUR, max_runs=1)
    for hour in range(1, 8):
        await office.pass_on(client, f"2026-01-01 0{hour}:00")
    assert await office.dues() == ["01-01 01:00", "01-01 02:00", "01-01 03:00"]
    assert {each.next_millis for each in await client.schedules.list()} == {None}
    assert await office.stores.schedules.next_due_millis() is None


# Exactly once


async def test_of_two_workers_one_starts_the_run(office: Office) -> None:
    """Both look at the same moment; there is one run, and one is counted."""
    workers = [office.worker(), office.worker()]
    for number in range(20):
        await workers[0].schedules.create(f"s{number}", report, "", every=HOUR)
    office.move_to("2026-01-01 01:00")
    await asyncio.gather(*(each.recover() for each in workers))
    await asyncio.gather(*(office.pass_on(each) for each in workers))
    assert await office.dues(RunPhase.COMPLETED) == ["01-01 01:00"] * 20
    assert [each.runs for each in await workers[0].schedules.list()] == [1] * 20


class Dying(MemorySchedules):
    """Schedules of a process that dies before, or after, it writes that it has started a run."""

    dies_before = True

    async def update(self, row: ScheduleRow) -> ScheduleRow:
        if not self.dies_before:
            await super().update(row)
        raise StorageError.of("store_io_error", "the process died")


@pytest.mark.parametrize("dies_before", [True, False])
async def test_who_dies_between_start_and_note_leaves_no_second_run(
    office: Office, dies_before: bool
) -> None:
    """The next worker finds the run that is there, and goes on."""
    store = MemoryStore(office.state, office.clock)
    dying = Dying(office.state.schedules, store.is_over)
    dying.dies_before = dies_before
    first = office.worker(
        stores=Stores(store, store, store, store, mailbox=store, agenda=store, schedules=dying)
    )
    second = office.worker()
    await second.schedules.create("daily", report, "news", cron="0 6 * * *")
    office.move_to("2026-01-01 06:00")
    await first.recover()
    assert await office.dues() == ["01-01 06:00"]
    await office.pass_on(second)
    seen = await second.schedules.get("daily")
    assert (seen.runs, seen.next_millis) == (1, millis("2026-01-02 06:00"))
    assert await office.dues(RunPhase.COMPLETED) == ["01-01 06:00"]


@pytest.mark.parametrize("overlap", ["skip", "queue", "cancel_other", "allow"])
async def test_a_run_that_nobody_noted_is_neither_missed_nor_skipped(office: Office, overlap: str) -> None:
    """However late its note comes, and though the next due time has come too, which sees that it goes on."""
    store = MemoryStore(office.state, office.clock)
    dying = Dying(office.state.schedules, store.is_over)
    first = office.worker(
        stores=Stores(store, store, store, store, mailbox=store, agenda=store, schedules=dying)
    )
    second = office.worker()
    await second.schedules.create("a", shift, every=HOUR, overlap=overlap, catchup=MINUTE)
    office.move_to("2026-01-01 01:00")
    await first.recover()
    office.move_to("2026-01-01 02:00")
    await second.recover()
    seen = await second.schedules.get("a")
    assert (seen.recent[0].kind, iso(seen.recent[0].due_millis)) == ("due", "01-01 01:00")
    assert seen.missed == 0
    assert len(await office.dues(RunPhase.RUNNING)) == (2 if overlap == "allow" else 1)


async def test_a_newer_version_finds_the_run_that_an_older_one_started(office: Office) -> None:
    """The due time has its run, though it would be another manifest's today."""
    store = MemoryStore(office.state, office.clock)
    dying = Dying(office.state.schedules, store.is_over)
    first = office.worker(
        stores=Stores(store, store, store, store, mailbox=store, agenda=store, schedules=dying)
    )
    newer = perdure.op("report", "2", input=str, output=str)

    @newer.state
    async def title(name: str) -> str:
        return name

    second = office.worker(App([report, newer]))
    await second.schedules.create("daily", "report", "news", cron="0 6 * * *")
    office.move_to("2026-01-01 06:00")
    await first.recover()
    await office.pass_on(second)
    await office.pass_on(second, "2026-01-02 06:00")
    assert await office.dues() == ["01-01 06:00", "01-02 06:00"]
    versions = [
        (await summary_of(office.stores, run_of("daily", f"2026-01-0{day} 06:00"))).op_version
        for day in (1, 2)
    ]
    assert versions == ["1", "2"]


async def test_who_does_not_know_an_operation_leaves_its_schedule_to_others(office: Office) -> None:
    """Nothing is lost, and its own schedules do not wait behind."""
    stranger, client = office.worker(App([shift])), office.worker()
    await client.schedules.create("a", report, "", cron="0 6 * * *")
    await client.schedules.create("b", shift, cron="0 6 * * *")
    await office.pass_on(stranger, "2026-01-01 06:00")
    await office.pass_on(stranger)
    assert (await client.schedules.get("a")).last_run_id is None
    assert (await client.schedules.get("b")).last_run_id is not None
    await office.pass_on(client, "2026-01-01 07:00")
    assert (await client.schedules.get("a")).runs == 1


async def test_a_broken_schedule_stops_no_other(office: Office) -> None:
    """Neither a damaged row nor an operation whose code raises."""
    client = office.worker()
    for schedule_id in "abc":
        await client.schedules.create(schedule_id, report, "", cron="0 6 * * *")
    office.state.schedules["a"] = office.state.schedules["a"]._replace(body=b'{"id')
    office.state.schedules["b"] = office.state.schedules["b"]._replace(body=b'{"id":7}')
    await office.pass_on(client, "2026-01-01 06:00")
    assert (await client.schedules.get("c")).runs == 1
    with pytest.raises(PerdureError, match="schedule_corruption"):
        await client.schedules.get("a")


# What was missed


async def test_what_was_missed_is_caught_up_inside_the_window(office: Office) -> None:
    """In order; what is older is counted, not started."""
    client = office.worker()
    await client.schedules.create("a", report, "", every=HOUR, catchup=3 * HOUR, overlap="allow")
    await office.pass_on(client, "2026-01-01 10:30")
    assert await office.dues() == ["01-01 08:00", "01-01 09:00", "01-01 10:00"]
    seen = await client.schedules.get("a")
    assert (seen.runs, seen.missed, seen.next_millis) == (3, 7, millis("2026-01-01 11:00"))
    missed = [each for each in seen.recent if each.kind == "missed"]
    assert [(each.count, iso(each.due_millis)) for each in missed] == [(7, "01-01 07:00")]


async def test_a_decade_of_minutes_is_passed_over(office: Office) -> None:
    """It is counted without being gone through: an interval is arithmetic."""
    client = office.worker()
    await client.schedules.create("a", report, "", every=MINUTE, catchup=MINUTE)
    await office.pass_on(client, "2036-01-01 00:00")
    seen = await client.schedules.get("a")
    assert seen.missed + seen.runs + seen.skipped == 3652 * 24 * 60
    assert seen.runs >= 1


# Overlap


async def busy(office: Office, client: Client, overlap: Overlap | str) -> Schedule:
    """A schedule whose first run goes on."""
    await client.schedules.create("a", shift, every=HOUR, overlap=overlap)
    await office.pass_on(client, "2026-01-01 01:00")
    return await client.schedules.get("a")


async def test_a_due_time_is_skipped_while_the_last_run_goes_on(office: Office) -> None:
    """With the reason; the next one after its end has a run again."""
    client = office.worker()
    first = await busy(office, client, Overlap.SKIP)
    await office.pass_on(client, "2026-01-01 02:00")
    seen = await client.schedules.get("a")
    assert last(seen) == ("skipped", "01-01 02:00", "the last run had not ended")
    await office.finish(client, first.last_run_id)
    await office.pass_on(client, "2026-01-01 03:00")
    assert await office.dues() == ["01-01 01:00", "01-01 03:00"]
    assert (await client.schedules.get("a")).skipped == 1


async def test_one_due_time_waits_in_the_queue(office: Office) -> None:
    """It is started as soon as the last run has ended; what came meanwhile is skipped."""
    client = office.worker()
    first = await busy(office, client, "queue")
    await office.pass_on(client, "2026-01-01 02:00")
    assert (await client.schedules.get("a")).waiting_millis == millis("2026-01-01 02:00")
    await office.pass_on(client, "2026-01-01 03:00")
    assert last(await client.schedules.get("a")) == ("skipped", "01-01 03:00", "another one waited already")
    assert await office.dues() == ["01-01 01:00"]
    await office.finish(client, first.last_run_id)
    assert await office.dues() == ["01-01 01:00", "01-01 02:00"]
    second = await client.schedules.get("a")
    assert (second.waiting_millis, second.runs, second.skipped) == (None, 2, 1)
    await office.finish(client, second.last_run_id)
    assert await office.dues(RunPhase.COMPLETED) == ["01-01 01:00", "01-01 02:00"]


async def test_the_other_run_is_cancelled_first(office: Office) -> None:
    """The next one begins when it has ended."""
    client = office.worker()
    first = await busy(office, client, "cancel_other")
    await office.pass_on(client, "2026-01-01 02:00")
    await office.pass_on(client)
    assert await office.dues(RunPhase.CANCELLED) == ["01-01 01:00"]
    assert await office.dues(RunPhase.RUNNING) == ["01-01 02:00"]
    assert first.last_run_id != (await client.schedules.get("a")).last_run_id


async def test_a_due_time_that_waits_for_a_cancellation_gives_way_to_a_later_one(office: Office) -> None:
    """If the run takes that long to clean up: who is late already is not started for its own sake."""
    slow = perdure.op("slow", output=str)

    @slow.state
    async def sitting(io: IoProvider) -> str:
        await io.wait_signal("done")
        return ""

    @slow.state(on_cancel=True)
    async def cleaning(io: IoProvider) -> None:
        await io.wait_signal("clean")

    client = office.worker(App([slow]))
    await client.schedules.create("a", slow, every=HOUR, overlap="cancel_other")
    for hour in (1, 2, 3):
        await office.pass_on(client, f"2026-01-01 0{hour}:00")
    seen = await client.schedules.get("a")
    assert last(seen) == ("skipped", "01-01 02:00", "a later one took its place")
    assert seen.waiting_millis == millis("2026-01-01 03:00")
    await (await client.get(str(seen.last_run_id))).signal("clean")
    await office.pass_on(client)
    await office.pass_on(client)
    assert await office.dues(RunPhase.RUNNING) == ["01-01 03:00"]
    assert (await client.schedules.get("a")).skipped == 1


async def test_a_run_that_goes_on_as_a_new_one_has_not_ended(office: Office) -> None:
    """A due time waits for the last leg, and finds it in one look."""
    laps = perdure.op("laps", input=int, output=str)

    @laps.state
    async def lap(left: int, io: IoProvider) -> str:
        await io.wait_signal("done")
        if left:
            perdure.continue_as_new(left - 1)
        return "home"

    client = office.worker(App([laps]))
    await client.schedules.create("a", laps, 1, every=HOUR, overlap="queue")
    await office.pass_on(client, "2026-01-01 01:00")
    first = run_of("a", "2026-01-01 01:00")
    await office.pass_on(client, "2026-01-01 02:00")
    await office.finish(client, first)
    newest = await office.stores.newest_leg(first)
    assert newest != first
    row = await office.stores.schedules.get("a")
    assert row.awaits == newest
    assert await office.stores.schedules.due(office.clock.millis, 9) == []
    await office.finish(client, newest)
    second = run_of("a", "2026-01-01 02:00")
    assert await office.stores.events.head_seq(second) > 0
    assert (await client.schedules.get("a")).last_run_id == second


async def test_runs_may_overlap(office: Office) -> None:
    """If they are allowed to."""
    client = office.worker()
    await busy(office, client, "allow")
    await office.pass_on(client, "2026-01-01 02:00")
    assert await office.dues(RunPhase.RUNNING) == ["01-01 01:00", "01-01 02:00"]


# By hand


async def test_a_paused_schedule_starts_nothing(office: Office) -> None:
    """It says who paused it and why; resumed it goes on from then, without what was due meanwhile."""
    client = office.worker()
    await client.schedules.create("a", report, "", every=HOUR)
    seen = await client.schedules.pause("a", "the bank is closed", by="ann")
    assert seen.paused is not None
    assert (seen.paused.by, seen.paused.reason) == ("ann", "the bank is closed")
    assert await office.stores.schedules.next_due_millis() is None
    await office.pass_on(client, "2026-01-01 05:30")
    assert (await client.schedules.resume("a")).next_millis == millis("2026-01-01 06:00")
    await office.pass_on(client, "2026-01-01 06:00")
    assert await office.dues() == ["01-01 06:00"]
    assert (await client.schedules.get("a")).missed == 0
    assert (await client.schedules.resume("a")).paused is None


async def test_a_pause_skips_what_waits(office: Office) -> None:
    """Nobody wants it any more when the schedule is resumed."""
    client = office.worker()
    first = await busy(office, client, "queue")
    await office.pass_on(client, "2026-01-01 02:00")
    await client.schedules.pause("a", "enough")
    assert last(await client.schedules.get("a")) == ("skipped", "01-01 02:00", "the schedule was paused")
    await office.finish(client, first.last_run_id)
    assert await office.dues() == ["01-01 01:00"]


async def test_a_run_is_started_by_hand(office: Office) -> None:
    """Also of a paused schedule; what is due is due as before."""
    client = office.worker()
    await client.schedules.create("a", report, "x", every=HOUR, max_runs=1)
    await client.schedules.pause("a", "enough")
    office.move_to("2026-01-01 00:10")
    wanted = [await client.schedules.trigger("a") for _ in range(2)]
    await office.pass_on(client)
    for run_id in wanted:
        assert await (await client.get(run_id)).result() == "x of 2026-01-01T00:10:00Z"
    seen = await client.schedules.resume("a")
    assert (seen.runs, seen.next_millis) == (0, millis("2026-01-01 01:00"))
    assert [each.kind for each in seen.recent] == ["trigger"] * 2


async def test_what_is_asked_for_waits_its_turn(office: Office) -> None:
    """It is not skipped while the last run goes on, whatever the policy."""
    client = office.worker()
    first = await busy(office, client, "skip")
    asked = await client.schedules.trigger("a")
    await office.pass_on(client)
    assert await office.stores.events.head_seq(asked) == 0
    await office.finish(client, first.last_run_id)
    assert await office.stores.events.head_seq(asked) > 0


async def test_a_range_is_filled_in(office: Office) -> None:
    """In order, also from before the schedule began; what has its run already gets no other."""
    client = office.worker()
    await client.schedules.create("a", report, "", every=HOUR, overlap="allow", starts=at("2026-01-01 02:00"))
    await office.pass_on(client, "2026-01-01 03:00")
    assert await client.schedules.backfill("a", at("2025-12-31 22:00"), at("2026-01-01 03:00")) == 5
    await office.pass_on(client)
    hours = ["12-31 22:00", "12-31 23:00", "01-01 00:00", "01-01 01:00"]
    assert sorted(await office.dues()) == sorted([*hours, "01-01 02:00", "01-01 03:00"])
    seen = await client.schedules.get("a")
    kinds = [(each.kind, iso(each.due_millis)) for each in seen.recent][-5:]
    assert kinds == [("backfill", each) for each in [*hours, "01-01 02:00"]]
    assert (seen.runs, seen.requests) == (2, ())


async def test_a_range_is_filled_in_one_after_the_other(office: Office) -> None:
    """Unless runs may overlap; what is due meanwhile is treated as always."""
    client = office.worker()
    await client.schedules.create("a", shift, every=HOUR)
    office.move_to("2026-01-01 00:30")
    assert await client.schedules.backfill("a", at("2025-12-31 22:00"), at("2026-01-01 00:00")) == 2
    await office.pass_on(client)
    assert await office.dues() == ["12-31 22:00"]
    await office.pass_on(client, "2026-01-01 01:00")
    assert last(await client.schedules.get("a"))[:2] == ("skipped", "01-01 01:00")
    await office.finish(client, (await client.schedules.get("a")).last_run_id)
    assert await office.dues(RunPhase.RUNNING) == ["12-31 23:00"]


@pytest.mark.parametrize(
    ("begin", "end"),
    [
        ("2026-01-01 00:30", "2026-01-01 00:40"),
        ("2026-01-01 00:40", "2026-01-01 00:30"),
        ("2026-01-01 00:00", "2026-01-01 05:00"),
        ("2024-01-01 00:00", "2026-01-01 00:00"),
    ],
)
async def test_a_range_that_makes_no_sense_is_refused(office: Office, begin: str, end: str) -> None:
    """An empty one, one in the future, one of more than ten thousand due times."""
    client = office.worker()
    await client.schedules.create("a", report, "", every=HOUR)
    office.move_to("2026-01-01 00:50")
    with pytest.raises(PerdureError, match="schedule_invalid"):
        await client.schedules.backfill("a", at(begin), at(end))
    assert (await client.schedules.get("a")).requests == ()


async def test_a_deleted_schedule_leaves_its_runs(office: Office) -> None:
    """Nothing more is started."""
    client = office.worker()
    await busy(office, client, "skip")
    await client.schedules.delete("a")
    await office.pass_on(client, "2026-01-01 05:00")
    assert await office.dues(RunPhase.RUNNING) == ["01-01 01:00"]
    with pytest.raises(PerdureError, match="schedule_not_found"):
        await client.schedules.delete("a")


# What is refused


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"op": "reprot"}, "op_not_found"),
        ({"op_version": "9"}, "op_not_found"),
        ({"op": 7}, "call_invalid"),
        ({"input": 7}, "input_invalid"),
        ({"input": "password=hunter22hunter22"}, "secrets_detected"),
        ({"labels": {"a": "password=hunter22hunter22"}}, "secrets_detected"),
        ({"labels": {"a": 7}}, "call_invalid"),
        ({"config": 0.5}, "op_config_not_canonical"),
        ({"run_config": {}}, "call_invalid"),
        ({"schedule_id": "Daily"}, "schedule_invalid"),
        ({"schedule_id": "a|b"}, "schedule_invalid"),
        ({"schedule_id": 7}, "call_invalid"),
        ({"cron": None}, "schedule_invalid"),
        ({"every": HOUR}, "schedule_invalid"),
        ({"cron": None, "every": 7}, "call_invalid"),
        ({"cron": "0 6 * *"}, "schedule_cron_invalid"),
        ({"cron": "0 6 30 2 *"}, "schedule_never_due"),
        ({"zone": "Europe/Atlantis"}, "schedule_zone_unknown"),
        ({"jitter": -MINUTE}, "schedule_invalid"),
        ({"starts": datetime(2026, 1, 1)}, "schedule_invalid"),  # noqa: DTZ001 — that is what is refused
        ({"ends": at("2025-01-01 00:00")}, "schedule_never_due"),
        ({"overlap": "sometimes"}, "schedule_invalid"),
        ({"catchup": timedelta(seconds=9)}, "schedule_invalid"),
        ({"max_runs": 0}, "schedule_invalid"),
        ({"max_runs": "many"}, "call_invalid"),
    ],
)
async def test_what_makes_no_sense_is_refused_before_anything_is_kept(
    office: Office, changes: dict[str, Any], code: str
) -> None:
    """With a code, and a word on what to do."""
    client = office.worker()
    asked: dict[str, Any] = {"schedule_id": "a", "op": "report", "input": "news", "cron": "0 6 * * *"}
    with pytest.raises(PerdureError) as caught:
        await client.schedules.create(**asked | changes)
    assert caught.value.code == code
    assert caught.value.hint
    assert office.state.schedules == {}
    assert office.state.blobs == {}


async def test_an_id_is_given_once(office: Office) -> None:
    """A second schedule under it is refused, and the first stays as it is."""
    client = office.worker()
    made = await client.schedules.create("a", report, "", every=HOUR, run_config=RunConfig(skip_tags=("x",)))
    with pytest.raises(PerdureError, match="schedule_exists"):
        await client.schedules.create("a", report, "", every=MINUTE)
    assert await client.schedules.get("a") == made


async def test_a_reason_may_hold_no_secret(office: Office) -> None:
    """It would be kept."""
    client = office.worker()
    await client.schedules.create("a", report, "", every=HOUR)
    with pytest.raises(PerdureError, match="secrets_detected"):
        await client.schedules.pause("a", "password=hunter22hunter22")
    assert (await client.schedules.get("a")).paused is None


# Clients


async def test_an_open_client_follows_schedules_by_itself() -> None:
    """A year of them passes while a test looks on: the clock jumps to what is due next."""
    clock = FakeClock(millis("2026-01-01 00:00"))
    stores = memory_stores(clock=clock)
    async with perdure.open(stores, app=app, clock=clock) as client:
        await client.schedules.create(
            "weekly", report, "", cron="0 6 * * MON", zone="Europe/Berlin", max_runs=52
        )

        while (await client.schedules.get("weekly")).next_millis is not None:  # noqa: ASYNC110 — nobody tells
            await asyncio.sleep(0)
        seen = await client.schedules.get("weekly")
        assert (seen.runs, seen.skipped, seen.missed) == (52, 0, 0)
        assert millis("2026-12-28 05:00") <= clock.millis
        last_run = await client.get(str(seen.last_run_id))
        assert await last_run.result() == " of 2026-12-28T05:00:00Z"


async def test_a_client_that_does_not_recover_follows_none(office: Office) -> None:
    """It drives what it has started, and nothing else."""
    clock = FakeClock(millis("2026-01-01 00:00"))
    async with perdure.open(
        memory_stores(office.state, clock), app=app, clock=clock, recover=False
    ) as client:
        await client.schedules.create("a", report, "", every=HOUR)
        clock.advance(3_600_000)
        run = await client.start(report, "", context={"schedule_due": "now"})
        assert await run.result() == " of now"
        assert (await client.schedules.get("a")).last_run_id is None


def test_programs_without_an_event_loop_have_schedules_too() -> None:
    """The same calls, waited for."""
    clock = FakeClock(millis("2026-01-01 00:00"))
    with perdure.open(memory_stores(clock=clock), app=app, clock=clock, recover=False) as client:
        made = client.schedules.create("a", report, "x", every=HOUR)
        assert client.schedules.list() == [made]
        assert client.schedules.pause("a", "enough").paused is not None
        assert client.schedules.resume("a") == made
        clock.advance(7_200_000)
        assert client.schedules.backfill("a", at("2026-01-01 01:00")) == 1
        run_id = client.schedules.trigger("a")
        client.recover()
        assert client.get(run_of("a", "2026-01-01 01:00")).result() == "x of 2026-01-01T01:00:00Z"
        client.recover()
        assert client.schedules.get("a").requests == ()
        assert client.get(run_id).result() == "x of 2026-01-01T02:00:00Z"
        client.schedules.delete("a")
        assert client.schedules.list() == []
