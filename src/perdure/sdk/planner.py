"""From a pipeline to an execution plan: one graph, checked."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NoReturn

from perdure.canonical import CanonicalJsonError, canonical_json_bytes
from perdure.errors import ErrorCategory, InvalidPlanError, InvalidShapeError, Json
from perdure.ids import InvalidIdError, OpId, OpPath, StateId
from perdure.model.config import RunManifest
from perdure.model.meta import DependencyStrategy, SideEffectKind
from perdure.model.pipeline import Pipeline, Step
from perdure.model.plan import DependencyEdge, ExecutionPlan, StateGraph, StateNode
from perdure.sdk.operation import Operation
from perdure.sdk.scope import ScopedState


class Planner:
    """Flattens pipelines of known operations into plans.

    Every sink of a step precedes every source of the next. All errors are ``InvalidPlanError``: its
    details name the step, the state or the tag.
    """

    def __init__(self, ops: Iterable[Operation]) -> None:
        self._ops = {(str(op.op_id), op.op_version): op for op in ops}

    def plan(self, pipeline: Pipeline, input: Json = None) -> ExecutionPlan:  # noqa: A002 — the term
        """The plan of ``pipeline``, with ``input`` for every step."""
        machine_id = _machine_id(pipeline)
        self._check_steps(pipeline)
        nodes: list[StateNode] = []
        edges: list[DependencyEdge] = []
        exporters: dict[str, str] = {}
        sinks: list[StateId] = []
        for step in pipeline.steps:
            op = self._op(step)
            op_path = OpPath(f"{machine_id}.{step.step_id}")
            graph = _expand(op, op_path, step, input)
            imports: Mapping[str, str | None] = {key: exporters.get(key) for key in op.imports}
            new = [StateNode(node.id, ScopedState(node.state, op_path, imports)) for node in graph.states]
            nodes += new
            edges += graph.edges
            followers = {edge.after for edge in graph.edges}
            leaders = {edge.before for edge in graph.edges}
            sources = [node.id for node in new if node.id not in followers]
            edges += [DependencyEdge(sink, source) for sink in sinks for source in sources]
            sinks = [node.id for node in new if node.id not in leaders]
            exporters |= {key: f"{op_path}.{key}" for key in op.exports}
        edges += _tag_edges(nodes)
        return ExecutionPlan(machine_id, StateGraph(nodes, list(dict.fromkeys(edges))))

    def exports(self, pipeline: Pipeline) -> dict[str, str]:
        """Where each exported key of a run's result stands in its context."""
        return {
            key: f"{pipeline.machine_id}.{step.step_id}.{key}"
            for step in pipeline.steps
            for key in self._op(step).exports
        }

    def _check_steps(self, pipeline: Pipeline) -> None:
        if not pipeline.steps:
            _refuse("empty_pipeline", "the pipeline has no steps")
        seen: set[str] = set()
        for step in pipeline.steps:
            try:
                OpId(step.step_id)
            except InvalidIdError:
                _refuse("invalid_step_id", "a step's id is not a segment", step_id=step.step_id)
            if step.step_id in seen:
                _refuse("duplicate_step_id", "two steps have one id", step_id=step.step_id)
            seen.add(step.step_id)
            try:
                canonical_json_bytes(step.op_config)
            except CanonicalJsonError as error:
                code = "secrets_detected" if error.code == "secrets_detected" else "op_config_not_canonical"
                _refuse(
                    code,
                    f"a step's configuration cannot be written: {error.info.message}",
                    step_id=step.step_id,
                    pointer=error.pointer,
                )

    def op_of(self, step: Step) -> Operation | None:
        """The operation that a step names, if it is known in that version."""
        return self._ops.get((step.op_id, step.op_version))

    def _op(self, step: Step) -> Operation:
        op = self.op_of(step)
        if op is None:
            known = sorted(f"{op_id} {version}" for op_id, version in self._ops)
            _refuse(
                "op_not_found",
                f"nobody knows operation {step.op_id} in version {step.op_version}",
                step_id=step.step_id,
                known=known,
            )
        return op


class PipelineResolver:
    """Rebuilds a run's plan from its manifest: a ``PlanResolver`` over known operations."""

    def __init__(self, ops: Iterable[Operation]) -> None:
        self.planner = Planner(ops)

    def resolve(self, manifest: RunManifest) -> ExecutionPlan:
        """The plan; ``InvalidPlanError`` (``pipeline_malformed``) for parameters of another shape."""
        pipeline, given = pipeline_of(manifest)
        return self.planner.plan(pipeline, given)


