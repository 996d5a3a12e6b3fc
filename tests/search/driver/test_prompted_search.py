"""A search over a network that reads text, as it is: one width, guided or not, with deep features reused or not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from stepfront.errors import InputError
from stepfront.search.config import RunSettings
from stepfront.search.driver.publish import draw_report, make_evaluator, sample_pixels
from stepfront.search.driver.search import run_search
from stepfront.search.driver.train import run_training
from stepfront.search.export.pipeline_folder import write_pipeline
from stepfront.search.export.program import FrontPoint, write_point
from stepfront.search.problem.load import load_problem, load_problem_of_search
from stepfront.search.records.plan_rows import plan_of_row
from stepfront.search.records.run_directory import find_search
from stepfront.tables.points import pick_point
from stepfront.tables.search_tables import read_snapshot
from stepfront.trainers.inference.cost import count_width
from stepfront.trainers.interop.diffusers_import import import_diffusers
from stepfront.trainers.networks.card import read_card
from stepfront.trainers.variant import parse_variants
from tests.search.conftest import Silent, tiny_settings
from tests.trainers.interop.test_prompted import make_conditions, make_text_pipeline


def on_prompts(directory: Path, *overrides: str) -> RunSettings:
    """Return the tiny run on the imported network in `directory`, guided, with all variants of its one width."""
    card = read_card(directory / "start")
    own = {
        "supernet": directory / "start",
        "network": card.network.model_dump(mode="json", exclude_defaults=True) | {"widths": [1.0]},
        "diffusion": card.diffusion.model_dump(mode="json", exclude_defaults=True),
        "data.autoencoder": directory / "sd" / "vae",
        "data.cache": directory / "cache",
        "sampler.guidance": 3.0,
        "space.variants": ["1.0", "1.0u", "1.0r", "1.0ru"],
        "budget.trials": 6,
    }
    return tiny_settings(directory, *(f"{key}={value}" for key, value in own.items()), *overrides)


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("prompted")
    pipeline = make_text_pipeline(directory / "sd", side=4)
    import_diffusers(pipeline, directory / "start", conditions=make_conditions(directory / "c.safetensors"))
    return run_search(on_prompts(directory), False, Silent(), lambda text: None)


def test_plans_choose_guidance_and_reuse_at_counted_cost(searched: Path) -> None:
    trials, card = read_snapshot(searched).trials, read_card(searched.parents[1] / "start")
    assert (trials["state"] == "complete").all()
    cost = count_width(card.network, 2, 4, 1.0)
    for _, row in trials.iterrows():
        variants = parse_variants(str(row["plan"]))
        macs = [
            (cost.reuse_macs if step.reuse else cost.macs) * (2 if step.guided else 1)  # type: ignore[operator]
            for step in variants
        ]
        assert row["gflops"] == pytest.approx(2e-9 * sum(macs), rel=1e-9)
    assert {step.mark for plan in trials["plan"] for step in parse_variants(str(plan))} > {"", "u"}


def test_its_points_are_sampled_and_reported(searched: Path) -> None:
    problem = load_problem_of_search(find_search(searched)[1], searched)
    evaluator, row = make_evaluator(problem, searched), pick_point(read_snapshot(searched).front, "best")
    images = sample_pixels(evaluator, plan_of_row(row), 4, 3)
    assert images.shape == (4, 1, 8, 8)
    labels = evaluator.labels(64, 3)
    assert set(np.unique(labels)) == {0, 1, 2}  # every prompt is drawn
    assert draw_report(searched).exists()


@pytest.mark.parametrize("runs", ["2x1.00u 4x1.00", "1x1.00 1x1.00r 1x1.00rg5 1x1.00ru 1x1.00u 1x1.00ru"])
def test_a_plan_goes_out_as_a_pipeline_of_diffusers(
    searched: Path, tmp_path: Path, diffusers_programs: None, runs: str
) -> None:
    from diffusers import DiffusionPipeline

    snapshot, problem = read_snapshot(searched), load_problem_of_search(find_search(searched)[1], searched)
    plan = problem.plan(parse_variants(runs))
    (tmp_path / "out").mkdir()
    write_pipeline(FrontPoint(problem, snapshot.facts, snapshot.front.iloc[0], plan), tmp_path / "out", "out", "mit")
    example = np.asarray(Image.open(tmp_path / "out" / "example.png"))
    evaluator = make_evaluator(problem, searched)
    np.testing.assert_array_equal(example[:32:4, :32:4], sample_pixels(evaluator, plan, 1, 0)[0, 0])
    card = " ".join((tmp_path / "out" / "README.md").read_text().split())
    assert "8x8 images with 1 channel of 3 prompts, imported from diffusers; its FID is against " in card
    assert "trained on" not in card
    pipeline = DiffusionPipeline.from_pretrained(str(tmp_path / "out"), trust_remote_code=True)
    pipeline.save_pretrained(tmp_path / "saved")
    pipeline = DiffusionPipeline.from_pretrained(str(tmp_path / "saved"), trust_remote_code=True)
    assert pipeline.unet.config.texts == ["a shirt", "a coat", "a boot"]
    images = pipeline(batch_size=4, seed=3, output_type="pt").images.numpy()
    expected = sample_pixels(evaluator, plan, 4, 3)
    np.testing.assert_allclose(images * 255, expected, atol=0.5 + 1e-2)


def test_what_it_can_not_do_is_one_line(searched: Path, tmp_path: Path) -> None:
    settings = on_prompts(searched.parents[1])
    with pytest.raises(InputError, match="is searched as it is, not trained: stepfront search CONFIG"):
        run_training(settings, False, lambda report: None, lambda text: None)
    problem, row = load_problem_of_search(find_search(searched)[1], searched), read_snapshot(searched).front.iloc[0]
    with pytest.raises(InputError, match="cannot export the weights of a network of family 'unet2d_condition'"):
        write_point(problem, {}, row, problem.uniform_plan(1.0), tmp_path)
    with pytest.raises(InputError, match="reads text as onnx; possible: --as torch-export or pipeline"):
        write_point(problem, {}, row, problem.uniform_plan(1.0), tmp_path, "onnx")
    reusing = problem.plan(parse_variants("1x1.00 5x1.00r"))
    with pytest.raises(InputError, match=r"possible: front points without r, or --as pipeline$"):
        write_point(problem, {}, row, reusing, tmp_path, "torch-export")
    with pytest.raises(InputError, match=r"reads 2x4x4, and the latents of .* are 2x8x8"):
        load_problem(on_prompts(searched.parents[1], "data.size=16"))
