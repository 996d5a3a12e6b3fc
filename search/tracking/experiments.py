"""Name the experiments of searches and trainings, by family and space or as `tracking.experiment` says."""

from __future__ import annotations

from stepfront.search.config import RunSettings
from stepfront.search.mlflow_runs.run_context import user_name


def search_experiment(settings: RunSettings) -> str:
    """Return the experiment of a search; charts and views of the UI are per experiment."""
    given = settings.tracking.experiment
    return _filled(given, settings) if given else f"stepfront {_space(settings)}"


def training_experiment(settings: RunSettings) -> str:
    """Return the experiment of a supernet's training, which is not that of its searches: charts are per experiment."""
    given = settings.tracking.experiment
    return f"{_filled(given, settings) if given else f'stepfront {settings.network.family}'}, training"


def _filled(template: str, settings: RunSettings) -> str:
    return template.format(user=user_name(), name=settings.name, space=_space(settings))


def _space(settings: RunSettings) -> str:
    """Return network family and search space in words, such as "unet, 10 stages"."""
    space = settings.space
    units = {"stages": f"{space.stages} stages", "steps": "each step", "cuts": f"{space.cuts} cuts"}[space.encoding]
    skip = {False: "", True: ", skip", "even": ", any number of steps"}[space.skip]
    return f"{settings.network.family}, {units}{skip}"
