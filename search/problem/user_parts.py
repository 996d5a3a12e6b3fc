"""Load the replaceable parts that the settings name, so that an unusable one fails before anything is written."""

from __future__ import annotations

from dataclasses import fields
from itertools import product
from pathlib import Path

import torch
from torch import Tensor

from stepfront.errors import InputError, first_line
from stepfront.plugins import OBSERVERS
from stepfront.search.algorithm.proxies import find_proxy
from stepfront.search.config import RunSettings
from stepfront.search.genomes.encodings import make_encoding
from stepfront.search.problem.evaluator_parts import user_scores
from stepfront.trainers.config import BEST, LEARNT, DiffusionSettings, FeatureSettings, SamplerSettings
from stepfront.trainers.data import ImageData
from stepfront.trainers.diffusion.schedule import noise_schedule, time_grid
from stepfront.trainers.diffusion.solvers import Coefficients, find_solver
from stepfront.trainers.metrics.feature_set import find_feature_set
from stepfront.trainers.metrics.features import check_features
from stepfront.trainers.metrics.user_scores import check_scores_on

SQUARE = ("states", "clean")
"""The coefficients that are a table of steps x steps."""


def check_parts(settings: RunSettings) -> None:
    """Load solver, proxy, feature sets, scores and observers of the settings.

    Raises InputError when one of them can't be imported or called, or when the solver's coefficients are unusable.
    """
    check_solvers(settings, settings.diffusion)
    if settings.screen.proxy != "none":
        find_proxy(settings.screen.proxy)
    for features in (settings.features, settings.confirm.features):
        _check_features(features)
    for score in user_scores(settings.scores):
        score.load()
    for observer in settings.tracking.observers:
        OBSERVERS.load(observer)


def check_user_scores(settings: RunSettings, data: ImageData) -> None:
    """Compute every score of the settings on real images, as many as a plan is scored on.

    Raises InputError where one of them fails, is not finite, or changes when it is repeated.
    """
    check_scores_on(
        user_scores(settings.scores), data.held_out_images, settings.evaluation.images, data.held_out_labels
    )


def check_second_features(settings: RunSettings, data: ImageData, directory: Path | None) -> None:
    """Try the features of the confirmation, where they are named, on these images.

    Features of the user's own are prepared for it in `directory`, the folder of the second judge; None: in a temporary
    folder.

    Raises InputError where the images can't have them, before a search that could not be confirmed.
    """
    if settings.confirm.features.name != "auto":
        check_features(data, settings.confirm.features, directory)


def check_solvers(settings: RunSettings, diffusion: DiffusionSettings) -> None:
    """Check the solver of the settings, and every solver and grid that plans choose from.

    The latter are checked on the fewest and the most steps that a plan has.  Raises InputError as `check_solver` does.
    """
    sampler, space = settings.sampler, settings.space
    check_solver(sampler, diffusion)
    if not space.searches_sampler:
        return
    fewest = 1 if space.skip is True else make_encoding(space, sampler.steps, (1.0,)).step_counts[0]
    for solver, grid in product(space.solvers or (sampler.solver,), space.grids or (sampler.grid,)):
        for steps in sorted({fewest, sampler.steps}):
            check_solver(sampler.model_copy(update={"solver": solver, "grid": grid, "steps": steps}), diffusion)


def check_solver(sampler: SamplerSettings, diffusion: DiffusionSettings) -> None:
    """Compute the solver's coefficients once, on the time grid of the settings.

    Raises InputError when the solver can't be imported, raises an error, or returns coefficients of another shape or
    kind than `Coefficients` has, that are not finite, or that read later steps.
    """
    if sampler.solver in (BEST, LEARNT):
        return  # one of ours
    solver, name = find_solver(sampler.solver), sampler.solver
    schedule = noise_schedule(diffusion)
    times = torch.from_numpy(time_grid(schedule, sampler.grid, sampler.steps).copy())
    try:
        table = solver(schedule, times)
        tables = {f.name: torch.as_tensor(getattr(table, f.name), dtype=torch.float64) for f in fields(Coefficients)}
    except Exception as error:  # a user's function can raise anything
        reason = f"{type(error).__name__}: {first_line(error)}"
        raise InputError(f"the solver {name!r} fails on {len(times)} steps ({reason}); see docs/plugins.md") from error
    for key, numbers in tables.items():
        _check_table(name, key, numbers, len(times))


def _check_table(solver: str, key: str, numbers: Tensor, steps: int) -> None:
    shape = (steps, steps) if key in SQUARE else (steps,)
    if numbers.shape != shape:
        given = tuple(numbers.shape)
        raise InputError(f"the solver {solver!r} returns {key} of shape {given} for {steps} steps, not {shape}")
    if not numbers.isfinite().all():
        raise InputError(f"the solver {solver!r} returns {key} with values that are not finite; return finite ones")
    if key in SQUARE and numbers.triu(1).any():
        raise InputError(f"the solver {solver!r} returns {key} that read later steps; leave zeros above the diagonal")


def _check_features(settings: FeatureSettings) -> None:
    if settings.name == "auto":
        return
    try:
        find_feature_set(settings)
    except InputError:
        raise
    except Exception as error:
        reason = f"{type(error).__name__}: {first_line(error)}"
        raise InputError(f"the feature set {settings.name!r} can't be made ({reason}); see docs/plugins.md") from error
