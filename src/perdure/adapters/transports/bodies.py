"""Bodies: the bytes that a request gives, and how an answer shows those that came back.

A request gives at most one of ``json`` (sent as canonical JSON), ``text`` (as UTF-8), ``base64`` and
``artifact_id``. An answer holds exactly one of ``json``, ``text``, ``base64`` and ``artifact_id``.
"""

from __future__ import annotations

import binascii
import codecs
import json
from base64 import b64decode, b64encode
from collections.abc import Iterable
from typing import Any, NoReturn

import msgspec

from perdure.canonical import CanonicalJsonError, canonical_json_bytes, encode
from perdure.errors import Json
from perdure.ids import ArtifactId, InvalidIdError
from perdure.io.facts import recordable
from perdure.io.port import TransportEnv
from perdure.model.handler import IoCall

# Python knows these as encodings of text, but no document is written in them.
_NO_CHARSETS = frozenset({"idna", "punycode", "raw-unicode-escape", "undefined", "unicode-escape", "utf-7"})


class BodyFields(msgspec.Struct, kw_only=True):
    """The fields of a request that may give its body."""

    json: Any = msgspec.UNSET
    text: str | msgspec.UnsetType = msgspec.UNSET
    base64: str | msgspec.UnsetType = msgspec.UNSET
    artifact_id: str | msgspec.UnsetType = msgspec.UNSET

    def form(self) -> str | None:
        """Which of the fields gives the body, if any; ``ValueError`` if several do."""
        given = [name for name in BodyFields.__struct_fields__ if getattr(self, name) is not msgspec.UNSET]
        if len(given) > 1:
            raise ValueError(f"at most one of {', '.join(given)} can be the body")
        return given[0] if given else None

    async def content(self, env: TransportEnv) -> bytes | None:
        """The body's bytes. ``ValueError`` says, without showing any of it, why there can be none."""
        match self.form():
            case "json":
                return _json_bytes(self.json)
            case "text":
                return _text_bytes(str(self.text))
            case "base64":
                return _base64_bytes(str(self.base64))
            case "artifact_id":
                try:
                    artifact_id = ArtifactId(self.artifact_id)
                except InvalidIdError:
                    raise ValueError("artifact_id is no id of an artifact") from None
                return await env.read_artifact(artifact_id)
            case _:
                return None


def shown(
    data: bytes,
    call: IoCall,
    env: TransportEnv,
    inline_bytes: int,
    *,
    may_be_json: bool,
    charset: str | None,
) -> dict[str, Json]:
    """``data`` as the one field of an answer that shows it.

    More than ``inline_bytes`` becomes an artifact. ``json`` is what can be recorded without loss; ``text``
    is what ``charset`` (UTF-8, if it is unknown) can decode. The rest is ``base64``, in which nobody would
    see a secret: so what is to be recorded is examined here, and refused or redacted as by ``env.keep``.
    """
    if len(data) > inline_bytes:
        return {"artifact_id": env.keep(data, call.redact)}
    if may_be_json:
        value = exact_json(data)
        if value is not msgspec.UNSET:
            return {"json": value}
    text = None if charset is None else _decoded(data, charset)
    if text is not None:
        return {"text": text}
    examined = data if call.fact_key is None else recordable(data, call.redact)
    return {"base64": b64encode(examined).decode()}


def exact_json(data: bytes) -> Json:
    """The value of a JSON text in UTF-8; UNSET for what is none, or cannot be recorded exactly.

    Floats, integers out of range, keys that stand twice and lone surrogates cannot.
    """
    try:
        value = msgspec.json.decode(data)
        # A key that stands twice would be missing once.
        if msgspec.json.encode(value) == data:
            encode(value)
            return value
    except (ValueError, RecursionError):
        return msgspec.UNSET
    return _exact_json_slowly(data)


def _exact_json_slowly(data: bytes) -> Json:
    try:
        value = json.loads(
            data.decode(), object_pairs_hook=_unique, parse_float=_refuse, parse_constant=_refuse
        )
        encode(value)
    except (ValueError, RecursionError):
        return msgspec.UNSET
    return value


def _unique(pairs: Iterable[tuple[str, Json]]) -> dict[str, Json]:
    members: dict[str, Json] = {}
    for key, value in pairs:
        if key in members:
            raise ValueError
        members[key] = value
    return members


def _refuse(_: str) -> NoReturn:
    raise ValueError


def _decoded(data: bytes, charset: str) -> str | None:
    try:
        name = codecs.lookup(charset).name
        return data.decode("utf-8" if name in _NO_CHARSETS else name)
    except LookupError:
        return None if charset == "utf-8" else _decoded(data, "utf-8")
    except ValueError:
        return None


def _json_bytes(value: Json) -> bytes:
    try:
        return canonical_json_bytes(value, secrets=None)
    except CanonicalJsonError as error:
        raise ValueError(f"json cannot be written: {error.info.message}") from None


def _text_bytes(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError:
        raise ValueError("text holds a lone surrogate") from None


def _base64_bytes(text: str) -> bytes:
    try:
        return b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise ValueError("base64 is not Base64") from None
