"""What may be deleted: a pure function over what is known of all runs.

Families go whole or not at all: a run, and all that descend from it. Each rule may keep one, and says why; to
keep more, add a rule, or say in ``SurveyedRun.refers_to`` what a run needs.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import timedelta
from types import NoneType
from typing import NamedTuple

import msgspec

from perdure.errors import ErrorCategory, Json, RunError
from perdure.ids import OpId, RunId
from perdure.model.events import RunStatus
from perdure.sdk.checks import expect, expect_many, refuse_call
from perdure.stores.keeping import RunTrace
from perdure.stores.refusals import run_already_active, run_not_found

_SHOWN_MAX = 5


class Retention(msgspec.Struct, frozen=True, kw_only=True):
    """Which runs need not be kept: those that have ended, and to which all applies that is given here.

    ``older_than`` is the time since the last one of their family ended, ``keep_last`` how many families of
    every operation are kept, those begun last, ``statuses`` how the first runs of families ended, and ``op``
    the operation of these. Without anything no run goes, only artifacts that nothing leads to.

    Raises ``InvalidPlanError`` (``call_invalid``) and ``InvalidIdError`` for what cannot be meant.
    """

    older_than: timedelta | None = None
    keep_last: int | None = None
    statuses: tuple[RunStatus, ...] = ()
    op: str | None = None

    def __post_init__(self) -> None:
        expect(self.older_than, (timedelta, NoneType), "Retention(older_than=…)", "a timedelta")
        expect(self.keep_last, (int, NoneType), "Retention(keep_last=…)", "a number")
        expect_many(self.statuses, RunStatus, "Retention(statuses=…)", "RunStatus")
        if self.older_than is not None and self.older_than < timedelta(0):
            refuse_call(self.older_than, "Retention(older_than=…)", "a time that is not negative")
        if self.keep_last is not None and self.keep_last < 0:
            refuse_call(self.keep_last, "Retention(keep_last=…)", "a number that is not negative")
        if self.op is not None:
            OpId(self.op)

    @property
    def is_empty(self) -> bool:
        """Whether nothing is given."""
        return self == Retention()


class SurveyedRun(NamedTuple):
    """A run as it was found, with the other runs that must not go before it."""

    trace: RunTrace
    refers_to: tuple[RunId, ...] = ()


def with_legs(runs: Sequence[SurveyedRun]) -> list[SurveyedRun]:
    """The ``runs``, the one begun last first, each with the legs of its chain that must not go before it.

    By the first one the chain is found, and its id would be free for a run whose next legs' ids are not. The
    newest says what the chain has come to.
    """
    newest: dict[RunId, RunId] = {}
    for each in runs:
        if each.trace.first_leg is not None:
            newest.setdefault(each.trace.first_leg, each.trace.run_id)
    if not newest:
        return list(runs)
    found: list[SurveyedRun] = []
    for each in runs:
        needed = each.trace.first_leg or newest.get(each.trace.run_id)
        found.append(each if needed is None else each._replace(refers_to=(*each.refers_to, needed)))
    return found


class Family(NamedTuple):
    """A run without a parent here, and all that descend from it, each before its children.

    ``rank`` is its place among the families of its operation that the statuses select, the one begun last
    first; None unless it is one of these and has ended.
    """

    members: Sequence[SurveyedRun]
    rank: int | None

    @property
    def root(self) -> RunTrace:
        """The run without a parent."""
        return self.members[0].trace

    @property
    def is_over(self) -> bool:
        """Whether all have ended."""
        return all(each.trace.status is not None for each in self.members)

    @property
    def last_millis(self) -> int:
        """When the last of them ended."""
        return max(each.trace.last_millis for each in self.members)


class RetentionPlan(NamedTuple):
    """The runs that may go, children before their parents; and how many are kept, by why."""

    run_ids: list[RunId]
    kept: Mapping[str, int]


Rule = Callable[[Family, Retention, int], bool]
"""Whether a family is kept, by a policy and at a time."""

UNFINISHED, OWNED, OTHER_OP, OTHER_STATUS = "unfinished", "owned", "other_op", "other_status"
AMONG_THE_LAST, TOO_YOUNG, REFERRED_TO, NOT_ASKED_FOR = (
    "among_the_last",
    "too_young",
    "referred_to",
    "not_asked_for",
)

RULES: Mapping[str, Rule] = {
    UNFINISHED: lambda family, policy, now: not family.is_over,
    OWNED: lambda family, policy, now: any(each.trace.is_owned for each in family.members),
    NOT_ASKED_FOR: lambda family, policy, now: policy.is_empty,
    OTHER_OP: lambda family, policy, now: policy.op not in (None, family.root.op_id),
    OTHER_STATUS: lambda family, policy, now: (
        bool(policy.statuses) and family.root.status not in policy.statuses
    ),
    AMONG_THE_LAST: lambda family, policy, now: (
        policy.keep_last is not None and family.rank is not None and family.rank < policy.keep_last
    ),
    TOO_YOUNG: lambda family, policy, now: (
        policy.older_than is not None
        and now - family.last_millis <= policy.older_than // timedelta(milliseconds=1)
    ),
}
"""Why a family is kept: the first rule that says so."""


def planned(runs: Sequence[SurveyedRun], policy: Retention, now_millis: int) -> RetentionPlan:
    """What of ``runs``, the one begun last first, may go by ``policy``. Pure."""
    families = _families(runs, policy.statuses)
    reasons = [
        next((reason for reason, keeps in RULES.items() if keeps(family, policy, now_millis)), None)
        for family in families
    ]
    _keep_what_is_referred_to(families, reasons)
    kept: Counter[str] = Counter()
    gone: list[RunId] = []
    for family, reason in zip(families, reasons, strict=True):
        if reason is None:
            gone += [each.trace.run_id for each in reversed(family.members)]
        else:
            kept[reason] += len(family.members)
    return RetentionPlan(gone, dict(sorted(kept.items())))


def deletion_of(runs: Sequence[SurveyedRun], run_ids: Sequence[RunId], *, with_children: bool) -> list[RunId]:
    """What goes if ``run_ids`` are deleted, children before their parents. Pure.

    Raises ``NotFoundError`` (``run_not_found``), ``ConcurrencyError`` (``run_already_active``), ``RunError``
    (``run_not_ended``, ``run_parent_unfinished``, ``run_has_children``, ``run_referred_to``).
    """
    by_id = {each.trace.run_id: each for each in runs}
    children = _children(runs, by_id)
    users_of: dict[RunId, list[SurveyedRun]] = {}
    for each in runs:
        for used in each.refers_to:
            users_of.setdefault(used, []).append(each)
    going: dict[RunId, SurveyedRun] = {}
    for run_id in run_ids:
        if run_id not in by_id:
            raise run_not_found(run_id)
        members = _descent(by_id[run_id], children)
        _refuse_family(run_id, members, by_id)
        below = [each.trace.run_id for each in members[1:] if each.trace.run_id not in run_ids]
        if below and not with_children:
            raise _refused("run_has_children", "the run has children, which would go with it", run_id, below)
        # Who is named after an ancestor is put behind it again.
        going = {key: each for key, each in going.items() if each not in members}
        going |= {each.trace.run_id: each for each in members}
    for run_id in going:
        users = [each.trace.run_id for each in users_of.get(run_id, ()) if each.trace.run_id not in going]
        if users:
            raise _refused("run_referred_to", "other runs need this one", run_id, users)
    return list(reversed(going))


def _refuse_family(run_id: RunId, members: Sequence[SurveyedRun], by_id: Mapping[RunId, SurveyedRun]) -> None:
    """Refuse to delete a run whose parent, or one of whose descendants, may still need the others."""
    unfinished = [each.trace.run_id for each in members if each.trace.status is None]
    if unfinished:
        raise _refused("run_not_ended", "a run that has not ended cannot be deleted", run_id, unfinished)
    for each in members:
        if each.trace.is_owned:
            raise run_already_active(each.trace.run_id)
    parent = by_id.get(members[0].trace.parent or run_id)
    if parent is not None and parent.trace.status is None:
        raise _refused(
            "run_parent_unfinished", "the run's parent has not ended", run_id, [parent.trace.run_id]
        )


def _families(runs: Sequence[SurveyedRun], statuses: Sequence[RunStatus]) -> list[Family]:
    by_id = {each.trace.run_id: each for each in runs}
    children = _children(runs, by_id)
    ranks: Counter[str | None] = Counter()
    placed: set[RunId] = set()
    families = []
    roots = [each for each in runs if each.trace.parent not in by_id]
    for each in [*roots, *runs]:
        if each.trace.run_id in placed:
            continue
        root = _first(each, by_id)
        members = _descent(root, children)
        placed.update(each.trace.run_id for each in members)
        family, rank = Family(members, None), None
        if family.is_over and (not statuses or root.trace.status in statuses):
            rank = ranks[root.trace.op_id]
            ranks[root.trace.op_id] += 1
        families.append(family._replace(rank=rank))
    return families


def _first(run: SurveyedRun, by_id: Mapping[RunId, SurveyedRun]) -> SurveyedRun:
    """The oldest ancestor that is known of; one of a circle, where parents are damaged so."""
    passed: set[RunId] = set()
    while run.trace.run_id not in passed:
        passed.add(run.trace.run_id)
        run = by_id.get(run.trace.parent or run.trace.run_id, run)
    return run


def _children(
    runs: Iterable[SurveyedRun], by_id: Mapping[RunId, SurveyedRun]
) -> Mapping[RunId, list[SurveyedRun]]:
    children: dict[RunId, list[SurveyedRun]] = {}
    for each in runs:
        parent = each.trace.parent
        if parent is not None and parent in by_id:
            children.setdefault(parent, []).append(each)
    return children


def _descent(root: SurveyedRun, children: Mapping[RunId, list[SurveyedRun]]) -> list[SurveyedRun]:
    """The run and its descendants, level by level."""
    found = {root.trace.run_id: root}
    level = [root]
    while level:
        below = [child for each in level for child in children.get(each.trace.run_id, ())]
        level = [each for each in below if each.trace.run_id not in found]
        found |= {each.trace.run_id: each for each in level}
    return list(found.values())


def _keep_what_is_referred_to(families: Sequence[Family], reasons: list[str | None]) -> None:
    """Keep families to which a kept one refers, and those to which these do in turn."""
    family_of = {each.trace.run_id: n for n, family in enumerate(families) for each in family.members}
    left = [number for number, reason in enumerate(reasons) if reason is not None]
    while left:
        for member in families[left.pop()].members:
            for run_id in member.refers_to:
                number = family_of.get(run_id)
                if number is not None and reasons[number] is None:
                    reasons[number] = REFERRED_TO
                    left.append(number)


def _refused(code: str, message: str, run_id: RunId, others: Sequence[RunId]) -> RunError:
    details: Json = {"run_id": run_id, "runs": [*others[:_SHOWN_MAX]], "count": len(others)}
    more = ", …" if len(others) > _SHOWN_MAX else ""
    shown = f"{message}: {', '.join(others[:_SHOWN_MAX])}{more}"
    return RunError.of(code, shown, category=ErrorCategory.PARSING_INPUT, details=details)
