"""Child runs: what a handler asks of the engine, and what becomes of it. Everything here is pure.

A run spawns a child under a fact key, which gives the child's id; it may await its end under another.
"""

from __future__ import annotations

import enum
from typing import Any, Literal

import msgspec

from perdure.canonical import CanonicalJsonError, canonical_json_bytes
from perdure.errors import (
    ContextSerializationError,
    CorruptionError,
    ErrorCategory,
    InvalidShapeError,
    IoError,
    Json,
    MissingFactKeyError,
    shaped,
)
from perdure.ids import ArtifactId, FactKey, InvalidIdError, RunId
from perdure.model.config import RunConfig, RunManifest
from perdure.model.context import Snapshot
from perdure.model.events import (
    CHILD_RUN_COMPLETED,
    CHILD_RUN_SPAWNED,
    ArtifactKind,
    DomainEvent,
    RunCompleted,
)
from perdure.model.handler import IoCall
from perdure.model.pipeline import Pipeline, manifest_for
from perdure.stores.ports import Blob

SPAWN, AWAIT = "machine.child_run.spawn", "machine.child_run.await"
SPAWN_V1, AWAIT_V1 = "child_run_spawn_v1", "child_run_await_v1"


class ClosePolicy(enum.Enum):
    """What becomes of a child that is still running when its parent ends."""

    AWAIT = "await"
    """The parent ends after it."""
    CANCEL = "cancel"
    """It is told to stop; the parent does not wait for that."""
    ABANDON = "abandon"
    """It goes on by itself, also when its parent is cancelled or paused."""


class Child(msgspec.Struct, frozen=True):
    """A child run as its parent's history knows it."""

    run_id: RunId
    manifest_id: ArtifactId
    close_policy: ClosePolicy = ClosePolicy.AWAIT
    has_ended: bool = False
    spawned_seq: int = 0
    """The number of the event that links it to its parent."""


class PlannedChild(msgspec.Struct, frozen=True):
    """A child run that is to be spawned."""

    run_id: RunId
    manifest: RunManifest
    manifest_blob: Blob
    initial: Snapshot
    close_policy: ClosePolicy


class AwaitRequest(msgspec.Struct, frozen=True):
    """Which run is awaited, and the manifest that it must have."""

    kind: Literal["child_run_await_v1"]
    child_run_id: RunId
    child_manifest_id: ArtifactId


class _SpawnRequest(msgspec.Struct, frozen=True):
    kind: Literal["child_run_spawn_v1"]
    op_id: str
    op_version: str
    run_config: Any
    op_config: Any = None
    input: Any = None
    initial_context: Any = None
    close_policy: ClosePolicy = ClosePolicy.AWAIT


def is_child_call(call: IoCall) -> bool:
    """Whether the engine itself answers ``call``; ``MissingFactKeyError`` if it could not be recorded."""
    if call.namespace not in (SPAWN, AWAIT):
        return False
    if call.fact_key is None:
        raise MissingFactKeyError.of("missing_fact_key", "a call about a child run needs a fact key")
    return True


def planned_child(parent: RunId, key: FactKey, request: Json) -> PlannedChild:
    """The child that ``request`` asks for; ``IoError`` (``child_run_request_invalid``)."""
    try:
        wire = shaped(request, _SpawnRequest)
        config = RunConfig.from_json(wire.run_config)
        pipeline = Pipeline.of_op(wire.op_id, wire.op_version, wire.op_config)
        manifest = manifest_for(pipeline, wire.input, config)
    except (InvalidShapeError, InvalidIdError) as error:
        raise _invalid(error.info.message) from None
    given = {} if wire.initial_context is None else wire.initial_context
    if not isinstance(given, dict):
        raise _invalid("initial_context is neither an object nor null")
    try:
        blob = Blob(ArtifactKind.MANIFEST, canonical_json_bytes(manifest.to_json()))
        # Whoever spawns may change what it gave, before the child is driven.
        params = msgspec.json.decode(blob.data)["input_params"]
        manifest = msgspec.structs.replace(manifest, input_params=params)
        initial = Snapshot.of_values(given)
    except (CanonicalJsonError, ContextSerializationError) as error:
        if error.code == "secrets_detected":
            raise IoError(error.info) from None
        raise _invalid(error.info.message) from None
    return PlannedChild(parent.child(key), manifest, blob, initial, wire.close_policy)


