"""Credentials that are recognised by their own form.

Every shape has a literal that it cannot do without (its *anchor*): a text without the literal is passed
over at the speed of a substring search, and a pattern begins with the literal, so that it is tried only
where the literal stands. No pattern has a quantifier inside a quantifier, and where a pattern may scan
far before it fails, it starts at most once in the stretch that it scans: the cost is linear in the text.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterator
from typing import NamedTuple


class Match(NamedTuple):
    """Where in the bytes of a text a secret stands, and what found it."""

    start: int
    end: int
    detector: str


class Token(NamedTuple):
    """A token with a prefix of its issuer: ``prefix`` is a literal, ``body`` a pattern of what follows.

    ``glue`` are the characters that, standing before the prefix, make it a part of something else.
    ``check`` looks at the whole match. Every token holds :data:`TOKEN_RUN` characters of ``[A-Za-z0-9_-]``
    in a row.
    """

    detector: str
    prefix: str
    body: str
    glue: str = "A-Za-z0-9"
    check: Callable[[bytes], bool] | None = None


TOKEN_RUN = 20


def _has_token_header(token: bytes) -> bool:
    """Whether the first part of a JWT is a JSON object that names an algorithm."""
    import base64
    import json

    header = token.partition(b".")[0]
    try:
        # Padding beyond need is ignored, so no length has to be computed.
        fields = json.loads(base64.urlsafe_b64decode(header + b"=="))
    except (ValueError, RecursionError):
        return False
    return isinstance(fields, dict) and "alg" in fields


TOKENS: tuple[Token, ...] = (
    # The header of an unsigned token (alg "none") is shorter; it proves nothing and is no secret.
    Token(
        "json_web_token",
        "eyJ",
        r"[A-Za-z0-9_-]{17,}\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+",
        glue="A-Za-z0-9_-",
        check=_has_token_header,
    ),
    Token("aws_credential", "AKIA", r"[A-Z0-9]{16}(?![A-Za-z0-9])"),
    Token("aws_credential", "ASIA", r"[A-Z0-9]{16}(?![A-Za-z0-9])"),
    *(Token("github_token", f"gh{kind}_", r"[A-Za-z0-9_]{36,}") for kind in "pousr"),
    Token("github_token", "github_pat_", r"[A-Za-z0-9_]{36,}"),
    *(
        Token("gitlab_token", f"gl{kind}-", r"[A-Za-z0-9_-]{20,}(?:\.[A-Za-z0-9_-]+){0,4}")
        for kind in ("pat", "dt", "rt", "ptt", "cbt", "ft", "soat", "imt", "agent", "oas")
    ),
    Token("slack_token", "xox", r"[a-z]-[0-9][A-Za-z0-9-]{15,}"),
    Token("slack_token", "xapp-", r"[0-9]-[A-Za-z0-9-]{15,}"),
    Token("google_credential", "AIza", r"[A-Za-z0-9_-]{35}(?![A-Za-z0-9_-])"),
    Token("google_credential", "GOCSPX-", r"[A-Za-z0-9_-]{28}(?![A-Za-z0-9_-])"),
    Token("google_credential", "ya29.", r"[A-Za-z0-9_-]{30,}"),
    *(
        Token("stripe_credential", prefix, r"[A-Za-z0-9]{16,}")
        for prefix in ("sk_live_", "rk_live_", "sk_test_", "rk_test_")
    ),
    Token("stripe_credential", "whsec_", r"[A-Za-z0-9]{32,}"),
    # OpenAI, Anthropic, OpenRouter and those that took over their form.
    Token(
        "llm_credential",
        "sk-",
        r"(?:[A-Za-z0-9]{20,}|(?:ant|proj|svcacct|admin|or|None)-[A-Za-z0-9_-]{20,})",
    ),
    Token("npm_token", "npm_", r"[A-Za-z0-9]{36,}"),
    Token("pypi_token", "pypi-", r"Ag[A-Za-z0-9_-]{30,}"),
    Token("hugging_face_token", "hf_", r"[A-Za-z0-9]{30,}"),
    Token("sendgrid_credential", "SG.", r"[A-Za-z0-9_-]{20,24}\.[A-Za-z0-9_-]{39,50}"),
    *(Token("digitalocean_token", f"do{kind}_v1_", r"[a-f0-9]{64}") for kind in "opr"),
    Token("docker_token", "dckr_pat_", r"[A-Za-z0-9_-]{20,}"),
    Token("vault_token", "hvs.", r"[A-Za-z0-9_-]{24,}"),
    Token("telegram_token", ":AA", r"(?<=[0-9]{8}:AA)[A-Za-z0-9_-]{33}(?![A-Za-z0-9_-])", glue=""),
    Token("age_identity", "AGE-SECRET-KEY-1", r"[A-Z0-9]{58}"),
    # BIP-32: the key from which all keys of a wallet follow.
    *(Token("wallet_root", f"{kind}prv", r"[1-9A-HJ-NP-Za-km-z]{100,112}") for kind in "xyzt"),
)


class Compiled(NamedTuple):
    """A token's literal and pattern, ready for use on bytes."""

    anchor: bytes
    pattern: re.Pattern[bytes]
    detector: str
    check: Callable[[bytes], bool] | None


