"""Check Ray, storage, MLflow, device and data for the settings of a run; only a deleted run in MLflow stays."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from stepfront.addresses import is_uri, redacted, shown
from stepfront.errors import InputError, first_line
from stepfront.search.checks.search_files import check_recorded_supernet
from stepfront.search.config import RunSettings
from stepfront.search.storage.run_location import copy_folder
from stepfront.sqlite_files import sqlite_file
from stepfront.trainers.data import ReadingReport
from stepfront.trainers.validation import settings_json, validate


@dataclass(frozen=True)
class Finding:
    """The result of one check."""

    what: str
    usable: bool
    detail: str
    """What was found, or why the check failed."""
    lines: tuple[str, ...] = ()
    """More to know: what the images are, also where they can't be used."""


def check_environment(settings: RunSettings | None) -> list[Finding]:
    """Return all findings; a check that raises is one that failed, with its reason."""
    settings_ = settings or RunSettings()
    remote_place = settings_.run_place if is_uri(settings_.directory) else None
    if remote_place is not None:
        local = {"directory": str(copy_folder(remote_place, "work").parent)}
        settings_ = validate(RunSettings, settings_json(settings_) | local)
        settings = settings_
    report = ReadingReport()
    checks: list[tuple[str, Callable[[], str]]] = [
        ("python", _python),
        ("device", lambda: _device(settings_)),
        ("disk", lambda: _disk(settings_)),
        ("ray", lambda: _ray(settings_)),
        ("storage", lambda: _storage(settings_)),
        ("mlflow", lambda: _mlflow(settings_)),
    ]
    if remote_place is not None:
        checks.append(("uri", lambda: _remote_place(remote_place)))
    if settings is not None:
        checks += [("parts", lambda: _parts(settings)), ("data", lambda: _data(settings, report))]
        checks.append(("supernet", lambda: _supernet(settings)))
        checks.append(("judge", lambda: _judge(settings)))
    findings = [run_check(what, check) for what, check in checks]
    read = tuple(report.lines()) if report.found else ()
    return [replace(finding, lines=read) if finding.what == "data" else finding for finding in findings]


def run_check(what: str, check: Callable[[], str]) -> Finding:
    """Run one check; an error of any kind is a finding."""
    try:
        return Finding(what, True, check())
    except Exception as error:
        return Finding(what, False, first_line(error, redacted(error)))


def _python() -> str:
    from stepfront.search.records.versions import versions

    return ", ".join(f"{name} {version}" for name, version in versions().items())


def _device(settings: RunSettings) -> str:
    import torch

    from stepfront.trainers.devices import device_name, pick_device

    # As `train` does: workers of a cluster have devices of their own.
    device = pick_device("auto" if settings.training.workers > 1 else settings.training.device)
    torch.zeros(1, device=device)
    return f"training on {device_name(device)}; {torch.cuda.device_count()} GPU(s)"


def _disk(settings: RunSettings) -> str:
    directory = settings.run_directory
    while not directory.exists():
        directory = directory.parent
    with tempfile.TemporaryFile(dir=directory):
        pass
    free = shutil.disk_usage(directory).free / 1e9
    if free < 1:
        raise InputError(f"only {free:.2f} GB free at {directory.resolve()}")
    return f"{free:.0f} GB free at {directory.resolve()}"


def _remote_place(uri: str) -> str:
    from stepfront.file_store import FileStore

    return f"{shown(uri)} answers, with {len(FileStore(uri).names())} files"


def _ray(settings: RunSettings) -> str:
    import ray

    from stepfront.search.execution.placement import worker_count
    from stepfront.search.execution.ray_session import ray_session

    with ray_session(settings.workers):
        count = worker_count(settings.workers)
        resources = ray.cluster_resources()
        return f"{count} worker(s) on {resources.get('CPU', 0):g} CPUs, {resources.get('GPU', 0):g} GPUs"


