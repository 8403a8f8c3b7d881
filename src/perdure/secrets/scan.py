"""Finding secrets exactly: a walk over a value, in document order."""

from __future__ import annotations

from collections.abc import Iterator

from perdure.secrets.assignments import assignments
from perdure.secrets.markers import is_marker
from perdure.secrets.names import is_key_name, mentions_key_name, mentions_key_name_in_words
from perdure.secrets.phrases import WORD_COUNTS, is_phrase
from perdure.secrets.policy import DEFAULT_POLICY, SecretFinding, SecretPolicy
from perdure.secrets.shapes import (
    Match,
    basic_credentials,
    bearer_tokens,
    pem_blocks,
    tokens,
    url_passwords,
)

KEY_DETECTOR = "key_name"
PHRASE_DETECTOR = "bip39_phrase"
STRICT_DETECTOR = "strict_substring"


def find_secret(value: object, policy: SecretPolicy = DEFAULT_POLICY) -> SecretFinding | None:
    """The first place in ``value``, JSON-like data, that holds what looks like a secret; or None."""
    stack: list[tuple[object, str, bool]] = [(value, "", False)]
    allowed = frozenset(policy.allow)
    while stack:
        item, pointer, named = stack.pop()
        if pointer in allowed:
            continue
        if isinstance(item, str):
            detector = detector_of(item, named=named, strict=policy.strict)
            if detector is not None:
                return SecretFinding(pointer, detector)
        elif isinstance(item, dict):
            children: list[tuple[object, str, bool]] = []
            for key, child in item.items():
                text = str(key)
                place = f"{pointer}/{_token(text)}"
                if place not in allowed:
                    detector = detector_of(text, named=False, strict=policy.strict)
                    if detector is not None:
                        # What comes before this key in document order is judged first.
                        children.append(
                            (_Found(detector), f"{pointer}/{_token(f'[redacted:{detector}]')}", False)
                        )
                        continue
                children.append((child, place, is_key_name(text)))
            stack.extend(reversed(children))
        elif isinstance(item, (list, tuple)):
            if is_phrase_list(item):
                return SecretFinding(pointer, PHRASE_DETECTOR)
            stack.extend((item[index], f"{pointer}/{index}", False) for index in reversed(range(len(item))))
        elif isinstance(item, _Found):
            return SecretFinding(pointer, item.detector)
    return None


class _Found:
    """A key that is itself a secret, waiting for its turn in document order."""

    __slots__ = ("detector",)

    def __init__(self, detector: str) -> None:
        self.detector = detector


def detector_of(text: str, *, named: bool, strict: bool) -> str | None:
    """What finds a secret in ``text``; ``named`` tells that it is the value of a key name."""
    if not text:
        return None
    if named and not is_marker(text):
        return KEY_DETECTOR
    if strict and mentions_key_name(text):
        return STRICT_DETECTOR
    raw = text.encode("utf-8", "surrogatepass")
    if is_phrase(raw):
        return PHRASE_DETECTOR
    return next((match.detector for match in matches(raw)), None)


def matches(raw: bytes) -> Iterator[Match]:
    """The secrets inside a text, detector by detector; spans may overlap."""
    low = raw.lower()
    yield from pem_blocks(raw)
    yield from tokens(raw)
    yield from bearer_tokens(low)
    yield from basic_credentials(raw)
    yield from url_passwords(raw)
    yield from assignments(raw, low)


def is_phrase_list(items: list[object] | tuple[object, ...]) -> bool:
    """Whether these are the words of a BIP-39 phrase, one by one."""
    return (
        len(items) in WORD_COUNTS
        and all(isinstance(each, str) for each in items)
        and is_phrase(" ".join(map(str, items)).encode("utf-8", "surrogatepass"))
    )


def text_may_hold_secret(text: str) -> bool:
    """Whether ``text`` holds a secret, or so much as mentions a key name: then it is not worth the risk."""
    return mentions_key_name_in_words(text) or detector_of(text, named=False, strict=False) is not None


def _token(key: str) -> str:
    return key.replace("~", "~0").replace("/", "~1")
