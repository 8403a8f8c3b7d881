"""How a run is to be driven, and what it was started from."""

from __future__ import annotations

import enum
from datetime import timedelta
from typing import Annotated, Any, ClassVar

import msgspec

from perdure.arguments import expect, expect_duration, expect_many, expect_unless_none
from perdure.errors import InvalidShapeError, Json, shaped
from perdure.ids import OpId, RunId
from perdure.model.durations import duration_from_json, duration_to_json
from perdure.model.variants import OpenEnum, only_variant

RECOVERY_LIMIT_DEFAULT = 8
SIDE_BY_SIDE_MAX = 10_000
"""More states at once than any process can usefully execute; a larger number is a slip of the finger."""


class IoMode(enum.Enum):
    """Whether calls go out (``LIVE``) or are answered from recorded facts alone (``REPLAY``)."""

    LIVE = "Live"
    REPLAY = "Replay"

    def to_json(self) -> str:
        """The wire name."""
        return self.value

    @classmethod
    def from_json(cls, data: Json) -> IoMode:
        """The mode of a wire name; :class:`InvalidShapeError` for any other."""
        try:
            return cls(data)
        except ValueError:
            raise InvalidShapeError("IoMode", "", "expected Live or Replay") from None


class EventProfile(OpenEnum, frozen=True):
    """Which domain events are kept: ``MINIMAL`` keeps the engine's own, the others keep all."""

    members: ClassVar[tuple[str, ...]] = ("Minimal", "Normal", "Verbose")
    open_variant: ClassVar[str] = "Custom"

    MINIMAL: ClassVar[EventProfile]
    NORMAL: ClassVar[EventProfile]
    VERBOSE: ClassVar[EventProfile]

    @classmethod
    def custom(cls, name: str) -> EventProfile:
        """A profile of the user's own; it keeps all domain events."""
        return cls("Custom", name)


EventProfile.MINIMAL = EventProfile("Minimal")
EventProfile.NORMAL = EventProfile("Normal")
EventProfile.VERBOSE = EventProfile("Verbose")


class ContextCheckpointing(OpenEnum, frozen=True):
    """When the context is snapshotted: after every state."""

    members: ClassVar[tuple[str, ...]] = ("AfterEveryState",)
    open_variant: ClassVar[str] = "Custom"

    AFTER_EVERY_STATE: ClassVar[ContextCheckpointing]

    @classmethod
    def custom(cls, name: str) -> ContextCheckpointing:
        """A policy of another engine; this one snapshots after every state whatever its name."""
        return cls("Custom", name)


ContextCheckpointing.AFTER_EVERY_STATE = ContextCheckpointing("AfterEveryState")


class FixedBackoff(msgspec.Struct, frozen=True):
    """The same delay before every retry."""

    delay: timedelta = timedelta()

    def __post_init__(self) -> None:
        expect_duration(self.delay, "FixedBackoff(delay=…)")

    def before_retry(self, own_failures: int) -> timedelta:
        """How long to wait after a state's ``own_failures``-th own failure."""
        return self.delay

    def to_json(self) -> Json:
        """``{"Fixed": {"delay"}}``."""
        return {"Fixed": {"delay": duration_to_json(self.delay)}}


class ExponentialBackoff(msgspec.Struct, frozen=True):
    """A delay that doubles with every failure, up to ``max_delay``."""

    base_delay: timedelta
    max_delay: timedelta

    def __post_init__(self) -> None:
        expect_duration(self.base_delay, "ExponentialBackoff(base_delay=…)")
        expect_duration(self.max_delay, "ExponentialBackoff(max_delay=…)")

    def before_retry(self, own_failures: int) -> timedelta:
        """How long to wait after a state's ``own_failures``-th own failure: ``base · 2^(n − 1)``, capped."""
        doublings = max(own_failures - 1, 0)
        # Past 64 doublings every non-zero delay is over any cap, and timedelta would overflow.
        if self.base_delay and (
            doublings > 64
            or self.base_delay // timedelta.resolution << doublings > _microseconds(self.max_delay)
        ):
            return self.max_delay
        return self.base_delay * 2**doublings if self.base_delay else self.base_delay

    def to_json(self) -> Json:
        """``{"Exponential": {"base_delay", "max_delay"}}``."""
        return {
            "Exponential": {
                "base_delay": duration_to_json(self.base_delay),
                "max_delay": duration_to_json(self.max_delay),
            }
        }


