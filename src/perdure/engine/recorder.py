"""What a handler has to say: domain events and output artifacts, kept when its attempt ends."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

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
    """Gathers one attempt's domain events and artifacts, in order.

    ``published`` gives the payloads of what the handler published in this attempt when it ran before.
    """

    __slots__ = (
        "_append",
        "_check",
        "_profile",
        "_published",
        "_published_before",
        "blobs",
        "events",
    )

    def __init__(
        self,
        check: Callable[[], None],
        profile: EventProfile,
        append: Callable[[Callable[[], Entry]], Awaitable[None]],
        published: Callable[[], Awaitable[Sequence[Json]]] | None = None,
    ) -> None:
        self.events: list[Event] = []
        self.blobs: list[Blob] = []
        self._check = check
        self._append = append
        self._published = published
        self._published_before: list[bytes] | None = None if published else []
        self._profile = profile

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
        """Write ``value`` under ``name`` at once; ``StateError`` for what may not be written.

        A handler that begins again after a wait says the same again: that is not written twice.
        """
        self._check()
        event = self._checked(DomainEvent(VALUE_PUBLISHED, {"name": name, "value": value}))
        if self._profile == EventProfile.MINIMAL or await self._is_repeated(event.payload):
            return

        def make() -> Entry:
            self._check()  # the attempt may have ended while others were writing
            return Entry([event])

        await self._append(make)

    async def _is_repeated(self, payload: Json) -> bool:
        """Whether the handler published this when it ran before, after what it has repeated so far."""
        if self._published_before is None and self._published is not None:
            read = [_compared(each) for each in await self._published()]
            if self._published_before is None:  # several may have asked at once
                self._published_before = read
        before, compared = self._published_before or [], _compared(payload)
        if compared not in before:
            return False
        del before[: before.index(compared) + 1]
        return True

    def _keep(self, event: DomainEvent) -> None:
        checked = self._checked(event)
        if self._profile != EventProfile.MINIMAL:
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


def _compared(payload: Json) -> bytes:
    """Bytes, since True and 1 are equal as values."""
    import msgspec

    return msgspec.json.encode(payload, order="sorted")


def _frozen(event: DomainEvent) -> DomainEvent:
    import msgspec

    payload = msgspec.json.decode(msgspec.json.encode(event.payload, enc_hook=str.__str__))
    return DomainEvent(str(event.name), payload, event.payload_ref)