def pipeline_of(manifest: RunManifest) -> tuple[Pipeline, Json]:
    """The pipeline and the input that a manifest names."""
    params = manifest.input_params
    try:
        if not isinstance(params, dict):
            raise InvalidShapeError("Pipeline", "", "expected an object")
        return Pipeline.from_json(params.get("pipeline")), params.get("input")
    except InvalidShapeError as error:
        _refuse(
            "pipeline_malformed", f"the manifest names no pipeline: {error.problem}", pointer=error.pointer
        )


def run_exports(planner: Planner, pipeline: Pipeline, context: Mapping[str, Json]) -> dict[str, Json]:
    """A run's result: what its steps export, without prefixes, from its final context."""
    return {key: context[place] for key, place in planner.exports(pipeline).items() if place in context}


def _machine_id(pipeline: Pipeline) -> OpId:
    try:
        return OpId(pipeline.machine_id)
    except InvalidIdError:
        _refuse("invalid_machine_id", "the machine's id is not a segment", machine_id=pipeline.machine_id)


def _expand(op: Operation, op_path: OpPath, step: Step, given: Json) -> StateGraph:
    graph, again = (_expand_once(op, op_path, step, given) for _ in range(2))
    if _outline(graph) != _outline(again):
        _refuse("op_not_deterministic", "the operation expands differently each time", step_id=step.step_id)
    if not graph.states:
        _refuse("empty_state_graph", "the operation expands to no states", step_id=step.step_id)
    ids: set[str] = set()
    for node in graph.states:
        if not _is_state_of(op_path, node.id):
            _refuse(
                "invalid_state_id",
                f"a state's id is not {op_path}.<state>",
                step_id=step.step_id,
                state_id=str(node.id),
            )
        if node.id in ids:
            _refuse("duplicate_state_id", "two states have one id", state_id=str(node.id))
        ids.add(node.id)
        meta = node.state.meta()
        if meta.side_effects is SideEffectKind.APPLY_SIDE_EFFECT and meta.idempotency == "":
            _refuse("missing_idempotency_key", "a state with effects has an empty key", state_id=str(node.id))
    for edge in graph.edges:
        for end in (edge.before, edge.after):
            if end not in ids:
                _refuse(
                    "missing_state_for_edge", "an edge names a state that is not there", state_id=str(end)
                )
    return graph


def _expand_once(op: Operation, op_path: OpPath, step: Step, given: Json) -> StateGraph:
    try:
        return op.expand(op_path, step.op_config, given)
    except (InvalidPlanError, InvalidIdError):
        raise
    except Exception as error:  # noqa: BLE001 — an operation is anybody's code
        _refuse(
            "op_expand_failed",
            f"the operation raised {type(error).__name__} while expanding",
            step_id=step.step_id,
        )


def _outline(graph: StateGraph) -> Json:
    return (
        [(node.id, node.state.meta()) for node in graph.states],
        [(edge.before, edge.after) for edge in graph.edges],
    )


def _is_state_of(op_path: OpPath, state_id: str) -> bool:
    return StateId.pattern.fullmatch(state_id) is not None and state_id.startswith(f"{op_path}.")


def _tag_edges(nodes: Sequence[StateNode]) -> list[DependencyEdge]:
    """Edges for dependencies on tags: on the latest or earliest other state that carries the tag."""
    carriers: dict[str, list[StateId]] = {}
    for node in nodes:
        for tag in node.state.meta().tags:
            carriers.setdefault(tag, []).append(node.id)
    edges: list[DependencyEdge] = []
    for node in nodes:
        meta = node.state.meta()
        for tag in meta.depends_on:
            others = [state_id for state_id in carriers.get(tag, []) if state_id != node.id]
            if not others:
                _refuse(
                    "dangling_dependency_tag",
                    "no other state carries the tag",
                    state_id=str(node.id),
                    tag=tag,
                )
            latest = meta.depends_on_strategy is DependencyStrategy.LATEST
            edges.append(DependencyEdge(others[-1 if latest else 0], node.id))
    return edges


def _refuse(code: str, message: str, **details: Json) -> NoReturn:
    raise InvalidPlanError.of(code, message, category=ErrorCategory.PARSING_INPUT, details=details or None)
