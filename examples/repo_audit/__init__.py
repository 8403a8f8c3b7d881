"""Audits a Git repository: a real job, run durably.

Every answer of ``git`` is a recorded fact, so the audit can be killed anywhere and resumed without asking
twice. ``python -m examples.repo_audit [PATH]`` runs it; ``--app examples.repo_audit:app`` offers the
operation to the command line.
"""

from __future__ import annotations

import os
import shutil

from examples.repo_audit.operation import RepoAudit
from perdure.sdk import App
from perdure.wiring import exec_transport

GIT_VARIABLE = "REPO_AUDIT_GIT"
"""Names another program to be run as git: a wrapper, or a git outside the search path."""

_ANSWER_BYTES_MAX = 64 << 20


def app() -> App:
    """The operation, and a transport that runs git and nothing else."""
    git = os.environ.get(GIT_VARIABLE) or shutil.which("git") or "/usr/bin/git"
    git = os.path.realpath(git)
    return App(ops=[RepoAudit(git)], transports=[exec_transport([git], limit_bytes=_ANSWER_BYTES_MAX)])
