"""Autoencoders of diffusers: the same numbers as diffusers' own, and one line for what can't be used."""

from __future__ import annotations

import importlib.util
import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from stepfront.errors import InputError
from stepfront.trainers.latent_space import LatentSpace
from stepfront.trainers.latents.autoencoder import load_autoencoder
from stepfront.trainers.latents.decoder import PackedDecoder
from tests.trainers.latents.conftest import make_autoencoder, random_images

WEIGHTS = "diffusion_pytorch_model.safetensors"
SPACE = LatentSpace(
    autoencoder="x", digest="d", shift=(0.5,), scale=(2.0,), channels=2, resolution=4, image_channels=1,
    image_resolution=8,
)  # fmt: skip


@pytest.mark.parametrize("kind", ["AutoencoderTiny", "AutoencoderKL"])
def test_encodes_and_decodes_as_diffusers_does(kind: str, tmp_path: Path) -> None:
    diffusers = pytest.importorskip("diffusers", reason="diffusers is not installed")
    folder, x = make_autoencoder(kind, tmp_path / "model"), random_images(3)
    theirs, ours = getattr(diffusers, kind).from_pretrained(folder), load_autoencoder(folder)
    with torch.no_grad():
        encoded = theirs.encode(x)
        expected = encoded.latents if kind == "AutoencoderTiny" else encoded.latent_dist.mean
        images = theirs.decode(expected).sample
    assert expected.shape == (3, 2, 4, 4)
    assert expected.std() > 1e-3
    torch.testing.assert_close(ours.encode(x), expected, atol=1e-5, rtol=0)
    torch.testing.assert_close(ours.decode(expected), images, atol=1e-5, rtol=0)
    packed = PackedDecoder.of(ours, SPACE)
    assert not any(name.startswith("encoder") for name in packed.weights)
    z = SPACE.to_network(expected)
    torch.testing.assert_close(packed.unpack(torch.device("cpu"))(z), images, atol=1e-5, rtol=0)


def test_macs_of_the_decoder_are_those_of_its_convolutions(tiny: Path) -> None:
    autoencoder = load_autoencoder(tiny)
    macs, side = 0, 4
    for name, weights in autoencoder.weights.items():
        if name.startswith("decoder.") and weights.ndim == 4:
            # The one upsampling stands before the first convolution without bias.
            side = 8 if f"{name.removesuffix('weight')}bias" not in autoencoder.weights else side
            macs += weights.numel() * side**2
    assert PackedDecoder.of(autoencoder, SPACE).macs == macs


@pytest.mark.parametrize(
    ("config", "shift", "scale"),
    [
        ({"scaling_factor": 0.5}, (0.0,), (0.5,)),
        ({"scaling_factor": 0.5, "shift_factor": 0.1}, (0.1,), (0.5,)),
        ({"scaling_factor": 0.5, "shift_factor": None}, (0.0,), (0.5,)),
        ({"scaling_factor": 2.0, "latents_mean": [1.0, 2.0], "latents_std": [0.5, 4.0]}, (1.0, 2.0), (4.0, 0.5)),
    ],
)
def test_factors_are_those_of_the_config(
    config: dict[str, object], shift: tuple[float], scale: tuple[float], tiny: Path, tmp_path: Path
) -> None:
    folder = with_config(tiny, tmp_path / "model", **config)
    factors = load_autoencoder(folder).factors
    assert factors is not None
    assert (factors.shift, factors.scale) == (shift, scale)


def test_a_config_without_factors_has_none(tiny: Path, tmp_path: Path) -> None:
    folder = with_config(tiny, tmp_path / "model", "scaling_factor", "shift_factor")
    assert load_autoencoder(folder).factors is None


def test_factors_that_are_no_scale_are_refused(tiny: Path, tmp_path: Path) -> None:
    folder = with_config(tiny, tmp_path / "model", scaling_factor=0.0)
    with pytest.raises(InputError, match=r"scaling_factor 0.0 .* a scale above 0"):
        _ = load_autoencoder(folder).factors


