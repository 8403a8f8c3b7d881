"""What may go, as a pure function: laws over any runs, and the cases that are easily got wrong."""

from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from perdure import PruneReport, Retention, RunError, RunId, RunStatus, Stores
from perdure.sdk.keeping import prune_every_hour
from perdure.sdk.retention import RULES, SurveyedRun, deletion_of, planned, with_legs
from perdure.stores.keeping import RunTrace
from perdure.stores.memory import MemoryState, MemoryStore, memory_stores
from perdure.testing.clock import FakeClock
from perdure.testing.store_places import ENDED

HOUR = 3_600_000
IDS = [RunId(f"00000000-0000-0000-0000-{number:012}") for number in range(8)]


def found(
    number: int,
    parent: int | None = None,
    status: RunStatus | None = RunStatus.COMPLETED,
    *refers_to: int,
    op: str | None = "op",
    age: int = 10,
    owned: bool = False,
) -> SurveyedRun:
    """A run whose last event is ``age`` hours old at the moment 100 hours."""
    above = None if parent is None else IDS[parent]
    trace = RunTrace(IDS[number], op, above, None, status, (100 - age) * HOUR, is_owned=owned)
    return SurveyedRun(trace, tuple(IDS[each] for each in refers_to))


def gone(runs: list[SurveyedRun], **policy: object) -> tuple[list[int], dict[str, int]]:
    """The numbers of the runs that go, and how many are kept, by why."""
    plan = planned(runs, Retention(**policy), 100 * HOUR)  # type: ignore[arg-type]  # by name
    return [IDS.index(run_id) for run_id in plan.run_ids], dict(plan.kept)


def chain(*ages: int) -> list[SurveyedRun]:
    """Legs, the first one first: how many hours ago each ended. Listed as a survey does."""
    legs = [found(number, age=age) for number, age in enumerate(ages)]
    later = [each._replace(trace=replace(each.trace, first_leg=IDS[0])) for each in legs[1:]]
    return with_legs([*reversed(later), legs[0]])


def test_the_first_leg_and_the_newest_stay_as_long_as_any() -> None:
    """Those between may go before them; with the first one's id nothing can begin that meets a later one."""
    legs = chain(40, 30, 20, 10)
    assert gone(legs, older_than=timedelta(hours=15)) == ([2, 1], {"referred_to": 1, "too_young": 1})
    assert gone(legs, keep_last=2) == ([1], {"among_the_last": 2, "referred_to": 1})
    assert sorted(gone(legs, older_than=timedelta(hours=5))[0]) == [0, 1, 2, 3]
    for alone in (IDS[:1], IDS[3:4], IDS[:2], [IDS[0], IDS[3]]):
        with pytest.raises(RunError, match="run_referred_to"):
            deletion_of(legs, alone, with_children=False)
    assert deletion_of(legs, IDS[1:3], with_children=False) == [IDS[2], IDS[1]]
    assert len(deletion_of(legs, IDS[:4], with_children=False)) == 4


def test_nothing_is_asked_for_by_an_empty_policy() -> None:
    """Then only artifacts go."""
    assert gone([found(0), found(1, status=None)]) == ([], {"not_asked_for": 1, "unfinished": 1})


def test_a_family_is_as_old_as_its_last_end_and_as_its_root_says() -> None:
    """The root's operation and end are the family's; its youngest member says when."""
    runs = [found(2, 1, age=1), found(1, 0, RunStatus.FAILED, age=9), found(0, age=9, op="root")]
    assert gone(runs, older_than=timedelta(hours=2)) == ([], {"too_young": 3})
    assert gone(runs, older_than=timedelta(minutes=59)) == ([2, 1, 0], {})
    assert gone(runs, older_than=timedelta(hours=1)) == ([], {"too_young": 3})
    assert gone(runs, statuses=(RunStatus.FAILED,)) == ([], {"other_status": 3})
    assert gone(runs, op="root", statuses=(RunStatus.COMPLETED,)) == ([2, 1, 0], {})
    assert gone(runs, op="op") == ([], {"other_op": 3})


def test_the_last_are_counted_by_operation_and_end() -> None:
    """Those that have not ended, or that the statuses leave out, are not among them."""
    runs = [
        found(5, status=None),
        found(4, status=RunStatus.FAILED),
        found(3),
        found(2, op="other"),
        found(1),
        found(0, status=RunStatus.FAILED),
    ]
    assert gone(runs, keep_last=1) == ([3, 1, 0], {"among_the_last": 2, "unfinished": 1})
    only_failed = gone(runs, keep_last=1, statuses=(RunStatus.FAILED,))
    assert only_failed == ([0], {"among_the_last": 1, "other_status": 3, "unfinished": 1})


