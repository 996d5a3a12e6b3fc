"""Collect the facts of a search.json: what was searched, on what, and what it took."""

from __future__ import annotations

import contextlib
import math
import os
import uuid
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd

from stepfront.checksums import CHECKSUMS_FILE
from stepfront.errors import InputError
from stepfront.search.algorithm.trials import result_of
from stepfront.search.config import RunSettings
from stepfront.search.objectives import Objectives
from stepfront.search.problem.decoder_cost import read_decoder_cost
from stepfront.search.problem.problem import SearchProblem
from stepfront.search.records.layout_version import FORMAT
from stepfront.search.records.learnt_samplers import learning_facts, read_records
from stepfront.search.records.plan_rows import on_own_sampler, own_sampler
from stepfront.search.records.score_noise import ScoreNoise, read_score_noise
from stepfront.search.records.versions import SEARCH_ID, versions
from stepfront.search.study.ledger import Ledger
from stepfront.tables.facts import read_facts
from stepfront.trainers.devices import pick_device
from stepfront.trainers.diffusion.schedule import noise_schedule, time_grid
from stepfront.trainers.inference.cost import WidthCost, latency_doubt
from stepfront.trainers.latents.reconstruction import ensure_reconstruction

SHOWN_GRIDS = ("trailing", "leading", "quadratic", "edm")
"""Hand grids that the report draws beside learnt times."""


def search_facts(
    problem: SearchProblem,
    ledger: Ledger,
    costs: dict[float, WidthCost],
    trials: pd.DataFrame,
    command: str,
    directory: Path,
) -> dict[str, Any]:
    """Return the content of search.json as plain JSON values."""
    settings = problem.settings
    before: dict[str, Any] = {}
    with contextlib.suppress(InputError):  # missing or damaged: the study has the search's id, too
        before = read_facts(directory)
    point = ledger.progress.reference_point()
    noise = read_score_noise(directory, settings.evaluation)
    now = datetime.now(UTC).isoformat(timespec="seconds")
    return {
        "format": FORMAT,
        "search_id": ledger.search_id(before.get("search_id") or os.environ.get(SEARCH_ID) or uuid.uuid4().hex[:12]),
        "name": settings.name,
        **_what_is_searched(problem, costs, directory),
        "full": _full_width(problem, trials),
        "reference": _by_name(settings, point) if point else None,
        "reference_point": _by_fid_last(ledger),
        "device": next(iter(costs.values())).device,
        "engine": costs[1.0].engine.label,
        "latency_doubt": latency_doubt(costs) or None,
        "versions": versions(),
        "created": before.get("created") or now,
        "finished": now if ledger.ended else None,
        "command": command,
        **_work_done(ledger, trials, noise),
        "width_costs": [
            {"width": w, "gmacs": c.macs / 1e9} | _other_costs(c) for w, c in sorted(costs.items(), reverse=True)
        ],
        "noise": noise.facts if noise else None,
        "savings": before.get("savings"),
        **({"looks": before["looks"]} if "looks" in before else {}),
        "recorded": [
            place
            for place, folder in (("search", directory), ("supernet", problem.supernet.local))
            if (folder / CHECKSUMS_FILE).is_file()
        ],
        **({"earlier_spaces": list(ledger.earlier_spaces)} if ledger.earlier_spaces else {}),
        **_learning(problem, directory),
        "fit_rounds": ledger.fit_rounds.content,
        "parent_searches": [
            name.removeprefix("front:") for name in settings.initial_plans if name.startswith("front:")
        ],
    }


def _learning(problem: SearchProblem, directory: Path) -> dict[str, Any]:
    """Return what learning samplers gained and cost, and the times of hand grids of as many steps."""
    records = read_records(directory).values()
    schedule = noise_schedule(problem.card.diffusion)
    grids = {
        str(steps): {grid: list(map(float, time_grid(schedule, grid, steps))) for grid in SHOWN_GRIDS}
        for steps in sorted({record.steps for record in records})
    }
    return {"learning": [learning_facts(record) for record in records], "hand_grids": grids}


