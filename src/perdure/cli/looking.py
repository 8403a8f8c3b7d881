"""Commands that look at runs: status, list, events, context, facts, replay."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from cyclopts import App as CommandApp
from cyclopts import Parameter

from perdure.cli.blocked import list_blocked
from perdure.cli.common import (
    COMMON,
    SOURCE,
    Common,
    Source,
    Whole,
    label_arguments,
    reading,
    shown,
    typed_command,
    wanted_app,
    whole,
)
from perdure.cli.listing import columns_and_rows, event_cells, lines_in_doubt
from perdure.cli.output import EXIT_COMPLETED, EXIT_FAILED, Output, UsageError, when
from perdure.cli.waiting import chain_lines, children_in_words, fork_in_words, next_steps, waiting_for
from perdure.engine.history import fold
from perdure.errors import Json, NotFoundError
from perdure.ids import ArtifactId, RunId
from perdure.model.events import FACT_RECORDED, DomainEvent, RunPhase, is_engine_event
from perdure.proof.replay import ReplayReport, replay_run
from perdure.sdk.finding import existing_events, find_run
from perdure.sdk.reading import RunSummary, list_summaries, status_of
from perdure.stores.bundle import Stores
from perdure.stores.reading import read_bytes, read_json


def add_to(run: CommandApp) -> None:
    """Add the commands to ``run``."""
    run.command(status)
    run.command(list_runs, name="list")
    for command in (events, context, facts, replay):
        run.command(command)


def status(run_id: str, /, *, common: Common = COMMON) -> int:
    """Show how a run stands: its states, attempts, facts and outputs.

    perdure run status 4f1c

    Parameters
    ----------
    run_id
        The run's id, or its beginning.
    """

    async def read(stores: Stores) -> Json:
        return await status_of(stores, await find_run(stores, run_id))

    data = reading(common, read)
    output = Output(as_json=common.json)
    if common.json:
        output.data(data)
        return EXIT_COMPLETED
    output.line(f"run      {data['run_id']}")
    output.line(f"phase    {data['phase']}")
    for line in chain_lines(data):
        output.line(line)
    output.line(f"op       {data['op_id']} {data['op_version']}")
    if data["labels"]:
        labels = " ".join(f"{name}={value}" for name, value in sorted(data["labels"].items()))
        output.line(f"labels   {labels}")
    if data["schedule"]:
        output.line(f"schedule {data['schedule']['id']}, due {data['schedule']['due']}")
    if data["parent_run_id"]:
        output.line(f"parent   {data['parent_run_id']}")
    if data["forked_from"]:
        for line in fork_in_words(data["forked_from"]):
            output.line(line)
    if data["children"]:
        output.line(f"children {children_in_words(data['children'])}")
    output.line(f"started  {when(data['started_millis'])} UTC, last event {when(data['last_event_millis'])}")
    output.line(f"events   {data['events']}, of them {data['facts']} facts")
    for each in data["items"]:
        name = "" if each["name"] is None else f" {each['name']}"
        output.line(f"items    {each['recorded']} of {each['state_id']}{name} on record")
    if data["waiting_for"]:
        output.line(f"waits    for {waiting_for(data)}")
    for word in ("pause", "stop"):
        if data[word]:
            reason = f": {data[word]['reason']}" if data[word]["reason"] else ""
            output.line(f"{word:8} by {data[word]['by']}{reason}")
    for each in data["effects_in_doubt"]:
        output.line(f"in doubt {each['key']}")
        output.line(f"         asked {each['namespace']} at {when(each['intended_millis'])} UTC")
    for name, value in data["values"].items():
        output.line(f"value    {name}: {shown(value)}")
    if data["letters_unread"]:
        output.line(f"letters  {data['letters_unread']} unread")
    output.table(
        ["state", "status", "attempts", "error"],
        [
            [
                each["state_id"],
                each["status"],
                each["attempts"],
                f"{each['error']['code']}: {each['error']['message']}" if each["error"] else "",
            ]
            for each in data["states"]
        ],
    )
    for each in data["outputs"]:
        output.line(f"output   {each['name'] or ''} {each['artifact_id']}")
    for step in next_steps(data, common):
        output.line(step)
    return EXIT_COMPLETED


def list_runs(
    *,
    phase: str | None = None,
    label: tuple[str, ...] = (),
    in_doubt: Annotated[bool, Parameter(negative=())] = False,
    roots: Annotated[bool, Parameter(negative=())] = False,
    blocked_by_version: Annotated[bool, Parameter(negative=())] = False,
    legs: Annotated[bool, Parameter(negative=())] = False,
    limit: Whole = 50,
    common: Common = COMMON,
    source: Source = SOURCE,
) -> int:
    """List runs, the newest first.

    perdure run list --phase running --label customer=7

    Parameters
    ----------
    phase
        Only runs in this phase: running, completed, failed or cancelled.
    label
        Only runs with this label, name=value; may be given several times.
    in_doubt
        Only runs with effects of which nobody knows what became of them.
    roots
        Only runs that are nobody's children.
    blocked_by_version
        Only unfinished runs of operations, or of versions of them, that the app does not have.
    legs
        Also runs that went on as new ones, which are left out otherwise.
    limit
        At most so many.
    """
    if phase is not None and phase.capitalize() not in RunPhase._value2member_map_:
        raise UsageError.of("usage", "a phase is running, completed, failed or cancelled")
    wanted = None if phase is None else RunPhase(phase.capitalize())
    labels = label_arguments(label)
    if blocked_by_version:
        if in_doubt or roots or wanted not in (None, RunPhase.RUNNING):
            raise UsageError.of("usage", "--blocked-by-version goes with --label and --limit alone")
        return list_blocked(wanted_app(source), labels, limit, common)

    async def read(stores: Stores) -> list[RunSummary]:
        return await list_summaries(
            stores, phase=wanted, labels=labels, limit=limit, in_doubt=in_doubt, roots=roots, legs=legs
        )

    found = reading(common, read)
    output = Output(as_json=common.json)
    if common.json:
        output.data([each.to_json() for each in found])
    elif not found:
        output.line("no runs")
    elif in_doubt:
        for line in lines_in_doubt(found):
            output.line(line)
        output.line(f"how to say what happened: {typed_command('run status', common, Source(), 'RUN')}")
    else:
        output.table(*columns_and_rows(found, width=output.console().width))
    return EXIT_COMPLETED


def events(
    run_id: str,
    /,
    *,
    from_seq: Annotated[int, Parameter(name="--from", converter=whole)] = 1,
    to_seq: Annotated[int | None, Parameter(name="--to", converter=whole)] = None,
    engine_only: Annotated[bool, Parameter(name="--engine", negative=())] = False,
    common: Common = COMMON,
) -> int:
    """Show a run's events.

    perdure run events 4f1c --from 10

    Parameters
    ----------
    run_id
        The run's id, or its beginning.
    from_seq
        The first event's number.
    to_seq
        The last event's number.
    engine_only
        Leave out domain events that recovery does not need.
    """

    async def read(stores: Stores) -> list[Any]:
        found = await existing_events(stores, await find_run(stores, run_id), from_seq)
        return [each for each in found if to_seq is None or each.seq <= to_seq]

    output = Output(as_json=common.json)
    chosen = [each for each in reading(common, read) if not engine_only or is_engine_event(each.event)]
    if common.json:
        output.data([envelope.to_json() for envelope in chosen])
    elif not chosen:
        output.line("no events")
    else:
        output.table(
            ["#", "time (UTC)", "event", ""],
            [[each.seq, when(each.ts_millis), *event_cells(each.event)] for each in chosen],
        )
    return EXIT_COMPLETED


def context(run_id: str, /, *, at: str | None = None, key: str | None = None, common: Common = COMMON) -> int:
    """Print a run's context: now, after a state, or after an event.

    perdure run context 4f1c --at price --key shop.main.price

    Parameters
    ----------
    run_id
        The run's id, or its beginning.
    at
        The state after which, by its id or its last word, or the number of the event after which.
    key
        One key's value alone.
    """

    async def read(stores: Stores) -> tuple[ArtifactId, Json]:
        found = await find_run(stores, run_id)
        snapshot_id = await _snapshot_at(stores, found, at)
        return snapshot_id, (await read_json(stores.artifacts, snapshot_id))[0]

    snapshot_id, values = reading(common, read)
    if key is not None:
        if key not in values:
            raise UsageError.of(
                "context_key_unknown",
                "the context has no such key",
                hint=f"it has: {', '.join(sorted(values)) or 'none'}",
            )
        values = values[key]
    output = Output(as_json=common.json)
    if common.json:
        output.data({"snapshot_id": snapshot_id, "context" if key is None else "value": values})
    else:
        output.json(values)
    return EXIT_COMPLETED


def facts(run_id: str, /, *, key: str | None = None, common: Common = COMMON) -> int:
    """Show what a run learned from outside: each fact's key and value.

    perdure run facts 4f1c

    Parameters
    ----------
    run_id
        The run's id, or its beginning.
    key
        One fact alone, whole.
    """

    async def read(stores: Stores) -> list[Json]:
        found = await existing_events(stores, await find_run(stores, run_id))
        recorded = [
            (each.seq, each.event.payload)
            for each in found
            if isinstance(each.event, DomainEvent) and each.event.name == FACT_RECORDED
        ]
        return [
            await _fact(stores, seq, payload)
            for seq, payload in recorded
            if key is None or payload["key"] == key
        ]

    data = reading(common, read)
    if key is not None and not data:
        raise UsageError.of(
            "fact_unknown", "the run has no fact of this key", hint="`perdure run facts RUN` lists all"
        )
    output = Output(as_json=common.json)
    if common.json:
        output.data(data)
    elif key is not None:
        output.json(data[0]["value"])
    elif not data:
        output.line("no facts")
    else:
        output.table(
            ["#", "key", "value"], [[each["seq"], each["key"], shown(each["value"], 200)] for each in data]
        )
    return EXIT_COMPLETED


def replay(run_id: str, /, *, common: Common = COMMON, source: Source = SOURCE) -> int:
    """Execute a run again from its facts alone, and compare every state with the record.

    perdure run replay 4f1c --app shop:app

    Nothing outside is asked and nothing is written. Exit code 1 if a state comes out otherwise: the code has
    changed since, or does what no record can hold.

    Parameters
    ----------
    run_id
        The run's id, or its beginning.
    """
    app = wanted_app(source)

    async def read(stores: Stores) -> ReplayReport:
        return await replay_run(stores, await find_run(stores, run_id), app.resolver)

    report = reading(common, read)
    output = Output(as_json=common.json)
    difference = report.first_difference
    if common.json:
        output.data(report.to_json())
        return EXIT_COMPLETED if report.is_same else EXIT_FAILED
    output.table(
        ["state", "snapshot", "replayed"],
        [
            [each.state_id, each.recorded[:12] + "…", "same" if each.is_same else "differs"]
            for each in report.states
        ],
    )
    if difference is None:
        output.line(f"all {report.states_recorded} states come out as recorded")
        if report.final_mismatch is not None:
            output.line(f"but {report.final_mismatch.message}: {report.final_mismatch.code}")
        return EXIT_COMPLETED if report.is_same else EXIT_FAILED
    output.line(f"first difference: {difference.state_id}, attempt {difference.attempt + 1}")
    if difference.error is not None:
        output.line(f"  it failed: {difference.error.code}: {difference.error.message}")
    for each in difference.keys:
        output.line(f"  key {each.key}")
        output.line(f"    recorded  {shown(each.recorded, 200)}")
        output.line(f"    replayed  {shown(each.replayed, 200)}")
    output.line(
        "if the code was changed: ask io.patched(NAME) where, or give the new code another op_version"
    )
    return EXIT_FAILED


async def _snapshot_at(stores: Stores, run_id: RunId, at: str | None) -> ArtifactId:
    """The checkpoint after an event or a state; the last one if ``at`` is None."""
    found = await existing_events(stores, run_id)
    if at is not None and at.isdecimal():
        last = int(at) if len(at) < 19 else found[-1].seq
        found = [each for each in found if each.seq <= last]
    view = fold(found)
    snapshot_id = view.checkpoint
    if at is not None and not at.isdecimal():
        snapshot_id = next(
            (each for state, each in view.completed.items() if at in (state, state.rpartition(".")[2])), None
        )
    if snapshot_id is None:
        raise NotFoundError.of(
            "snapshot_not_found",
            "the run has no context there",
            hint=f"states that completed: {', '.join(view.completed) or 'none'}",
        )
    return snapshot_id


async def _fact(stores: Stores, seq: int, payload: Json) -> Json:
    payload_id = ArtifactId(payload["payload_id"])
    data = await read_bytes(stores.artifacts, payload_id)
    try:
        value = msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError):
        value = f"{len(data)} bytes: {data.hex()}"
    return {"seq": seq, "key": payload["key"], "payload_id": payload_id, "bytes": len(data), "value": value}
