"""Names of things, checked when they are made.

Every id is a ``str`` subclass: it compares equal to, hashes like and serialises as the plain string.
A value that breaks the rule of its kind raises :class:`InvalidIdError`, which is a ``ValueError`` and
names the kind and the value.
"""

from __future__ import annotations

import re
import uuid
from typing import ClassVar, Self

from perdure.errors import ErrorCategory, ErrorInfo, PerdureError

_SEGMENT = "[a-z][a-z0-9_]{0,62}"
_SHOWN_CHARACTERS_MAX = 80

INVOCATION_NAMESPACE = uuid.UUID("3f1c9f0e-5a0b-5c55-9d0e-2c1f6f3b8a41")
"""Namespace of run ids made from an invocation key (UUID version 5)."""


_RULES = {
    "RunId": "a run's id is a UUID; `perdure run list` shows the runs",
    "ArtifactId": "an artifact's id is 64 lower-case hexadecimal digits",
    "invocation key": "a key is a string, without halves of surrogate pairs",
    "FactKey": "a key is a string that is not empty",
    "ContextKey": "a key is a string that is not empty",
}


class InvalidIdError(PerdureError, ValueError):
    """A value that is not an id of the kind asked for (code ``invalid_id``)."""

    def __init__(self, kind: str, value: object) -> None:
        shown = repr(value)
        if len(shown) > _SHOWN_CHARACTERS_MAX:
            shown = shown[:_SHOWN_CHARACTERS_MAX] + "…"
        super().__init__(
            ErrorInfo("invalid_id", ErrorCategory.PARSING_INPUT, False, f"{shown} is not a valid {kind}"),
            hint=_RULES.get(kind),
        )
        self.kind = kind
        self.value = value

    def __reduce__(self) -> tuple[type[Self], tuple[str, object]]:
        return type(self), (self.kind, self.value)


class _Id(str):
    """A string that matched the pattern of its kind."""

    __slots__ = ()
    pattern: ClassVar[re.Pattern[str]]

    def __new__(cls, value: object) -> Self:
        if type(value) is cls:
            return value
        if not isinstance(value, str) or cls.pattern.fullmatch(value) is None:
            raise InvalidIdError(cls.__name__, value)
        return super().__new__(cls, value)

    @classmethod
    def trusted(cls, value: str) -> Self:
        """The id, unchecked: for values that were checked before they were stored."""
        return str.__new__(cls, value)


class OpId(_Id):
    """An operation's or machine's name: one segment, ``^[a-z][a-z0-9_]{0,62}$``."""

    __slots__ = ()
    pattern = re.compile(_SEGMENT)


class OpPath(_Id):
    """Where an operation stands in a machine: two segments or more, joined by dots."""

    __slots__ = ()
    pattern = re.compile(rf"{_SEGMENT}(?:\.{_SEGMENT})+")


class StateId(_Id):
    """A state's name, unique in its plan: ``machine.step.state``."""

    __slots__ = ()
    pattern = re.compile(rf"{_SEGMENT}\.{_SEGMENT}\.{_SEGMENT}")


class ArtifactId(_Id):
    """The SHA-256 of an artifact's bytes: 64 lowercase hexadecimal digits."""

    __slots__ = ()
    pattern = re.compile("[0-9a-f]{64}")


class _Key(_Id):
    __slots__ = ()
    # Surrogates have no UTF-8 form, so a key that holds one could never be written.
    pattern = re.compile("[^\ud800-\udfff]+")


class FactKey(_Key):
    """What a recorded fact is bound to in a run: a non-empty string."""

    __slots__ = ()


class ContextKey(_Key):
    """A top-level key of a run's context: a non-empty string."""

    __slots__ = ()


class RunId(str):
    """A run's name: a UUID, printed in lower case with hyphens."""

    __slots__ = ()

    def __new__(cls, value: object) -> Self:
        if type(value) is cls:
            return value
        if isinstance(value, uuid.UUID):
            return super().__new__(cls, str(value))
        if not isinstance(value, str) or _UUID.fullmatch(value) is None:
            raise InvalidIdError(cls.__name__, value)
        return super().__new__(cls, str(uuid.UUID(value)))

    @classmethod
    def trusted(cls, value: str) -> Self:
        """The id, unchecked: for values that were checked before they were stored."""
        return str.__new__(cls, value)

    @classmethod
    def random(cls) -> Self:
        """A new run id (UUID version 4)."""
        return cls(uuid.uuid4())

    @classmethod
    def for_invocation(cls, key: object) -> Self:
        """The run id that an invocation key always gives (UUID version 5 in a fixed namespace)."""
        if not isinstance(key, str) or _SURROGATE.search(key):
            raise InvalidIdError("invocation key", key)
        return cls(uuid.uuid5(INVOCATION_NAMESPACE, key))

    def child(self, fact_key: str) -> RunId:
        """The id of the child run that this run spawns under ``fact_key`` (UUID version 5)."""
        return RunId(uuid.uuid5(uuid.UUID(self), fact_key))

    def next_leg(self) -> RunId:
        """The id of the run as which this one goes on (UUID version 5)."""
        return self.child("continue")


_SURROGATE = re.compile("[\ud800-\udfff]")
_UUID = re.compile("[0-9a-fA-F]{8}-(?:[0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}|[0-9a-fA-F]{32}")
