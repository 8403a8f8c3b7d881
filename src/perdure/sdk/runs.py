"""A run, as whoever started or found it sees it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any, Generic, TypeVar, overload

import msgspec

from perdure.engine.history import RunView
from perdure.engine.letters import ResolveLetter, SignalLetter, StopLetter, StopWord
from perdure.engine.recovery import read_view
from perdure.engine.results import RunResult
from perdure.errors import Json
from perdure.ids import RunId
from perdure.io.effects import Effect
from perdure.model.events import EventEnvelope, RunPhase
from perdure.proof.replay import ReplayReport, replay_run
from perdure.sdk.app import Startable
from perdure.sdk.finding import manifest_of
from perdure.sdk.pending import doubt_of
from perdure.sdk.reading import exports_of, published_values
from perdure.sdk.refusals import run_failure
from perdure.sdk.signals import SignalDefinition, checked_signal
from perdure.stores.reading import read_json

if TYPE_CHECKING:
    from perdure.sdk.client import Client

Out = TypeVar("Out")
T = TypeVar("T")
PROGRAM = "program"
"""Who tells a run something, where nobody is named."""


class Run(Generic[Out]):
    """A run, as its client sees it.

    One that goes on as another is all of them: it has ended when the newest leg has, and is told and asked
    what that one is. ``events`` and ``replay`` alone are about the leg that ``id`` names.
    """

    def __init__(self, client: Client, run_id: RunId, startable: Startable | None = None) -> None:
        self.id = run_id
        self._client = client
        self._startable = startable

    def __repr__(self) -> str:
        return f"<run {self.id}>"

    async def result(self) -> Out:
        """Wait for the end and give what the run exports: the value of the only export, or all by name.

        Raises ``RunError`` (``run_failed`` with the state and its error's code, ``run_cancelled``).
        """
        client = self._client
        ended = await client.wait(self.id)
        view = await read_view(client.stores, ended.run_id)
        manifest = await manifest_of(client.stores, view)
        if ended.phase is not RunPhase.COMPLETED or manifest is None:
            raise run_failure(ended.run_id, view)
        exports = await exports_of(client.stores, client.app.resolver.planner, ended)
        startable = self._startable or client.app.startable(manifest.op_id, manifest.op_version)
        result: Out = startable.result_of(exports)
        return result

    async def wait(self) -> RunResult:
        """Wait for the end; a run that failed is no error here."""
        return await self._client.wait(self.id)

    async def newest_leg(self) -> RunId:
        """The run as which this one goes on in the end; its own id if it does not go on as another."""
        return await self._client.stores.newest_leg(self.id)

    async def phase(self) -> RunPhase:
        """Running, or how the run ended."""
        return (await self._view()).phase

    async def context(self) -> dict[str, Json]:
        """The context after the last state that completed."""
        view = await self._view()
        if view.checkpoint is None:
            return {}
        context, _ = await read_json(self._client.stores.artifacts, view.checkpoint)
        return dict(context)

    async def replay(self) -> ReplayReport:
        """Execute the states that completed again, from the recorded facts alone, and compare.

        Raises ``InvalidPlanError`` if the app no longer has what the run was made of.
        """
        return await replay_run(self._client.stores, self.id, self._client.app.resolver)

    @overload
    async def signal(
        self, signal: SignalDefinition[T], value: T, *, by: str = PROGRAM, letter_id: str | None = None
    ) -> bool: ...
    @overload
    async def signal(
        self, signal: str, value: Any = None, *, by: str = PROGRAM, letter_id: str | None = None
    ) -> bool: ...
    async def signal(
        self, signal: Any, value: Any = None, *, by: str = PROGRAM, letter_id: str | None = None
    ) -> bool:
        """Tell the run ``value`` under a signal's name; whoever waits for it goes on.

        The same ``letter_id`` again is the same signal; False if it still waits to be read. Raises as
        :meth:`Client.tell`, and ``RunError`` (``signal_unknown``, ``signal_invalid``) where the run's
        operation declares its signals.
        """
        name = signal.name if isinstance(signal, SignalDefinition) else signal
        data = checked_signal(await self._client.signals_of(self.id), name, value)
        return await self._client.tell(self.id, SignalLetter(name, data, by), letter_id)

    async def cancel(self, reason: str, *, by: str = PROGRAM, letter_id: str | None = None) -> None:
        """Have the run stopped: its handler is cancelled, states that clean up run, and the run ends.

        It has ended, ``Cancelled``, when :meth:`wait` returns. Raises as :meth:`Client.tell`.
        """
        await self._stop("cancel", reason, by, letter_id)

    async def terminate(self, reason: str, *, by: str = PROGRAM, letter_id: str | None = None) -> None:
        """Have the run ended ``Cancelled`` without any cleaning up."""
        await self._stop("terminate", reason, by, letter_id)

    async def pause(self, reason: str, *, by: str = PROGRAM, letter_id: str | None = None) -> None:
        """Have the run stand still before its next state, until :meth:`unpause`."""
        await self._stop("pause", reason, by, letter_id)

    async def unpause(self, reason: str = "", *, by: str = PROGRAM, letter_id: str | None = None) -> None:
        """Have a paused run go on."""
        await self._stop("unpause", reason, by, letter_id)

    async def in_doubt(self) -> list[Effect]:
        """The effects of which nobody knows what became of them."""
        return (await self._view()).in_doubt

    async def effect_happened(
        self,
        key: str,
        answer: Json,
        *,
        by: str,
        why: str,
        doubt: int | None = None,
        letter_id: str | None = None,
    ) -> None:
        """Say that an effect in doubt was made, and what its answer is; the run goes on with that.

        ``doubt`` is the doubt that was looked into, ``intents`` of what :meth:`in_doubt` gave: an effect that
        was made again meanwhile may be in another one. The present one unless given. Raises ``RunError``
        (``effect_not_in_doubt``, ``effect_under_way``), and as :meth:`Client.tell`.
        """
        await self._resolve(ResolveLetter(key, True, answer, by, why, doubt), letter_id)

    async def effect_did_not_happen(
        self, key: str, *, by: str, why: str, doubt: int | None = None, letter_id: str | None = None
    ) -> None:
        """Say that an effect in doubt was not made; the run makes it now. As :meth:`effect_happened`."""
        await self._resolve(ResolveLetter(key, False, None, by, why, doubt), letter_id)

    async def values(self) -> dict[str, Json]:
        """What the run's handlers published last under each name."""
        return await published_values(self._client.stores, await self.newest_leg())

    async def _view(self) -> RunView:
        return await read_view(self._client.stores, await self.newest_leg())

    async def _stop(self, how: StopWord, reason: str, by: str, letter_id: str | None) -> None:
        await self._client.tell(self.id, StopLetter(how, by, reason), letter_id)

    async def _resolve(self, letter: ResolveLetter, letter_id: str | None) -> None:
        doubt = await doubt_of(self._client.stores, await self.newest_leg(), letter.effect, letter.doubt)
        await self._client.tell(self.id, msgspec.structs.replace(letter, doubt=doubt), letter_id)

    def events(self, after: int = 0) -> AsyncIterator[EventEnvelope]:
        """The run's events as they are written, from the one after ``after`` on, until it has ended."""
        return self._client.events_of(self.id, after)
