"""Export a Pareto-front point as a self-contained folder: weights, plan.json and sample.py.

The folder needs nothing of this package.  plan.json holds the solver's coefficients, a file holds the network of each
width that the plan runs, and sample.py (a copy of exported/sample.py) is a complete program.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from stepfront.errors import InputError
from stepfront.files import write_json, write_text
from stepfront.folders import check_free, new_folder
from stepfront.search.export.network_files import (
    DECODER_FILE,
    FORMS,
    MOST_IN_CALL,
    MOST_OF_DIFFUSERS,
    check_form,
    write_decoder,
    write_network,
)
from stepfront.search.problem.evaluator_parts import CPU_BATCH
from stepfront.search.problem.load import load_problem_of_search
from stepfront.search.problem.problem import SearchProblem
from stepfront.search.records.learnt_samplers import fitted_weights, read_samplers
from stepfront.search.records.plan_rows import plan_of_row
from stepfront.search.records.run_directory import find_search
from stepfront.tables.points import pick_point
from stepfront.tables.search_tables import read_snapshot
from stepfront.trainers.config import DiffusionSettings
from stepfront.trainers.diffusion.conditioning import make_condition
from stepfront.trainers.diffusion.plan import Plan
from stepfront.trainers.diffusion.plan_run import PlanRun
from stepfront.trainers.diffusion.schedule import noise_schedule
from stepfront.trainers.network_settings import PROMPTED, NetworkSettings
from stepfront.trainers.networks.prediction import conversion
from stepfront.trainers.networks.supernet import GroupedNetwork
from stepfront.trainers.networks.supernet_files import supernet_from_weights
from stepfront.trainers.networks.unet import frequencies
from stepfront.trainers.variant import Size, parse_variants

FORMAT = 4
PLAN_FILE, PROGRAM_FILE = "plan.json", "sample.py"
PROGRAM = Path(__file__).parent / "exported" / PROGRAM_FILE


@dataclass(frozen=True)
class FrontPoint:
    """A point of a search's front, with all that writing it takes."""

    problem: SearchProblem
    facts: Mapping[str, Any]
    row: pd.Series
    plan: Plan


def load_point(path: Path, point: str, form: str) -> FrontPoint:
    """Load a point of the search in `path`, to be written in a form.

    Raises InputError when the supernet is not the one that was searched, and for a plan that this form can't run.
    """
    directory, settings = find_search(path)
    snapshot = read_snapshot(directory)
    row = pick_point(snapshot.front, point)
    _check_form_fits(settings.network.family, str(row["plan"]), form)
    plan = plan_of_row(row, read_samplers(directory))
    return FrontPoint(load_problem_of_search(settings, directory), snapshot.facts, row, plan)


def export_point(path: Path, point: str, out: Path, form: str = "program") -> dict[str, Any]:
    """Write the folder of a front point, completely or not at all, and return the content of its plan.json.

    `form` says how the networks are written (network_files.py).
    Raises InputError when `out` holds other files, when the supernet is not the one that was searched, or when a
    library is missing.
    """
    check_form(form)
    check_free(out, _is_exported)  # before the supernet is loaded
    found = load_point(path, point, form)
    with new_folder(out, _is_exported) as made:
        return write_point(found.problem, found.facts, found.row, found.plan, made, form)


def write_point(
    problem: SearchProblem,
    facts: Mapping[str, Any],
    row: pd.Series,
    plan: Plan,
    out: Path,
    form: str = "program",
    decodes: bool = True,
) -> dict[str, Any]:
    """Write networks, program and, last, the plan that names the networks by their digests.

    With `decodes`, the program has the decoder of the networks' latents, if they make latents.
    """
    card, most = problem.card, _most_in_call(problem)
    _check_form_fits(card.network.family, plan.runs, form)
    weights = {k: torch.from_numpy(v) for k, v in weights_of_plan(problem, plan).items()}
    supernet = supernet_from_weights(card, weights)
    inputs: tuple[Tensor, ...] = (
        torch.zeros(2, card.image_channels, card.resolution, card.resolution),
        torch.zeros(2),
    )
    if card.network.classes is not None:
        inputs += (torch.zeros(2, dtype=torch.int64),)
    networks = []
    order = {size: number for number, size in enumerate(card.network.sizes)}
    for size, group in sorted(set(_networks_of_steps(plan, problem)), key=lambda one: (order[one[0]], one[1] or 0)):
        network = supernet.backbone(*size)
        if isinstance(network, GroupedNetwork):
            network = network.networks[group or 0]
        networks.append(write_network(network, inputs, size, form, out, group, most))
    content = plan_content(problem, facts, row, plan) | {"unet": shared_parts(card.network), "networks": networks}
    if problem.decoder is not None and decodes:
        content["decoder"] = write_decoder(problem.decoder, out)
    write_text(out / PROGRAM_FILE, PROGRAM.read_text(encoding="utf-8"))
    write_json(out / PLAN_FILE, content)
    return content


