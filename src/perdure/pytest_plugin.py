"""The fixture ``perdure_run``, for whoever tests operations with pytest."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from perdure.testing import RunInMemory


@pytest.fixture(scope="session")
def perdure_run() -> RunInMemory:
    """Runs an operation to its end: in memory, against scripted answers, and replayed afterwards.

    ``run = perdure_run(checkout, order, answers={"shop.catalogue": {"cents": 450}})``
    """
    from perdure.testing import RunInMemory

    return RunInMemory()
