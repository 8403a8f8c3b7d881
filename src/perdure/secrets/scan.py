"""The exact judgement of values: slow, complete, and the only one that names a place."""

from __future__ import annotations

from collections.abc import Iterable

from perdure.secrets.names import mentions_key_name_in_words
from perdure.secrets.policy import DEFAULT_POLICY, SecretFinding, SecretPolicy
from perdure.secrets.resolved import RESOLVED, RESOLVED_SECRET


def find_secret(value: object, policy: SecretPolicy = DEFAULT_POLICY) -> SecretFinding | None:
    """The first secret of ``value`` in document order, None if there is none.

    ``value`` is JSON data (tuples count as lists; what is neither container nor string is passed over),
    nested as deeply as it likes, without cycles. A string is a finding where it stands; an object's key
    is one at the key's own pointer, before its value is looked at. Of several secrets in one string the
    first is reported. Under a key name every non-empty string counts, and in a list there every word.
    """
    # Imported when the first value is judged: the detectors compile their patterns on import.
    from perdure.secrets.judge import STRICT_SUBSTRING, Judge, Under, pointer

    judge = Judge(policy)
    allowed = frozenset(policy.allow)
    # The open containers, outermost first, as what is left of each; the value is the member of a first,
    # imaginary one. ``tokens`` are the keys and indices of the members that are being looked at.
    levels: list[tuple[Iterable[tuple[object, object]], bool, Under]] = [
        (iter([("", value)]), False, Under.NOTHING)
    ]
    tokens: list[object] = [""]
    while levels:
        members, in_object, under = levels[-1]
        for token, child in members:
            tokens[-1] = token
            if allowed and pointer(tokens[1:]) in allowed:
                continue
            if in_object:
                under = Under.NOTHING
                if isinstance(token, str):
                    detector, names_secret = judge.key(token)
                    if detector is not None:
                        if detector != STRICT_SUBSTRING:
                            tokens[-1] = judge.redact(token, Under.NOTHING).text
                        return SecretFinding(pointer(tokens[1:]), detector)
                    if names_secret:
                        under = Under.KEY_NAME
            if isinstance(child, str):
                detector = judge.text(child, under)
                if detector is not None:
                    return SecretFinding(pointer(tokens[1:]), detector)
            elif isinstance(child, dict):
                levels.append((iter(child.items()), True, Under.NOTHING))
                tokens.append("")
                break
            elif isinstance(child, (list, tuple)):
                inside = Under.NOTHING if under is Under.NOTHING else Under.LIST_OF_KEY_NAME
                levels.append((enumerate(child), False, inside))
                tokens.append("")
                break
        else:
            levels.pop()
            tokens.pop()
    return None


def secret_in_bytes(data: bytes) -> str | None:
    """The detector that finds a secret in bytes that are about to be written, read as UTF-8 text."""
    if RESOLVED.occurs_in(data):
        return RESOLVED_SECRET
    finding = find_secret(data.decode("utf-8", "replace"))
    return None if finding is None else finding.detector


def text_may_hold_secret(text: str) -> bool:
    """Whether a message should rather be lost: it holds a secret, a resolved one too, or a key name.

    The name may stand anywhere, in any case, with a space, ``_``, ``-`` or nothing between its words.
    """
    return (
        mentions_key_name_in_words(text)
        or find_secret(text) is not None
        or RESOLVED.occurs_in(text.encode("utf-8", "surrogatepass"))
    )
