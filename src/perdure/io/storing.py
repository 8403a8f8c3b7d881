"""What an attempt asks of the store. A store that fails ends the stint, whatever the handler makes of it."""

from __future__ import annotations

from collections.abc import Callable

from perdure.errors import Json, StorageError
from perdure.ids import ArtifactId
from perdure.io.journal import Entry, Journal
from perdure.io.scope import AttemptScope
from perdure.stores.ports import ArtifactStore
from perdure.stores.reading import read_json


async def read_recorded(
    scope: AttemptScope, artifacts: ArtifactStore, payload_id: ArtifactId
) -> tuple[Json, bytes]:
    """As ``read_json``, of what a fact or an effect of the run names."""
    try:
        return await read_json(artifacts, payload_id)
    except StorageError as error:
        scope.fatal = error
        raise


async def append(scope: AttemptScope, journal: Journal, make: Callable[[], Entry]) -> None:
    """As ``Journal.append``."""
    try:
        await journal.append(make)
    except StorageError as error:
        scope.fatal = error
        raise
