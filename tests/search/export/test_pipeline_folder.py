"""An exported pipeline, loaded by diffusers where stepfront is not: its images, arguments and refusals."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from stepfront.search.export.exported.sample import Point, grid
from stepfront.search.export.pipeline_folder import write_pipeline
from stepfront.search.export.program import FrontPoint, write_point
from tests.search.export.conftest import PLANS, WITHOUT_STEPFRONT

pytest.importorskip("diffusers")

ALONE = (
    WITHOUT_STEPFRONT
    + """
import json, os, textwrap
import numpy as np, torch
from diffusers import DiffusionPipeline

folder, out = Path(sys.argv[1]), {}

def load(name, **more):
    pipeline = DiffusionPipeline.from_pretrained(str(folder / name), trust_remote_code=True, **more)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline

def seeded(*seeds):
    return [torch.Generator().manual_seed(seed) for seed in seeds]

def says(call):
    try:
        call()
    except ValueError as error:
        return str(error)

for name in ("plain", "noisy", "flow", "learnt", "reuse", "guided reuse", "own scales", "classes"):
    pipeline = load(name)
    pictures = pipeline(batch_size=8, seed=3).images
    out[name] = np.stack([np.asarray(picture) for picture in pictures])
    out[f"{name} pt"] = pipeline(8, seed=3, output_type="pt").images.numpy()
    out[f"{name} np"] = pipeline(8, seed=3, output_type="np").images
    together = pipeline(generator=seeded(1, 2, 3), output_type="pt").images
    alone = pipeline(generator=seeded(2), output_type="pt").images
    out[f"{name} generators"] = torch.stack([together[1], alone[0]]).numpy()
    one = [pipeline(4, generator=torch.manual_seed(5), output_type="pt").images for _ in range(2)]
    out[f"{name} generator"] = torch.stack(one).numpy()
reusing = load("guided reuse")
for scale in (0.0, 1.0, 4.0):
    images = reusing(4, seed=3, class_labels=2, guidance_scale=scale, output_type="pt").images
    out[f"reuse at {scale}"] = images.numpy()
own = load("own scales")
for scale in (0.0, 1.0, 5.0):
    images = own(4, seed=3, class_labels=2, guidance_scale=scale, output_type="pt").images
    out[f"own scales at {scale}"] = images.numpy()
os.chdir(folder)
for name in ("plain", "classes"):  # as the card says
    card = Path(name, "README.md").read_text()
    exec(textwrap.dedent(card[card.index("    from diffusers") : card.index("`seed` gives")]))
    out[f"{name} card"] = np.stack([np.asarray(picture) for picture in images])
out["label"] = pipeline(4, seed=3, class_labels=2, output_type="pt").images.numpy()
out["labels"] = pipeline(seed=3, class_labels=[2, 0, 2, 1], output_type="pt").images.numpy()
out["unguided"] = pipeline(4, seed=3, class_labels=2, guidance_scale=1.0, output_type="pt").images.numpy()
out["said"] = json.dumps({
    "steps": says(lambda: pipeline(num_inference_steps=50)),
    "own steps": len(pipeline(num_inference_steps=4).images),
    "label": says(lambda: pipeline(class_labels=3)),
    "both": says(lambda: pipeline(seed=1, generator=torch.manual_seed(1))),
    "seed": says(lambda: pipeline(seed=1.5)),
    "numbers": says(lambda: pipeline(3, class_labels=[1, 2])),
    "no images": says(lambda: pipeline(0)),
    "output": says(lambda: pipeline(output_type="latent")),
    "no classes": says(lambda: load("plain")(class_labels=1)),
    "no guidance": says(lambda: load("plain")(guidance_scale=2.0)),
    "width": says(lambda: pipeline.unet(torch.zeros(1, 3, 8, 8), 5, 0.75, torch.zeros(1, dtype=int))),
})
for kind in (torch.float16, torch.bfloat16):
    half = load("learnt", torch_dtype=kind)
    assert half.unet.dtype == kind
    out[str(kind)] = half(8, seed=3, output_type="pt").images.numpy()
