"""BIP-39: the word list and the checksum."""

from __future__ import annotations

import hashlib
from importlib import resources

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perdure.secrets.phrases import LENGTH_MIN, WORD_COUNTS, is_phrase, word_list


def phrase_of(entropy: bytes) -> list[str]:
    """The words that encode ``entropy``, as the standard says it."""
    checksum = bin(hashlib.sha256(entropy).digest()[0])[2:].zfill(8)[: len(entropy) // 4]
    bits = bin(int.from_bytes(entropy, "big"))[2:].zfill(len(entropy) * 8) + checksum
    words = [word.decode() for word in word_list()]
    return [words[int(bits[at : at + 11], 2)] for at in range(0, len(bits), 11)]


def test_the_list_is_the_published_one() -> None:
    data = resources.files("perdure.secrets").joinpath("bip39_english.txt").read_bytes()
    digest = "2f5eed53a4727b4bf8880d8f3f199efc90e58503646d9ff8eff3a2ed3b24dbda"
    assert hashlib.sha256(data).hexdigest() == digest
    assert len(word_list()) == 2048
    assert {len(word) for word in word_list()} == set(range(3, 9))


@pytest.mark.parametrize("words", WORD_COUNTS)
@settings(max_examples=10)
@given(data=st.data())
def test_exactly_the_phrases_with_the_right_checksum_count(words: int, data: st.DataObject) -> None:
    length = words * 4 // 3
    phrase = phrase_of(data.draw(st.binary(min_size=length, max_size=length)))
    assert len(phrase) == words
    assert is_phrase(" ".join(phrase).encode())
    # Of the 2048 words that could stand last, one in 2^(words / 3) has the right checksum.
    accepted = [last for last in word_list() if is_phrase(" ".join(phrase[:-1]).encode() + b" " + last)]
    assert phrase[-1].encode() in accepted
    assert len(accepted) == 2048 >> (words // 3)


def test_the_shortest_phrase_has_words_of_three_letters() -> None:
    assert len(" ".join(["zoo"] * 12)) == LENGTH_MIN
