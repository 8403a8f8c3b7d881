"""The exec transport, with real programs."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from perdure import (
    Context,
    Engine,
    IoCall,
    IoError,
    IoProvider,
    Recorder,
    RunPhase,
    Stores,
    exec_transport,
    secret,
)
from perdure.adapters.transports.exec import ExecTransport, ExecTransportFactory
from perdure.errors import Json
from perdure.secrets import SecretResolver
from tests.servers import NamedSecrets
from tests.support import FixedResolver, InstantClock, Scripted, plan_of, start_run, stream

Write = Callable[[str], Path]

# What is resolved stays remembered for as long as the process lives, so no other test may write it.
TOKEN = "cobalt?thicket/harbour+willow"
SECRETS = {"API_TOKEN": TOKEN, "SHORT": "1234567", "NUL": "granite\0gooseberry"}


@pytest.fixture
def program(tmp_path: Path) -> Write:
    """Makes an executable Python program of a text."""

    def write(body: str) -> Path:
        path = tmp_path / f"program{len(list(tmp_path.iterdir()))}"
        path.write_text(f"#!{sys.executable}\nimport json, os, sys, time\n{body}\n")
        path.chmod(0o755)
        return path

    return write


async def run(path: Path, *, limit_bytes: int = 1 << 20, allowed: Path | None = None, **fields: Json) -> Any:
    """What the transport answers for ``path``."""
    secrets = SecretResolver([NamedSecrets(SECRETS)])
    transport = ExecTransport(frozenset([os.path.realpath(allowed or path)]), limit_bytes, secrets)
    request = {"kind": "run_program_v1", "program_path": str(path), **fields}
    return await transport.call(IoCall("exec", request))


async def refused(path: Path, **fields: Any) -> IoError:
    """The error that the transport raises for ``path``."""
    with pytest.raises(IoError) as caught:
        await run(path, **fields)
    return caught.value


async def test_a_program_answers_with_what_it_prints(program: Write) -> None:
    """Arguments, input and environment go in as given, and nothing else; JSON or text comes out."""
    echo = program("print(json.dumps([sys.argv[1:], json.load(sys.stdin), sorted(os.environ)]))")
    answer = await run(echo, argv=["a", "b c"], stdin_json={"x": 1}, env={"LC_ALL": "C", "ONE": "1"})
    assert answer == [["a", "b c"], {"x": 1}, ["LC_ALL", "ONE"]]
    assert await run(program("sys.stdout.buffer.write(b'caf\\xe9\\n')"), output="text") == "caf\\xe9\n"


@pytest.mark.parametrize(
    "fields",
    [
        {"kind": "run_program_v2"},
        {"argv": "ls"},
        {"timeout_ms": 0},
        {"timeout_ms": "1"},
        {"env": {"A=B": "1"}},
        {"env": {"A": 1}},
        {"env": {"A": {"name": "API_TOKEN"}}},
        {"env": {"A": {"secret": "API_TOKEN", "more": ""}}},
        {"env": {"A": {"secret": "NUL"}}},
        {"argv": [{"secret": "API_TOKEN"}]},
        {"argv": ["a\0b"]},
        {"output": "xml"},
        {"surprise": 1},
        {"program_path": "git"},
        {"program_path": "/bin/../bin/sh"},
    ],
)
async def test_a_malformed_request_is_refused(program: Write, fields: dict[str, Json]) -> None:
    """``exec_request_invalid``, before anything is started."""
    error = await refused(program("raise SystemExit(9)"), **fields)
    assert (error.code, error.info.retryable) == ("exec_request_invalid", False)
    assert error.hint


async def test_a_variable_may_be_a_secret(program: Write) -> None:
    """Filled in at last, with the prefix before it; no error shows it."""
    shows = program("print(json.dumps([os.environ['PLAIN'], os.environ['KEY'], os.environ['AUTH']]))")
    env = {"PLAIN": "1", "KEY": secret("API_TOKEN"), "AUTH": secret("API_TOKEN", prefix="Bearer ")}
    assert await run(shows, env=env) == ["1", TOKEN, f"Bearer {TOKEN}"]
    fails = program("print(os.environ['KEY'], file=sys.stderr); sys.exit(os.environ['KEY'])")
    assert TOKEN not in f"{await refused(fails, env=env)!r}"


@pytest.mark.parametrize(
    ("name", "code"),
    [("NOBODY", "secret_not_found"), ("SHORT", "secret_too_short"), ("no name", "secret_name_invalid")],
)
async def test_a_secret_that_cannot_be_had_starts_nothing(
    program: Write, tmp_path: Path, name: str, code: str
) -> None:
    """The resolver's error is the call's."""
    mark = tmp_path / "mark"
    leaves_a_mark = program(f"open({str(mark)!r}, 'w'); print(1)")
    assert (await refused(leaves_a_mark, env={"KEY": secret(name)})).code == code
    assert not mark.exists()
    assert await run(leaves_a_mark, env={"KEY": secret("API_TOKEN")}) == 1
    assert mark.exists()


@pytest.mark.parametrize("prints", ["len(os.environ['KEY'])", "os.environ['KEY']"])
async def test_a_run_keeps_no_secret_that_a_program_was_given(
    program: Write, tmp_path: Path, prints: str
) -> None:
    """It may use it; an answer that holds it is refused, and the store never sees it."""
    path = program(f"print(json.dumps({prints}))")
    request = {"kind": "run_program_v1", "program_path": str(path), "env": {"KEY": secret("API_TOKEN")}}

    async def handler(ctx: Context, io: IoProvider, rec: Recorder) -> None:
        ctx.write("answer", (await io.call(IoCall("exec", request, "k"))).response)

    plan = plan_of(("a", Scripted(handler)))
    async with Stores.sqlite(tmp_path / "store.db") as stores:
        engine = Engine(
            FixedResolver(plan),
            exec_transport([path]),
            clock=InstantClock(),
            secrets=[NamedSecrets(SECRETS)],
        )
        result = await engine.start(stores, await start_run(stores, plan))
        told = await stream(stores, result)
    if "len" in prints:
        assert result.phase is RunPhase.COMPLETED
    else:
        assert "failed a secrets_detected" in told
    assert not any(TOKEN.encode() in file.read_bytes() for file in tmp_path.glob("store.db*"))


async def test_only_the_very_programs_of_the_list_run(program: Write, tmp_path: Path) -> None:
    """Real paths are compared: no prefix, no link out; a link to an allowed program is that program."""
    allowed, other = program("print(1)"), program("print(2)")
    longer = allowed.with_name(allowed.name + "x")
    longer.write_bytes(allowed.read_bytes())
    longer.chmod(0o755)
    link = tmp_path / "link"
    link.symlink_to(other)
    for path in (other, longer, link):
        assert (await refused(path, allowed=allowed)).code == "exec_program_not_allowed"
    link.unlink()
    link.symlink_to(allowed)
    assert await run(link, allowed=allowed) == 1


async def test_what_cannot_be_executed_is_told_apart(program: Write, tmp_path: Path) -> None:
    """Missing, not executable, a folder, and a file that the system cannot start."""
    assert (await refused(tmp_path / "gone")).code == "exec_program_missing"
    plain = tmp_path / "plain"
    plain.write_text("x")
    assert (await refused(plain)).code == "exec_program_not_executable"
    assert (await refused(tmp_path)).code == "exec_program_not_executable"
    plain.write_bytes(b"\x7fELF broken")
    plain.chmod(0o755)
    assert (await refused(plain)).code == "exec_spawn_failed"


async def test_a_failing_program_tells_how_it_ended_and_nothing_it_said(program: Write) -> None:
    """Exit code and signal; neither output nor arguments."""
    exits = program("print('hush', file=sys.stderr); print('hush'); sys.exit(3)")
    error = await refused(exits, argv=["hush"])
    assert (error.code, error.info.details) == ("exec_failed", {"exit_code": 3, "signal": None})
    assert "hush" not in str(error)
    dies = program("os.kill(os.getpid(), 11)")
    assert (await refused(dies)).info.details == {"exit_code": None, "signal": 11}


async def test_one_deadline_covers_everything(program: Write, tmp_path: Path) -> None:
    """A program that ignores signals, or never reads its input, is killed with all that it started."""
    mark = tmp_path / "mark"
    stubborn = program(
        "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "child = os.fork()\n"
        f"if not child: open({str(mark)!r}, 'w').write(str(os.getpid()))\n"
        "time.sleep(600)"
    )
    error = await refused(stubborn, timeout_ms=1500)
    assert (error.code, error.info.retryable) == ("exec_timeout", True)
    grandchild = int(mark.read_text())
    await gone(grandchild)
    deaf = program("time.sleep(600)")
    assert (await refused(deaf, stdin_json="x" * 500_000, timeout_ms=300)).code == "exec_timeout"


async def test_a_grandchild_that_outlives_the_program_keeps_nobody_waiting(program: Write) -> None:
    """What the program leaves behind is killed when it ends without closing its output."""
    leaves = program("print(1, flush=True)\nif not os.fork(): os.close(1); os.close(2); time.sleep(600)")
    assert await run(leaves) == 1


async def test_output_and_input_are_bounded(program: Write) -> None:
    """A flood ends the program, on either stream; large input never starts it."""
    flood = "\nwhile True: sys.std{}.write('x' * 65536)"
    assert (await refused(program(flood.format("out")))).code == "exec_stdout_too_large"
    assert (await refused(program(flood.format("err")))).code == "exec_stderr_too_large"
    assert (await refused(program("print(1)"), stdin_json="x" * 2**20)).code == "exec_stdin_too_large"
    assert len(await run(program("print('x' * 99)"), output="text", limit_bytes=100)) == 100


@pytest.mark.parametrize("printed", ["", "{", "NaN", "[1] [2]"])
async def test_what_is_not_json_is_refused(program: Write, printed: str) -> None:
    """``exec_stdout_invalid_json``."""
    error = await refused(program(f"print({printed!r})"))
    assert error.code == "exec_stdout_invalid_json"


async def test_cancelling_the_call_kills_the_program(program: Write, tmp_path: Path) -> None:
    """No process outlives the caller's interest."""
    mark = tmp_path / "mark"
    waits = program(f"open({str(mark)!r}, 'w').write(str(os.getpid()))\ntime.sleep(600)")
    task = asyncio.ensure_future(run(waits))
    while not (mark.exists() and mark.read_text()):  # noqa: ASYNC110 — a program cannot set an event
        await asyncio.sleep(0.005)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await gone(int(mark.read_text()))


def test_a_factory_serves_its_group() -> None:
    """The namespace is ``exec``."""
    assert ExecTransportFactory([sys.executable]).namespace_group == "exec"


async def gone(pid: int) -> None:
    """Return when a process that was killed is no more: the kill is sent, but not yet delivered."""
    while _runs(pid):  # noqa: ASYNC110 — the test's time limit ends it
        await asyncio.sleep(0.005)


def _runs(pid: int) -> bool:
    """Whether a process runs: one that was killed and waits for its parent does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False
