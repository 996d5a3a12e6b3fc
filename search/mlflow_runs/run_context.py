"""Collect who makes a run, with which command and from which commit: the tags that MLflow's UI has columns for."""

from __future__ import annotations

import getpass
import os
import sys
from pathlib import Path

from stepfront.addresses import redacted
from stepfront.environment import SOURCE_ROOT


def user_name() -> str:
    """Return the user's name on the tracking server, or else on this machine."""
    try:
        return os.environ.get("MLFLOW_TRACKING_USERNAME") or getpass.getuser()
    except (KeyError, OSError):  # a container whose user has no name
        return f"user-{os.getuid()}"


def context_tags(command: str = "") -> dict[str, str]:
    """Return user, source and commit as MLflow's own tags; `command` is the source, by default that of this process.

    The commit is that of stepfront, where it runs from a git checkout.
    """
    source = command or redacted(" ".join([Path(sys.argv[0]).name, *sys.argv[1:]]))
    tags = {"mlflow.user": user_name(), "mlflow.source.name": source, "mlflow.source.type": "LOCAL"}
    commit = _commit()
    return tags | ({"mlflow.source.git.commit": commit} if commit else {})


def _commit() -> str:
    from mlflow.utils.git_utils import get_git_commit

    checkout = SOURCE_ROOT.parent
    # An installed package may lie below a repository that is not its own.
    return (get_git_commit(str(checkout)) or "") if (checkout / ".git").exists() else ""
