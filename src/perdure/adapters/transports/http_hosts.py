"""Which hosts may be asked."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable

_NAME = re.compile(r"(?:\*\.)?[a-z0-9_-]+(?:\.[a-z0-9_-]+)*")


class AllowedHosts:
    """An allow-list of host names and IP addresses; ``*.example.org`` is every host below example.org.

    Names are compared in lower case, as IDNA writes them (``xn--…``), and addresses by value. Raises
    ``ValueError`` for an entry that is none of these: it would never match.
    """

    def __init__(self, hosts: Iterable[str]) -> None:
        entries = [_checked(host) for host in hosts]
        self._hosts = frozenset(entries)
        self._suffixes = tuple(entry[1:] for entry in entries if entry.startswith("*."))

    def allow(self, host: str) -> bool:
        """Whether ``host``, as it stands in a URL, is on the list."""
        name = _normal(host)
        return name in self._hosts or (name.endswith(self._suffixes) and not _is_address(name))


def _checked(entry: str) -> str:
    host = _normal(entry)
    if not _is_address(host) and not _NAME.fullmatch(host):
        raise ValueError(f"not a host, nor a pattern of hosts: {entry!r}")
    return host


def _normal(host: str) -> str:
    bare = host.removeprefix("[").removesuffix("]")
    if _is_address(bare):
        return ipaddress.ip_address(bare).compressed
    return host.lower().removesuffix(".")


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
