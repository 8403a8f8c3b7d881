"""Starting runs that are due by their schedules: each once, whoever else does the same, and whoever dies."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

import msgspec

from perdure.canonical import canonical_json_bytes
from perdure.clock import Clock
from perdure.engine.engine import Engine
from perdure.engine.letters import StopLetter
from perdure.engine.schedules import Start, coming, next_step, wakening
from perdure.engine.starting import StartRun
from perdure.errors import ConcurrencyError, CorruptionError, NotFoundError, PerdureError
from perdure.ids import RunId
from perdure.model.config import RunConfig, RunManifest
from perdure.model.context import JsonContext
from perdure.model.events import ArtifactKind
from perdure.model.pipeline import manifest_for
from perdure.model.schedule import Overlap, Schedule, Target
from perdure.sdk.app import App
from perdure.stores.bundle import Stores
from perdure.stores.legs import end_of
from perdure.stores.ports import Blob, ScheduleRow

DUE_KEY = "schedule_due"
"""The key of the initial context that holds a run's due time, for operations that import it."""
LEFT_MILLIS = 30_000
"""How long a schedule is left alone that could not be followed here."""
_TOGETHER = 50
_STEPS_MAX = 100
"""How many steps of one schedule are done before others have their turn."""
_THERE_ALREADY = frozenset({"invocation_conflict", "run_already_exists"})

Tell = Callable[[RunId, StopLetter, str], Awaitable[object]]


class Scheduler:
    """Follows the schedules of a store, for a client whose app knows what they start.

    Runs are begun, not driven: they are due at once, for whoever takes up what is due.
    """

    def __init__(self, stores: Stores, app: App, engine: Engine, clock: Clock, tell: Tell) -> None:
        self.next_millis: int | None = None
        """When the next schedule was due that nobody had followed, as seen last."""
        self._stores = stores
        self._app = app
        self._engine = engine
        self._clock = clock
        self._tell = tell
        self._left: dict[str, int] = {}

    async def follow(self) -> None:
        """Do what is due. One indexed read if nothing is."""
        self.next_millis = await self._stores.schedules.next_due_millis()
        now = self._clock.now_millis()
        if self.next_millis is None or self.next_millis > now:
            return
        self._left = {each: until for each, until in self._left.items() if until > now}
        while True:
            limit = _TOGETHER + len(self._left)
            due = [each for each in await self._stores.schedules.due(now, limit) if each not in self._left]
            if not any(await asyncio.gather(*(self._advance(each) for each in due))):
                break
        self.next_millis = await self._stores.schedules.next_due_millis()

    def seconds_until_due(self, limit: float) -> float:
        """How long nothing is due that was not followed already, at most ``limit``."""
        now = self._clock.now_millis()
        if self.next_millis is None or self.next_millis <= now:
            return limit
        return min(limit, (self.next_millis - now) / 1000)

    async def _advance(self, schedule_id: str) -> bool:
        """Whether there was something to do for a schedule, and it has been done."""
        try:
            return await self._take_steps(schedule_id)
        except PerdureError as error:
            if error.code in ("schedule_changed", "schedule_not_found"):
                return True  # by somebody else, who has done it
            knows_too_little = error.code == "op_not_found"
            level = logging.DEBUG if knows_too_little else logging.WARNING
            logging.getLogger("perdure").log(level, "schedule %s is left alone: %s", schedule_id, error)
        except Exception:
            # The code of an operation; the other schedules are not to suffer from it.
            logging.getLogger("perdure").exception("schedule %s is left alone", schedule_id)
        self._left[schedule_id] = self._clock.now_millis() + LEFT_MILLIS
        return False

    async def _take_steps(self, schedule_id: str) -> bool:
        row = await self._stores.schedules.get(schedule_id)
        schedule = await self._with_newest_leg(Schedule.from_json(row.body))
        for taken in range(_STEPS_MAX):
            now = self._clock.now_millis()
            soon = coming(schedule, now)
            is_started = soon is not None and await self._stores.events.head_seq(soon.run_id) > 0
            is_busy = await self._is_busy(schedule)
            step = next_step(schedule, now, is_busy=is_busy, is_started=is_started)
            if step is None:
                changed = row_of(schedule, row.revision)
                if changed.awaits == row.awaits:
                    return taken > 0
                await self._stores.schedules.update(changed)
                return True
            if step.start is not None:
                await self._start(schedule, step.start)
            if step.cancel is not None:
                await self._cancel(schedule_id, step.cancel)
            schedule = step.schedule
            row = await self._stores.schedules.update(row_of(schedule, row.revision))
        return True

    async def _is_busy(self, schedule: Schedule) -> bool:
        if schedule.overlap is Overlap.ALLOW or schedule.last_run is None:
            return False
        head = await self._stores.events.head_seq(schedule.last_run)
        try:
            return head > 0 and await end_of(self._stores.events, schedule.last_run, head) is None
        except CorruptionError:
            return False  # nobody can go on with it

    async def _with_newest_leg(self, schedule: Schedule) -> Schedule:
        """The schedule, whose last run may have gone on as another one; that is the one to wait for."""
        if schedule.overlap is Overlap.ALLOW or schedule.last_run is None:
            return schedule
        newest = await self._stores.newest_leg(schedule.last_run)
        return msgspec.structs.replace(schedule, last_run_id=str(newest))

    async def _start(self, schedule: Schedule, start: Start) -> None:
        # A run that is there already was started by somebody who came first, perhaps from an earlier version
        # of the operation: it is this due time's run all the same.
        if await self._stores.events.head_seq(start.run_id):
            return
        begun = checked_start(self._app, schedule, start)
        data = canonical_json_bytes(begun.manifest.to_json())
        await self._stores.put(ArtifactKind.MANIFEST, data)
        try:
            await self._engine.start(self._stores, begun, drive=False)
        except ConcurrencyError as error:
            if error.code not in _THERE_ALREADY:
                raise

    async def _cancel(self, schedule_id: str, run_id: RunId) -> None:
        letter = StopLetter("cancel", f"schedule {schedule_id}", "the next run is due")
        try:
            await self._tell(run_id, letter, f"schedule:{schedule_id}")
        except (ConcurrencyError, NotFoundError) as error:
            logging.getLogger("perdure").debug("run %s has ended by itself: %s", run_id, error)


