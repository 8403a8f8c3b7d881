"""Perdure: durable, replayable, provable runs.

Names are imported on first use, so that ``import perdure`` costs next to nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from perdure.canonical import (
        CanonicalJsonError,
        artifact_id_for_bytes,
        artifact_id_for_json,
        canonical_json_bytes,
    )
    from perdure.engine.engine import Engine, PlanResolver, RunResult, StartRun
    from perdure.errors import (
        ConcurrencyError,
        ContextError,
        CorruptionError,
        ErrorCategory,
        ErrorInfo,
        InvalidPlanError,
        IoError,
        MissingFactError,
        MissingFactKeyError,
        NotFoundError,
        PerdureError,
        RateLimitedError,
        RunError,
        StateError,
        StorageError,
        TransportError,
    )
    from perdure.failpoints import Failpoints
    from perdure.ids import ArtifactId, ContextKey, FactKey, InvalidIdError, OpId, OpPath, RunId, StateId
    from perdure.io.port import Transport, TransportEnv, TransportFactory
    from perdure.io.router import TransportRouter
    from perdure.model.config import (
        BuildProvenance,
        ContextCheckpointing,
        EventProfile,
        ExponentialBackoff,
        FanOutJoin,
        FixedBackoff,
        IoMode,
        RetryPolicy,
        RunConfig,
        RunManifest,
        Sequential,
    )
    from perdure.model.context import JsonContext
    from perdure.model.events import (
        ArtifactKind,
        DomainEvent,
        EventEnvelope,
        RunCompleted,
        RunPhase,
        RunStarted,
        RunStatus,
        StateCompleted,
        StateEntered,
        StateErrorInfo,
        StateFailed,
    )
    from perdure.model.handler import (
        Context,
        IoCall,
        IoProvider,
        IoResult,
        Recorder,
        SnapshotPolicy,
        State,
        StateOutcome,
    )
    from perdure.model.meta import SideEffectKind, StateMeta
    from perdure.model.plan import DependencyEdge, ExecutionPlan, StateGraph, StateNode
    from perdure.stores.bundle import Stores
    from perdure.stores.ports import ArtifactStore, EventStore

_MODULES = {
    "canonical": "CanonicalJsonError artifact_id_for_bytes artifact_id_for_json canonical_json_bytes",
    "engine.engine": "Engine PlanResolver RunResult StartRun",
    "errors": (
        "ConcurrencyError ContextError CorruptionError ErrorCategory ErrorInfo InvalidPlanError IoError "
        "MissingFactError MissingFactKeyError NotFoundError PerdureError RateLimitedError RunError "
        "StateError StorageError TransportError"
    ),
    "failpoints": "Failpoints",
    "ids": "ArtifactId ContextKey FactKey InvalidIdError OpId OpPath RunId StateId",
    "io.port": "Transport TransportEnv TransportFactory",
    "io.router": "TransportRouter",
    "model.config": (
        "BuildProvenance ContextCheckpointing EventProfile ExponentialBackoff FanOutJoin FixedBackoff "
        "IoMode RetryPolicy RunConfig RunManifest Sequential"
    ),
    "model.context": "JsonContext",
    "model.events": (
        "ArtifactKind DomainEvent EventEnvelope RunCompleted RunPhase RunStarted RunStatus "
        "StateCompleted StateEntered StateErrorInfo StateFailed"
    ),
    "model.handler": "Context IoCall IoProvider IoResult Recorder SnapshotPolicy State StateOutcome",
    "model.meta": "SideEffectKind StateMeta",
    "model.plan": "DependencyEdge ExecutionPlan StateGraph StateNode",
    "stores.bundle": "Stores",
    "stores.ports": "ArtifactStore EventStore",
}
_HOME = {name: module for module, names in _MODULES.items() for name in names.split()}

__version__ = "0.1.0"
__all__ = [  # noqa: PLE0604, RUF022 — made from the table above, which a test compares with the imports
    *_HOME,
]


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module 'perdure' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"perdure.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOME])
