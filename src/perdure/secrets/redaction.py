"""Taking secrets out of a value, and leaving everything else as it is."""

from __future__ import annotations

from perdure.secrets.markers import marker
from perdure.secrets.names import is_key_name
from perdure.secrets.phrases import is_phrase
from perdure.secrets.policy import DEFAULT_POLICY, SecretFinding, SecretPolicy
from perdure.secrets.scan import (
    KEY_DETECTOR,
    PHRASE_DETECTOR,
    STRICT_DETECTOR,
    detector_of,
    is_phrase_list,
    matches,
)
from perdure.secrets.shapes import Match

_PASSES_MAX = 4


def redact(value: object, policy: SecretPolicy = DEFAULT_POLICY) -> tuple[object, list[SecretFinding]]:
    """``value`` with every secret replaced by ``[redacted:<detector>]``, and what was found where.

    Inside a longer text only the secret itself is replaced; a value named by its key and a BIP-39 phrase
    are replaced whole. A key that is a secret is replaced too, with a number where that collides. Nothing
    is found in the result.
    """
    findings: list[SecretFinding] = []
    return _redact(value, "", False, policy, findings), findings


def _redact(
    value: object, pointer: str, named: bool, policy: SecretPolicy, findings: list[SecretFinding]
) -> object:
    if pointer in policy.allow:
        return value
    if isinstance(value, str):
        return _redact_text(value, pointer, named, policy, findings)
    if isinstance(value, dict):
        redacted: dict[str, object] = {}
        for key, child in value.items():
            place = f"{pointer}/{str(key).replace('~', '~0').replace('/', '~1')}"
            name = key
            if place not in policy.allow:
                name = _redact_text(str(key), place, False, policy, findings)
            redacted[_unused(name, redacted)] = _redact(child, place, is_key_name(name), policy, findings)
        return redacted
    if isinstance(value, (list, tuple)):
        if is_phrase_list(value):
            findings.append(SecretFinding(pointer, PHRASE_DETECTOR))
            return [marker(PHRASE_DETECTOR)]
        return [
            _redact(child, f"{pointer}/{index}", False, policy, findings) for index, child in enumerate(value)
        ]
    return value


def _redact_text(
    text: str, pointer: str, named: bool, policy: SecretPolicy, findings: list[SecretFinding]
) -> str:
    detector = detector_of(text, named=named, strict=policy.strict)
    if detector is None:
        return text
    findings.append(SecretFinding(pointer, detector))
    if detector in (KEY_DETECTOR, STRICT_DETECTOR, PHRASE_DETECTOR):
        return marker(detector)
    raw = text.encode("utf-8", "surrogatepass")
    # Taking one secret out may bring another to light; a text that stays suspicious goes as a whole.
    for _ in range(_PASSES_MAX):
        spans = sorted(matches(raw))
        if not spans:
            break
        raw = _without(raw, spans)
    cleaned = raw.decode("utf-8", "surrogatepass")
    if is_phrase(raw) or detector_of(cleaned, named=False, strict=policy.strict) is not None:
        return marker(detector)
    return cleaned


def _without(raw: bytes, spans: list[Match]) -> bytes:
    pieces: list[bytes] = []
    at = 0
    for start, end, detector in spans:
        if start >= at:
            pieces += [raw[at:start], marker(detector).encode()]
        at = max(at, end)
    return b"".join([*pieces, raw[at:]])


def _unused(name: str, taken: dict[str, object]) -> str:
    unused, number = name, 1
    while unused in taken:
        number += 1
        unused = f"{name} {number}"
    return unused
