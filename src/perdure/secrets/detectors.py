"""The sets of detectors, by version of the policy, and what they find in a text.

A version is frozen once it is released: artifacts were judged by it. A new detector goes into a new set.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from perdure.secrets.assignments import assignments
from perdure.secrets.phrases import is_phrase
from perdure.secrets.shapes import (
    Match,
    basic_credentials,
    bearer_tokens,
    pem_blocks,
    tokens,
    url_passwords,
)

Detector = Callable[[bytes, bytes], Iterator[Match]]


def bip39_phrases(raw: bytes, _low: bytes) -> Iterator[Match]:
    """A text that is a BIP-39 phrase as a whole."""
    if is_phrase(raw):
        yield Match(0, len(raw), "bip39_phrase")


DETECTORS: dict[int, tuple[Detector, ...]] = {
    1: (
        bip39_phrases,
        pem_blocks,
        tokens,
        bearer_tokens,
        basic_credentials,
        url_passwords,
        assignments,
    ),
}

# Without a sign, the shortest text that any detector finds is "Basic" and six characters of Base64.
_LENGTH_MIN_WITHOUT_SIGN = 12


def is_too_short(text: str) -> bool:
    """Whether ``text`` can hold no match, so that most strings need no further look."""
    return len(text) < _LENGTH_MIN_WITHOUT_SIGN and ":" not in text and "=" not in text


def matches(raw: bytes, version: int) -> list[Match]:
    """All that the detectors find in a text's UTF-8 bytes, in order of place, the longer first.

    Matches may overlap: a token is found by itself and as an assigned value.
    """
    low = raw.lower()
    found = [match for detector in DETECTORS[version] for match in detector(raw, low)]
    found.sort(key=lambda match: (match.start, -match.end))
    return found
