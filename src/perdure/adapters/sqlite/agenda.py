"""Which runs are due: those without an owner by their time, and those whose owner is no more."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any, NamedTuple

import apsw

from perdure.adapters.sqlite.awaiting import as_array
from perdure.adapters.sqlite.runs import IS_BEGUN
from perdure.ids import RunId

# One statement, so that a run that changes hands meanwhile is seen once.
SELECT_DUE = f"""
    SELECT 0, key, run_id, owner, expires_millis FROM run
    WHERE ended = 0 AND owner IS NOT NULL AND (owner <> :me OR expires_millis <= :now) AND {IS_BEGUN}
    UNION ALL
    SELECT * FROM (
        SELECT due_millis, key, run_id, owner, expires_millis FROM run
        WHERE ended = 0 AND owner IS NULL AND due_millis <= :soon AND {IS_BEGUN}
        ORDER BY due_millis, key LIMIT :limit
    )"""

SELECT_DUE_AMONG = f"""
    SELECT CASE WHEN owner IS NULL THEN due_millis ELSE 0 END, key, run_id, owner, expires_millis FROM run
    WHERE run_id IN (SELECT value FROM json_each(:among)) AND +ended = 0 AND {IS_BEGUN} AND CASE
        WHEN owner IS NULL THEN due_millis <= :soon
        ELSE owner <> :me OR expires_millis <= :now
    END"""

SELECT_NEXT = f"""
    SELECT run_id, due_millis FROM run
    WHERE ended = 0 AND owner IS NULL AND due_millis IS NOT NULL AND {IS_BEGUN}
    ORDER BY due_millis LIMIT :limit"""


class Moment(NamedTuple):
    """Now, the moment until which what becomes due is asked for, and the name of the owner who asks."""

    now: int
    soon: int
    me: str


def select_due(
    cursor: apsw.Cursor,
    limit: int,
    moment: Moment,
    among: Collection[RunId] | None,
    claimed: Collection[RunId],
    is_free: Callable[[str | None, int], bool],
) -> list[RunId]:
    """As ``Agenda.due_runs``, for an owner who has reserved what is ``claimed``."""
    bindings: dict[str, int | str] = moment._asdict()
    if among is None:
        query, bindings["limit"] = SELECT_DUE, limit + len(claimed)
    else:
        query, bindings["among"] = SELECT_DUE_AMONG, as_array(among)
    rows: list[Any] = cursor.execute(query, bindings).fetchall()
    due = [
        (since, key, run_id)
        for since, key, run_id, owner, expires_millis in rows
        if run_id not in claimed and is_free(owner, expires_millis)
    ]
    return [RunId.trusted(run_id) for _, _, run_id in sorted(due)[:limit]]


def select_next_due_millis(cursor: apsw.Cursor, claimed: Collection[RunId]) -> int | None:
    """As ``Agenda.next_due_millis``; what is ``claimed`` is about to have an owner."""
    rows: list[Any] = cursor.execute(SELECT_NEXT, {"limit": len(claimed) + 1}).fetchall()
    return next((due_millis for run_id, due_millis in rows if run_id not in claimed), None)
