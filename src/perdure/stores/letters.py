"""Letters as they are kept: their bodies as bytes, so that no reader shares data with another."""

from __future__ import annotations

from functools import partial

from perdure.errors import CorruptionError
from perdure.stores.bodies import decode_body
from perdure.stores.ports import Letter


def opened(letter_id: str, body: bytes, sent_millis: int) -> Letter:
    """The letter that was kept; ``CorruptionError`` (``letter_malformed``) if its body is no JSON text."""
    return Letter(letter_id, decode_body(body, partial(_malformed, letter_id)), sent_millis)


def _malformed(letter_id: str) -> CorruptionError:
    return CorruptionError.of(
        "letter_malformed", "a stored letter is not JSON text", details={"letter_id": letter_id}
    )
