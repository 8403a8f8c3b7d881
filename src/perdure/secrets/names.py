"""The names of places where secrets live.

A key counts by its last words: ``db_password``, ``dbPassword``, ``DB-PASSWORD`` and ``user[password]``
do, ``password_policy`` and ``authorization_status`` do not. Words end at a change of case, at a digit, and
at any printable ASCII character that is neither letter nor digit (``"`` and ``\\`` apart: JSON escapes
these, and the prefilter relies on names that are never escaped). Numbers at the end are ignored
(``password2``).

Left out on purpose:

- bare ``token`` (``next_token``, ``page_token``, ``max_token``) and bare ``secret``: a reference to a
  secret by its name is the right thing to write, and ``secret`` is the key under which it is written;
- ``pwd`` (the working directory), ``seed`` (of random numbers), ``cookie``, ``pin``;
- plurals, which mostly hold counts, names or lists of names.
"""

from __future__ import annotations

import functools
import re

from perdure.secrets.markers import MARKER

KEY_NAMES: tuple[str, ...] = (
    "password",
    "passwd",
    "passphrase",
    "pass_phrase",
    "mnemonic",
    "mnemonic_phrase",
    "seed_phrase",
    "recovery_phrase",
    "backup_phrase",
    "secret_phrase",
    "private_key",
    "api_key",
    "access_key",
    "secret_key",
    "encryption_key",
    "client_secret",
    "api_secret",
    "app_secret",
    "consumer_secret",
    "jwt_secret",
    "session_secret",
    "shared_secret",
    "signing_secret",
    "webhook_secret",
    "access_token",
    "api_token",
    "auth_token",
    "bearer_token",
    "id_token",
    "oauth_token",
    "refresh_token",
    "session_token",
    "authorization",
)
"""The names; ``_`` stands where words may be joined by a separator or by nothing."""

GLUED_NAMES = frozenset({"password", "passwd", "passphrase"})
"""Names that count at the end of a longer word too: ``PGPASSWORD``, ``dbpassword``."""


@functools.cache
def _words() -> re.Pattern[str]:
    return re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+|[^ -~]+|[\"\\]+")


@functools.cache
def _last_words() -> re.Pattern[str]:
    # The sudoers tag NOPASSWD says that there is no password.
    glued = "|".join(sorted(GLUED_NAMES))
    others = "|".join(name.replace("_", "_?") for name in KEY_NAMES if name not in GLUED_NAMES)
    return re.compile(f"(?:(?<!no)(?:{glued})|(?:^|_)(?:{others}))\\Z")


@functools.cache
def _anywhere(separators: str) -> re.Pattern[str]:
    return re.compile("|".join(name.replace("_", separators) for name in KEY_NAMES))


def is_key_name(key: str) -> bool:
    """Whether the last words of ``key`` are one of :data:`KEY_NAMES`."""
    if "[redacted:" in key:
        # A marker is one opaque word: its own words never make a name with what stands next to it.
        key = re.sub(MARKER, "\0", key)
    words = _words().findall(key)
    while words and words[-1].isdigit():
        words.pop()
    # No name has more than four words, glued or not.
    return bool(words) and _last_words().search("_".join(words[-4:]).lower()) is not None


def mentions_key_name(text: str) -> bool:
    """Whether ``text`` contains a key name anywhere, in any case, joined by nothing, ``_`` or ``-``."""
    return _anywhere("[_-]?").search(lower_ascii(text)) is not None


def mentions_key_name_in_words(text: str) -> bool:
    """As :func:`mentions_key_name`, with a space as a separator too."""
    return _anywhere("[ _-]?").search(lower_ascii(text)) is not None


def lower_ascii(text: str) -> str:
    """``text`` with A-Z in lower case and everything else, the Kelvin sign included, as it is."""
    return text.lower() if text.isascii() else text.translate(_LOWER)


_LOWER = {upper: upper + 32 for upper in range(ord("A"), ord("Z") + 1)}
