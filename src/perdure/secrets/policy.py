"""Which detectors apply, and what they report."""

from __future__ import annotations

from typing import NamedTuple

LATEST_VERSION: int = 1
"""The newest set of detectors. A run keeps the version that it was started with."""


class SecretFinding(NamedTuple):
    """A place that holds what looks like a secret; never the secret itself.

    ``pointer`` is the JSON pointer (RFC 6901) of the place. Where a key is itself the secret, the
    pointer shows that key redacted. ``detector`` is the stable snake_case name of what matched.
    """

    pointer: str
    detector: str


class _Fields(NamedTuple):
    version: int
    strict: bool
    allow: tuple[str, ...]


class SecretPolicy(_Fields):
    """An immutable, hashable choice of detectors.

    ``version`` selects the set of detectors. ``strict`` adds the substring rule: a key or a string that
    contains one of ``KEY_NAMES`` anywhere, in any case, its words joined by nothing, ``_`` or ``-``.
    ``allow`` names places by JSON pointer: such a place, its key and all below it are never judged.

    Raises :class:`ValueError` for a version that this release does not know, and for a text in
    ``allow`` that is no JSON pointer.
    """

    __slots__ = ()

    def __new__(cls, version: int = 1, strict: bool = False, allow: tuple[str, ...] = ()) -> SecretPolicy:
        if not 1 <= version <= LATEST_VERSION:
            raise ValueError(f"secret policy version {version} is not known; the latest is {LATEST_VERSION}")
        for pointer in allow:
            # "~" only ever stands before 0 or 1 in a pointer.
            if (pointer and pointer[0] != "/") or "~" in pointer.replace("~0", "").replace("~1", ""):
                raise ValueError(f"not a JSON pointer: {pointer!r}")
        return super().__new__(cls, version, strict, tuple(allow))


DEFAULT_POLICY: SecretPolicy = SecretPolicy()
