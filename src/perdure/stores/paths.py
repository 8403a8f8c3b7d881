"""Whether a path is one where a file can be a store; nothing is opened or made to find out."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

from perdure.errors import StorageError

PATH_BYTES_MAX = 504
"""What SQLite opens: 512 bytes, with the longest name that it gives to a file beside the database."""
NAME_BYTES_MAX = 255
_LONGEST_SUFFIX = ".artifacts"


def checked_path(path: str | Path) -> Path:
    """``path``, where a regular file is or can be made.

    Raises ``StorageError``: ``store_path_invalid`` where none can be, ``store_unreadable`` where there is one
    that this user may not read.
    """
    text = str(path)
    if not text:
        raise _invalid(text, "the store's path is empty")
    if text == ":memory:":
        raise _invalid(
            text, "a store's file cannot be in memory", "use Stores.in_memory(), or the address memory:"
        )
    if "\0" in text or not _is_utf8(text):
        raise _invalid(ascii(text), "the store's path is no text that a path can be")
    path = Path(text)
    names = [*path.parts[:-1], path.name + _LONGEST_SUFFIX]
    is_long = len(os.fsencode(path.absolute())) > PATH_BYTES_MAX
    if is_long or any(len(os.fsencode(name)) > NAME_BYTES_MAX for name in names):
        raise _invalid(text, "the store's path is too long", "choose a shorter path")
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        return path
    except PermissionError as error:
        raise _unreadable(text) from error
    except OSError as error:
        reason = "leads through a file" if error.errno == errno.ENOTDIR else "leads nowhere"
        raise _invalid(text, f"the store's path {reason}") from error
    if stat.S_ISDIR(mode):
        raise _invalid(text, "the store's path is a folder")
    if not stat.S_ISREG(mode):
        raise _invalid(text, "the store's path is no regular file, but a device, a pipe or a socket")
    if not os.access(path, os.R_OK):
        raise _unreadable(text)
    return path


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _invalid(text: str, message: str, hint: str | None = None) -> StorageError:
    return StorageError.of("store_path_invalid", message, details={"path": text}, hint=hint)


def _unreadable(text: str) -> StorageError:
    return StorageError.of("store_unreadable", "the store's file may not be read", details={"path": text})
