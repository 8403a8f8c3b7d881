"""Canonical JSON (RFC 8785, without floats) and the ids made from it.

The rule is *exact or decline*: a fast path in C (``plain_json``) either returns exactly the canonical bytes
or declines, and a slow walk in Python alone decides which code and which JSON pointer a refusal carries.
"""

from __future__ import annotations

import enum
import functools
import hashlib
import json
import operator
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from perdure.errors import ErrorCategory, ErrorInfo, Json, PerdureError
from perdure.ids import ArtifactId
from perdure.plain_json import INTEGER_MAX, INTEGER_MIN, NESTING_LEVELS_MAX, encode_plain
from perdure.secrets import (
    DEFAULT_POLICY,
    RESOLVED,
    RESOLVED_SECRET,
    SecretPolicy,
    find_secret,
    surely_clean,
)


class CanonicalJsonError(PerdureError, ValueError):
    """A value that has no canonical form, or must not be written.

    ``code`` is one of ``float_not_allowed``, ``integer_out_of_range``, ``value_not_json``,
    ``value_too_deep`` and ``secrets_detected``; ``pointer`` is the JSON pointer of the place. The value
    itself is never shown.
    """

    def __init__(self, code: str, pointer: str, message: str, details: Json = None) -> None:
        super().__init__(
            ErrorInfo(
                code, ErrorCategory.PARSING_INPUT, False, message, {"pointer": pointer, **(details or {})}
            )
        )
        self.pointer = pointer

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.info.code, self.pointer, self.info.message, self.info.details)

    def under(self, prefix: str) -> CanonicalJsonError:
        """The same error for a value that stands at ``prefix`` in a larger one."""
        return CanonicalJsonError(self.code, prefix + self.pointer, self.info.message, self._extra())

    def _extra(self) -> Json:
        return {key: value for key, value in self.info.details.items() if key != "pointer"}


def canonical_json_bytes(value: Json, *, secrets: SecretPolicy | None = DEFAULT_POLICY) -> bytes:
    """The canonical bytes of ``value``.

    Tuples count as arrays and ``str`` subclasses as strings. ``secrets=None`` leaves out the detection
    of secrets. Raises :class:`CanonicalJsonError` for anything that may not be written.
    """
    data = encode(value)
    if secrets is not None:
        refuse_to_write(value, data, secrets)
    return data


def artifact_id_for_bytes(data: bytes) -> ArtifactId:
    """The SHA-256 of ``data`` in lower-case hexadecimal."""
    digest = _SHA256.copy()
    digest.update(data)
    return str.__new__(ArtifactId, digest.hexdigest())


def artifact_id_for_json(value: Json, *, secrets: SecretPolicy | None = DEFAULT_POLICY) -> ArtifactId:
    """The id of the canonical bytes of ``value``; raises as :func:`canonical_json_bytes` does."""
    return artifact_id_for_bytes(canonical_json_bytes(value, secrets=secrets))


def encode(value: Json) -> bytes:
    """The canonical bytes of ``value``, secrets included; raises :class:`CanonicalJsonError`."""
    return encode_plain(value) or _encode_slowly(value)


def refuse_to_write(value: Json, data: bytes, policy: SecretPolicy) -> None:
    """As :func:`refuse_secrets`, and for every value that this process has resolved.

    Only writing asks for the latter: an artifact is not corrupt because a value in it became a secret.
    """
    refuse_secrets(value, data, policy)
    if RESOLVED.occurs_in(data):
        raise _secrets_detected(RESOLVED.pointer_in(value), RESOLVED_SECRET)


def refuse_secrets(value: Json, data: bytes, policy: SecretPolicy) -> None:
    """Raise ``secrets_detected`` if ``value``, whose canonical bytes are ``data``, holds a secret."""
    if not policy.strict and surely_clean(data):
        return
    finding = find_secret(value, policy)
    if finding is not None:
        raise _secrets_detected(finding.pointer, finding.detector)


def _secrets_detected(pointer: str, detector: str) -> CanonicalJsonError:
    message = "the value holds what looks like a secret, which is never written"
    return CanonicalJsonError("secrets_detected", pointer, message, {"detector": detector})