def test_what_is_needed_is_kept_through_any_number_of_families() -> None:
    """0 waits for 1, whose family needs 3, which nobody needs for itself."""
    runs = [found(4), found(3), found(2, 1, RunStatus.COMPLETED, 3), found(1), found(0, None, None, 1)]
    assert gone(runs, older_than=timedelta(0)) == ([4], {"referred_to": 3, "unfinished": 1})


def test_an_unknown_parent_is_none_and_a_circle_has_an_end() -> None:
    """Stores are copied in part, and written by others."""
    assert gone([found(1, 7), found(0)], keep_last=0) == ([1, 0], {})
    assert sorted(gone([found(1, 0), found(0, 1)], keep_last=0)[0]) == [0, 1]
    assert gone([found(1, 0), found(0, 1, None)], keep_last=0) == ([], {"unfinished": 2})


def test_what_is_named_with_its_family_goes_in_order() -> None:
    """Children before parents, however they are named, and each once."""
    runs = [found(3, 2), found(2, 1), found(1, 0), found(0)]
    named = [IDS[2], IDS[0], IDS[1], IDS[3]]
    assert deletion_of(runs, named, with_children=False) == [IDS[3], IDS[2], IDS[1], IDS[0]]
    assert deletion_of(runs, [IDS[1]], with_children=True) == [IDS[3], IDS[2], IDS[1]]


def test_a_descendant_that_is_needed_keeps_the_family() -> None:
    """Though nobody named it."""
    runs = [found(2, None, RunStatus.COMPLETED, 1), found(1, 0), found(0)]
    with pytest.raises(RunError, match="run_referred_to"):
        deletion_of(runs, [IDS[0]], with_children=True)


any_run = st.builds(
    lambda parent, status, refers_to, age, owned: (parent, status, refers_to, age, owned),
    st.none() | st.integers(0, 7),
    st.none() | st.sampled_from(RunStatus),
    st.lists(st.integers(0, 7), max_size=2),
    st.integers(0, 9),
    st.booleans(),
)
policies = st.builds(
    Retention,
    older_than=st.none() | st.integers(0, 9).map(lambda hours: timedelta(hours=hours)),
    keep_last=st.none() | st.integers(0, 3),
    statuses=st.lists(st.sampled_from(RunStatus), max_size=2).map(tuple),
)


@given(st.lists(any_run, max_size=8), policies)
def test_laws(
    given_runs: list[tuple[int | None, RunStatus | None, list[int], int, bool]], policy: Retention
) -> None:
    """Only ended runs go, who stays has lost neither family nor what it needs, and all are counted."""
    runs = [
        found(number, parent, status, *refers_to, age=age, owned=owned)
        for number, (parent, status, refers_to, age, owned) in enumerate(given_runs)
    ]
    plan = planned(runs, policy, 100 * HOUR)
    going = set(plan.run_ids)
    assert len(going) == len(plan.run_ids)
    assert sum(plan.kept.values()) + len(going) == len(runs)
    assert plan.kept.keys() <= {*RULES, "referred_to"}
    known = {each.trace.run_id for each in runs}
    for trace, refers_to in runs:
        if trace.parent in known:
            assert (trace.run_id in going) == (trace.parent in going)
        if trace.run_id in going:
            assert trace.status is not None
            assert not trace.is_owned
        else:
            assert going.isdisjoint(refers_to)


class _EnoughError(Exception):
    """Ends what would go on for ever."""


async def test_what_is_old_goes_every_hour() -> None:
    """A run that ended now goes in the hour after it has become too old."""
    clock, reports = FakeClock(), list[int]()
    stores = memory_stores(MemoryState(), clock)
    await stores.events.append(IDS[0], 0, [ENDED])

    def done(report: PruneReport) -> None:
        reports.append(report.runs)
        if len(reports) == 4:
            raise _EnoughError

    with pytest.raises(_EnoughError):
        await prune_every_hour(stores, Retention(older_than=timedelta(minutes=90)), clock, done)
    assert reports == [0, 0, 1, 0]


async def test_a_store_that_fails_is_pruned_an_hour_later(caplog: pytest.LogCaptureFixture) -> None:
    """Whoever prunes beside other work does not end with it."""
    clock = FakeClock()
    store = MemoryStore(MemoryState(), clock)
    hours = 0

    class Stopping(FakeClock):
        async def sleep_until(self, due_millis: int) -> None:
            nonlocal hours
            hours += 1
            if hours == 3:
                raise _EnoughError

    with pytest.raises(_EnoughError):
        await prune_every_hour(Stores(store, store), Retention(), Stopping(), lambda _: None)
    assert [record.message.split(":")[1] for record in caplog.records] == [" retention_unsupported"] * 3
