"""A class-conditional supernet with guidance, the whole way: trained, searched, sampled and taken elsewhere."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from stepfront.errors import InputError
from stepfront.files import read_json, write_json
from stepfront.search.config import RunSettings, settings_from
from stepfront.search.driver.publish import (
    GRID_IMAGES,
    draw_images,
    draw_report,
    log_to_mlflow,
    make_evaluator,
    sample_pixels,
)
from stepfront.search.driver.search import run_search
from stepfront.search.driver.train import run_training
from stepfront.search.export.program import export_point
from stepfront.search.export.registry import register_point
from stepfront.search.mlflow_runs.client import make_client
from stepfront.search.mlflow_runs.written import WrittenSearch, WrittenTraining
from stepfront.search.problem.costs import read_costs
from stepfront.search.problem.load import load_problem, load_problem_of_search
from stepfront.search.problem.pricing import level_prices
from stepfront.search.problem.problem import SearchProblem
from stepfront.search.problem.spec import comparison_spec
from stepfront.search.records.plan_rows import plan_of_row
from stepfront.search.records.run_directory import find_search, resume_settings
from stepfront.search.scoring.baselines import run_baselines
from stepfront.tables.parquet import read_table
from stepfront.tables.points import pick_point
from stepfront.tables.schema import BASELINES
from stepfront.tables.search_tables import read_snapshot
from stepfront.trainers.data.image_grid import image_grid
from stepfront.trainers.diffusion.schedule import noise_schedule
from stepfront.trainers.inference.cost import count_width
from stepfront.trainers.networks.card import CARD_FILE
from stepfront.trainers.networks.supernet_files import load_supernet
from stepfront.trainers.step_losses.loss_gap import gap_table
from tests.search.cli.test_cli import call
from tests.search.conftest import TINY, Silent, own_store, tiny_settings
from tests.search.driver.test_points_in_use import run_program

CLASSES, STEPS, IMAGES, SEED = 10, 6, 12, 3


def conditional(directory: Path, *overrides: str) -> RunSettings:
    given = ("name=digits", f"network.classes={CLASSES}", "sampler.guidance=2.0", "budget.trials=7")
    return tiny_settings(directory, *given, "training.samples_every=9", *overrides)  # one grid, at the end


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory, empty_store: Path) -> Path:
    """Return a finished search with guidance 2 that is in MLflow."""
    place = tmp_path_factory.mktemp("conditional")
    settings = conditional(place, own_store(place, empty_store))
    run_training(settings, False, lambda report: None, lambda text: None)
    directory = run_search(settings, False, Silent(), lambda text: None)
    assert log_to_mlflow(settings, directory, True)[0] == ""
    return directory


def problem_of(directory: Path) -> SearchProblem:
    return load_problem_of_search(find_search(directory)[1], directory)


def sampled(directory: Path, label: int | None = None) -> np.ndarray:
    """Return what `stepfront sample` makes of the knee, [N, H, W, C]."""
    row = pick_point(read_snapshot(directory).front, "knee")
    evaluator = make_evaluator(problem_of(directory), directory)
    return np.moveaxis(sample_pixels(evaluator, plan_of_row(row), IMAGES, SEED, label), 1, 3)


def drawn(directory: Path) -> np.ndarray:
    labels = make_evaluator(problem_of(directory), directory).labels(IMAGES, SEED)
    assert labels is not None
    return labels


# --- costs ------------------------------------------------------------------------------------------------------------


def test_every_cost_counts_two_calls_a_step(searched: Path) -> None:
    snapshot, costs, found = read_snapshot(searched), read_costs(searched), problem_of(searched)
    macs = {w: count_width(found.card.network, 1, 8, w).macs for w in found.card.network.widths}
    trials = snapshot.trials
    assert (trials["state"] == "complete").all()
    for _, row in trials.iterrows():
        assert row["gflops"] == pytest.approx(sum(4e-9 * macs[w] for w in row["widths"]), rel=1e-12)
        latency = sum(2 * (costs[w].latency_ms or 0) for w in row["widths"])
        assert row["latency_ms"] == pytest.approx(latency, rel=1e-12)
        assert row["calls"] + row["calls_saved"] == 2 * STEPS * row["images"]
    facts = snapshot.facts
    assert (facts["classes"], facts["guidance"], facts["calls_a_step"]) == (CLASSES, 2.0, 2)
    assert facts["network_gflops"] == pytest.approx((trials["gflops"] * trials["images"]).sum())
    levels = np.array([0, 2, 1])
    prices = level_prices(found, costs)
    assert prices["gflops"](levels) == pytest.approx(sum(2 * 4e-9 * macs[w] for w in (0.25, 1.0, 0.5)))
    assert facts["full"]["gflops"] == pytest.approx(STEPS * 4e-9 * macs[1.0])


def test_baselines_cost_as_much_a_step(searched: Path) -> None:
    run_baselines(searched, ["fewer_steps"], 3)
    baselines = read_table(searched / BASELINES)
    few = baselines[baselines["method"] == "fewer_steps"]
    each = read_costs(searched)[1.0]
    assert each.calls == 2
    spread = (1, 4, 6)  # of 6 steps, evenly by cost, all of them among it
    expected = [steps * 4e-9 * each.macs for steps in spread]
    assert sorted(few["gflops"]) == pytest.approx(expected)


def test_the_gap_is_that_of_the_conditional_prediction_whatever_the_guidance(searched: Path) -> None:
    found = problem_of(searched)
    supernet, card = load_supernet(found.settings.supernet_directory)
    rows = found.data.held_out_sample(32)
    labels = torch.from_numpy(found.data.held_out_labels[rows])  # type: ignore[index]
    denoisers = {w: (lambda x, t, w=w: supernet(x, t, w, labels)) for w in supernet.widths}
    pixels = found.data.held_out_images[rows]
    expected = gap_table(denoisers, noise_schedule(card.diffusion), found.times, pixels, torch.device("cpu"))  # type: ignore[arg-type]
    np.testing.assert_allclose(found.gap, expected, rtol=0, atol=1e-7)


def test_scores_of_another_guidance_do_not_mix(searched: Path) -> None:
    settings = resume_settings(searched)
    other = settings.model_copy(update={"sampler": settings.sampler.model_copy(update={"guidance": 1.0})})
    with pytest.raises(InputError, match=r"was begun with sampler .*'guidance': 2\.0"):
        run_search(other, False, Silent(), lambda text: None)


def test_the_spec_of_guidance_1_is_that_of_searches_older_than_it(trained: Path) -> None:
    found = load_problem(tiny_settings(trained))
    costs = {w: count_width(found.card.network, 1, 8, w) for w in found.card.network.widths}
    sampler = comparison_spec(found, costs)["sampler"]
    assert sampler == {
        "solver": "ddim",
        "grid": "trailing",
        "steps": STEPS,
        "clip": False,
    }


# --- samples ----------------------------------------------------------------------------------------------------------


def test_sample_takes_a_label(searched: Path, monkeypatch, capsys, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    out = tmp_path / "threes.png"
    words = ("sample", str(searched), "--images", str(IMAGES), "--seed", str(SEED), "--out")
    code, _, error = call(monkeypatch, capsys, *words, str(out), "--label", "3")
    assert (code, error) == (0, "")
    with np.load(out.with_suffix(".npz")) as file:
        assert file["labels"].tolist() == [3] * IMAGES
        np.testing.assert_array_equal(file["images"], sampled(searched, 3))
    code, _, _ = call(monkeypatch, capsys, *words, str(tmp_path / "all.png"))
    assert code == 0
    with np.load(tmp_path / "all.npz") as file:
        np.testing.assert_array_equal(file["labels"], drawn(searched))
        np.testing.assert_array_equal(file["images"], sampled(searched))
    code, _, error = call(monkeypatch, capsys, *words, str(tmp_path / "no.png"), "--label", "10")
    assert (code, error) == (2, "stepfront: no class 10; possible: 0 to 9\n")
    assert not (tmp_path / "no.png").exists()


def test_the_report_draws_classes_in_order_and_says_the_guidance(searched: Path) -> None:
    draw_images(problem_of(searched), searched)
    evaluator = make_evaluator(problem_of(searched), searched)
    pixels = sample_pixels(evaluator, problem_of(searched).uniform_plan(1.0), GRID_IMAGES, 0)
    labels = evaluator.labels(GRID_IMAGES, 0)
    assert labels is not None
    in_order = np.stack([pixels[i] for label in range(CLASSES) for i in range(GRID_IMAGES) if labels[i] == label])
    with Image.open(searched / "images" / "full.png") as picture:
        np.testing.assert_array_equal(np.asarray(picture), np.asarray(image_grid(in_order, 8)))
    assert "6 steps, ddim, guidance 2.0, encoding stages" in draw_report(searched).read_text()


# --- elsewhere --------------------------------------------------------------------------------------------------------


def test_an_exported_program_samples_the_same_images(
    searched: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    done = export_point(searched, "knee", out)
    assert done["condition"]["guidance"] == 2.0
    words = ["--images", str(IMAGES), "--seed", str(SEED), "--out"]
    labelled = [*words, str(tmp_path / "3.npz"), "--label", "3"]
    ran = subprocess.run([sys.executable, "-I", str(out / "sample.py"), *labelled], capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    run_program(out, monkeypatch, *words, str(tmp_path / "None.npz"))
    for label in (3, None):
        with np.load(tmp_path / f"{label}.npz") as alone:
            np.testing.assert_array_equal(alone["images"], sampled(searched, label))
    with pytest.raises(SystemExit):
        run_program(out, monkeypatch, "--label", "10")
    assert "no class 10; possible: 0 to 9" in capsys.readouterr().err


def test_a_registered_model_takes_a_column_of_labels(searched: Path) -> None:
    done = register_point(searched, "knee")
    mlflow.set_tracking_uri(str(find_search(searched)[1].tracking.uri))
    model = mlflow.pyfunc.load_model(f"models:/{done.model}/{done.version}")
    assert model.metadata.get_input_schema().input_names() == ["seed", "image", "label"]
    seeds, labels = [SEED] * IMAGES, drawn(searched)
    np.testing.assert_array_equal(model.predict(pd.DataFrame({"seed": seeds})), sampled(searched))
    named = model.predict(pd.DataFrame({"seed": seeds, "label": labels}))
    np.testing.assert_array_equal(named, sampled(searched))
    threes = model.predict(pd.DataFrame({"seed": seeds, "label": [3] * IMAGES}))
    np.testing.assert_array_equal(threes, sampled(searched, 3))
    with pytest.raises(mlflow.exceptions.MlflowException, match="no class 10; possible: 0 to 9"):
        model.predict(pd.DataFrame({"seed": [SEED], "label": [10]}))


def test_the_runs_of_search_and_training_show_the_registered_model(searched: Path) -> None:
    done = register_point(searched, "cheapest")
    _, settings = find_search(searched)
    client = make_client(str(settings.tracking.uri))
    version = client.get_model_version(done.model, done.version)
    model_id = version.tags["logged_model"]
    model = client.get_logged_model(model_id)
    search, training = WrittenSearch.read(searched), WrittenTraining.read(settings.supernet_directory)
    assert (model.status, model.source_run_id, model.name) == ("READY", search.run_id, f"trial-{done.point['trial']}")
    assert model.params["plan"] == done.point["plan"]
    assert model.tags["digest"] == version.tags["digest"]
    assert not register_point(searched, "cheapest").new
    for run in (search, training):
        shown = client.get_run(run.run_id).outputs.model_outputs
        assert [one.model_id for one in shown].count(model_id) == 1
    linked = {"name": done.model, "version": done.version}
    assert linked in json.loads(model.tags["mlflow.modelVersions"])
    found = client.search_logged_models([search.experiment_id], f"source_run_id = '{search.run_id}'")
    assert model_id in {one.model_id for one in found}
    mlflow.set_tracking_uri(str(settings.tracking.uri))
    asked = pd.DataFrame({"seed": [SEED] * 3, "image": range(3), "label": [4] * 3})
    images = [
        mlflow.pyfunc.load_model(f"models:/{place}").predict(asked)
        for place in (model_id, f"{done.model}/{done.version}")
    ]
    np.testing.assert_array_equal(*images)


def test_mlflow_knows_the_guidance(searched: Path) -> None:
    _, settings = find_search(searched)
    client = make_client(str(settings.tracking.uri))
    params = client.get_run(WrittenSearch.read(searched).run_id).data.params
    assert (params["guidance"], params["steps"]) == ("2.0", str(STEPS))


# --- what does not belong together ------------------------------------------------------------------------------------


def test_a_model_that_came_without_a_null_class_is_not_guided(searched: Path, tmp_path: Path) -> None:
    _, settings = find_search(searched)
    shutil.copytree(settings.supernet_directory, tmp_path / "net")
    card = read_json(tmp_path / "net" / CARD_FILE, "card")
    card["made_with"] = {"imported": "diffusers", "null_class": "none"}
    write_json(tmp_path / "net" / CARD_FILE, card)
    imported = settings.model_copy(update={"supernet": str(tmp_path / "net")})
    with pytest.raises(InputError, match=r"guidance 2 needs a null class, and .* was imported without one; train it"):
        load_problem(imported)
    unguided = settings.sampler.model_copy(update={"guidance": 1.0})
    load_problem(imported.model_copy(update={"sampler": unguided}))


WRONG = {
    "guidance without classes": (("sampler.guidance=2",), "sampler.guidance 2 needs a class-conditional network"),
    "nothing to guide away from": (
        ("network.classes=10", "sampler.guidance=2", "training.drop_labels=0"),
        "sampler.guidance 2 needs training.drop_labels above 0",
    ),
    "negative": (("network.classes=10", "sampler.guidance=-1"), "sampler.guidance: input should be greater than or"),
    "no class": (("network.classes=0",), "network.classes: input should be greater than 0"),
    "labels to drop": (("training.drop_labels=0.3",), "training.drop_labels 0.3 needs a class-conditional network"),
}


@pytest.mark.parametrize("case", WRONG)
def test_settings_that_do_not_belong_together(case: str) -> None:
    overrides, expected = WRONG[case]
    with pytest.raises(InputError) as refused:
        settings_from(TINY, overrides)
    assert expected in str(refused.value)
    assert "\n" not in str(refused.value)


def test_an_unconditional_supernet_refuses_labels_and_classes(trained: Path) -> None:
    with pytest.raises(InputError, match=r"trained with network\.classes None, not 10"):
        run_training(tiny_settings(trained, "network.classes=10"), False, lambda report: None, lambda text: None)
    with pytest.raises(InputError, match="was trained with other network settings"):
        load_problem(tiny_settings(trained, "network.classes=10"))
