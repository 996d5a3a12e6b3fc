"""Fitted plans as trials: stored with their sampler, listed as such, and restored from the tables."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from stepfront.errors import InputError
from stepfront.search.algorithm.trials import GENOME, Proposal
from stepfront.search.objectives import Objectives
from stepfront.search.records.front import front_table, with_confirmation
from stepfront.search.study.views import recorded_trials, trials_table
from stepfront.trainers.diffusion.learnt_sampler import LearntSampler
from stepfront.trainers.diffusion.plan import Plan
from stepfront.trainers.evaluation import Evaluation
from tests.search.study.test_ledger import make_ledger, run

SAMPLER = LearntSampler("ddim", (999.0, 40.5), (990.0, 41.0))
SAMPLERS = {SAMPLER.digest: SAMPLER}


def plan_of(genome: str) -> Plan:
    return Plan((999.0, 0.0), (0.5, 1.0), "ddim")


def test_a_fitted_plan_is_a_trial_of_its_own(tmp_path: Path) -> None:
    ledger = run(make_ledger("sqlite", tmp_path), most=2)
    genome = ledger.trials[1].user_attrs[GENOME]
    cost = ledger.trials[1].values[1]
    evaluation = Evaluation(0.01, cost, 1.0, "made", 100, 0)
    synced: list[int] = []
    ledger.sync = lambda: synced.append(ledger.finished)  # type: ignore[method-assign]
    assert ledger.add_fit(Proposal(genome, "fit", (1,), SAMPLER.digest), evaluation) == 2
    assert synced == [3]
    table = trials_table(ledger, plan_of, SAMPLERS)
    row = table.iloc[2]
    assert (row["origin"], row["parents"], row["genome"], row["learnt"]) == ("fit", [1], genome, SAMPLER.digest)
    assert (row["times"], row["gflops"], row["plan"]) == ([999.0, 40.5], cost, table.iloc[1]["plan"])
    assert list(table["learnt"][:2]) == ["", ""]
    again = make_ledger("memory", tmp_path)
    again.restore(recorded_trials(table))
    pd.testing.assert_frame_equal(trials_table(again, plan_of, SAMPLERS), table)
    with pytest.raises(InputError, match=f"{SAMPLER.digest} .* is missing"):
        trials_table(ledger, plan_of)
    # The scores that were confirmed of the plan it was fitted to are not its own.
    front = front_table(table, Objectives(("fid", "gflops")))
    confirmed = pd.DataFrame({"plan": row["plan"], "sampler": "", "noise_seed": [7, 8], "fid": [5.0, 6.0]})
    confirmed = pd.concat([confirmed, confirmed.assign(sampler=f"fit {SAMPLER.digest}", fid=[1.0, 2.0])]).assign(
        images=64, **dict.fromkeys(("kid", "precision", "recall", "second_fid", "fid_infinity"), np.nan)
    )
    confirmed = confirmed.assign(second_features="")
    shown = with_confirmation(front, confirmed.reset_index(drop=True), Objectives(("fid", "gflops")))
    fits = shown[shown["trial"] == 2]
    assert float(fits["fid_confirmed"].iloc[0]) == 1.5
