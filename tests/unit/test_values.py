"""Ids, shapes and errors."""

from __future__ import annotations

import importlib
import pickle
from datetime import timedelta
from typing import Any

import pytest

import perdure
from perdure import (
    ArtifactKind,
    ConcurrencyError,
    DomainEvent,
    ErrorCategory,
    ErrorInfo,
    EventProfile,
    ExponentialBackoff,
    FactKey,
    FanOutJoin,
    FixedBackoff,
    InvalidIdError,
    IoCall,
    IoResult,
    MissingFactError,
    OpId,
    OpPath,
    RetryPolicy,
    RunConfig,
    RunError,
    RunId,
    RunResult,
    SideEffectKind,
    StateError,
    StateFailed,
    StateId,
    StateMeta,
)
from perdure.errors import ContextError, InvalidShapeError, IoError, PerdureError, StorageError
from perdure.model.durations import duration_from_json, duration_to_json
from perdure.model.events import event_from_json
from perdure.model.wire import decode_events, encode_event


@pytest.mark.parametrize(
    ("kind", "good", "bad"),
    [
        (OpId, ["a", "a_1", "a" * 63], ["", "A", "1a", "a" * 64, "a.b", "a\n", "a-b"]),
        (OpPath, ["a.b", "a.b.c.d"], ["a", "a.", ".a", "a..b", "a.b\n"]),
        (StateId, ["a.b.c"], ["a.b", "a.b.c.d", "a.b.C", "a.b.c\n"]),
        (perdure.ArtifactId, ["0" * 64], ["0" * 63, "A" * 64, "0" * 64 + "\n"]),
        (FactKey, ["k", "a b\n|é"], ["", "\ud800"]),
        (RunId, ["00000000-0000-0000-0000-00000000000a"], ["x", "", "0" * 31, "{" + "0" * 32 + "}"]),
    ],
)
def test_ids_are_checked_when_made(kind: Any, good: list[str], bad: list[str]) -> None:
    """They are strings; a bad one names its kind and value."""
    for id_text in good:
        made = kind(id_text)
        assert made == id_text
        assert kind(made) is made
        assert pickle.loads(pickle.dumps(made)) == made
    not_ids: list[object] = [*bad, 7, None]
    for text in not_ids:
        with pytest.raises(InvalidIdError) as caught:
            kind(text)
        assert isinstance(caught.value, ValueError)
        assert (caught.value.kind, caught.value.code) == (kind.__name__, "invalid_id")
        assert pickle.loads(pickle.dumps(caught.value)).kind == kind.__name__
    assert RunId("ABCDEF00-0000-0000-0000-000000000000") == "abcdef00-0000-0000-0000-000000000000"


def test_configurations_come_back() -> None:
    """Every variant, and fields of ours only when they are set."""
    for config in (
        RunConfig(),
        RunConfig(
            retry_policy=RetryPolicy(5, ExponentialBackoff(timedelta(milliseconds=250), timedelta(days=2))),
            event_profile=EventProfile.custom("audit"),
            execution_mode=FanOutJoin(8),
            skip_tags=("slow",),
            recovery_limit=3,
            replay_of=RunId.random(),
        ),
    ):
        assert RunConfig.from_json({**config.to_json(), "unknown": 1}) == config
    assert "recovery_limit" not in RunConfig().to_json()
    for field, bad in [
        ("io_mode", "Dead"),
        ("event_profile", {"Custom": 7}),
        ("execution_mode", "Sideways"),
        ("retry_policy", {"max_attempts": 1, "backoff": {"Odd": {}}}),
        ("skip_tags", "slow"),
    ]:
        with pytest.raises(InvalidShapeError) as caught:
            RunConfig.from_json({**RunConfig().to_json(), field: bad})
        assert caught.value.hint
    with pytest.raises(InvalidShapeError):
        RunConfig.from_json({})


def test_durations_keep_nanoseconds() -> None:
    """A duration of another engine's gives the same bytes again."""
    for data in ({"secs": 1, "nanos": 1}, {"secs": 0, "nanos": 999_999_999}, {"secs": 3, "nanos": 5000}):
        assert duration_to_json(duration_from_json(data)) == data
    bad: Any
    for bad in ({"secs": -1, "nanos": 0}, {"secs": 0, "nanos": 10**9}, {"secs": 2**64 - 1, "nanos": 0}, 3):
        with pytest.raises(InvalidShapeError):
            duration_from_json(bad)


