"""Opening the file: is it ours, is it of a version that we know, and what went wrong if not."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import apsw

from perdure.errors import CorruptionError, StorageError

APPLICATION_ID = 0x50524452
BUSY_TIMEOUT_MILLIS = 10_000

Migration = Callable[[apsw.Connection], object]


def migrations() -> list[str]:
    """The schema's steps: script n brings a file from version n to version n + 1."""
    return [step.read_text() for step in sorted(Path(__file__).with_name("migrations").glob("*.sql"))]


def schema_version(path: Path) -> int:
    """The schema version of the file as it is; 0 where there is none yet."""
    if not path.is_file() or not path.stat().st_size:
        return 0
    with translated(path):
        connection = apsw.Connection(str(path))
        try:
            connection.set_busy_timeout(BUSY_TIMEOUT_MILLIS)
            version: int = connection.pragma("user_version")
            return version
        finally:
            connection.close()


def open_database(path: Path, steps: Sequence[str] | None = None) -> apsw.Connection:
    """A connection for writing, to a file with the current schema; the file is made if it is missing.

    Raises ``StorageError``: ``store_read_only``, ``store_locked``, ``store_full``, ``store_foreign``,
    ``store_too_new``, ``store_io_error``, or ``CorruptionError`` (``store_corrupt``).
    """
    with translated(path):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError:
            raise StorageError.of(
                "store_read_only", "the store's folder cannot be made", details={"path": str(path)}
            ) from None
        connection = apsw.Connection(str(path))
        try:
            connection.set_busy_timeout(BUSY_TIMEOUT_MILLIS)
            _refuse_foreign(connection, path)
            connection.pragma("journal_mode", "wal")
            connection.pragma("synchronous", "full")
            migrate(connection, path, migrations() if steps is None else steps)
        except BaseException:
            connection.close()
            raise
    return connection


def open_for_reading(path: Path) -> apsw.Connection:
    """A second connection, which sees what was committed and never writes."""
    with translated(path):
        connection = apsw.Connection(str(path))
        connection.set_busy_timeout(BUSY_TIMEOUT_MILLIS)
        connection.pragma("query_only", True)
    return connection


def migrate(connection: apsw.Connection, path: Path, steps: Sequence[str]) -> None:
    """Bring the schema to version ``len(steps)``, in one transaction; other processes wait meanwhile."""
    if connection.pragma("user_version") == len(steps):
        return
    connection.execute("BEGIN IMMEDIATE")
    try:
        version = connection.pragma("user_version")
        if version > len(steps):
            raise StorageError.of(
                "store_too_new",
                f"the file has schema version {version}, this program knows {len(steps)}",
                details={"path": str(path)},
            )
        for step in steps[version:]:
            connection.execute(step)
        connection.pragma("application_id", APPLICATION_ID)
        connection.pragma("user_version", len(steps))
        connection.execute("COMMIT")
    except BaseException:
        connection.execute("ROLLBACK")
        raise


def _refuse_foreign(connection: apsw.Connection, path: Path) -> None:
    application_id = connection.pragma("application_id")
    tables = connection.execute("SELECT count(*) FROM sqlite_schema").fetchall()[0][0]
    if application_id != APPLICATION_ID and (application_id or tables):
        raise StorageError.of(
            "store_foreign", "the file is another program's database", details={"path": str(path)}
        )


@contextmanager
def translated(path: Path) -> Iterator[None]:
    """Our errors instead of the driver's."""
    try:
        yield
    except apsw.Error as error:
        raise translate(error, path) from error


def translate(error: apsw.Error, path: Path) -> StorageError:
    """Our error for one of the driver's. Its text names no data."""
    code, message = next(
        (entry for kind, entry in _CODES.items() if isinstance(error, kind)),
        ("store_io_error", "the database could not do its work"),
    )
    if isinstance(error, apsw.CantOpenError) and not os.access(path.parent, os.W_OK):
        code, message = _CODES[apsw.ReadOnlyError]
    details = {"path": str(path), "sqlite": type(error).__name__}
    if code == "store_corrupt":
        return CorruptionError.of(code, message, details=details)
    return StorageError.of(code, message, details=details)


_CODES: dict[type[apsw.Error], tuple[str, str]] = {
    apsw.NotADBError: ("store_corrupt", "the file is not a database, or it is damaged"),
    apsw.CorruptError: ("store_corrupt", "the file is not a database, or it is damaged"),
    apsw.FullError: ("store_full", "there is no room left for the database"),
    apsw.ReadOnlyError: ("store_read_only", "the file or its folder may not be written"),
    apsw.PermissionsError: ("store_read_only", "the file or its folder may not be written"),
    apsw.BusyError: ("store_locked", "another process keeps the database locked"),
    apsw.LockedError: ("store_locked", "another process keeps the database locked"),
}
