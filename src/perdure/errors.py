"""Every error that Perdure raises, in one tree::

    PerdureError                       info: ErrorInfo, hint: what to do next
    ├── InvalidIdError                 a ValueError (perdure.ids)
    ├── CanonicalJsonError             a ValueError with the JSON pointer (perdure.canonical)
    ├── InvalidShapeError              a ValueError: JSON that is not of the shape asked for
    ├── StateError                     raised by and about a state
    ├── IoError                        "Other"
    │   ├── MissingFactKeyError
    │   ├── MissingFactError           names the key
    │   ├── TransportError
    │   └── RateLimitedError
    ├── ContextError                   "Other"
    │   ├── MissingContextKeyError     names the key
    │   └── ContextSerializationError
    ├── StorageError                   "Other"
    │   ├── ConcurrencyError
    │   ├── NotFoundError
    │   └── CorruptionError
    └── RunError                       "Other"
        └── InvalidPlanError

A code is stable: programs may branch on ``error.code``. Messages may change.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import Any, ClassVar, Self, TypeVar

import msgspec

from perdure import hints

T = TypeVar("T")
Json = Any
"""Plain JSON data: None, bool, int, str, list and dict with string keys."""


class ErrorCategory(enum.Enum):
    """Where an error comes from; the values are the wire names."""

    PARSING_INPUT = "ParsingInput"
    ON_CHAIN = "OnChain"
    OFF_CHAIN = "OffChain"
    RPC = "Rpc"
    STORAGE = "Storage"
    CONTEXT = "Context"
    UNKNOWN = "Unknown"

    def to_json(self) -> str:
        """The wire name."""
        return self.value

    @classmethod
    def from_json(cls, data: Json) -> ErrorCategory:
        """The category of a wire name; :class:`InvalidShapeError` for any other."""
        try:
            return cls(data)
        except ValueError:
            raise InvalidShapeError("ErrorCategory", "", "no such category") from None


class ErrorInfo(msgspec.Struct, frozen=True):
    """What happened: a stable code, its category, whether trying again may help, and words for a person.

    ``details`` is JSON data or None. Neither it nor the message holds a secret, a request or a response.
    """

    code: str
    category: ErrorCategory
    retryable: bool = False
    message: str = ""
    details: Json = None

    def to_json(self) -> Json:
        """``{"code", "category", "retryable", "message", "details"}``."""
        return {
            "code": str(self.code),
            "category": self.category.value,
            "retryable": self.retryable,
            "message": self.message,
            "details": self.details,
        }

    @classmethod
    def from_json(cls, data: Json) -> ErrorInfo:
        """The value of its wire form; :class:`InvalidShapeError` if it is not of that form."""
        return shaped(data, cls)


class PerdureError(Exception):
    """The base of all errors. ``info`` says what happened, ``hint`` what to do next."""

    variant: ClassVar[str] = "Other"

    def __init__(self, info: ErrorInfo, *, hint: str | None = None) -> None:
        super().__init__(info)
        self.info = info
        self._hint = hint

    @property
    def code(self) -> str:
        """The stable code, as in ``error.info.code``."""
        return self.info.code

    @property
    def hint(self) -> str:
        """What to do next; empty when nothing more can be said than the message does."""
        return self._hint if self._hint is not None else hints.HINTS.get(self.info.code, "")

    def __str__(self) -> str:
        text = f"{self.info.code}: {self.info.message}" if self.info.message else self.info.code
        if self.info.details:
            text = f"{text} {self.info.details}"
        return text

    def to_json(self) -> Json:
        """The wire form of this error's own tree: ``{"<variant>": info}``."""
        return {self.variant: self.info.to_json()}

    def to_run_error_json(self) -> Json:
        """The wire form as a ``RunError``, in which each tree is a variant of its own."""
        return {"Other": self.info.to_json()}

    @classmethod
    def of(
        cls,
        code: str,
        message: str,
        *,
        category: ErrorCategory | None = None,
        retryable: bool = False,
        details: Json = None,
        hint: str | None = None,
    ) -> Self:
        """An error of this class with its usual category, unless another is given."""
        return cls(ErrorInfo(code, category or cls.usual_category, retryable, message, details), hint=hint)

    usual_category: ClassVar[ErrorCategory] = ErrorCategory.UNKNOWN


class InvalidShapeError(PerdureError, ValueError):
    """JSON that is not of the shape asked for (code ``invalid_shape``); ``pointer`` says where."""

    usual_category = ErrorCategory.PARSING_INPUT

    def __init__(self, shape: str, pointer: str, problem: str) -> None:
        super().__init__(
            ErrorInfo(
                "invalid_shape",
                ErrorCategory.PARSING_INPUT,
                False,
                f"not a {shape}: {problem}",
                {"shape": shape, "pointer": pointer},
            )
        )
        self.shape, self.pointer, self.problem = shape, pointer, problem

    def __reduce__(self) -> tuple[type[Self], tuple[str, str, str]]:
        return type(self), (self.shape, self.pointer, self.problem)


class StateError(PerdureError):
    """An error of a state. In an event, ``StateErrorInfo`` (perdure.model) is its value."""

    def __init__(self, info: ErrorInfo, state_id: str | None = None, *, hint: str | None = None) -> None:
        super().__init__(info, hint=hint)
        self.state_id = state_id

    def to_json(self) -> Json:
        """``{"state_id", "info"}``."""
        return {"state_id": self.state_id, "info": self.info.to_json()}

    def to_run_error_json(self) -> Json:
        """``{"State": {"state_id", "info"}}``."""
        return {"State": self.to_json()}

    @classmethod
    def from_json(cls, data: Json) -> StateError:
        """The error of its wire form."""
        fields = _object(data, "StateError")
        return cls(ErrorInfo.from_json(fields.get("info")), fields.get("state_id"))


