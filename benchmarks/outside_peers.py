"""Search with packages that stepfront does not need: BoTorch, SMAC3 and Syne Tune (`pip install '.[peers]'`).

Each function imports its package when it is called, and returns the scores in the order of their evaluation.  A plan is
one integer per unit, as in peer_methods.py.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.methods import Score
from benchmarks.peer_methods import RANDOM_FIRST
from stepfront.arrays import Array
from stepfront.search.genomes.encodings import Levels
from stepfront.search.initial_plans.plan_kinds import PlanSource, make_initial_plans

PACKAGES = {"botorch": "BoTorch", "smac": "SMAC3", "syne-tune": "Syne Tune"}
"""The distributions, and what their authors call them."""

_MODULES = {"syne-tune": "syne_tune"}

_SAMPLES, _STARTS, _RAW = 64, 4, 64
"""Samples of the posterior, local searches and their random candidates, per proposal of BoTorch."""


def installed_version(package: str) -> str | None:
    """Return the version of a distribution; None where it is not installed."""
    if importlib.util.find_spec(_MODULES.get(package, package)) is None:
        return None
    return importlib.metadata.version(package)


def botorch_qlognehvi(source: PlanSource, score: Score, budget: int, seed: int, initial: Mapping[str, int]) -> Array:
    """Evaluate the plan of greatest noisy expected hypervolume improvement (Daulton et al. 2021), one after another.

    A Gaussian process models log FID; costs are known, so no process models them.  The improvement is maximised by
    local search over single changes of genes.  BoTorch compiles a part of it at the first call.
    """
    import torch
    from botorch.optim import optimize_acqf_discrete_local_search

    torch.manual_seed(seed)
    encoding = source.encoding
    plans = _first_plans(source, initial)[:budget]
    scores = [score(levels) for levels in plans]
    full = score(np.full(encoding.units, encoding.highest))[1]
    unit = full / (encoding.steps * source.width_costs[-1])
    costs = torch.tensor(unit * encoding.lengths[:, None] * source.width_costs)
    choices = [torch.arange(encoding.highest + 1, dtype=torch.float64)] * encoding.units
    while len(scores) < budget:
        known, tried = np.array(scores), torch.tensor(np.array(plans), dtype=torch.float64)
        best, _ = optimize_acqf_discrete_local_search(
            _improvement(tried, known, costs, seed),
            q=1,
            discrete_choices=choices,
            num_restarts=_STARTS,
            raw_samples=_RAW,
            X_avoid=tried,
        )
        plans.append(best[0].round().long().numpy())
        scores.append(score(plans[-1]))
    return np.array(scores)


def _improvement(tried: Any, known: Array, costs: Any, seed: int) -> Any:
    """Return the acquisition function of plans `tried` [N, units] with scores `known` [N, 2]; `costs` [units, W]."""
    import torch
    from botorch.acquisition.multi_objective.logei import qLogNoisyExpectedHypervolumeImprovement
    from botorch.acquisition.multi_objective.objective import GenericMCMultiOutputObjective
    from botorch.fit import fit_gpytorch_mll
    from botorch.models import ModelList, SingleTaskGP
    from botorch.models.deterministic import GenericDeterministicModel
    from botorch.models.transforms import Normalize
    from botorch.sampling.get_sampler import get_sampler
    from gpytorch.mlls import ExactMarginalLogLikelihood

    units, highest = costs.shape[0], costs.shape[1] - 1
    bounds = torch.tensor([[0.0] * units, [float(highest)] * units], dtype=torch.float64)
    logs = torch.tensor(known[:, :1]).log()
    process = SingleTaskGP(tried, logs, input_transform=Normalize(units, bounds=bounds))
    fit_gpytorch_mll(ExactMarginalLogLikelihood(process.likelihood, process))

    def cost(plans: Any) -> Any:
        return costs[torch.arange(units), plans.round().long()].sum(dim=-1, keepdim=True)

    both = ModelList(process, GenericDeterministicModel(cost))
    return qLogNoisyExpectedHypervolumeImprovement(
        model=both,
        ref_point=[-1.1 * float(known[:, 0].max()), -1.05 * float(costs[:, -1].sum())],
        X_baseline=tried,
        objective=GenericMCMultiOutputObjective(lambda y, X=None: -torch.stack([y[..., 0].exp(), y[..., 1]], dim=-1)),
        sampler=get_sampler(both.posterior(tried[:1]), torch.Size([_SAMPLES]), seed=seed),
        prune_baseline=True,
    )


def smac_parego(source: PlanSource, score: Score, budget: int, seed: int, initial: Mapping[str, int]) -> Array:
    """Search with SMAC3's random forest on ParEGO's weighted scores (Knowles 2006)."""
    from ConfigSpace import Configuration, ConfigurationSpace, Integer
    from smac import HyperparameterOptimizationFacade, Scenario
    from smac.multi_objective.parego import ParEGO
    from smac.runhistory import TrialValue

    names = _names(source)
    space = ConfigurationSpace(seed=seed)
    space.add([Integer(name, (0, source.encoding.highest)) for name in names])
    first = [Configuration(space, values=_by_name(names, levels)) for levels in _first_plans(source, initial)]
    with tempfile.TemporaryDirectory() as folder:
        scenario = Scenario(
            space,
            objectives=["fid", "gflops"],
            deterministic=True,
            n_trials=budget,
            seed=seed,
            output_directory=Path(folder),
        )
        search = HyperparameterOptimizationFacade(
            scenario,
            lambda config, seed=0: {"fid": 0.0, "gflops": 0.0},  # never called: plans are asked for and told
            multi_objective_algorithm=ParEGO(scenario),
            initial_design=HyperparameterOptimizationFacade.get_initial_design(
                scenario, n_configs=0, additional_configs=first
            ),
            logging_level=False,
            overwrite=True,
        )
        scores = []
        for _ in range(budget):
            asked = search.ask()
            scores.append(score(np.array([asked.config[name] for name in names])))
            search.tell(asked, TrialValue(cost=list(scores[-1])))
    return np.array(scores)


def syne_tune_evolution(source: PlanSource, score: Score, budget: int, seed: int, initial: Mapping[str, int]) -> Array:
    """Search with Syne Tune's multi-objective regularized evolution, with a population of `RANDOM_FIRST` plans.

    As shipped, the population of 100 would be random plans for half of the budget.
    """
    from syne_tune.config_space import randint
    from syne_tune.optimizer.schedulers.ask_tell_scheduler import AskTellScheduler
    from syne_tune.optimizer.schedulers.multiobjective import MultiObjectiveRegularizedEvolution
    from syne_tune.optimizer.schedulers.single_fidelity_scheduler import SingleFidelityScheduler

    names = _names(source)
    space = {name: randint(0, source.encoding.highest) for name in names}
    first = [_by_name(names, levels) for levels in _first_plans(source, initial)]
    searcher = MultiObjectiveRegularizedEvolution(space, first, population_size=RANDOM_FIRST, random_seed=seed)
    objectives = ["fid", "gflops"]
    search = AskTellScheduler(SingleFidelityScheduler(space, objectives, searcher=searcher, random_seed=seed))
    scores = []
    for _ in range(budget):
        trial = search.ask()
        scores.append(score(np.array([trial.config[name] for name in names])))
        search.tell(trial, dict(zip(objectives, scores[-1], strict=True)))
    return np.array(scores)


def _first_plans(source: PlanSource, initial: Mapping[str, int]) -> list[Levels]:
    """Return the levels of the initial plans; of random ones, where there are none."""
    wanted = initial or {"random": RANDOM_FIRST}
    return [source.encoding.unpack(proposal.genome) for proposal in make_initial_plans(wanted, source)]


def _names(source: PlanSource) -> list[str]:
    return [f"g{i:03d}" for i in range(source.encoding.units)]


def _by_name(names: list[str], levels: Levels) -> dict[str, int]:
    return dict(zip(names, map(int, levels), strict=True))
