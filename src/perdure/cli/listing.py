"""Lists of runs and of events, as columns and rows that fit a terminal."""

from __future__ import annotations

from typing import Any

from perdure.cli.common import short
from perdure.cli.output import minute
from perdure.cli.waiting import cell
from perdure.errors import Json
from perdure.model.events import DomainEvent
from perdure.sdk.reading import RunSummary

_WIDE = 100
"""From how many columns on a list of runs that wait has room for how many states have completed."""


_LONG = frozenset({"meta", "executed_by", "manifests"})
"""Parts of payloads for which a line has no room."""


def columns_and_rows(found: list[RunSummary], *, width: int) -> tuple[list[str], list[list[object]]]:
    """The columns and rows of a list of runs; columns that only some runs have stand there if one has."""
    waits = [cell(each.waiting_for, each.due_millis) for each in found]
    columns: dict[str, list[object]] = {
        "run": [short(each.run_id) for each in found],
        "op": [f"{each.op_id or ''} {each.op_version or ''}".strip() for each in found],
        "phase": [_phase(each) for each in found],
    }
    if any(each.leg > 1 for each in found):
        columns["leg"] = [each.leg if each.leg > 1 or each.continued_as else "" for each in found]
    if width >= _WIDE or not any(waits):
        columns["states"] = [each.states_completed for each in found]
    columns["started (UTC)"] = [minute(each.started_millis) for each in found]
    labels = ["\n".join(f"{k}={v}" for k, v in sorted(each.labels.items())) for each in found]
    schedules = ["" if each.schedule is None else each.schedule["id"] for each in found]
    if width < _WIDE and any([*labels, *waits]):
        schedules = []  # there is no room for it besides
    for name, cells in (("schedule", schedules), ("labels", labels), ("waits for", waits)):
        if any(cells):
            columns[name] = [*cells]
    return list(columns), [list(row) for row in zip(*columns.values(), strict=True)]


def _phase(summary: RunSummary) -> object:
    if summary.continued_as is not None:
        return "Continued"
    return summary.error if summary.phase is None else summary.phase.value


def lines_in_doubt(found: list[RunSummary]) -> list[str]:
    """Every effect in doubt, in columns; its key below, whole, since somebody will have to copy it."""
    effects = [(each, effect) for each in found for effect in each.effects_in_doubt]
    rows = [
        (
            short(each.run_id),
            "" if each.phase is None else each.phase.value,
            minute(effect["intended_millis"]),
            effect["namespace"],
            effect["state_id"],
        )
        for each, effect in effects
    ]
    columns = ("run", "phase", "since (UTC)", "asked", "state")
    widths = [max(map(len, column)) for column in zip(columns, *rows, strict=True)]
    first, *lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in (columns, *rows)
    ]
    keys = [f"  effect {effect['key']}" for _, effect in effects]
    return [first, *(line for pair in zip(lines, keys, strict=True) for line in pair), ""]


def event_cells(event: Any) -> list[str]:
    """An event's name, and what it says."""
    if isinstance(event, DomainEvent):
        payload = event.payload if isinstance(event.payload, dict) else {"payload": event.payload}
        told = [f"{name}={_short(value)}" for name, value in payload.items() if value and name not in _LONG]
        return [event.name, " ".join(told)]
    body = next(iter(event.to_json()["Kernel"].values()))
    error = body.pop("error", None)
    words = [f"{name}={_short(value)}" for name, value in body.items() if value is not None]
    if error is not None:
        words.append(f"{error['info']['code']}: {error['info']['message']}")
    return [type(event).__name__, " ".join(words)]


def _short(value: Json) -> str:
    if isinstance(value, dict) and "run_id" in value:
        return str(value["run_id"])  # another run, of which its own events say more
    text = str(value)
    return text[:12] + "…" if len(text) == 64 else text
