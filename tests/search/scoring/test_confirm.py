"""Confirmation: which seeds and plans are scored, on two judges, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from safetensors.torch import load, save

from stepfront.dashboards.claim import claim_sentence
from stepfront.dashboards.report import write_report
from stepfront.dashboards.sections.baselines import best_samplers
from stepfront.errors import InputError
from stepfront.files import write_json, write_text
from stepfront.search.checks.integrity import check_search
from stepfront.search.claims.claim import CLAIM_KEYS, Rules, compare_plans
from stepfront.search.config import RunSettings, save_settings, settings_from
from stepfront.search.driver.fit import fit_sampler_weights
from stepfront.search.execution.plan_scorer import PlanScorer
from stepfront.search.genomes.encodings import make_encoding
from stepfront.search.problem.baseline_plans import full_width_samplers
from stepfront.search.problem.load import load_problem
from stepfront.search.records.run_directory import find_search
from stepfront.search.scoring.apply_confirmation import begin_looks, looks_taken, out_of_reach, reference_out_of_reach
from stepfront.search.scoring.baselines import SAMPLERS, lacks_samplers, run_baselines
from stepfront.search.scoring.confirm import FIRST_SEED, run_confirmation
from stepfront.search.scoring.plans_to_confirm import plans_by_key, plans_to_confirm
from stepfront.search.scoring.second_judge import load_second_judge
from stepfront.search.scoring.versus import write_comparison_with_baselines
from stepfront.tables.parquet import write_table
from stepfront.tables.search_tables import read_tables
from stepfront.trainers.diffusion.learnt_sampler import LearntSampler
from stepfront.trainers.diffusion.plan import Plan
from stepfront.trainers.evaluation import Evaluation
from stepfront.trainers.sampler_learning.starts import SAMPLERS as CHOSEN
from tests.search.claims.scores import scored
from tests.search.conftest import TINY, copy_of_search, tiny_settings


@pytest.fixture(scope="module")
def confirmed(searched: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a copy of the search that is confirmed."""
    directory = copy_of_search(searched, tmp_path_factory.mktemp("confirmed"))
    run_confirmation(directory, None, None)
    return directory


def change(directory: Path, *overrides: str) -> None:
    """Change settings of a search as a user would in its settings.yaml."""
    settings = find_search(directory)[1].model_dump(mode="json")
    save_settings(settings_from(settings, overrides), directory / "settings.yaml")


def test_confirmation_uses_held_out_noise_and_marks_the_front(confirmed: Path, tmp_path: Path) -> None:
    directory = copy_of_search(confirmed, tmp_path)
    first = pd.read_parquet(directory / "confirm.parquet")
    trials = pd.read_parquet(directory / "trials.parquet")
    assert not set(first["noise_seed"]) & set(trials["noise_seed"])
    front = pd.read_parquet(directory / "front.parquet")
    assert (front["confirm_seeds"] == 2).all()
    for _, row in front.iterrows():
        mine = first[first["plan"] == row["plan"]].drop_duplicates("noise_seed")["fid"]
        assert row["fid_confirmed"] == pytest.approx(mine.mean())
        assert row["fid_low"] < row["fid_confirmed"] < row["fid_high"]
    facts = json.loads((directory / "search.json").read_text())
    savings = facts["savings"]
    expected = 1 - savings["gflops"] / facts["full"]["gflops"] if savings["holds"] else None
    assert savings["flops_saved"] == pytest.approx(expected)
    scored = (directory / "confirm.parquet").stat().st_mtime_ns
    called: list[int] = []
    run_confirmation(directory, None, None, lambda done, total: called.append(done))
    assert not called  # scores that are there are kept
    assert (directory / "confirm.parquet").stat().st_mtime_ns >= scored
    assert np.isfinite(front[["kid", "kid_low", "kid_high"]].to_numpy()).all()
    assert front[["precision", "recall"]].stack().between(0, 1).all()
    for _, row in front.iterrows():
        mine = first[first["plan"] == row["plan"]].drop_duplicates("noise_seed")
        assert row["kid"] == pytest.approx(mine["kid"].mean())
        assert row["precision"] == pytest.approx(mine["precision"].mean())
    assert set(first["real_images"]) == {32}
    for name in ("trials", "front", "progress", "proxies", "baselines", "confirm"):
        assert set(pd.read_parquet(directory / f"{name}.parquet")["features"]) == {"classifier"}, name
    # Scores of another number of images come beside these, and the larger number is what the front is judged by.
    run_confirmation(directory, 48, None)
    both = pd.read_parquet(directory / "confirm.parquet")
    scores = ["plan", "kind", "noise_seed", "images", "fid", "kid", "precision", "recall"]
    pd.testing.assert_frame_equal(
        both.loc[both["images"] == 32, scores].sort_values(scores).reset_index(drop=True),
        first[scores].sort_values(scores).reset_index(drop=True),
    )
    assert set(both.loc[both["used"], "images"]) == {48}
    assert (pd.read_parquet(directory / "front.parquet")["confirm_images"] == 48).all()
    run_confirmation(directory, 32, None, lambda done, total: called.append(done))
    assert not called
    assert (pd.read_parquet(directory / "front.parquet")["confirm_images"] == 48).all()
    assert "KID" in write_report(directory).read_text()
    assert both["fid_infinity"].isna().all()
    settings = directory / "settings.yaml"
    write_text(settings, settings.read_text().replace("extrapolate: false", "extrapolate: true"))
    run_confirmation(directory, 32, None)
    extrapolated = pd.read_parquet(directory / "confirm.parquet").query("images == 32")
    assert np.isfinite(extrapolated["fid_infinity"]).all()
    assert extrapolated["fid"].sum() == pytest.approx(first["fid"].sum())


