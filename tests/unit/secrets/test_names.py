"""Which keys name a secret."""

from __future__ import annotations

import re

import pytest

from perdure.secrets import KEY_NAMES, find_secret, redact, text_may_hold_secret
from perdure.secrets.names import is_key_name
from tests.unit.secrets import cases


@pytest.mark.parametrize("name", KEY_NAMES)
def test_a_name_counts_in_every_spelling(name: str) -> None:
    words = name.split("_")
    camel = words[0] + "".join(word.capitalize() for word in words[1:])
    for joined in (
        "_".join(words),
        "-".join(words),
        " ".join(words),
        ".".join(words),
        "/".join(words),
        "".join(words),
    ):
        for spelling in (joined, joined.upper(), joined.title(), camel, camel[0].upper() + camel[1:]):
            for key in (
                spelling,
                f"db_{spelling}",
                f"DB-{spelling.upper()}",
                f"x.{spelling}",
                f"{spelling}_2",
            ):
                assert is_key_name(key), key


@pytest.mark.parametrize("name", KEY_NAMES)
def test_a_name_counts_only_as_the_last_words(name: str) -> None:
    for key in (f"{name}_policy", f"{name}-status", f"{name}Hint", f"{name}s", f"{name}é"):
        assert not is_key_name(key), key


@pytest.mark.parametrize(
    "key",
    [
        *("db_password", "dbPassword", "DB-PASSWORD", "X-Api-Key", "PGPASSWORD", "dbpassword", "IDToken"),
        *(
            "user[password]",
            "aws_secret_access_key",
            "password2",
            "oauth2AccessToken",
            "APIKey",
            "accessTOKEN",
        ),
        *("Proxy-Authorization", "my\npassword", "password__", "api -- key"),
    ],
)
def test_these_name_a_secret(key: str) -> None:
    assert is_key_name(key)


@pytest.mark.parametrize(
    "key",
    [
        *("", "2", "token", "next_token", "page_token", "max_tokens", "secret", "key", "monkey", "publicKey"),
        *(
            "authorization_status",
            "password_policy",
            "passwordless",
            "access_key_id",
            "valid_token",
            "NOPASSWD",
        ),
        *("api_x_key", "api\nkey", "apiékey", "phrase", "pwd", "seed", "bigapikey", "[redacted:x]"),
    ],
)
def test_these_do_not(key: str) -> None:
    assert not is_key_name(key)


def test_a_marker_is_one_word_that_belongs_to_no_name() -> None:
    assert not is_key_name("api [redacted:github_token] key")
    assert not is_key_name("[redacted:some_access] key")
    assert is_key_name("[redacted:github_token] password")


def test_no_marker_looks_like_a_secret_itself() -> None:
    detectors = {secret.detector for secret in cases.SECRETS} | {"key_name", "strict_substring"}
    for detector in detectors:
        assert re.fullmatch("[a-z][a-z0-9_]*", detector)
        assert not text_may_hold_secret(f"[redacted:{detector}]")


def test_the_string_under_a_name_counts_whatever_it_holds_but_a_marker() -> None:
    assert find_secret({"password": "hunter2"}) == ("/password", "key_name")
    assert find_secret({"password": "***"}) == ("/password", "key_name")
    assert find_secret({"password": "is too short"}) == ("/password", "key_name")
    none_of_these: list[object] = ["", "[redacted:key_name]", None, 5, True, [], {}, {"min": "8"}]
    for harmless in none_of_these:
        assert find_secret({"password": harmless}) is None


def test_words_in_a_list_under_a_name_count_and_sentences_do_not() -> None:
    assert find_secret({"mnemonic": ["", "abandon", "about"]}) == ("/mnemonic/1", "key_name")
    assert find_secret({"password": [["x"]]}) == ("/password/0/0", "key_name")
    assert find_secret({"password": ("is too short", {"hint": "x"})}) is None
    assert find_secret({"authorization": [cases.LOGIN]}) == ("/authorization/0", "basic_auth")


def test_a_message_is_lost_for_a_name_in_any_spelling() -> None:
    for message in ("bad PRIVATE KEY", "bad privateKey", "the access-token", "mypasswords", "invalid token"):
        assert text_may_hold_secret(message)
    assert text_may_hold_secret("ghp_" + "a" * 36)
    assert not text_may_hold_secret("connection refused by host key, token 5, api  key")


def test_redacting_under_a_name_replaces_the_whole_string() -> None:
    assert redact({"password": "a ghp_" + "a" * 36})[0] == {"password": "[redacted:key_name]"}
