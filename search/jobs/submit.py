"""Submit a training or a search to a Ray cluster as a job.

A folder made for the job is sent: this package's source, one settings file, the versions of this machine's packages
and, where one is given, a trained supernet.  The folder that the command is called from is never sent, so that neither
data nor runs leave this machine by accident.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import re
import shlex
import shutil
import tempfile
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stepfront.addresses import is_uri, shown, without_literal_secret
from stepfront.environment import SOURCE_ROOT
from stepfront.errors import InputError
from stepfront.files import write_text
from stepfront.search.config import RunSettings, save_settings
from stepfront.search.jobs.client import LABEL, jobs_client
from stepfront.search.jobs.job_entrypoint import CONFIG_FILE, REQUIREMENTS_FILE, SUPERNET_FOLDER, supernet_files
from stepfront.search.records.settings_paths import AUTO, FRONT_OF
from stepfront.search.records.versions import SEARCH_ID
from stepfront.trainers.validation import settings_json, validate

if TYPE_CHECKING:
    from ray.job_submission import JobSubmissionClient

STEPS = ("train", "search", "confirm")
"""Steps of a job, in this order."""

START_SECONDS = 60.0
PACKAGE = "stepfront"

_IN_ORDER = {"RAY_JOB_STOP_SIGNAL": "SIGINT", "RAY_JOB_STOP_WAIT_TIME_S": "60"}
"""`stepfront stop` reaches a job as Ctrl-C, so that its search ends gracefully."""


@dataclass(frozen=True)
class Submitted:
    """Describe a job that the cluster accepted: its id, the files and folders sent, and their size in bytes."""

    job_id: str
    sent: tuple[str, ...]
    size: int


def submit_job(
    settings: RunSettings,
    address: str,
    steps: Sequence[str] = ("search",),
    supernet: Path | None = None,
    install: bool = False,
    earlier: Sequence[str] = (),
) -> Submitted:
    """Submit a job to the cluster whose dashboard is at `address`.

    `install` makes Ray install the pinned requirements on each node first.  The search starts from the `earlier` ones,
    which the cluster's head reads.  Raises InputError when a path of the settings would not outlive the job, when no
    dashboard answers, or when it refuses the token.
    """
    wanted = [step for step in STEPS if step in steps]
    if not wanted or set(steps) - set(STEPS):
        raise InputError(f"a job can't do {','.join(steps) or 'nothing'}; choose steps from {','.join(STEPS)}")
    if earlier and "search" not in wanted:
        raise InputError(f"--from needs the step search; this job does {','.join(wanted)}")
    for place in earlier:
        try:
            without_literal_secret(place)
        except ValueError as error:
            raise InputError(f"--from: {error}") from None
        if place != AUTO and _would_be_lost(place):
            raise _lost("--from", place, "--from /shared/stepfront/digits")
    settings = on_cluster(settings)
    search_id = uuid.uuid4().hex[:12]
    with tempfile.TemporaryDirectory(prefix="stepfront-job-") as folder:
        sent = pack(settings, Path(folder), supernet)
        size = sum(path.stat().st_size for path in Path(folder).rglob("*") if path.is_file())
        environment: dict[str, Any] = {"working_dir": folder, "env_vars": _IN_ORDER | {SEARCH_ID: search_id}}
        if install:
            environment["pip"] = pinned_requirements()
        with jobs_client(address) as client:
            job_id = _submit_when_ready(
                client,
                entrypoint=entrypoint(settings, wanted, earlier),
                submission_id=f"{settings.name}-{search_id}",
                runtime_env=environment,
                metadata={LABEL: settings.name, "directory": settings.run_place},
            )
    return Submitted(job_id, sent, size)


def _submit_when_ready(client: JobSubmissionClient, runtime_env: dict[str, Any], **job: Any) -> str:
    """Submit a job, and return its id; wait for a head that has just started and refuses jobs for some seconds."""
    until = time.monotonic() + START_SECONDS
    while True:
        try:
            return str(client.submit_job(runtime_env=dict(runtime_env), **job))
        except RuntimeError as error:
            if "No available agent" not in str(error) or time.monotonic() > until:
                raise
            time.sleep(1)


def on_cluster(settings: RunSettings) -> RunSettings:
    """Return the settings as the head runs them: on its own cluster, with no result in the job's temporary folder.

    Raises InputError for a path that would be in that folder, since Ray deletes it.
    """
    paths = {"directory": settings.directory, "supernet": settings.supernet, "data.path": settings.data.path}
    paths["data.autoencoder"] = settings.data.autoencoder
    paths |= {"features.path": settings.features.path, "features.reference": settings.features.reference}
    second = settings.confirm.features
    paths |= {"confirm.features.path": second.path, "confirm.features.reference": second.reference}
    paths["learning.features.path"] = settings.learning.features.path
    paths["training.start"] = settings.training.start
    for key, path in paths.items():
        if _would_be_lost(path):
            raise _lost(key, path, f"--set {key}=/shared/stepfront")
    if re.match(r"sqlite[^:/]*:///(?!/)", settings.storage or ""):
        raise _lost("storage", settings.storage, "--set storage=sqlite:////shared/stepfront.db")
    for name in settings.initial_plans:
        if name.startswith(FRONT_OF) and _would_be_lost(name.removeprefix(FRONT_OF)):
            raise _lost("initial_plans", name, f"{FRONT_OF}/shared/stepfront/digits")
    changes: dict[str, Any] = {
        "workers": settings_json(settings.workers) | {"address": settings.workers.address or "auto"}
    }
    if _would_be_lost(settings.data.cache) and not is_uri(settings.directory):
        changes["data"] = settings_json(settings.data) | {"cache": f"{settings.directory}/cache"}
    uri = settings.tracking.uri
    if uri is not None and re.match(r"sqlite:///(?!/)", uri):
        if is_uri(settings.directory):
            raise InputError(
                f"tracking.uri {uri!r} would be in the job's temporary folder, and {shown(settings.directory)} can "
                "hold no database: give an MLflow server, a path of the cluster's head, or null"
            )
        file = f"sqlite:///{settings.directory}/mlflow.db"
        changes["tracking"] = settings_json(settings.tracking) | {"uri": file}
    return validate(RunSettings, settings_json(settings) | changes)


def _would_be_lost(path: str | None) -> bool:
    """Return whether a path would lie in the job's temporary folder."""
    return path is not None and "://" not in path and not path.startswith("/")


