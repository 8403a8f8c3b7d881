"""What a state's handler sees of the machine: its context, its IO, and a recorder for domain events."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any, Protocol, Self

import msgspec

from perdure.errors import Json, shaped
from perdure.ids import ArtifactId
from perdure.model.events import ArtifactKind, DomainEvent
from perdure.model.meta import SideEffectKind, StateMeta


class IoCall(msgspec.Struct, frozen=True):
    """A question to the outside world.

    With a ``fact_key`` the answer is recorded once and answers every later attempt, resume and replay;
    without one the call goes out every time and is not recorded. ``redact`` asks that secrets in the
    answer become ``[redacted:<detector>]`` before it is recorded, instead of the answer being refused.

    ``effect`` says what the call does to the outside world, where that is not what its state declares.
    An effect is made once, under an ``idempotency_key``: ``<run>:<state>:<number>`` unless it is given.
    """

    namespace: str
    request: Any
    fact_key: str | None = None
    redact: bool = False
    effect: SideEffectKind | None = None
    idempotency_key: str | None = None

    def to_json(self) -> Json:
        """``{"namespace", "request", "fact_key"}``, and what else is set."""
        data = {"namespace": self.namespace, "request": self.request, "fact_key": self.fact_key}
        if self.redact:
            data["redact"] = True
        if self.effect is not None:
            data["effect"] = self.effect.value
        if self.idempotency_key is not None:
            data["idempotency_key"] = self.idempotency_key
        return data

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


class Signal(msgspec.Struct, frozen=True):
    """What somebody told a run: ``value`` is JSON data; ``by`` says who, ``sent_millis`` when."""

    name: str
    value: Any
    by: str
    id: str
    sent_millis: int


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

    async def sleep(self, duration: timedelta, name: str | None = None) -> None:
        """Wait, durably: a crash neither shortens nor restarts it. ``IoError`` (``wait_invalid``)."""

    async def sleep_until(self, moment: datetime | int, name: str | None = None) -> None:
        """Wait for a moment: with a time zone, or in milliseconds since 1970."""

    async def wait_signal(
        self, signal: str, *, timeout: timedelta | None = None, name: str | None = None
    ) -> Signal | None:
        """The next signal of this name that nobody has taken, or None once ``timeout`` is over.

        A signal that came earlier is there at once. Each is taken once, in the order of arrival.
        """

    async def wait_any(
        self, *signals: str, timeout: timedelta | None = None, name: str | None = None
    ) -> Signal | None:
        """The first signal that arrived of any of these names, or None once ``timeout`` is over."""

    async def patched(self, name: str) -> bool:
        """Whether the state goes the new way where its code was changed, as a fact of the state.

        False for a state that has recorded something beyond this point, before the change; True else. It is
        the same for ever: through retries, waits and replays. ``IoError`` (``patch_name_invalid``).
        """

    async def heartbeat(self, progress: Json = None) -> None:
        """Give a sign of life, which states with a ``heartbeat_timeout`` must.

        ``progress`` is published under that name, once a second at most.
        """


class Recorder(Protocol):
    """Takes domain events and outputs. They become durable when the attempt ends, however it ends."""

    async def emit(self, event: DomainEvent) -> None:
        """Keep ``event``. Reserved names are refused (``event_name_reserved``)."""

    async def artifact(self, kind: ArtifactKind, data: bytes, meta: Json = None) -> ArtifactId:
        """Keep ``data`` as an artifact, announced by an ``artifact_written`` event with ``meta``."""

    async def publish(self, name: str, value: Json) -> None:
        """Let outsiders read ``value`` under ``name``, from now on until another takes its place."""


class SnapshotPolicy(enum.Enum):
    """When the context is kept: when the attempt succeeds."""

    ON_SUCCESS = "OnSuccess"


class ContinueAsNew(msgspec.Struct, frozen=True):
    """How a run goes on as a new one: from ``context``, and as it was started.

    ``input``, if it is given, takes the place of ``input`` in the manifest's ``input_params``.
    """

    context: Mapping[str, Any] = {}
    input: Any = msgspec.UNSET


class StateOutcome(msgspec.Struct, frozen=True):
    """What a handler returns; None means the same as ``StateOutcome()``.

    With a ``continuation`` the run ends when the state has completed, and goes on as a new one.
    """

    snapshot: SnapshotPolicy = SnapshotPolicy.ON_SUCCESS
    continuation: ContinueAsNew | None = None


class State(Protocol):
    """One step of a plan: any object with these two methods."""

    def meta(self) -> StateMeta:
        """What the planner and the engine need to know before the step runs."""

    async def handle(self, ctx: Context, io: IoProvider, rec: Recorder) -> StateOutcome | None:
        """Do the step. Raising fails the attempt."""
