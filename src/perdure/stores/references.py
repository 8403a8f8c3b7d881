"""What kept bytes refer to: the ids that stand in a text, and the parts that a recipe names.

Ids are looked for in any text, and not only where an event or an answer is known to have one: handlers,
programs and letters hand ids on in values of their own. The price is something kept too long now and then,
for a text that merely looks like an id.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import msgspec

from perdure.model.rope_parts import NODE, Entry, decode_recipe
from perdure.stores.refusals import artifact_corruption

_DIGITS = 64
_SHAPE = bytes(0x30 if chr(byte) in "0123456789abcdef" else 0x20 for byte in range(256))
_RUN = b"0" * _DIGITS


class Reference(NamedTuple):
    """An artifact's id, as bytes; ``is_recipe`` if who refers to it says that a recipe is kept there."""

    key: bytes
    is_recipe: bool


def ids_in(text: bytes) -> Iterator[bytes]:
    """The artifact ids that stand in ``text``: 64 lower-case hexadecimal digits, no more in a row."""
    # Far quicker than a regular expression, which is slow where digits and other letters alternate.
    shape = text.translate(_SHAPE)
    begin = shape.find(_RUN)
    while begin >= 0:
        end = shape.find(b" ", begin + _DIGITS)
        end = len(shape) if end < 0 else end
        if end - begin == _DIGITS:
            yield bytes.fromhex(text[begin:end].decode())
        begin = shape.find(_RUN, end)


def references(artifact_id: str, data: bytes, *, is_recipe: bool) -> Iterator[Reference]:
    """What an artifact refers to; ``CorruptionError`` (``artifact_corruption``) for a broken recipe."""
    if not is_recipe:
        for key in ids_in(data):
            yield Reference(key, False)
        return
    for entry in _entries(artifact_id, data):
        if isinstance(entry, bytes):
            for key in ids_in(entry):
                yield Reference(key, False)
        else:
            yield Reference(entry[1], bool(entry[0] & NODE))


def _entries(artifact_id: str, data: bytes) -> list[Entry]:
    try:
        return decode_recipe(data)
    except (msgspec.DecodeError, ValueError):
        raise artifact_corruption(artifact_id) from None
