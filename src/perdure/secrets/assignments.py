"""``name=value`` and ``name: value`` in text, where the name is a key name.

The hard part is prose. What follows ``=`` is always a value. What follows ``:`` is one if it is

- quoted: ``"api_key": "abc"``;
- a credential after an HTTP scheme: ``Authorization: Basic dXNlcjpwYXNz``;
- alone: one word, and then the line or a bracket ends, or the next ``name:`` or ``name=`` begins:
  ``password: hunter2``, ``user: bob password: hunter2 host: x``;
- followed by more words, but made of letters and digits both: ``password: hunter2 is mine``. Sizes
  (``24-word``) and names of algorithms (``SHA256``) are taken for prose here;
- a BIP-39 phrase, after the name of a phrase.

So ``Reset your password: see the guide`` is prose, and so is anything in which the name is not directly
followed by the sign. Types and empties (``password: str``, ``password=None``), variables (``${NAME}``),
masks (``****``) and markers are no values; nor is a URL after ``:``.

It errs towards finding in ``password: refused`` (one word, and the line ends) and in source code that
assigns a variable (``password=password``), which cannot be told from a word. It misses a passphrase of
several plain words without quotes, and a value on the line below.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from perdure.secrets.names import GLUED_NAMES, KEY_NAMES
from perdure.secrets.shapes import Match
from perdure.secrets.values import value_after

DETECTOR = "assignment"

# The bounds are those of ESCAPES_BEFORE_SIGN_MAX, and no pattern may go back over them more than once.
_SIGN = r"[0-9]{0,4}[\"'`\]\\]{0,4}[ \t]{0,32}(=>|:=|=(?![=~>])|:(?!:|//))[ \t]*"
ESCAPES_BEFORE_SIGN_MAX = 4 + 32
"""How many characters that JSON escapes may stand between a name and its sign."""

_FIRST_WORD_MAX = 16


class _Name:
    """The names that end with the same last word, and the patterns that find them."""

    __slots__ = ("glued", "leading", "of_phrase", "pattern", "word")

    def __init__(self, last: str, firsts: list[str]) -> None:
        self.word = last.encode()
        self.glued = last in GLUED_NAMES
        self.of_phrase = last in ("phrase", "mnemonic")
        # The sudoers tag NOPASSWD says that there is no password.
        word = rf"{last}(?<!no{last})" if self.glued else last
        self.pattern = re.compile((word + _SIGN).encode())
        joined = "|".join(firsts)
        self.leading = re.compile(rf"(?:{joined})[ _.-]?\Z".encode()) if joined else None

    def stands(self, raw: bytes, low: bytes, at: int) -> bool:
        """Whether the last word at ``at`` ends one of the names."""
        if self.glued:
            return True
        if self.leading is not None:
            before = self.leading.search(low, max(0, at - _FIRST_WORD_MAX), at)
            if before is None:
                return False
            at = before.start()
        return _begins_word(raw, at)


def _grouped() -> tuple[_Name, ...]:
    firsts: dict[str, list[str]] = {}
    for name in KEY_NAMES:
        first, _, last = name.rpartition("_")
        firsts.setdefault(last, []).append(first)
    return tuple(_Name(last, words) for last, words in firsts.items())


_NAMES = _grouped()


def assignments(raw: bytes, low: bytes) -> Iterator[Match]:
    """The values that are assigned to key names; a finding is the value alone, without the name."""
    if b":" not in low and b"=" not in low:
        return
    for name in _NAMES:
        if name.word not in low:
            continue
        end_of_last = 0
        for sign in name.pattern.finditer(low):
            # What stands inside a value was found with it.
            if sign.start() < end_of_last or not name.stands(raw, low, sign.start()):
                continue
            value = value_after(raw, low, sign.end(), certain=sign[1] != b":", phrase=name.of_phrase)
            if value is not None:
                end_of_last = value[1]
                yield Match(*value, DETECTOR)


def _begins_word(raw: bytes, at: int) -> bool:
    """Whether a word begins at ``at``: after a digit, at a change of case, or after what is no letter."""
    before, here, after = raw[at - 1 : at], raw[at : at + 1], raw[at + 1 : at + 2]
    if not before.isalpha():
        return True
    return here.isupper() and (before.islower() or after.islower())
