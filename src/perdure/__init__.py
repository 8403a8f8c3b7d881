"""Perdure: durable, replayable, provable runs.

Names are imported on first use, so that ``import perdure`` costs next to nothing; ``__init__.pyi`` tells
type checkers what they are.
"""

from __future__ import annotations

import importlib

_MODULES = {
    "canonical": "CanonicalJsonError artifact_id_for_bytes artifact_id_for_json canonical_json_bytes",
    "engine.engine": "Engine",
    "engine.forking": "ForkRun",
    "engine.starting": "StartRun",
    "engine.recovery": "PlanResolver",
    "engine.results": "RunResult",
    "engine.dispatch": "Dispatcher LocalDispatcher",
    "errors": (
        "ConcurrencyError ContextError CorruptionError EffectNotMadeError ErrorCategory ErrorInfo "
        "InvalidPlanError IoError MissingFactError MissingFactKeyError NotAppliedError NotFoundError "
        "PerdureError RateLimitedError RunError StateError StorageError TransportError"
    ),
    "failpoints": "Failpoints",
    "ids": "ArtifactId ContextKey FactKey InvalidIdError OpId OpPath RunId StateId",
    "io.effects": "EffectTraits",
    "io.functions": "transport",
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
    "model.forks": "ForkedFrom",
    "model.handler": (
        "Context ContinueAsNew IoCall IoProvider IoResult Recorder Signal SnapshotPolicy State StateOutcome"
    ),
    "model.meta": "SideEffectKind StateMeta",
    "model.schedule": "Overlap Schedule",
    "model.plan": "DependencyEdge ExecutionPlan StateGraph StateNode",
    "sdk.app": "App",
    "sdk.blocking": "BlockingClient BlockingRun",
    "sdk.blocking_schedules": "BlockingSchedules",
    "sdk.blocking_io": "BlockingIo BlockingRecorder",
    "sdk.children": "ChildEnd ChildRun ChildRunError gather_children spawn",
    "sdk.client": "Client",
    "sdk.continuing": "continue_as_new",
    "sdk.keeping": "PruneReport",
    "sdk.mapping": "ItemError MapError MapOver map_over",
    "sdk.opening": "open",
    "sdk.ops": "Op op",
    "sdk.pipelines": "pipeline step",
    "sdk.reading": "RunSummary",
    "sdk.retention": "Retention",
    "sdk.runs": "Run",
    "sdk.schedules": "Schedules",
    "sdk.signals": "Received SignalDefinition",
    "sdk.states": "state",
    "secrets.references": "EnvironmentSecrets FileSecrets SecretSource secret",
    "stores.bundle": "Stores",
    "stores.ports": "ArtifactStore EventStore",
    "wiring": "exec_transport files_transport http_transport",
}
_HOME = {name: module for module, names in _MODULES.items() for name in names.split()}

__version__ = "0.1.0"
# `open` is for `perdure.open`: `from perdure import *` must not hide the built-in one.
__all__ = [name for name in _HOME if name != "open"]


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module 'perdure' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"perdure.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOME])