def _storage(settings: RunSettings) -> str:
    from stepfront.search.study.optuna_storage import opened_storage

    with tempfile.TemporaryDirectory() as scratch, opened_storage(settings.storage, Path(scratch)) as storage:
        return f"{settings.storage or 'SQLite'} can be written ({len(storage.get_all_studies())} studies)"


def _mlflow(settings: RunSettings) -> str:
    from stepfront.search.mlflow_runs.client import tracking_uri
    from stepfront.search.mlflow_runs.written import WrittenRun
    from stepfront.search.tracking.store_check import StoreCheck

    uri = tracking_uri(settings.tracking.uri)
    if uri is None:
        return "disabled (tracking.uri: null)"
    if (file := sqlite_file(uri)) is not None and not file.exists():
        return _new_store(file)
    checks = [StoreCheck(settings, WrittenRun(), trains, tries_a_run=True) for trains in (True, False)]
    for check in checks:
        check.found()
    return f"answers at {uri}; {checks[-1].found()}"


def _new_store(file: Path) -> str:
    """Return that a database can be made; raise InputError where its folder can't be."""
    folder = file.parent
    while not folder.exists():
        folder = folder.parent
    if not folder.is_dir() or not os.access(folder, os.W_OK):
        raise InputError(f"{file} can't be made: {folder} can't be written; give another tracking.uri, or null")
    return f"{file} will be made"


def _parts(settings: RunSettings) -> str:
    from stepfront.search.problem.user_parts import check_parts

    check_parts(settings)
    found = f"solver {settings.sampler.solver}, proxy {settings.screen.proxy}, features {settings.features.name}"
    return found + "".join(f", score {score.name} ({score.use})" for score in settings.scores)


def _data(settings: RunSettings, report: ReadingReport) -> str:
    from stepfront.search.problem.user_parts import check_user_scores
    from stepfront.trainers.data import load_data
    from stepfront.trainers.diffusion.conditioning import check_classes
    from stepfront.trainers.latents.autoencoder import load_autoencoder
    from stepfront.trainers.latents.encode import check_fit

    data = load_data(settings.data, report=report)
    check_user_scores(settings, data)
    check_classes(data, settings.network.image_classes)
    labels = f"{data.classes} classes" if data.labels is not None else "no labels"
    shape = f"{data.resolution}x{data.resolution}x{data.channels}"
    found = f"{len(data.images)} + {len(data.held_out_images)} images {shape}, {labels}, {data.fingerprint[:12]}"
    if settings.data.autoencoder is None:
        return found
    factor, channels = check_fit(data, load_autoencoder(Path(settings.data.autoencoder)))
    return f"{found}; latents {data.resolution // factor}x{data.resolution // factor}x{channels}"


def _supernet(settings: RunSettings) -> str:
    from stepfront.search.problem.load import load_problem, warn_of_bias
    from stepfront.trainers.networks.card import CARD_FILE

    place = settings.supernet_place
    if not is_uri(place) and not Path(place, CARD_FILE).exists():
        return f"none yet in {place}"
    if not is_uri(place):
        check_recorded_supernet(settings)
    found = load_problem(settings)
    warn_of_bias(found)
    groups = "" if found.card.groups is None else f"{len(found.card.groups.first)} groups of times, "
    return f"widths {', '.join(map(str, found.card.network.widths))}, {groups}digest {found.card.digest[:12]}"


def _judge(settings: RunSettings) -> str:
    """Return the result of each examination that lies beside the supernet."""
    from stepfront.search.scoring.second_judge import FOLDER
    from stepfront.trainers.metrics.judges import read_examinations

    place = settings.supernet_place
    found = [] if is_uri(place) else read_examinations(Path(place))
    second = [] if is_uri(place) else read_examinations(Path(place, FOLDER))
    if not found:
        return "not examined yet; `stepfront train` does it"
    used = [one for one in found if one.passed]
    if not used:
        raise InputError("; ".join(f"{one.features}: {', '.join(one.failures)}" for one in found))
    summary = "; ".join(one.summary for one in found)
    return summary + "".join(f"; second judge: {one.summary}" for one in second)
