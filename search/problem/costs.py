"""Measure what each width costs once per search, and read the measured costs again."""

from __future__ import annotations

import logging
import math
from dataclasses import replace
from pathlib import Path

from stepfront.errors import InputError
from stepfront.files import read_json, write_json
from stepfront.search.config import RunSettings
from stepfront.search.problem.problem import SearchProblem
from stepfront.search.problem.worker_measurements import measure_gap, measure_step_errors, measure_widths
from stepfront.search.records.run_directory import COSTS_FILE
from stepfront.search.step_tables.gap_table import read_gap_table, write_gap_table
from stepfront.search.step_tables.step_error_table import read_step_errors, write_step_errors
from stepfront.trainers.inference.cost import WidthCost, latency_doubt
from stepfront.trainers.validation import Settings, validate


def load_or_measure_costs(problem: SearchProblem, directory: Path) -> dict[float, WidthCost]:
    """Return the costs of a search, measured at the first call: all latencies of one search must compare."""
    if (directory / COSTS_FILE).exists():
        costs = read_costs(directory)
        _warn(problem.settings, costs)
        return costs
    costs, engines = measure_widths(problem)
    _warn(problem.settings, costs)
    rows = {
        "widths": [cost.model_dump(mode="json") for cost in costs.values()],
        "engines": [engine.model_dump(mode="json") for engine in engines],
    }
    write_json(directory / COSTS_FILE, rows)
    return costs


def add_latencies(problem: SearchProblem, costs: dict[float, WidthCost], directory: Path) -> dict[float, WidthCost]:
    """Return the costs of a search with those latencies that a larger space needs and were not measured so far.

    They are measured under the search's engine, and scaled by how long the width's full call took then and takes now.
    """
    if not any(math.isnan(costs[variant.width].ms_of(variant)) for variant in problem.variants):
        return costs
    engine = costs[1.0].engine
    update = {"engine": engine.name, "precision": engine.precision}
    workers = problem.settings.workers.model_copy(update=update)
    now, _ = measure_widths(replace(problem, settings=problem.settings.model_copy(update={"workers": workers})))
    found = {width: with_missing_latencies(cost, now[width]) for width, cost in costs.items()}
    rows = read_json(directory / COSTS_FILE, "table of costs")
    write_json(directory / COSTS_FILE, rows | {"widths": [cost.model_dump(mode="json") for cost in found.values()]})
    return found


def with_missing_latencies(cost: WidthCost, now: WidthCost) -> WidthCost:
    """Return the cost of a width with the latencies that it lacks, from another measurement of the same width."""
    if cost.latency_ms is None or now.latency_ms is None:
        return cost
    scale = cost.latency_ms / now.latency_ms

    def lacked(before: Settings, later: Settings, name: str) -> dict[str, float]:
        """Return the latency of that name and its spread, where the first has none and the second has one."""
        measured = getattr(later, f"{name}_ms")
        if getattr(before, f"{name}_ms") is not None or measured is None:
            return {}
        spread = f"{name}_spread"
        return {f"{name}_ms": measured * scale, spread: getattr(later, spread)}

    depths = [
        one.model_copy(update=lacked(one, other, "latency"))
        for one, other in zip(cost.shallower, now.shallower, strict=True)
    ]
    found = lacked(cost, now, "reuse_latency") | lacked(cost, now, "keep_latency")
    return cost.model_copy(update=found | {"shallower": tuple(depths)})


def _warn(settings: RunSettings, costs: dict[float, WidthCost]) -> None:
    """Say that latencies are in doubt where the search minimises or limits them."""
    evaluation = settings.evaluation
    if not any("latency_ms" in text for text in (*evaluation.objectives, *evaluation.constraints)):
        return
    if doubt := latency_doubt(costs):
        logging.getLogger("stepfront").warning(
            "latency_ms is in the objectives or constraints, and its measurement is in doubt: %s; let nothing else run "
            "on the machine and start over with --fresh",
            doubt,
        )


def read_costs(directory: Path) -> dict[float, WidthCost]:
    """Read the costs that a search has measured.

    Raises InputError when they are missing or damaged.
    """
    path = directory / COSTS_FILE
    if not path.exists():
        raise InputError(f"there is no {path}; `stepfront resume {directory.parent}` measures the widths again")
    rows = read_json(path, "table of costs").get("widths")
    try:
        costs = [validate(WidthCost, row) for row in rows] if isinstance(rows, list) else []
    except InputError as error:
        raise InputError(f"{path} is damaged: {error}; {_MEASURE_AGAIN}") from None
    if 1.0 not in {cost.width for cost in costs}:
        raise InputError(f"{path} is damaged: it has no cost of full width; {_MEASURE_AGAIN}")
    return {cost.width: cost for cost in costs}


_MEASURE_AGAIN = "delete it, and `stepfront resume` measures the widths again"


def ensure_gap_table(problem: SearchProblem, directory: Path) -> None:
    """Measure the gap table of a search on a worker and store it, unless it is stored already."""
    inputs = problem.gap_inputs
    if read_gap_table(directory, inputs.key) is None:
        write_gap_table(directory, inputs, measure_gap(problem))


def ensure_step_errors(problem: SearchProblem, directory: Path) -> None:
    """Measure the errors of steps on a worker and store them, unless no initial plans need them or they are stored."""
    if not problem.settings.initial_plans.get("dp"):
        return
    key = problem.step_error_inputs.key
    if read_step_errors(directory, key) is None:
        write_step_errors(directory, key, measure_step_errors(problem))
