"""Secrets: what looks like one, where it is, and how to take it out.

The detectors are versioned (:class:`SecretPolicy`), so that a newer release never calls an old artifact
corrupt. What counts as a secret is told in the modules: ``names`` (keys of objects), ``shapes``
(credentials that are recognised by their own form), ``assignments`` (``name=value`` in text) and
``phrases`` (BIP-39); ``references`` and ``resolved`` are about secrets that are used by name. All matching
is defined over UTF-8 bytes, where only ASCII letters have case.
"""

from perdure.secrets.names import KEY_NAMES
from perdure.secrets.policy import DEFAULT_POLICY, LATEST_VERSION, SecretFinding, SecretPolicy
from perdure.secrets.prefilter import surely_clean
from perdure.secrets.redaction import redact
from perdure.secrets.references import (
    EnvironmentSecrets,
    FileSecrets,
    SecretResolver,
    SecretSource,
    is_reference,
    secret,
)
from perdure.secrets.resolved import RESOLVED, RESOLVED_SECRET
from perdure.secrets.scan import find_secret, secret_in_bytes, text_may_hold_secret

__all__ = [
    "DEFAULT_POLICY",
    "KEY_NAMES",
    "LATEST_VERSION",
    "RESOLVED",
    "RESOLVED_SECRET",
    "EnvironmentSecrets",
    "FileSecrets",
    "SecretFinding",
    "SecretPolicy",
    "SecretResolver",
    "SecretSource",
    "find_secret",
    "is_reference",
    "redact",
    "secret",
    "secret_in_bytes",
    "surely_clean",
    "text_may_hold_secret",
]
