"""Change the settings of a search so that it continues: more budget, and a larger space."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from stepfront.errors import InputError
from stepfront.search.config import RunSettings, SpaceSettings, each_once, settings_from
from stepfront.search.records.run_directory import resume_settings
from stepfront.search.settings.overrides import override_key
from stepfront.search.storage.lock import directory_lock
from stepfront.search.study.budget import usage_of_study
from stepfront.trainers.validation import settings_json, validate
from stepfront.trainers.variant import Variant

STEPS = "sampler.steps"


def extended_settings(
    path: Path, trials: int | None, minutes: float | None, tflops: float | None, changes: Sequence[str] = ()
) -> RunSettings:
    """Return the settings of the search in `path` with more budget than it has used so far.

    Only the limits that are given apply.  `changes` are `key=value` overrides that make its space larger.  Raises
    InputError when no budget is given, when no search was begun in `path`, and for changes that would take plans away
    or change what a score is.
    """
    settings = resume_settings(path)
    if trials is None and minutes is None and tflops is None:
        raise InputError("no additional budget was given; possible: --trials, --minutes, --tflops")
    larger = _with_changes(settings, changes) if changes else settings
    # From the study: the facts beside it may be older, where a driver was killed.
    with directory_lock(settings.search_directory):  # a running driver has the storage to itself
        used = usage_of_study(settings.storage, settings.search_directory)
    budget = {
        "trials": trials and used.trials + trials,
        "minutes": minutes and used.seconds / 60 + minutes,
        "tflops": tflops and used.tflops + tflops,
        "patience": None,
    }
    return validate(RunSettings, settings_json(larger) | {"budget": budget})


def _with_changes(settings: RunSettings, changes: Sequence[str]) -> RunSettings:
    """Return the settings with a larger space.  Raises InputError for any other change."""
    space = [f"space.{name}" for name in SpaceSettings.model_fields]
    for change in changes:
        if (key := override_key(change)) not in (STEPS, "space", *space):
            raise InputError(
                f"extend can't change {key}; possible: --trials, --minutes, --tflops, {STEPS}, {', '.join(space)} "
                "(anything else: a search of another name, with --from)"
            )
    larger = settings_from(settings_json(settings), each_once(changes))
    if larger.sampler.steps < settings.sampler.steps:
        raise InputError(
            f"--set {STEPS}={larger.sampler.steps} is fewer than the {settings.sampler.steps} that this search has; "
            "possible: as many or more"
        )
    if lost := sorted(set(_choices(settings)) - set(_choices(larger)), key=str):
        raise InputError(
            f"--set space.variants lacks {', '.join(map(str, lost))}, which this search has; possible: all of "
            f"{', '.join(sorted(map(str, _choices(settings))))}, and more"
        )
    return larger


def _choices(settings: RunSettings) -> tuple[Variant, ...]:
    """Return what a step chooses from."""
    return settings.space.listed or tuple(map(Variant, settings.network.widths))
