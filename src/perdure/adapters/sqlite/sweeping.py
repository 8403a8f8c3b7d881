"""Which artifacts nothing leads to: marked page by page in a table that SQLite keeps on the disk.

Pages are read one after another and not at one moment, which is sound because streams only grow: whatever
a run that was read refers to later is fresh, or the run has led to it before.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import apsw

from perdure.adapters.sqlite.artifacts import artifact_exists
from perdure.adapters.sqlite.database import BUSY_TIMEOUT_MILLIS
from perdure.adapters.sqlite.deleting import SECONDS_MAX
from perdure.adapters.sqlite.files import ArtifactFiles
from perdure.ids import ArtifactId, RunId
from perdure.stores.references import Reference, ids_in, references

_RUNS, _EVENTS, _ARTIFACTS = 200, 2000, 300
_TEXT_BYTES = 1 << 20

CREATE = """
    CREATE TEMP TABLE without (run_id TEXT PRIMARY KEY) WITHOUT ROWID;
    CREATE TEMP TABLE marked (n INTEGER PRIMARY KEY, id BLOB, recipe INTEGER, UNIQUE (id, recipe));"""
SELECT_RUNS = """
    SELECT key FROM main.run
    WHERE key > ? AND ended < 2 AND run_id NOT IN (SELECT run_id FROM temp.without)
    ORDER BY key LIMIT ?"""
SELECT_EVENTS = "SELECT seq, body FROM main.event WHERE run = ? AND seq > ? ORDER BY seq LIMIT ?"
SELECT_LETTERS = "SELECT key, body FROM main.letter WHERE key > ? ORDER BY key LIMIT ?"
SELECT_SCHEDULES = "SELECT id, body FROM main.schedule WHERE id > ? ORDER BY id LIMIT ?"
SELECT_MARKED = """
    SELECT marked.id, marked.recipe OR artifact.recipe, artifact.data
    FROM temp.marked CROSS JOIN main.artifact ON artifact.id = marked.id
    WHERE marked.n > ? AND marked.n <= ?"""
SELECT_GARBAGE = """
    SELECT rowid, id, length(data) FROM main.artifact
    WHERE rowid > ? AND put_millis < ?
      AND NOT EXISTS (SELECT 1 FROM temp.marked WHERE marked.id = artifact.id)
    ORDER BY rowid LIMIT ?"""
INSERT = "INSERT OR IGNORE INTO temp.marked (id, recipe) VALUES (?, ?)"


class Garbage(NamedTuple):
    """An artifact that nothing leads to, by its key; ``size`` is None if its bytes are in a file."""

    key: bytes
    size: int | None


def delete_artifacts(
    cursor: apsw.Cursor, garbage: Sequence[Garbage], before_millis: int
) -> tuple[int, list[Garbage]]:
    """Delete what nobody has renewed; how many of ``garbage`` were looked at, and those that are no more."""
    until, gone = time.perf_counter() + SECONDS_MAX, list[Garbage]()
    for number, each in enumerate(garbage, 1):
        cursor.execute("DELETE FROM artifact WHERE id = ? AND put_millis < ?", (each.key, before_millis))
        if cursor.connection.changes():
            gone.append(each)
        if time.perf_counter() > until:
            return number, gone
    return len(garbage), gone


def remove_files(cursor: apsw.Cursor, files: ArtifactFiles, keys: Sequence[bytes]) -> int:
    """Remove the files of artifacts that have no row; how many of ``keys`` were looked at.

    For a transaction: whoever keeps such an artifact looks for its file in theirs, and never meanwhile.
    """
    until = time.perf_counter() + SECONDS_MAX
    for number, key in enumerate(keys, 1):
        if not artifact_exists(cursor, ArtifactId.trusted(key.hex())):
            files.remove(key.hex())
        if time.perf_counter() > until:
            return number
    return len(keys)


class Marking:
    """What remaining runs and letters lead to, on a connection of its own that changes nothing.

    For any thread, one at a time.
    """

    def __init__(self, path: Path, files: ArtifactFiles, without: Collection[RunId]) -> None:
        self._files = files
        self._connection = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY)
        self._connection.set_busy_timeout(BUSY_TIMEOUT_MILLIS)
        self._connection.pragma("temp_store", "file")
        self._connection.execute(CREATE)
        with self._connection:
            self._connection.executemany(
                "INSERT OR IGNORE INTO temp.without VALUES (?)", [(str(each),) for each in without]
            )

    def close(self) -> None:
        """Forget what was marked."""
        self._connection.close()

    def steps(self) -> Iterator[tuple[str, int]]:
        """Mark, a little with every step, which says how far it has come."""
        yield from self._events()
        yield from self._letters()
        yield from self._artifacts()

    def garbage(self, before_millis: int) -> Iterator[list[Garbage]]:
        """Pages of what is not marked and was neither put nor renewed since."""
        after = 0
        while True:
            bindings = (after, before_millis, _ARTIFACTS)
            rows: list[Any] = self._connection.execute(SELECT_GARBAGE, bindings).fetchall()
            if not rows:
                return
            yield [Garbage(key, size) for _, key, size in rows]
            after = rows[-1][0]

    def has_row(self, key: bytes) -> bool:
        """Whether there is an artifact of this key."""
        return bool(self._connection.execute("SELECT 1 FROM main.artifact WHERE id = ?", (key,)).fetchall())

    def _events(self) -> Iterator[tuple[str, int]]:
        after, done = 0, 0
        while keys := [row[0] for row in self._connection.execute(SELECT_RUNS, (after, _RUNS))]:
            for count in self._mark_texts(body for key in keys for body in self._bodies(SELECT_EVENTS, key)):
                done += count
                yield "events", done
            after = keys[-1]

    def _letters(self) -> Iterator[tuple[str, int]]:
        done = 0
        for texts in (self._bodies(SELECT_LETTERS), self._bodies(SELECT_SCHEDULES, first="")):
            for count in self._mark_texts(texts):
                done += count
                yield "letters", done

    def _bodies(self, query: str, *bindings: int, first: int | str = 0) -> Iterator[bytes]:
        # Not one long read: the log could not be taken over into the file meanwhile.
        after, is_last = first, False
        while not is_last:
            is_last = True
            for place, body in self._connection.execute(query, (*bindings, after, _EVENTS)):
                after, is_last = place, False
                yield body

    def _mark_texts(self, texts: Iterable[bytes]) -> Iterator[int]:
        """Mark what is named; gives the number of texts, batch by batch."""
        batch, size = list[bytes](), 0
        for text in texts:
            batch.append(text)
            size += len(text)
            if size >= _TEXT_BYTES or len(batch) >= _EVENTS:
                self._mark_ids(batch)
                yield len(batch)
                batch, size = [], 0
        self._mark_ids(batch)
        yield len(batch)

    def _artifacts(self) -> Iterator[tuple[str, int]]:
        after = 0
        while (until := min(after + _ARTIFACTS, self._marked_count())) > after:
            found: list[Reference] = []
            # Row by row: a page of whole artifacts may be larger than the memory.
            for key, is_recipe, data in self._connection.execute(SELECT_MARKED, (after, until)):
                kept = data if data is not None else self._files.text(key.hex(), is_recipe=bool(is_recipe))
                found += set(references(key.hex(), kept, is_recipe=bool(is_recipe)))
            self._mark(found)
            after = until
            yield "artifacts", after

    def _marked_count(self) -> int:
        rows: list[Any] = self._connection.execute("SELECT max(n) FROM temp.marked").fetchall()
        return rows[0][0] or 0

    def _mark_ids(self, texts: Sequence[bytes]) -> None:
        self._mark(Reference(key, False) for key in set(ids_in(b"\n".join(texts))))

    def _mark(self, found: Iterable[Reference]) -> None:
        with self._connection:
            self._connection.executemany(INSERT, found)
