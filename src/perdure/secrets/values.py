"""What follows the sign of an assignment: a value, or the rest of a sentence.

The rules are told in ``assignments``. Texts come as bytes, ``low`` being ``raw`` in lower case. This module
compiles its patterns when it is imported, which is when the first text is judged.
"""

from __future__ import annotations

import re

from perdure.secrets.markers import is_placeholder
from perdure.secrets.phrases import WORD_COUNTS, are_phrase

Span = tuple[int, int]

# A longer word is no prose, whatever follows; judging no more than this keeps the cost linear.
_JUDGED_MAX = 400

_QUOTE = re.compile(rb"\\{0,3}([\"'`])")
_ANNOTATION = re.compile(rb"[a-z_][a-z0-9_.\[\]| ]{0,60}=[ \t]{0,8}(?=[\\\"'`])")
_SCHEME = re.compile(rb"(?:apikey|basic|bearer|dpop|hawk|negotiate|ntlm|token)[ \t]+")
_SCHEME_WITH_FIELDS = re.compile(rb"(?:digest|aws4-hmac-sha256)[ \t]+[a-z]+=[^\r\n]*")
_WORD = re.compile(rb"[^\s\"'`&]{1,%d}" % _JUDGED_MAX)
_END_OF_WORD = re.compile(rb"[\s\"'`&]")
_PHRASE = re.compile(rb"(?:[a-z]{3,8}[ \t\r\n]{1,4}){11,23}[a-z]{3,8}")
_URL = re.compile(rb"[a-z][a-z0-9+.-]{0,20}://")

_CLOSING = b",;)}]>"
_NOTHING_MORE = re.compile(
    # the end of the line, or a comment
    rb"[ \t]{0,32}(?:\Z|[\r\n#|]|//)"
    # the end of a bracket or of a quotation
    rb"|[)}\]>\"'`&]"
    # the next member of a list
    rb"|[,;][ \t]{0,32}(?:\Z|[\r\n]|[\"'a-z_][a-z0-9_.\"'-]{0,40}[ \t]{0,4}[:=])"
)

_NOT_VALUES = frozenset(
    b"any bool boolean bytes false int integer nil none null object optional required str string text true"
    b" undefined".split()
)
# "8-character", "256-bit", "12+" are sizes; "SHA256", "ed25519", "base64-encoded" are technical terms.
_TERM = re.compile(
    rb"[0-9]+[+-]"
    rb"|(?:aes|argon|base|bip|ed|es|hs|http|md|oauth|pbkdf|pkcs|ps|rfc|rs|rsa|secp|sha|tls|utf|x)-?[0-9]"
)


def value_after(raw: bytes, low: bytes, at: int, *, certain: bool, phrase: bool) -> Span | None:
    """The value that begins at ``at``, None if there is none.

    ``certain`` says that the sign is never punctuation (``=``), ``phrase`` that the name is one of a phrase.
    """
    if _QUOTE.match(raw, at):
        return _quoted(raw, at)
    annotated = _ANNOTATION.match(low, at)
    return (
        (_phrase(low, at) if phrase else None)
        or (_quoted(raw, annotated.end()) if annotated else None)
        or _credentials(raw, low, at)
        or _bare(raw, low, at, certain)
    )


def _quoted(raw: bytes, at: int) -> Span | None:
    opening = _QUOTE.match(raw, at)
    assert opening is not None
    start = opening.end()
    end = raw.find(opening[1], start)
    # Looked for in this order, no stretch is searched twice by two assignments with the same quotes.
    line_end = raw.find(b"\n", start, None if end == -1 else end)
    if line_end != -1:
        end = line_end
    elif end == -1:
        end = len(raw)
    # In JSON inside a text, the closing quote has a backslash before it too.
    value = raw[start:end].rstrip(b"\\")
    return None if is_placeholder(value) else (start, start + len(value))


def _phrase(low: bytes, at: int) -> Span | None:
    found = _PHRASE.match(low, at)
    if found is None:
        return None
    words = found[0].split()
    for count in reversed(WORD_COUNTS):
        if count <= len(words) and are_phrase(words[:count]):
            return at, at + _end_of_word(found[0], count)
    return None


def _end_of_word(text: bytes, count: int) -> int:
    """Where the word number ``count`` of a text ends."""
    rest = text.split(None, count)
    return len(text) if len(rest) == count else len(text[: -len(rest[-1])].rstrip())


def _credentials(raw: bytes, low: bytes, at: int) -> Span | None:
    """The scheme and the credentials of an HTTP ``Authorization`` header."""
    fields = _SCHEME_WITH_FIELDS.match(low, at)
    if fields is not None:
        return fields.span()
    scheme = _SCHEME.match(low, at)
    word = _WORD.match(raw, scheme.end()) if scheme else None
    if word is None or is_placeholder(word[0]) or not _looks_coded(word[0]):
        return None
    return at, _whole_word(raw, word.end())


def _whole_word(raw: bytes, at: int) -> int:
    """Where the word ends that goes through ``at``."""
    end = _END_OF_WORD.search(raw, at)
    return end.start() if end else len(raw)


def _looks_coded(word: bytes) -> bool:
    """Whether a word is none of a language: it has a digit, a sign of Base64, or a capital inside."""
    return any(byte in b"0123456789=+/_~" for byte in word) or word[1:].lower() != word[1:]


def _bare(raw: bytes, low: bytes, at: int, certain: bool) -> Span | None:
    found = _WORD.match(raw, at)
    # A bracket begins a structure: a list, an object, a marker, a "{name}".
    if found is None or raw[at : at + 1] in (b"[", b"{") or is_placeholder(found[0]):
        return None
    word = found[0].rstrip(_CLOSING) or found[0]
    judged = word.rstrip(b".").lower()
    if judged in _NOT_VALUES or is_placeholder(word):
        return None
    end = at + len(word)
    if len(found[0]) == _JUDGED_MAX:
        end = _whole_word(raw, found.end())
    elif not certain:
        if _URL.match(judged):
            return None
        if _NOTHING_MORE.match(low, end) is None and not _mixes_letters_and_digits(judged):
            return None
    return at, end


def _mixes_letters_and_digits(word: bytes) -> bool:
    if len(word) < 6 or _TERM.match(word):
        return False
    return any(48 <= byte <= 57 for byte in word) and any(97 <= byte <= 122 for byte in word)
