"""The rows of runs as which others go on: which is the newest of a chain."""

from __future__ import annotations

from typing import Any

import apsw

from perdure.ids import RunId
from perdure.model.events import ContinuedRun

SELECT_NEWEST = """
    SELECT run_id, key, ended FROM run
    WHERE first_leg = (SELECT coalesce(first_leg, run_id) FROM run WHERE run_id = ? AND ended = 1)
    ORDER BY leg DESC, key LIMIT 1"""


def insert_leg(cursor: apsw.Cursor, key: int | None, continued: ContinuedRun) -> None:
    """Note what the run of ``key`` continues."""
    cursor.execute(
        "UPDATE run SET first_leg = ?, leg = ? WHERE key = ?",
        (str(continued.first_run_id), continued.leg, key),
    )


def select_newest(cursor: apsw.Cursor, run_id: RunId) -> RunId:
    """As ``KnowsLegs.newest_leg``."""
    rows: list[Any] = cursor.execute(SELECT_NEWEST, (str(run_id),)).fetchall()
    return RunId.trusted(rows[0][0]) if rows else run_id