def _lost(key: str, given: str | None, example: str) -> InputError:
    return InputError(
        f"{key} {given!r} would be in the job's temporary folder; give a path of the cluster's head, such as {example}"
    )


def pack(settings: RunSettings, folder: Path, supernet: Path | None = None) -> tuple[str, ...]:
    """Put what a job needs into `folder`, and return a phrase for each thing."""
    # copytree follows the links of a checkout, so the folder holds plain files alone.
    shutil.copytree(SOURCE_ROOT / PACKAGE, folder / PACKAGE, ignore=shutil.ignore_patterns("__pycache__", ".*"))
    save_settings(settings, folder / CONFIG_FILE)
    write_text(folder / REQUIREMENTS_FILE, "".join(f"{line}\n" for line in pinned_requirements()))
    sent = [f"{PACKAGE}/", CONFIG_FILE, REQUIREMENTS_FILE]
    if supernet is not None:
        (folder / SUPERNET_FOLDER).mkdir()
        for path in supernet_files(supernet):
            shutil.copyfile(path, folder / SUPERNET_FOLDER / path.name)
        sent.append(f"{SUPERNET_FOLDER}/ from {supernet}")
    return tuple(sent)


def pinned_requirements() -> list[str]:
    """Return this package's requirements at this machine's versions, without Ray, which the cluster has already."""
    try:
        requirements = importlib.metadata.requires("stepfront") or []
    except importlib.metadata.PackageNotFoundError:
        return []
    pins = {}
    for line in requirements:
        name = re.match(r"([A-Za-z0-9._-]+)(\[[^]]*\])?", line)
        if name is None or name[1] == "ray" or ("extra ==" in line and "postgres" not in line):
            continue
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            pins[name[0]] = importlib.metadata.version(name[1]).partition("+")[0]  # +cpu: a GPU node has another
    return [f"{name}=={version}" for name, version in sorted(pins.items())]


def entrypoint(settings: RunSettings, steps: Sequence[str], earlier: Sequence[str] = ()) -> str:
    """Return the job's command line."""
    search = " ".join([CONFIG_FILE, *(f"--from {shlex.quote(place)}" for place in earlier)])
    where = {"train": CONFIG_FILE, "search": search, "confirm": shlex.quote(settings.run_place)}
    return " && ".join(
        [
            "python -m stepfront.search.jobs.job_entrypoint",
            *(f"python -m stepfront {step} {where[step]}" for step in steps),
        ]
    )