Backoff = FixedBackoff | ExponentialBackoff


def _microseconds(duration: timedelta) -> int:
    return duration // timedelta.resolution


def backoff_from_json(data: Json) -> Backoff:
    """The backoff of its wire form; :class:`InvalidShapeError` for anything else."""
    tag, body = only_variant(data, "Backoff")
    fields = body if isinstance(body, dict) else {}
    if tag == "Fixed":
        return FixedBackoff(duration_from_json(fields.get("delay")))
    if tag == "Exponential":
        return ExponentialBackoff(
            duration_from_json(fields.get("base_delay")), duration_from_json(fields.get("max_delay"))
        )
    raise InvalidShapeError("Backoff", "", "expected Fixed or Exponential")


class RetryPolicy(msgspec.Struct, frozen=True):
    """How often a state is tried, its first attempt included, and how long to wait in between."""

    max_attempts: int = 3
    backoff: Backoff = FixedBackoff()

    def __post_init__(self) -> None:
        expect(self.max_attempts, int, "RetryPolicy(max_attempts=…)", "a whole number")
        if self.max_attempts < 0:
            raise ValueError(f"RetryPolicy(max_attempts=…) is not to be negative, and is {self.max_attempts}")
        expect(
            self.backoff,
            (FixedBackoff, ExponentialBackoff),
            "RetryPolicy(backoff=…)",
            "a FixedBackoff or an ExponentialBackoff",
        )

    def to_json(self) -> Json:
        """``{"max_attempts", "backoff"}``."""
        return {"max_attempts": self.max_attempts, "backoff": self.backoff.to_json()}

    @classmethod
    def from_json(cls, data: Json) -> RetryPolicy:
        """The policy of its wire form; :class:`InvalidShapeError` for anything else."""
        wire = shaped(data, _RetryPolicyWire)
        return cls(wire.max_attempts, backoff_from_json(wire.backoff))


class Sequential(msgspec.Struct, frozen=True):
    """One state at a time, in topological order."""

    def to_json(self) -> Json:
        """``"Sequential"``."""
        return "Sequential"


class FanOutJoin(msgspec.Struct, frozen=True):
    """Ready states side by side, up to ``max_concurrency``: 1 to 10,000.

    A state sees what the states before it in the plan's graph have written, whatever the timing.
    """

    max_concurrency: int = 4

    def __post_init__(self) -> None:
        expect(self.max_concurrency, int, "FanOutJoin(max_concurrency=…)", "a whole number")
        if not 1 <= self.max_concurrency <= SIDE_BY_SIDE_MAX:
            raise ValueError(
                f"FanOutJoin(max_concurrency=…) is to be 1 to {SIDE_BY_SIDE_MAX}, "
                f"and is {self.max_concurrency}"
            )

    def to_json(self) -> Json:
        """``{"FanOutJoin": {"max_concurrency"}}``."""
        return {"FanOutJoin": {"max_concurrency": self.max_concurrency}}


ExecutionMode = Sequential | FanOutJoin


def execution_mode_from_json(data: Json) -> ExecutionMode:
    """The mode of its wire form; :class:`InvalidShapeError` for anything else."""
    tag, body = only_variant(data, "ExecutionMode")
    if tag == "Sequential":
        return Sequential()
    if tag == "FanOutJoin":
        return shaped(body, FanOutJoin)
    raise InvalidShapeError("ExecutionMode", "", "expected Sequential or FanOutJoin")


