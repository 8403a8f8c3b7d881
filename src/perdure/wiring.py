"""Where adapters meet the ports: the only module that knows both."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from perdure.adapters.sqlite.store import SqliteStore
from perdure.adapters.transports.exec import LIMIT_BYTES, ExecTransportFactory
from perdure.failpoints import Failpoints
from perdure.io.port import TransportFactory
from perdure.stores.bundle import Stores


def open_sqlite(rest: str, failpoints: Failpoints | None = None) -> Stores:
    """The stores of a SQLite file; what follows ``sqlite:`` is its path."""
    store = SqliteStore(Path(rest), failpoints=failpoints)
    return Stores(store, store, store, store, store.close)


def exec_transport(
    allowed_programs: Iterable[str | Path], *, limit_bytes: int = LIMIT_BYTES
) -> TransportFactory:
    """The ``exec`` transport for the programs on this list; see ``perdure.adapters.transports.exec``."""
    return ExecTransportFactory(allowed_programs, limit_bytes=limit_bytes)
