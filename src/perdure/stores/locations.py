"""From a URL to stores: schemes, and the factories that serve them.

A factory is named as ``module:function`` and imported on first use, so that a program pays only for the
store that it uses, and this layer knows no driver. Installed packages offer more by entry points of the group
``perdure.stores``, named by scheme: functions of the address's rest and of failpoints.
"""

from __future__ import annotations

import importlib
import re
from pathlib import Path
from typing import TYPE_CHECKING, cast

from perdure.errors import StorageError
from perdure.stores.paths import checked_path

if TYPE_CHECKING:
    from perdure.failpoints import Failpoints
    from perdure.stores.bundle import Stores

FACTORIES: dict[str, str] = {
    "memory": "perdure.stores.memory:open_memory",
    "sqlite": "perdure.wiring:open_sqlite",
}

STORES_GROUP = "perdure.stores"

_SCHEME = re.compile(r"([a-z][a-z0-9+.-]+):(.*)", re.DOTALL)


def file_of(url: str) -> Path | None:
    """The file that ``url`` names; None for stores that are no file.

    Raises ``StorageError`` (``store_path_invalid``, ``store_unreadable``) where no file can be a store.
    """
    match = _SCHEME.fullmatch(url)
    scheme, rest = match.groups() if match else ("sqlite", url)
    return checked_path(rest) if scheme == "sqlite" else None


def open_location(url: str, failpoints: Failpoints | None = None) -> Stores:
    """The stores of ``url``; a text without a scheme is the path of a SQLite file."""
    match = _SCHEME.fullmatch(url)
    scheme, rest = match.groups() if match else ("sqlite", url)
    factory = FACTORIES.get(scheme)
    if factory is None:
        from importlib.metadata import entry_points

        installed = entry_points(group=STORES_GROUP)
        if scheme not in installed.names:
            known = ", ".join(sorted({*FACTORIES, *installed.names}))
            raise StorageError.of(
                "store_scheme_unknown", f"no store serves {scheme}: addresses", hint=f"use one of: {known}"
            )
        return cast("Stores", installed[scheme].load()(rest, failpoints))
    module, _, name = factory.partition(":")
    return cast("Stores", getattr(importlib.import_module(module), name)(rest, failpoints))
