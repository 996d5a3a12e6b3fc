"""List the methods that `make bench-peers` compares, with the seeds and evaluations of each."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import optuna

from benchmarks import methods, outside_peers, peer_methods
from stepfront.arrays import Array
from stepfront.search.config import RunSettings, ScreenSettings
from stepfront.search.initial_plans.plan_kinds import PlanSource

DEFAULTS = RunSettings()
RANDOM = {"random": peer_methods.RANDOM_FIRST}
OURS = DEFAULTS.initial_plans
NONE: Mapping[str, int] = {}
BEFORE = ScreenSettings(coding="level", acquisition="optimistic", neighbours=0)

IN_FLIGHT = (2, 4, 16, 64)
"""Numbers of plans that are always under way in the rows for several workers."""

Runner = Callable[[PlanSource, methods.Score, int, int], Array]


@dataclass(frozen=True)
class Peer:
    """A method, with the most seeds and evaluations that its own time per proposal allows."""

    name: str
    run: Runner
    seeds: int = 10
    budget: int = 200
    package: str = ""
    """The distribution that it needs beside stepfront's; without it, the peer is left out."""

    @property
    def installed(self) -> bool:
        """Whether it can run here."""
        return not self.package or outside_peers.installed_version(self.package) is not None


def _ours(
    initial: Mapping[str, int],
    screen: ScreenSettings,
    source: PlanSource,
    score: methods.Score,
    budget: int,
    seed: int,
    in_flight: int = 1,
) -> Array:
    return methods.ours(source, score, budget, seed, initial, DEFAULTS.variation, screen, in_flight)


def _random(source: PlanSource, score: methods.Score, budget: int, seed: int) -> Array:
    return methods.random_plans(source.encoding, score, budget, seed)


def _optuna(make: peer_methods.MakeSampler, initial: Mapping[str, int], categorical: bool = False) -> Runner:
    def run(source: PlanSource, score: methods.Score, budget: int, seed: int) -> Array:
        return peer_methods.optuna_search(make, source, score, budget, seed, initial, categorical)

    return run


def _gp(seed: int) -> optuna.samplers.BaseSampler:
    return optuna.samplers.GPSampler(seed=seed)


def _tpe(seed: int) -> optuna.samplers.BaseSampler:
    return optuna.samplers.TPESampler(seed=seed, multivariate=True)


def _nsga2(seed: int) -> optuna.samplers.BaseSampler:
    return optuna.samplers.NSGAIISampler(seed=seed)


def _from(search: Callable[..., Array], initial: Mapping[str, int]) -> Runner:
    return partial(_with_initial, search, initial)


def _with_initial(
    function: Callable[..., Array],
    initial: Mapping[str, int],
    source: PlanSource,
    score: methods.Score,
    budget: int,
    seed: int,
) -> Array:
    return function(source, score, budget, seed, initial)


PEERS = (
    Peer("ours, default", partial(_ours, OURS, DEFAULTS.screen)),
    *(
        Peer(f"ours, default, {count} plans under way", partial(_ours, OURS, DEFAULTS.screen, in_flight=count))
        for count in IN_FLIGHT
    ),
    Peer("ours, random first generation", partial(_ours, RANDOM, DEFAULTS.screen)),
    Peer("ours, without screening", partial(_ours, OURS, methods.NO_SCREEN)),
    Peer("ours, level coding", partial(_ours, OURS, ScreenSettings(coding="level"))),
    Peer("ours, optimistic gain", partial(_ours, OURS, ScreenSettings(acquisition="optimistic"))),
    Peer("ours, no climb", partial(_ours, OURS, ScreenSettings(climb=0))),
    Peer("ours, no neighbours", partial(_ours, OURS, ScreenSettings(neighbours=0))),
    Peer("ours, screening before 0.2", partial(_ours, OURS, BEFORE)),
    Peer("Optuna GPSampler", _optuna(_gp, NONE), budget=100),
    Peer("Optuna GPSampler, our initial plans", _optuna(_gp, OURS), budget=100),
    Peer("Optuna TPESampler, multivariate", _optuna(_tpe, NONE)),
    Peer("Optuna TPESampler, multivariate, our initial plans", _optuna(_tpe, OURS)),
    Peer("Optuna NSGAIISampler", _optuna(_nsga2, NONE, True)),
    Peer("Optuna NSGAIISampler, our initial plans", _optuna(_nsga2, OURS, True)),
    Peer("BoTorch qLogNEHVI", _from(outside_peers.botorch_qlognehvi, NONE), budget=60, package="botorch"),
    Peer(
        "BoTorch qLogNEHVI, our initial plans",
        _from(outside_peers.botorch_qlognehvi, OURS),
        budget=60,
        package="botorch",
    ),
    Peer("SMAC3 ParEGO", _from(outside_peers.smac_parego, NONE), budget=60, package="smac"),
    Peer("SMAC3 ParEGO, our initial plans", _from(outside_peers.smac_parego, OURS), budget=60, package="smac"),
    Peer("Syne Tune evolution", _from(outside_peers.syne_tune_evolution, NONE), package="syne-tune"),
    Peer(
        "Syne Tune evolution, our initial plans",
        _from(outside_peers.syne_tune_evolution, OURS),
        package="syne-tune",
    ),
    Peer("additive model", _from(peer_methods.additive_model, NONE)),
    Peer("additive model, our initial plans", _from(peer_methods.additive_model, OURS)),
    Peer("gap optima alone", peer_methods.gap_optima, 1),
    Peer("greedy narrowing by the gap", peer_methods.greedy_by_gap, 1),
    Peer("greedy narrowing by FID", peer_methods.greedy_by_fid, 1),
    Peer("random, no repeats", _random),
)
