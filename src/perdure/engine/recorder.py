"""What a handler has to say: domain events and output artifacts, kept when its attempt ends."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from perdure.canonical import CanonicalJsonError, canonical_json_bytes
from perdure.errors import ErrorCategory, Json, StateError
from perdure.ids import ArtifactId
from perdure.io.journal import Entry
from perdure.model.config import EventProfile
from perdure.model.events import (
    ARTIFACT_WRITTEN,
    ENGINE_EVENT_NAMES,
    VALUE_PUBLISHED,
    ArtifactKind,
    DomainEvent,
    Event,
)
from perdure.secrets import secret_in_bytes
from perdure.stores.ports import Blob


class AttemptRecorder:
    """Gathers one attempt's domain events and artifacts, in order."""

    def __init__(
        self,
        check: Callable[[], None],
        profile: EventProfile,
        append: Callable[[Callable[[], Entry]], Awaitable[None]],
    ) -> None:
        self.events: list[Event] = []
        self.blobs: list[Blob] = []
        self._check = check
        self._append = append
        self._keeps_domain_events = profile != EventProfile.MINIMAL

    async def emit(self, event: DomainEvent) -> None:
        """Keep ``event``; ``StateError`` for a reserved name, or for what may not be written."""
        self._check()
        if event.name in ENGINE_EVENT_NAMES:
            raise StateError.of(
                "event_name_reserved",
                f"{event.name} is an event of the engine's own",
                category=ErrorCategory.PARSING_INPUT,
            )
        self._keep(event)

    async def artifact(self, kind: ArtifactKind, data: bytes, meta: Json = None) -> ArtifactId:
        """Keep ``data`` as an artifact of the run, announced by an ``artifact_written`` event.

        ``StateError`` (``secrets_detected``) if the bytes, read as text, hold a secret.
        """
        self._check()
        detector = secret_in_bytes(data)
        if detector is not None:
            raise StateError.of(
                "secrets_detected",
                "the artifact holds what looks like a secret, which is never written",
                details={"detector": detector},
            )
        blob = Blob(kind, data)
        self._keep(
            DomainEvent(
                ARTIFACT_WRITTEN, {"artifact_id": blob.id, "kind": kind.to_json(), "meta": meta or {}}
            )
        )
        self.blobs.append(blob)
        return blob.id

    async def publish(self, name: str, value: Json) -> None:
        """Write ``value`` under ``name`` at once; ``StateError`` for what may not be written."""
        self._check()
        event = self._checked(DomainEvent(VALUE_PUBLISHED, {"name": name, "value": value}))

        def make() -> Entry:
            self._check()  # the attempt may have ended while others were writing
            return Entry([event])

        if self._keeps_domain_events:
            await self._append(make)

    def _keep(self, event: DomainEvent) -> None:
        checked = self._checked(event)
        if self._keeps_domain_events:
            self.events.append(checked)

    def _checked(self, event: DomainEvent) -> DomainEvent:
        try:
            canonical_json_bytes({"name": event.name, "payload": event.payload})
        except CanonicalJsonError as error:
            code = error.code if error.code == "secrets_detected" else "event_not_canonical"
            raise StateError.of(
                code,
                f"the event cannot be written: {error.info.message}",
                category=ErrorCategory.PARSING_INPUT,
                details={"reason": error.code, "pointer": error.pointer},
            ) from None
        return _frozen(event)


def _frozen(event: DomainEvent) -> DomainEvent:
    import msgspec

    payload = msgspec.json.decode(msgspec.json.encode(event.payload, enc_hook=str.__str__))
    return DomainEvent(str(event.name), payload, event.payload_ref)
