"""What the detectors find in a text, what they leave alone, and that each of them is needed."""

from __future__ import annotations

import pytest

from perdure.secrets import SecretFinding, find_secret, redact, surely_clean
from perdure.secrets.detectors import DETECTORS, matches
from perdure.secrets.shapes import TOKENS
from tests.unit.secrets import cases, documents


@pytest.mark.parametrize("secret", cases.SECRETS, ids=lambda secret: f"{secret.detector}: {secret.reason}")
def test_a_secret_is_found(secret: cases.Secret) -> None:
    found = matches(secret.text.encode(), 1)
    assert secret.detector in {match.detector for match in found}
    assert find_secret(secret.text) == SecretFinding("", found[0].detector)


@pytest.mark.parametrize(
    "secret",
    [secret for secret in cases.SECRETS if secret.detector != "assignment" or "Basic" not in secret.text],
    ids=lambda secret: f"{secret.detector}: {secret.reason}",
)
def test_only_the_secret_is_replaced(secret: cases.Secret) -> None:
    result, findings = redact(secret.text)
    assert result == secret.left
    assert {finding.pointer for finding in findings} == {""}


@pytest.mark.parametrize(("text", "reason"), cases.CLEAN)
def test_what_is_no_secret_is_left_alone(text: str, reason: str) -> None:
    assert find_secret(text) is None, reason
    assert redact(text) == (text, [])


@pytest.mark.parametrize("token", cases.TOKENS, ids=lambda token: token.text[:12])
def test_a_token_is_found_between_signs_but_not_inside_a_word(token: cases.Secret) -> None:
    assert find_secret(f"(\n{token.text}, as it was)") == SecretFinding("", token.detector)
    assert find_secret(f"Z{token.text}") is None


def test_every_detector_of_a_token_has_a_case() -> None:
    assert {token.detector for token in TOKENS} <= {secret.detector for secret in cases.SECRETS}
    prefixes = {token.prefix for token in TOKENS}
    covered = {prefix for prefix in prefixes for secret in cases.SECRETS if prefix in secret.text}
    assert covered == prefixes


def test_every_detector_finds_something_that_no_other_finds() -> None:
    for detector in DETECTORS[1]:
        others = [each for each in DETECTORS[1] if each is not detector]
        raws = [secret.text.encode() for secret in cases.SECRETS]
        assert any(
            list(detector(raw, raw.lower())) and not any(list(each(raw, raw.lower())) for each in others)
            for raw in raws
        ), detector


def test_the_first_secret_in_a_text_is_the_one_reported() -> None:
    token = "ghp_" + "a" * 36
    assert find_secret(f"password=x {token}") == SecretFinding("", "assignment")
    assert find_secret(f"{token} password=x") == SecretFinding("", "github_token")


def test_only_ascii_letters_have_case() -> None:
    kelvin, long_s = "\u212a", "\u017f"
    assert find_secret(f"api_{kelvin}ey=abc") is None
    assert find_secret({f"pa{long_s}sword": "x"}) is None


def test_lone_surrogates_are_no_obstacle() -> None:
    assert find_secret("\ud800 password=x") == SecretFinding("", "assignment")
    assert redact("\ud800 password=x")[0] == "\ud800 password=[redacted:assignment]"


# Each is the beginning of what some pattern looks for, over and over. A cost that grew with the square of
# the length would take minutes, and the time limit of the suite would end the test.
ADVERSARIES = [
    "eyJ",
    "_eyJ-eyJ",
    "eyJhbGciOiJIUzI1NiJ9.",
    "AKIA",
    "ghp_",
    "glpat-x.",
    "SG.aaaaaaaaaaaaaaaaaaaaaa.",
    "sk-ant-",
    "xoxb-1-",
    "xprv",
    "-----BEGIN PRIVATE KEY-----",
    "-----BEGIN ",
    "----END PRIVATE KEY",
    "bearer ",
    "bearer \t ",
    "Basic aaaaa:",
    "://a:b",
    "://:",
    "password",
    "password:",
    "password: ",
    "password='",
    'password: "',
    "password:a://",
    "password: str",
    "password = a.b = ",
    "password]]]]    ",
    "private key: a ",
    "mnemonic: abandon ",
    "abandon ",
    "authorization: digest a",
    "api_",
    "[redacted:",
    "\\",
    '"',
    "\n",
    " ",
    "a",
    "A",
    "é",
]


@pytest.mark.parametrize("piece", ADVERSARIES)
def test_the_cost_is_linear(piece: str) -> None:
    for ahead in ("", "password: ", "x://u:"):
        text = ahead + piece * (400_000 // len(piece))
        found = matches(text.encode(), 1)
        assert not found or not surely_clean(documents.encoded(text))


@pytest.mark.parametrize("piece", ADVERSARIES)
def test_a_text_of_one_piece_comes_clean(piece: str) -> None:
    result, _ = redact(piece * 100)
    assert find_secret(result) is None
