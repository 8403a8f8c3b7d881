"""The walk: which place is reported, and how."""

from __future__ import annotations

import json
from typing import Any

import pytest

from perdure.secrets import DEFAULT_POLICY, LATEST_VERSION, SecretPolicy, find_secret
from tests.unit.secrets.cases import PHRASE

TOKEN = "ghp_" + "a" * 36


def test_the_examples_of_the_contract() -> None:
    assert find_secret({"password": "hunter2"}) == ("/password", "key_name")
    assert find_secret({"note": PHRASE}) == ("/note", "bip39_phrase")
    assert find_secret({"authorization_status": "granted"}) is None


def test_a_string_on_its_own_has_the_empty_pointer() -> None:
    assert find_secret(TOKEN) == ("", "github_token")


def test_the_pointer_escapes_what_it_must() -> None:
    assert find_secret({"a/b": [{"c~d": TOKEN}]}) == ("/a~1b/0/c~0d", "github_token")


def test_the_first_place_in_document_order_is_reported() -> None:
    value = {"a": [1, {"z": "x"}], "b": {"password": "x"}, "c": TOKEN}
    assert find_secret(value) == ("/b/password", "key_name")
    assert find_secret(dict(reversed(value.items()))) == ("/c", "github_token")


def test_a_key_that_is_a_secret_is_found_and_not_shown() -> None:
    finding = find_secret({"x": {f"to {TOKEN}": {"password": "x"}}})
    assert finding == ("/x/to [redacted:github_token]", "github_token")


def test_what_is_not_json_is_passed_over() -> None:
    assert find_secret([1.5, b"password=x", object(), {5: "x", None: TOKEN}]) == ("/3/None", "github_token")


def test_subclasses_of_strings_are_strings() -> None:
    class Name(str):
        __slots__ = ()

    assert find_secret([Name(TOKEN)]) == ("/0", "github_token")


def test_depth_is_no_limit() -> None:
    value: Any = TOKEN
    for _ in range(5000):
        value = {"a": [value]}
    found = find_secret(value)
    assert found is not None
    assert found.pointer == "/a/0" * 5000


def test_an_allowed_place_is_not_judged_nor_is_what_is_below_it() -> None:
    value = {"a": {"password": "x", TOKEN: 1, "deep": [TOKEN]}, "b/c": [0, TOKEN]}
    assert find_secret(value, SecretPolicy(allow=("/a", "/b~1c/1"))) is None
    assert find_secret(value, SecretPolicy(allow=("",))) is None
    assert find_secret(value, SecretPolicy(allow=("/a",))) == ("/b~1c/1", "github_token")
    assert find_secret(value, SecretPolicy(allow=("/a/deep", "/a/password"))) == (
        "/a/[redacted:github_token]",
        "github_token",
    )


def test_the_strict_rule_finds_names_anywhere() -> None:
    strict = SecretPolicy(strict=True)
    assert find_secret({"passwordPolicy": 8}, strict) == ("/passwordPolicy", "strict_substring")
    assert find_secret({"note": "my PRIVATE-KEY file"}, strict) == ("/note", "strict_substring")
    assert find_secret(["passwd"], strict) == ("/0", "strict_substring")
    assert find_secret({"note": TOKEN}, strict) == ("/note", "github_token")
    assert find_secret({"note": "[redacted:key_name]", "x": "harmless"}, strict) is None
    assert find_secret({"password_policy": 8}, SecretPolicy(strict=True, allow=("/password_policy",))) is None


def test_a_policy_is_a_value() -> None:
    assert SecretPolicy() == DEFAULT_POLICY
    assert hash(SecretPolicy(strict=True, allow=("/a",))) == hash(SecretPolicy(1, True, ("/a",)))
    assert DEFAULT_POLICY.version == LATEST_VERSION == 1
    with pytest.raises(AttributeError):
        DEFAULT_POLICY.strict = True  # type: ignore[misc] # the test is that this fails


@pytest.mark.parametrize("version", [0, -1, LATEST_VERSION + 1])
def test_an_unknown_version_is_refused(version: int) -> None:
    with pytest.raises(ValueError, match=str(version)):
        SecretPolicy(version=version)


@pytest.mark.parametrize("pointer", ["a", "a/b", "/a~2", "/~"])
def test_what_is_no_pointer_is_refused(pointer: str) -> None:
    with pytest.raises(ValueError, match="pointer"):
        SecretPolicy(allow=(pointer,))


def test_a_finding_never_shows_the_secret() -> None:
    assert TOKEN not in json.dumps(find_secret({TOKEN: TOKEN}))
