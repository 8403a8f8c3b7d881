"""The walk that copies a value without its secrets. Used by ``redaction``, which says what it promises."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from perdure.secrets.judge import Judge, Under, pointer
from perdure.secrets.markers import marker
from perdure.secrets.policy import SecretFinding, SecretPolicy


class _Level:
    """A container that is being copied: what is left of it, its copy, and the member that is looked at."""

    __slots__ = ("key", "members", "new_key", "original", "target", "under")

    def __init__(self, original: Any, under: Under) -> None:
        self.original = original
        self.target: Any = {} if isinstance(original, dict) else []
        self.members: Iterator[tuple[Any, Any]] = (
            iter(original.items()) if isinstance(original, dict) else enumerate(original)
        )
        self.under = under
        self.key: Any = ""
        self.new_key: Any = ""

    def put(self, child: object) -> None:
        """Put the copy of the member that is looked at in its place."""
        if isinstance(self.original, dict):
            self.target[self.new_key] = child
        else:
            self.target.append(child)

    def result(self) -> object:
        """The finished copy, of the type of the original."""
        return tuple(self.target) if isinstance(self.original, tuple) else self.target


class Redactor:
    """One walk: :meth:`copy` returns the redacted value, :attr:`findings` then tells what was replaced."""

    def __init__(self, policy: SecretPolicy) -> None:
        self.findings: list[SecretFinding] = []
        self._judge = Judge(policy)
        self._allowed = frozenset(policy.allow)
        self._levels: list[_Level] = []

    def copy(self, value: object) -> object:
        """``value`` without its secrets; to be called once."""
        # The value is the only member of an imaginary list, whose index no pointer shows.
        root = _Level([value], Under.NOTHING)
        self._levels.append(root)
        while True:
            level = self._levels[-1]
            for key, child in level.members:
                level.key = level.new_key = key
                inner = self._member(level, child)
                if inner is not None:
                    self._levels.append(inner)
                    break
            else:
                self._levels.pop()
                if not self._levels:
                    return root.target[0]
                self._levels[-1].put(level.result())

    def _member(self, level: _Level, child: Any) -> _Level | None:
        """Put the copy of a member, or return the level of a container that is to be copied first."""
        if self._is_allowed():
            level.put(child)
            return None
        under = level.under
        if isinstance(level.original, dict):
            under = self._key(level) if isinstance(level.key, str) else Under.NOTHING
        if isinstance(child, str):
            text, detectors = self._judge.redact(child, under)
            self._report(detectors)
            level.put(text if detectors else child)
        elif isinstance(child, dict):
            return _Level(child, Under.NOTHING)
        elif isinstance(child, (list, tuple)):
            return _Level(child, Under.NOTHING if under is Under.NOTHING else Under.LIST_OF_KEY_NAME)
        else:
            level.put(child)
        return None

    def _key(self, level: _Level) -> Under:
        """Choose the new key of the member that is looked at; returns what its value stands under."""
        key: str = level.key
        detector, names_secret = self._judge.key(key)
        if detector is not None:
            new_key, detectors = self._judge.redact(key, Under.NOTHING)
            unique = _unique(new_key, level)
            if self._judge.key(unique)[0] is not None:
                # The number itself was taken for a secret, as in "password: 2".
                unique = _unique(marker(detector), level)
            level.new_key = unique
            self._report(detectors)
            # The value is also judged under the new key, as whoever judges the result will do.
            names_secret = names_secret or self._judge.key(unique)[1]
        return Under.KEY_NAME if names_secret else Under.NOTHING

    def _is_allowed(self) -> bool:
        if not self._allowed:
            return False
        place = pointer(level.key for level in self._levels[1:])
        return place in self._allowed and place == self._place()

    def _place(self) -> str:
        return pointer(level.new_key for level in self._levels[1:])

    def _report(self, detectors: tuple[str, ...]) -> None:
        if detectors:
            place = self._place()
            self.findings += (SecretFinding(place, detector) for detector in detectors)


def _unique(key: str, level: _Level) -> str:
    """``key``, or with a number the first form of it that neither the original nor the copy has."""
    unique, number = key, 1
    while unique in level.original or unique in level.target:
        number += 1
        unique = f"{key} {number}"
    return unique
