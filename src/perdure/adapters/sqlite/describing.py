"""How much the file holds, and how much room that takes."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import apsw

from perdure.errors import Json

_COUNTS = """
    SELECT (SELECT user_version FROM pragma_user_version),
           (SELECT count(*) FROM run WHERE ended < 2), (SELECT count(*) FROM run WHERE ended = 0),
           (SELECT count(*) FROM event), (SELECT count(*) FROM artifact),
           (SELECT coalesce(sum(size), 0) FROM artifact),
           (SELECT freelist_count FROM pragma_freelist_count) * (SELECT page_size FROM pragma_page_size)"""


def select_described(cursor: apsw.Cursor, path: Path, files: Iterable[Path]) -> Json:
    """As ``Stores.describe``, but for what opening found; ``files`` are those beside the database."""
    counts: list[Any] = cursor.execute(_COUNTS).fetchall()
    version, runs, unfinished, events, artifacts, artifact_bytes, free_bytes = counts[0]
    beside = [path, path.with_name(path.name + "-wal"), *files]
    return {
        "location": str(path),
        "kind": "sqlite",
        "schema_version": version,
        "runs": runs,
        "runs_unfinished": unfinished,
        "events": events,
        "artifacts": artifacts,
        "artifact_bytes": artifact_bytes,
        "stored_bytes": sum(each.stat().st_size for each in beside if each.exists()),
        "free_bytes": free_bytes,
    }
