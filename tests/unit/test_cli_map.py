"""Maps as commands tell of them."""

from __future__ import annotations

import pytest

import perdure
from perdure import DomainEvent, IoProvider, RunId, StateCompleted, StateEntered, StateFailed, StateId, Stores
from perdure.cli.output import Output
from perdure.cli.progress import Progress
from perdure.errors import ErrorCategory, ErrorInfo
from perdure.ids import ArtifactId
from perdure.model.events import Event, StateErrorInfo
from perdure.sdk.reading import status_of

RUN = RunId("00000000-0000-0000-0000-00000000000d")
STATE = StateId("shop.main.total")
SNAPSHOT = ArtifactId("0" * 64)


def fact(key: str) -> DomainEvent:
    """A fact of this key."""
    return DomainEvent("fact_recorded", {"key": key, "payload_id": SNAPSHOT, "meta": {}})


def test_progress_counts_items_apart_from_facts(capsys: pytest.CaptureFixture[str]) -> None:
    """Those of maps within items are not told; another attempt is counted by itself."""
    error = StateErrorInfo(STATE, ErrorInfo("odd", ErrorCategory.UNKNOWN, True, "no"))
    events: list[Event] = [
        StateEntered(STATE, 0, SNAPSHOT),
        fact(f"map:{STATE}|0"),
        fact("page"),
        fact(f"map:{STATE}#1|0"),
        fact(f"map:{STATE}|second|0"),
        StateFailed(STATE, error, None),
        StateEntered(STATE, 1, SNAPSHOT),
        fact(f"map:{STATE}|1"),
        StateCompleted(STATE, SNAPSHOT),
    ]
    progress = Progress(Output(as_json=False), RUN)
    for event in events:
        progress.take(RUN, event, 0)
    assert capsys.readouterr().out.splitlines() == [
        "shop.main.total entered",
        "shop.main.total failed in 0 ms, 2 items, 2 facts: odd: no",
        "shop.main.total entered (attempt 2)",
        "shop.main.total completed in 0 ms, 1 item",
    ]


async def test_status_counts_the_items_of_each_map() -> None:
    """By state and name."""
    shop = perdure.op("shop", input=int, output=int)

    @shop.state
    async def total(input: int, io: IoProvider) -> int:  # noqa: A002 — the term
        async def double(number: int) -> int:
            return number * 2

        first = await perdure.map_over(range(input), double)
        return sum(first) + sum(await perdure.map_over(first, double, name="again"))

    stores = Stores.in_memory()
    async with perdure.open(stores, shop) as p:
        run = await p.start(shop, 3)
        assert await run.result() == 18
        assert (await status_of(stores, run.id))["items"] == [
            {"state_id": STATE, "name": None, "recorded": 3},
            {"state_id": STATE, "name": "again", "recorded": 3},
        ]