def test_a_second_judge_scores_every_point_beside_the_first(confirmed: Path) -> None:
    scores = pd.read_parquet(confirmed / "confirm.parquet")
    assert np.isfinite(scores["second_fid"]).all()
    assert set(scores["second_features"]) == {"random"}
    assert set(scores["features"]) == {"classifier"}
    full_width = scores["plan"].str.fullmatch(r"\d+x1\.00")
    assert full_width.any()
    for name in ("blurred_fid", "second_blurred_fid"):
        assert (np.isfinite(scores[name]) == full_width).all()
    front = pd.read_parquet(confirmed / "front.parquet")
    for _, row in front.iterrows():
        own = scores[(scores["plan"] == row["plan"]) & (scores["sampler"] == "")]
        assert row["second_confirmed"] == pytest.approx(own.drop_duplicates("noise_seed")["second_fid"].mean())
        assert row["second_low"] < row["second_confirmed"] < row["second_high"]
    assert (find_search(confirmed)[1].supernet_directory / "second_judge" / "reference-random.npz").exists()


def test_a_confirmation_of_before_the_blur_gets_it_and_nothing_else(confirmed: Path, tmp_path: Path) -> None:
    directory = copy_of_search(confirmed, tmp_path)
    path = directory / "confirm.parquet"
    today = pd.read_parquet(path)
    write_table(today.drop(columns=["blurred_fid", "second_blurred_fid"]), path)
    one = ["plan", "sampler", "noise_seed"]
    lacked = today[today["blurred_fid"].notna()].drop_duplicates(one)
    totals: list[int] = []
    run_confirmation(directory, None, None, lambda done, total: totals.append(total))
    assert set(totals) == {len(lacked)}
    columns = ["kind", *one, "fid", "second_fid", "blurred_fid", "second_blurred_fid"]
    again, before = (table[columns].sort_values(columns, ignore_index=True) for table in (pd.read_parquet(path), today))
    pd.testing.assert_frame_equal(again, before)
    totals.clear()
    run_confirmation(directory, None, None, lambda done, total: totals.append(total))
    assert not totals