def plan_content(problem: SearchProblem, facts: Mapping[str, Any], row: pd.Series, plan: Plan) -> dict[str, Any]:
    """Return what plan.json says of a point beside its networks: steps, images, classes and scores."""
    card = problem.card
    most = _most_in_call(problem)
    content: dict[str, Any] = {
        "format": FORMAT,
        "plan": plan.runs,
        "image_shape": [card.image_channels, card.resolution, card.resolution],
        "clip": problem.settings.sampler.clip,
        "batch": min(most, CPU_BATCH if (batch := problem.settings.evaluation.batch) == "auto" else batch),
        "steps": _steps(plan, problem),
        "point": point_facts(row, facts),
    }
    guidance = problem.settings.sampler.guidance
    if (condition := make_condition(card.network.classes, card.label_counts, guidance, seed=0)) is not None:
        content["condition"] = {"counts": list(condition.counts), "guidance": guidance}
        if card.network.family == PROMPTED:
            content["condition"]["prompts"] = list(card.class_names)
    return content


def _most_in_call(problem: SearchProblem) -> int:
    return MOST_OF_DIFFUSERS if problem.card.network.family == PROMPTED else MOST_IN_CALL


def weights_of_plan(problem: SearchProblem, plan: Plan) -> Mapping[str, np.ndarray]:
    """Return the supernet's weights that a plan runs: those that were fitted to it, or those of the search."""
    return fitted_weights(problem.settings.search_directory, plan.weights) if plan.weights else problem.weights


def _check_form_fits(family: str, plan: str, form: str) -> None:
    """Raise InputError for a network that can't be written in this form, and for steps that it can't run then."""
    variants = parse_variants(plan)
    if form in FORMS and form != "program" and any(variant.reuse for variant in variants):
        others = {"unet": ", or --as program or pipeline", PROMPTED: ", or --as pipeline"}.get(family, "")
        raise InputError(
            f"cannot export the plan {plan} as {form}: such a network can't reuse deep features (r); possible: front "
            f"points without r{others}"
        )
    if form == "program" and family != "unet":
        raise InputError(
            f"cannot export the weights of a network of family {family!r}, which sample.py does not know; "
            "possible: unet, or --as torch-export, which holds the network itself"
        )
    if form == "onnx" and family == PROMPTED:
        raise InputError("cannot export a network that reads text as onnx; possible: --as torch-export or pipeline")


def point_facts(row: pd.Series, facts: Mapping[str, Any]) -> dict[str, Any]:
    """Return where a point comes from and what it scored, as plain JSON values."""
    origin = ("search_id", "name", "dataset", "fingerprint", "supernet_digest", "features")
    scores = ("fid", "gflops", "latency_ms", "fid_confirmed", "fid_low", "fid_high")
    return (
        {key: facts.get(key) for key in origin}
        | {"trial": int(row["trial"]), "plan": str(row["plan"]), "solver": str(row["solver"])}
        | {key: None if pd.isna(row[key]) else float(row[key]) for key in scores}
        | {key: int(row[key]) for key in ("images", "confirm_images", "confirm_seeds")}
    )


def shared_parts(network: NetworkSettings) -> dict[str, Any]:
    """Return what the networks of all widths share and their weights do not show."""
    return {
        "time_channels": network.base,
        # Written out, since their rounding depends on where a network was trained.
        "frequencies": frequencies(network.base, network.frequencies, torch.device("cpu")).tolist(),
        "norm_eps": network.norm_eps,
        "head_channels": network.head_channels,
        "pad_end": network.halving == "end",
    }


def _steps(plan: Plan, problem: SearchProblem) -> list[dict[str, Any]]:
    """Return the steps that are taken; JSON keeps every bit of a float."""
    run = PlanRun(plan, noise_schedule(problem.card.diffusion))
    groups = [group for _, group in _networks_of_steps(plan, problem)]
    return [
        {"number": taken, "time": run.network_times[i], "width": plan.widths[taken]}
        | ({} if groups[i] is None else {"group": groups[i]})
        | ({} if (depth := plan.variants[taken].depth) is None else {"depth": depth})
        | ({} if run.variants[i].guided else {"guided": False})
        | ({} if run.variants[i].scale is None else {"guidance": run.variants[i].scale})
        | ({"reuse": True} if run.variants[i].reuse else {})
        | ({"hands_out": True} if run.reads_features(i + 1) and not run.variants[i].reuse else {})
        | _conversion(problem.card.diffusion, run.network_times[i])
        | asdict(run.steps[i])
        | {"keep": asdict(run.reads[i + 1])}
        for i, taken in enumerate(run.taken)
    ]


def _networks_of_steps(plan: Plan, problem: SearchProblem) -> list[tuple[Size, int | None]]:
    """Return size and group of times of the network of each step that is taken; no group where all have one."""
    run, groups = PlanRun(plan, noise_schedule(problem.card.diffusion)), problem.card.groups
    numbers = [None if groups is None else bisect_right(groups.cuts, time) for time in run.network_times]
    return list(zip((variant.size for variant in run.variants), numbers, strict=True))


def _conversion(diffusion: DiffusionSettings, time: float) -> dict[str, Any]:
    """Return how a network's output at a time becomes noise; nothing where the network predicts the noise."""
    if diffusion.prediction == "epsilon":
        return {}
    times = torch.tensor(time, dtype=torch.float64)
    at = conversion(diffusion, noise_schedule(diffusion).half_log_snr(times), times)
    return {"conversion": {name: float(value) for name, value in at._asdict().items()}}


def _is_exported(name: str) -> bool:
    written = name.startswith("width-") and name.endswith(tuple(suffix for _, suffix in FORMS.values()))
    return written or name in (PLAN_FILE, PROGRAM_FILE, DECODER_FILE)
