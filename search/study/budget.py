"""The budget of a search: its limits, and what a study says has been used of them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from stepfront.errors import InputError
from stepfront.search.algorithm.trials import RESULT
from stepfront.search.study.optuna_storage import close_storage, open_storage, study_name


@dataclass(frozen=True)
class Limits:
    """When a search ends.  None is no limit."""

    trials: int | None = None
    seconds: float | None = None
    tflops: float | None = None
    patience: int | None = None


@dataclass(frozen=True)
class Spent:
    """What a search has used of its budget."""

    trials: int
    seconds: float
    tflops: float


def spent_so_far(url: str | None, directory: Path) -> Spent:
    """What the study in `directory` says.  InputError when there is none."""
    storage, name = open_storage(url, directory), study_name(url, directory)
    try:
        trials = storage.get_all_trials(storage.get_study_id_from_name(name), deepcopy=False)
    except KeyError:
        raise InputError(
            f"no study of the search in {directory}; it was never begun, or its storage is another"
        ) from None
    finally:
        close_storage(storage)
    results = [trial.user_attrs[RESULT] for trial in trials if RESULT in trial.user_attrs]
    scored = [result for result in results if not result.get("error")]
    return Spent(
        trials=sum(trial.state.is_finished() for trial in trials),
        seconds=max((result.get("elapsed", 0.0) for result in results), default=0.0),
        tflops=sum(result["gflops"] * result["images"] for result in scored) / 1000,
    )
