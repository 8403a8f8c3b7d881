"""BIP-39 phrases: 12 to 24 English words that encode a wallet's seed with a checksum.

The checksum makes the detector precise: of 12 words from the list taken at random one phrase in 16 is
valid, of ordinary sentences practically none, since every word must be on the list.
"""

from __future__ import annotations

import functools

WORD_COUNTS = (12, 15, 18, 21, 24)
LENGTH_MIN = WORD_COUNTS[0] * 3 + WORD_COUNTS[0] - 1
"""The length of the shortest phrase, whose words have three letters each."""


@functools.cache
def word_list() -> dict[bytes, int]:
    """The standard's 2048 English words and their numbers."""
    from importlib import resources

    data = resources.files("perdure.secrets").joinpath("bip39_english.txt").read_bytes()
    return {word: number for number, word in enumerate(data.split())}


def is_phrase(text: bytes) -> bool:
    """Whether ``text`` as a whole is a valid phrase, in any ASCII case.

    White space does not matter, but for the vertical tab: JSON escapes it with digits, and the prefilter
    counts on a phrase to hold none.
    """
    if len(text) < LENGTH_MIN or b"\v" in text:
        return False
    # One more than the longest phrase is enough to see that a long text is none.
    words = text.split(None, WORD_COUNTS[-1])
    if len(words) not in WORD_COUNTS or words[0].lower() not in word_list():
        return False
    return are_phrase([word.lower() for word in words])


def are_phrase(words: list[bytes]) -> bool:
    """Whether these lower-case words, 12, 15, 18, 21 or 24 of them, are a phrase with its checksum."""
    numbers = word_list()
    bits = 0
    for word in words:
        number = numbers.get(word)
        if number is None:
            return False
        bits = bits << 11 | number
    # Of every 33 bits one belongs to the checksum: the first bits of the entropy's SHA-256.
    from hashlib import sha256

    checksum_bits = len(words) * 11 // 33
    entropy = (bits >> checksum_bits).to_bytes(checksum_bits * 4, "big")
    return sha256(entropy).digest()[0] >> (8 - checksum_bits) == bits & ((1 << checksum_bits) - 1)
