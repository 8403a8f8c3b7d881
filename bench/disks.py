"""A file system layer of SQLite's that tells of synchronisations."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import apsw


@contextmanager
def told_of_syncs(tell: Callable[[], object]) -> Iterator[None]:
    """Meanwhile ``tell`` is called after every synchronisation of a file, in the thread that asked for it."""
    base = apsw.vfs_names()[0]

    class TellingFile(apsw.VFSFile):
        def xSync(self, flags: int) -> None:  # noqa: N802 — SQLite's name
            super().xSync(flags)
            tell()

    class TellingVfs(apsw.VFS):
        def xOpen(  # noqa: N802 — SQLite's name
            self, name: str | apsw.URIFilename | None, flags: list[int]
        ) -> apsw.VFSFile:
            return TellingFile(base, name, flags)

    vfs = TellingVfs("telling", base, makedefault=True)
    try:
        yield
    finally:
        gc.collect()  # files of the layer must be gone before it is
        vfs.unregister()