class _VariantError(PerdureError):
    """An error whose wire form is one variant of its tree."""

    run_error_variant: ClassVar[str | None] = None

    def to_run_error_json(self) -> Json:
        if self.run_error_variant is None:
            return self.to_json()
        return {self.run_error_variant: self.to_json()}

    @classmethod
    def from_json(cls, data: Json) -> Self:
        """The error of its wire form, of the subclass that its variant names."""
        fields = _object(data, cls.__name__)
        for candidate in (cls, *_descendants(cls)):
            if candidate.variant in fields:
                return candidate._from_body(fields[candidate.variant])
        raise InvalidShapeError(cls.__name__, "", "no known variant")

    @classmethod
    def _from_body(cls, body: Json) -> Self:
        return cls(ErrorInfo.from_json(body))


class IoError(_VariantError):
    """A call through the IO provider failed."""

    run_error_variant = "Io"
    not_applied = False
    """Whether the transport knows that the call has changed nothing; not part of the wire form."""


class MissingFactKeyError(IoError):
    """A call that must be recorded has no fact key."""

    variant = "MissingFactKey"
    usual_category = ErrorCategory.PARSING_INPUT


class _KeyedError(PerdureError):
    """An error about one key; its wire form is ``{"<variant>": {"key", "info"}}``."""

    def __init__(self, info: ErrorInfo, key: str = "", *, hint: str | None = None) -> None:
        super().__init__(info, hint=hint)
        self.key = key

    def to_json(self) -> Json:
        return {self.variant: {"key": str(self.key), "info": self.info.to_json()}}

    @classmethod
    def _from_body(cls, body: Json) -> Self:
        fields = _object(body, cls.__name__)
        return cls(ErrorInfo.from_json(fields.get("info")), str(fields.get("key", "")))


class MissingFactError(_KeyedError, IoError):
    """Replay needs a fact that was never recorded; ``key`` names it."""

    variant = "MissingFact"
    usual_category = ErrorCategory.RPC


class TransportError(IoError):
    """The outside world could not be asked, or did not answer."""

    variant = "Transport"
    usual_category = ErrorCategory.RPC


class NotAppliedError(TransportError):
    """The transport knows that the call has changed nothing: it may be made again."""

    not_applied = True


class EffectNotMadeError(NotAppliedError):
    """A transport has looked an effect up, and knows that it was never made: it may be made now."""


class RateLimitedError(IoError):
    """The outside world asks to be called less often."""

    variant = "RateLimited"
    usual_category = ErrorCategory.RPC


class ContextError(_VariantError):
    """The run's context could not be read or written."""

    run_error_variant = "Context"
    usual_category = ErrorCategory.CONTEXT


class MissingContextKeyError(_KeyedError, ContextError):
    """A context key that must exist does not."""

    variant = "MissingKey"


class ContextSerializationError(ContextError):
    """A context value is not canonical JSON, or holds a secret."""

    variant = "Serialization"


class StorageError(_VariantError):
    """A store could not do what it was asked."""

    run_error_variant = "Storage"
    usual_category = ErrorCategory.STORAGE


class ConcurrencyError(StorageError):
    """Somebody else wrote first, owns the run, or took it over."""

    variant = "Concurrency"


class NotFoundError(StorageError):
    """The run, artifact or store asked for does not exist."""

    variant = "NotFound"


class CorruptionError(StorageError):
    """What is stored is not what was written, or breaks the rules of a history."""

    variant = "Corruption"


class RunError(_VariantError):
    """A run could not be started, resumed or driven."""

    @classmethod
    def from_json(cls, data: Json) -> PerdureError:  # type: ignore[override]  # a variant may be another tree
        """The error of its wire form; storage, context, IO and state errors come back as their own trees."""
        fields = _object(data, cls.__name__)
        for name, tree in _TREES.items():
            if name in fields:
                return tree.from_json(fields[name])
        return super().from_json(data)


class InvalidPlanError(RunError):
    """The plan, the manifest or the history does not allow the run to be driven."""

    variant = "InvalidPlan"


_TREES: dict[str, type[StateError | IoError | ContextError | StorageError]] = {
    "Storage": StorageError,
    "Context": ContextError,
    "Io": IoError,
    "State": StateError,
}


def shaped(data: Json, shape: type[T]) -> T:
    """``data`` as a value of ``shape``, a msgspec struct.

    Unknown fields are ignored. :class:`InvalidShapeError` names the place that does not fit, and an id
    that breaks its rule raises its own ``InvalidIdError``.
    """
    try:
        return msgspec.convert(data, shape, dec_hook=decode_str_subclass)
    except msgspec.ValidationError as error:
        raise shape_error(error, shape.__name__) from None


def decode_str_subclass(kind: type, value: object) -> object:
    """A msgspec decoding hook: ids are made by calling their class."""
    return kind(value)


def shape_error(error: msgspec.ValidationError, shape: str) -> PerdureError:
    """Our error for one of msgspec's, with its path as a JSON pointer."""
    if isinstance(error.__cause__, PerdureError):
        return error.__cause__
    problem, _, path = str(error).partition(" - at `$")
    pointer = path.rstrip("`").replace(".", "/").replace("[", "/").replace("]", "")
    return InvalidShapeError(shape, pointer, problem)


def _object(data: Json, shape: str) -> Mapping[str, Json]:
    if not isinstance(data, Mapping):
        raise InvalidShapeError(shape, "", "expected an object")
    return data


def _descendants(cls: type[T]) -> list[type[T]]:
    found: list[type[T]] = []
    for child in cls.__subclasses__():
        found += [child, *_descendants(child)]
    return found
