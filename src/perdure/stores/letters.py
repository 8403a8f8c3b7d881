"""Letters as they are kept: their bodies as bytes, so that no reader shares data with another."""

from __future__ import annotations

from typing import Any

import msgspec

from perdure.errors import CorruptionError, Json
from perdure.stores.ports import Letter

_ENCODER = msgspec.json.Encoder(enc_hook=str.__str__)


def encode_body(body: Json) -> bytes:
    """A letter's body as JSON text. It must have been checked: this writes what it is given."""
    return _ENCODER.encode(body)


def opened(letter_id: str, body: bytes, sent_millis: int) -> Letter:
    """The letter that was kept; ``CorruptionError`` (``letter_malformed``) if its body is no JSON text."""
    try:
        value: Any = msgspec.json.decode(body)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        raise CorruptionError.of(
            "letter_malformed", "a stored letter is not JSON text", details={"letter_id": letter_id}
        ) from None
    return Letter(letter_id, value, sent_millis)
