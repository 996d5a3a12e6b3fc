"""Load the second judge of a confirmation: features that are independent of those that the search used."""

from __future__ import annotations

from collections.abc import Callable

import torch

from stepfront.errors import InputError
from stepfront.search.problem.problem import SearchProblem
from stepfront.trainers.metrics.features import Judge, PackedFeatures
from stepfront.trainers.metrics.judges import are_the_same, check_judge, prepare_judge

FOLDER = "second_judge"
"""Folder in the supernet's directory: two judges of one kind, with different seeds, have files of equal names."""

CANDIDATES = ("random", "degradations", "classifier")
"""What `confirm.features.name: auto` tries, in this order; `classifier` needs labels."""

FEWEST_IMAGES = 16
"""Images that a score needs at least, generated and real; below, means and covariances are noise."""


def load_second_judge(problem: SearchProblem, progress: Callable[[int, int], None] = lambda done, total: None) -> Judge:
    """Return the second judge; its network and reference are made where they are missing.

    It is examined as the search's own.  Raises InputError when it is the search's own judge, when these images can't
    have its features, and when it fails its examination and `confirm.features.examine` is `refuse`.
    """
    settings = problem.settings.confirm.features
    directory = problem.supernet.local / FOLDER
    check_judge(problem.data, settings, directory)
    others = [name for name in CANDIDATES if name != problem.features.settings.name]
    cpu = torch.device("cpu")
    judge = Judge(*prepare_judge(problem.data, settings, directory, cpu, progress, candidates=others))
    if are_the_same(problem.features, judge.features, problem.data):
        raise InputError(
            f"the second judge, confirm.features {judge.features.name!r}, is the same as the search's own, features "
            f"{problem.features.name!r}; a claim needs two: give others, or confirm.features.name=auto"
        )
    return judge


def check_not_second_judge(problem: SearchProblem, features: PackedFeatures) -> None:
    """Check that the second judge is independent of features that samplers learn to match; it is made where missing.

    Raises InputError where it is the same, and as `load_second_judge` does.
    """
    judge = load_second_judge(problem)
    if are_the_same(judge.features, features, problem.data):
        raise InputError(
            f"the second judge, confirm.features {judge.features.name!r}, is what samplers learn to match, "
            f"learning.features {features.name!r}; give one of them another network"
        )


def check_images(problem: SearchProblem, judge: Judge, images: int) -> None:
    """Raise InputError when there are fewer generated or real images than a judge needs."""
    for name, reference in ((problem.features.name, problem.reference), (judge.features.name, judge.reference)):
        real = reference.count or FEWEST_IMAGES  # files of others may not hold the number
        if min(images, real) < FEWEST_IMAGES:
            few = images < FEWEST_IMAGES
            which, where = ("generated", "confirm.images or --images") if few else ("real", "data.limit")
            raise InputError(
                f"{images if few else real} {which} images given; the judge {name!r} needs at least {FEWEST_IMAGES} "
                f"({where})"
            )
