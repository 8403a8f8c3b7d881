"""Whatever letters say, and whoever wrote them: they become events that the run's history can hold."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from perdure import ArtifactId, EventEnvelope, OpId, RunId, RunStarted, StateEntered
from perdure.canonical import canonical_json_bytes
from perdure.engine.history import fold
from perdure.engine.letters import receive
from perdure.io.effects import Effect, effect_intended, effect_settled
from perdure.io.facts import fact_event
from perdure.io.journal import Entry
from perdure.io.waits import EFFECT_IN_DOUBT, Wait, wait_key, wait_started
from perdure.model.events import Event
from perdure.stores.ports import Letter
from tests.support import START_MILLIS, state_id

RUN_ID = RunId("00000000-0000-0000-0000-00000000000a")
SOME_ID = ArtifactId("0" * 64)
EFFECTS = ("pay 0", "pay 1")
STATES = ("a", "b")

json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
names = st.sampled_from(["x", "y", "x|0", "|", ""]) | st.text(max_size=5)
texts = st.text(max_size=4)
bodies = st.one_of(
    st.fixed_dictionaries({"kind": st.just("signal"), "name": names, "value": json_values, "by": texts}),
    st.fixed_dictionaries(
        {
            "kind": st.just("stop"),
            "how": st.sampled_from(["cancel", "terminate", "pause", "unpause", "stop"]),
            "by": texts,
            "reason": texts,
        }
    ),
    st.fixed_dictionaries(
        {
            "kind": st.just("resolve"),
            "effect": st.sampled_from([*EFFECTS, "another"]),
            "happened": st.booleans(),
            "answer": json_values,
            "by": texts,
            "why": texts,
            "doubt": st.sampled_from([None, 1, 2]),
        }
    ),
    json_values,
)
# A mailbox holds one letter of an id.
letters = st.lists(
    st.builds(
        Letter,
        st.sampled_from([*"abcdefgh", "Bearer 0123456789abcdef0123", "\ud800", ""]),
        bodies,
        st.integers(0, 2**53) | st.integers(),
    ),
    max_size=8,
    unique_by=lambda letter: letter.id,
)


def history(events: Sequence[Event]) -> list[EventEnvelope]:
    """A stream of a run's start and these events."""
    started = RunStarted(OpId("op"), SOME_ID, SOME_ID)
    return [
        EventEnvelope(RUN_ID, seq, START_MILLIS, event) for seq, event in enumerate([started, *events], 1)
    ]


@st.composite
def events(draw: st.DrawFn) -> list[Event]:
    """An open attempt, effects in all conditions, and waits."""
    told: list[Event] = [StateEntered(state_id("a"), 0, SOME_ID)]
    for number, key in enumerate(EFFECTS):
        condition = draw(st.sampled_from(["none", "in doubt", "not_applied", "applied", "bound"]))
        if condition != "none":
            told.append(effect_intended(Effect(key, f"effect:{key}", state_id("a"), "bank", "0", 1)))  # type: ignore[arg-type]  # a plain text is a key
        if condition in ("not_applied", "applied"):
            told.append(effect_settled(key, condition))
        if condition == "bound":
            told.append(fact_event(f"effect:{key}", SOME_ID))
        if draw(st.booleans()):
            key_of_wait = wait_key(state_id("a"), f"w{number}")
            told.append(wait_started(Wait(state_id("a"), 0, key_of_wait, EFFECT_IN_DOUBT, effect=key)))
    return told


def taken_in(stream: list[EventEnvelope], entry: Entry) -> list[EventEnvelope]:
    """``stream`` with what letters came to."""
    new = enumerate(entry.events, len(stream) + 1)
    return [*stream, *(EventEnvelope(RUN_ID, seq, START_MILLIS, event) for seq, event in new)]


@given(events(), letters, letters, st.booleans())
def test_letters_become_events_that_can_follow(
    told: list[Event], first: list[Letter], second: list[Letter], while_running: bool
) -> None:
    """All are taken away, but words on what may be under way; what they name is kept.

    Reading any of them once more adds nothing that it added.
    """
    stream = history(told)
    for batch in (first, second, first):
        entry = receive(fold(stream), batch, while_running=while_running)
        left = [letter.body for letter in batch if letter.id not in entry.read]
        assert all(while_running and body["kind"] == "resolve" and body["doubt"] == 1 for body in left)
        for event in entry.events:
            canonical_json_bytes(event.payload)  # type: ignore[union-attr]  # letters become domain events
        named = {event.payload.get("payload_id") for event in entry.events}  # type: ignore[union-attr]  # as above
        assert {blob.id for blob in entry.blobs} == named - {None}
        before, stream = fold(stream).inbox, taken_in(stream, entry)
        view = fold(stream)
        assert len(view.inbox.letters) >= len(before.letters)
        for name, arrived in before.arrived.items():
            assert view.inbox.arrived[name][: len(arrived)] == arrived
    heard = [event.payload["meta"]["letter"] for event in _signals(stream)]
    assert len(heard) == len(set(heard))


@given(events(), letters)
def test_letters_that_come_one_by_one_say_what_they_say_together(
    told: list[Event], batch: list[Letter]
) -> None:
    """However many are found at once."""
    stream = together = history(told)
    for letter in batch:
        stream = taken_in(stream, receive(fold(stream), [letter]))
    together = taken_in(together, receive(fold(together), batch))
    assert stream == together


@given(events(), letters)
def test_nobody_settles_what_may_be_under_way(told: list[Event], batch: list[Letter]) -> None:
    """While a handler runs, only that is settled which the run waits for."""
    view = fold(history(told))
    entry = receive(view, batch, while_running=True)
    settled = {event.payload["key"] for event in entry.events if _name(event) == "effect_settled"}  # type: ignore[union-attr]  # a domain event
    assert settled <= {wait.effect for wait in view.waits.values()}
    assert settled <= {effect.key for effect in view.in_doubt}


def _signals(stream: Sequence[EventEnvelope]) -> list[Any]:
    return [
        envelope.event
        for envelope in stream
        if _name(envelope.event) == "fact_recorded" and envelope.event.payload["key"].startswith("signal:")  # type: ignore[union-attr]  # a domain event
    ]


def _name(event: Event) -> str | None:
    return getattr(event, "name", None)
