"""Where adapters meet the ports: the only module that knows both. A transport is imported when it is used."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from perdure.adapters.sqlite.store import SqliteStore
from perdure.adapters.transports.limits import (
    EXEC_OUTPUT_BYTES,
    FILE_BYTES,
    HTTP_BODY_BYTES,
    INLINE_BYTES,
)
from perdure.failpoints import Failpoints
from perdure.io.port import TransportFactory
from perdure.stores.bundle import Stores
from perdure.stores.sharing import SharedArtifacts

if TYPE_CHECKING:
    from perdure.adapters.transports.http import HttpTransportFactory


def open_sqlite(rest: str, failpoints: Failpoints | None = None) -> Stores:
    """The stores of a SQLite file; what follows ``sqlite:`` is its path."""
    store = SqliteStore(rest, failpoints=failpoints)
    shared = SharedArtifacts(store)
    return Stores(
        store,
        shared,
        store,
        shared,
        store.close,
        store.describe,
        mailbox=store,
        agenda=store,
        schedules=store.schedules,
        keeping=store.keeping,
    )


def exec_transport(
    allowed_programs: Iterable[str | Path], *, limit_bytes: int = EXEC_OUTPUT_BYTES
) -> TransportFactory:
    """The ``exec`` transport for the programs on this list; see ``perdure.adapters.transports.exec``."""
    from perdure.adapters.transports.exec import ExecTransportFactory

    return ExecTransportFactory(allowed_programs, limit_bytes=limit_bytes)


def http_transport(
    allowed_hosts: Iterable[str] | None = None,
    *,
    limit_bytes: int = HTTP_BODY_BYTES,
    inline_bytes: int = INLINE_BYTES,
    idempotency_header: str = "Idempotency-Key",
    key_lifetime: timedelta = timedelta(hours=24),
    keyed_hosts: Iterable[str] | None = None,
    options: Mapping[str, Any] | None = None,
) -> HttpTransportFactory:
    """The ``http`` transport, for these hosts or for all; see ``perdure.adapters.transports.http``.

    ``await factory.aclose()`` closes the connections that it keeps open for the running event loop.
    """
    from perdure.adapters.transports.http import HttpTransportFactory

    return HttpTransportFactory(
        allowed_hosts,
        limit_bytes=limit_bytes,
        inline_bytes=inline_bytes,
        idempotency_header=idempotency_header,
        key_lifetime=key_lifetime,
        keyed_hosts=keyed_hosts,
        options=options,
    )


def files_transport(
    roots: Mapping[str, str | Path],
    *,
    writable: Iterable[str] = (),
    limit_bytes: int = FILE_BYTES,
    inline_bytes: int = INLINE_BYTES,
) -> TransportFactory:
    """The ``files`` transport for these folders by name; see ``perdure.adapters.transports.files``."""
    from perdure.adapters.transports.files import FilesTransportFactory

    return FilesTransportFactory(roots, writable=writable, limit_bytes=limit_bytes, inline_bytes=inline_bytes)
