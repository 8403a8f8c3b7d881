"""The stretches of a long document in which a secret could be.

In a long text most is words, and the quick look need not see them. A secret stands

- before a colon or an equals sign, if its name tells it: as an object's key, or in an assignment;
- in or next to a run of at least :data:`RUN` characters without a blank: tokens, and ``Bearer`` in a header;
- after ``Basic``;
- or it is a PEM block, a password in a URL or a phrase, which are looked for in the document itself.

The signs are found at the speed of memory as long as they are rare, and so are the runs.
"""

from __future__ import annotations

from collections.abc import Iterator

from perdure.secrets.phrases import LENGTH_MIN
from perdure.secrets.prefilter import DIGITS, LETTERS, mapping
from perdure.secrets.suspicion import encodes_phrase, may_hold_phrase, may_hold_url_password

RUN = 16
"""The shortest run of a bearer token; other tokens have more of fewer kinds of characters."""

_RUN_MEMBERS = mapping(LETTERS + DIGITS + b"_-.~+/=")
_RUN = b"a" * RUN

# "Bearer" with tabs in escapes takes 22, a prefix that is not part of the run fewer.
_BEFORE_RUN = 32
# The longest name that is assigned to and the widest gap before the sign take 93. Keys may take more.
_BEFORE_SIGN = 128
# "Basic", tabs in escapes, and Base64 that is too short for a run.
_OF_BASIC = 64

# What is full of signs or runs mostly shows it in the middle.
_SAMPLE = 1024
_SIGNS_MAX = 8
_RUNS_MAX = 16
_BYTES_PER_SIGN_MIN = 256
_BYTES_PER_RUN_MIN = 1024

# A letter, so that no name at the end of a stretch is taken for the key before the next stretch's colon.
_BETWEEN = b" x "

Span = tuple[int, int]


def excerpt(canonical: bytes) -> bytes:
    """What of a document the quick look has to see: all of it, unless that is much more than is needed."""
    if b'"' not in canonical:
        return b""
    middle = len(canonical) // 2
    if _is_dense(canonical[middle : middle + _SAMPLE]):
        return canonical
    try:
        spans = [*_before_signs(canonical), *_around_runs(canonical), *_after_basic(canonical)]
    except _TooManyError:
        return canonical
    if (
        (b"K" in canonical and b"PRIVATE KEY" in canonical)
        or (b"@" in canonical and b"://" in canonical and may_hold_url_password(canonical))
        or _may_hold_phrase(canonical)
    ):
        return canonical
    return _BETWEEN.join(canonical[begin:end] for begin, end in spans)


class _TooManyError(Exception):
    """An excerpt would be of no use."""


def _is_dense(sample: bytes) -> bool:
    signs = sample.count(b":") + sample.count(b"=")
    return signs > _SIGNS_MAX or sample.translate(_RUN_MEMBERS).count(_RUN) > _RUNS_MAX


def _before_signs(canonical: bytes) -> Iterator[Span]:
    for sign in (b":", b"="):
        for at in _places(canonical, sign, len(canonical) // _BYTES_PER_SIGN_MIN):
            begin = max(0, at - _BEFORE_SIGN)
            if canonical[at - 1 : at] == b'"':
                # No quote stands between the name in a key and the key's end, and signs may without limit.
                begin = min(begin, canonical.rfind(b'"', 0, at - 1) + 1)
            yield begin, at + 1


def _around_runs(canonical: bytes) -> Iterator[Span]:
    mapped = canonical.translate(_RUN_MEMBERS)
    left = len(canonical) // _BYTES_PER_RUN_MIN
    bytes_left = len(canonical) // 4
    at = mapped.find(_RUN)
    while at != -1:
        end = mapped.find(b".", at + RUN)
        if end == -1:
            end = len(mapped)
        left -= 1
        bytes_left -= end - at
        if left < 0 or bytes_left < 0:
            raise _TooManyError
        yield max(0, at - _BEFORE_RUN), end
        at = mapped.find(_RUN, end)


def _after_basic(canonical: bytes) -> Iterator[Span]:
    # A single byte is found, or found missing, far quicker than several.
    if b"B" in canonical:
        for at in _places(canonical, b"Basic", len(canonical) // _BYTES_PER_SIGN_MIN):
            yield at, at + _OF_BASIC


def _may_hold_phrase(canonical: bytes) -> bool:
    """As :func:`may_hold_phrase`, which has to look at every byte; quotes, if they are few, show as much."""
    begin = 0
    try:
        for end in _places(canonical, b'"', len(canonical) // _BYTES_PER_SIGN_MIN):
            if end - begin >= LENGTH_MIN and encodes_phrase(canonical[begin:end]):
                return True
            begin = end + 1
    except _TooManyError:
        return may_hold_phrase(canonical)
    return False


def _places(canonical: bytes, needle: bytes, most: int) -> Iterator[int]:
    at = canonical.find(needle)
    while at != -1:
        most -= 1
        if most < 0:
            raise _TooManyError
        yield at
        at = canonical.find(needle, at + 1)
