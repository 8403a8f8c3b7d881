"""``python -m examples.repo_audit [PATH] [--store STORE]``: audits a repository and prints the report."""

from __future__ import annotations

import argparse
import asyncio
import json
import shlex
import sys
from pathlib import Path

from perdure import ArtifactId, RunId, Stores
from perdure.cli import main as perdure
from perdure.cli.common import default_store_path
from perdure.sdk.reading import status_of

APP = "examples.repo_audit:app"


def main() -> int:
    """Run the audit, then say what to try next."""
    parser = argparse.ArgumentParser(prog="repo_audit", description="Audit a Git repository, durably.")
    parser.add_argument("path", nargs="?", default=str(Path(__file__).resolve().parents[2]))
    parser.add_argument("--store", default=str(default_store_path()))
    options = parser.parse_args()
    run_id = RunId.random()
    given = json.dumps({"path": str(Path(options.path).resolve())})
    at = ["--app", APP, "--store", options.store]
    code = perdure(["run", "start", "repo_audit", "--run-id", run_id, "--input", given, *at])
    if code:
        return code
    print()
    print(asyncio.run(_report(options.store, run_id)))
    words = [sys.executable, "-m", "perdure"]
    store = ["--store", options.store]
    print("What to try next:")
    print("  - press Ctrl-C during a run, and resume it with the command that is printed")
    for what in (["run", "status", run_id], ["run", "events", run_id], ["run", "list"]):
        print(f"  {shlex.join([*words, *what, *store])}")
    return 0


async def _report(store: str, run_id: RunId) -> str:
    async with Stores.open(store) as stores:
        outputs = (await status_of(stores, run_id))["outputs"]
        (report,) = [each["artifact_id"] for each in outputs if each["name"] == "report.md"]
        return (await stores.artifacts.get(ArtifactId(report))).decode()


if __name__ == "__main__":
    sys.exit(main())
