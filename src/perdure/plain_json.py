"""Canonical bytes at C speed, of values that are made of plain types alone, as most are.

The encoder does the writing, but takes more than JSON has: sets, dates, enumerations, floats. So every type
in a value is looked at first, level by level.
"""

from __future__ import annotations

import enum
import gc
import marshal
import re
from typing import Any

import msgspec

NESTING_LEVELS_MAX = 512
INTEGER_MIN = -(2**63)
INTEGER_MAX = 2**64 - 1

_CONTAINERS_BEFORE_DEDUPLICATION = 1_000_000
_ROW_LENGTH_MIN = 64
_PLAIN_TYPES = frozenset({dict, list, tuple, str, int, bool, type(None)})
_CONTAINERS = frozenset({dict, list, tuple})
# Only integers with so many digits may be out of range; strings may hold as many. Of every fourth byte,
# four are digits then.
_LONG_NUMBER = b"a" * 19
_LONG_NUMBER_THINNED = b"a" * 4
_THINNED_BYTES_MIN = 4096
_DIGITS_AS_A = bytes(97 if 48 <= byte <= 57 else 46 for byte in range(256))
_BYTES_OF_LATE_PLANE = re.compile(rb"[\xf0-\xf4]")
_BYTES_OF_LATE_BMP = re.compile(rb"[\xee\xef]")


def _plain_str(value: object) -> str:
    # Called by the encoder for types that it does not know; str subclasses are the only welcome ones.
    if isinstance(value, str):
        return str.__str__(value)
    raise TypeError


_FAST = msgspec.json.Encoder(order="sorted", enc_hook=_plain_str)


def encode_plain(value: object) -> bytes | None:
    """The canonical bytes of ``value``, secrets included; None when only a walk can tell, or tell why not."""
    if type(value) is int:  # counters, which many states write
        return b"%d" % value if INTEGER_MIN <= value <= INTEGER_MAX else None
    rows: list[list[Any]] = []
    has_integers = _has_integers(value, rows)
    if has_integers is None:
        return None
    try:
        data = _FAST.encode(value)
    except Exception:  # noqa: BLE001 — what is among the rows is not known yet, and may run its own code
        return None
    # Only now: proofs rely on there being no circles.
    if rows and not all(map(_is_of_small_integers, rows)):
        has_integers = _has_integers(value)
        if has_integers is None:
            return None
    if (
        has_integers
        and (len(data) < _THINNED_BYTES_MIN or _LONG_NUMBER_THINNED in data[::4].translate(_DIGITS_AS_A))
        and _LONG_NUMBER in data.translate(_DIGITS_AS_A)
        and not _has_integers_in_range(value)
    ):
        return None
    # msgspec sorts keys by code point. UTF-16 order differs only between U+E000–U+FFFF and the planes
    # above, so bytes that do not hold both kinds of character are in the right order.
    if data.isascii() or not (_BYTES_OF_LATE_PLANE.search(data) and _BYTES_OF_LATE_BMP.search(data)):
        return data
    return None


def _has_integers(value: object, rows: list[list[Any]] | None = None) -> bool | None:
    """Whether integers are in ``value``; None if it holds what may not be in it, or is nested too deep.

    ``rows`` collects long lists that look as if they held nothing but small integers: what they hold is
    left to :func:`_is_of_small_integers`, which needs half the time.
    """
    found = False
    level: list[Any] = [value]
    for _ in range(NESTING_LEVELS_MAX + 1):
        kinds = set(map(type, level))
        found |= int in kinds
        if not kinds <= _PLAIN_TYPES:
            if not all(kind in _PLAIN_TYPES or _is_string(kind) for kind in kinds):
                return None
            # An instance of a class refers to its class.
            level = [each for each in level if type(each) in _PLAIN_TYPES]
        if kinds.isdisjoint(_CONTAINERS):
            return found
        if list in kinds and rows is not None:
            # One member tells enough about a level, and costs next to nothing.
            last = level[-1]
            if type(last) is list and len(last) >= _ROW_LENGTH_MIN:
                rows += filter(_looks_like_row, level)
                level = [each for each in level if not _looks_like_row(each)]
        if len(level) > _CONTAINERS_BEFORE_DEDUPLICATION:
            level = _deduplicated(level)
        # What they refer to, at C speed: the collector's own list.
        level = gc.get_referents(*level)
    return None


def _looks_like_row(item: Any) -> bool:
    return type(item) is list and len(item) >= _ROW_LENGTH_MIN and type(item[0]) is type(item[-1]) is int


def _is_of_small_integers(items: list[Any]) -> bool:
    """Whether nothing but integers of 32 bits is in a list."""
    # Version 2 has five bytes for the head, and five for an integer (no subclass) that fits 32 bits: an "i"
    # and the value. If there is an "i" wherever one item after the other should begin, that is what they are.
    try:
        data = marshal.dumps(items, 2)
    except ValueError:
        return False
    return len(data) == 5 + 5 * len(items) and data[5::5] == b"i" * len(items)


def _deduplicated(level: list[Any]) -> list[Any]:
    # A list that contains itself twice would double at every level.
    return list({id(each): each for each in level}.values())


def _is_string(kind: type) -> bool:
    return issubclass(kind, str) and not issubclass(kind, enum.Enum)


def _has_integers_in_range(value: object) -> bool:
    level: list[Any] = [value]
    while level:
        integers = [each for each in level if type(each) is int]
        if integers and not (min(integers) >= INTEGER_MIN and max(integers) <= INTEGER_MAX):
            return False
        level = gc.get_referents(*[each for each in level if type(each) in _CONTAINERS])
    return True
