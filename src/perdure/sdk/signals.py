"""Signals with a type: declared by an operation, waited for by its states, checked where they are sent."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Generic, TypeVar

from perdure.errors import ErrorCategory, Json, RunError, StateError
from perdure.model.handler import IoProvider, Signal
from perdure.sdk.values import UNTYPED, Codec

T = TypeVar("T")


@dataclass(frozen=True)
class Received(Generic[T]):
    """A signal that was received: its value, who sent it, its letter's id, and when.

    ``sent_millis`` is milliseconds since 1970-01-01 UTC.
    """

    value: T
    by: str
    id: str
    sent_millis: int


class SignalDefinition(Generic[T]):
    """A signal of an operation; made by ``operation.signal(name, type)``."""

    def __init__(self, name: str, annotation: Any) -> None:
        self.name = name
        self.codec = Codec(UNTYPED if annotation is None else annotation)

    def __repr__(self) -> str:
        return f"<signal {self.name}: {self.codec.name}>"

    async def wait(
        self, io: IoProvider, *, timeout: timedelta | None = None, name: str | None = None
    ) -> Received[T] | None:
        """As ``io.wait_signal``; raises ``StateError`` (``signal_invalid``) for a value of another type."""
        return self.received(await io.wait_signal(self.name, timeout=timeout, name=name))

    def received(self, signal: Signal | None) -> Received[T] | None:
        """What ``wait_signal`` or ``wait_any`` gave, with its type; None stays None."""
        if signal is None:
            return None
        try:
            value: T = self.codec.from_json(signal.value)
        except ValueError as error:
            raise StateError.of(
                "signal_invalid",
                f"the signal {self.name} came with another value than {self.codec.name}: {error}",
                category=ErrorCategory.PARSING_INPUT,
            ) from error
        return Received(value, signal.by, signal.id, signal.sent_millis)

    def to_json(self, value: object) -> Json:
        """``value``, of the signal's type or its JSON form, as JSON; ``RunError`` (``signal_invalid``)."""
        try:
            data = Codec(UNTYPED).to_json(value)
            self.codec.from_json(data)
        except (TypeError, ValueError) as error:
            raise RunError.of(
                "signal_invalid",
                f"the signal {self.name} takes {self.codec.name}: {error}",
                category=ErrorCategory.PARSING_INPUT,
                details={"signal": self.name},
            ) from error
        return data


def declared_signals(operations: Iterable[object]) -> dict[str, SignalDefinition[Any]]:
    """The signals that operations declare, by name."""
    found: dict[str, SignalDefinition[Any]] = {}
    for operation in operations:
        signals: Mapping[str, SignalDefinition[Any]] = getattr(operation, "signals", {})
        found |= signals
    return found


def checked_signal(declared: Mapping[str, SignalDefinition[Any]], name: str, value: object) -> Json:
    """``value`` as JSON, if its operation takes such a signal; any, if it declares none.

    ``RunError``: ``signal_unknown``, ``signal_invalid``.
    """
    if not declared:
        return value
    if name not in declared:
        raise RunError.of(
            "signal_unknown",
            f"the operation takes no signal {name!r}",
            category=ErrorCategory.PARSING_INPUT,
            details={"known": sorted(declared)},
        )
    return declared[name].to_json(value)
