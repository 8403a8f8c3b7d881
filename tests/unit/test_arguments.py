"""Arguments of the wrong kind: refused where they are given, with what was expected and what came."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from perdure import (
    DependencyEdge,
    Engine,
    ExecutionPlan,
    ExponentialBackoff,
    FixedBackoff,
    JsonContext,
    OpId,
    RetryPolicy,
    RunConfig,
    RunManifest,
    StartRun,
    StateGraph,
    StateMeta,
    StateNode,
    Stores,
    Transport,
    TransportEnv,
    TransportRouter,
)
from perdure.engine.results import RunResult
from perdure.errors import InvalidShapeError
from perdure.wiring import exec_transport, files_transport, http_transport
from tests.support import CountingTransport, FixedResolver, Scripted, plan_of, start_run, state_id


async def nothing(*_: object) -> None:
    pass


class Nameless:
    """A factory that says no namespace."""

    def make(self, env: TransportEnv) -> Transport:
        raise NotImplementedError


class Silent(Scripted):
    """A state that says nothing of itself."""

    def meta(self) -> Any:
        return None


STATE = Scripted(nothing)
PLAN = plan_of(("a", STATE))
RESOLVER = FixedResolver(PLAN)
CONFIG = RunConfig()
MANIFEST = RunManifest(OpId("op"), "1", {}, CONFIG)
NODE = StateNode(state_id("a"), STATE)
CONTEXT = JsonContext({})
LESS = timedelta(seconds=-1)


ANYTHING: Any = object()
ENGINE = {"resolver": RESOLVER}
START = {
    "manifest": MANIFEST,
    "manifest_id": "",
    "plan": PLAN,
    "run_config": CONFIG,
    "initial_context": CONTEXT,
}
MANIFESTS = {"op_id": "op", "op_version": "1", "input_params": {}, "run_config": CONFIG}
DAYS = {"base_delay": timedelta(1), "max_delay": timedelta(1)}


@pytest.mark.parametrize(
    ("called", "right", "name", "wrong", "wanted"),
    [
        (Engine, {}, "resolver", ANYTHING, "a resolver of plans (with resolve()), and is of type object"),
        (Engine, {}, "resolver", FixedResolver, "a resolver of plans, and is the class FixedResolver itself"),
        (
            Engine,
            ENGINE,
            "transports",
            ANYTHING,
            "a factory of transports or a TransportRouter([…]) (with ma",
        ),
        (
            Engine,
            ENGINE,
            "transports",
            [CountingTransport()],
            "a factory of transports or a TransportRouter(",
        ),
        (
            Engine,
            ENGINE,
            "transports",
            CountingTransport,
            "a factory of transports or a TransportRouter([…])",
        ),
        (
            Engine,
            ENGINE,
            "transports",
            Nameless(),
            "a factory of transports or a TransportRouter([…]): its na",
        ),
        (Engine, ENGINE, "failpoints", ANYTHING, "Failpoints or None, and is of type object"),
        (Engine, ENGINE, "clock", ANYTHING, "a clock (with now_millis()"),
        (Engine, ENGINE, "observer", ANYTHING, "a function of a run's id and its new events"),
        (Engine, ENGINE, "claim_keeper", ANYTHING, "a ClaimKeeper or None"),
        (Engine, ENGINE, "secrets", ANYTHING, "a list of sources of secrets"),
        (Engine, ENGINE, "secrets", [ANYTHING], "a source of secrets (with get())"),
        (Engine, ENGINE, "park_after", 5, "a datetime.timedelta, and is of type int"),
        (TransportRouter, {}, "factories", ANYTHING, "a list of factories"),
        (TransportRouter, {}, "factories", [ANYTHING], "a factory of transports"),
        (StartRun, START, "manifest", {}, "a RunManifest, and is of type dict"),
        (StartRun, START, "manifest_id", None, "an ArtifactId, and is of type NoneType"),
        (StartRun, START, "plan", "op", "an ExecutionPlan, and is of type str"),
        (StartRun, START, "run_config", {}, "a RunConfig"),
        (StartRun, START, "initial_context", {}, "a context such as JsonContext({…}) (with dump())"),
        (RunConfig, {}, "io_mode", "Live", "an IoMode, and is of type str"),
        (RunConfig, {}, "retry_policy", 3, "a RetryPolicy"),
        (RunConfig, {}, "event_profile", "Minimal", "an EventProfile"),
        (RunConfig, {}, "execution_mode", None, "Sequential() or a FanOutJoin"),
        (RunConfig, {}, "context_checkpointing", ANYTHING, "a ContextCheckpointing"),
        (RunConfig, {}, "replay_missing_fact_retryable", 1, "True or False, and is of type int"),
        (RunConfig, {}, "skip_tags", "slow", "a list of strings, and is of type str"),
        (RunConfig, {}, "skip_tags", [7], "one of strings, and is of type int"),
        (RunConfig, {}, "nix_flake_allowlist", 7, "a list of strings"),
        (RunConfig, {}, "recovery_limit", True, "a whole number or None, and is of type bool"),
        (RunConfig, {}, "secret_policy", "1", "a whole number or None"),
        (RunConfig, {}, "timeout", 60, "a datetime.timedelta"),
        (RetryPolicy, {}, "max_attempts", "3", "a whole number"),
        (RetryPolicy, {}, "backoff", timedelta(1), "a FixedBackoff or an ExponentialBackoff"),
        (FixedBackoff, {}, "delay", 5, "a datetime.timedelta"),
        (ExponentialBackoff, DAYS, "base_delay", 5, "a datetime.timedelta"),
        (ExponentialBackoff, DAYS, "max_delay", 5, "a datetime.timedelta"),
        (RunManifest, MANIFESTS, "op_id", None, "an OpId"),
        (RunManifest, MANIFESTS, "op_version", 1, "a string"),
        (RunManifest, MANIFESTS, "run_config", {}, "a RunConfig"),
        (RunManifest, MANIFESTS, "build", ANYTHING, "a BuildProvenance"),
        (StateMeta, {}, "tags", "slow", "a list of strings"),
        (StateMeta, {}, "depends_on", "slow", "a list of strings"),
        (StateMeta, {}, "side_effects", "Pure", "a SideEffectKind"),
        (StateMeta, {}, "idempotency", 7, "a string or None"),
        (StateMeta, {}, "depends_on_strategy", "Latest", "a DependencyStrategy"),
        (StateMeta, {}, "timeout", 5, "a datetime.timedelta"),
        (StateMeta, {}, "heartbeat_timeout", 5, "a datetime.timedelta"),
        (StateMeta, {}, "retry_policy", 5, "a RetryPolicy or None"),
        (StateMeta, {}, "on_cancel", 1, "True or False"),
        (ExecutionPlan, {"op_id": "op"}, "graph", [NODE], "a StateGraph, and is of type list"),
        (ExecutionPlan, {"graph": StateGraph([NODE])}, "op_id", None, "an OpId"),
        (StateGraph, {}, "states", iter([NODE]), "a list of StateNodes"),
        (StateGraph, {}, "states", [STATE], "one of StateNodes, and is of type Scripted"),
        (
            StateGraph,
            {"states": [NODE]},
            "edges",
            [("a", "b")],
            "one of DependencyEdges, and is of type tuple",
        ),
        (
            StateGraph,
            {"states": [NODE]},
            "edges",
            DependencyEdge(NODE.id, NODE.id),
            "a list of DependencyEdge",
        ),
        (
            StateNode,
            {"id": NODE.id},
            "state",
            nothing,
            "a state (with meta(), handle()), and is of type func",
        ),
        (StateNode, {"id": NODE.id}, "state", Scripted, "a state, and is the class Scripted itself"),
        (StateNode, {"state": STATE}, "id", None, "a StateId"),
        (
            exec_transport,
            {},
            "allowed_programs",
            "/bin/ls",
            "a list of paths of programs, and is of type str",
        ),
        (exec_transport, {}, "allowed_programs", [7], "one of paths of programs, and is of type int"),
        (http_transport, {}, "allowed_hosts", "abc", "a list of names of hosts, and is of type str"),
        (http_transport, {}, "keyed_hosts", "abc", "a list of names of hosts, and is of type str"),
        (files_transport, {"roots": {"a": "."}}, "writable", "a", "a list of names of roots"),
    ],
)
def test_an_argument_of_another_kind_is_named(
    called: Callable[..., object], right: dict[str, Any], name: str, wrong: Any, wanted: str
) -> None:
    """The parameter, what it is to be, and what it is."""
    with pytest.raises(TypeError) as caught:
        called(**(right | {name: wrong}))
    assert f"{called.__name__}({name}=…) is to be {wanted}" in str(caught.value)


def test_stores_are_opened_by_texts() -> None:
    """A number is no path of that name."""
    with pytest.raises(TypeError, match=r"Stores.sqlite\(path\) is to be a path, and is of type object"):
        Stores.sqlite(ANYTHING)
    with pytest.raises(TypeError, match=r"Stores.open\(url\) is to be an address or a path"):
        Stores.open(ANYTHING)


@pytest.mark.parametrize(
    "make",
    [
        lambda: FixedBackoff(LESS),
        lambda: ExponentialBackoff(LESS, timedelta()),
        lambda: RetryPolicy(-1),
        lambda: RunConfig(timeout=LESS),
        lambda: RunConfig(replay_of=ANYTHING),
        lambda: StateMeta(timeout=LESS),
        lambda: Engine(RESOLVER, park_after=LESS),
    ],
)
def test_what_could_not_be_read_again_is_refused(make: Callable[[], object]) -> None:
    """The wire has no such values."""
    with pytest.raises(ValueError, match=r"negative|not a valid RunId"):
        make()


def test_a_policy_of_the_wire_is_refused_as_a_shape() -> None:
    """So that a damaged manifest is told from a mistaken program."""
    with pytest.raises(InvalidShapeError):
        RetryPolicy.from_json({"max_attempts": -1, "backoff": {"Fixed": {"delay": {"secs": 0, "nanos": 0}}}})


def test_several_names_may_come_one_by_one(tmp_path: Path) -> None:
    """A generator is a list of what it gives."""
    with pytest.raises(ValueError, match="no such roots: \\['b'\\]"):
        files_transport({"a": tmp_path}, writable=(name for name in ["a", "b"]))


async def test_a_start_with_the_wrong_things_leaves_nothing() -> None:
    """Neither a run nor an artifact."""
    stores, engine = Stores.in_memory(), Engine(RESOLVER)

    async def refused(what: str, *arguments: Any) -> None:
        with pytest.raises(TypeError, match=what):
            await engine.start(*arguments)

    await refused(r"start\(stores, …\) is to be Stores", ANYTHING, ANYTHING)
    await refused(r"start\(…, run\) is to be a StartRun", stores, {"manifest": MANIFEST})
    with pytest.raises(TypeError, match=r"resume\(stores, …\) is to be Stores"):
        await engine.resume(ANYTHING, ANYTHING)
    with pytest.raises(TypeError, match=r"put_manifest\(manifest\) is to be a RunManifest"):
        await stores.put_manifest(ANYTHING)
    described = await stores.describe()
    assert (described["runs"], described["artifacts"]) == (0, 0)


async def test_what_is_asked_for_a_plan_must_give_one() -> None:
    """A resolver, and a state for its meta; the run goes on once they do."""
    stores = Stores.in_memory()
    begun = await Engine(RESOLVER).start(stores, await start_run(stores, PLAN), drive=False)
    with pytest.raises(TypeError, match=r"what resolve\(manifest\) gives is to be an ExecutionPlan"):
        await Engine(FixedResolver(ANYTHING)).resume(stores, begun.run_id)
    silent = Silent(nothing)
    with pytest.raises(TypeError, match=r"what meta\(\) of m\.main\.a gives is to be a StateMeta"):
        await Engine(FixedResolver(plan_of(("a", silent)))).resume(stores, begun.run_id)
    result = await Engine(RESOLVER).resume(stores, begun.run_id)
    assert isinstance(result, RunResult)
