"""Where a replayed run's answers come from."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from perdure.engine.history import RunView
from perdure.engine.recovery import read_view
from perdure.errors import NotFoundError
from perdure.ids import RunId, StateId
from perdure.io.facts import FactBinding, recorded_attempts, state_of_fact
from perdure.io.replay import ReplayIo
from perdure.io.scope import AttemptScope
from perdure.model.config import IoMode, RunConfig
from perdure.model.meta import StateMeta
from perdure.stores.bundle import Stores


class ReplaySource(msgspec.Struct, frozen=True):
    """Where a replayed run's answers come from: a recorded run's facts and attempt numbers."""

    facts: Mapping[str, FactBinding]
    run_id: RunId
    attempts: Mapping[str, int]
    effect_fact_keys: frozenset[str]
    executed_by: Mapping[StateId, RunId] = {}
    """Of a fork: the runs in which the states were executed that it has copied."""

    @classmethod
    def of_view(cls, view: RunView, run_id: RunId) -> ReplaySource:
        """The source that ``run_id``'s history is.

        A state's readings are those of the attempt that completed, of its last one where none did.
        """
        recorded = recorded_attempts(
            [key for key in view.facts if state_of_fact(key) not in view.executed_by]
            if view.executed_by
            else view.facts,
            run_id,
        )
        attempts = dict(recorded.last_attempts)
        for state_id, progress in view.states.items():
            completed = progress.completed_attempt
            attempts[state_id] = progress.last_attempt if completed is None else completed
        effects = frozenset(str(effect.fact_key) for effect in view.effects.values())
        return cls(dict(view.facts), recorded.run_id, attempts, effects, dict(view.executed_by))

    def run_of(self, state_id: StateId) -> RunId:
        """The run that the state's readings and effects are recorded under."""
        return self.executed_by.get(state_id, self.run_id)

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
            self.run_of(scope.state_id),
            attempt,
            missing_fact_retryable,
            meta.side_effects,
            self.effect_fact_keys,
        )


async def replay_source(
    stores: Stores, run_id: RunId, view: RunView, config: RunConfig
) -> ReplaySource | None:
    """What a run in replay is answered from: its own history, or that of the run it replays.

    None for a live run; ``NotFoundError`` (``run_not_found``) where the other run is not kept here.
    """
    if config.io_mode is not IoMode.REPLAY:
        return None
    if config.replay_of is None:
        return ReplaySource.of_view(view, run_id)
    recorded = await read_view(stores, config.replay_of)
    if recorded.started is None:
        raise NotFoundError.of(
            "run_not_found", "the run to replay is not kept here", details={"run_id": config.replay_of}
        )
    return ReplaySource.of_view(recorded, config.replay_of)
