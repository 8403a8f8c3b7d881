"""Commands about operations: list, show, check."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cyclopts import App as CommandApp

from perdure.cli import graph
from perdure.cli.common import COMMON, SOURCE, Common, JsonText, Source, json_argument, wanted_app
from perdure.cli.output import EXIT_COMPLETED, EXIT_FAILED, Output, UsageError
from perdure.errors import Json, PerdureError
from perdure.model.plan import ExecutionPlan, topological_order
from perdure.sdk import App, Op, PipelineDefinition, manifest_for
from perdure.sdk.mistakes import Mistake, Place


def add_to(op: CommandApp) -> None:
    """Add the commands to ``op``."""
    op.command(list_ops, name="list")
    for command in (show, check):
        op.command(command)


def list_ops(*, common: Common = COMMON, source: Source = SOURCE) -> int:
    """List the operations and pipelines of the app.

    perdure op list --app shop:app
    """
    app = wanted_app(source)
    data = [
        {
            "op_id": each.op_id,
            "op_version": each.op_version,
            "kind": "op",
            "imports": list(each.imports),
            "exports": list(each.exports),
        }
        for each in app.ops
    ] + [
        {
            "op_id": each.op_id,
            "op_version": each.op_version,
            "kind": "pipeline",
            "imports": [],
            "exports": list(each.export_types),
        }
        for each in app.pipelines
    ]
    output = Output(as_json=common.json)
    if common.json:
        output.data(data)
    else:
        output.table(
            ["op", "version", "kind", "imports", "exports"],
            [
                [each["op_id"], each["op_version"], each["kind"], *_joined(each["imports"], each["exports"])]
                for each in data
            ],
        )
    return EXIT_COMPLETED


def show(
    op_id: str,
    /,
    *,
    op_version: str | None = None,
    input: JsonText = None,  # noqa: A002 — the term
    svg: Path | None = None,
    common: Common = COMMON,
    source: Source = SOURCE,
) -> int:
    """Show an operation's or a pipeline's states and what they wait for.

    perdure op show checkout --app shop:app --svg checkout.svg

    Parameters
    ----------
    op_id
        The operation's or pipeline's name.
    op_version
        The version; the newest one unless given.
    input
        The input, for an operation whose states depend on it: JSON, @FILE, or -.
    svg
        The file to draw the graph into.
    """
    app = wanted_app(source)
    plan = _plan(app, op_id, op_version, json_argument(input, None, "--input"))
    before = _before(plan)
    if svg is not None:
        try:
            svg.write_text(graph.svg(before))
        except OSError as error:
            raise UsageError.of("usage", f"the file cannot be written: {error.strerror}") from error
    output = Output(as_json=common.json)
    states = [
        {
            "state_id": node.id,
            "after": [edge.before for edge in plan.graph.edges if edge.after == node.id],
            "tags": list(node.state.meta().tags),
            "side_effects": node.state.meta().side_effects.value,
        }
        for node in topological_order(plan)
    ]
    if common.json:
        output.data({"op_id": op_id, "states": states})
        return EXIT_COMPLETED
    order = ", in the order in which they run" if len(states) > 1 else ""
    output.line(f"{op_id}: {len(states)} state{'s' if order else ''}{order}")
    output.line()
    for line in graph.text_lines(before):
        output.line(f"  {line}")
    if svg is not None:
        output.line()
        output.line(f"drawn into {svg}")
    return EXIT_COMPLETED


def check(op_id: str | None = None, /, *, common: Common = COMMON, source: Source = SOURCE) -> int:
    """Check operations and pipelines, and explain every mistake. Exit code 1 if there is one.

    perdure op check --app shop:app

    Parameters
    ----------
    op_id
        The operation or pipeline to check; all of them unless given.
    """
    app = wanted_app(source)
    names = [op_id] if op_id is not None else [str(each.op_id) for each in app.definitions]
    found = {name: _mistakes(app, name) for name in names}
    output = Output(as_json=common.json)
    if common.json:
        output.data({name: [mistake.to_json() for mistake in mistakes] for name, mistakes in found.items()})
    else:
        for name, mistakes in found.items():
            output.line(f"{name}: {'ok' if not mistakes else ''}".rstrip(" "))
            for mistake in mistakes:
                output.line(f"  {_nearby(mistake.place)}")
                output.line(f"    {mistake.code}: {mistake.message}")
                output.line(f"    hint: {mistake.hint}")
    return EXIT_FAILED if any(found.values()) else EXIT_COMPLETED


def _mistakes(app: App, op_id: str) -> list[Mistake]:
    choices = [each for each in app.definitions if each.op_id == op_id]
    if not choices:
        app.op(op_id)  # raises, and says what there is
    found = [mistake for each in choices for mistake in _mistakes_of(each)]
    return list(dict.fromkeys(found))


def _nearby(place: Place) -> str:
    """A place by its path from the current folder, if it lies there."""
    path = Path(place.file)
    return f"{path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path}:{place.line}"


def _mistakes_of(definition: Any) -> list[Mistake]:
    return definition.mistakes() if isinstance(definition, (Op, PipelineDefinition)) else []


def _plan(app: App, op_id: str, op_version: str | None, given: Json) -> ExecutionPlan:
    manifest = manifest_for(app.startable(op_id, op_version).pipeline_of(), given)
    try:
        return app.resolver.resolve(manifest)
    except PerdureError as error:
        if error.code != "op_expand_failed" or given is not None:
            raise
        raise UsageError.of(
            "op_expand_failed",
            error.info.message,
            hint="its states may depend on the input: give one with --input",
        ) from error


def _before(plan: ExecutionPlan) -> dict[str, list[str]]:
    """Each state with those before it, in order; without the prefix that all of one operation share."""
    stems = {node.id.rpartition(".")[0] for node in plan.graph.states}
    cut = len(stems.pop()) + 1 if len(stems) == 1 else 0
    return {
        node.id[cut:]: [edge.before[cut:] for edge in plan.graph.edges if edge.after == node.id]
        for node in topological_order(plan)
    }


def _joined(*lists: Any) -> list[str]:
    return [", ".join(each) for each in lists]