@pytest.mark.parametrize(
    ("steps", "space_text", "missed"),
    [
        (11, "{stages: 10}", {"steps": 11}),  # 2, 4, ... 20 steps
        (9, "{stages: 10}", {"steps": 9, "stages": 9}),
        (24, "{stages: 10}", {"steps": 24}),
        (12, "{stages: 10}", None),
        (11, "{stages: 20}", None),
        (11, "{encoding: steps}", None),
        (11, "{skip: false}", None),  # there, a plan of fewer steps is none of the space at all
    ],
)
def test_steps_of_the_reference_that_no_plan_takes_are_named(
    steps: int, space_text: str, missed: dict[str, int] | None
) -> None:
    settings = settings_from({"sampler": {"steps": 20}}, [f"space={space_text}"])
    assert out_of_reach(steps, settings) == missed
    if missed is not None:
        space = settings.space.model_copy(update={"stages": missed.get("stages", settings.space.stages)})
        assert missed["steps"] in make_encoding(space, missed["steps"], (1.0,)).step_counts


@pytest.mark.parametrize(
    ("few", "many", "missed"),
    [
        ((1.0, 3.6), (1.5, 3.0), {"steps": 6, "plan": "6x1.00", "sampler": "", "features": "random"}),
        ((1.5, 3.0), (1.0, 3.6), {"steps": 6, "plan": "6x1.00", "sampler": "", "features": "classifier"}),
        ((1.5, 3.6), (1.0, 3.0), {"steps": 6, "plan": "6x1.00", "sampler": ""}),
        ((1.0, 3.0), (1.5, 3.6), None),
    ],
)
def test_the_reference_of_each_judge_is_asked_whether_plans_take_its_steps(
    few: tuple[float, float], many: tuple[float, float], missed: dict[str, object] | None
) -> None:
    plans = scored("full", "full", 2.0, 4.0), scored("sampler", "4x1.00", *few), scored("sampler", "6x1.00", *many)
    standing = compare_plans(pd.concat(plans), Rules(0.05, (5,)))
    assert standing is not None
    settings = settings_from({"sampler": {"steps": 4}}, ["space={stages: 2}"])
    assert reference_out_of_reach(standing, settings) == missed


def test_the_claim_is_made_against_the_best_full_width_sampler(confirmed: Path) -> None:
    facts = json.loads((confirmed / "search.json").read_text())
    claim = facts["savings"]
    assert set(CLAIM_KEYS) <= set(claim)
    scores = pd.read_parquet(confirmed / "confirm.parquet")
    baselines = pd.read_parquet(confirmed / "baselines.parquet")
    samplers = baselines[baselines["method"] == SAMPLERS]
    wanted = full_width_samplers(load_problem(find_search(confirmed)[1]))
    assert len(samplers) == len(wanted)
    assert all(set(widths) == {1.0} for widths in samplers["widths"])
    by_steps = samplers.groupby(samplers["widths"].map(len))["fid"].min()
    found = scores[scores["kind"] == "sampler"].drop_duplicates(["plan", "sampler"])
    assert sorted(found["fid_search"]) == pytest.approx(sorted(by_steps))
    full_width = scores[scores["kind"].isin(["full", "sampler"])]
    means = full_width.groupby(["plan", "sampler"])["fid"].mean()
    assert (claim["reference"]["plan"], claim["reference"]["sampler"]) == means.idxmin()
    assert claim["seeds"] == 2
    for judge, score in zip(claim["blurred_reference"]["judges"], ("fid", "second_fid"), strict=True):
        best = judge["reference_plan"], judge["reference_sampler"]
        assert best == full_width.groupby(["plan", "sampler"])[score].mean().idxmin()
        own = full_width[(full_width["plan"] == best[0]) & (full_width["sampler"] == best[1])]
        blurred = own.drop_duplicates("noise_seed")[score.replace("fid", "blurred_fid")]
        assert judge["score"] == pytest.approx(blurred.mean())