class RunConfig(msgspec.Struct, frozen=True, kw_only=True):
    """How a run is driven. The defaults are a live run, three attempts without delay, one state at a time.

    The last four fields are this engine's; they are left out of the wire form when unset, so that a
    configuration without them has the same id everywhere.
    """

    io_mode: IoMode = IoMode.LIVE
    retry_policy: RetryPolicy = RetryPolicy()
    event_profile: EventProfile = EventProfile.NORMAL
    execution_mode: ExecutionMode = Sequential()
    context_checkpointing: ContextCheckpointing = ContextCheckpointing.AFTER_EVERY_STATE
    replay_missing_fact_retryable: bool = False
    skip_tags: tuple[str, ...] = ()
    nix_flake_allowlist: tuple[str, ...] = ()
    recovery_limit: int | None = None
    """Consecutive orphaned attempts without progress before a state fails; None is 8."""
    secret_policy: int | None = None
    """Version of the secret detectors by which this run's artifacts are judged; None is 1."""
    replay_of: RunId | None = None
    """In replay, the run whose recorded facts answer; None is the run itself."""
    timeout: timedelta | None = None
    """How long the run may take from its start on; then it fails (``run_timeout``). None is no limit."""

    def __post_init__(self) -> None:
        for name, kinds, wanted in _CONFIG_KINDS:
            expect(getattr(self, name), kinds, f"RunConfig({name}=…)", wanted)
        expect_many(self.skip_tags, str, "RunConfig(skip_tags=…)", "strings")
        expect_many(self.nix_flake_allowlist, str, "RunConfig(nix_flake_allowlist=…)", "strings")
        expect_unless_none(self.recovery_limit, int, "RunConfig(recovery_limit=…)", "a whole number")
        expect_unless_none(self.secret_policy, int, "RunConfig(secret_policy=…)", "a whole number")
        if self.replay_of is not None:
            RunId(self.replay_of)
        if self.timeout is not None:
            expect_duration(self.timeout, "RunConfig(timeout=…)")

    def to_json(self) -> Json:
        """The shape of the wire, without the fields that are unset."""
        data: dict[str, Json] = {
            "io_mode": self.io_mode.value,
            "retry_policy": self.retry_policy.to_json(),
            "event_profile": self.event_profile.to_json(),
            "execution_mode": self.execution_mode.to_json(),
            "context_checkpointing": self.context_checkpointing.to_json(),
            "replay_missing_fact_retryable": self.replay_missing_fact_retryable,
            "skip_tags": [str(tag) for tag in self.skip_tags],
            "nix_flake_allowlist": [str(flake) for flake in self.nix_flake_allowlist],
        }
        for name in ("recovery_limit", "secret_policy", "replay_of"):
            if (value := getattr(self, name)) is not None:
                data[name] = value
        if self.timeout is not None:
            data["timeout"] = duration_to_json(self.timeout)
        return data

    @classmethod
    def from_json(cls, data: Json) -> RunConfig:
        """The configuration of its wire form; :class:`InvalidShapeError` for anything else."""
        wire = shaped(data, _RunConfigWire)
        return cls(
            io_mode=IoMode.from_json(wire.io_mode),
            retry_policy=RetryPolicy.from_json(wire.retry_policy),
            event_profile=EventProfile.from_json(wire.event_profile),
            execution_mode=execution_mode_from_json(wire.execution_mode),
            context_checkpointing=ContextCheckpointing.from_json(wire.context_checkpointing),
            replay_missing_fact_retryable=wire.replay_missing_fact_retryable,
            skip_tags=wire.skip_tags,
            nix_flake_allowlist=wire.nix_flake_allowlist,
            recovery_limit=wire.recovery_limit,
            secret_policy=wire.secret_policy,
            replay_of=wire.replay_of,
            timeout=None if wire.timeout is None else duration_from_json(wire.timeout),
        )


