"""One policy's verdict on single keys and strings; ``scan`` and ``redaction`` bring them here."""

from __future__ import annotations

import enum
from collections.abc import Iterable
from typing import NamedTuple

from perdure.secrets.detectors import is_too_short, matches
from perdure.secrets.markers import is_marker, marker
from perdure.secrets.names import is_key_name, mentions_key_name
from perdure.secrets.policy import SecretPolicy
from perdure.secrets.resolved import RESOLVED, RESOLVED_SECRET
from perdure.secrets.shapes import Match

KEY_NAME = "key_name"
STRICT_SUBSTRING = "strict_substring"

_ROUNDS_MAX = 3


class Under(enum.Enum):
    """What a string stands under: the key name decides, or the string alone."""

    NOTHING = 0
    KEY_NAME = 1
    LIST_OF_KEY_NAME = 2


class Redacted(NamedTuple):
    """A text without its secrets, and the detectors of what was taken out (none: the text is as it was)."""

    text: str
    detectors: tuple[str, ...]


class Judge:
    """The verdicts of ``policy``; made for one walk, since it remembers the keys that it saw."""

    __slots__ = ("_keys", "_policy")

    def __init__(self, policy: SecretPolicy) -> None:
        self._policy = policy
        self._keys: dict[str, tuple[str | None, bool]] = {}

    def key(self, key: str) -> tuple[str | None, bool]:
        """The detector that finds a secret in ``key`` itself, and whether it names the secret under it."""
        verdict = self._keys.get(key)
        if verdict is None:
            verdict = self._keys[key] = (self.text(key, Under.NOTHING), is_key_name(key))
        return verdict

    def text(self, text: str, under: Under) -> str | None:
        """The detector that finds the first secret in ``text``."""
        if under is not Under.NOTHING and _counts_under_name(text, under):
            return KEY_NAME
        if not is_too_short(text):
            found = matches(_encode(text), self._policy.version)
            if found:
                return found[0].detector
        if self._policy.strict and mentions_key_name(text):
            return STRICT_SUBSTRING
        return None

    def redact(self, text: str, under: Under) -> Redacted:
        """``text`` with a marker in the place of each secret, so that :meth:`text` finds no more."""
        unresolved = RESOLVED.redact(text)
        if unresolved != text:
            redacted = self._redact_detected(unresolved, under)
            return Redacted(redacted.text, (RESOLVED_SECRET, *redacted.detectors))
        return self._redact_detected(text, under)

    def _redact_detected(self, text: str, under: Under) -> Redacted:
        if under is not Under.NOTHING and _counts_under_name(text, under):
            return Redacted(marker(KEY_NAME), (KEY_NAME,))
        redacted = Redacted(text, ()) if is_too_short(text) else self._redact_matches(text)
        if under is not Under.NOTHING and redacted.detectors and _counts_under_name(redacted.text, under):
            # What was a sentence is one word now, and words count.
            return Redacted(marker(KEY_NAME), redacted.detectors)
        if self._policy.strict and mentions_key_name(redacted.text):
            return Redacted(marker(STRICT_SUBSTRING), redacted.detectors or (STRICT_SUBSTRING,))
        return redacted

    def _redact_matches(self, text: str) -> Redacted:
        detectors: tuple[str, ...] = ()
        # A text without its first secrets may show others; what does not come clean is replaced whole.
        for _ in range(_ROUNDS_MAX):
            raw = _encode(text)
            found = matches(raw, self._policy.version)
            if not found:
                return Redacted(text, detectors)
            spans = _merged(found)
            detectors += tuple(span.detector for span in spans)
            text = _replaced(raw, spans)
        if matches(_encode(text), self._policy.version):
            text = marker(detectors[0])
        return Redacted(text, detectors)


def pointer(tokens: Iterable[object]) -> str:
    """The JSON pointer of a place by its keys and indices."""
    return "".join("/" + str(token).replace("~", "~0").replace("/", "~1") for token in tokens)


def _counts_under_name(text: str, under: Under) -> bool:
    # A list under a key name holds secrets (the words of a mnemonic, the values of a header), or messages
    # about one: {"password": ["is too short"]}. A member of several words is judged as any other string.
    if not text or is_marker(text):
        return False
    return under is Under.KEY_NAME or len(text.split(None, 1)) == 1


def _encode(text: str) -> bytes:
    # Lone surrogates are refused elsewhere, by a better error than a failure here.
    return text.encode("utf-8", "surrogatepass")


def _merged(found: list[Match]) -> list[Match]:
    """Matches in order, those that overlap as one that bears the name of the first."""
    spans = found[:1]
    for match in found[1:]:
        last = spans[-1]
        if match.start < last.end:
            spans[-1] = last._replace(end=max(last.end, match.end))
        else:
            spans.append(match)
    return spans


def _replaced(raw: bytes, spans: list[Match]) -> str:
    parts: list[bytes] = []
    at = 0
    for start, end, detector in spans:
        parts += raw[at:start], marker(detector).encode()
        at = end
    return b"".join((*parts, raw[at:])).decode("utf-8", "surrogatepass")
