"""What a state says of itself."""

from __future__ import annotations

import enum
from datetime import timedelta
from typing import Any

import msgspec

from perdure.arguments import expect, expect_duration, expect_many
from perdure.errors import InvalidShapeError, Json, shaped
from perdure.model.config import RetryPolicy


class SideEffectKind(enum.Enum):
    """What a state does to the outside world; the values are the wire names."""

    PURE = "Pure"
    READ_ONLY_IO = "ReadOnlyIo"
    APPLY_SIDE_EFFECT = "ApplySideEffect"


class DependencyStrategy(enum.Enum):
    """Which of several states that carry a tag a dependency on that tag means."""

    LATEST = "Latest"
    EARLIEST = "Earliest"


_USUAL: StateMeta | None = None


class StateMeta(msgspec.Struct, frozen=True, gc=False):
    """A state's tags, the tags that it depends on, what it does outside, and its idempotency key.

    ``timeout`` ends an attempt with ``state_timeout`` that has worked for so long, waits not counted; None is
    no limit. ``heartbeat_timeout`` ends it with
    ``heartbeat_missed`` when the handler has not called ``io.heartbeat()`` for so long. ``retry_policy``
    takes the place of the run's for this state. A state with ``on_cancel`` runs when the run is cancelled,
    and else not. All these belong to the code, not to the wire.

    ``writes`` names the context keys that the state may set or delete, so that two states which run side by
    side and write one key are refused before the run starts; None says nothing about it.
    """

    tags: tuple[str, ...] = ()
    depends_on: tuple[str, ...] = ()
    side_effects: SideEffectKind = SideEffectKind.PURE
    idempotency: str | None = None
    depends_on_strategy: DependencyStrategy = DependencyStrategy.LATEST
    timeout: timedelta | None = None
    retry_policy: RetryPolicy | None = None
    heartbeat_timeout: timedelta | None = None
    on_cancel: bool = False
    writes: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        if self == _USUAL:  # as most are, and there may be ten thousand of them
            return
        if self.tags:
            expect_many(self.tags, str, "StateMeta(tags=…)", "strings")
        if self.depends_on:
            expect_many(self.depends_on, str, "StateMeta(depends_on=…)", "strings")
        expect(self.side_effects, SideEffectKind, "StateMeta(side_effects=…)", "a SideEffectKind")
        if self.idempotency is not None:
            expect(self.idempotency, str, "StateMeta(idempotency=…)", "a string or None")
        if self.depends_on_strategy is not DependencyStrategy.LATEST:
            expect(
                self.depends_on_strategy,
                DependencyStrategy,
                "StateMeta(depends_on_strategy=…)",
                "a DependencyStrategy",
            )
        if self.retry_policy is not None:
            expect(self.retry_policy, RetryPolicy, "StateMeta(retry_policy=…)", "a RetryPolicy or None")
        if self.timeout is not None:
            expect_duration(self.timeout, "StateMeta(timeout=…)")
        if self.heartbeat_timeout is not None:
            expect_duration(self.heartbeat_timeout, "StateMeta(heartbeat_timeout=…)")
        if self.on_cancel is not False:
            expect(self.on_cancel, bool, "StateMeta(on_cancel=…)", "True or False")
        if self.writes is not None:
            expect_many(self.writes, str, "StateMeta(writes=…)", "strings")

    def to_json(self) -> Json:
        """``{"tags", "depends_on", "depends_on_strategy", "side_effects", "idempotency"}``.

        And ``writes``, if it is set.
        """
        data: dict[str, Json] = {
            "tags": [str(tag) for tag in self.tags],
            "depends_on": [str(tag) for tag in self.depends_on],
            "depends_on_strategy": self.depends_on_strategy.value,
            "side_effects": self.side_effects.value,
            "idempotency": "None" if self.idempotency is None else {"Key": self.idempotency},
        }
        if self.writes is not None:
            data["writes"] = [str(key) for key in self.writes]
        return data

    @classmethod
    def from_json(cls, data: Json) -> StateMeta:
        """The value of its wire form; ``InvalidShapeError`` for anything else."""
        wire = shaped(data, _StateMetaWire)
        if wire.idempotency in ("None", None):
            key = None
        elif isinstance(wire.idempotency, dict) and isinstance(wire.idempotency.get("Key"), str):
            key = wire.idempotency["Key"]
        else:
            raise InvalidShapeError("StateMeta", "/idempotency", 'expected "None" or {"Key": …}')
        return cls(
            wire.tags,
            wire.depends_on,
            wire.side_effects,
            key,
            wire.depends_on_strategy,
            writes=wire.writes,
        )


_USUAL = StateMeta()


class _StateMetaWire(msgspec.Struct):
    tags: tuple[str, ...] = ()
    depends_on: tuple[str, ...] = ()
    side_effects: SideEffectKind = SideEffectKind.PURE
    idempotency: Any = None
    depends_on_strategy: DependencyStrategy = DependencyStrategy.LATEST
    writes: tuple[str, ...] | None = None