_CONFIG_KINDS: tuple[tuple[str, type | tuple[type, ...], str], ...] = (
    ("io_mode", IoMode, "an IoMode"),
    ("retry_policy", RetryPolicy, "a RetryPolicy"),
    ("event_profile", EventProfile, "an EventProfile"),
    ("execution_mode", (Sequential, FanOutJoin), "Sequential() or a FanOutJoin"),
    ("context_checkpointing", ContextCheckpointing, "a ContextCheckpointing"),
    ("replay_missing_fact_retryable", bool, "True or False"),
)


class BuildProvenance(msgspec.Struct, frozen=True, kw_only=True):
    """What the program that started a run was built from; all unknown unless said."""

    git_commit: str | None = None
    cargo_lock_hash: str | None = None
    flake_lock_hash: str | None = None
    rustc_version: str | None = None
    target_triple: str | None = None
    env_allowlist: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in ("git_commit", "cargo_lock_hash", "flake_lock_hash", "rustc_version", "target_triple"):
            expect_unless_none(getattr(self, name), str, f"BuildProvenance({name}=…)", "a string")
        expect_many(self.env_allowlist, str, "BuildProvenance(env_allowlist=…)", "strings")

    def to_json(self) -> Json:
        """All six fields, None as null."""
        return {
            "git_commit": self.git_commit,
            "cargo_lock_hash": self.cargo_lock_hash,
            "flake_lock_hash": self.flake_lock_hash,
            "rustc_version": self.rustc_version,
            "target_triple": self.target_triple,
            "env_allowlist": list(self.env_allowlist),
        }

    @classmethod
    def from_json(cls, data: Json) -> BuildProvenance:
        """The value of its wire form; :class:`InvalidShapeError` for anything else."""
        return shaped(data, cls)


class RunManifest(msgspec.Struct, frozen=True):
    """What a run was started from. Its artifact id names it, and resuming rebuilds the plan from it."""

    op_id: OpId
    op_version: str
    input_params: Any
    run_config: RunConfig
    build: BuildProvenance = BuildProvenance()

    def __post_init__(self) -> None:
        expect(self.op_id, str, "RunManifest(op_id=…)", "an OpId")
        expect(self.op_version, str, "RunManifest(op_version=…)", "a string")
        expect(self.run_config, RunConfig, "RunManifest(run_config=…)", "a RunConfig")
        expect(self.build, BuildProvenance, "RunManifest(build=…)", "a BuildProvenance")

    def to_json(self) -> Json:
        """``{"op_id", "op_version", "input_params", "run_config", "build"}``."""
        return {
            "op_id": self.op_id,
            "op_version": self.op_version,
            "input_params": self.input_params,
            "run_config": self.run_config.to_json(),
            "build": self.build.to_json(),
        }

    @classmethod
    def from_json(cls, data: Json) -> RunManifest:
        """The manifest of its wire form; :class:`InvalidShapeError` for anything else."""
        wire = shaped(data, _RunManifestWire)
        return cls(
            wire.op_id,
            wire.op_version,
            wire.input_params,
            RunConfig.from_json(wire.run_config),
            BuildProvenance.from_json(wire.build),
        )


class _RetryPolicyWire(msgspec.Struct):
    max_attempts: Annotated[int, msgspec.Meta(ge=0)]
    backoff: Any


class _RunConfigWire(msgspec.Struct):
    io_mode: Any
    retry_policy: Any
    event_profile: Any
    execution_mode: Any
    context_checkpointing: Any
    replay_missing_fact_retryable: bool
    skip_tags: tuple[str, ...]
    nix_flake_allowlist: tuple[str, ...] = ()
    recovery_limit: int | None = None
    secret_policy: int | None = None
    replay_of: RunId | None = None
    timeout: Any = None


class _RunManifestWire(msgspec.Struct):
    op_id: OpId
    op_version: str
    input_params: Any
    run_config: Any
    build: Any
