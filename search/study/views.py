"""View a ledger as tables: one row per trial, and one row per complete trial with the progress of the search."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from optuna.trial import TrialState

from stepfront.errors import InputError
from stepfront.search.algorithm.trials import GENOME, LEARNT, ORIGIN, PARENTS, Proposal, is_fit, result_of
from stepfront.search.pareto import front_size_history
from stepfront.search.records.plan_rows import NO_SAMPLERS, fitted, fitted_weights_of, plan_columns
from stepfront.search.study.ledger import Ledger
from stepfront.tables.parquet import read_table
from stepfront.tables.schema import PART_SECONDS, TRIAL_COLUMNS, TRIALS
from stepfront.trainers.diffusion.learnt_sampler import LearntSampler
from stepfront.trainers.diffusion.plan import Plan
from stepfront.trainers.evaluation import Evaluation


def trials_table(
    ledger: Ledger, plan_of: Callable[[str], Plan], samplers: Mapping[str, LearntSampler] = NO_SAMPLERS
) -> pd.DataFrame:
    """Return one row per finished trial, in the order of their numbers.

    `plan_of` reads a genome; `samplers` are the learnt ones by digest.
    """
    generations = {t.number: i // ledger.sampler.population for i, t in enumerate(ledger.complete)}
    rows = []
    last = 0
    own = own_scores(ledger.objectives)
    for trial in ledger.trials:
        if not trial.state.is_finished():
            continue
        last = generations.get(trial.number, last)
        genome = trial.user_attrs[GENOME]
        proposed = {"origin": trial.user_attrs[ORIGIN], "parents": list(trial.user_attrs[PARENTS])}
        row = {"trial": trial.number, "generation": last, **proposed, "genome": genome}
        plan = fitted(plan_of(genome), trial.user_attrs.get(LEARNT, ""), samplers)
        row |= plan_columns(plan) | _result_columns(result_of(trial), own)
        row["state"] = "complete" if trial.state == TrialState.COMPLETE else "failed"
        rows.append(row | {"violation": float(sum(max(0.0, v) for v in trial.constraints.values()))})
    return _table(rows, own)


def own_scores(objectives: Sequence[str]) -> list[str]:
    """Return the objectives that are a user's own scores: those that are no column of the schema."""
    return [name for name in objectives if name not in TRIAL_COLUMNS]


def _table(rows: list[dict[str, Any]], own: Sequence[str]) -> pd.DataFrame:
    """Return rows as a table of trials; ValueError when a row's keys are not the columns of the schema."""
    columns = [*TRIAL_COLUMNS, *own]
    for row in rows:
        if differing := row.keys() ^ set(columns):
            raise ValueError(f"rows and schema of {TRIALS} differ in: {', '.join(sorted(differing))}")
    return pd.DataFrame(rows, columns=columns)


def evaluated_row(plan: Plan, evaluation: Evaluation) -> dict[str, Any]:
    """Return a row of the trials' table for a plan that no search proposed."""
    row: dict[str, Any] = {"trial": -1, "generation": -1, "origin": "baseline", "parents": [], "genome": ""}
    row |= plan_columns(plan) | _result_columns(evaluation.record(), list(evaluation.scores))
    return row | {"state": "failed" if evaluation.error else "complete", "violation": 0.0}


def _result_columns(result: Mapping[str, Any], own: Sequence[str]) -> dict[str, Any]:
    """Return the columns of an evaluation's result, `own` scores last; what it lacks is NaN, 0 or ""."""
    return {
        **{name: _number(result.get(name)) for name in ("paired", "fid", "gflops", "latency_ms", "seconds", "elapsed")},
        **{name: _number(result.get(name)) for name in PART_SECONDS},
        **{name: float(result.get(name, 0.0)) for name in ("gflops_saved", "prefix_mb")},
        **{name: int(result.get(name, 0)) for name in ("images", "noise_seed", "calls", "calls_saved")},
        "prefix_states": int(result.get("prefix_states", 0)),
        **{name: result.get(name, "") for name in ("features", "worker", "error", "device")},
        **{name: _number(result.get(name)) for name in own},
    }


def _number(value: Any) -> float:
    return float("nan") if value is None else float(value)


def progress_table(ledger: Ledger) -> pd.DataFrame:
    """Return one row per complete trial, in the order of their results: how far the search had come by then."""
    complete = ledger.complete
    scores, volumes = ledger.progress.counted_scores(), ledger.progress.hypervolumes()
    results = [result_of(trial) for trial in complete]
    work = np.cumsum([r["gflops"] * r["images"] for r in results]) + _learning_before(ledger)
    return pd.DataFrame(
        {
            "evaluation": np.arange(1, len(complete) + 1),
            "trial": [trial.number for trial in complete],
            "generation": np.arange(len(complete)) // ledger.sampler.population,
            "hypervolume": volumes,
            "features": [r.get("features", "") for r in results],
            "front_size": front_size_history(scores),
            "best_fid": np.fmin.accumulate(scores[:, 0]),
            "network_gflops": work,
            "seconds": [r["elapsed"] for r in results],
        }
    )


def _learning_before(ledger: Ledger) -> np.ndarray:
    """Return, per complete trial, the network GFLOPs of learning in the pauses that came before its result."""
    searched = np.cumsum([not is_fit(trial) for trial in ledger.trials])
    # The fits of a pause come after it, with as many searched trials as it had.
    reached = [searched[trial.number] + is_fit(trial) for trial in ledger.complete]
    rounds = ledger.fit_rounds.rounds
    return np.array([sum(1000 * (one.tflops or 0.0) for one in rounds if one.at < count) for count in reached], float)


def recorded_trials(trials: pd.DataFrame) -> dict[int, tuple[Proposal, dict[str, Any]]]:
    """Return the proposal and the result of each trial in a table, as `Ledger.restore` takes them."""
    found, fits = {}, set(trials["trial"][trials["origin"] == "fit"])
    for row in trials.to_dict("records"):
        learnt, parents = (
            str(row.get("learnt") or "") if row["origin"] == "fit" else "",
            tuple(map(int, row["parents"])),
        )
        if fits.isdisjoint(parents):  # else the weights are beside a sampler that was fitted, not that of the genome
            learnt = fitted_weights_of(learnt) or learnt
        proposal = Proposal(str(row["genome"]), str(row["origin"]), parents, learnt)
        result = {"error": str(row["error"]), "elapsed": _json_value(row["elapsed"])}
        if row["state"] == "complete":
            own = [str(name) for name in row if name not in TRIAL_COLUMNS]
            names = [*(f.name for f in fields(Evaluation)), "worker", "elapsed", *own]
            result |= {name: _json_value(row[name]) for name in names if name in row}  # an older table has fewer
        found[int(row["trial"])] = (proposal, result)
    return found


def recorded_numbers(directory: Path) -> set[int]:
    """Return the trials of a search's table; none where it is missing or damaged, as it can be made again."""
    with contextlib.suppress(InputError):
        return set(map(int, read_table(directory / TRIALS)["trial"]))
    return set()


def _json_value(value: Any) -> Any:
    """Return a table's value as JSON has it: Python's own type, and None for a number that is not finite."""
    value = value.item() if isinstance(value, np.generic) else value
    return None if isinstance(value, float) and not np.isfinite(value) else value
