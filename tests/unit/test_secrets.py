"""What counts as a secret, and what does not."""

from __future__ import annotations

import hashlib
import json
from importlib import resources
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perdure.secrets import SecretPolicy, find_secret, redact, surely_clean, text_may_hold_secret

PHRASE = "abandon " * 11 + "about"
TOKEN = "ghp_" + "a1B2" * 9
FOUND: list[tuple[Any, str | None]] = [
    ({"password": "hunter2"}, "/password"),
    ({"a": [{"dbPassword": "x"}]}, "/a/0/dbPassword"),
    ({"DB-PASSWORD": "x"}, "/DB-PASSWORD"),
    ({"x-api-key": "x"}, "/x-api-key"),
    ({"note": PHRASE}, "/note"),
    ({"note": PHRASE.upper().replace(" ", "\n")}, "/note"),
    ("use " + TOKEN + " now", ""),
    ({TOKEN: 1}, None),
    ("-----BEGIN RSA PRIVATE KEY-----\nMIIE", ""),
    ("AKIAIOSFODNN7EXAMPLE", ""),
    ("Bearer abcdefghij0123456789", ""),
    ("PASSWORD=hunter2", ""),
    ("password: hunter2", ""),
    ("postgres://bob:hunter2@db/x", ""),
    ("eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2lnbmF0dXJl", ""),
]
CLEAN: list[Any] = [
    {"password": ""},
    {"password_policy": "long", "authorization_status": "ok", "next_token": "abc"},
    {"note": "abandon " * 11 + "abandon"},
    "Reset your password: see the guide",
    "feat(password): allow reset",
    "fix: token refresh",
    "src/auth/password_reset.py",
    "0123456789abcdef0123456789abcdef01234567",
    "6ba7b810-9dad-11d1-80b4-00c04fd430c8",
    "https://example.org/path?q=1",
    "Ada <ada@example.org>",
    {"password": "[redacted:key_name]"},
    [1, None, True, {"a": []}],
]


def canonical(value: Any) -> bytes:
    """Canonical enough: sorted, tight, UTF-8."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), sort_keys=True).encode()


@pytest.mark.parametrize(("value", "pointer"), FOUND)
def test_found(value: Any, pointer: str | None) -> None:
    """Where it stands; the quick look never overlooks it; redacting takes it out, and all of it."""
    finding = find_secret(value)
    assert finding is not None
    assert pointer in (None, finding.pointer)
    assert not surely_clean(canonical(value))
    cleaned, findings = redact(value)
    assert findings
    assert find_secret(cleaned) is None
    assert redact(cleaned) == (cleaned, [])


@pytest.mark.parametrize("value", CLEAN)
def test_clean(value: Any) -> None:
    """No finding, and redaction changes nothing."""
    assert find_secret(value) is None
    assert redact(value) == (value, [])


def test_policies() -> None:
    """A place may be allowed by name; a stricter rule knows no context."""
    assert find_secret({"a": {"password": "x"}}, SecretPolicy(allow=("/a/password",))) is None
    assert find_secret({"a": "the password policy"}, SecretPolicy(strict=True)) is not None
    for bad in ({"version": 99}, {"allow": ("no pointer",)}):
        with pytest.raises(ValueError, match="not"):
            SecretPolicy(**bad)


def test_messages_are_judged_hard() -> None:
    """Losing a message never stops a run."""
    assert text_may_hold_secret("the API key is gone")
    assert text_may_hold_secret(TOKEN)
    assert not text_may_hold_secret("connection refused")


def test_the_word_list_is_the_standard_s() -> None:
    """2048 words, by their published hash."""
    data = resources.files("perdure.secrets").joinpath("bip39_english.txt").read_bytes()
    assert (
        hashlib.sha256(data).hexdigest() == "2f5eed53a4727b4bf8880d8f3f199efc90e58503646d9ff8eff3a2ed3b24dbda"
    )


pieces = st.sampled_from(
    [
        "password",
        "api",
        "key",
        "_",
        "-",
        " ",
        ":",
        "=",
        "hunter2",
        TOKEN,
        PHRASE,
        "Bearer ",
        "a1" * 10,
        "\n",
        "authorization",
        "token",
        "access",
        "private",
        "://",
        "@",
        "bob",
        "x",
        "é",
        '"',
        "\\",
        "mnemonic",
    ]
) | st.text(max_size=4)
texts = st.lists(pieces, max_size=6).map("".join).filter(lambda text: text.isprintable() or "\n" in text)
documents = st.recursive(
    texts | st.integers(0, 9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
)


@given(documents)
def test_the_quick_look_never_overlooks_anything(value: Any) -> None:
    """Surely clean means that the walk finds nothing, and what is redacted is clean."""
    try:
        data = canonical(value)
    except UnicodeEncodeError:
        return
    if surely_clean(data):
        assert find_secret(value) is None
    assert find_secret(redact(value)[0]) is None
