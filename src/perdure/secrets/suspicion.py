"""The second look at a document that the prefilter did not pass: could it hold a secret at all?

Each function may say yes to a clean document, which then is walked, but never no to one with a secret. All
look at undecoded canonical JSON, where a line's end is ``\\n`` in two characters.
"""

from __future__ import annotations

import functools
import re

from perdure.secrets.assignments import ESCAPES_BEFORE_SIGN_MAX
from perdure.secrets.names import KEY_NAMES
from perdure.secrets.phrases import LENGTH_MIN, is_phrase
from perdure.secrets.prefilter import DIGITS, LETTERS, consonants, mapping
from perdure.secrets.shapes import TOKEN_RUN, TOKENS, encodes_password, token_pattern

# Nothing but signs, digits and escapes up to a colon or an equals sign, such as the end of an object's key.
_SIGN = rf"[^a-z:=\\]*(?:\\.[^a-z:=\\]*){{0,{ESCAPES_BEFORE_SIGN_MAX}}}[:=]"


@functools.cache
def _pattern(name: str) -> re.Pattern[bytes]:
    return re.compile((name.replace("_", r"[^a-z0-9\"\\]*") + _SIGN).encode())


# By the last word of the names. Many documents hold the word, few assign to it, and fewer yet to the name.
_NAMES = tuple(
    (
        consonants(last.encode()),
        last,
        tuple((consonants(name.encode()), name) for name in KEY_NAMES if name.endswith(last)),
    )
    for last in sorted({name.rpartition("_")[2] for name in KEY_NAMES})
)
_BEARER = re.compile(rb"bearer(?: |\\t){1,8}[a-z0-9._~+/=-]{16}")
_BASIC = re.compile(rb"Basic(?: |\\t){1,8}([A-Za-z0-9+/]{6,}={0,2})")
_URL = re.compile(rb"://[^\s/?#\"'<>`@:]*:[^\s/?#\"'<>`]+@")
_ESCAPE = re.compile(rb"\\.")

# Hashes, UUIDs, numbers and punctuation are left out, and so from what is searched for.
_NOT_OF_PREFIX = bytes(
    byte for byte in range(256) if not (chr(byte) in "ghijklmnopqrstuvwxyz_" or 65 <= byte <= 90)
)
_TOKENS = tuple(
    (token.prefix.encode().translate(None, _NOT_OF_PREFIX), token.signs.encode(), token) for token in TOKENS
)
_PREFIXES = tuple(
    (first, tuple((token.prefix, token) for token in TOKENS if token.prefix[0] == first))
    for first in sorted({token.prefix[0] for token in TOKENS})
)
"""By what they begin with: of most texts, most of these letters are not there."""
_SHORT = 4096
_TOKEN_MEMBERS = mapping(LETTERS + DIGITS + b"_-")
_PHRASE_LETTERS = LETTERS + b" \\"
_PHRASE_MEMBERS = mapping(_PHRASE_LETTERS, b'"')
_IN_WORDS = re.compile(rb'"a{%d,}(?=")' % LENGTH_MIN)
_GLANCE = 256


def may_hold_name(canonical: bytes, skeleton: str) -> bool:
    """Whether a key name may stand as a key or be assigned to, or a PEM block, Bearer or Basic may stand.

    ``skeleton`` is the consonants of the document.
    """
    low = canonical.lower()
    for stem, last, names in _NAMES:
        if stem in skeleton and _pattern(last).search(low):
            for needle, name in names:
                if needle in skeleton and _pattern(name).search(low):
                    return True
    if b"PRIVATE KEY" in canonical or (b"bearer" in low and _BEARER.search(low)):
        return True
    if b"Basic" not in canonical:
        return False
    return any(encodes_password(found[1]) for found in _BASIC.finditer(canonical))


def may_hold_url_password(canonical: bytes) -> bool:
    """Whether a URL with a password may stand in the document."""
    return _URL.search(canonical) is not None


def may_hold_token_or_phrase(canonical: bytes) -> bool:
    """Whether a token or a BIP-39 phrase may stand in the document."""
    return _may_hold_token(canonical) or may_hold_phrase(canonical)


def _may_hold_token(canonical: bytes) -> bool:
    if b"a" * TOKEN_RUN not in canonical.translate(_TOKEN_MEMBERS):
        return False
    if len(canonical) <= _SHORT:
        # A literal is found in a short string in a fraction of the time that bytes take.
        text = canonical.decode("latin-1")
        found = [
            token
            for first, tokens in _PREFIXES
            if first in text
            for prefix, token in tokens
            if prefix in text
        ]
        return any(token_pattern(token, escaped=True).search(canonical) for token in found)
    prefixes = canonical.translate(None, _NOT_OF_PREFIX)
    for needle, signs, token in _TOKENS:
        # One byte is found far quicker than two, so the signs come first.
        if (
            all(sign in canonical for sign in signs)
            and needle in prefixes
            and token.prefix.encode() in canonical
            and token_pattern(token, escaped=True).search(canonical)
        ):
            return True
    return False


def may_hold_phrase(canonical: bytes) -> bool:
    """Whether a string of the document may be a BIP-39 phrase."""
    mapped = canonical.translate(_PHRASE_MEMBERS)
    if b"a" * LENGTH_MIN not in mapped:
        return False
    return any(
        encodes_phrase(canonical[found.start() + 1 : found.end()]) for found in _IN_WORDS.finditer(mapped)
    )


def encodes_phrase(text: bytes) -> bool:
    """Whether ``text``, which stands between two quotes of a document, may be a phrase."""
    # What is no phrase mostly shows it soon, by a sign or a digit.
    if text[:_GLANCE].translate(None, _PHRASE_LETTERS):
        return False
    return is_phrase(_ESCAPE.sub(b" ", text) if b"\\" in text else text)
