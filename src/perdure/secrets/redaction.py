"""Taking secrets out of a value and leaving the rest of it as it is."""

from __future__ import annotations

from perdure.secrets.policy import DEFAULT_POLICY, SecretFinding, SecretPolicy


def redact(value: object, policy: SecretPolicy = DEFAULT_POLICY) -> tuple[object, list[SecretFinding]]:
    """A copy of ``value`` with ``[redacted:<detector>]`` in the place of each secret, and what was found.

    Of a longer text only the secret is replaced; the whole string is under a key name, if it is a BIP-39
    phrase, and by the rule of strict policies. A key that holds a secret is replaced too; where that
    gives a key twice, the later ones get a number (``[redacted:github_token] 2``). The findings are in
    document order, with the pointers of the result.

    :func:`find_secret` finds nothing in the result. ``value`` itself is not changed. Values that this process
    resolved are
    taken out too. An allowed place is
    left as it is, but for one below a key that had to be replaced, since it has another pointer then.
    """
    # Imported when the first value is judged: the detectors compile their patterns on import.
    from perdure.secrets.redactor import Redactor

    redactor = Redactor(policy)
    return redactor.copy(value), redactor.findings
