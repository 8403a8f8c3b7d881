"""JSON data as stores keep it: bytes, so that no reader shares it with another."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from perdure.errors import CorruptionError, Json

_ENCODER = msgspec.json.Encoder(enc_hook=str.__str__)


def encode_body(body: Json) -> bytes:
    """``body`` as JSON text. It must have been checked: this writes what it is given."""
    return _ENCODER.encode(body)


def decode_body(data: bytes, refusal: Callable[[], CorruptionError]) -> Any:
    """What was kept; raises what ``refusal`` makes if that is no JSON text."""
    try:
        return msgspec.json.decode(data)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        raise refusal() from None
