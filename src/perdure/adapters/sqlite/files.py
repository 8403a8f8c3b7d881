"""Large artifacts as files beside the database: whole or not there at all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from perdure.errors import StorageError


class ArtifactFiles:
    """Files named by their content, in 256 folders."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def all(self) -> Iterator[Path]:
        """The files of all artifacts that are kept here."""
        return self._folder.glob("??/*")

    def write(self, artifact_id: str, data: bytes) -> None:
        """Keep ``data`` durably: written apart, synchronised, and only then given its name."""
        target = self._path(artifact_id)
        try:
            if target.exists() and target.read_bytes() == data:
                return
            new_folders = [each for each in (target.parent, self._folder) if not each.exists()]
            target.parent.mkdir(parents=True, exist_ok=True)
            temporary = target.with_name(f".part-{os.urandom(8).hex()}")
            try:
                with temporary.open("xb") as file:
                    file.write(data)
                    file.flush()
                    os.fsync(file.fileno())
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

    def _path(self, artifact_id: str) -> Path:
        return self._folder / artifact_id[:2] / artifact_id


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