def _what_is_searched(problem: SearchProblem, costs: dict[float, WidthCost], directory: Path) -> dict[str, Any]:
    """Return the facts about the inputs of a search: data, supernet, score, sampler and space of plans."""
    settings = problem.settings
    return {
        "dataset": problem.data.name,
        "fingerprint": problem.data.fingerprint,
        "supernet_digest": problem.card.digest,
        "features": problem.features.name,
        "features_digest": problem.features.digest,
        "images": settings.evaluation.images,
        "noise_seed": settings.evaluation.noise_seed,
        "steps": settings.sampler.steps,
        "solver": settings.sampler.solver,
        "grid": settings.sampler.grid,
        "solvers": settings.space.solvers and list(settings.space.solvers),
        "grids": settings.space.grids and list(settings.space.grids),
        "classes": problem.card.network.classes,
        "guidance": None if problem.card.network.classes is None else settings.sampler.guidance,
        "calls_a_step": costs[1.0].calls,
        "widths": list(problem.card.network.widths),
        **({"variants": [str(variant) for variant in problem.variants]} if settings.space.variants else {}),
        "encoding": settings.space.encoding,
        "skip": settings.space.skip,
        "objectives": list(Objectives.of_settings(settings).names),
        "scores": [score.model_dump(mode="json") for score in settings.scores],
        **_latents(problem, directory),
    }


def _latents(problem: SearchProblem, directory: Path) -> dict[str, Any]:
    """Return the autoencoder, what decoding one image costs and its own FID; nothing for a search on pixels."""
    if problem.decoder is None:
        return {}
    space, cost = problem.decoder.space, read_decoder_cost(directory)
    floor = ensure_reconstruction(
        problem.data, (problem.features, problem.reference), problem.supernet.local, pick_device("cpu")
    )
    return {
        "autoencoder": space.autoencoder,
        "autoencoder_digest": space.digest,
        "latent_shape": [space.channels, space.resolution, space.resolution],
        "gflops_decode": cost and cost.gflops,
        "latency_ms_decode": cost and cost.latency_ms,
        "reconstruction": floor and asdict(floor),
    }


def _full_width(problem: SearchProblem, trials: pd.DataFrame) -> dict[str, float | None]:
    """Return costs and score of the plan of full width; nothing where it has not been scored."""
    own = on_own_sampler(trials[trials["state"] == "complete"], own_sampler(problem.settings))
    full = own[own["plan"] == problem.uniform_plan(1.0).runs]
    return {k: _finite(full[k].iloc[0]) for k in ("gflops", "fid", "latency_ms")} if len(full) else {}


def _work_done(ledger: Ledger, trials: pd.DataFrame, noise: ScoreNoise | None) -> dict[str, Any]:
    """Return what the search took: evaluations, network calls and seconds."""
    return {
        "evaluations": len(ledger.complete),
        "failed": ledger.failed,
        "network_gflops": 1000 * ledger.budget.network_tflops() + (noise.network_gflops if noise else 0.0),
        "network_calls": int(trials["calls"].sum()),
        "network_calls_saved": int(trials["calls_saved"].sum()),
        "network_gflops_saved": float(trials["gflops_saved"].sum()),
        "seconds": round(max((result_of(t).get("elapsed", 0.0) for t in ledger.trials), default=0.0), 1),
    }


def _other_costs(cost: WidthCost) -> dict[str, Any]:
    """Return the columns of a width's cost beside its MACs, and the spreads of the latencies of its variants."""
    columns = {k: getattr(cost, k) for k in ("parameters", "latency_ms", "latency_spread", "batch", "device")}
    return columns | {"spreads": cost.spreads}


def _by_name(settings: RunSettings, point: Sequence[float]) -> dict[str, float]:
    """Return the reference point by objective, with values as users' functions return them."""
    objectives = Objectives.of_settings(settings)
    return {name: objectives.sign(name) * value for name, value in zip(objectives.names, point, strict=True)}


def _by_fid_last(ledger: Ledger) -> list[float] | None:
    """Return the reference point as dashboards draw it, [gflops, fid]; None with other objectives."""
    point = ledger.progress.reference_point()
    return [point[1], point[0]] if point and ledger.objectives == ("fid", "gflops") else None


def _finite(value: Any) -> float | None:
    return float(value) if math.isfinite(float(value)) else None