def test_the_folder_of_a_pipeline_is_its_vae(tiny: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny, tmp_path / "vae")
    (tmp_path / "model_index.json").write_text("{}")
    assert load_autoencoder(tmp_path).digest == load_autoencoder(tiny).digest


def test_another_seed_has_another_digest(tiny: Path, tmp_path: Path) -> None:
    other = make_autoencoder("AutoencoderTiny", tmp_path / "model", seed=1)
    assert load_autoencoder(other).digest != load_autoencoder(tiny).digest


def test_half_precision_is_computed_in_float32(tiny: Path, tmp_path: Path) -> None:
    folder = with_config(tiny, tmp_path / "model")
    save_file({name: value.half() for name, value in load_file(tiny / WEIGHTS).items()}, folder / WEIGHTS)
    assert load_autoencoder(folder).encode(random_images(1)).dtype == torch.float32


def test_a_pickle_is_refused_with_the_command_that_converts_it(tiny: Path, tmp_path: Path) -> None:
    folder = with_config(tiny, tmp_path / "model")
    weights = load_file(folder / WEIGHTS)
    (folder / WEIGHTS).unlink()
    torch.save(weights, folder / "diffusion_pytorch_model.bin")
    with pytest.raises(InputError, match=r"is a pickle.* convert it: python -c ") as refusal:
        load_autoencoder(folder)
    assert "\n" not in str(refusal.value)
    command = str(refusal.value).partition('python -c "')[2].removesuffix('"')
    exec(command)
    assert load_autoencoder(folder).digest == load_autoencoder(tiny).digest


def test_what_is_no_autoencoder_is_refused(tiny: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"is no folder"):
        load_autoencoder(tmp_path / "none")
    with pytest.raises(InputError, match=r"has no config.json"):
        load_autoencoder(tmp_path)
    with pytest.raises(InputError, match=r"holds a AutoencoderDC; possible: AutoencoderKL, AutoencoderTiny, VQ"):
        load_autoencoder(with_config(tiny, tmp_path / "dc", _class_name="AutoencoderDC"))
    with pytest.raises(InputError, match=r"do not fit its config: .*weight is"):
        load_autoencoder(with_config(tiny, tmp_path / "other", latent_channels=3))
    folder = with_config(tiny, tmp_path / "damaged")
    (folder / WEIGHTS).write_bytes((tiny / WEIGHTS).read_bytes()[:500])
    with pytest.raises(InputError, match=r"is not a complete safetensors file"):
        load_autoencoder(folder)


def test_missing_diffusers_is_named(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"needs diffusers.*pip install 'diffusers>=0.36'"):
        load_autoencoder(tiny)


def test_nan_from_decoding_is_said(tiny: Path, tmp_path: Path) -> None:
    folder = with_config(tiny, tmp_path / "model")
    weights = {
        k: v.fill_(float("nan")) if k == "decoder.layers.0.bias" else v for k, v in load_file(tiny / WEIGHTS).items()
    }
    save_file(weights, folder / WEIGHTS)
    decoder, z = PackedDecoder.of(load_autoencoder(folder), SPACE).unpack(torch.device("cpu")), torch.zeros(1, 2, 4, 4)
    with pytest.raises(InputError, match=r"decodes finite latents to values that are not finite"):
        decoder.check_finite(z, decoder(z))
    assert decoder.why_not_finite(z * float("nan"), decoder(z)) == ""  # the network's fault


def with_config(folder: Path, copy: Path, *without: str, **others: object) -> Path:
    """Copy an autoencoder with other values in its config, or without some."""
    shutil.copytree(folder, copy)
    config = json.loads((folder / "config.json").read_text())
    config = {key: value for key, value in config.items() if key not in without} | others
    (copy / "config.json").write_text(json.dumps(config))
    return copy