def decode(data: bytes) -> Json:
    """The value of canonical bytes.

    Raises :class:`CanonicalJsonError`: ``value_not_json`` for bytes that are no JSON text,
    ``not_canonical`` for JSON in another form, ``float_not_allowed`` for a float, which is told apart
    from other forms, and the codes of :func:`canonical_json_bytes` for the rest.
    """
    try:
        value = msgspec.json.decode(data)
    except RecursionError:
        raise _too_deep("") from None
    except (msgspec.DecodeError, UnicodeDecodeError, ValueError):
        value = _decode_slowly(data)
    if encode(value) != data:
        raise CanonicalJsonError("not_canonical", "", "the bytes are JSON, but not in canonical form")
    return value


def join_object(members: Mapping[str, bytes]) -> bytes:
    """The canonical bytes of an object whose values' canonical bytes are at hand."""
    template, values_of = _shape(tuple(members))
    return template % values_of(members)


def split_object(data: bytes) -> dict[str, bytes]:
    """The values' bytes of an object, by key. ``data`` is canonical: that was checked before.

    Raises :class:`CanonicalJsonError` (``value_not_json``) when it is not an object.
    """
    try:
        return {key: bytes(raw) for key, raw in _RAW_OBJECT.decode(data).items()}
    except (msgspec.DecodeError, RecursionError):
        raise CanonicalJsonError("value_not_json", "", "expected a JSON object") from None


def news_of(before: bytes, after: bytes, levels: int = 8) -> bytes:
    """What ``after`` holds and ``before`` does not, both canonical: members and items in their containers.

    What is short is searched as quickly as it is taken apart.
    Every string of ``after`` that is not in the result stands in ``before`` too, under the same key.
    """
    if len(after) < _NEWS_BYTES_MIN or not levels or before[:1] != after[:1]:
        return after
    if after[:1] == b"{":
        old = _RAW_OBJECT.decode(before)
        members = [
            (key, news_of(bytes(old[key]), bytes(raw), levels - 1) if key in old else bytes(raw))
            for key, raw in _RAW_OBJECT.decode(after).items()
            if old.get(key) != raw
        ]
        return b"{" + b",".join([b"%b:%b" % (encode_string(key), data) for key, data in members]) + b"}"
    if after[:1] == b"[":
        old_items, items = _RAW_ARRAY.decode(before), _RAW_ARRAY.decode(after)
        shorter = min(len(old_items), len(items))
        begin = next((each for each in range(shorter) if old_items[each] != items[each]), shorter)
        end = next(
            (each for each in range(shorter - begin) if old_items[-1 - each] != items[-1 - each]),
            shorter - begin,
        )
        return b"[" + b",".join(map(bytes, items[begin : len(items) - end])) + b"]"
    return after


def encode_string(text: str) -> bytes:
    """The canonical bytes of a string."""
    return _STRING.encode(str(text))


def pointer_token(key: str) -> str:
    """``key`` as a token of a JSON pointer, with its leading slash."""
    return "/" + key.replace("~", "~0").replace("/", "~1")


_SHA256 = hashlib.sha256()  # to be copied: a new one takes as long as it takes to hash a kilobyte
_RAW_OBJECT = msgspec.json.Decoder(dict[str, msgspec.Raw])
_RAW_ARRAY = msgspec.json.Decoder(list[msgspec.Raw])
_NEWS_BYTES_MIN = 4096
_STRING = msgspec.json.Encoder()


