"""What to do next, by error code. A code without an entry needs no more than its message."""

from __future__ import annotations

HINTS: dict[str, str] = {
    # Values
    "float_not_allowed": "store an integer of a smaller unit (cents, milliseconds), or a string",
    "integer_out_of_range": "store the number as a string",
    "value_not_json": "convert the value to None, bool, int, str, list or dict with string keys first",
    "value_too_deep": "flatten the value, or store it as an artifact and keep its id",
    "secrets_detected": (
        "keep the value out of the run: name the secret and let the transport resolve it, or ask the call to "
        "redact its answer"
    ),
    "invalid_id": "names are lower-case letters, digits and underscores; states are named machine.step.state",
    "invalid_shape": "compare the JSON with the shape in the documentation at the pointer given",
    # Starting and resuming
    "context_write_conflict": "have one of the states come after the other, or write under another key",
    "manifest_not_canonical": "write the manifest's input without floats and other types that JSON lacks",
    "manifest_id_mismatch": "pass the id that put_manifest returned for this very manifest",
    "manifest_not_found": "store the manifest first: await stores.put_manifest(manifest)",
    "run_config_mismatch": "pass manifest.run_config as run_config",
    "manifest_op_id_mismatch": "plan the operation that the manifest names",
    "run_already_exists": "resume the run, start one under another id, or use an invocation key",
    "run_already_active": (
        "wait until the other process is done or ends; if it runs on another machine that died, its claim "
        "expires within 30 seconds"
    ),
    "run_not_found": "check the id and the store's address; `perdure run list` shows what is there",
    "run_already_terminal": "`perdure run status RUN` shows how it ended; nothing more can be told to it",
    "signal_unknown": "the details name the signals that the operation declares",
    "signal_invalid": "send a value of the signal's declared type, or its JSON form",
    "letter_invalid": "give the letter an id, a sender and, for a signal, a name: short printable texts",
    "wait_invalid": (
        "wait for a timedelta that is not negative, until a datetime with a time zone, or for signals by "
        "name; a wait's own name begins with a letter"
    ),
    "patch_name_invalid": "give the patch a short name that says what has changed",
    "wait_started_malformed": "the stream was changed outside the engine; restore the store from a backup",
    "effect_malformed": "the stream was changed outside the engine; restore the store from a backup",
    "run_request_malformed": "the stream was changed outside the engine; restore the store from a backup",
    "effect_not_declared": (
        "declare the state with side_effects=SideEffectKind.APPLY_SIDE_EFFECT, or the call with effect=…; "
        "READ_ONLY_IO for a call that only asks"
    ),
    "effect_request_mismatch": (
        "make the request from recorded facts only, so that every attempt makes the same; give other effects "
        "another idempotency_key; if the code was changed, ask io.patched(NAME) which of the two to make"
    ),
    "effect_answer_lost": (
        "the effect was made once and is not made again; have the transport answer what may be recorded, or "
        "ask the call to redact its answer"
    ),
    "effect_not_in_doubt": "`perdure run list --in-doubt` shows which effects wait to be resolved",
    "effect_under_way": (
        "wait for its end; if nobody drives the run, `perdure run resume RUN` does: it asks for a word where "
        "it cannot find out itself"
    ),
    "heartbeat_missed": "call io.heartbeat() more often than heartbeat_timeout, or allow for more time",
    "run_timeout": "start the run anew with a longer timeout in its RunConfig",
    "invocation_conflict": (
        "use another key, or start with the same operation, version, input and initial context as before"
    ),
    "recovery_state_not_in_plan": (
        "the operation has changed under its name and version: give the new code another op_version and "
        "deploy both side by side, or go on without the missing states: perdure run fork RUN --at STATE"
    ),
    "run_blocked_by_version": (
        "deploy the version that the run names side by side with the new one, or go on in another: "
        "perdure run fork RUN --at STATE --op-version V; or give it up: perdure run terminate RUN --why TEXT"
    ),
    "fork_state_not_reached": "`perdure run status RUN` shows the states that the run has entered",
    "fork_states_not_in_plan": (
        "fork at an earlier state, before those that are named, or into a version that has them"
    ),
    "fork_order_changed": "fork at an earlier state, so that what is new before those named is executed too",
    "final_snapshot_mismatch": "the plan was changed since, or the stream outside the engine",
    "base_snapshot_mismatch": (
        "the plan was changed since, or the stream outside the engine; give a changed plan another op_version"
    ),
    "fork_mode_changed": "give the manifest the run's execution mode; the number of places may be another",
    "fork_key_twice": "set each value once, under one of its names",
    "fork_key_unknown": "name a key as the state reads it, or a whole one, as `perdure run context RUN` does",
    "run_forked_malformed": "the stream was changed outside the engine; restore the store from a backup",
    "invalid_attempt_envelopes": "the stream was changed outside the engine; restore the store from a backup",
    "missing_run_started": "the stream was not begun by an engine; it cannot be resumed",
    "empty_plan": "give the plan at least one state",
    "duplicate_state": "give each state a name of its own",
    "missing_state": "add the state that the edge names, or remove the edge",
    "circular_dependency": "remove one of the edges between the states named",
    "failpoint_invalid": "write POINT[:HIT]=stop|kill",
    "os_error": "check the path, its permissions, and the room on the disk",
    "usage": "`perdure --help`, and `--help` after any command, show what there is",
    "input_malformed": "give JSON, @FILE, or - for standard input",
    "op_not_found": "`perdure op list` shows the operations of the app, with their versions",
    "dangling_dependency_tag": "give a state of the operation the tag, or take the dependency away",
    "duplicate_state_id": "give each state of an operation a name of its own",
    "duplicate_step_id": "name the steps: step(operation, step_id=…)",
    "empty_pipeline": "give the pipeline at least one operation",
    "empty_state_graph": "have the operation's expand return at least one state",
    "op_config_not_canonical": "give numbers as integers or strings; keep to what JSON has",
    "call_invalid": "mend the argument; help() of what is called shows what it takes",
    "client_not_open": "write `async with perdure.open(…) as p`, `with …` or `p = await perdure.open(…)`",
    "config_invalid": "mend the configuration; it is to be of the type given as op(…, config=…)",
    "input_invalid": "mend the input; `perdure op show` names what the states take",
    "manifest_artifact_mismatch": (
        "pass the id that put_manifest returned for this very manifest; what was started does not change, "
        "but can be forked into another version: perdure run fork RUN --at STATE --op-version V"
    ),
    "missing_idempotency_key": "give StateMeta an idempotency_key, or declare another side effect",
    "missing_state_for_edge": "have expand return the state that the edge names, or remove the edge",
    "op_expand_failed": "mend expand: it must give the states for this input and configuration",
    "op_not_deterministic": "have expand depend on its arguments alone: no clock, no randomness, no globals",
    "pipeline_malformed": "the manifest was written by another program, or a newer version; update perdure",
    "plan_op_id_mismatch": "plan the operation that the manifest names; another one is another run",
    "unsatisfied_import": "put a step that exports the key before this one, or into the initial context",
    # Attempts
    "argument_invalid": (
        "make the parameter's type agree with what was recorded, or give the new code another op_version: "
        "old runs have old values; `perdure run fork RUN --at STATE --set KEY=JSON` puts a new one in place"
    ),
    "result_missing": (
        "annotate the parameter as `… | None`, or give it a default: a state that cleans up, or that comes "
        "after one that was skipped, may find no result"
    ),
    "result_invalid": "return a value of the annotated type: dataclass, msgspec.Struct, pydantic or built in",
    "run_failed": "`perdure run status RUN` shows the state and its error; mend the cause and start anew",
    "run_cancelled": "`perdure run status RUN` shows how far it came, who asked for it and why",
    "client_closed": "open the store again, which resumes the run, or `perdure run resume RUN`",
    "attempt_closed": "await everything that the handler starts before it returns",
    "context_not_canonical": "write values of None, bool, int, str, list and dict only",
    "event_name_reserved": "choose another name for the event",
    "event_not_canonical": "emit payloads of None, bool, int, str, list and dict only",
    "continue_input_unsupported": "start such runs with input_params that are an object, with an input in it",
    "continue_outside_state": "call it in a function that is a state, while that runs",
    "carry_invalid": "carry values that JSON can hold: dataclasses, msgspec.Struct, pydantic or built in",
    "continued_in_doubt": (
        "say what became of the effects: `perdure run resolve RUN`; the state is tried once more then"
    ),
    "handler_raised": "read the message, mend the handler, and start the run again",
    "state_outcome_invalid": "return StateOutcome() or nothing",
    "state_timeout": (
        "raise the state's timeout, or make it faster; code that blocks the event loop belongs in a thread"
    ),
    "worker_process_died": (
        "the function ended its process (out of memory, a crash in C code, os._exit): mend it, or give it "
        "less at a time"
    ),
    "recovery_limit_exceeded": (
        "the state ends its process again and again (out of memory, a crash in C code): mend it, start anew"
    ),
    # IO
    "missing_fact_key": "give the call a fact_key, so that its answer is recorded",
    "missing_fact": (
        "the code asks for what the recorded run never asked: replay it with the code of then, have the "
        "change ask io.patched(NAME), or make it in another op_version"
    ),
    "fact_request_mismatch": (
        "use one fact key for one request; put what varies into the key; if the code was changed, ask "
        "io.patched(NAME) which of the two to send, or begin anew from here: perdure run fork RUN --at STATE"
    ),
    "fact_key_reserved": (
        "choose a fact key that does not begin with wait:, signal:, effect:, patch: or map:; an effect's "
        "answer needs none"
    ),
    "fact_payload_conflict": (
        "record each value under a key of its own; if the code was changed, ask io.patched(NAME) which to "
        "record"
    ),
    "fact_payload_not_canonical": "have the transport answer with JSON data, without floats",
    "fact_not_recorded": "the store refused a write; the state is tried again",
    "fact_recorded_malformed": "the stream was changed outside the engine; restore the store from a backup",
    "fact_recorded_conflict": "the stream was changed outside the engine; restore the store from a backup",
    "io_unimplemented": "give the engine transports: Engine(resolver, transports=…)",
    "io_unknown_namespace": "add the factory that serves the call's namespace, or mend the namespace",
    "secret_name_invalid": "name secrets as environment variables are named",
    "secret_not_found": "set an environment variable of this name, or give the app a source that has it",
    "secret_too_short": "use a longer credential: a short one cannot be told from ordinary text",
    "http_host_not_allowed": "add the host to http_transport(allowed_hosts=[…]), without a port",
    "http_rate_limited": "call less often; the retry waits as long as the server asks",
    "http_server_error": "the state is tried again; if the server stays so, ask those who run it",
    "http_status_unexpected": "add the status to accept_status if it is an answer that the code can use",
    "http_timeout": "raise timeout_ms, or find out why the server is slow",
    "http_connect_failed": "check the URL's host and port, the network, and the server's certificate",
    "http_failed": "the state is tried again; the server or something in between broke the protocol",
    "http_too_many_redirects": "look where the URL leads; redirects_max allows more",
    "http_response_too_large": "ask for less at a time, or raise http_transport(limit_bytes=…)",
    "files_request_invalid": (
        'send {"kind": "read_file_v1", "root": …, "path": …}, list_folder_v1 or write_file_v1'
    ),
    "files_root_unknown": "name one of the roots of files_transport(roots={…})",
    "files_root_not_writable": "add the root's name to files_transport(writable=[…])",
    "files_path_invalid": "write the path relative to its root, without '.', '..' and slashes at the ends",
    "files_symlink_refused": "name the file by the path that the link leads to, under a root that holds it",
    "files_not_found": "check the path; to write into new folders, set make_folders",
    "files_not_a_file": "only regular files are read and replaced",
    "files_not_a_folder": "only folders can be listed, or stand in the middle of a path",
    "files_not_json": 'read it as "text"; floats and keys that stand twice have no exact form',
    "files_not_text": 'read it as "bytes"; text is UTF-8',
    "files_exists": 'choose another path, or write with "if_exists": "replace"',
    "files_too_large": "split the file, or raise files_transport(limit_bytes=…)",
    "files_listing_too_large": "list a folder further down, or without recursive",
    "files_io_error": "look up the errno: permissions, a full disk, a read-only file system",
    "transport_raised": "the transport broke: mend it, or have it raise TransportError for what it expects",
    "io_request_invalid": "send a request of JSON data, without floats and secrets; name secrets instead",
    "exec_failed": "look at the program's exit code; its output is not kept, so try it by hand",
    "exec_program_missing": "install the program, or mend the path; it is taken as it is, without PATH",
    "exec_program_not_executable": "make the file executable",
    "exec_spawn_failed": "the system refused to start the program: look at limits and the interpreter line",
    "exec_stdin_too_large": "write the data to a file and pass its path",
    "exec_stdout_invalid_json": "have the program print JSON without floats, or ask for text output",
    "exec_timeout": "raise timeout_ms, or find out why the program is slow",
    # Schedules
    "schedule_invalid": "mend what the message names; the guide on schedules shows what there is",
    "schedule_cron_invalid": (
        "write five fields: minute, hour, day of month, month, day of week, as in '30 2 * * MON-FRI'"
    ),
    "schedule_zone_unknown": "write a name of the IANA database, such as Europe/Berlin",
    "schedule_never_due": "choose days that exist, and an end after the beginning",
    "schedule_exists": "choose another id, or delete that schedule first",
    "schedule_not_found": "`perdure schedule list` shows the schedules of the store",
    "schedule_changed": "look at the schedule as it is now, and decide anew",
    "schedule_corruption": "the stored schedule was damaged; restore the store, or delete and create it anew",
    # Stores
    "context_not_an_object": "the stream was changed outside the engine; restore the store from a backup",
    "retry_scheduled_malformed": "the stream was changed outside the engine; restore the store from a backup",
    "run_id_mismatch": "the stream was changed outside the engine; restore the store from a backup",
    "run_started_op_id_mismatch": "the stream was changed outside the engine; restore it from a backup",
    "event_store_concurrency": "somebody else wrote to the run; read its head and decide anew",
    "child_run_request_invalid": "see the guide on child runs for the two requests; run_config must be whole",
    "spawn_outside_state": "call it in a function that is a state, while that runs",
    "child_name_invalid": "give it a short name such as an invoice's number with a letter before it",
    "continued_side_by_side": "have the state that goes on come after all others, or before them",
    "map_outside_state": "call it in a function that is a state, while that runs, or give it the state's io",
    "map_name_taken": "name the maps of a state: perdure.map_over(…, name=…)",
    "map_item_changed": (
        "have the items depend on the state's input and on recorded facts alone, in one order, so that every "
        "attempt maps the same"
    ),
    "map_item_invalid": "map over values that have a JSON form without floats, such as ids",
    "map_items_failed": (
        "mend what the items' codes say; retry=… tries an item again, return_exceptions=True records "
        "failures and goes on"
    ),
    "child_run_conflict": (
        "spawn under another fact key: this one names a run that was started otherwise; if the code was "
        "changed, ask io.patched(NAME) which child to spawn"
    ),
    "child_run_manifest_id_mismatch": (
        "await with the ids that the spawn answered; a child stays in the version that it was spawned in"
    ),
    "child_run_missing_after_spawn": (
        "await a run that was spawned, in the store where it was; one that was deleted is not there any more"
    ),
    "child_run_engine_failed": "`perdure run status` of the child, or the resolver's own log, tells more",
    "child_run_task_failed": ("mend what the code of the details says, and resume the parent"),
    "child_run_too_deep": "end the recursion, or give the engine a larger max_child_depth",
    "child_run_link_malformed": "the stream was changed outside the engine; restore the store from a backup",
    "run_not_ended": "end it first: `perdure run terminate RUN --why …`, or wait for its end",
    "run_parent_unfinished": "wait for the parent's end, which may need the child's result, or terminate it",
    "run_has_children": "delete the whole family with --with-children, or with_children=True",
    "run_referred_to": (
        "delete the runs first that need it, or together with it; of a run that went on as others the first "
        "leg and the newest go last, together: `perdure run list --legs` shows them"
    ),
    "retention_unsupported": "give Stores(keeping=…) what can delete, or delete where the runs are kept",
    "claim_lost": "another owner drives the run now; nothing is lost, and nothing is to be done here",
    "artifact_not_found": "check the id; an artifact of another store must be copied here first",
    "artifact_corruption": "the stored bytes were damaged; restore the store from a backup",
    "artifact_content_address_mismatch": "the stored bytes were damaged; restore the store from a backup",
    "artifact_json_decode_failed": "the artifact was not written as JSON; restore it from a backup",
    "artifact_not_canonical": "the artifact was not written by an engine; restore it from a backup",
    "artifact_float_not_allowed": "the artifact was not written by an engine; restore it from a backup",
    "artifact_put_id_mismatch": "the store is broken: it names artifacts by other than their content",
    "manifest_deserialize_failed": "the manifest is another program's, or newer; update perdure",
    "event_corruption": "the stored event was damaged; restore the store from a backup",
    "event_sequence_gap": "the stream was damaged; restore the store from a backup",
    "store_foreign": "choose another path: this file belongs to another program and was not touched",
    "store_too_new": "update perdure, or choose another store; the file was not touched",
    "store_corrupt": "choose another path, or restore the file from a backup; it was not touched",
    "store_path_invalid": "name a regular file, or one that can be made: its folders are made too",
    "store_unreadable": "have the file's owner let you read and write it, or choose another with --store",
    "store_read_only": "choose a folder that you may write to, with --store or PERDURE_STORE",
    "store_locked": "find the process that keeps the file locked, and try again; nothing was written",
    "store_full": "make room on the disk and resume the run; nothing is lost",
    "store_io_error": "look at the disk and the system's log, then resume the run",
    "store_closed": "open the stores again; closing ends their use",
    "letter_corruption": "the stored letter was damaged; restore the store from a backup",
    "letter_malformed": "the stored letter was damaged; restore the store from a backup",
    "event_malformed": "the stored event was damaged; restore the store from a backup",
}
