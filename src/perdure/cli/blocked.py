"""The list of runs that no process with an app can drive, and what to do about them."""

from __future__ import annotations

from collections.abc import Mapping

from perdure.cli.common import Common, Source, reading, short, typed_command
from perdure.cli.output import EXIT_COMPLETED, Output, minute
from perdure.sdk.app import App
from perdure.sdk.versions import blocked_by_version


def list_blocked(app: App, labels: Mapping[str, str], limit: int, common: Common) -> int:
    """Print the unfinished runs that ``app`` does not know how to drive."""
    found = reading(common, lambda stores: blocked_by_version(stores, app, labels=labels, limit=limit))
    output = Output(as_json=common.json)
    if common.json:
        output.data([each.to_json() for each in found])
        return EXIT_COMPLETED
    if not found:
        output.line("no run is blocked: the app has all that unfinished runs are made of")
        return EXIT_COMPLETED
    output.table(
        ["run", "op", "started (UTC)", "the app lacks"],
        [
            [
                short(each.summary.run_id),
                f"{each.summary.op_id} {each.summary.op_version}",
                minute(each.summary.started_millis),
                ", ".join(dict.fromkeys(f"{step.op_id} {step.op_version}" for step in each.missing)),
            ]
            for each in found
        ],
    )

    def command(name: str, *words: str) -> str:
        return typed_command(name, common, Source(), "RUN", *words)

    output.line("have the app name these versions too, side by side with the newer ones,")
    output.line(f"or go on in another: {command('run fork', '--at', 'STATE', '--op-version', 'VERSION')}")
    output.line(f"or give a run up:    {command('run terminate', '--why', 'TEXT')}")
    return EXIT_COMPLETED
