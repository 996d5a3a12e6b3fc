"""Name earlier searches in the settings, and keep what this search needs of them in its own directory."""

from __future__ import annotations

import hashlib
import os
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from stepfront.addresses import is_uri
from stepfront.arrays import Array
from stepfront.errors import InputError
from stepfront.files import read_json, write_atomically, write_json
from stepfront.search.config import RunSettings
from stepfront.search.earlier.earlier_samplers import keep_samplers
from stepfront.search.earlier.usable_plans import marked_rows, scored_trials
from stepfront.search.records.run_directory import find_search, resume_settings, written_settings
from stepfront.search.records.settings_paths import FRONT_OF
from stepfront.tables.parquet import read_table, write_table
from stepfront.tables.schema import FRONT, TRIALS
from stepfront.trainers.diffusion.schedule import noise_schedule, time_grid
from stepfront.trainers.validation import settings_json, validate

FRONT_PLANS = 16
"""Number of plans that `--from` takes from an earlier front."""

_STEPS_FILE = "steps.npz"
_NAMES = "names.json"
"""Folders of the copies by names that earlier searches have had since."""


def warm_settings(settings: RunSettings, searches: Sequence[Path], fresh: bool = False) -> RunSettings:
    """Return the settings that start from earlier searches.

    Those that this search was begun with may have been deleted since, unless it starts over (`fresh`): it keeps what it
    needs of them.  Raises InputError where one of them is no search, or has nothing that this one can use.
    """
    if not searches:
        return settings
    begun = None if fresh else _begun(settings)
    kept = {} if begun is None else {_place(name): name for name in _fronts(begun)}
    fronts = {}
    for path in searches:
        if (known := kept.get(_place(str(path)))) is not None:
            fronts[known] = FRONT_PLANS
            continue
        directory = find_search(path)[0].absolute()
        if directory == settings.search_directory.absolute():
            raise InputError(f"--from {path} is the search itself; to continue it: stepfront resume {path}")
        check_usable(directory, settings)
        fronts[f"{FRONT_OF}{directory}"] = FRONT_PLANS
    return validate(RunSettings, settings_json(settings) | {"initial_plans": fronts | settings.initial_plans})


def begun_settings(settings: RunSettings) -> RunSettings:
    """Return the settings with the earlier searches that their search was begun with, where it was begun.

    Initial plans come in the order that they were begun in, with the numbers of `settings` where these name them.
    Raises InputError where they name another one: the trials so far would be said to have learnt from it.
    """
    if (begun := _begun(settings)) is None:
        return settings
    kept, given = ({_place(name): name for name in _fronts(one)} for one in (begun, settings))
    if other := sorted(_run_name(place) for place in given.keys() - kept.keys()):
        began = _begun_with(begun) if kept else "no earlier search"
        raise InputError(
            f"this search was begun with {began}, so it can't start from {', '.join(other)}; continue it as it is "
            f"(stepfront resume {settings.run_directory}), choose another name, or start over with --fresh"
        )
    wanted = {given.get(place, name): begun.initial_plans[name] for place, name in kept.items()}
    wanted = {kept.get(_place(name), name): count for name, count in (wanted | settings.initial_plans).items()}
    # The first generation comes in the order that it was begun in.
    in_order = {name: wanted[name] for name in begun.initial_plans if name in wanted}
    return validate(RunSettings, settings_json(settings) | {"initial_plans": in_order | wanted})


def _begun(settings: RunSettings) -> RunSettings | None:
    """Return the settings that their search was begun with; None where none was, or they can't be read."""
    try:
        return resume_settings(settings.search_directory, checked=False)
    except InputError:
        return None


def earlier_names(settings: RunSettings) -> str:
    """Return the names of the runs whose searches these settings start from, in alphabetical order, or `none`."""
    return ", ".join(sorted(_run_name(_place(name)) for name in _fronts(settings))) or "none"


def continuing(settings: RunSettings) -> str:
    """Return a line that names the earlier searches with which a search continues."""
    return f"continues with {_begun_with(settings)}"


