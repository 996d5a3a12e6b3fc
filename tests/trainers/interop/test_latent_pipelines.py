"""Pipelines in a latent space: a U-Net, its autoencoder and its scheduler, sampled as diffusers samples them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from typer.testing import CliRunner

from stepfront import load_settings
from stepfront.errors import InputError
from stepfront.search.cli.main import app
from stepfront.trainers.diffusion.noise import Noise
from stepfront.trainers.diffusion.plan import Plan
from stepfront.trainers.diffusion.sampler import Sampler
from stepfront.trainers.interop.diffusers_import import import_diffusers
from stepfront.trainers.interop.model_weights import WEIGHTS_FILE
from stepfront.trainers.latent_space import LatentSpace
from stepfront.trainers.latents.autoencoder import Factors, load_autoencoder
from stepfront.trainers.latents.decoder import PackedDecoder
from stepfront.trainers.networks.supernet_files import load_supernet
from stepfront.trainers.noise_schedule import noise_schedule
from tests.trainers.interop.test_model_folders import SMALL
from tests.trainers.latents.conftest import make_autoencoder

diffusers = pytest.importorskip("diffusers")
KINDS = {"VQModel": {"num_vq_embeddings": 32}, "AutoencoderKL": {}}
CPU = torch.device("cpu")


@pytest.fixture(scope="module", params=KINDS)
def pipeline(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a small random LDMPipeline on 8x8 latents of two channels."""
    folder = tmp_path_factory.mktemp(request.param)
    made = make_autoencoder(request.param, folder / "made", **KINDS[request.param])
    autoencoder = getattr(diffusers, request.param).from_pretrained(made)
    torch.manual_seed(0)
    unet = diffusers.UNet2DModel(**SMALL, in_channels=2, out_channels=2)
    betas = {"beta_schedule": "scaled_linear", "beta_start": 0.0015, "beta_end": 0.0195}
    scheduler = diffusers.DDIMScheduler(**betas, clip_sample=False, timestep_spacing="trailing")
    diffusers.LDMPipeline(vqvae=autoencoder, unet=unet, scheduler=scheduler).save_pretrained(folder / "ldm")
    return folder / "ldm"


