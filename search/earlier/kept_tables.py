"""Name earlier searches in the settings, and keep what this search needs of them in its own directory."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from stepfront.arrays import Array
from stepfront.errors import InputError
from stepfront.files import write_atomically
from stepfront.search.config import RunSettings
from stepfront.search.earlier.usable_plans import marked_rows, scored_trials
from stepfront.search.records.run_directory import find_search
from stepfront.search.records.settings_paths import FRONT_OF
from stepfront.tables.parquet import read_table, write_table
from stepfront.tables.schema import FRONT, TRIALS
from stepfront.trainers.diffusion.schedule import noise_schedule, time_grid
from stepfront.trainers.validation import settings_json, validate

FRONT_PLANS = 16
"""Number of plans that `--from` takes from an earlier front."""

_STEPS_FILE = "steps.npz"


def warm_settings(settings: RunSettings, searches: Sequence[Path]) -> RunSettings:
    """Return the settings that start from earlier searches.

    Raises InputError where one of them is no search, or has nothing that this one can use.
    """
    if not searches:
        return settings
    fronts = {}
    for path in searches:
        directory = find_search(path)[0].absolute()
        if directory == settings.search_directory.absolute():
            raise InputError(f"--from {path} is the search itself; to continue it: stepfront resume {path}")
        check_usable(directory, settings)
        fronts[f"{FRONT_OF}{directory}"] = FRONT_PLANS
    return validate(RunSettings, settings_json(settings) | {"initial_plans": fronts | settings.initial_plans})


def check_usable(directory: Path, settings: RunSettings) -> None:
    """Raise InputError where the trials of the search in `directory` teach a search of these settings nothing."""
    trials = scored_trials(directory)
    if not settings.space.variants:
        trials = trials[~marked_rows(trials)]
    if not len(trials):
        raise InputError(
            f"--from {directory}: none of its trials can be used: none is complete without marks (r, u or d)"
        )
    if settings.space.skip != "even" and not any(_takes_all_steps(widths) for widths in trials["widths"]):
        raise InputError(
            f"--from {directory}: all its plans skip steps, which plans of space.skip={settings.space.skip} do not; "
            "give a search of more plans, or set space.skip=even"
        )


def _takes_all_steps(widths: Sequence[float]) -> bool:
    return all(width > 0 for width in widths)


def keep_earlier(settings: RunSettings, directory: Path) -> dict[str, Path]:
    """Copy front and trials of each search that this one starts from into its own directory, once; return where.

    The search can then be resumed with the same initial plans and the same model when those searches have moved,
    continued or been deleted.
    """
    kept = {}
    for name in settings.initial_plans:
        if not name.startswith(FRONT_OF):
            continue
        place = directory / "earlier" / hashlib.sha256(name.encode()).hexdigest()[:12]
        source = Path(name.removeprefix(FRONT_OF))
        if not (place / TRIALS).exists() and not (place / FRONT).exists():
            _keep_steps(source, place)
        for table in (TRIALS, FRONT):
            if not (place / table).exists():
                write_table(read_table(source / table), place / table)
        kept[name] = place
    return kept


@dataclass(frozen=True)
class EarlierSteps:
    """What the steps of an earlier search met.

    `half_log_snr` [N] belongs to `times` [N] ascending, `gap` [steps, widths] to `gap_half_log_snr` [steps]; a search
    without a gap table has an empty one.
    """

    name: str
    times: Array
    half_log_snr: Array
    gap: Array
    gap_half_log_snr: Array
    widths: Array

    def at(self, times: Sequence[float]) -> Array:
        """Return the half log-SNR at times of the search, [steps]."""
        return np.interp(np.asarray(times, dtype=np.float64), self.times, self.half_log_snr)


def read_steps(place: Path) -> EarlierSteps | None:
    """Return what is kept in `place` of an earlier search's steps; None where an earlier version kept nothing."""
    if not (place / _STEPS_FILE).exists():
        return None
    with np.load(place / _STEPS_FILE, allow_pickle=False) as stored:
        arrays = {name: stored[name] for name in stored}
    return EarlierSteps(str(arrays.pop("name")), **arrays)


def _keep_steps(source: Path, place: Path) -> None:
    """Write what the steps of the search in `source` met; nothing where its settings can't be read."""
    try:
        settings = find_search(source)[1]
    except InputError:
        return
    schedule = noise_schedule(settings.diffusion)
    times = np.arange(schedule.steps, dtype=np.float64)
    widths = np.array(settings.network.widths)
    gap, grid = _gap_of(source), time_grid(schedule, settings.sampler.grid, settings.sampler.steps)
    if gap.shape != (len(grid), len(widths)):  # that of variants has other columns
        gap = np.zeros((0, len(widths)))
    arrays = {
        "name": np.array(settings.name),
        "times": times,
        "half_log_snr": schedule.half_log_snr(times),
        "gap": gap,
        "gap_half_log_snr": schedule.half_log_snr(np.asarray(grid))[: len(gap)],
        "widths": widths,
    }

    def write(part: Path) -> None:
        with open(part, "wb") as file:
            np.savez(file, allow_pickle=False, **arrays)

    place.mkdir(parents=True, exist_ok=True)
    write_atomically(place / _STEPS_FILE, write)


def _gap_of(source: Path) -> Array:
    try:
        with np.load(source / "gap.npz", allow_pickle=False) as stored:
            return np.asarray(stored["gap"], dtype=np.float64)
    except (OSError, ValueError, KeyError, EOFError):
        return np.zeros((0, 0))
