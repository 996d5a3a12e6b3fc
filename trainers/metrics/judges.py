"""Choose the feature set that judges a search, and keep the result of its examination beside the supernet."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from scipy.spatial.distance import pdist

from stepfront.errors import InputError
from stepfront.files import write_json
from stepfront.trainers.config import FeatureSettings
from stepfront.trainers.data import ImageData, to_float
from stepfront.trainers.metrics.examination import Examination, check_enough_images, examine
from stepfront.trainers.metrics.feature_set import Progress
from stepfront.trainers.metrics.features import PackedFeatures, check_features, prepare_features
from stepfront.trainers.metrics.fid import Reference
from stepfront.trainers.validation import read_result

CANDIDATES = ("degradations", "random")
"""What `features.name: auto` tries, in this order; docs/judges.md has the measurements behind it."""


_COMPARED_IMAGES = 16


def check_judge(data: ImageData, settings: FeatureSettings, directory: Path | None = None) -> None:
    """Raise InputError when these images can't have the settings' judge, before anything is trained.

    Features of the user's own are prepared for it in `directory`; None: in a temporary folder.
    """
    if settings.examine != "skip":
        check_enough_images(data)
    if settings.name != "auto":
        check_features(data, settings, directory)


def prepare_judge(
    data: ImageData,
    settings: FeatureSettings,
    directory: Path,
    device: torch.device,
    progress: Progress = lambda done, total: None,
    candidates: Sequence[str] = CANDIDATES,
) -> tuple[PackedFeatures, Reference]:
    """Return the feature network and the reference statistics of the judge, examined once per dataset.

    `features.name: auto` takes the first of the `candidates` that passes its examination.  Raises InputError when none
    passes, and when the named features fail and `features.examine` is `refuse`.
    """
    if settings.name != "auto":
        prepared = prepare_features(data, settings, directory, device, progress)
        _check(examination_of(prepared, data, directory, device, settings.examine != "skip"), settings)
        return prepared
    failed = []
    for name in candidates:
        candidate = settings.model_copy(update={"name": name})
        try:
            check_features(data, candidate)
        except InputError as error:
            failed.append(f"{name}: {error}")
            continue
        prepared = prepare_features(data, candidate, directory, device, progress)
        result = examination_of(prepared, data, directory, device, settings.examine != "skip")
        if result is None or result.passed:
            return prepared
        failed.append(f"{name}: {'; '.join(result.failures)}")
        logging.getLogger("stepfront").warning("features %s are not used: %s", name, "; ".join(result.failures))
    raise InputError(
        f"no feature set can judge these images ({' | '.join(failed)}); give features of your own (features.path, or "
        "docs/plugins.md), or more images"
    )


def examination_of(
    prepared: tuple[PackedFeatures, Reference], data: ImageData, directory: Path, device: torch.device, wanted: bool
) -> Examination | None:
    """Return the examination of a feature set on these images, made and saved where it is missing; None if unwanted."""
    if not wanted:
        return None
    packed, reference = prepared
    path = _examination_file(directory, packed)
    made_from = {"digest": packed.digest, "fingerprint": data.fingerprint}
    if path.exists():
        found = _read_examination(path, made_from)
        if found is not None:
            return found
    result = examine(packed.unpack(device), reference, data)
    write_json(path, asdict(result) | {"made_from": made_from})
    return result


def read_examinations(directory: Path) -> list[Examination]:
    """Return all examinations that a supernet's directory holds, by the name of the features.

    Those that another version of stepfront has written otherwise are left out, with a warning.
    """
    found = [_read_examination(path) for path in sorted(directory.glob("examination-*.json"))]
    return sorted((one for one in found if one is not None), key=lambda one: one.features)


def find_examination(directory: Path, features: PackedFeatures) -> Examination | None:
    """Return the examination of these features that a supernet's directory holds; None where it holds none."""
    path = _examination_file(directory, features)
    return _read_examination(path) if path.exists() else None


def _examination_file(directory: Path, features: PackedFeatures) -> Path:
    return directory / f"examination-{features.digest[:12]}.json"


def _read_examination(path: Path, made_from: object = None) -> Examination | None:
    return read_result(path, "examination of features", Examination, made_from)


def are_the_same(first: PackedFeatures, second: PackedFeatures, data: ImageData) -> bool:
    """Return whether two judges put the same distances between real images.

    Equal features differ in their digest where they were made with another number of threads, or stored otherwise.
    """
    if first.digest == second.digest:
        return True
    images, cpu = to_float(data.images[:_COMPARED_IMAGES]), torch.device("cpu")
    ours, theirs = (pdist(packed.unpack(cpu)(images)) for packed in (first, second))
    return bool(np.allclose(ours, theirs, rtol=1e-3))


def _check(result: Examination | None, settings: FeatureSettings) -> None:
    if result is None or result.passed:
        return
    reasons = "; ".join(result.failures)
    if settings.examine == "refuse":
        raise InputError(
            f"features {settings.name!r} failed their examination on these images: {reasons}; give features.name=auto, "
            "other features, or features.examine=warn"
        )
    logging.getLogger("stepfront").warning("features %s failed their examination: %s", settings.name, reasons)