def test_it_makes_the_images_of_diffusers(pipeline: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    card = import_diffusers(pipeline, tmp_path / "start", (0.5, 1.0))
    assert card.diffusion.schedule == "scaled_linear"
    assert card.made_with["autoencoder"] == str(pipeline / "vqvae")
    assert (card.made_with["latent_pixels"], card.made_with["pixel_channels"]) == (2, 1)
    supernet, _ = load_supernet(tmp_path / "start")
    times, noise = (999.0, 749.0, 499.0, 249.0), Noise(0, (2, 8, 8))
    sampler = Sampler({1.0: supernet.subnet(1.0)}, noise_schedule(card.diffusion), noise, CPU)
    z = next(sampler.sample(Plan(times, (1.0,) * 4, "ddim"), 2, 2))
    autoencoder = load_autoencoder(pipeline)
    assert autoencoder.factors == Factors((0.0,), (0.18215,))
    space = LatentSpace(
        autoencoder="", digest="", shift=(0.0,), scale=(0.18215,), channels=2, resolution=8, image_channels=1,
        image_resolution=16,
    )  # fmt: skip
    images = PackedDecoder.of(autoencoder, space).unpack(CPU)(z)

    theirs: Any = diffusers.LDMPipeline.from_pretrained(pipeline)
    theirs.set_progress_bar_config(disable=True)
    module = f"{type(theirs).__module__}.randn_tensor"
    monkeypatch.setattr(module, lambda shape, **options: torch.from_numpy(noise.initial(range(2))))
    expected = theirs(batch_size=2, num_inference_steps=4, output_type="np").images
    ours = (images / 2 + 0.5).clamp(0, 1).permute(0, 2, 3, 1).numpy()
    assert expected.std() > 0.01
    assert abs(ours - expected).max() < 1e-3


def test_a_vqmodel_encodes_and_decodes_as_diffusers_does(pipeline: Path) -> None:
    ours, x = load_autoencoder(pipeline), torch.rand(3, 1, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1
    theirs = getattr(diffusers, ours.kind).from_pretrained(pipeline / "vqvae")
    with torch.no_grad():
        encoded = theirs.encode(x)
        expected = encoded.latents if ours.kind == "VQModel" else encoded.latent_dist.mean
        images = theirs.decode(expected).sample
    torch.testing.assert_close(ours.encode(x), expected, atol=1e-5, rtol=0)
    torch.testing.assert_close(ours.decode(expected), images, atol=1e-5, rtol=0)


def test_the_written_settings_name_the_autoencoder(pipeline: Path, tmp_path: Path) -> None:
    out = str(tmp_path / "run" / "start")
    done = CliRunner().invoke(app, ["import", "diffusers", str(pipeline), "--out", out, "--widths", "1"])
    assert done.exit_code == 0, done.output
    data = load_settings(tmp_path / "run" / "start" / "config.yaml").data
    assert (data.autoencoder, data.size, data.channels) == (str(pipeline / "vqvae"), 16, 1)


def test_what_is_missing_or_other_is_one_line(pipeline: Path, tmp_path: Path) -> None:
    def says(change: dict[str, Any], *without: str) -> str:
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        shutil.copytree(pipeline, folder)
        for name in without:
            (folder / name).unlink()
        index = json.loads((folder / "model_index.json").read_text())
        (folder / "model_index.json").write_text(json.dumps(index | change))

        def use() -> None:
            import_diffusers(folder, folder / "out", (1.0,))
            load_autoencoder(folder)

        with pytest.raises(InputError) as caught:
            use()
        assert "\n" not in str(caught.value)
        return str(caught.value)

    other = says({"vqvae": ["diffusers", "AutoencoderDC"]})
    assert "works in the latent space of its vqvae, a AutoencoderDC; possible: AutoencoderKL, " in other
    assert "names the autoencoder vqvae (" in says({}, "vqvae/config.json")
    assert f"no {WEIGHTS_FILE} in " in says({}, f"unet/{WEIGHTS_FILE}")
    assert f"no {WEIGHTS_FILE} in " in says({}, f"vqvae/{WEIGHTS_FILE}")


def test_a_pickle_is_refused_with_the_command_that_converts_it(pipeline: Path, tmp_path: Path) -> None:
    shutil.copytree(pipeline, tmp_path / "ldm")
    file = tmp_path / "ldm" / "unet" / WEIGHTS_FILE
    torch.save(load_file(file), file.parent / "diffusion_pytorch_model.bin")
    file.unlink()
    with pytest.raises(
        InputError, match=r"unet/diffusion_pytorch_model.bin is a pickle.* convert it: python -c "
    ) as no:
        import_diffusers(tmp_path / "ldm", tmp_path / "out", (1.0,))
    exec(str(no.value).partition('python -c "')[2].removesuffix('"'))
    import_diffusers(tmp_path / "ldm", tmp_path / "out", (1.0,))


def test_classes_and_latents_go_together(pipeline: Path, tmp_path: Path) -> None:
    shutil.copytree(pipeline, tmp_path / "ldm")
    unet = diffusers.UNet2DModel(**SMALL, in_channels=2, out_channels=2, num_class_embeds=4)
    unet.save_pretrained(tmp_path / "ldm" / "unet")
    said = list[str]()
    card = import_diffusers(tmp_path / "ldm", tmp_path / "start", (0.5, 1.0), null_class="last", say=said.append)
    assert (card.network.classes, card.image_channels) == (3, 2)
    assert card.made_with["autoencoder"] == str(tmp_path / "ldm" / "vqvae")
    assert any(text.startswith("compared with diffusers") for text in said)
