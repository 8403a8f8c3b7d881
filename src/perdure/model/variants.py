"""Externally tagged enums: a plain string for a unit variant, ``{"<variant>": …}`` for the others."""

from __future__ import annotations

from typing import Any, ClassVar, Self

import msgspec

from perdure.errors import InvalidShapeError, Json


class OpenEnum(msgspec.Struct, frozen=True):
    """An enum with named members and one variant that carries a name of the user's own."""

    variant: str
    name: str | None = None

    members: ClassVar[tuple[str, ...]]
    open_variant: ClassVar[str]

    def to_json(self) -> Json:
        """The wire name, or ``{"<open variant>": name}``."""
        return self.variant if self.name is None else {self.variant: self.name}

    @classmethod
    def from_json(cls, data: Json) -> Self:
        """The value of its wire form; :class:`InvalidShapeError` for anything else."""
        if isinstance(data, str) and data in cls.members:
            return cls(str(data))
        if isinstance(data, dict) and list(data) == [cls.open_variant]:
            name = data[cls.open_variant]
            if isinstance(name, str):
                return cls(cls.open_variant, str(name))
        raise InvalidShapeError(cls.__name__, "", f"expected one of {', '.join(cls.members)}")

    def __str__(self) -> str:
        return self.variant if self.name is None else f"{self.variant}({self.name})"


def only_variant(data: Json, shape: str) -> tuple[str, Any]:
    """The tag and the body of an externally tagged value; a unit variant's body is None."""
    if isinstance(data, str):
        return data, None
    if isinstance(data, dict) and len(data) == 1:
        ((tag, body),) = data.items()
        return tag, body
    raise InvalidShapeError(shape, "", "expected a variant: a string, or an object with one member")