def test_backoff() -> None:
    """Doubling from the base up to the cap, without overflow."""
    backoff = ExponentialBackoff(timedelta(seconds=1), timedelta(seconds=10))
    assert [backoff.before_retry(n).seconds for n in (1, 2, 3, 4, 5, 500)] == [1, 2, 4, 8, 10, 10]
    assert ExponentialBackoff(timedelta(), timedelta(9)).before_retry(99) == timedelta()
    assert FixedBackoff(timedelta(3)).before_retry(7) == timedelta(3)


def test_other_shapes_come_back() -> None:
    """Metadata, calls, answers, results, kinds."""
    meta = StateMeta(("a",), ("b",), SideEffectKind.APPLY_SIDE_EFFECT, "key")
    assert StateMeta.from_json(meta.to_json()) == meta
    assert StateMeta().to_json()["idempotency"] == "None"
    with pytest.raises(InvalidShapeError):
        StateMeta.from_json({"idempotency": 7})
    call = IoCall("ns", {"q": 1}, "k", redact=True)
    assert IoCall.from_json(call.to_json()) == call
    assert IoResult.from_json(IoResult(1).to_json()) == IoResult(1)
    assert ArtifactKind.from_json({"Other": "x"}) == ArtifactKind.other("x")
    assert str(ArtifactKind.OUTPUT) == "Output"
    result = RunResult(RunId.random(), perdure.RunPhase.RUNNING, None, "signal")
    assert result.to_json()["waiting_for"] == "signal"


def test_events_are_checked_when_decoded() -> None:
    """Shapes by pointer, ids by their own error; bytes that are no event are corruption."""
    with pytest.raises(InvalidShapeError) as caught:
        event_from_json({"Kernel": {"StateEntered": {"state_id": "a.b.c", "attempt": -1}}})
    assert caught.value.pointer == "/attempt"
    with pytest.raises(InvalidIdError):
        event_from_json({"Kernel": {"StateCompleted": {"state_id": "A", "context_snapshot_id": "0" * 64}}})
    malformed: list[Any] = ["Kernel", {"Kernel": {"Nothing": {}}}, {"Other": 1}, 3]
    for bad in malformed:
        with pytest.raises(InvalidShapeError):
            event_from_json(bad)
    with pytest.raises(PerdureError, match="event_malformed"):
        decode_events([encode_event(DomainEvent("a")), b'{"Kernel":{}}'])
    with pytest.raises(PerdureError, match="event_malformed"):
        decode_events([b"{}},{}"])
    failed = StateFailed(StateId("a.b.c"), StateError(ErrorInfo("x", ErrorCategory.RPC), "a.b.c"))  # type: ignore[arg-type]  # an error is taken for its value
    assert decode_events([encode_event(failed)]) == [failed]
    assert failed.error.info.code == "x"


def test_errors_have_wire_shapes() -> None:
    """Each tree has its variants, and a run's error holds any of them."""
    info = ErrorInfo("code", ErrorCategory.STORAGE, True, "message", {"seq": 1})
    for error, tree, shape in [
        (ConcurrencyError(info), StorageError, {"Concurrency": info.to_json()}),
        (MissingFactError(info, "k"), IoError, {"MissingFact": {"key": "k", "info": info.to_json()}}),
        (ContextError(info), ContextError, {"Other": info.to_json()}),
    ]:
        assert error.to_json() == shape
        back = tree.from_json(shape)
        assert (type(back), back.info) == (type(error), info)
        again = RunError.from_json(error.to_run_error_json())
        assert (type(again), again.info) == (type(error), info)
    state = StateError(info, "a.b.c")
    assert StateError.from_json(state.to_json()).state_id == "a.b.c"
    assert state.to_run_error_json() == {"State": {"state_id": "a.b.c", "info": info.to_json()}}
    assert str(ConcurrencyError(info)) == "code: message {'seq': 1}"
    with pytest.raises(InvalidShapeError):
        IoError.from_json({"Unheard": info.to_json()})
    with pytest.raises(InvalidShapeError):
        ErrorInfo.from_json({"code": "x", "category": "Odd"})


def test_public_names_are_all_there() -> None:
    """The lazy table, the stub for type checkers and what can be imported are one."""
    stub = (perdure.__file__ or "").replace("__init__.py", "__init__.pyi")
    with open(stub) as text:
        told = {line.split("#")[0].split()[-1] for line in text if line.startswith("from perdure.")}
    assert told == {*perdure.__all__, "open"} <= set(dir(perdure))
    for name in perdure.__all__:
        home = importlib.import_module(f"perdure.{perdure._HOME[name]}")  # type: ignore[attr-defined]  # private
        assert getattr(perdure, name) is getattr(home, name)
    with pytest.raises(AttributeError):
        _ = perdure.nothing  # type: ignore[attr-defined]  # that is the point
