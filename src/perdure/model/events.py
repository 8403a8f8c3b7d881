"""What happened in a run: five kernel events, and domain events by name.

Domain events whose names are in :data:`ENGINE_EVENT_NAMES` belong to the engine: recovery reads them, and
every event profile keeps them.
"""

from __future__ import annotations

import enum
from typing import Annotated, Any, ClassVar, TypeVar

import msgspec

from perdure.errors import ErrorInfo, InvalidShapeError, Json, StateError, shaped
from perdure.ids import ArtifactId, OpId, RunId, StateId
from perdure.model.forks import ForkedFrom
from perdure.model.variants import OpenEnum, only_variant

FACT_RECORDED = "fact_recorded"
CHILD_RUN_SPAWNED = "child_run_spawned"
CHILD_RUN_COMPLETED = "child_run_completed"
RETRY_SCHEDULED = "retry_scheduled"
EFFECT_INTENDED = "effect_intended"
EFFECT_SETTLED = "effect_settled"
WAIT_STARTED = "wait_started"
RUN_CANCEL_REQUESTED = "run_cancel_requested"
RUN_PAUSED = "run_paused"
RUN_UNPAUSED = "run_unpaused"
RUN_FORKED = "run_forked"
RUN_CONTINUED = "run_continued"
VALUE_PUBLISHED = "value_published"
ARTIFACT_WRITTEN = "artifact_written"
OP_BOUNDARY = "op_boundary"

ENGINE_EVENT_NAMES = frozenset(
    {
        FACT_RECORDED,
        CHILD_RUN_SPAWNED,
        CHILD_RUN_COMPLETED,
        RETRY_SCHEDULED,
        EFFECT_INTENDED,
        EFFECT_SETTLED,
        WAIT_STARTED,
        RUN_CANCEL_REQUESTED,
        RUN_PAUSED,
        RUN_UNPAUSED,
        RUN_FORKED,
        RUN_CONTINUED,
    }
)

Ordinal = Annotated[int, msgspec.Meta(ge=0)]


class RunStatus(enum.Enum):
    """How a run ended; the values are the wire names."""

    COMPLETED = "Completed"
    FAILED = "Failed"
    CANCELLED = "Cancelled"

    def to_json(self) -> str:
        """The wire name."""
        return self.value

    @classmethod
    def from_json(cls, data: Json) -> RunStatus:
        """The status of a wire name; :class:`InvalidShapeError` for any other."""
        try:
            return cls(data)
        except ValueError:
            raise InvalidShapeError("RunStatus", "", "no such status") from None


class RunPhase(enum.Enum):
    """Where a run stands: running, or one of the three ends."""

    RUNNING = "Running"
    COMPLETED = "Completed"
    FAILED = "Failed"
    CANCELLED = "Cancelled"

    def to_json(self) -> str:
        """The wire name."""
        return self.value

    @classmethod
    def from_json(cls, data: Json) -> RunPhase:
        """The phase of a wire name; :class:`InvalidShapeError` for any other."""
        try:
            return cls(data)
        except ValueError:
            raise InvalidShapeError("RunPhase", "", "no such phase") from None


class StateErrorInfo(msgspec.Struct, frozen=True):
    """The value of a ``StateError`` in an event: the error, and the state it is about."""

    state_id: StateId | None
    info: ErrorInfo

    def to_json(self) -> Json:
        """``{"state_id", "info"}``."""
        return {"state_id": self.state_id, "info": self.info.to_json()}

    @classmethod
    def from_json(cls, data: Json) -> StateErrorInfo:
        """The value of its wire form; :class:`InvalidShapeError` for anything else."""
        return shaped(data, cls)


class ParentRun(msgspec.Struct, frozen=True, gc=False):
    """The run that spawned a child run, and the child's depth: that of a parent's child is 1."""

    run_id: RunId
    depth: Ordinal

    def to_json(self) -> Json:
        """``{"run_id", "depth"}``."""
        return {"run_id": self.run_id, "depth": self.depth}


class ContinuedRun(msgspec.Struct, frozen=True, gc=False):
    """The run that goes on as another, which is the ``leg``-th of a chain; the chain's first run is leg 1."""

    run_id: RunId
    first_run_id: RunId
    leg: Ordinal

    def to_json(self) -> Json:
        """``{"run_id", "first_run_id", "leg"}``."""
        return {"run_id": self.run_id, "first_run_id": self.first_run_id, "leg": self.leg}


