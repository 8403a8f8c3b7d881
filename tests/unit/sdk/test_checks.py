"""Calls with the wrong kind of argument: told where they were made, before anything is done."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from typing import Any

import pytest

import perdure
from perdure import InvalidIdError, NotFoundError, PerdureError, RunError, RunId, Stores
from perdure.sdk import App
from tests.unit.sdk.operations import doubles


def act() -> int:
    """A function that could be a state."""
    return 1


def state_of(function: Any = act, **options: Any) -> Any:
    """An operation with it."""
    return perdure.state(**options)(function)


def later(function: Any, *args: Any, **options: Any) -> Callable[[], object]:
    """A call whose arguments no type checker looks at."""
    return functools.partial(function, *args, **options)


def shown(value: object) -> str:
    """A value, named alike in every process."""
    return re.sub(" at 0x[0-9a-f]+", "", repr(value))


CALLS: dict[str, Callable[[], object]] = {
    **{f"op name {shown(odd)}": later(perdure.op, odd) for odd in (None, 5, b"x", ["a"])},
    "op version": later(perdure.op, "x", 5),
    **{
        f"op {name} {shown(odd)}": later(perdure.op, "x", **{name: odd})
        for name, odds in (
            ("imports", (5, "abc", ["a"], {5: int})),
            ("exports", (5, "abc", [5])),
            ("states", (5, "abc", [5], [act], [doubles], None)),
        )
        for odd in odds
    },
    **{
        f"state of {shown(odd)}": later(state_of, odd)
        for odd in (5, None, "a", len, int, App, functools.partial(act), doubles)
    },
    **{
        f"state {name} {shown(odd)}": later(state_of, **{name: odd})
        for name, odds in (
            ("after", (5, "act", [5])),
            ("tags", (5, "abc", [5])),
            ("depends_on", ("abc", [None])),
            ("side_effects", ("pure", None)),
            ("idempotency", (5,)),
            ("timeout", (5, "1s")),
            ("retry", (3,)),
        )
        for odd in odds
    },
    **{
        f"pipeline steps {shown(odd)}": later(perdure.pipeline, "p", steps=odd)
        for odd in (5, None, "abc", [5], ["doubles"], doubles, [perdure.pipeline("q", steps=[doubles])])
    },
    "pipeline name": later(perdure.pipeline, 5, steps=[doubles]),
    "step name": later(perdure.step, 5, doubles),
    **{f"step {shown(odd)}": later(perdure.step, "s", odd) for odd in (5, None, "doubles")},
    **{f"App {shown(odd)}": later(App, odd) for odd in (5, "abc", [5], [App()], {"a": doubles})},
    **{
        f"App {name} {shown(odd)}": later(App, [doubles], **{name: odd})
        for name in ("transports", "secrets")
        for odd in (5, "abc", [5])
    },
    **{f"open {shown(odd)}": later(perdure.open, odd, doubles) for odd in (None, 5, b"x", ["memory:"])},
    **{
        f"open app {shown(odd)}": later(perdure.open, "memory:", odd)
        for odd in (None, 5, "app", [None], App, act, state_of())
    },
}


@pytest.mark.parametrize("name", CALLS)
def test_a_definition_with_another_kind_of_argument(name: str) -> None:
    """Is refused as it is made, with the line that made it."""
    with pytest.raises(PerdureError) as caught:
        CALLS[name]()
    assert caught.value.code == "call_invalid"
    assert caught.value.hint
    assert ".py:" in caught.value.info.message
    assert "src/perdure/" not in caught.value.info.message


START: dict[str, tuple[Any, ...]] = {
    "key": (5, b"k", ["k"], ""),
    "labels": (5, "a=b", ["a"], {"a": 5}, {5: "a"}, {"a": None}),
    "context": (5, "x", [1], {5: 1}),
    "run_config": (5, "x", {"max": 1}, perdure.RetryPolicy(3)),
}


@pytest.mark.parametrize(("name", "odd"), [(name, odd) for name, odds in START.items() for odd in odds])
async def test_a_start_with_another_kind_of_argument(name: str, odd: Any) -> None:
    """Writes nothing."""
    async with perdure.open(Stores.in_memory(), doubles) as p:
        with pytest.raises(PerdureError) as caught:
            await p.start(doubles, 1, **{name: odd})
        assert (caught.value.code, await p.list()) == ("call_invalid", [])


@pytest.mark.parametrize("odd", [None, 5, App([doubles]), act, state_of()])
async def test_starting_what_cannot_be_started(odd: Any) -> None:
    """Names of operations can be."""
    async with perdure.open(Stores.in_memory(), doubles) as p:
        with pytest.raises(PerdureError, match="call_invalid"):
            await p.start(odd)


async def test_asking_with_another_kind_of_argument() -> None:
    """Each is told, and none waits for ever."""
    async with perdure.open(Stores.in_memory(), doubles) as client:
        p: Any = client  # what no type checker looks at
        run = await p.start(doubles, 1)
        for call in (
            p.get(5),
            p.resume(5),
            p.list(limit="x"),
            p.list(phase="Completed"),
            p.list(labels=5),
            anext(run.events(2**63)),
            anext(run.events("x")),
        ):
            with pytest.raises(PerdureError, match="call_invalid"):
                await call
        for name in ("x", 5, None):
            with pytest.raises(InvalidIdError):
                await p.wait(name)
        with pytest.raises(InvalidIdError):
            await p.start(doubles, 1, run_id="")
        with pytest.raises(NotFoundError, match="run_not_found"):
            await p.wait(RunId.random())


@pytest.mark.parametrize("odd", [None, 5, b"k", "\udcff"])
def test_a_key_is_a_string(odd: object) -> None:
    """That can be written."""
    with pytest.raises(InvalidIdError, match="invocation key") as caught:
        RunId.for_invocation(odd)
    assert "a key is a string" in caught.value.hint


async def test_what_was_not_opened_says_how_to_open_it() -> None:
    """Neither entered nor awaited, it has none of a client's methods, and no others."""
    opening: Any = perdure.open("memory:", app=doubles)
    with pytest.raises(RunError, match="client_not_open") as caught:
        opening.start(doubles, 1)
    assert "async with" in caught.value.hint
    assert not hasattr(opening, "begin")
    client = await opening.open()
    await client.aclose()
