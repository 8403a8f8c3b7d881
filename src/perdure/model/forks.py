"""Where a fork comes from."""

from __future__ import annotations

from typing import Annotated

import msgspec

from perdure.errors import Json
from perdure.ids import ArtifactId, RunId, StateId


class ForkedFrom(msgspec.Struct, frozen=True, gc=False):
    """What a fork begins with: another run's history, up to where that run first entered ``state_id``.

    ``seq`` is the number of that event of the other run. ``base_snapshot_id`` is the context that the fork
    goes on with: the one found there, with the keys ``set_keys`` set by whoever forked it, ``by``, and for
    what ``reason``.
    """

    run_id: RunId
    state_id: StateId
    seq: Annotated[int, msgspec.Meta(ge=1)]
    base_snapshot_id: ArtifactId
    set_keys: tuple[str, ...] = ()
    by: str = ""
    reason: str = ""

    def to_json(self) -> Json:
        """The fields by name."""
        return {
            "run_id": self.run_id,
            "state_id": self.state_id,
            "seq": self.seq,
            "base_snapshot_id": self.base_snapshot_id,
            "set_keys": list(self.set_keys),
            "by": self.by,
            "reason": self.reason,
        }