def test_seeds_are_added_up_to_the_most_for_near_points_alone(searched_copy: Path) -> None:
    change(searched_copy, "confirm.max_seeds=4", "confirm.margin=0.2")
    run_confirmation(searched_copy, None, None)
    confirmed = pd.read_parquet(searched_copy / "confirm.parquet")
    first = [FIRST_SEED, FIRST_SEED + 1]
    seeds = confirmed.groupby(["plan", "sampler"])["noise_seed"].agg(lambda column: tuple(sorted(set(column))))
    assert set(seeds) == {tuple(first), tuple(range(FIRST_SEED, FIRST_SEED + 4))}
    # Front and report use the seeds that all plans have.
    assert set(confirmed.loc[confirmed["used"], "noise_seed"]) == set(first)
    claim = json.loads((searched_copy / "search.json").read_text())["savings"]
    assert claim["looks"] == [2, 4]
    assert claim["level"] == pytest.approx(0.975)
    called: list[int] = []
    run_confirmation(searched_copy, None, None, lambda done, total: called.append(done))
    assert not called  # decided: a second call scores nothing
    same = ["kind", "plan", "sampler", "noise_seed", "fid"]
    again = pd.read_parquet(searched_copy / "confirm.parquet")
    assert sorted(again[same].to_numpy().tolist()) == sorted(confirmed[same].to_numpy().tolist())
    assert json.loads((searched_copy / "search.json").read_text())["savings"] == claim


def forget(directory: Path, plans: Sequence[str]) -> pd.DataFrame:
    """Remove the confirmed scores of plans of the search's own sampler; return the table as it was."""
    table = pd.read_parquet(directory / "confirm.parquet")
    write_table(table[~table["plan"].isin(plans) | (table["sampler"] != "")], directory / "confirm.parquet")
    return table


def change_results(monkeypatch: pytest.MonkeyPatch, changed: Callable[[Plan, int, Evaluation], Evaluation]) -> None:
    """Let what workers return of a plan and a noise seed go through a function."""
    score = PlanScorer.score

    def scoring(self: PlanScorer, plans: Any, images: int, on_result: Any, on_score: Any) -> list[Evaluation]:
        return score(self, plans, images, on_result, lambda i, found: on_score(i, changed(*plans[i], found)))

    monkeypatch.setattr(PlanScorer, "score", scoring)


SCORED = ["kind", "plan", "sampler", "noise_seed", "fid", "second_fid"]


