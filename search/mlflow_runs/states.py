"""Check that experiments and runs can be written, restore deleted ones, and explain in one line what can't be."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from stepfront.addresses import redacted
from stepfront.errors import InputError, first_line
from stepfront.sqlite_files import sqlite_file

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Experiment, Run

CHECKED = "stepfront.checked"
"""Tag of an experiment that a check writes, to see that it may."""

CHECK_RUN = "stepfront doctor"
"""Name of the run that `try_a_run` creates and deletes."""

OWN_EXPERIMENT = "ask its owner for EDIT, or write to one of your own, such as tracking.experiment: 'stepfront {user}'"


def usable_experiment(client: MlflowClient, name: str, mend: bool) -> Experiment | None:
    """Return the experiment with this name, restored with `mend` where it was deleted; None where there is none.

    Raises InputError when it was deleted and is not to be restored.
    """
    found = client.get_experiment_by_name(name)
    if found is not None and found.lifecycle_stage == "deleted":
        if not mend:
            raise InputError(
                f"the experiment {name!r} was deleted in MLflow; `stepfront sync` on a run of it restores it, or give "
                "another name: tracking.experiment"
            )
        client.restore_experiment(found.experiment_id)
    return found


def ensure_active(client: MlflowClient, run: Run, mend: bool) -> None:
    """Restore, with `mend`, a run and its experiment where they were deleted.

    Raises InputError when one was deleted and is not to be restored.
    """
    experiment = client.get_experiment(run.info.experiment_id)
    if experiment.lifecycle_stage == "deleted":
        usable_experiment(client, experiment.name, mend)
        run = client.get_run(run.info.run_id)
    if run.info.lifecycle_stage == "deleted":
        if not mend:
            raise InputError("its run was deleted in MLflow; `stepfront sync` restores it")
        client.restore_run(run.info.run_id)


def check_experiment(client: MlflowClient, name: str, mark: str) -> str:
    """Return what is known of an experiment, after a real write of the tag `mark` to it.

    Raises InputError when it was deleted or this user may not write it.
    """
    found = usable_experiment(client, name, mend=False)
    if found is None:
        return f"the experiment {name!r} will be made"
    try:
        client.set_experiment_tag(found.experiment_id, CHECKED, mark)
    except Exception as error:  # of MLflow, or of the database or server behind it
        if not is_refusal(error):
            raise
        raise _no_permission(name) from None
    return f"the experiment {name!r} can be written"


def try_a_run(client: MlflowClient, name: str) -> str:
    """Create a run in an experiment and delete it; return what was found, "" where there is no such experiment.

    Raises InputError when this user may create none.
    """
    found = usable_experiment(client, name, mend=False)
    if found is None:
        return ""
    try:
        run_id = client.create_run(found.experiment_id, run_name=CHECK_RUN).info.run_id
    except Exception as error:
        if not is_refusal(error):
            raise
        raise _no_permission(name) from None
    try:
        client.delete_run(run_id)
    except Exception as error:
        if not is_refusal(error):
            raise
        client.set_terminated(run_id, "KILLED")
        return f"a run could be created, but not deleted (that needs MANAGE): {CHECK_RUN!r} stays"
    return "a run was created and deleted"


def is_refusal(error: Exception) -> bool:
    """Return whether MLflow, or a server before it, refused because of the user's permissions."""
    return getattr(error, "error_code", "") == "PERMISSION_DENIED" or _has_status(403, str(error))


def _has_status(status: int, text: str) -> bool:
    """Return whether an error names a status of HTTP: a number by itself, and no part of an id."""
    return re.search(rf"(?<![\w.:/-]){status}(?![\w/-])", text[:200]) is not None


def _no_permission(name: str) -> InputError:
    return InputError(f"no permission to write to the experiment {name!r}; {OWN_EXPERIMENT}")


def explained(error: BaseException, uri: str | None) -> str:
    """Return one line about an error of MLflow, with what to do where that is known."""
    text = " ".join(redacted(error).split())
    status = str(getattr(error, "error_code", ""))
    file = sqlite_file(uri)
    if isinstance(error, InputError):
        return str(error)
    if "Can't locate revision" in text or ("out-of-date database schema" in text and _is_newer(text)):
        return "it was written by a newer MLflow: pip install --upgrade mlflow, or give another tracking.uri"
    if "out-of-date database schema" in text:
        return f"it was written by an older MLflow: make a copy of it, then run: mlflow db upgrade {redacted(uri)}"
    if "malformed" in text or "not a database" in text:
        where = f"move {file} aside" if file else "restore it from its backup"
        return f"the database is damaged; {where}, and `stepfront sync` writes the search again"
    if "Failed to establish a new connection" in text or "Failed to resolve" in text:
        cause = re.search(r"\[Errno -?\d+\] ([\w ]+)", text)  # the rest names each layer of the HTTP library
        return f"no answer{f' ({cause[1].strip()})' if cause else ''}; start the server, or correct tracking.uri"
    if status == "PERMISSION_DENIED" or _has_status(403, text):
        return f"no permission for the experiment; {OWN_EXPERIMENT}"
    if status in ("UNAUTHENTICATED", "CUSTOMER_UNAUTHORIZED") or _has_status(401, text):
        return "it asks for a log-in: set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"
    if "readonly database" in text or "unable to open database file" in text:
        return f"{file or 'the database'} can't be written by this user; give another tracking.uri, or null"
    if "no such table" in text or "no such column" in text:
        return f"its tables are incomplete; move {file or 'it'} aside, and `stepfront sync` writes the search again"
    return redacted(first_line(error))


def _is_newer(text: str) -> bool:
    """Return whether MLflow's message names a schema that the installed MLflow does not know."""
    import mlflow.store.db_migrations

    found = re.search(r"found version ([^,]*), but expected", text)
    folder = Path(next(iter(mlflow.store.db_migrations.__path__))) / "versions"
    return found is not None and not any(path.name.startswith(f"{found[1]}_") for path in folder.glob("*.py"))