def _encode_slowly(value: Json) -> bytes:
    """The canonical bytes by an explicit walk, or the refusal of the first bad place in document order."""
    chunks: list[str] = []
    stack: list[tuple[Any, str, int]] = [(value, "", 1)]
    while stack:
        item, pointer, depth = stack.pop()
        if type(item) is _Literal:
            chunks.append(item.text)
        elif item is None:
            chunks.append("null")
        elif item is True:
            chunks.append("true")
        elif item is False:
            chunks.append("false")
        elif type(item) is int:
            if not INTEGER_MIN <= item <= INTEGER_MAX:
                raise CanonicalJsonError("integer_out_of_range", pointer, "an integer outside -2^63 … 2^64-1")
            chunks.append(str(item))
        elif isinstance(item, str) and not isinstance(item, enum.Enum):
            chunks.append(_string_text(item, pointer))
        elif type(item) in (list, tuple):
            _refuse_depth(depth, pointer)
            children: list[tuple[Any, str, int]] = [(_OPEN_ARRAY, "", 0)]
            for index, element in enumerate(item):
                if index:
                    children.append((_COMMA, "", 0))
                children.append((element, f"{pointer}/{index}", depth + 1))
            children.append((_CLOSE_ARRAY, "", 0))
            stack.extend(reversed(children))
        elif type(item) is dict:
            _refuse_depth(depth, pointer)
            children = [(_OPEN_OBJECT, "", 0)]
            for index, key in enumerate(_sorted_keys(item, pointer)):
                place = pointer + pointer_token(key)
                text = _string_text(key, place)
                children.append((_Literal(f",{text}:" if index else f"{text}:"), "", 0))
                children.append((item[key], place, depth + 1))
            children.append((_CLOSE_OBJECT, "", 0))
            stack.extend(reversed(children))
        elif isinstance(item, float):
            raise CanonicalJsonError(
                "float_not_allowed", pointer, "a float; write it as an integer of a smaller unit or a string"
            )
        else:
            raise CanonicalJsonError(
                "value_not_json", pointer, f"a {type(item).__name__}, which is not a JSON type"
            )
    return "".join(chunks).encode()


class _Literal:
    """Text that goes out as it is."""

    __slots__ = ("text",)

    def __init__(self, text: str) -> None:
        self.text = text


_OPEN_ARRAY, _CLOSE_ARRAY, _COMMA = _Literal("["), _Literal("]"), _Literal(",")
_OPEN_OBJECT, _CLOSE_OBJECT = _Literal("{"), _Literal("}")


def _refuse_depth(depth: int, pointer: str) -> None:
    if depth > NESTING_LEVELS_MAX:
        raise _too_deep(pointer)


def _too_deep(pointer: str) -> CanonicalJsonError:
    # The whole pointer of such a place is thousands of characters that help nobody.
    shown = pointer if len(pointer) <= 200 else pointer[:200] + "…"
    return CanonicalJsonError("value_too_deep", shown, f"nested deeper than {NESTING_LEVELS_MAX} levels")


def _string_text(text: str, pointer: str) -> str:
    try:
        return encode_string(text).decode()
    except UnicodeEncodeError:
        raise CanonicalJsonError("value_not_json", pointer, "a string with a lone surrogate") from None


def _sorted_keys(item: dict[Any, Any], pointer: str) -> list[str]:
    for key in item:
        if not isinstance(key, str) or isinstance(key, enum.Enum):
            raise CanonicalJsonError(
                "value_not_json", pointer, f"an object key that is a {type(key).__name__}, not a string"
            )
    return sorted(item, key=utf16_order)


@functools.lru_cache(maxsize=256)
def _shape(keys: tuple[str, ...]) -> tuple[bytes, Callable[[Mapping[str, bytes]], tuple[bytes, ...]]]:
    """The bytes of an object of these keys with a place for each value, and what takes the values in order.

    Contexts mostly keep the keys that they have.
    """
    ordered = sorted(keys, key=utf16_order)
    template = b",".join([encode_string(key).replace(b"%", b"%%") + b":%b" for key in ordered])
    if len(ordered) > 1:
        return b"{" + template + b"}", operator.itemgetter(*ordered)
    return b"{" + template + b"}", lambda members: tuple(members.values())


def utf16_order(text: str) -> bytes:
    """What canonical JSON orders keys by."""
    return text.encode("utf-16-be", "surrogatepass")


def _decode_slowly(data: bytes) -> Json:
    """What the standard library makes of ``data``: it takes integers of any size and lone surrogates."""
    try:
        return json.loads(data.decode())
    except RecursionError:
        raise _too_deep("") from None
    except ValueError:
        raise CanonicalJsonError("value_not_json", "", "the bytes are not JSON text") from None
