"""Where adapters meet the ports: the only module that knows both."""

from __future__ import annotations

from pathlib import Path

from perdure.adapters.sqlite.store import SqliteStore
from perdure.stores.bundle import Stores


def open_sqlite(rest: str) -> Stores:
    """The stores of a SQLite file; what follows ``sqlite:`` is its path."""
    store = SqliteStore(Path(rest))
    return Stores(store, store, store, store, store.close)
