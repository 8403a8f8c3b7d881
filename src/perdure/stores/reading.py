"""Reading what stores keep: structured artifacts, trusting nothing, and events in pages."""

from __future__ import annotations

from collections.abc import AsyncIterator

from perdure.canonical import CanonicalJsonError, artifact_id_for_bytes, decode, refuse_secrets
from perdure.errors import CorruptionError, Json
from perdure.ids import ArtifactId, RunId
from perdure.model.context import Snapshot
from perdure.model.events import EventEnvelope
from perdure.secrets import DEFAULT_POLICY, SecretPolicy
from perdure.stores.ports import ArtifactStore, EventStore

PAGE_EVENTS = 2000

_CODES = {
    "not_canonical": ("artifact_not_canonical", "the artifact's JSON is not in canonical form"),
    "float_not_allowed": ("artifact_float_not_allowed", "the artifact holds a float"),
    "value_not_json": ("artifact_json_decode_failed", "the artifact is not JSON text"),
}


async def read_bytes(artifacts: ArtifactStore, artifact_id: ArtifactId) -> bytes:
    """An artifact's bytes, whose hash was checked (``artifact_content_address_mismatch``)."""
    data = await artifacts.get(artifact_id)
    if artifact_id_for_bytes(data) != artifact_id:
        raise _corruption("artifact_content_address_mismatch", "the bytes have another hash", artifact_id)
    return data


async def read_json(
    artifacts: ArtifactStore, artifact_id: ArtifactId, policy: SecretPolicy = DEFAULT_POLICY
) -> tuple[Json, bytes]:
    """A structured artifact's value and its canonical bytes.

    Every flaw is a :class:`CorruptionError`: ``artifact_content_address_mismatch``,
    ``artifact_json_decode_failed``, ``artifact_not_canonical``, ``artifact_float_not_allowed`` and
    ``secrets_detected``.
    """
    data = await read_bytes(artifacts, artifact_id)
    try:
        value = decode(data)
        refuse_secrets(value, data, policy)
    except CanonicalJsonError as error:
        code, message = _CODES.get(error.code, ("artifact_not_canonical", error.info.message))
        if error.code == "secrets_detected":
            code, message = error.code, error.info.message
        raise _corruption(code, message, artifact_id, error.pointer) from None
    return value, data


async def read_snapshot(artifacts: ArtifactStore, snapshot_id: ArtifactId) -> Snapshot:
    """A stored context. Raises as :func:`read_json`, and ``context_not_an_object`` for what is none."""
    _, data = await read_json(artifacts, snapshot_id)
    try:
        return Snapshot.of_canonical(data)
    except CanonicalJsonError:
        raise _corruption(
            "context_not_an_object", "the context's snapshot is not a JSON object", snapshot_id
        ) from None


async def read_engine_events(events: EventStore, run_id: RunId, from_seq: int = 1) -> list[EventEnvelope]:
    """All kernel and engine events of a run from ``from_seq`` on, read page by page."""
    return [each async for page in engine_event_pages(events, run_id, from_seq) for each in page]


async def engine_event_pages(
    events: EventStore, run_id: RunId, from_seq: int = 1
) -> AsyncIterator[list[EventEnvelope]]:
    """As :func:`read_engine_events`, a page at a time, so that a long history need not be held at once."""
    while True:
        page = await events.read_engine_events(run_id, from_seq, PAGE_EVENTS)
        yield page
        if len(page) < PAGE_EVENTS:
            return
        from_seq = page[-1].seq + 1


def _corruption(code: str, message: str, artifact_id: str, pointer: str | None = None) -> CorruptionError:
    details = {"artifact_id": str(artifact_id)} | ({} if pointer is None else {"pointer": pointer})
    return CorruptionError.of(code, message, details=details)