def row_of(schedule: Schedule, revision: int = 1) -> ScheduleRow:
    """The row in which a store is to keep a schedule."""
    due_millis, awaits = wakening(schedule)
    return ScheduleRow(schedule.id, schedule.to_json(), due_millis, awaits, revision)


def checked_start(app: App, schedule: Schedule, start: Start) -> StartRun:
    """What starts a run of a schedule, with nothing written yet.

    Raises as ``Client.start`` does for an operation, an input or a configuration that it would refuse.
    """
    manifest = scheduled_manifest(app, schedule.target, schedule.id, start.due)
    plan = app.resolver.resolve(manifest)
    manifest_id = Blob(ArtifactKind.MANIFEST, canonical_json_bytes(manifest.to_json())).id
    context = JsonContext({DUE_KEY: start.due})
    return StartRun(manifest, manifest_id, plan, manifest.run_config, context, start.run_id, start.key)


def scheduled_manifest(app: App, target: Target, schedule_id: str, due: str) -> RunManifest:
    """The manifest of a schedule's run, which says whose it is."""
    startable = app.startable(target.op_id, target.op_version)
    pipeline = startable.pipeline_of(target.op_config)
    config = RunConfig() if target.run_config is None else RunConfig.from_json(target.run_config)
    manifest = manifest_for(pipeline, startable.input_json(target.input), config, labels=target.labels)
    params = manifest.input_params | {"schedule": {"id": schedule_id, "due": due}}
    return msgspec.structs.replace(manifest, input_params=params)