def compile_token(token: Token, *, escaped: bool = False) -> Compiled:
    """The pattern of a token; ``escaped`` tells that the text is JSON, where ``\\n`` ends in a letter."""
    prefix = re.escape(token.prefix)
    start = f"(?<![{token.glue}]{prefix})" if token.glue else ""
    if start and escaped:
        start = rf"(?:{start}|(?<=\\[nrtbf]{prefix})|(?<=\\u00[01][0-9a-f]{prefix}))"
    pattern = re.compile(f"{prefix}{start}{token.body}".encode())
    return Compiled(token.prefix.encode(), pattern, token.detector, token.check)


@functools.cache
def _tokens() -> tuple[Compiled, ...]:
    return tuple(compile_token(token) for token in TOKENS)


def tokens(raw: bytes) -> Iterator[Match]:
    """The tokens of :data:`TOKENS` in a text, those of one kind in order."""
    if len(raw) < TOKEN_RUN:
        return
    for anchor, pattern, detector, check in _tokens():
        if anchor in raw:
            for found in pattern.finditer(raw):
                if check is None or check(found[0]):
                    yield Match(found.start(), found.end(), detector)


@functools.cache
def _pem() -> re.Pattern[bytes]:
    # "---- BEGIN SSH2 ENCRYPTED PRIVATE KEY ----" has four dashes and a space.
    return re.compile(rb"----(?:-| )BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?(?:-| )----")


def pem_blocks(raw: bytes) -> Iterator[Match]:
    """PEM private keys, encrypted ones too: up to their end line, or to the end of the text without one."""
    if b"PRIVATE KEY" not in raw:
        return
    at = 0
    while (begin := _pem().search(raw, at)) is not None:
        end_line = raw.find(b"END", begin.end())
        while end_line != -1 and raw[end_line - 5 : end_line] not in (b"-----", b"---- "):
            end_line = raw.find(b"END", end_line + 3)
        closing = raw.find(b"----", end_line) if end_line != -1 else -1
        at = len(raw) if closing == -1 else closing + 4
        if raw[at : at + 1] == b"-":
            at += 1
        yield Match(begin.start(), at, "pem_block")


@functools.cache
def _bearer() -> re.Pattern[bytes]:
    return re.compile(rb"bearer(?<![a-z0-9]bearer)[ \t]+[a-z0-9._~+/=-]{16,}")


def bearer_tokens(low: bytes) -> Iterator[Match]:
    """``Bearer`` in any case and 16 token characters or more; ``low`` is the text in lower case."""
    if b"bearer" in low:
        for found in _bearer().finditer(low):
            yield Match(found.start(), found.end(), "bearer")


@functools.cache
def _basic() -> re.Pattern[bytes]:
    return re.compile(rb"Basic(?<![A-Za-z0-9]Basic)[ \t]+([A-Za-z0-9+/]{6,}={0,2})")


def basic_credentials(raw: bytes) -> Iterator[Match]:
    """``Basic`` and the Base64 of ``user:password``, as it stands in an HTTP header's value."""
    if b"Basic" not in raw:
        return
    from base64 import b64decode

    for found in _basic().finditer(raw):
        try:
            user, colon, password = b64decode(found[1]).partition(b":")
        except ValueError:
            continue
        # Words such as "Basic information" decode too, but not to text with a colon inside.
        if colon and password and (user + password).decode("latin-1").isprintable():
            yield Match(found.start(), found.end(), "basic_auth")


@functools.cache
def _url() -> re.Pattern[bytes]:
    # The password may not begin with a port and a comma: "http://localhost:8080,bob@example.org".
    return re.compile(rb"://[^\s/?#\"'<>`@:]*:(?![0-9]{1,5}[,;|)\]])([^\s/?#\"'<>`]+)@")


@functools.cache
def _no_password() -> re.Pattern[bytes]:
    return re.compile(rb"[^A-Za-z0-9\x80-\xff]*|\[redacted:[a-z][a-z0-9_]{0,62}\]|\$?\{[^{}]*\}|\$[A-Z0-9_]+")


def url_passwords(raw: bytes) -> Iterator[Match]:
    """Passwords in URLs. Masks (``***``), markers and variables (``${NAME}``, ``{name}``) are none."""
    if b"@" in raw and b"://" in raw:
        for found in _url().finditer(raw):
            if not _no_password().fullmatch(found[1]):
                yield Match(found.start(1), found.end(1), "url_credentials")