half.save_pretrained(folder / "saved", variant="fp16")
out["saved"] = load("saved", variant="fp16", torch_dtype=kind)(8, seed=3, output_type="pt").images.numpy()
assert not {"stepfront", "trainers", "search"} & set(sys.modules)
np.savez(sys.argv[2], **out)
"""
)


@pytest.fixture(scope="module")
def made(points: dict[str, FrontPoint], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """Return a folder of pipelines and what a fresh process without stepfront made of them."""
    folder = tmp_path_factory.mktemp("pipelines")
    for name, point in points.items():
        (folder / name).mkdir()
        write_pipeline(point, folder / name, name, "mit")
        write_point(point.problem, point.facts, point.row, point.plan, folder / "programs" / name)
    # diffusers copies the programs of a folder into its cache, and must not ask the network for anything.
    environment = os.environ | {"HF_HOME": str(folder / "cache"), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-I", "-c", ALONE, str(folder), str(folder / "out.npz")]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    with np.load(folder / "out.npz") as arrays:
        return folder, dict(arrays)


@pytest.mark.parametrize("name", PLANS)
def test_the_images_are_those_of_the_program(made: tuple[Path, dict[str, Any]], name: str) -> None:
    folder, out = made
    expected = Point(folder / "programs" / name, "cpu").sample([3] * 8, range(8))
    np.testing.assert_array_equal(out[name].reshape(expected.shape), expected)
    for kind, order in (("pt", (0, 2, 3, 1)), ("np", (0, 1, 2, 3))):
        values = out[f"{name} {kind}"].transpose(order)
        assert values.dtype == np.float32
        assert values.min() >= 0
        assert values.max() <= 1
        np.testing.assert_allclose(values * 255, expected, atol=0.5 + 1e-4)
    assert expected.std() > 10


@pytest.mark.parametrize("name", PLANS)
def test_a_generator_decides_the_noise_of_its_images(made: tuple[Path, dict[str, Any]], name: str) -> None:
    _, out = made
    first, again = out[f"{name} generator"]
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first[0], first[1])
    among_others, alone = out[f"{name} generators"]
    np.testing.assert_allclose(among_others, alone, atol=1e-4)


def test_labels_and_guidance_are_those_of_the_program(made: tuple[Path, dict[str, Any]]) -> None:
    folder, out = made
    point = Point(folder / "programs" / "classes", "cpu")
    for name, labels in (("label", [2] * 4), ("labels", [2, 0, 2, 1])):
        expected = point.sample([3] * 4, range(4), labels)
        np.testing.assert_allclose(out[name].transpose(0, 2, 3, 1) * 255, expected, atol=0.5 + 1e-4)
    point.plan["condition"]["guidance"] = 1.0
    expected = point.sample([3] * 4, range(4), [2] * 4)
    np.testing.assert_allclose(out["unguided"].transpose(0, 2, 3, 1) * 255, expected, atol=0.5 + 1e-4)


def test_reused_features_are_those_of_the_call_with_the_same_label(made: tuple[Path, dict[str, Any]]) -> None:
    folder, out = made
    point = Point(folder / "programs" / "guided reuse", "cpu")
    images = {}
    for scale in (1.0, 4.0):
        point.plan["condition"]["guidance"] = scale
        expected = point.sample([3] * 4, range(4), [2] * 4)
        images[scale] = out[f"reuse at {scale}"].transpose(0, 2, 3, 1) * 255
        np.testing.assert_allclose(images[scale], expected, atol=0.5 + 1e-4)
    assert np.abs(images[1.0] - images[4.0]).max() > 10
    # At scale 0 a guided step has the call without a label alone; the unguided step after it still needs the other.
    point.plan["condition"]["guidance"] = 1e-9
    expected = point.sample([3] * 4, range(4), [2] * 4)
    np.testing.assert_allclose(out["reuse at 0.0"].transpose(0, 2, 3, 1) * 255, expected, atol=0.5 + 1e-3)


@pytest.mark.parametrize(("scale", "in_program"), [(0.0, 1e-9), (1.0, 1 + 1e-9), (5.0, 5.0)])
def test_another_guidance_leaves_the_scales_of_steps(
    made: tuple[Path, dict[str, Any]], scale: float, in_program: float
) -> None:
    """At scale 0 or 1 a step has one call, and a later one of scale 40 reuses the features of both."""
    folder, out = made
    point = Point(folder / "programs" / "own scales", "cpu")
    point.plan["condition"]["guidance"] = in_program
    expected = point.sample([3] * 4, range(4), [2] * 4)
    assert [step.get("guidance") for step in point.plan["steps"]] == [None, 40.0, None, 12.5, None]
    np.testing.assert_allclose(out[f"own scales at {scale}"].transpose(0, 2, 3, 1) * 255, expected, atol=0.5 + 1e-3)
    for step in point.plan["steps"]:
        step.pop("guidance", None)
    assert np.abs(point.sample([3] * 4, range(4), [2] * 4).astype(int) - expected).max() > 10


@pytest.mark.parametrize(("kind", "apart"), [("torch.float16", 0.002), ("torch.bfloat16", 0.01)])
def test_half_precision_is_close(made: tuple[Path, dict[str, Any]], kind: str, apart: float) -> None:
    _, out = made
    difference = np.abs(out[kind] - out["learnt pt"])
    assert 0 < difference.mean() < apart


def test_a_pipeline_that_is_saved_loads_again(made: tuple[Path, dict[str, Any]]) -> None:
    folder, out = made
    np.testing.assert_array_equal(out["saved"], out["torch.bfloat16"])
    assert (folder / "saved" / "unet" / "diffusion_pytorch_model.fp16.safetensors").exists()


def test_the_code_of_the_card_makes_sixteen_images(made: tuple[Path, dict[str, Any]]) -> None:
    folder, out = made
    for name, labels in (("plain", None), ("classes", [0] * 16)):
        expected = Point(folder / "programs" / name, "cpu").sample([0] * 16, range(16), labels)
        np.testing.assert_array_equal(out[f"{name} card"].reshape(expected.shape), expected)
    assert "trained on digits. At" in (folder / "plain" / "README.md").read_text()


def test_what_does_not_fit_is_refused_in_a_line(made: tuple[Path, dict[str, Any]]) -> None:
    said = json.loads(str(made[1]["said"]))
    assert said == {
        "steps": "num_inference_steps is 50, and this plan has 4 steps; leave it out, or export a point of the front "
        "with that many",
        "own steps": 1,
        "label": "no class 3; possible: 0 to 2",
        "both": "seed and generator both say where the noise comes from; give one of them",
        "seed": "seed 1.5; possible: integers from 0 to 2**64 - 1",
        "numbers": "3 batch_size, 2 class_labels; possible: one number of images from 1 on",
        "no images": "0 batch_size; possible: one number of images from 1 on",
        "output": "output_type 'latent'; possible: pil, np, pt",
        "no classes": "these networks have no classes; leave class_labels out",
        "no guidance": "guidance_scale is 2.0, and these networks have no classes; leave it out",
        "width": "width 0.75; possible: 0.25, 0.5, 1",
    }


def test_the_folder_has_a_card_and_an_example(made: tuple[Path, dict[str, Any]]) -> None:
    folder, _ = made
    assert {path.name for path in (folder / "classes").iterdir()} == {
        *("README.md", "example.png", "model_index.json", "pipeline.py", "unet", "scheduler")
    }
    _, head, text = (folder / "learnt" / "README.md").read_text().split("---\n", 2)
    assert yaml.safe_load(head)["license"] == "mit"
    assert 'DiffusionPipeline.from_pretrained("learnt", trust_remote_code=True)' in text
    assert "| FID, on held-out noise seeds | classifier | 9.5 | 9 to 10 | 5 x 1024 |" in text
    assert "| solver | dpmpp_2m, with learnt times and coefficients |" in text
    assert PLANS["learnt"].runs in text
    example = np.asarray(Image.open(folder / "plain" / "example.png"))
    first = Point(folder / "programs" / "plain", "cpu").sample([0], [0])[0, :, :, 0]
    np.testing.assert_array_equal(example[:32:4, :32:4], first)  # small images are enlarged


def test_points_that_cost_much_have_few_examples_and_say_so(
    points: dict[str, FrontPoint], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stepfront.search.export.pipeline_folder.MANY_GFLOPS", 0.4)  # the point takes 0.5
    said: list[str] = []
    write_pipeline(points["plain"], tmp_path, "plain", "mit", said.append)
    assert said == ["sampling 4 example images on cpu: 2 GFLOPs"]
    assert "![Images 0 to 3 of noise seed 0](example.png)" in (tmp_path / "README.md").read_text()
    example = np.asarray(Image.open(tmp_path / "example.png"))
    write_point(points["plain"].problem, {}, points["plain"].row, points["plain"].plan, tmp_path / "program")
    images = Point(tmp_path / "program", "cpu").sample([0] * 4, range(4))
    np.testing.assert_array_equal(example[::4, ::4], grid(images)[:, :, 0])
