"""Durations: ``datetime.timedelta`` here, ``{"secs", "nanos"}`` on the wire."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated

import msgspec

from perdure.errors import InvalidShapeError, Json, shaped

_SECONDS_MAX = timedelta.max // timedelta(seconds=1)


class _Duration(msgspec.Struct, frozen=True):
    secs: Annotated[int, msgspec.Meta(ge=0)]
    nanos: Annotated[int, msgspec.Meta(ge=0, lt=1_000_000_000)]


class _PreciseDuration(timedelta):
    """A duration read from the wire that is finer than the microseconds of ``timedelta``.

    Kept whole so that writing it again gives the same bytes, hence the same artifact id.
    """

    nanos: int


def duration_to_json(duration: timedelta) -> Json:
    """``{"secs", "nanos"}``."""
    seconds, rest = divmod(duration, timedelta(seconds=1))
    nanos = duration.nanos if isinstance(duration, _PreciseDuration) else rest.microseconds * 1000
    return {"secs": seconds, "nanos": nanos}


def duration_from_json(data: Json) -> timedelta:
    """The duration of its wire form; :class:`InvalidShapeError` for anything else."""
    parts = shaped(data, _Duration)
    if parts.secs > _SECONDS_MAX:
        raise InvalidShapeError("Duration", "/secs", f"more than {_SECONDS_MAX} seconds")
    microseconds, finer = divmod(parts.nanos, 1000)
    if not finer:
        return timedelta(seconds=parts.secs, microseconds=microseconds)
    precise = _PreciseDuration(seconds=parts.secs, microseconds=microseconds)
    precise.nanos = parts.nanos
    return precise
