"""Facts: what was learned from the outside world, bound once to a key in a run."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from perdure.canonical import artifact_id_for_json
from perdure.errors import CorruptionError, IoError, Json
from perdure.ids import ArtifactId, FactKey, InvalidIdError, RunId
from perdure.model.events import FACT_RECORDED, DomainEvent
from perdure.secrets import redact, secret_in_bytes

MAP_PREFIX = "map:"
"""What the keys of the facts begin with that are items of maps."""

_ATTEMPT_KEY = re.compile(
    r"mfm:(?P<kind>[a-z0-9_]+)\|run:(?P<run>[^|]+)\|state:(?P<state>[^|]+)"
    r"\|attempt:(?P<attempt>[0-9]+)\|ord:(?P<ordinal>[0-9]+)"
)

PATCH_PREFIX = "patch:"
_OF_STATES = frozenset({"wait", "map", "patch"})
"""The words before the colon in keys that go on with a state's name and a bar."""


class FactBinding(NamedTuple):
    """What a key is bound to: the answer's artifact and, for calls, the id of the request."""

    payload_id: ArtifactId
    request_id: str | None


Facts = Mapping[str, FactBinding]


def fact_event(
    key: str, payload_id: ArtifactId, request_id: str | None = None, meta: Mapping[str, str] | None = None
) -> DomainEvent:
    """The durable event that binds ``key``."""
    told: dict[str, Json] = {} if request_id is None else {"request_id": request_id}
    return DomainEvent(
        FACT_RECORDED, {"key": str(key), "payload_id": payload_id, "meta": {**told, **(meta or {})}}
    )


def fact_of(event: DomainEvent, seq: int) -> tuple[FactKey, FactBinding]:
    """The key and binding of a ``fact_recorded`` event.

    Raises :class:`CorruptionError` (``fact_recorded_malformed``, details: seq).
    """
    payload = event.payload
    try:
        meta = payload.get("meta")
        request_id = meta.get("request_id") if isinstance(meta, dict) else None
        key, payload_id = FactKey(payload["key"]), ArtifactId(payload["payload_id"])
    except (AttributeError, KeyError, InvalidIdError):
        raise CorruptionError.of(
            "fact_recorded_malformed", "a recorded fact cannot be read", details={"seq": seq}
        ) from None
    return key, FactBinding(payload_id, request_id if isinstance(request_id, str) else None)


def request_id_of(namespace: str, request: Json) -> ArtifactId:
    """What identifies a question: raises ``CanonicalJsonError`` for one that may not be written."""
    return artifact_id_for_json({"namespace": namespace, "request": request})


def attempt_key(kind: str, run_id: str, state_id: str, attempt: int, ordinal: int) -> FactKey:
    """The key of the attempt's ``ordinal``-th reading of time or randomness."""
    return FactKey.trusted(f"mfm:{kind}|run:{run_id}|state:{state_id}|attempt:{attempt}|ord:{ordinal}")


def is_attempt_key(key: str) -> bool:
    """Whether ``key`` belongs to one attempt: such a fact is no progress of the run."""
    return _ATTEMPT_KEY.fullmatch(key) is not None


def is_key_of_attempt(key: str, attempt: int) -> bool:
    """Whether ``key`` is that of a reading in an attempt of this number."""
    match = _ATTEMPT_KEY.fullmatch(key)
    return match is not None and int(match["attempt"]) == attempt


def state_of_fact(key: str) -> str | None:
    """The state whose own fact ``key`` is, by the key alone; None for one that all states share."""
    match = _ATTEMPT_KEY.fullmatch(key)
    if match is not None:
        return _state_of_place(match["state"])
    kind, _, rest = key.partition(":")
    return _state_of_place(rest.partition("|")[0]) if kind in _OF_STATES else None


def _state_of_place(place: str) -> str:
    """The state that does something itself, or in an item of a map: ``<state>#<index>``."""
    return place.partition("#")[0]


class RecordedAttempts(NamedTuple):
    """Which run's readings of time and randomness facts hold, and the last attempt of each state."""

    run_id: RunId
    last_attempts: Mapping[str, int]


def recorded_attempts(keys: Iterable[str], run_id: RunId) -> RecordedAttempts:
    """What the attempt keys among ``keys`` say; ``run_id`` where they name no run, or several."""
    runs: set[str] = set()
    attempts: dict[str, int] = {}
    for match in filter(None, map(_ATTEMPT_KEY.fullmatch, keys)):
        runs.add(match["run"])
        state_id = _state_of_place(match["state"])
        attempts[state_id] = max(attempts.get(state_id, 0), int(match["attempt"]))
    recorded = RunId(runs.pop()) if len(runs) == 1 else run_id
    return RecordedAttempts(recorded, attempts)


def recordable(data: bytes, redacted: bool) -> bytes:
    """Bytes that may be kept, without the secrets in them if they are to be ``redacted``.

    Raises ``IoError`` (``secrets_detected``).
    """
    if redacted:
        text, findings = redact(data.decode("utf-8", "surrogateescape"))
        if findings:
            data = str(text).encode("utf-8", "surrogateescape")
    detector = secret_in_bytes(data)
    if detector is not None:
        raise IoError.of(
            "secrets_detected",
            "the answer holds what looks like a secret, which is never written",
            details={"detector": detector},
        )
    return data
