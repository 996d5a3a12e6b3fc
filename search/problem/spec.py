"""Describe what two searches must have in common for their scores to compare."""

from __future__ import annotations

from typing import Any

from stepfront.search.objectives import Objectives
from stepfront.search.problem.problem import SearchProblem
from stepfront.trainers.diffusion.schedule import noise_schedule, quadratic_begin
from stepfront.trainers.inference.cost import WidthCost
from stepfront.trainers.inference.engine import PLAIN


def comparison_spec(problem: SearchProblem, costs: dict[float, WidthCost]) -> dict[str, Any]:
    """Return the specification that a study stores and checks whenever it is opened, as plain JSON values."""
    settings, engine = problem.settings, costs[1.0].engine
    # Guidance 1 is left out, as in searches that are older than guidance.
    without = {"guidance"} if settings.sampler.guidance == 1 else set()
    if settings.sampler.times == "grid":
        without.add("times")  # as in searches that are older than learnt samplers
    diffusion = problem.card.diffusion
    begin = quadratic_begin(noise_schedule(diffusion))
    # Where it is 0.8 T, as in searches that are older than other beginnings, it is left out.
    moved = "quadratic" in (settings.sampler.grid, *(settings.space.grids or ())) and begin > 0.8 * diffusion.steps
    learnt = {str(steps): sampler.digest for steps, sampler in problem.samplers.items()}
    return {
        **({"learnt": learnt} if learnt else {}),
        **({"quadratic_from": begin} if moved else {}),
        "supernet": problem.card.digest,
        **({} if problem.decoder is None else {"autoencoder": problem.decoder.space.digest}),
        "data": problem.data.fingerprint,
        "features": f"{problem.features.name} {problem.features.digest[:12]}",
        "sampler": settings.sampler.model_dump(mode="json", exclude=without),
        # Without what is null, as in searches that are older than genes of the sampler.
        "space": settings.space.model_dump(mode="json", exclude_none=True),
        "images": settings.evaluation.images,
        "noise_seed": settings.evaluation.noise_seed,
        "objectives": list(Objectives.of_settings(settings).names),
        "constraints": list(settings.evaluation.constraints),
        # None, as in searches that are older than a user's own scores.
        "scores": [[s.name, s.function, s.goal] for s in settings.scores if s.use == "objective"] or None,
        # None, as in searches that are older than engines: these ran the plain network, too.
        "engine": None if engine == PLAIN else engine.label,
    }
