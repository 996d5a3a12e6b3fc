"""Load the replaceable parts that the settings name, so that an unusable one fails before anything is written."""

from __future__ import annotations

import numpy as np

from stepfront.errors import InputError, first_line
from stepfront.search.algorithm.proxies import find_proxy
from stepfront.search.config import RunSettings
from stepfront.trainers.config import DiffusionSettings, FeatureSettings, SamplerSettings
from stepfront.trainers.diffusion.schedule import noise_schedule, time_grid
from stepfront.trainers.diffusion.solvers import find_solver
from stepfront.trainers.metrics.feature_set import find_feature_set

COEFFICIENTS = ("alpha", "sigma", "a", "b", "c", "d")


def check_parts(settings: RunSettings) -> None:
    """Load solver, proxy and feature sets of the settings.

    Raises InputError when one of them can't be imported or called, or when the solver's coefficients are unusable.
    """
    check_solver(settings.sampler, settings.diffusion)
    if settings.screen.proxy != "none":
        find_proxy(settings.screen.proxy)
    for features in (settings.features, settings.confirm.features):
        _check_features(features)


def check_solver(sampler: SamplerSettings, diffusion: DiffusionSettings) -> None:
    """Compute the solver's coefficients once, on the time grid of the settings.

    Raises InputError when the solver can't be imported, raises an error, or returns coefficients that are not finite
    or not one per step.
    """
    solver, name = find_solver(sampler.solver), sampler.solver
    schedule = noise_schedule(diffusion)
    times = time_grid(schedule, sampler.grid, sampler.steps)
    try:
        table = solver(schedule, times)
        rows = {key: np.asarray(getattr(table, key), dtype=np.float64) for key in COEFFICIENTS}
    except Exception as error:  # a user's function can raise anything
        reason = f"{type(error).__name__}: {first_line(error)}"
        raise InputError(f"the solver {name!r} fails on {len(times)} steps ({reason}); see docs/plugins.md") from error
    for key, row in rows.items():
        if row.shape != times.shape:
            raise InputError(
                f"the solver {name!r} returns {key} of shape {row.shape} for {len(times)} steps; return one "
                f"coefficient per step, shape {times.shape}"
            )
        if not np.isfinite(row).all():
            raise InputError(f"the solver {name!r} returns {key} with values that are not finite; return finite ones")


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
