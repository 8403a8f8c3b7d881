"""Where adapters meet the ports: the only module that knows both."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from perdure.adapters.sqlite.store import SqliteStore
from perdure.adapters.transports import files, http
from perdure.adapters.transports.bodies import INLINE_BYTES
from perdure.adapters.transports.exec import LIMIT_BYTES, ExecTransportFactory
from perdure.failpoints import Failpoints
from perdure.io.port import TransportFactory
from perdure.stores.bundle import Stores
from perdure.stores.sharing import SharedArtifacts


def open_sqlite(rest: str, failpoints: Failpoints | None = None) -> Stores:
    """The stores of a SQLite file; what follows ``sqlite:`` is its path."""
    store = SqliteStore(Path(rest), failpoints=failpoints)
    shared = SharedArtifacts(store)
    return Stores(store, shared, store, shared, store.close, store.describe)


def exec_transport(
    allowed_programs: Iterable[str | Path], *, limit_bytes: int = LIMIT_BYTES
) -> TransportFactory:
    """The ``exec`` transport for the programs on this list; see ``perdure.adapters.transports.exec``."""
    return ExecTransportFactory(allowed_programs, limit_bytes=limit_bytes)


def http_transport(
    allowed_hosts: Iterable[str] | None = None,
    *,
    limit_bytes: int = http.LIMIT_BYTES,
    inline_bytes: int = INLINE_BYTES,
    options: Mapping[str, Any] | None = None,
) -> http.HttpTransportFactory:
    """The ``http`` transport, for these hosts or for all; see ``perdure.adapters.transports.http``.

    ``await factory.aclose()`` closes the connections that it keeps open for the running event loop.
    """
    return http.HttpTransportFactory(
        allowed_hosts, limit_bytes=limit_bytes, inline_bytes=inline_bytes, options=options
    )


def files_transport(
    roots: Mapping[str, str | Path],
    *,
    writable: Iterable[str] = (),
    limit_bytes: int = files.LIMIT_BYTES,
    inline_bytes: int = INLINE_BYTES,
) -> TransportFactory:
    """The ``files`` transport for these folders by name; see ``perdure.adapters.transports.files``."""
    return files.FilesTransportFactory(
        roots, writable=writable, limit_bytes=limit_bytes, inline_bytes=inline_bytes
    )
