"""Score plans that no confirmation has on its noise seeds: python -m benchmarks.plans_on_held_out_noise SEARCH PLAN...

Plans run on the search's own samplers, or with `--on PLAN` on the best full-width sampler of that plan, such as
11x1.00, by the search's own score.  Both judges score them beside the search's two best full-width samplers, and each
difference is tested as a claim does, at the level of three looks.  Nothing is written.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pandas as pd

from benchmarks.arguments import positive
from benchmarks.markdown import markdown
from stepfront.search.claims.noninferiority import level_of_each, paired_difference
from stepfront.search.problem.costs import read_costs
from stepfront.search.problem.evaluator_parts import local_parts
from stepfront.search.problem.load import load_problem_of_search
from stepfront.search.problem.problem import SearchProblem
from stepfront.search.records.learnt_samplers import read_samplers
from stepfront.search.records.plan_rows import plan_of_row
from stepfront.search.records.run_directory import find_search
from stepfront.search.scoring.confirm import FIRST_SEED
from stepfront.search.scoring.second_judge import load_second_judge
from stepfront.tables.search_tables import read_baselines
from stepfront.trainers.diffusion.plan import Plan
from stepfront.trainers.evaluator import Evaluator
from stepfront.trainers.inference.cost import plan_gflops
from stepfront.trainers.variant import parse_runs

JUDGES = ("fid", "second_fid")
LOOKS = 3
MARGIN = 0.05


def main() -> None:
    """Score the plans and print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.plans_on_held_out_noise", description=__doc__)
    parser.add_argument("search", type=Path)
    parser.add_argument("plans", nargs="+", help="run lengths, such as '2x0.25 5x0.75 4x1.00'")
    parser.add_argument("--on", metavar="PLAN", help="take the sampler of this full-width plan, such as 11x1.00")
    parser.add_argument("--seeds", type=positive, default=5)
    given = parser.parse_args()
    directory, settings = find_search(given.search)
    problem = load_problem_of_search(settings, directory)
    samplers = best_samplers(directory)
    plans = {text: plan_of(problem, text, samplers.get(given.on)) for text in given.plans}
    print(markdown(compare(problem, directory, list(samplers.values()), plans, given.seeds)))


def best_samplers(directory: Path) -> dict[str, Plan]:
    """Return the best full-width sampler of each number of steps by the search's own score, the best of all first."""
    rows, learnt = read_baselines(directory), read_samplers(directory)
    rows = rows[rows["method"] == "samplers"].sort_values("fid").drop_duplicates("plan")
    return {str(row["plan"]): plan_of_row(row, learnt) for _, row in rows.iterrows()}


def plan_of(problem: SearchProblem, text: str, on: Plan | None) -> Plan:
    """Return the plan of run lengths, on the search's own sampler or that of another plan of as many steps."""
    widths = parse_runs(text)
    return problem.plan(widths) if on is None else replace(on, widths=widths)


def compare(
    problem: SearchProblem, directory: Path, samplers: Sequence[Plan], plans: dict[str, Plan], seeds: int
) -> pd.DataFrame:
    """Return one row per plan: cost, mean scores, and the differences to the two best full-width samplers.

    The reference of each judge is the better one on it over the same seeds.
    """
    costs = read_costs(directory)
    judge = load_second_judge(problem, lambda done, total: None)
    evaluate = Evaluator(replace(local_parts(problem, costs, 1), second=judge))
    first = FIRST_SEED + problem.settings.evaluation.noise_seed

    def scores_of(plan: Plan) -> pd.DataFrame:
        found = [evaluate(plan, problem.settings.confirm.images, seed) for seed in range(first, first + seeds)]
        return pd.DataFrame([{name: getattr(one, name) for name in JUDGES} for one in found])

    full = [scores_of(plan) for plan in samplers[:2]]
    rows = []
    for text, plan in plans.items():
        scores, cost = scores_of(plan), plan_gflops(plan, costs)
        row = {"plan": text, "GFLOPs": f"{cost:.4f}", "saved": f"{1 - cost / plan_gflops(samplers[0], costs):.0%}"}
        for name in JUDGES:
            reference = min((one[name] for one in full), key=lambda values: float(values.mean()))
            found = paired_difference(scores[name].to_numpy(), reference.to_numpy(), level_of_each(LOOKS))
            row[name] = f"{found.score:.3f}"
            row[f"{name}: difference"] = f"{found.mean:.4f} [{found.low:.4f}, {found.high:.4f}]"
            row[f"{name}: limit"] = f"{MARGIN * found.reference:.4f}"
        rows.append(row)
    return pd.DataFrame(rows)


if __name__ == "__main__":
    main()
