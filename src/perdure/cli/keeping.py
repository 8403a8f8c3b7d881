"""Commands about what is kept: stores and artifacts."""

from __future__ import annotations

import sys
from pathlib import Path

from cyclopts import App as CommandApp

from perdure.cli.common import COMMON, Common, reading, size, store_url
from perdure.cli.output import EXIT_COMPLETED, Output, UsageError
from perdure.errors import Json
from perdure.ids import ArtifactId
from perdure.stores.locations import file_of


def add_to(store: CommandApp, artifact: CommandApp) -> None:
    """Add the commands to their groups."""
    for command in (init, migrate, info):
        store.command(command)
    artifact.command(get)


def init(*, common: Common = COMMON) -> int:
    """Make an empty store. Nothing happens to one that is there already.

    perdure store init --store runs.db
    """
    path = file_of(store_url(common))
    was_there = path is not None and path.exists()
    data = _described(common, makes=True)
    words = f"{data['location']} {'was there already' if was_there else 'is ready'}"
    Output(as_json=common.json).answer(data | {"made": not was_there}, words)
    return EXIT_COMPLETED


def migrate(*, common: Common = COMMON) -> int:
    """Bring a store to this version's schema, which opening it does as well.

    perdure store migrate --store runs.db
    """
    data = _described(common)
    before, after = data["schema_version_before"], data["schema_version"]
    went = f"went from schema version {before} to {after}"
    words = f"has schema version {after} already" if before == after else went
    Output(as_json=common.json).answer(data, f"{data['location']} {words}")
    return EXIT_COMPLETED


def info(*, common: Common = COMMON) -> int:
    """Show what a store holds, and how much room that takes.

    perdure store info --store runs.db
    """
    data = _described(common)
    output = Output(as_json=common.json)
    if common.json:
        output.data(data)
        return EXIT_COMPLETED
    for name in ("location", "kind", "schema_version"):
        output.line(f"{name.replace('_', ' '):<16}{data[name]}")
    output.line(f"{'runs':<16}{data['runs']:,}, of them {data['runs_unfinished']:,} unfinished")
    output.line(f"{'events':<16}{data['events']:,}")
    output.line(f"{'artifacts':<16}{data['artifacts']:,}, {size(data['artifact_bytes'])}")
    free = f", of it {size(data['free_bytes'])} free for what comes" if data["free_bytes"] else ""
    output.line(f"{'room taken':<16}{size(data['stored_bytes'])}{free}")
    return EXIT_COMPLETED


def get(artifact_id: str, /, *, output: Path | None = None, common: Common = COMMON) -> int:
    """Print an artifact's bytes, or write them to a file.

    perdure artifact get 5041bf1f… --output report.md

    Parameters
    ----------
    artifact_id
        The artifact's id: 64 hexadecimal digits.
    output
        The file to write; standard output unless given.
    """
    wanted = ArtifactId(artifact_id)
    data = reading(common, lambda stores: stores.artifacts.get(wanted))
    if output is None and not common.json:
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
        return EXIT_COMPLETED
    if output is not None:
        try:
            output.write_bytes(data)
        except OSError as error:
            raise UsageError.of("usage", f"the file cannot be written: {error.strerror}") from error
    if common.json:
        text = data.decode("utf-8", "replace")
        shown = {"artifact_id": wanted, "bytes": len(data)} | ({"text": text} if output is None else {})
        Output(as_json=True).data(shown)
    return EXIT_COMPLETED


def _described(common: Common, *, makes: bool = False) -> Json:
    return reading(common, lambda stores: stores.describe(), makes=makes)
