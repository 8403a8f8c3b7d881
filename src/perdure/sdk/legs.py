"""A run's place in a chain of runs, each of which goes on as the next."""

from __future__ import annotations

from perdure.engine.history import RunView
from perdure.errors import Json, PerdureError
from perdure.ids import RunId
from perdure.model.events import ContinuedRun
from perdure.model.legs import continued_by
from perdure.sdk.finding import first_event
from perdure.stores.bundle import Stores


def leg_number(view: RunView) -> int:
    """Which leg of its chain a run is; 1 for one that continues none."""
    continued = None if view.started is None else view.started.continues
    return 1 if continued is None else continued.leg


def first_leg(view: RunView, run_id: RunId) -> RunId:
    """The first leg of a run's chain; the run itself if it continues none."""
    continued = None if view.started is None else view.started.continues
    return run_id if continued is None else continued.first_run_id


def place_json(first: RunId, leg: int, continued_as: RunId | None) -> dict[str, Json]:
    """``{"leg", "first_run_id", "continued_as"}``; empty for a run that is in no chain."""
    if leg == 1 and continued_as is None:
        return {}
    return {"leg": leg, "first_run_id": first, "continued_as": continued_as}


async def chain_json(stores: Stores, view: RunView, run_id: RunId) -> dict[str, Json]:
    """``{"continues", "newest_run_id", "legs"}``, the last of these the newest leg's number.

    Empty for a run that is in no chain.
    """
    if view.started is None or (view.started.continues is None and view.continued_as is None):
        return {}
    newest = await stores.newest_leg(run_id)
    before = view.started.continues
    return {
        "continues": None if before is None else before.run_id,
        "newest_run_id": newest,
        "legs": max(leg_number(view), await _leg_of(stores, newest)),
    }


async def chain_of(stores: Stores, run_id: RunId) -> RunId:
    """The first leg of a run's chain, from one event; itself also where that cannot be read."""
    try:
        continued = await _continued(stores, run_id)
    except PerdureError:
        return run_id
    return run_id if continued is None else continued.first_run_id


async def _leg_of(stores: Stores, run_id: RunId) -> int:
    continued = await _continued(stores, run_id)
    return 1 if continued is None else continued.leg


async def _continued(stores: Stores, run_id: RunId) -> ContinuedRun | None:
    first = await first_event(stores, run_id)
    return None if first is None else continued_by(first)
