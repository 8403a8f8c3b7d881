"""Whether an owner on this machine is alive: it holds a lock that the system takes back when it dies.

All owners of a store share one lock file; each locks one byte, at a place drawn at random.
"""

from __future__ import annotations

import fcntl
import os
import struct
from pathlib import Path

from perdure.errors import StorageError

_FLOCK = "hhqqi0q"


class OwnerLock:
    """This handle's own byte, held until :meth:`close` or the process's end."""

    def __init__(self, path: Path) -> None:
        try:
            self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        except OSError as error:
            raise StorageError.of(
                "store_read_only", "the store's lock file cannot be written", details={"path": str(path)}
            ) from error
        self._offset = int.from_bytes(os.urandom(8), "big") >> 2
        self._call("F_OFD_SETLK", fcntl.F_WRLCK, self._offset)
        self.name = f"{_host()}/{self._offset}"

    def is_dead(self, owner: str) -> bool:
        """Whether ``owner`` (another handle's :attr:`name`) surely is no more. Unknown counts as alive."""
        host, _, offset = owner.rpartition("/")
        if owner == self.name or host != _host() or not offset.isdigit():
            return False
        kind = self._call("F_OFD_GETLK", fcntl.F_WRLCK, int(offset))
        return kind == fcntl.F_UNLCK

    def close(self) -> None:
        """Give the byte back."""
        os.close(self._fd)

    def _call(self, command: str, kind: int, offset: int) -> int | None:
        number = getattr(fcntl, command, None)
        if number is None:
            return None  # a system without such locks: the time to live alone tells
        answer = fcntl.fcntl(self._fd, number, struct.pack(_FLOCK, kind, os.SEEK_SET, offset, 1, 0))
        return int(struct.unpack(_FLOCK, answer)[0])


def _host() -> str:
    return os.uname().nodename
