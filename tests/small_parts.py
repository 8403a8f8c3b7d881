"""Everything that can be kept in parts is, small as it is."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from perdure.model import context, rope
from perdure.stores import sharing

_SIZES = {
    "_ALONE_BYTES": 8,
    "_RUN_BYTES_MIN": 4,
    "_RUN_BYTES_MAX": 8,
    "_INLINE_BYTES_MAX": 4,
    "ENTRIES_MAX": 4,
    "_GROUP_ENTRIES_MIN": 2,
}


@contextmanager
def small_parts() -> Iterator[None]:
    """For as long as it is entered."""
    with pytest.MonkeyPatch.context() as patch:
        for module in (context, rope, sharing):
            patch.setattr(module, "WHOLE_BYTES_MAX", 2)
        for name, size in _SIZES.items():
            patch.setattr(rope, name, size)
        yield
