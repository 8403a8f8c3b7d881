"""The rows of artifacts. What is over the threshold is a file, and its row says so by having no data."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import apsw

from perdure.adapters.sqlite.files import ArtifactFiles
from perdure.canonical import artifact_id_for_bytes
from perdure.ids import ArtifactId
from perdure.stores.ports import Blob, RecipeBlob, Row
from perdure.stores.refusals import artifact_corruption, artifact_not_found

RENEWAL_MILLIS = 60_000
"""What was renewed so lately is not renewed again, and may be older by that than its time says."""
_INSERT = f"""
INSERT INTO artifact (id, kind, size, put_millis, data, recipe) VALUES (?, ?, ?, ?, ?, ?)
ON CONFLICT (id) DO UPDATE SET put_millis = excluded.put_millis
WHERE put_millis < excluded.put_millis - {RENEWAL_MILLIS}"""
_BATCH = 500


def insert_artifacts(
    cursor: apsw.Cursor, blobs: Sequence[Blob], threshold_bytes: int, now_millis: int
) -> None:
    """Keep ``blobs``; those over the threshold are in their files already."""
    for blob in blobs:
        data = blob.data
        cursor.execute(
            _INSERT,
            (
                _key(blob.id),
                str(blob.kind),
                blob.size,
                now_millis,
                data if len(data) <= threshold_bytes else None,
                isinstance(blob, RecipeBlob),
            ),
        )


def select_artifact(cursor: apsw.Cursor, files: ArtifactFiles, artifact_id: ArtifactId) -> bytes:
    """The bytes, verified: ``artifact_not_found``, ``artifact_corruption``."""
    query = "SELECT data FROM artifact WHERE id = ? AND NOT recipe"
    rows: list[Any] = cursor.execute(query, (_key(artifact_id),)).fetchall()
    if not rows:
        raise artifact_not_found(artifact_id)
    data: bytes | None = files.read(artifact_id) if rows[0][0] is None else rows[0][0]
    if data is None or artifact_id_for_bytes(data) != artifact_id:
        raise artifact_corruption(artifact_id)
    return data


def select_rows(
    cursor: apsw.Cursor, files: ArtifactFiles, artifact_ids: Sequence[ArtifactId]
) -> dict[ArtifactId, Row]:
    """What is kept under these ids, unverified."""
    found: dict[ArtifactId, Row] = {}
    for begin in range(0, len(artifact_ids), _BATCH):
        batch = artifact_ids[begin : begin + _BATCH]
        places = ",".join("?" * len(batch))
        query = f"SELECT id, recipe, data FROM artifact WHERE id IN ({places})"
        rows: list[Any] = cursor.execute(query, tuple(map(_key, batch))).fetchall()
        for key, is_recipe, kept in rows:
            artifact_id = ArtifactId.trusted(key.hex())
            data = files.read(artifact_id) if kept is None else kept
            if data is not None:
                found[artifact_id] = Row(bool(is_recipe), data)
    return found


def artifact_exists(cursor: apsw.Cursor, artifact_id: ArtifactId) -> bool:
    """Whether there is a row for it."""
    return bool(cursor.execute("SELECT 1 FROM artifact WHERE id = ?", (_key(artifact_id),)).fetchall())


def _key(artifact_id: str) -> bytes:
    return bytes.fromhex(artifact_id)
