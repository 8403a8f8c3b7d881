"""Letters: how outsiders tell a run something. The owner turns each into events of the run's stream."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Any, Literal

import msgspec

from perdure.canonical import CanonicalJsonError, canonical_json_bytes
from perdure.engine.history import RunView
from perdure.errors import ErrorCategory, RunError, StorageError
from perdure.ids import RunId
from perdure.io.effects import APPLIED, NOT_APPLIED, effect_settled
from perdure.io.facts import fact_event
from perdure.io.journal import Entry
from perdure.io.waits import signal_key
from perdure.model.events import (
    RUN_CANCEL_REQUESTED,
    RUN_PAUSED,
    RUN_UNPAUSED,
    ArtifactKind,
    DomainEvent,
    Event,
)
from perdure.model.handler import Signal
from perdure.stores.bundle import Stores
from perdure.stores.ports import Blob, Letter, Mailbox

_log = logging.getLogger("perdure")

POLL_SECONDS = 0.25
"""How often a process looks for letters to the runs that it drives."""


StopWord = Literal["cancel", "terminate", "pause", "unpause"]


class SignalLetter(msgspec.Struct, frozen=True, tag="signal", tag_field="kind"):
    """Tells a run a value, under a name."""

    name: str
    value: Any
    by: str


class StopLetter(msgspec.Struct, frozen=True, tag="stop", tag_field="kind"):
    """Asks a run to be cancelled, terminated, paused or unpaused."""

    how: StopWord
    by: str
    reason: str


class ResolveLetter(msgspec.Struct, frozen=True, tag="resolve", tag_field="kind"):
    """Says what became of an effect in doubt: it happened, with this answer, or it did not.

    ``doubt`` is which doubt is meant, as ``Effect.intents`` counts them, by a sender who has seen that nobody
    was making the effect. None is whichever there is when the letter is read.
    """

    effect: str
    happened: bool
    answer: Any
    by: str
    why: str
    doubt: int | None = None


AnyLetter = SignalLetter | StopLetter | ResolveLetter


def receive(view: RunView, letters: Sequence[Letter], *, while_running: bool = False) -> Entry:
    """The events of ``letters``, in their order. Pure.

    A letter that the stream holds already leaves none. Nor does one that can never again have anything to
    say: a word on a doubt that is over, or one more cancellation.
    ``while_running`` says that a handler runs. It may be making an effect at this moment, of which nobody
    else can know what becomes: then only those are settled that the run waits to be told of. What is said of
    others' doubts stays unread until the handler has ended.
    """
    events, blobs = list[Event](), list[Blob]()
    numbers = {name: len(arrived) for name, arrived in view.inbox.arrived.items()}
    seen = set(view.inbox.letters)
    in_doubt = {effect.key: effect for effect in view.in_doubt if effect.fact_key not in view.facts}
    awaited = view.awaited_effects
    kept = set[str]()
    cancelled, terminated = view.cancel is not None, view.cancel is not None and view.cancel.terminates
    for letter in letters:
        if letter.id in seen:
            continue
        seen.add(letter.id)
        body = _body_of(letter)
        if isinstance(body, SignalLetter):
            payload = _payload(
                msgspec.structs.asdict(Signal(body.name, body.value, body.by, letter.id, letter.sent_millis))
            )
            number = numbers.get(body.name, 0)
            numbers[body.name] = number + 1
            events.append(fact_event(signal_key(body.name, number), payload.id, meta={"letter": letter.id}))
            blobs.append(payload)
        elif isinstance(body, ResolveLetter):
            effect = in_doubt.get(body.effect)
            is_meant = effect is not None and body.doubt in (None, effect.intents)
            may_be_under_way = while_running and body.effect not in awaited
            if is_meant and may_be_under_way and body.doubt is not None:
                kept.add(letter.id)
                continue
            if effect is None or not is_meant or may_be_under_way:
                _log.warning("letter %a tells of no effect that is in doubt; it is passed over", letter.id)
                continue
            del in_doubt[effect.key]
            answer = _payload(body.answer)
            if not body.happened:
                events.append(effect_settled(effect.key, NOT_APPLIED, told_by=_teller(letter, body)))
            else:
                events.append(effect_settled(effect.key, APPLIED, answer.id, _teller(letter, body)))
                events.append(fact_event(effect.fact_key, answer.id, effect.request_id))
                blobs.append(answer)
        elif isinstance(body, StopLetter):
            told = {"id": letter.id, "by": body.by, "reason": body.reason, "sent_millis": letter.sent_millis}
            if body.how in ("cancel", "terminate"):
                terminates = body.how == "terminate"
                if not cancelled or (terminates and not terminated):
                    cancelled, terminated = True, terminates
                    events.append(DomainEvent(RUN_CANCEL_REQUESTED, {**told, "terminate": terminates}))
            else:
                # Also where it changes nothing: the same letter could come again when it would.
                events.append(DomainEvent(RUN_PAUSED if body.how == "pause" else RUN_UNPAUSED, told))
    return Entry(events, blobs, [letter.id for letter in letters if letter.id not in kept])


def _teller(letter: Letter, body: ResolveLetter) -> dict[str, str]:
    return {"by": body.by, "why": body.why, "letter": letter.id}


def _body_of(letter: Letter) -> AnyLetter | None:
    # It was checked when it was sent, but a store also holds what others wrote.
    try:
        canonical_json_bytes([letter.id, letter.sent_millis, letter.body])
        body: AnyLetter = msgspec.convert(letter.body, AnyLetter)
        return body
    except (msgspec.ValidationError, CanonicalJsonError):
        _log.warning("letter %a is none that a run can read", letter.id)
        return None


def _payload(value: Any) -> Blob:
    return Blob(ArtifactKind.FACT_PAYLOAD, canonical_json_bytes(value))


async def send(stores: Stores, run_id: RunId, letter: AnyLetter, letter_id: str) -> bool:
    """Post ``letter``; False if one of this id waits already.

    Raises before anything is written: ``CanonicalJsonError`` for what may not be written, ``RunError``
    (``letter_invalid``), ``NotFoundError`` (``run_not_found``), ``ConcurrencyError``
    (``run_already_terminal``).
    """
    for field, text in (("id", letter_id), ("by", letter.by), *_names(letter)):
        if not text or len(text) > NAME_CHARACTERS_MAX or not text.isprintable():
            raise RunError.of(
                "letter_invalid",
                f"{field} is empty, longer than {NAME_CHARACTERS_MAX} characters, or not printable",
                category=ErrorCategory.PARSING_INPUT,
                details={"field": field},
            )
    # Values are checked as they were given, before the encoder smooths out what is no JSON.
    canonical_json_bytes({"id": letter_id, **msgspec.structs.asdict(letter)})
    return await stores.mailbox.post(run_id, letter_id, msgspec.to_builtins(letter, enc_hook=str.__str__))


def _names(letter: AnyLetter) -> list[tuple[str, str]]:
    return [("name", letter.name)] if isinstance(letter, SignalLetter) else []


NAME_CHARACTERS_MAX = 200


class LetterWatch:
    """Notices letters to the runs that this process drives; one for a store, in one event loop."""

    def __init__(self, mailbox: Mailbox) -> None:
        self._mailbox = mailbox
        self._told: dict[RunId, Callable[[], None]] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._looking: asyncio.Task[None] | None = None

    def watch(self, run_id: RunId, tell: Callable[[], None]) -> None:
        """Call ``tell`` whenever letters to the run are found unread."""
        self._told[run_id] = tell
        if self._timer is None and self._looking is None:
            self._schedule()

    def is_watched(self, run_id: RunId) -> bool:
        """Whether letters to the run are looked for."""
        return run_id in self._told

    def leave(self, run_id: RunId) -> None:
        """Look no more for letters to the run."""
        self._told.pop(run_id, None)
        if not self._told and self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def nudge(self, run_id: RunId) -> None:
        """Say that a letter was posted just now."""
        tell = self._told.get(run_id)
        if tell is not None:
            tell()

    def _schedule(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(POLL_SECONDS, self._look_soon)

    def _look_soon(self) -> None:
        self._timer = None
        self._looking = asyncio.get_running_loop().create_task(self._look())

    async def _look(self) -> None:
        try:
            for run_id in await self._mailbox.addressed(self._told.keys()):
                self.nudge(run_id)
        except StorageError as error:
            _log.warning("letters could not be looked for: %s", error)
        finally:
            self._looking = None
            if self._told and self._timer is None:
                self._schedule()
