"""The laws hold for what is kept in parts."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.small_parts import small_parts


@pytest.fixture(autouse=True, scope="module")
def _small_parts() -> Iterator[None]:
    with small_parts():
        yield
