"""Commands that delete: ``run delete`` and ``store prune``."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Annotated

from cyclopts import App as CommandApp
from cyclopts import Parameter, Token

from perdure.cli.common import COMMON, Age, Common, Source, reading, size, typed_command
from perdure.cli.output import EXIT_COMPLETED, UNITS, Output, UsageError
from perdure.clock import SystemClock
from perdure.model.events import RunStatus
from perdure.sdk.finding import find_run
from perdure.sdk.keeping import PruneReport, delete_runs, prune_stores
from perdure.sdk.retention import Retention
from perdure.stores.bundle import Stores
from perdure.stores.keeping import Deleted, Tell

_REPORT_SECONDS = 10
_STAGES = {
    "survey": "looking at runs",
    "runs": "deleting runs",
    "events": "reading events",
    "letters": "reading letters",
    "artifacts": "following artifacts",
    "garbage": "sweeping artifacts",
}
_REASONS = {
    "unfinished": "unfinished, or of a family that is",
    "owned": "still held by their owner",
    "not_asked_for": "not asked for",
    "other_op": "of another operation",
    "other_status": "ended otherwise",
    "among_the_last": "among the last",
    "too_young": "too young",
    "referred_to": "needed by others that are kept",
}


def add_to(run: CommandApp, store: CommandApp) -> None:
    """Add the commands to their groups."""
    run.command(delete)
    store.command(prune)


def _count(_: type, tokens: Sequence[Token]) -> int:
    token = tokens[0]
    if re.fullmatch("[0-9]{1,9}", token.value) is None:
        raise UsageError.of("usage", f"{token.keyword} is a whole number, 0 or more")
    return int(token.value)


def _statuses(_: type, tokens: Sequence[Token]) -> tuple[RunStatus, ...]:
    known = {each.value.lower(): each for each in RunStatus}
    words = [word for token in tokens for word in token.value.lower().split(",")]
    if not all(word in known for word in words):
        raise UsageError.of("usage", f"{tokens[0].keyword} is one or more of {', '.join(known)}")
    return tuple(dict.fromkeys(known[word] for word in words))


def delete(
    run_id: str,
    /,
    *more: str,
    with_children: Annotated[bool, Parameter(negative=())] = False,
    common: Common = COMMON,
) -> int:
    """Delete runs that have ended. It cannot be undone.

    perdure run delete 4f1c --with-children

    Several may be named; if one of them cannot be deleted, none is. What they have written goes with the next
    `perdure store prune`, unless other runs refer to it too.

    Parameters
    ----------
    run_id
        The run's id, or its beginning.
    more
        More runs.
    with_children
        Delete all that descend from it too; without this a run that has children is kept.
    """

    async def work(stores: Stores) -> Deleted:
        found = [await find_run(stores, each) for each in (run_id, *more)]
        return await delete_runs(stores, found, with_children=with_children)

    deleted = reading(common, work)
    Output(as_json=common.json).answer(
        deleted._asdict(),
        *(f"run {each} deleted" for each in deleted.run_ids),
        f"what they wrote goes with: {typed_command('store prune', common, Source(), '--apply')}",
    )
    return EXIT_COMPLETED


def prune(
    *,
    older_than: Age = None,
    keep_last: Annotated[int | None, Parameter(converter=_count)] = None,
    status: Annotated[tuple[RunStatus, ...], Parameter(converter=_statuses, n_tokens=1)] = (),
    op: str | None = None,
    apply: Annotated[bool, Parameter(negative=())] = False,
    compact: Annotated[bool, Parameter(negative=())] = False,
    common: Common = COMMON,
) -> int:
    """Show which ended runs would be deleted, and artifacts that nothing leads to; delete them with --apply.

    perdure store prune --older-than 30d --keep-last 100 --status completed

    Runs go to which all applies that is given; without anything no run goes, only artifacts. Families go
    whole or not at all. What unfinished runs need is kept, and artifacts of the last hour. Others may write
    meanwhile.

    Parameters
    ----------
    older_than
        Runs whose whole family ended longer ago than this: a number with s, m, h, d or w.
    keep_last
        Keep so many families of every operation, those begun last.
    status
        Runs that ended so: completed, failed, cancelled, or several with commas.
    op
        Runs of this operation.
    apply
        Delete, instead of showing what would go.
    compact
        Give free room inside the file back to the disk afterwards; others who write wait meanwhile.
    """
    retention = Retention(older_than=older_than, keep_last=keep_last, statuses=status, op=op)
    if compact and not apply:
        raise UsageError.of("usage", "--compact does something: give --apply too")
    output = Output(as_json=common.json)

    async def work(stores: Stores) -> PruneReport:
        with _told(output) as tell:
            report = await prune_stores(stores, retention, SystemClock().now_millis(), apply=apply, tell=tell)
            if compact:
                tell("compact", 0)
                await stores.keeping.compact()
            return report

    report = reading(common, work)
    output.answer(report.to_json(), *lines(report))
    if not apply:
        words = _typed(retention)
        command = typed_command("store prune", common, Source(), *words, "--apply")
        output.line(f"nothing was deleted; do it with: {command}")
    return EXIT_COMPLETED


def tell_pruned(output: Output, report: PruneReport) -> None:
    """A line about what has gone, if anything has."""
    if report.runs or report.artifacts:
        output.report(f"pruned {report.runs:,} runs and {report.artifacts:,} artifacts")


def lines(report: PruneReport) -> Iterator[str]:
    """What has gone, or would go, for a person."""
    yield "deleted" if report.applied else "would be deleted"
    yield f"  {'runs':<14}{report.runs:,}{_listed(report.ops)}"
    yield f"  {'events':<14}{report.events:,}, {size(report.event_bytes)}"
    yield f"  {'artifacts':<14}{report.artifacts:,}, {size(report.artifact_bytes)}"
    yield "kept"
    for reason, count in report.kept.items():
        yield f"  {'runs':<14}{count:,} {_REASONS.get(reason, reason)}"
    yield f"  {'artifacts':<14}those of the last hour, and all that a run leads to"


def _listed(counts: Mapping[str, int]) -> str:
    if not counts:
        return ""
    return ": " + ", ".join(f"{count:,} of {op or 'no operation'}" for op, count in counts.items())


def _typed(retention: Retention) -> Iterator[str]:
    if retention.older_than is not None:
        seconds = retention.older_than // timedelta(seconds=1)
        number, unit = next(
            (seconds // length, unit) for unit, length in UNITS.items() if seconds % length == 0
        )
        yield from ("--older-than", f"{number}{unit}")
    if retention.keep_last is not None:
        yield from ("--keep-last", str(retention.keep_last))
    if retention.statuses:
        yield from ("--status", ",".join(each.value.lower() for each in retention.statuses))
    if retention.op is not None:
        yield from ("--op", retention.op)


@contextmanager
def _told(output: Output) -> Iterator[Tell]:
    """Say how far the work has come: in a line that changes on a terminal, every ten seconds elsewhere."""
    if output.is_live:
        with output.console().status("") as status:
            yield lambda stage, done: status.update(_phrase(stage, done))
        return
    told = time.monotonic()

    def tell(stage: str, done: int) -> None:
        nonlocal told
        if time.monotonic() - told >= _REPORT_SECONDS:
            told = time.monotonic()
            output.report(_phrase(stage, done))

    yield tell


def _phrase(stage: str, done: int) -> str:
    return "giving room back" if stage == "compact" else f"{_STAGES.get(stage, stage)}: {done:,}"
