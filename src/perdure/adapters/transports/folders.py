"""Opening what lies below a folder, and nothing else.

Each component of a path is opened from the folder before it, and must not be a symbolic link: so a link
leads nowhere, also one that is put in a folder's place meanwhile.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import BinaryIO

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
# Not blocking: a named pipe that nobody writes to would keep us for ever.
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class Refused(Exception):
    """What is there is not what was asked for. ``code`` is one of the ``files_…`` codes."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(code)
        self.code, self.message = code, message


@contextmanager
def opened_below(root: str, names: Sequence[bytes], *, make: bool = False) -> Iterator[int]:
    """A descriptor of the folder that ``names`` lead to, each the name of a folder in the one before.

    With ``make``, folders that are missing are made, durably. Raises :class:`Refused`
    (``files_symlink_refused``, ``files_not_a_folder``) and ``OSError``.
    """
    descriptor = os.open(root, _FOLDER)
    try:
        for name in names:
            if make:
                with suppress(FileExistsError):
                    os.mkdir(name, dir_fd=descriptor)
                # Also for one that exists: who made it may have ended before it was durable.
                os.fsync(descriptor)
            below = _open_folder(descriptor, name)
            os.close(descriptor)
            descriptor = below
        yield descriptor
    finally:
        os.close(descriptor)


@contextmanager
def opened_file(folder: int, name: bytes) -> Iterator[BinaryIO]:
    """The regular file ``name`` of a folder, for reading.

    Raises :class:`Refused` (``files_symlink_refused``, ``files_not_a_file``) and ``OSError``.
    """
    try:
        descriptor = os.open(name, _FILE, dir_fd=folder)
    except OSError:
        checked_status(folder, name, stat.S_IFREG)
        raise
    try:
        # Asked before it is opened as a file: a folder cannot be.
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise _other_kind(stat.S_IFREG)
        with open(descriptor, "rb", closefd=False) as file:
            yield file
    finally:
        os.close(descriptor)


def _open_folder(folder: int, name: bytes) -> int:
    try:
        return os.open(name, _FOLDER | os.O_NOFOLLOW, dir_fd=folder)
    except OSError:
        checked_status(folder, name, stat.S_IFDIR)
        raise


def checked_status(folder: int, name: bytes, wanted: int) -> os.stat_result:
    """The status of ``name``, which must be of the kind ``wanted``: ``S_IFREG`` or ``S_IFDIR``.

    It is asked for after an error, too, since systems report another kind by different errors. Raises
    :class:`Refused` and ``OSError``.
    """
    status = os.stat(name, dir_fd=folder, follow_symlinks=False)
    kind = stat.S_IFMT(status.st_mode)
    if kind == stat.S_IFLNK:
        raise Refused("files_symlink_refused", "the path leads through a symbolic link")
    if kind != wanted:
        raise _other_kind(wanted)
    return status


def _other_kind(wanted: int) -> Refused:
    if wanted == stat.S_IFDIR:
        return Refused("files_not_a_folder", "what is there is not a folder")
    return Refused("files_not_a_file", "what is there is not a regular file")
