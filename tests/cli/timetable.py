"""Schedules whose screens are looked at: one that has started runs, one that is paused, one that waits."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from perdure.demo import Order, checkout
from perdure.sdk.client import Client
from tests.cli.shop import opened, purchase, refund
from tests.schedules import run_of

STARTS = datetime(2099, 12, 31, 23, tzinfo=UTC)
SCHEDULED = run_of("nightly", "2025-12-31 01:30")


async def fill_with_schedules(path: str) -> None:
    """A store with schedules. They begin so late that nothing but what is asked for is ever due."""
    client, tea = opened(path), Order("tea", 3)
    schedules = client.schedules
    await schedules.create(
        "nightly", checkout, tea, cron="30 2 * * *", zone="Europe/Berlin", starts=STARTS, labels={"desk": "7"}
    )
    await schedules.create(
        "weekly",
        refund,
        tea,
        every=timedelta(days=7),
        jitter=timedelta(minutes=90),
        starts=STARTS,
        max_runs=3,
        op_version="2",
    )
    await schedules.create("hourly", purchase, tea, cron="0 * * * *", overlap="queue", starts=STARTS)
    await schedules.create("unborn", checkout, tea, cron="0 0 L FEB *", starts=STARTS)
    await schedules.backfill("nightly", datetime(2025, 12, 30, tzinfo=UTC))
    await _settle(client)
    await schedules.trigger("weekly")
    await schedules.pause("weekly", "the bank is closed", by="ann")
    await _settle(client)
    await schedules.trigger("hourly")
    await schedules.trigger("hourly")
    await _settle(client)
    await schedules.backfill("hourly", datetime(2025, 12, 31, 22, tzinfo=UTC))
    await client.aclose()


async def _settle(client: Client) -> None:
    """Have everything done that is due, one schedule at a time, so that runs begin in the same order."""
    while await client.recover():
        while client.driven:
            await client.drive_result(client.driven[0])
