"""What holds of every run that waits, pays and is told things, whatever happened to it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from perdure.engine.history import RunView, fold
from perdure.engine.recovery import read_view
from perdure.io.waits import NOTHING
from perdure.model.events import (
    EFFECT_SETTLED,
    FACT_RECORDED,
    WAIT_STARTED,
    DomainEvent,
    EventEnvelope,
    RunCompleted,
    RunStatus,
    StateEntered,
)
from tests.waiting import RUN_ID, World


async def check(world: World, posted: dict[str, list[str]]) -> RunView:
    """All laws that hold at any time. ``posted`` are the ids of the signals that were sent, by name."""
    stores = world.stores
    history = await world.events()
    view = await read_view(stores, RUN_ID)
    assert view == fold(history)
    check_order(history)
    unread = [letter.id for letter in await stores.mailbox.unread(RUN_ID)]
    check_signals(history, posted, unread, has_ended=view.ended is not None)
    check_effects(world, history)
    for key, told in world.heard.items():
        assert all(each == told[0] for each in told), f"{key} heard {told}"
    if not world.is_driven and world.left_in_order:
        await check_agenda(world, view, bool(unread))
    return view


def check_order(history: Sequence[EventEnvelope]) -> None:
    """Nothing follows the end, where nothing is open; a paused run enters no state.

    A fact is bound once; a wait ends once, and is due when it was due at first.
    """
    view, facts = RunView(), Counter[str]()
    due: dict[str, int | None] = {}
    for envelope in history:
        event = envelope.event
        assert view.ended is None, f"{event} follows the end"
        if isinstance(event, StateEntered):
            assert not view.is_paused, f"{event.state_id} is entered while the run is paused"
        if isinstance(event, DomainEvent) and event.name == FACT_RECORDED:
            key = event.payload["key"]
            facts[key] += 1
            if key in due and event.payload["payload_id"] == NOTHING.id:
                assert (envelope.ts_millis or 0) >= (due[key] or 0), f"{key} ended too early"
        if isinstance(event, DomainEvent) and event.name == WAIT_STARTED:
            until = event.payload["until_millis"]
            assert due.setdefault(event.payload["key"], until) == until
        view.advance(event, envelope.seq)
        if isinstance(event, RunCompleted):
            assert not view.open_attempts
            assert event.status is not RunStatus.FAILED
            assert (event.status is RunStatus.CANCELLED) == (view.cancel is not None)
    assert set(facts.values()) <= {1}, facts


def check_signals(
    history: Sequence[EventEnvelope], posted: dict[str, list[str]], unread: list[str], *, has_ended: bool
) -> None:
    """Every signal is in the stream once or waits to be read, in the order of sending; so are they taken."""
    letters: dict[str, list[str]] = {}
    payloads: dict[str, list[str]] = {}
    taken: dict[str, list[str]] = {}
    for envelope in history:
        event = envelope.event
        if not isinstance(event, DomainEvent) or event.name != FACT_RECORDED:
            continue
        key, meta = event.payload["key"], event.payload["meta"]
        if key.startswith("signal:"):
            name, _, number = key.removeprefix("signal:").rpartition("|")
            letters.setdefault(name, []).append(meta["letter"])
            payloads.setdefault(name, []).append(event.payload["payload_id"])
            assert int(number) == len(letters[name]) - 1
        elif "signal" in meta:
            taken.setdefault(meta["signal"], []).append(event.payload["payload_id"])
    for name, sent in posted.items():
        arrived = letters.get(name, [])
        assert arrived == sent[: len(arrived)]
        if not has_ended:
            assert set(sent[len(arrived) :]) <= set(unread), "a signal is lost"
    for name, ids in taken.items():
        assert ids == payloads[name][: len(ids)]


def check_effects(world: World, history: Sequence[EventEnvelope]) -> None:
    """Nothing is paid twice, unless a person said that it was not paid."""
    denied = Counter[str](
        envelope.event.payload["key"]
        for envelope in history
        if isinstance(envelope.event, DomainEvent)
        and envelope.event.name == EFFECT_SETTLED
        and envelope.event.payload["outcome"] == "not_applied"
        and "by" in envelope.event.payload
    )
    for key, times in world.bank.made.items():
        assert times <= 1 + denied[key], f"{key} was paid {times} times"


async def check_agenda(world: World, view: RunView, has_letters: bool) -> None:
    """Who parked the run said when it is due; whoever left it otherwise, or has letters, is due now."""
    agenda = world.stores.agenda
    due, next_due = await agenda.due_runs(9), await agenda.next_due_millis()
    if view.ended is not None:
        assert (due, next_due) == ([], None)
    elif world.parked is None or has_letters:
        assert due == [RUN_ID]
    else:
        moment = world.parked.due_millis
        assert next_due == moment
        assert due == ([RUN_ID] if moment is not None and moment <= world.clock.millis else [])
        assert view.waiting_for == world.parked.waiting_for
