"""The quick look: it never passes a document in which the walk finds something."""

from __future__ import annotations

import pytest
from hypothesis import given

from perdure.secrets import find_secret, surely_clean
from perdure.secrets.names import KEY_NAMES
from tests.unit.secrets import cases, documents
from tests.unit.secrets.documents import encoded

# What JSON writes as an escape, or as itself, next to a secret.
NEIGHBOURS = ["", " ", "\n", "\t", "\b", "\x01", "\x1f", '"', "\\", "\\n", "é", "😀", "(", "x"]


@given(documents.values())
def test_what_passes_is_clean(value: object) -> None:
    if surely_clean(encoded(value)):
        assert find_secret(value) is None


@pytest.mark.parametrize("secret", cases.SECRETS, ids=lambda secret: f"{secret.detector}: {secret.reason}")
def test_no_secret_passes_whatever_stands_next_to_it(secret: cases.Secret) -> None:
    for before in NEIGHBOURS:
        for after in NEIGHBOURS:
            text = f"{before}{secret.text}{after}"
            for value in (text, [0, text], {text: 1}):
                if find_secret(value) is not None:
                    assert not surely_clean(encoded(value)), value


@pytest.mark.parametrize("name", KEY_NAMES)
def test_no_key_name_passes_in_any_spelling(name: str) -> None:
    words = name.split("_")
    for separator in (*"!#$%&'()*+,-./:;<=>?@[]^_`{|}~ ", "", " - ", "____"):
        for ahead in ("", "db", "\n", "é_", "\\"):
            for after in ("", "2", "_", "]", ": ", "__3__"):
                key = f"{ahead}{separator.join(words)}{after}"
                for spelling in (key, key.upper(), key.title()):
                    value = {spelling: "x"}
                    if find_secret(value) is not None:
                        assert not surely_clean(encoded(value)), value


@pytest.mark.parametrize(
    "value",
    [
        {"id": 123, "name": "item 12", "tags": ["a", "b"], "price": 199},
        [[1, 2, 3], [-4, 5, 6]],
        {"hash": "e" * 64, "id": "3f2504e0-4f89-11d3-9a0c-0305e82c3301", "at": "2024-01-01T00:00:00Z"},
        {"prompt_tokens": 5, "key": "a", "keys": [1], "secrets": 0, "authorization_status": "granted"},
        "The password is checked, and the api key too. Basic information is given to the bearer of a letter.",
        {"mail": "bob@example.org", "url": "https://example.org:443/x?y=1"},
        {"words": cases.WRONG_PHRASE},
        ["src/auth/password_reset.py", "feat-password-reset-for-all-the-users"],
    ],
)
def test_ordinary_documents_pass(value: object) -> None:
    assert surely_clean(encoded(value))
