"""What a state's handler sees of the machine: its context, its IO, and a recorder for domain events."""

from __future__ import annotations

import enum
from typing import Any, Protocol, Self

import msgspec

from perdure.errors import Json, shaped
from perdure.ids import ArtifactId
from perdure.model.events import ArtifactKind, DomainEvent
from perdure.model.meta import StateMeta


class IoCall(msgspec.Struct, frozen=True):
    """A question to the outside world.

    With a ``fact_key`` the answer is recorded once and answers every later attempt, resume and replay;
    without one the call goes out every time and is not recorded. ``redact`` asks that secrets in the
    answer become ``[redacted:<detector>]`` before it is recorded, instead of the answer being refused.
    """

    namespace: str
    request: Any
    fact_key: str | None = None
    redact: bool = False

    def to_json(self) -> Json:
        """``{"namespace", "request", "fact_key"}``, and ``"redact"`` when it is set."""
        data = {"namespace": self.namespace, "request": self.request, "fact_key": self.fact_key}
        return {**data, "redact": True} if self.redact else data

    @classmethod
    def from_json(cls, data: Json) -> Self:
        """The call of its wire form; ``InvalidShapeError`` for anything else."""
        return shaped(data, cls)


class IoResult(msgspec.Struct, frozen=True):
    """An answer. ``recorded_payload_id`` names its artifact, or is None when nothing was recorded."""

    response: Any
    recorded_payload_id: ArtifactId | None = None

    def to_json(self) -> Json:
        """``{"response", "recorded_payload_id"}``."""
        return {"response": self.response, "recorded_payload_id": self.recorded_payload_id}

    @classmethod
    def from_json(cls, data: Json) -> Self:
        """The answer of its wire form; ``InvalidShapeError`` for anything else."""
        return shaped(data, cls)


class Context(Protocol):
    """A run's working data: JSON values by key."""

    def read(self, key: str) -> Json:
        """A fresh copy of the value of ``key``, or None."""

    def write(self, key: str, value: Json) -> None:
        """Set ``key``; later changes to ``value`` itself change nothing."""

    def delete(self, key: str) -> None:
        """Remove ``key``; nothing happens if it is not there."""

    def dump(self) -> dict[str, Json]:
        """A fresh copy of all keys and values."""


class IoProvider(Protocol):
    """A handler's only way to the outside world."""

    async def call(self, call: IoCall) -> IoResult:
        """Ask, or be answered by the recorded fact. Raises ``IoError``."""

    async def record_value(self, key: str, value: Json) -> ArtifactId:
        """Bind ``value`` to ``key``; the same value again is fine, another is ``fact_payload_conflict``."""

    async def get_recorded_fact(self, key: str) -> ArtifactId | None:
        """The payload's id of the fact bound to ``key``, if there is one."""

    async def now_millis(self) -> int:
        """Milliseconds since 1970-01-01 UTC, as a fact."""

    async def random_bytes(self, count: int) -> bytes:
        """``count`` random bytes, as a fact."""

    async def uuid4(self) -> str:
        """A random UUID, as a fact."""

    async def read_artifact(self, artifact_id: ArtifactId) -> bytes:
        """The bytes of an artifact that an answer, the context or the input names."""


class Recorder(Protocol):
    """Takes domain events and outputs. They become durable when the attempt ends, however it ends."""

    async def emit(self, event: DomainEvent) -> None:
        """Keep ``event``. Reserved names are refused (``event_name_reserved``)."""

    async def artifact(self, kind: ArtifactKind, data: bytes, meta: Json = None) -> ArtifactId:
        """Keep ``data`` as an artifact, announced by an ``artifact_written`` event with ``meta``."""


class SnapshotPolicy(enum.Enum):
    """When the context is kept: when the attempt succeeds."""

    ON_SUCCESS = "OnSuccess"


class StateOutcome(msgspec.Struct, frozen=True):
    """What a handler returns; None means the same as ``StateOutcome()``."""

    snapshot: SnapshotPolicy = SnapshotPolicy.ON_SUCCESS


class State(Protocol):
    """One step of a plan: any object with these two methods."""

    def meta(self) -> StateMeta:
        """What the planner and the engine need to know before the step runs."""

    async def handle(self, ctx: Context, io: IoProvider, rec: Recorder) -> StateOutcome | None:
        """Do the step. Raising fails the attempt."""
