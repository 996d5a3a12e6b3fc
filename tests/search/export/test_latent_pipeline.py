"""Exported pipelines of networks on latents, loaded where stepfront is not: diffusers' autoencoders and raw TAESD."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from stepfront.search.export.exported.sample import Point
from stepfront.search.export.pipeline_folder import write_pipeline
from stepfront.search.export.program import FrontPoint, write_point
from stepfront.trainers.latent_space import LatentSpace
from stepfront.trainers.latents.autoencoder import load_autoencoder
from stepfront.trainers.latents.decoder import PackedDecoder
from tests.search.export.conftest import WITHOUT_STEPFRONT
from tests.trainers.latents.conftest import make_autoencoder

pytest.importorskip("diffusers")

KINDS = ("AutoencoderKL", "AutoencoderTiny", "taesd")
SHIFT, SCALE = (0.1, -0.2), (2.0, 0.5)
ALONE = (
    WITHOUT_STEPFRONT
    + """
import numpy as np, torch
from diffusers import DiffusionPipeline

folder, out = Path(sys.argv[1]), {}

def load(path, **more):
    pipeline = DiffusionPipeline.from_pretrained(str(folder / path), trust_remote_code=True, **more)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline

for kind in sys.argv[2:]:
    pipeline = load(kind)
    out[kind] = np.stack([np.asarray(picture) for picture in pipeline(batch_size=5, seed=3).images])
    out[f"{kind} latent"] = pipeline(batch_size=5, seed=3, output_type="latent").images.numpy()
    pipeline.save_pretrained(folder / "saved")
    again = load("saved")(batch_size=5, seed=3).images
    assert np.array_equal(np.stack([np.asarray(picture) for picture in again]), out[kind])
    half = load("saved", torch_dtype=torch.bfloat16)
    out[f"{kind} half"] = half(batch_size=5, seed=3, output_type="np").images
large = load("AutoencoderKL")  # values inside its decoder exceed float16
large.vae.decoder.conv_in.weight.data *= 2e4
out["large"] = large(batch_size=2, seed=3, output_type="np").images
large.save_pretrained(folder / "large")
half = load("large", torch_dtype=torch.float16)
out["upcast"] = half(batch_size=2, seed=3, output_type="np").images
assert half.vae.dtype == torch.float16
half.vae.register_to_config(force_upcast=False)
try:
    half(batch_size=2, seed=3)
except ValueError as error:
    out["overflow"] = str(error)
half.vae.to(torch.float32)
out["mended"] = half(batch_size=2, seed=3, output_type="np").images
for parameter in pipeline.vae.parameters():
    parameter.data.fill_(float("nan"))
try:
    pipeline(seed=3)
except ValueError as error:
    out["nan"] = str(error)