def await_request(request: Json) -> AwaitRequest:
    """``request`` as it is meant; ``IoError`` (``child_run_request_invalid``)."""
    try:
        return shaped(request, AwaitRequest)
    except (InvalidShapeError, InvalidIdError) as error:
        raise _invalid(error.info.message) from None


def spawn_answer(parent: RunId, child: PlannedChild) -> dict[str, Json]:
    """What the parent is told: ``{"parent_run_id", "child_run_id", "child_manifest_id", …}``."""
    return {
        "parent_run_id": parent,
        "child_run_id": child.run_id,
        "child_manifest_id": child.manifest_blob.id,
        "child_initial_snapshot_id": child.initial.id,
    }


def await_answer(run_id: RunId, end: RunCompleted, snapshot: Json, error: Json) -> dict[str, Json]:
    """How a child ended: ``{"child_run_id", "status", "final_snapshot_id", "final_snapshot"}``.

    One that has not completed adds ``"error": {"code", "state_id"}``.
    """
    answer: dict[str, Json] = {
        "child_run_id": run_id,
        "status": end.status.value,
        "final_snapshot_id": end.final_snapshot_id,
        "final_snapshot": snapshot,
    }
    return answer if error is None else answer | {"error": error}


def child_run_spawned(parent: RunId, child: PlannedChild) -> DomainEvent:
    """The link from a parent to its child."""
    return child_run_linked(parent, Child(child.run_id, child.manifest_blob.id, child.close_policy))


def child_run_linked(parent: RunId, child: Child) -> DomainEvent:
    """The link from a run to a child of its own, or of the run that it continues."""
    payload: dict[str, Json] = {
        "parent_run_id": parent,
        "child_run_id": child.run_id,
        "child_manifest_id": child.manifest_id,
    }
    if child.close_policy is not ClosePolicy.AWAIT:
        payload["close_policy"] = child.close_policy.value
    return DomainEvent(CHILD_RUN_SPAWNED, payload)


def child_run_completed(run_id: RunId, end: RunCompleted) -> DomainEvent:
    """That a parent has taken note of its child's end."""
    return DomainEvent(
        CHILD_RUN_COMPLETED,
        {"child_run_id": run_id, "status": end.status.value, "final_snapshot_id": end.final_snapshot_id},
    )


class _Spawned(msgspec.Struct, frozen=True):
    child_run_id: RunId
    child_manifest_id: ArtifactId
    close_policy: ClosePolicy = ClosePolicy.AWAIT


class _Completed(msgspec.Struct, frozen=True):
    child_run_id: RunId


def spawned(event: DomainEvent, seq: int) -> Child:
    """The child of a ``child_run_spawned`` event; ``CorruptionError`` (``child_run_link_malformed``)."""
    try:
        link = shaped(event.payload, _Spawned)
    except (InvalidShapeError, InvalidIdError):
        raise _malformed(seq) from None
    return Child(link.child_run_id, link.child_manifest_id, link.close_policy, spawned_seq=seq)


def completed(event: DomainEvent, seq: int) -> RunId:
    """The child of a ``child_run_completed`` event; raises as :func:`spawned`."""
    try:
        return shaped(event.payload, _Completed).child_run_id
    except (InvalidShapeError, InvalidIdError):
        raise _malformed(seq) from None


def _invalid(problem: str) -> IoError:
    return IoError.of(
        "child_run_request_invalid",
        f"the request about a child run cannot be understood: {problem}",
        category=ErrorCategory.PARSING_INPUT,
    )


def _malformed(seq: int) -> CorruptionError:
    return CorruptionError.of(
        "child_run_link_malformed", "the link to a child run cannot be read", details={"seq": seq}
    )
