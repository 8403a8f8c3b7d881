"""Telling quickly that a document holds no secret: searches for literals, at the speed of C.

``True`` is a promise; ``False`` says only that somebody has to look closely.
"""

from __future__ import annotations

import functools
import re

from perdure.secrets.names import KEY_NAMES
from perdure.secrets.phrases import LENGTH_MIN, WORD_COUNTS, is_phrase
from perdure.secrets.shapes import TOKEN_RUN

_LOOK_BACK = 48
_LETTERS_MAX = 16
_SPACES_OF_PHRASE = WORD_COUNTS[0] - 1
_ESCAPED_SPACE = re.compile(rb"\\(?:[nrtbf]|u00[01][0-9a-f])")
_NOT_LETTERS = bytes(byte for byte in range(256) if not 97 <= byte <= 122)
_RUN = b"x" * TOKEN_RUN
_TOKEN_CHARACTERS = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-"
_MARK_TOKEN_CHARACTERS = bytes(120 if byte in _TOKEN_CHARACTERS else 32 for byte in range(256))


@functools.cache
def _names() -> tuple[tuple[bytes, ...], tuple[tuple[bytes, tuple[bytes, ...]], ...]]:
    """Names of one word, and for the others each last word with the words that may stand before it."""
    single = tuple(name.encode() for name in KEY_NAMES if "_" not in name)
    before: dict[bytes, list[bytes]] = {}
    for name in KEY_NAMES:
        first, joined, last = name.rpartition("_")
        if joined:
            before.setdefault(last.encode(), []).append(first.encode())
    return single, tuple((last, tuple(firsts)) for last, firsts in before.items())


def surely_clean(canonical: bytes) -> bool:
    """Whether canonical JSON surely holds nothing that ``find_secret`` finds under the default policy."""
    low = canonical.lower()
    single, joined = _names()
    for name in single:
        if name in low:
            return False
    for last, firsts in joined:
        if last in low and not _only_without(low, last, firsts):
            return False
    if b"bearer" in low or b"basic" in low or (b"://" in low and b"@" in low):
        return False
    if len(canonical) >= TOKEN_RUN and _RUN in canonical.translate(_MARK_TOKEN_CHARACTERS):
        return False
    return len(canonical) < LENGTH_MIN or _without_phrases(low)


def _only_without(low: bytes, last: bytes, firsts: tuple[bytes, ...]) -> bool:
    """Whether no ``last`` follows one of ``firsts``, with anything but letters between them."""
    at = low.find(last)
    while at != -1:
        window = low[max(0, at - _LOOK_BACK) : at]
        before = window.rstrip(_NOT_LETTERS)
        # What the window may have cut off is looked at closely.
        if before.endswith(firsts) or (len(before) < _LETTERS_MAX and len(window) == _LOOK_BACK):
            return False
        at = low.find(last, at + 1)
    return True


def _without_phrases(low: bytes) -> bool:
    if low.count(b" ") + low.count(b"\\") < _SPACES_OF_PHRASE:
        # A phrase may also stand word by word in a list: then commas and quotes separate the words.
        return b'","' not in low or not _has_phrase_list(low)
    for text in low.split(b'"'):
        if len(text) >= LENGTH_MIN and is_phrase(_ESCAPED_SPACE.sub(b" ", text)):
            return False
    return not _has_phrase_list(low)


def _has_phrase_list(low: bytes) -> bool:
    return any(
        is_phrase(run.replace(b'","', b" ").strip(b'"'))
        for run in re.findall(rb'\["[a-z]{3,8}(?:","[a-z]{3,8}){11,23}"\]', low)
    )