class RunStarted(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """A run began, from a manifest and a first snapshot of its context.

    A child run has a ``parent``; a fork says where it was ``forked_from``; a run as which another one goes on
    ``continues`` that.
    """

    op_id: OpId
    manifest_id: ArtifactId
    initial_snapshot_id: ArtifactId
    parent: ParentRun | None = None
    forked_from: ForkedFrom | None = None
    continues: ContinuedRun | None = None

    def to_json(self) -> Json:
        """``{"Kernel": {"RunStarted": {…}}}``; the last three fields are left out where they are unset."""
        return event_to_json(self)

    @classmethod
    def from_json(cls, data: Json) -> RunStarted:
        """The event of its wire form; :class:`InvalidShapeError` for anything else."""
        return _event_of(cls, data)


class StateEntered(msgspec.Struct, frozen=True, gc=False):
    """An attempt at a state began; attempts of a state are numbered from 0."""

    state_id: StateId
    attempt: Ordinal
    base_snapshot_id: ArtifactId

    def to_json(self) -> Json:
        """``{"Kernel": {"StateEntered": {…}}}``."""
        return event_to_json(self)

    @classmethod
    def from_json(cls, data: Json) -> StateEntered:
        """The event of its wire form; :class:`InvalidShapeError` for anything else."""
        return _event_of(cls, data)


class StateCompleted(msgspec.Struct, frozen=True, gc=False):
    """The open attempt at a state succeeded; its snapshot is the run's checkpoint."""

    state_id: StateId
    context_snapshot_id: ArtifactId

    def to_json(self) -> Json:
        """``{"Kernel": {"StateCompleted": {…}}}``."""
        return event_to_json(self)

    @classmethod
    def from_json(cls, data: Json) -> StateCompleted:
        """The event of its wire form; :class:`InvalidShapeError` for anything else."""
        return _event_of(cls, data)


class StateFailed(msgspec.Struct, frozen=True):
    """The open attempt at a state failed. ``failure_snapshot_id`` is for a person to look at.

    ``error`` may be given as a :class:`StateError`; the event keeps its value.
    """

    state_id: StateId
    error: StateErrorInfo
    failure_snapshot_id: ArtifactId | None = None

    def __post_init__(self) -> None:
        if isinstance(self.error, StateError):
            named = self.error.state_id
            value = StateErrorInfo(None if named is None else StateId(named), self.error.info)
            msgspec.structs.force_setattr(self, "error", value)

    def to_json(self) -> Json:
        """``{"Kernel": {"StateFailed": {…}}}``."""
        return event_to_json(self)

    @classmethod
    def from_json(cls, data: Json) -> StateFailed:
        """The event of its wire form; :class:`InvalidShapeError` for anything else."""
        return _event_of(cls, data)


class RunCompleted(msgspec.Struct, frozen=True):
    """A run ended; nothing follows."""

    status: RunStatus
    final_snapshot_id: ArtifactId | None = None

    def to_json(self) -> Json:
        """``{"Kernel": {"RunCompleted": {…}}}``."""
        return event_to_json(self)

    @classmethod
    def from_json(cls, data: Json) -> RunCompleted:
        """The event of its wire form; :class:`InvalidShapeError` for anything else."""
        return _event_of(cls, data)


class DomainEvent(msgspec.Struct, frozen=True):
    """Something worth auditing, under a name; ``payload_ref`` is an artifact that holds more."""

    name: str
    payload: Any = None
    payload_ref: ArtifactId | None = None

    def to_json(self) -> Json:
        """``{"Domain": {"name", "payload", "payload_ref"}}``."""
        return event_to_json(self)

    @classmethod
    def from_json(cls, data: Json) -> DomainEvent:
        """The event of its wire form; :class:`InvalidShapeError` for anything else."""
        return _event_of(cls, data)


KernelEvent = RunStarted | StateEntered | StateCompleted | StateFailed | RunCompleted
Event = KernelEvent | DomainEvent
E = TypeVar("E", RunStarted, StateEntered, StateCompleted, StateFailed, RunCompleted, DomainEvent)

KERNEL_EVENTS: dict[str, type[KernelEvent]] = {
    kind.__name__: kind for kind in (RunStarted, StateEntered, StateCompleted, StateFailed, RunCompleted)
}


class EventEnvelope(msgspec.Struct, frozen=True, gc=False):
    """An event with its place in a stream. ``seq`` counts from 1 without gaps."""

    run_id: RunId
    seq: int
    ts_millis: int | None
    event: Event

    def to_json(self) -> Json:
        """``{"run_id", "seq", "ts_millis", "event"}``."""
        return {
            "run_id": self.run_id,
            "seq": self.seq,
            "ts_millis": self.ts_millis,
            "event": event_to_json(self.event),
        }

    @classmethod
    def from_json(cls, data: Json) -> EventEnvelope:
        """The envelope of its wire form; :class:`InvalidShapeError` for anything else."""
        wire = shaped(data, _EnvelopeWire)
        return cls(wire.run_id, wire.seq, wire.ts_millis, event_from_json(wire.event))


class ArtifactKind(OpenEnum, frozen=True):
    """What an artifact was written as."""

    members: ClassVar[tuple[str, ...]] = (
        "Manifest",
        "ContextSnapshot",
        "FactPayload",
        "SecretPayload",
        "Output",
    )
    open_variant: ClassVar[str] = "Other"

    MANIFEST: ClassVar[ArtifactKind]
    CONTEXT_SNAPSHOT: ClassVar[ArtifactKind]
    FACT_PAYLOAD: ClassVar[ArtifactKind]
    SECRET_PAYLOAD: ClassVar[ArtifactKind]
    OUTPUT: ClassVar[ArtifactKind]

    @classmethod
    def other(cls, name: str) -> ArtifactKind:
        """A kind of the user's own."""
        return cls("Other", name)


ArtifactKind.MANIFEST = ArtifactKind("Manifest")
ArtifactKind.CONTEXT_SNAPSHOT = ArtifactKind("ContextSnapshot")
ArtifactKind.FACT_PAYLOAD = ArtifactKind("FactPayload")
ArtifactKind.SECRET_PAYLOAD = ArtifactKind("SecretPayload")
ArtifactKind.OUTPUT = ArtifactKind("Output")


def is_engine_event(event: Event) -> bool:
    """Whether recovery needs ``event``: every kernel event, and domain events with a reserved name."""
    return type(event) is not DomainEvent or event.name in ENGINE_EVENT_NAMES


def event_to_json(event: Event) -> Json:
    """The wire form of an event, without its envelope."""
    body: Json
    match event:
        case RunStarted():
            body = {
                "op_id": event.op_id,
                "manifest_id": event.manifest_id,
                "initial_snapshot_id": event.initial_snapshot_id,
            }
            if event.parent is not None:
                body["parent"] = event.parent.to_json()
            if event.forked_from is not None:
                body["forked_from"] = event.forked_from.to_json()
            if event.continues is not None:
                body["continues"] = event.continues.to_json()
        case StateEntered():
            body = {
                "state_id": event.state_id,
                "attempt": event.attempt,
                "base_snapshot_id": event.base_snapshot_id,
            }
        case StateCompleted():
            body = {"state_id": event.state_id, "context_snapshot_id": event.context_snapshot_id}
        case StateFailed():
            body = {
                "state_id": event.state_id,
                "error": event.error.to_json(),
                "failure_snapshot_id": event.failure_snapshot_id,
            }
        case RunCompleted():
            body = {"status": event.status.value, "final_snapshot_id": event.final_snapshot_id}
        case DomainEvent():
            return {
                "Domain": {"name": event.name, "payload": event.payload, "payload_ref": event.payload_ref}
            }
    return {"Kernel": {type(event).__name__: body}}


def event_from_json(data: Json) -> Event:
    """The event of its wire form; :class:`InvalidShapeError` for anything else."""
    family, body = only_variant(data, "Event")
    if family == "Domain":
        return shaped(body, DomainEvent)
    if family == "Kernel":
        name, fields = only_variant(body, "KernelEvent")
        if name in KERNEL_EVENTS:
            return shaped(fields, KERNEL_EVENTS[name])
        raise InvalidShapeError("KernelEvent", "/Kernel", "no such kernel event")
    raise InvalidShapeError("Event", "", "expected Kernel or Domain")


def _event_of(kind: type[E], data: Json) -> E:
    event = event_from_json(data)
    if not isinstance(event, kind):
        raise InvalidShapeError(kind.__name__, "", f"a {type(event).__name__}")
    return event


class _EnvelopeWire(msgspec.Struct):
    run_id: RunId
    seq: int
    event: Any
    ts_millis: int | None = None