np.savez(folder / "out.npz", **out)
"""
)


def make_raw_taesd(folder: Path) -> Path:
    """Write raw weights of a small TAESD with a pool branch: 2 latent channels of half the side."""
    folder.mkdir()
    for part, layers in {
        "encoder": {"0": (4, 1), "1": (4, 4), "2": (4, 4), "3": (2, 4)},
        "decoder": {"1": (4, 2), "3": (4, 4), "4": (4, 4), "5": (1, 4)},
    }.items():
        generator, weights = torch.Generator().manual_seed(1), dict[str, torch.Tensor]()

        def draw(*shape: int, generator: torch.Generator = generator) -> torch.Tensor:
            return torch.randn(shape, generator=generator) / max(1, shape[0] * (9 if len(shape) > 1 else 1)) ** 0.5

        for number, (out, into) in layers.items():
            if number == list(layers)[1]:  # a block, with TAEF2's branch
                for inner in (0, 2, 4):
                    weights |= {f"{number}.conv.{inner}.weight": draw(out, into, 3, 3)}
                    weights |= {f"{number}.conv.{inner}.bias": draw(out)}
                weights |= {
                    f"{number}.pool.0.weight": draw(8, out, 1, 1),
                    f"{number}.pool.3.weight": draw(out, 8, 1, 1),
                }
                weights |= {f"{number}.pool.1.weight": draw(8), f"{number}.pool.1.bias": draw(8)}
                continue
            weights[f"{number}.weight"] = draw(out, into, 3, 3)
            if number != list(layers)[2]:  # it halves the side, or doubles it
                weights[f"{number}.bias"] = draw(out)
        save_file(weights, folder / f"small_{part}.safetensors")
    (folder / "LICENSE").write_text("as it came\n")
    return folder


def on_latents(point: FrontPoint, folder: Path) -> FrontPoint:
    """Return a point of 8x8 latents instead, which the autoencoder in `folder` decodes to 16x16 images."""
    shapes: dict[str, Any] = {"channels": 2, "resolution": 8, "image_channels": 1, "image_resolution": 16}
    autoencoder = load_autoencoder(folder)
    space = LatentSpace(autoencoder=str(folder), digest=autoencoder.digest, shift=SHIFT, scale=SCALE, **shapes)
    problem = point.problem
    problem.decoder = PackedDecoder.of(autoencoder, space)
    return replace(point, problem=problem)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, np.ndarray]]:
    """Return a folder of pipelines and what a fresh process without stepfront made of them."""
    from tests.search.export.conftest import make_point

    folder = tmp_path_factory.mktemp("pipelines")
    for kind in KINDS:
        source = folder / f"source-{kind}"
        make_raw_taesd(source) if kind == "taesd" else make_autoencoder(kind, source)
        point = on_latents(make_point("latents", folder / f"net-{kind}"), source)
        (folder / kind).mkdir()
        write_pipeline(point, folder / kind, kind, "mit")
        write_point(point.problem, point.facts, point.row, point.plan, folder / "programs" / kind, decodes=False)
        source.rename(folder / f"moved-{kind}")  # the pipeline's folder needs nothing of it
    environment = os.environ | {"HF_HOME": str(folder / "cache"), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-I", "-c", ALONE, str(folder), *KINDS]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    with np.load(folder / "out.npz") as arrays:
        return folder, dict(arrays)


@pytest.mark.parametrize("kind", KINDS)
def test_the_images_are_those_of_the_program(made: tuple[Path, dict[str, np.ndarray]], kind: str) -> None:
    folder, out = made
    point, autoencoder = Point(folder / "programs" / kind, "cpu"), load_autoencoder(folder / f"moved-{kind}")
    shift, scale = (torch.tensor(values)[:, None, None] for values in (SHIFT, SCALE))
    point.decoder = lambda z: autoencoder.decode(z / scale + shift)
    point.plan["decoder"] = {"batch": 2}
    expected = point.sample([3] * 5, range(5))
    assert expected.shape == (5, 16, 16, 1)
    assert expected.std() > 10
    np.testing.assert_allclose(out[kind].reshape(expected.shape).astype(int), expected, atol=1)
    assert (out[kind].reshape(expected.shape) != expected).mean() < 1e-2  # where a value is rounded otherwise
    assert out[f"{kind} latent"].shape == (5, 2, 8, 8)
    difference = np.abs(out[f"{kind} half"] * 255 - expected)
    assert 0 < difference.mean() < 8


def test_an_autoencoder_that_overflows_in_half_precision_decodes_in_float32(
    made: tuple[Path, dict[str, np.ndarray]],
) -> None:
    out = made[1]
    assert np.abs(out["upcast"] - out["large"]).mean() < 0.03
    assert str(out["overflow"]).startswith(
        "the autoencoder decodes finite latents to NaN in float16; decode in float32"
    )
    np.testing.assert_array_equal(out["mended"], out["upcast"])


def test_decoding_to_nan_in_float32_is_the_fault_of_the_weights(made: tuple[Path, dict[str, np.ndarray]]) -> None:
    said = str(made[1]["nan"])
    assert said == (
        "the autoencoder decodes finite latents to NaN in float32; its weights are damaged, or were saved in a "
        "precision that overflows"
    )


def test_the_card_names_the_autoencoder_and_its_licence_comes_along(made: tuple[Path, dict[str, np.ndarray]]) -> None:
    folder, _ = made
    text = (folder / "AutoencoderKL" / "README.md").read_text()
    assert "A diffusion model of 16x16 images with 1 channel" in text
    assert "which the autoencoder in vae/ decodes: AutoencoderKL, digest `" in text
    assert "lets diffusers run pipeline.py, unet/*.py and\nscheduler/*.py of this folder" in text
    assert "unet/*.py, scheduler/*.py and\nvae/*.py of this" in (folder / "taesd" / "README.md").read_text()
    assert (folder / "taesd" / "vae" / "LICENSE").read_text() == "as it came\n"
