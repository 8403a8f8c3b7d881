"""Redaction: what is replaced, and what is not touched."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

from hypothesis import given

from perdure.secrets import SecretPolicy, find_secret, redact
from tests.unit.secrets import documents
from tests.unit.secrets.cases import PHRASE

TOKEN = "ghp_" + "a" * 36
MARKER = "[redacted:github_token]"


def test_findings_are_in_order_and_point_into_the_result() -> None:
    value = {"note": f"{TOKEN} and password=x", "list": [1, (TOKEN, PHRASE)], TOKEN: {"passwd": "y"}}
    result, findings = redact(value)
    assert result == {
        "note": f"{MARKER} and password=[redacted:assignment]",
        "list": [1, (MARKER, "[redacted:bip39_phrase]")],
        MARKER: {"passwd": "[redacted:key_name]"},
    }
    assert findings == [
        ("/note", "github_token"),
        ("/note", "assignment"),
        ("/list/1/0", "github_token"),
        ("/list/1/1", "bip39_phrase"),
        (f"/{MARKER}", "github_token"),
        (f"/{MARKER}/passwd", "key_name"),
    ]


def test_the_value_itself_is_not_changed() -> None:
    value = {"a": [TOKEN, {"password": "x"}], "b": [1, [2]]}
    before = deepcopy(value)
    result: Any = redact(value)[0]
    assert value == before
    result["b"][1].append(3)
    assert value == before


def test_keys_stay_unique() -> None:
    other = "ghp_" + "b" * 36
    third = "ghp_" + "c" * 36
    value = {TOKEN: 1, other: 2, f"{MARKER} 2": 3, third: 4}
    assert redact(value)[0] == {MARKER: 1, f"{MARKER} 3": 2, f"{MARKER} 2": 3, f"{MARKER} 4": 4}


def test_a_number_that_would_be_a_secret_is_avoided() -> None:
    other = "ghp_" + "b" * 36
    result = redact({f"{TOKEN} password:": 1, f"{other} password:": 2})[0]
    assert result == {f"{MARKER} password:": 1, MARKER: 2}


def test_a_key_that_becomes_a_name_hides_its_value() -> None:
    result = redact({f"api_{TOKEN}": "x", f"{TOKEN} password": "y", "password=x y": "z"})[0]
    assert result == {
        f"api_{MARKER}": "x",
        f"{MARKER} password": "[redacted:key_name]",
        "password=[redacted:assignment] y": "z",
    }


def test_overlapping_secrets_are_one() -> None:
    assert redact(f"password={TOKEN}") == (f"password={MARKER}", [("", "github_token")])
    assert redact(f"password=x-{TOKEN}-y") == ("password=[redacted:assignment]", [("", "assignment")])
    assert redact(f"x://u:{TOKEN}/y@h")[0] == f"x://u:{MARKER}/y@h"


def test_what_shows_ever_more_secrets_is_replaced_whole() -> None:
    # Each token begins inside a word until the one before it is gone.
    token = "dop_v1_" + "a" * 64
    marker = "[redacted:digitalocean_token]"
    assert redact(token * 2)[0] == marker * 2
    assert redact(token * 9)[0] == marker


def test_a_sentence_that_becomes_a_word_under_a_name_is_replaced_whole() -> None:
    value = {"password": ["=-----BEGIN PRIVATE KEY-----"]}
    assert redact(value)[0] == {"password": ["[redacted:key_name]"]}


def test_an_allowed_place_is_left_as_it_is() -> None:
    policy = SecretPolicy(allow=("/a", f"/{TOKEN}/password"))
    value = {"a": {"password": "x"}, "password": "y", TOKEN: {"password": "z"}}
    # The last place has another pointer once its key is replaced: it is no longer the one that was allowed.
    assert redact(value, policy)[0] == {
        "a": {"password": "x"},
        "password": "[redacted:key_name]",
        MARKER: {"password": "[redacted:key_name]"},
    }


def test_the_strict_rule_replaces_keys_and_whole_strings() -> None:
    result, findings = redact(
        {"password_policy": {"password": "x"}, "b": "the password"}, SecretPolicy(strict=True)
    )
    marker = "[redacted:strict_substring]"
    assert result == {marker: {marker: "[redacted:key_name]"}, "b": marker}
    assert findings[0] == (f"/{marker}", "strict_substring")


def test_depth_is_no_limit() -> None:
    value: Any = TOKEN
    for _ in range(3000):
        value = [{"a": value}]
    result: Any = redact(value)[0]
    for _ in range(3000):
        result = result[0]["a"]
    assert result == MARKER


@given(documents.values())
def test_nothing_is_left_to_find(value: object) -> None:
    result, findings = redact(value)
    assert find_secret(result) is None
    assert redact(result) == (result, [])
    assert (findings == []) == (find_secret(value) is None)
    if not findings:
        assert result == value


@given(documents.values())
def test_nothing_is_left_to_find_for_a_strict_policy(value: object) -> None:
    strict = SecretPolicy(strict=True)
    result, findings = redact(value, strict)
    assert find_secret(result, strict) is None
    assert redact(result, strict) == (result, [])
    assert (findings == []) == (find_secret(value, strict) is None)