def _begun_with(settings: RunSettings) -> str:
    several = len(_fronts(settings)) > 1
    return f"the earlier search{'es' * several} {earlier_names(settings)}"


def _place(name: str) -> str:
    """Return the directory of the search in `front:SEARCH`, which may name its run."""
    path = Path(os.path.realpath(name.removeprefix(FRONT_OF)))
    return str(path if path.name == "search" else path / "search")


def _run_name(place: str) -> str:
    return Path(place).parent.name


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
    for name in _fronts(settings):
        place, source = _folder_of(name, settings, directory), Path(name.removeprefix(FRONT_OF))
        if not (place / TRIALS).exists() and not (place / FRONT).exists():
            _keep_steps(source, place)
            keep_samplers(source, place)
        for table in (TRIALS, FRONT):
            if not (place / table).exists():
                write_table(read_table(source / table), place / table)
        kept[name] = place
    return kept


def _fronts(settings: RunSettings) -> list[str]:
    return [name for name in settings.initial_plans if name.startswith(FRONT_OF)]


def _folder_of(name: str, settings: RunSettings, directory: Path) -> Path:
    """Return the folder of the copies of an earlier search.

    It is called by the name at first.  The name changes where both searches are moved together; the settings that the
    search wrote last have the one of before.  So the new one is noted beside the folders.
    """
    place = directory / "earlier"
    noted: dict[str, str] = read_json(place / _NAMES, "list of earlier searches") if (place / _NAMES).exists() else {}

    def folder(known: str) -> str:
        return noted.get(known) or hashlib.sha256(known.encode()).hexdigest()[:12]

    written = written_settings(directory)
    if not (place / folder(name)).exists() and written is not None:
        at = _from_the_run(name, settings)
        before = next((one for one in _fronts(written) if _from_the_run(one, written) == at), name)
        if (place / folder(before)).exists():
            noted[name] = folder(before)
            write_json(place / _NAMES, noted)
    return place / folder(name)


def _from_the_run(name: str, settings: RunSettings) -> str:
    """Return the path of an earlier search relative to the run, which stays where both are moved together."""
    path = name.removeprefix(FRONT_OF)
    return path if is_uri(settings.directory) else os.path.relpath(path, settings.run_directory)


@dataclass(frozen=True)
class EarlierSteps:
    """What the steps of an earlier search met.

    `half_log_snr` [N] belongs to `times` [N] ascending, `gap` [steps, widths] to `gap_half_log_snr` [steps] and
    `widths`; a search without a gap table of widths has an empty one.
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
    gap, at, widths = _gap_of(source, settings)
    arrays = {
        "name": np.array(settings.name),
        "times": times,
        "half_log_snr": schedule.half_log_snr(times),
        "gap": gap,
        "gap_half_log_snr": schedule.half_log_snr(at),
        "widths": widths,
    }

    def write(part: Path) -> None:
        with open(part, "wb") as file:
            np.savez(file, allow_pickle=False, **arrays)

    place.mkdir(parents=True, exist_ok=True)
    write_atomically(place / _STEPS_FILE, write)


def _gap_of(source: Path, settings: RunSettings) -> tuple[Array, Array, Array]:
    """Return the gap table [steps, widths] of the search in `source`, its times and its widths; empty where unknown.

    Columns of steps that run more or less than a width are left out.
    """
    try:
        with np.load(source / "gap.npz", allow_pickle=False) as stored:
            found = {name: stored[name] for name in stored}
        gap = np.asarray(found["gap"], dtype=np.float64)
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        gap, found = np.zeros((0, 0)), {}
    if {"times", "widths", "marks"} <= found.keys() and (plain := found["marks"] == "").any():
        return gap[:, plain], found["times"], found["widths"][plain]
    # A table of an earlier version does not say what it is of: it is used where the settings leave no doubt.
    grid = np.array(time_grid(noise_schedule(settings.diffusion), settings.sampler.grid, settings.sampler.steps))
    widths = np.array(settings.network.widths)
    if settings.sampler.learnt or settings.space.variants or gap.shape != (len(grid), len(widths)):
        return np.zeros((0, len(widths))), grid[:0], widths
    return gap, grid, widths
