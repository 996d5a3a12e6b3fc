"""Score two plans on extra noise seeds, so that a search knows before it ends how large a difference is noise."""

from __future__ import annotations

from pathlib import Path

from stepfront.search.problem.evaluator_parts import plan_scorer
from stepfront.search.problem.problem import SearchProblem
from stepfront.search.records.score_noise import ScoreNoise, read_score_noise, repeat_seeds, write_score_noise
from stepfront.trainers.inference.cost import WidthCost


def ensure_score_noise(problem: SearchProblem, costs: dict[float, WidthCost], directory: Path) -> ScoreNoise | None:
    """Score full width and a middle width on the extra noise seeds, unless the directory has these scores.

    The narrowest width would be cheaper, but it can be so bad that its noise says nothing of the front's
    (docs/bench-noise.md).  Needs a Ray session.  Returns None where the settings ask for no repeats, the supernet has
    one width alone, or a plan has no score; the search then does without.
    """
    settings, seeds = problem.settings, repeat_seeds(problem.settings.evaluation)
    widths = problem.card.network.widths
    if not seeds or len(widths) < 2:
        return None
    if (stored := read_score_noise(directory, settings.evaluation)) is not None:
        return stored
    plans = [problem.uniform_plan(width) for width in (widths[-1], widths[(len(widths) - 1) // 2])]
    images = settings.evaluation.images
    with plan_scorer(problem, costs, images) as scorer:
        scored = scorer.score([(plan, seed) for plan in plans for seed in seeds], images)
    if any(evaluation.error for evaluation in scored):
        return None
    fid = tuple(tuple(one.fid for one in scored[i * len(seeds) : (i + 1) * len(seeds)]) for i in range(len(plans)))
    gflops = tuple(scored[i * len(seeds)].gflops for i in range(len(plans)))
    noise = ScoreNoise(tuple(plan.runs for plan in plans), seeds, images, fid, gflops)
    write_score_noise(directory, noise)
    return noise
