"""Where a replayed run's answers come from."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from perdure.engine.history import RunView
from perdure.ids import RunId
from perdure.io.facts import FactBinding, recorded_attempts
from perdure.io.replay import ReplayIo
from perdure.io.scope import AttemptScope
from perdure.model.meta import StateMeta
from perdure.stores.bundle import Stores


class ReplaySource(msgspec.Struct, frozen=True):
    """Where a replayed run's answers come from: a recorded run's facts and attempt numbers."""

    facts: Mapping[str, FactBinding]
    run_id: RunId
    attempts: Mapping[str, int]
    effect_fact_keys: frozenset[str]

    @classmethod
    def of_view(cls, view: RunView, run_id: RunId) -> ReplaySource:
        """The source that ``run_id``'s history is.

        A state's readings are those of the attempt that completed, of its last one where none did.
        """
        recorded = recorded_attempts(view.facts, run_id)
        attempts = dict(recorded.last_attempts)
        for state_id, progress in view.states.items():
            completed = progress.completed_attempt
            attempts[state_id] = progress.last_attempt if completed is None else completed
        effects = frozenset(str(effect.fact_key) for effect in view.effects.values())
        return cls(dict(view.facts), recorded.run_id, attempts, effects)

    def io(
        self,
        scope: AttemptScope,
        stores: Stores,
        attempt: int,
        meta: StateMeta,
        *,
        missing_fact_retryable: bool,
    ) -> ReplayIo:
        """The IO of one replayed attempt."""
        return ReplayIo(
            scope,
            stores,
            self.facts,
            self.run_id,
            attempt,
            missing_fact_retryable,
            meta.side_effects,
            self.effect_fact_keys,
        )
