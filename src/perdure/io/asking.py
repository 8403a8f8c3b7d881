"""What may be asked: keys, requests, answers, names and times, checked before anything is done."""

from __future__ import annotations

from datetime import datetime, timedelta

from perdure.canonical import CanonicalJsonError, canonical_json_bytes, encode_string
from perdure.errors import ErrorCategory, IoError, Json
from perdure.ids import FactKey
from perdure.io.effects import EFFECT_PREFIX
from perdure.io.facts import MAP_PREFIX, PATCH_PREFIX, FactBinding, request_id_of
from perdure.io.waits import CHILD, EFFECT_IN_DOUBT, SIGNAL_PREFIX, WAIT_PREFIX
from perdure.model.handler import IoCall
from perdure.secrets.prefilter import surely_clean
from perdure.secrets.resolved import RESOLVED

NAME_CHARACTERS_MAX = 200
_RESERVED_PREFIXES = (WAIT_PREFIX, SIGNAL_PREFIX, EFFECT_PREFIX, PATCH_PREFIX, MAP_PREFIX)
_RESERVED_NAMES = (f"{CHILD}:", f"{EFFECT_IN_DOUBT}:")
_MILLISECOND = timedelta(milliseconds=1)
_EPOCH = datetime.fromisoformat("1970-01-01T00:00:00+00:00")
MOMENT_MILLIS_MAX = (datetime.max.replace(tzinfo=_EPOCH.tzinfo) - _EPOCH) // _MILLISECOND


def checked_fact_key(key: str) -> FactKey:
    """``key`` as a fact key, free of secrets: it stands in events."""
    checked = FactKey(key)
    data = encode_string(checked)
    if surely_clean(data) and not RESOLVED.occurs_in(data):
        return checked
    try:
        canonical_json_bytes(checked)
    except CanonicalJsonError:
        raise IoError.of("secrets_detected", "the fact key holds what looks like a secret") from None
    return checked


def own_fact_key(key: str, effect_fact_key: str | None = None) -> FactKey:
    """A handler's own fact key; ``IoError`` (``fact_key_reserved``) for one that the engine gives meaning to.

    A call that may be an effect may name the key that the effect's answer has anyway: ``effect_fact_key``.
    """
    checked = checked_fact_key(key)
    if checked.startswith(_RESERVED_PREFIXES) and checked != effect_fact_key:
        raise IoError.of(
            "fact_key_reserved",
            "the engine keeps fact keys that begin like this one for itself",
            category=ErrorCategory.PARSING_INPUT,
            details={"prefix": checked.partition(":")[0] + ":"},
        )
    return checked


def checked_request_id(call: IoCall) -> str:
    """The id of the call's request; ``IoError`` for a request that may not be written."""
    try:
        return request_id_of(call.namespace, call.request)
    except CanonicalJsonError as error:
        if error.code == "secrets_detected":
            raise IoError(error.info) from None
        raise IoError.of(
            error.code,
            f"the request cannot be recorded: {error.info.message}",
            category=ErrorCategory.PARSING_INPUT,
            details=error.info.details,
        ) from None


def answer_bytes(answer: Json) -> bytes:
    """An answer's canonical bytes; ``IoError`` (``fact_payload_not_canonical``, ``secrets_detected``)."""
    try:
        return canonical_json_bytes(answer)
    except CanonicalJsonError as error:
        if error.code == "secrets_detected":
            raise IoError(error.info) from None
        raise IoError.of(
            "fact_payload_not_canonical",
            f"the answer cannot be recorded: {error.info.message}",
            category=ErrorCategory.PARSING_INPUT,
            details={"reason": error.code, "pointer": error.pointer},
        ) from None


def check_request(key: FactKey, bound: FactBinding, request_id: str | None) -> None:
    """Refuse a key that was bound by another question (``fact_request_mismatch``)."""
    if None not in (bound.request_id, request_id) and bound.request_id != request_id:
        raise IoError.of(
            "fact_request_mismatch",
            "the fact key is bound to the answer of another request",
            category=ErrorCategory.PARSING_INPUT,
            details={"key": str(key)},
        )


def fact_payload_conflict(key: FactKey) -> IoError:
    """The refusal of a second value for a key."""
    return IoError.of(
        "fact_payload_conflict",
        "the fact key is bound to another value",
        category=ErrorCategory.STORAGE,
        details={"key": str(key)},
    )


def checked_duration(duration: timedelta) -> int:
    """A duration in milliseconds, rounded up; ``IoError`` (``wait_invalid``) if it is negative or none."""
    given: object = duration
    if not isinstance(given, timedelta):
        raise _wait_invalid(f"a duration is a timedelta, not {type(given).__name__}")
    if duration < timedelta():
        raise _wait_invalid("the duration is negative")
    millis, rest = divmod(duration, _MILLISECOND)
    millis += bool(rest)
    if millis > MOMENT_MILLIS_MAX // 2:
        raise _wait_invalid("the duration is longer than calendars reach")
    return millis


def checked_moment(moment: datetime | int) -> int:
    """A moment in milliseconds since 1970; ``IoError`` (``wait_invalid``) for one without a time zone."""
    if isinstance(moment, datetime):
        if moment.utcoffset() is None:
            raise _wait_invalid("the moment has no time zone; give it one, such as datetime.UTC")
        return -((_EPOCH - moment) // _MILLISECOND)
    if type(moment) is not int or not 0 <= moment <= MOMENT_MILLIS_MAX:
        raise _wait_invalid("a moment is a datetime, or milliseconds since 1970")
    return moment


def checked_name(name: str | None) -> str | None:
    """A wait's name; ``IoError`` (``wait_invalid``).

    It must be printable, and not be taken for a number or a name that the engine gives.
    """
    if name is None:
        return None
    if not _is_name(name) or not name[0].isalpha():
        raise _wait_invalid("a wait's name is a short printable text that begins with a letter")
    if name.startswith(_RESERVED_NAMES):
        raise _wait_invalid("the engine keeps names that begin like this one for itself")
    return checked_fact_key(name)


def checked_signals(names: tuple[str, ...]) -> tuple[str, ...]:
    """The names of signals; ``IoError`` (``wait_invalid``) for none, or a bad one."""
    if not names or not all(map(_is_name, names)):
        raise _wait_invalid("signals are named by short printable texts")
    return tuple(checked_fact_key(name) for name in dict.fromkeys(names))


def checked_patch(name: str) -> str:
    """A patch's name, free of secrets; ``IoError`` (``patch_name_invalid``)."""
    if not _is_name(name):
        raise IoError.of(
            "patch_name_invalid",
            "a patch is named by a short printable text",
            category=ErrorCategory.PARSING_INPUT,
        )
    return checked_fact_key(name)


def _is_name(name: object) -> bool:
    return isinstance(name, str) and 0 < len(name) <= NAME_CHARACTERS_MAX and name.isprintable()


def _wait_invalid(problem: str) -> IoError:
    return IoError.of(
        "wait_invalid", f"this cannot be waited for: {problem}", category=ErrorCategory.PARSING_INPUT
    )
