"""What passes on when a run goes on as another: its letters, and who waits for its end."""

from __future__ import annotations

from typing import Any

import apsw

from perdure.adapters.sqlite.awaiting import FORGET
from perdure.adapters.sqlite.legs import SELECT_NEWEST
from perdure.adapters.sqlite.mailbox import pass_letters_on
from perdure.ids import RunId

PASS_AWAITING_ON = "UPDATE OR REPLACE awaiting SET awaited = ? WHERE awaited = ?"


def pass_on(cursor: apsw.Cursor, run_id: RunId, key: int | None) -> bool:
    """Have the newest leg read the letters to a run that ended as one, and be awaited in its place.

    False if there is none that has not ended.
    """
    rows: list[Any] = cursor.execute(SELECT_NEWEST, (str(run_id),)).fetchall()
    if not rows or rows[0][2] or rows[0][1] == key:
        return False
    newest, newest_key, _ = rows[0]
    pass_letters_on(cursor, run_id, RunId.trusted(newest), newest_key)
    cursor.execute(PASS_AWAITING_ON, (newest, str(run_id)))
    cursor.execute(FORGET, (key,))
    return True
