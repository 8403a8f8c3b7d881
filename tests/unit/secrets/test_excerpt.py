"""Of a long document only an excerpt is looked at: every secret is in it, wherever it stands."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perdure.secrets import find_secret, surely_clean
from perdure.secrets.excerpt import excerpt
from perdure.secrets.names import KEY_NAMES
from tests.unit.secrets import cases, documents
from tests.unit.secrets.documents import encoded

COMMON = ["the", "password", "was", "asked", "for", "by", "a", "bearer", "of", "the", "key", "over", "there"]
RARE = [
    *("Basic information", "it's", "8", "o'clock.", "https://example.org/a/b", "say:", "x=1", "été", "B"),
    *("\n\n", "\t", '"so"', "re-use", "monkey_business"),
]


def prose(seed: int, words: int = 4000) -> str:
    """A text in words, with what ordinary texts have of signs; it holds no secret."""
    weights = [100] * len(COMMON) + [1] * len(RARE)
    return " ".join(random.Random(seed).choices(COMMON + RARE, weights, k=words))


PROSE = prose(0)


def test_the_excerpt_of_a_text_is_short() -> None:
    """Which is what the other tests rely on: they are about excerpts."""
    data = encoded([PROSE, PROSE])
    assert find_secret([PROSE]) is None
    assert surely_clean(data)
    assert 0 < len(excerpt(data)) < len(data) // 2
    assert excerpt(encoded([[1, 2, 3]] * 5000)) == b""


@pytest.mark.parametrize(
    "value",
    [
        [{"id": number, "name": "x"} for number in range(2000)],
        "name=value " * 2000,
        ["0123456789abcdef" * 4] * 500,
        "a" * 40_000,
    ],
)
def test_what_is_full_of_signs_or_runs_is_looked_at_as_a_whole(value: object) -> None:
    data = encoded(value)
    assert excerpt(data) is data
    assert surely_clean(data)


@pytest.mark.parametrize("secret", cases.SECRETS, ids=lambda secret: f"{secret.detector}: {secret.reason}")
def test_no_secret_is_left_out(secret: cases.Secret) -> None:
    for before in ("", " ", "\n", "\x01", '"', "\\", "é", "("):
        for after in ("", " ", "\t", '"', "\\n", "x"):
            text = f"{before}{secret.text}{after}"
            for value in (text, {text: 1}):
                if find_secret(value) is not None:
                    assert not surely_clean(encoded([PROSE, value, PROSE])), value


@pytest.mark.parametrize(
    "text",
    [
        "encryption_key1234" + '"' * 4 + "\t" * 32 + "=abc",
        "api_key" + "\\" * 4 + "\t" * 32 + ": abc",
        "Basic" + "\t" * 8 + "dTpwdw==",
        "Basic" + "\t" * 8 + "dXNlcjpwYXNzd29yZA==",
        *(f"bearer{chr(9) * 8}abcdefg{sign}hijklmno" for sign in "aA0._~+/=-"),
    ],
)
def test_the_widest_gaps_are_no_hiding_places(text: str) -> None:
    assert find_secret(text) is not None
    assert not surely_clean(encoded(f"{PROSE}\n{text}\n{PROSE}"))


@pytest.mark.parametrize("name", KEY_NAMES)
@pytest.mark.parametrize("filling", ["", ":", "=", "-" * 500, "!" * 500, " :=" * 100, "7" * 500])
def test_keys_may_be_as_long_as_they_like(name: str, filling: str) -> None:
    """Names are found before any number of signs and digits, and with signs between their words."""
    for key in (name + filling, name.replace("_", filling.strip("7") or "_")):
        assert find_secret({key: "x"}) is not None
        assert not surely_clean(encoded([PROSE, {key: "x"}, PROSE])), key


def in_text(value: Any, before: str, after: str) -> Any:
    """The value's first string, in the midst of a text."""
    while isinstance(value, (list, dict)) and value:
        value = next(iter(value))
    return before + str(value) + after


def beside_texts(value: Any, before: str, after: str) -> Any:
    """The value between texts."""
    return [before, value, after]


def under_keys(value: Any, before: str, after: str) -> Any:
    """The value in an object, the texts as keys and values."""
    return {"a": before, after: [1, value]}


@given(
    documents.values(),
    st.integers(0, 20),
    st.integers(3000, 5000),
    st.integers(0, 3000),
    st.sampled_from([in_text, beside_texts, under_keys]),
)
def test_where_the_walk_finds_a_secret_the_quick_look_passes_no_document(
    value: object, seed: int, words: int, place: int, frame: Callable[[Any, str, str], Any]
) -> None:
    text = prose(seed, words)
    document = frame(value, text[:place], text[place:])
    if find_secret(document) is not None:
        assert not surely_clean(encoded(document))
