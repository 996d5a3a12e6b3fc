"""Latents the whole way: a supernet trained on them, searched, confirmed, sampled, and refused where they differ."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pytest
import torch

from stepfront.errors import InputError
from stepfront.files import write_json
from stepfront.search.config import RunSettings
from stepfront.search.driver.publish import draw_images, draw_report, make_evaluator, sample_pixels
from stepfront.search.driver.search import run_search
from stepfront.search.driver.train import run_training
from stepfront.search.export.mlflow_model import save_model
from stepfront.search.export.pipeline_folder import export_pipeline
from stepfront.search.export.program import export_point
from stepfront.search.problem.costs import read_costs
from stepfront.search.problem.decoder_cost import read_decoder_cost
from stepfront.search.problem.evaluator_parts import local_parts
from stepfront.search.problem.load import load_problem, load_problem_of_search
from stepfront.search.records.plan_rows import plan_of_row
from stepfront.search.records.run_directory import find_search
from stepfront.search.scoring.confirm import run_confirmation
from stepfront.tables.points import pick_point
from stepfront.tables.search_tables import read_snapshot
from stepfront.trainers.data import to_float
from stepfront.trainers.diffusion.noise import Noise
from stepfront.trainers.diffusion.sampler import Sampler
from stepfront.trainers.diffusion.schedule import noise_schedule
from stepfront.trainers.evaluator import Evaluator
from stepfront.trainers.inference.cost import count_width
from stepfront.trainers.latents.autoencoder import load_autoencoder
from stepfront.trainers.latents.reconstruction import ensure_reconstruction
from stepfront.trainers.metrics.fid import Moments
from stepfront.trainers.networks.card import CARD_FILE, read_card
from stepfront.trainers.networks.supernet_files import load_supernet
from stepfront.trainers.step_losses.loss_gap import gap_table
from tests.search.conftest import Silent, tiny_settings
from tests.trainers.latents.conftest import make_autoencoder
from tests.trainers.latents.test_autoencoder import with_config

SEED, IMAGES = 3, 6
CPU = torch.device("cpu")


def on_latents(directory: Path, *overrides: str) -> RunSettings:
    """Return the tiny run on latents of the autoencoder in `directory`, whose channels have no scale of their own."""
    given = (f"data.autoencoder={directory / 'autoencoder'}", f"data.cache={directory / 'cache'}")
    own = (*given, "data.flip=true", "training.samples_every=9")  # one grid, at the end
    return tiny_settings(directory, *own, "budget.trials=5", *overrides)


@pytest.fixture(scope="module")
def trained_on_latents(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("latents")
    made = make_autoencoder("AutoencoderTiny", directory / "made")
    with_config(made, directory / "autoencoder", "scaling_factor", "shift_factor")
    said: list[str] = []
    run_training(on_latents(directory), False, lambda report: None, said.append)
    assert [line for line in said if line.startswith("the autoencoder alone scores FID")]
    return directory


@pytest.fixture(scope="module")
def searched(trained_on_latents: Path) -> Path:
    return run_search(on_latents(trained_on_latents), False, Silent(), lambda text: None)


def test_the_card_keeps_the_autoencoder(trained_on_latents: Path) -> None:
    card = read_card(trained_on_latents / "tiny" / "supernet")
    assert (card.image_channels, card.resolution) == (2, 4)
    assert card.latents is not None
    assert card.latents.digest == load_autoencoder(trained_on_latents / "autoencoder").digest
    assert card.latents.autoencoder == str(trained_on_latents / "autoencoder")
    assert (card.latents.image_channels, card.latents.image_resolution, card.latents.factor) == (1, 8, 2)
    assert len(card.latents.shift) == len(card.latents.scale) == 2


def test_a_card_of_pixels_is_as_it_was(trained: Path) -> None:
    assert "latents" not in json.loads((trained / "tiny" / "supernet" / CARD_FILE).read_text())


def test_costs_are_the_networks_and_decoding_stands_apart(searched: Path) -> None:
    snapshot, decoder = read_snapshot(searched), read_decoder_cost(searched)
    assert decoder is not None
    card = read_card(searched.parent / "supernet")
    macs = {width: count_width(card.network, 2, 4, width).macs for width in card.network.widths}
    assert (snapshot.trials["state"] == "complete").all()
    for _, row in snapshot.trials.iterrows():
        assert row["gflops"] == pytest.approx(sum(2e-9 * macs[width] for width in row["widths"]), rel=1e-12)
    packed = load_problem_of_search(find_search(searched)[1], searched).decoder
    assert packed is not None
    assert snapshot.facts["gflops_decode"] == pytest.approx(2e-9 * packed.macs)
    assert snapshot.facts["latency_ms_decode"] == decoder.latency_ms > 0
    assert snapshot.facts["latent_shape"] == [2, 4, 4]


def test_the_report_says_what_decoding_costs_and_the_floor(searched: Path) -> None:
    text = draw_report(searched).read_text()
    assert "Plans make latents. Decoding takes another" in text
    assert "The autoencoder alone scores FID" in text
    assert "GFLOPs to decode an image" in text


def test_scores_are_of_decoded_images(searched: Path) -> None:
    """The search's FID, computed once more with the parts alone: sampler, diffusers' decoder, features, distance."""
    settings = find_search(searched)[1]
    problem, row = load_problem_of_search(settings, searched), read_snapshot(searched).trials.iloc[0]
    supernet, card = load_supernet(searched.parent / "supernet")
    assert card.latents is not None
    sampler = Sampler(
        {width: supernet.subnet(width) for width in supernet.widths},
        noise_schedule(card.diffusion),
        Noise(int(row["noise_seed"]), (2, 4, 4)),
        CPU,
    )
    z = torch.cat(list(sampler.sample(plan_of_row(row), int(row["images"]), 16)))
    shift, scale = (torch.tensor(values)[:, None, None] for values in (card.latents.shift, card.latents.scale))
    images = load_autoencoder(searched.parents[1] / "autoencoder").decode(z / scale + shift)
    assert images.shape[1:] == (1, 8, 8)
    fid = problem.reference.distance(Moments.of([problem.features.unpack(CPU)(images)]))
    assert row["fid"] == pytest.approx(fid, rel=1e-4)
    full = next(iter(sampler.sample(problem.uniform_plan(1.0), 32, 32)))
    assert row["paired"] == pytest.approx(float((z[:32] - full).double().square().mean()), rel=1e-3, abs=1e-9)


def test_the_gap_table_is_that_of_latents(searched: Path) -> None:
    problem = load_problem_of_search(find_search(searched)[1], searched)
    count, space = problem.gap_inputs.wanted, problem.data.latents
    assert space is not None
    pixels = problem.data.held_out_images[problem.data.held_out_sample(count)]
    encoded = load_autoencoder(searched.parents[1] / "autoencoder").encode(to_float(pixels))
    z = space.space.to_network(encoded.half()).numpy()
    supernet, card = load_supernet(searched.parent / "supernet")
    subnets = {width: supernet.subnet(width) for width in supernet.widths}
    expected = gap_table(subnets, noise_schedule(card.diffusion), problem.times, z, CPU)
    np.testing.assert_allclose(problem.gap, expected, atol=1e-5)


def test_samples_are_decoded(searched: Path) -> None:
    draw_images(load_problem_of_search(find_search(searched)[1], searched), searched)
    assert (searched / "images" / "full.png").exists()
    problem = load_problem_of_search(find_search(searched)[1], searched)
    row = pick_point(read_snapshot(searched).front, "knee")
    pixels = sample_pixels(make_evaluator(problem, searched), plan_of_row(row), IMAGES, SEED)
    assert pixels.shape == (IMAGES, 1, 8, 8)


def test_a_confirmation_judges_decoded_images(searched: Path) -> None:
    run_confirmation(searched, 32, 2, lambda done, total: None)
    assert read_snapshot(searched).front["fid_confirmed"].notna().all()


def test_nan_from_decoding_is_the_error_of_an_evaluation(searched: Path) -> None:
    problem = load_problem_of_search(find_search(searched)[1], searched)
    parts = local_parts(problem, read_costs(searched))
    assert parts.decoder is not None
    weights = {name: value * np.float32("nan") for name, value in parts.decoder.weights.items()}
    broken = Evaluator(replace(parts, decoder=replace(parts.decoder, weights=weights)))
    scored = broken(problem.uniform_plan(1.0), 16, 0)
    assert "decodes finite latents to values that are not finite" in scored.error
    with pytest.raises(InputError, match=r"decodes finite latents to values that are not finite"):
        list(broken.sample(problem.uniform_plan(1.0), 4, 0))


def test_the_floor_is_measured_once(trained_on_latents: Path) -> None:
    problem, folder = load_problem(on_latents(trained_on_latents)), trained_on_latents / "tiny" / "supernet"
    judge = (problem.features, problem.reference)
    found = ensure_reconstruction(problem.data, judge, folder, CPU)
    assert found is not None
    autoencoder, x = load_autoencoder(trained_on_latents / "autoencoder"), to_float(problem.data.held_out_images)
    features = problem.features.unpack(CPU)
    fid = problem.reference.distance(Moments.of([features(autoencoder.decode(autoencoder.encode(x)))]))
    assert found.fid == pytest.approx(fid, rel=1e-2)  # latents are kept as float16
    assert found.real_fid == pytest.approx(problem.reference.distance(Moments.of([features(x)])))
    assert found.images == len(x)
    before = (folder / "reconstruction.json").stat().st_mtime_ns
    assert ensure_reconstruction(problem.data, judge, folder, CPU) == found
    assert (folder / "reconstruction.json").stat().st_mtime_ns == before
    moved = replace(problem.reference, mean=problem.reference.mean + 1.0)
    other = ensure_reconstruction(problem.data, (problem.features, moved), folder, CPU)
    assert other is not None
    assert other.fid != found.fid


def test_another_autoencoder_is_refused(trained_on_latents: Path, tmp_path: Path) -> None:
    other = make_autoencoder("AutoencoderTiny", tmp_path / "other", seed=1)
    with pytest.raises(InputError, match=r"works on latents of another autoencoder .* set data.autoencoder to"):
        load_problem(on_latents(trained_on_latents, f"data.autoencoder={other}"))
    with pytest.raises(InputError, match=r"works on latents of the autoencoder .*; set data.autoencoder to its folder"):
        load_problem(on_latents(trained_on_latents, "data.autoencoder=null"))


def test_a_supernet_of_pixels_is_refused(trained: Path, trained_on_latents: Path, tmp_path: Path) -> None:
    settings = tiny_settings(
        trained, f"data.autoencoder={trained_on_latents / 'autoencoder'}", f"data.cache={tmp_path}"
    )
    with pytest.raises(InputError, match=r"works on pixels; leave out data.autoencoder"):
        load_problem(settings)


def test_latents_that_the_network_does_not_read_are_refused(
    trained_on_latents: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """An imported supernet does not know its autoencoder: the shape decides."""
    shutil.copytree(trained_on_latents / "tiny" / "supernet", tmp_path / "supernet")
    card = json.loads((tmp_path / "supernet" / CARD_FILE).read_text())
    write_json(tmp_path / "supernet" / CARD_FILE, card | {"data_fingerprint": "", "latents": None})
    own = (f"supernet={tmp_path / 'supernet'}",)
    load_problem(on_latents(trained_on_latents, *own))
    assert "may have been trained on another scale: name its own autoencoder" in caplog.text
    three = make_autoencoder("AutoencoderTiny", tmp_path / "three", latent_channels=3)
    with pytest.raises(InputError, match=r"reads 2x4x4, and the latents of .* are 3x4x4"):
        load_problem(on_latents(trained_on_latents, *own, f"data.autoencoder={three}"))
    with pytest.raises(InputError, match=r"reads 2x4x4, and the latents of .* are 2x8x8"):
        load_problem(on_latents(trained_on_latents, *own, "data.size=16"))


def test_clipping_is_refused(trained_on_latents: Path) -> None:
    with pytest.raises(InputError, match=r"sampler.clip clamps to \[-1, 1\], which latents exceed"):
        load_problem(on_latents(trained_on_latents, "sampler.clip=true"))


@pytest.mark.parametrize("form", ["program", "torch-export"])
def test_an_exported_program_decodes_the_same_images(searched: Path, tmp_path: Path, form: str) -> None:
    content = export_point(searched, "knee", tmp_path / "out", form)
    assert content["image_shape"] == [2, 4, 4]
    assert content["decoder"]["image_shape"] == [1, 8, 8]
    program = [sys.executable, "sample.py", "--images", str(IMAGES), "--seed", str(SEED), "--device", "cpu"]
    subprocess.run(program, cwd=tmp_path / "out", check=True, env={"OMP_NUM_THREADS": "1"}, capture_output=True)
    with np.load(tmp_path / "out" / "images.npz", allow_pickle=False) as file:
        images = np.moveaxis(file["images"], 3, 1)
    problem = load_problem_of_search(find_search(searched)[1], searched)
    row = pick_point(read_snapshot(searched).front, "knee")
    np.testing.assert_array_equal(
        images, sample_pixels(make_evaluator(problem, searched), plan_of_row(row), IMAGES, SEED)
    )


def test_a_pyfunc_decodes_the_same_images(searched: Path, tmp_path: Path) -> None:
    content = export_point(searched, "knee", tmp_path / "point")
    save_model(content, tmp_path / "point", tmp_path / "model")
    model = mlflow.pyfunc.load_model(str(tmp_path / "model"))
    images = np.moveaxis(model.predict(pd.DataFrame({"seed": [SEED] * IMAGES}), {"device": "cpu"}), 3, 1)
    problem = load_problem_of_search(find_search(searched)[1], searched)
    row = pick_point(read_snapshot(searched).front, "knee")
    np.testing.assert_array_equal(
        images, sample_pixels(make_evaluator(problem, searched), plan_of_row(row), IMAGES, SEED)
    )


def test_a_pipeline_of_diffusers_gives_the_same_images(
    searched: Path, tmp_path: Path, diffusers_programs: None
) -> None:
    from diffusers import DiffusionPipeline

    content = export_pipeline(searched, "knee", tmp_path / "knee", "mit")
    assert content["decoder"]["image_shape"] == [1, 8, 8]
    pipeline = DiffusionPipeline.from_pretrained(str(tmp_path / "knee"), trust_remote_code=True)
    images = pipeline(batch_size=IMAGES, seed=SEED, output_type="pt").images.numpy()
    problem = load_problem_of_search(find_search(searched)[1], searched)
    row = pick_point(read_snapshot(searched).front, "knee")
    expected = sample_pixels(make_evaluator(problem, searched), plan_of_row(row), IMAGES, SEED)
    np.testing.assert_allclose(images * 255, expected, atol=0.5 + 1e-2)