def test_an_interrupted_confirmation_keeps_what_it_has_scored(
    confirmed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = copy_of_search(confirmed, tmp_path)
    plans = pd.read_parquet(directory / "front.parquet")["plan"].tolist()[:2]
    before = forget(directory, plans)
    seen: list[str] = []

    def interrupt(plan: Plan, seed: int, found: Evaluation) -> Evaluation:
        if len(seen) == 3:
            raise KeyboardInterrupt
        seen.append(plan.runs)
        return found

    with monkeypatch.context() as patch:
        change_results(patch, interrupt)
        with pytest.raises(KeyboardInterrupt):
            run_confirmation(directory, None, None)
    totals: list[int] = []
    run_confirmation(directory, None, None, lambda done, total: totals.append(total))
    assert totals == [1]  # two plans on two seeds each, and three of the scores are kept
    again = pd.read_parquet(directory / "confirm.parquet")
    pd.testing.assert_frame_equal(*(each[SCORED].sort_values(SCORED, ignore_index=True) for each in (again, before)))


def test_a_plan_that_fails_on_one_seed_is_left_out_and_named(
    confirmed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    directory = copy_of_search(confirmed, tmp_path)
    bad, good = pd.read_parquet(directory / "front.parquet")["plan"].tolist()[:2]
    before = forget(directory, [bad, good])

    def fail(plan: Plan, seed: int, found: Evaluation) -> Evaluation:
        return replace(found, error="not finite") if (plan.runs, seed) == (bad, FIRST_SEED + 1) else found

    with monkeypatch.context() as patch:
        change_results(patch, fail)
        run_confirmation(directory, None, None)
    assert f"the plan {bad} is left out of the confirmation: not finite" in caplog.text
    scores = pd.read_parquet(directory / "confirm.parquet")
    assert set(before["plan"]) - set(scores["plan"]) <= {bad}
    assert not len(scores[(scores["plan"] == bad) & (scores["sampler"] == "")])
    front = pd.read_parquet(directory / "front.parquet").set_index("plan")
    assert np.isnan(front.loc[bad, "fid_confirmed"])
    assert np.isfinite(front.loc[good, "fid_confirmed"])
    run_confirmation(directory, None, None)  # it is tried again
    again = pd.read_parquet(directory / "confirm.parquet")
    pd.testing.assert_frame_equal(*(each[SCORED].sort_values(SCORED, ignore_index=True) for each in (again, before)))


def test_looks_of_earlier_confirmations_count(tmp_path: Path) -> None:
    settings = tiny_settings(tmp_path, "confirm.seeds=5", "confirm.max_seeds=15")
    write_json(tmp_path / "search.json", {})
    for images, seeds, counted in (
        (1024, (5, 10, 15), 3),
        (1024, (20,), 4),
        (1024, (5, 10, 15), 4),
        (1024, (25,), 5),
        (4096, (5,), 6),
    ):
        rules = begin_looks(tmp_path, settings, images, seeds)
        assert (rules.looks, rules.all_looks) == (seeds, counted)
        assert rules.level == pytest.approx(1 - 0.05 / counted)


def test_looks_of_earlier_versions_count() -> None:
    before = {"images": 1024, "looks": [5, 10], "looks_at_other_images": 2}
    assert looks_taken({"savings": before}) == {(1024, 5), (1024, 10), (0, 0), (0, 1)}
    # Claims of 0.1 had no looks.
    assert looks_taken({"savings": {"claimed": True}}) == looks_taken({"savings": None}) == looks_taken({}) == set()


def claim_in(directory: Path) -> dict[str, Any]:
    return dict(json.loads((directory / "search.json").read_text())["savings"])


def test_a_confirmation_looks_at_its_own_numbers_of_seeds_alone_and_all_count(confirmed: Path, tmp_path: Path) -> None:
    directory = copy_of_search(confirmed, tmp_path)
    run_confirmation(directory, None, 3)
    claim = claim_in(directory)
    assert (claim["looks"], claim["level"]) == ([3], pytest.approx(0.975))
    assert claim["correction"]["looks"] == "Bonferroni over 2"
    assert (pd.read_parquet(directory / "front.parquet")["confirm_seeds"] == 3).all()
    # The reference is the best over the seeds of this call, not over the fewer ones of the first.
    scores = pd.read_parquet(directory / "confirm.parquet").query("kind in ('full', 'sampler')")
    best = scores.groupby(["plan", "sampler"])["fid"].mean().idxmin()
    assert (claim["reference"]["plan"], claim["reference"]["sampler"]) == best
    called: list[int] = []
    run_confirmation(directory, None, None, lambda done, total: called.append(done))
    assert not called
    claim = claim_in(directory)
    assert (claim["looks"], claim["level"]) == ([2], pytest.approx(0.975))


def test_an_interrupted_first_confirmation_makes_no_claim(
    confirmed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = copy_of_search(confirmed, tmp_path)
    facts = json.loads((directory / "search.json").read_text())
    write_json(directory / "search.json", facts | {"savings": None, "looks": []})
    table = pd.read_parquet(directory / "confirm.parquet")
    write_table(table[table["kind"] != "sampler"], directory / "confirm.parquet")

    def interrupt(plan: Plan, seed: int, found: Evaluation) -> Evaluation:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        change_results(patch, interrupt)
        with pytest.raises(KeyboardInterrupt):
            run_confirmation(directory, None, 4)
    run_baselines(directory, ["uniform"], None)
    facts = json.loads((directory / "search.json").read_text())
    assert facts.get("savings") is None
    assert facts["looks"] == [[32, 4]]


@pytest.mark.parametrize("dearer", [1.0, 10.0])
def test_no_claim_is_made_where_a_full_width_sampler_could_not_be_scored(
    confirmed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dearer: float
) -> None:
    """Also one that costs more than full width at the search's own steps: it could be the reference, too."""
    directory = copy_of_search(confirmed, tmp_path)
    table = pd.read_parquet(directory / "confirm.parquet")
    plan, sampler = table.loc[table["kind"] == "sampler", ["plan", "sampler"]].iloc[-1]
    baselines = pd.read_parquet(directory / "baselines.parquet")
    baselines.loc[(baselines["plan"] == plan) & (baselines["sampler"] == sampler), "gflops"] *= dearer
    write_table(baselines, directory / "baselines.parquet")
    own = (table["plan"] == plan) & (table["sampler"] == sampler)
    write_table(table[~own], directory / "confirm.parquet")
    with monkeypatch.context() as patch:
        change_results(patch, lambda plan, seed, found: replace(found, error="out of memory"))
        run_confirmation(directory, None, None)
    claim = claim_in(directory)
    assert (claim["holds"], claim["flops_saved"], claim["more_may_help"]) == (False, None, False)
    assert "out of memory" in claim["lacking"]
    text = claim_sentence(claim)
    assert f"{plan} ({sampler}): out of memory" in text if sampler else f"{plan}: out of memory" in text
    run_confirmation(directory, None, None)
    assert claim_in(directory)["lacking"] == ""
    if dearer == 1.0:
        assert claim_in(directory) == claim_in(confirmed)


def test_no_claim_is_made_where_a_full_width_sampler_ran_out_of_time_before_the_confirmation(
    confirmed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    directory = copy_of_search(confirmed, tmp_path)
    problem = load_problem(find_search(directory)[1])
    late, without = full_width_samplers(problem)[-2:]
    baselines = pd.read_parquet(directory / "baselines.parquet")
    names = [f"{each.plan.runs} {each.name}" for each in (late, without)]
    lost = (baselines["plan"] + " " + baselines["sampler"]).isin(names)
    assert lost.sum() == 2
    write_table(baselines[~lost], directory / "baselines.parquet")
    reasons = {late.plan: "it took longer than 60 s (workers.limit_minutes)", without.plan: "the score is not finite"}

    def fail(plan: Plan, seed: int, found: Evaluation) -> Evaluation:
        if plan not in reasons or seed >= FIRST_SEED:
            return found
        return Evaluation(np.nan, np.nan, np.nan, "", found.images, seed, error=reasons[plan])

    with monkeypatch.context() as patch:
        change_results(patch, fail)
        run_confirmation(directory, None, None)
    # A sampler that makes no images is no rival; one that nobody has waited for may be the best.
    claim = claim_in(directory)
    assert (claim["holds"], claim["flops_saved"], claim["more_may_help"]) == (False, None, False)
    assert claim["lacking"] == f"{late.plan.runs} ({late.name}): {reasons[late.plan]}"
    assert claim["lacking"] in claim_sentence(claim)
    assert f"({late.name}): {reasons[late.plan]}); `stepfront baselines` tries them again" in caplog.text
    assert f"{reasons[without.plan]}); they are not tried again" in caplog.text
    caplog.clear()
    scored = list[Plan]()
    with monkeypatch.context() as patch:
        change_results(patch, lambda plan, seed, found: scored.append(plan) or found)  # type: ignore[func-returns-value]
        run_confirmation(directory, None, None)
        assert late.plan in scored
        assert without.plan not in scored
        assert claim_in(directory)["lacking"] == ""
        scored.clear()
        run_confirmation(directory, None, None)
    assert not scored
    assert not lacks_samplers(problem, directory)
    assert "tries them again" not in caplog.text


def test_a_sampler_without_a_finite_score_stands_beside_nothing(confirmed: Path, tmp_path: Path) -> None:
    """Also where it is the only one of its number of steps."""
    directory = copy_of_search(confirmed, tmp_path)
    before = read_tables(directory)
    table = pd.read_parquet(directory / "baselines.parquet")
    failed = (table["method"] == SAMPLERS) & (table["widths"].map(len) == table["widths"].map(len).max())
    values = {"fid": np.nan, "state": "failed", "error": "the score is not finite"}
    table.loc[failed, list(values)] = list(values.values())
    write_table(table, directory / "baselines.parquet")
    shown = read_tables(directory)
    assert len(shown.baselines) == len(before.baselines) - failed.sum() > 0
    best = best_samplers(shown.baselines, shown.front)
    assert best["fid"].notna().all()
    assert not best["steps"].isin(table.loc[failed, "widths"].map(len)).any()
    page = write_report(directory).read_text()
    section = page[page.index("Full width with the best solver and grid") :]
    assert "nan" not in section[: section.index("</table>")].lower()
    plan = str(table.loc[failed, "plan"].iloc[0])
    with pytest.raises(InputError, match=f"no full-width sampler {plan} among"):
        fit_sampler_weights(directory, plan, 1, lambda text: None)
    rows = plans_to_confirm(directory, load_problem(find_search(directory)[1]))
    assert (plan, "sampler") not in {(row["plan"], row["kind"]) for row in rows}
    write_comparison_with_baselines(directory, find_search(directory)[1])
    assert pd.read_parquet(directory / "versus.parquet")["baseline_fid"].notna().all()
    assert not [finding for finding in check_search(directory) if not finding.usable]


def test_a_failure_on_an_added_seed_keeps_the_scores_of_complete_looks(
    confirmed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = copy_of_search(confirmed, tmp_path)
    change(directory, "confirm.max_seeds=4", "confirm.margin=0.2")
    first = pd.read_parquet(directory / "confirm.parquet")
    with monkeypatch.context() as patch:
        change_results(
            patch, lambda plan, seed, found: replace(found, error="broken") if seed == FIRST_SEED + 3 else found
        )
        run_confirmation(directory, None, None)
    again = pd.read_parquet(directory / "confirm.parquet")
    pd.testing.assert_frame_equal(*(each[SCORED].sort_values(SCORED, ignore_index=True) for each in (again, first)))
    claim = claim_in(directory)
    assert (claim["seeds"], claim["lacking"]) == (2, "")
    assert json.loads((directory / "search.json").read_text())["looks"] == [[32, 2], [32, 4]]


def test_a_confirmation_that_scores_nothing_is_an_error_beside_other_numbers_of_images(
    confirmed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = copy_of_search(confirmed, tmp_path)
    change_results(monkeypatch, lambda plan, seed, found: replace(found, error="broken"))
    with pytest.raises(InputError, match=r"no plan could be confirmed; the reason for .*: broken"):
        run_confirmation(directory, 48, None)
    assert claim_in(directory) == claim_in(confirmed)


def test_the_same_judge_twice_is_refused(searched_copy: Path) -> None:
    change(searched_copy, "confirm.features.name=classifier", "confirm.features.classifier_epochs=1")
    with pytest.raises(InputError, match=r"confirm.features 'classifier', is the same as the search's own"):
        run_confirmation(searched_copy, None, None)
    change(searched_copy, "confirm.features.seed=1")
    run_confirmation(searched_copy, None, None)
    assert set(pd.read_parquet(searched_copy / "confirm.parquet")["second_features"]) == {"classifier"}


def test_the_same_judge_with_other_last_digits_is_refused(fresh: Path) -> None:
    """Another number of threads rounds otherwise, and so changes the digest."""
    problem = load_problem(tiny_settings(fresh, "features.name=random", "confirm.features.name=random"))
    weights = load(problem.features.content)
    rounded = save({name: value * (1 + 1e-6) for name, value in weights.items()})
    other = replace(problem, features=replace(problem.features, content=rounded))
    with pytest.raises(InputError, match="is the same as the search's own"):
        load_second_judge(other)


def test_the_second_judge_is_another_than_the_first(fresh: Path) -> None:
    overrides = ("features.name=random", "confirm.features.training_steps=2")
    problem = load_problem(tiny_settings(fresh, *overrides))
    assert load_second_judge(problem).features.name == "degradations"
    assert load_second_judge(load_problem(tiny_settings(fresh))).features.name == "random"


def test_too_few_images_and_seeds_are_refused(searched_copy: Path) -> None:
    with pytest.raises(InputError, match=r"8 generated images given; the judge 'classifier' needs at least 16"):
        run_confirmation(searched_copy, 8, None)
    with pytest.raises(InputError, match="1 noise seed"):
        run_confirmation(searched_copy, None, 1)


@pytest.mark.parametrize("margin", ["0", "-0.1", ".nan"])
def test_a_margin_of_nothing_is_refused(margin: str) -> None:
    with pytest.raises(InputError, match=r"confirm\.margin"):
        settings_from(TINY, [f"confirm.margin={margin}"])


def test_samplers_are_deterministic_and_distinct(fresh: Path) -> None:
    problem = load_problem(tiny_settings(fresh))
    samplers = full_width_samplers(problem)
    own = [sampler for sampler in samplers if not sampler.name]
    assert [len(sampler.plan.widths) for sampler in own] == [3, 4, 5, 6]
    assert problem.uniform_plan(1.0) in [sampler.plan for sampler in own]
    assert {sampler.plan.solver for sampler in samplers} == {"ddim", *(solver for solver, _ in CHOSEN)}
    assert len({(sampler.plan.solver, sampler.plan.times) for sampler in samplers}) == len(samplers)
    assert len(samplers) <= (1 + len(CHOSEN)) * 4


def test_a_search_of_ten_steps_or_more_is_held_against_more_steps_too(fresh: Path) -> None:
    tried = {
        steps: sorted({len(s.plan.widths) for s in full_width_samplers(problem)})
        for steps in (6, 11)
        for problem in [load_problem(tiny_settings(fresh, f"sampler.steps={steps}"))]
    }
    assert tried == {6: [3, 4, 5, 6], 11: [3, 4, 5, 6, 7, 9, 11, 15, 20]}


def learning_settings(place: Path) -> RunSettings:
    """Return settings whose solver and grid are among the hand samplers, and whose plans run on learnt ones."""
    return tiny_settings(place, "sampler.times=learnt", "sampler.solver=unipc_2", "sampler.grid=quadratic")


def test_a_hand_sampler_at_full_width_is_not_named_as_the_learnt_one_of_as_many_steps(fresh: Path) -> None:
    problem = load_problem(learning_settings(fresh))
    times = tuple(np.linspace(900, 10, 6))
    learnt = replace(problem, samplers={6: LearntSampler("unipc_2", times, times)})
    samplers = full_width_samplers(learnt)
    assert [sampler.plan.learnt for sampler in samplers if not sampler.name] == [learnt.samplers[6]]
    names = [(sampler.plan.runs, sampler.name) for sampler in samplers]
    assert len(set(names)) == len(names)
    assert ("6x1.00", "unipc_2, quadratic grid") in names


def test_two_plans_of_one_name_are_refused(fresh: Path) -> None:
    plan = load_problem(tiny_settings(fresh)).uniform_plan(1.0)
    row = {"plan": plan.runs, "sampler": "", "_plan": plan}
    assert plans_by_key([row, dict(row)]) == {("6x1.00", ""): plan}
    with pytest.raises(InputError, match=r"two plans to confirm are called 6x1\.00, and differ in times, solver"):
        plans_by_key([row, row | {"_plan": replace(plan, solver="unipc_2")}])


def test_scores_of_full_width_on_another_sampler_than_todays_are_taken_again(confirmed: Path, tmp_path: Path) -> None:
    """Before the column `learnt`, a hand sampler's scores could stand under the name of the learnt one."""
    directory = copy_of_search(confirmed, tmp_path)
    path = directory / "confirm.parquet"
    table = pd.read_parquet(path)
    full = (table["plan"] == "6x1.00") & (table["sampler"] == "")
    write_table(table.assign(learnt=table["learnt"].mask(full, "a digest"), fid=table["fid"].mask(full, 0.0)), path)
    totals: list[int] = []
    run_confirmation(directory, None, None, lambda done, total: totals.append(total))
    assert set(totals) == {2}  # one plan on two seeds
    again = pd.read_parquet(path)
    columns = ["kind", "plan", "sampler", "noise_seed", "learnt", "fid"]
    pd.testing.assert_frame_equal(
        *(each[columns].sort_values(columns[:4], ignore_index=True) for each in (again, table))
    )
    write_table(table.drop(columns="learnt"), path)  # a search without learnt samplers has no such scores
    totals.clear()
    run_confirmation(directory, None, None, lambda done, total: totals.append(total))
    assert not totals


def test_full_width_samplers_that_were_named_otherwise_are_named_again(confirmed: Path, tmp_path: Path) -> None:
    directory = copy_of_search(confirmed, tmp_path)
    path = directory / "baselines.parquet"
    table = pd.read_parquet(path)
    named = table["sampler"] == "unipc_2, quadratic grid"
    assert named.any()
    write_table(table.assign(sampler=table["sampler"].mask(named, "")), path)
    problem = load_problem(find_search(directory)[1])
    assert lacks_samplers(problem, directory)
    run_confirmation(directory, None, None)
    assert not lacks_samplers(problem, directory)
    assert pd.read_parquet(path)["sampler"].tolist() == table["sampler"].tolist()
