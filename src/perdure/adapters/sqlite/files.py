"""Large artifacts as files beside the database: whole or not there at all."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from perdure.clock import Clock
from perdure.errors import StorageError

_JSON_BEGINS = (b"{", b"[", b'"')


class FileGoneError(Exception):
    """A file was swept between being written and being named by a row."""


class ArtifactFiles:
    """Files named by their content, in 256 folders; a file's time is when it was put or renewed."""

    def __init__(self, folder: Path, clock: Clock) -> None:
        self._folder = folder
        self._clock = clock

    def all(self) -> Iterator[Path]:
        """The files of all artifacts that are kept here."""
        return self._folder.glob("??/*")

    def write(self, artifact_id: str, data: bytes) -> None:
        """Keep ``data`` durably: written apart, synchronised, and only then given its name."""
        target = self._path(artifact_id)
        try:
            if target.exists() and target.read_bytes() == data and self._renew(target):
                return
            new_folders = [each for each in (target.parent, self._folder) if not each.exists()]
            target.parent.mkdir(parents=True, exist_ok=True)
            temporary = target.with_name(f".part-{os.urandom(8).hex()}")
            try:
                with temporary.open("xb") as file:
                    file.write(data)
                    file.flush()
                    os.fsync(file.fileno())
                self._renew(temporary)
                os.replace(temporary, target)
            except BaseException:
                temporary.unlink(missing_ok=True)
                raise
            for folder in (target.parent, *(each.parent for each in new_folders)):
                _sync_folder(folder)
        except OSError as error:
            code = "store_full" if error.errno in (28, 122) else "store_io_error"
            raise StorageError.of(
                code, "an artifact's file could not be written", details={"errno": error.errno}
            ) from error

    def read(self, artifact_id: str) -> bytes | None:
        """The bytes, or None if the file is gone."""
        try:
            return self._path(artifact_id).read_bytes()
        except OSError:
            return None

    def require(self, artifact_ids: Iterable[str]) -> None:
        """Raise :class:`FileGoneError` unless there is a file of each artifact."""
        if not all(self._path(each).exists() for each in artifact_ids):
            raise FileGoneError

    def text(self, artifact_id: str, *, is_recipe: bool) -> bytes:
        """What may name other artifacts: a recipe, or JSON. Nothing of other files, which may be large."""
        try:
            with self._path(artifact_id).open("rb") as file:
                first = file.read(1)
                return first + file.read() if is_recipe or first in _JSON_BEGINS else b""
        except OSError:
            return b""

    def aged(self, before_millis: int) -> Iterator[tuple[Path, int]]:
        """Files that were neither put nor renewed since, unfinished ones included, with their sizes."""
        for path in self.all():
            try:
                found = path.stat()
            except OSError:
                continue
            if found.st_mtime_ns // 1_000_000 < before_millis:
                yield path, found.st_size

    def size(self, artifact_id: str) -> int:
        """The number of bytes; 0 if the file is gone."""
        try:
            return self._path(artifact_id).stat().st_size
        except OSError:
            return 0

    def remove(self, artifact_id: str) -> None:
        """Take the file away. A crash may bring it back, and then it is nobody's."""
        self._path(artifact_id).unlink(missing_ok=True)

    def _renew(self, path: Path) -> bool:
        """Whether the file was still there to be renewed."""
        now = self._clock.now_millis() * 1_000_000
        try:
            os.utime(path, ns=(now, now))
        except FileNotFoundError:
            return False
        return True

    def _path(self, artifact_id: str) -> Path:
        return self._folder / artifact_id[:2] / artifact_id


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
