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

It errs towards finding in ``password: required by policy`` cut to ``password: refused``, and in source
code that assigns a variable (``password=password``), for a variable cannot be told from a word. It misses
a passphrase of several plain words without quotes, and a value on the line below.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator

from perdure.secrets import phrases
from perdure.secrets.names import GLUED_NAMES, KEY_NAMES, NOT_AFTER_NO
from perdure.secrets.shapes import Match

DETECTOR = "assignment"

# A gap of more quotes and blanks than these is no assignment; the prefilter relies on the bounds.
_SIGN = rb"[0-9]{0,4}[\"'`\]\\]{0,4}[ \t]{0,16}(=>|:=|=(?![=~>])|:(?!:|//))[ \t]{0,16}"
_NAME_LENGTH_MAX = 32
_LINE_LOOK_AHEAD = 400

_NOT_VALUES = frozenset(
    b"any bool boolean bytes false int integer nil none null object optional required str string text true"
    b" undefined".split()
)


@functools.cache
def _names() -> tuple[tuple[bytes, re.Pattern[bytes], re.Pattern[bytes] | None], ...]:
    """By last word: the word, its pattern up to the value, and the pattern of the words before it."""
    before: dict[str, list[str]] = {}
    for name in KEY_NAMES:
        first, _, last = name.rpartition("_")
        before.setdefault(last, []).append(first)
    compiled = []
    for last, firsts in before.items():
        word = f"{last}{NOT_AFTER_NO[:-1]}{last})" if last in GLUED_NAMES else last
        leading = None if "" in firsts else re.compile(f"(?:{'|'.join(firsts)})[ _.-]?\\Z".encode())
        compiled.append((last.encode(), re.compile(word.encode() + _SIGN), leading))
    return tuple(compiled)


@functools.cache
def _value() -> re.Pattern[bytes]:
    return re.compile(
        rb"\\?\"([^\"\n]{1,400}?)\\?\"|'([^'\n]{1,400})'"
        rb"|(?:(?:basic|digest|token)[ \t]+)?([^\s\"'<>,;)\]}]+)",
        re.I,
    )


@functools.cache
def _alone_after() -> re.Pattern[bytes]:
    # The line, the text or a bracket ends, or the next assignment begins.
    return re.compile(rb"[\"'.,;)\]}]{0,3}[ \t]*(?:\Z|[\r\n]|[A-Za-z0-9_.-]{1,40}[ \t]?[:=])")


@functools.cache
def _no_value() -> re.Pattern[bytes]:
    return re.compile(rb"\$?\{.*|\$[A-Za-z_(].*|%.*%|[^A-Za-z0-9\x80-\xff]*|\[redacted:.*")


@functools.cache
def _prose_compound() -> re.Pattern[bytes]:
    return re.compile(rb"[0-9]{1,4}-[a-z]+\.?|(?:sha|md|aes|rsa|hs|rs|es)-?[0-9]{1,4}[.,]?", re.I)


def assignments(raw: bytes, low: bytes) -> Iterator[Match]:
    """The values that a text assigns to key names; ``low`` is ``raw`` in lower case."""
    for word, pattern, leading in _names():
        if word not in low:
            continue
        for found in pattern.finditer(low):
            if leading and not leading.search(low, max(0, found.start() - _NAME_LENGTH_MAX), found.start()):
                continue
            span = _assigned(raw, low, found.end(), colon=found[1] == b":", phrase=word == b"phrase")
            if span is not None:
                yield Match(*span, DETECTOR)


def _assigned(raw: bytes, low: bytes, at: int, *, colon: bool, phrase: bool) -> tuple[int, int] | None:
    if (phrase or colon) and (line := raw[at : at + _LINE_LOOK_AHEAD].split(b"\n", 1)[0]):
        words = line.split()
        for count in phrases.WORD_COUNTS:
            if len(words) >= count and phrases.are_phrase([each.lower() for each in words[:count]]):
                return at, at + len(line)
    value = _value().match(raw, at)
    if value is None:
        return None
    group = value.lastindex or 3
    start, end = value.span(group)
    text = low[start:end]
    if text in _NOT_VALUES or _no_value().fullmatch(raw[start:end]):
        return None
    if not colon or group != 3 or start != at:
        return start, end
    if b"://" in text:
        return None
    if _alone_after().match(raw, end):
        return start, end
    has_both = any(48 <= byte <= 57 for byte in text) and any(97 <= byte <= 122 for byte in text)
    return (start, end) if has_both and not _prose_compound().fullmatch(text) else None
