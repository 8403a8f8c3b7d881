"""Credentials that are recognised by their own form.

Every shape has a literal that it cannot do without (its *anchor*): a text without the literal is passed
over at the speed of a substring search, and a pattern begins with the literal, so that it is tried only
where the literal stands. No pattern has a quantifier inside a quantifier, and where a pattern may scan
far before it fails, it starts at most once in the stretch that it scans: the cost is linear in the text.

Each detector takes a text's bytes and the same bytes in lower case, and yields what it finds in order.
"""

from __future__ import annotations

import functools
import json
import re
from base64 import b64decode, urlsafe_b64decode
from collections.abc import Callable, Iterator
from typing import NamedTuple

from perdure.secrets.markers import is_placeholder


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

    @property
    def signs(self) -> str:
        """What is neither letter nor digit in the prefix."""
        return "".join(char for char in self.prefix if not char.isalnum())


TOKEN_RUN = 20


def _has_token_header(token: bytes) -> bool:
    """Whether the first part of a JWT is a JSON object that names an algorithm."""
    header = token.partition(b".")[0]
    try:
        # Padding beyond need is ignored, so no length has to be computed.
        fields = json.loads(urlsafe_b64decode(header + b"=="))
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


@functools.cache
def token_pattern(token: Token, *, escaped: bool = False) -> re.Pattern[bytes]:
    """The pattern of a token; ``escaped`` tells that the text is JSON, where ``\\n`` ends in a letter.

    Compiled when the prefix is met for the first time: there are many tokens, and few are ever met.
    """
    prefix = re.escape(token.prefix)
    start = f"(?<![{token.glue}]{prefix})" if token.glue else ""
    if start and escaped:
        start = rf"(?:{start}|(?<=\\[nrtbf]{prefix})|(?<=\\u00[01][0-9a-f]{prefix}))"
    return re.compile(f"{prefix}{start}{token.body}".encode())


def _by_sign() -> tuple[tuple[str, tuple[Token, ...]], ...]:
    groups: dict[str, list[Token]] = {}
    for token in TOKENS:
        groups.setdefault(token.signs[:1], []).append(token)
    return tuple((sign, tuple(group)) for sign, group in groups.items())


# By the first sign in the prefix: hashes, for one, hold no sign, and most of the searches can be left out.
_BY_SIGN = _by_sign()


def tokens(raw: bytes, _low: bytes) -> Iterator[Match]:
    """The tokens of :data:`TOKENS`, kind after kind."""
    if len(raw) < TOKEN_RUN:
        return
    # In a short string a literal is found in a fraction of the time that bytes take.
    text = raw.decode("latin-1")
    for sign, group in _BY_SIGN:
        if sign in text:
            for token in group:
                if token.prefix in text:
                    for found in token_pattern(token).finditer(raw):
                        if token.check is None or token.check(found[0]):
                            yield Match(found.start(), found.end(), token.detector)


# "---- BEGIN SSH2 ENCRYPTED PRIVATE KEY ----" has four dashes and a space.
_PEM_BEGIN = re.compile(rb"----(?:-| )BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?(?:-| )----")
_PEM_END = re.compile(rb"----(?:-| )END [A-Z0-9 ]{1,60}-----?")


def pem_blocks(raw: bytes, _low: bytes) -> Iterator[Match]:
    """PEM private keys, encrypted ones too: up to their end line, or to the end of the text without one."""
    if b"PRIVATE KEY" not in raw:
        return
    end = 0
    while (begin := _PEM_BEGIN.search(raw, end)) is not None:
        last_line = _PEM_END.search(raw, begin.end())
        end = last_line.end() if last_line else len(raw)
        yield Match(begin.start(), end, "pem_block")


_BEARER = re.compile(rb"bearer(?<![a-z0-9]bearer)[ \t]{1,8}[a-z0-9._~+/=-]{16,}")


def bearer_tokens(_raw: bytes, low: bytes) -> Iterator[Match]:
    """``Bearer`` in any case and 16 token characters or more."""
    if b"bearer" in low:
        for found in _BEARER.finditer(low):
            yield Match(found.start(), found.end(), "bearer")


_BASIC = re.compile(rb"Basic(?<![A-Za-z0-9]Basic)[ \t]{1,8}([A-Za-z0-9+/]{6,}={0,2})")


def basic_credentials(raw: bytes, _low: bytes) -> Iterator[Match]:
    """``Basic`` and the Base64 of ``user:password``, as it stands in an HTTP header's value."""
    if b"Basic" in raw:
        for found in _BASIC.finditer(raw):
            if encodes_password(found[1]):
                yield Match(found.start(), found.end(), "basic_auth")


def encodes_password(encoded: bytes) -> bool:
    """Whether this is the Base64 of ``user:password``; words such as "information" decode to no such text."""
    try:
        user, _, password = b64decode(encoded).partition(b":")
    except ValueError:
        return False
    return password != b"" and (user + password).decode("latin-1").isprintable()


# The password may not begin with a port and a comma: "http://localhost:8080,bob@example.org".
_URL = re.compile(rb"://[^\s/?#\"'<>`@:]*:(?![0-9]{1,5}[,;|)\]])([^\s/?#\"'<>`]+)@")


def url_passwords(raw: bytes, _low: bytes) -> Iterator[Match]:
    """Passwords in URLs, but for placeholders (``***``, ``${NAME}``)."""
    if b"@" in raw and b"://" in raw:
        for found in _URL.finditer(raw):
            if not is_placeholder(found[1]):
                yield Match(found.start(1), found.end(1), "url_credentials")
