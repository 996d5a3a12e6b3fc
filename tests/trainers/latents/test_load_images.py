"""Images as latents: encoded once, mapped, flips encoded, shift and scale applied, refusals of one line."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from filelock import FileLock
from safetensors.torch import load_file, save_file

from stepfront.errors import InputError
from stepfront.trainers.config import DataSettings, TrainerSettings
from stepfront.trainers.data import load_data, to_float
from stepfront.trainers.latents import load_images as module
from stepfront.trainers.latents.autoencoder import load_autoencoder
from stepfront.trainers.latents.latent_cache import LatentCache
from stepfront.trainers.latents.load_images import load_decoder, load_images
from stepfront.trainers.training.checkpoint_file import training_key
from stepfront.trainers.training.teacher import weights_of_data
from tests.trainers.latents.conftest import make_autoencoder
from tests.trainers.latents.test_autoencoder import with_config

Make = Callable[..., DataSettings]


def test_latents_are_the_encoded_images(settings: Make, tiny: Path) -> None:
    data = load_images(settings())
    pixels = load_data(settings())
    assert data.fingerprint == pixels.fingerprint
    assert data.network_shape == (2, 4, 4)
    assert pixels.network_shape == (1, 8, 8)
    assert data.latents is not None
    assert isinstance(data.latents.train, np.memmap)
    rows = np.array([3, 1, 40])
    expected = load_autoencoder(tiny).encode(to_float(pixels.images[rows]))  # the factors of its config are 0 and 1
    torch.testing.assert_close(data.clean(rows), expected, atol=1e-6, rtol=0)
    held_out = load_autoencoder(tiny).encode(to_float(pixels.held_out_images[:5]))
    torch.testing.assert_close(to_float(data.clean_held_out(slice(5))), held_out, atol=1e-6, rtol=0)


def test_flips_are_encoded(settings: Make, tiny: Path) -> None:
    data, rows = load_images(settings(flip=True)), np.array([0, 1, 2])
    mirrored = torch.tensor([True, False, True])
    x = to_float(data.images[rows])
    x = torch.where(mirrored[:, None, None, None], x.flip(3), x)
    clean = data.clean(rows, mirrored)
    torch.testing.assert_close(clean, load_autoencoder(tiny).encode(x), atol=1e-6, rtol=0)
    assert (clean[0] - data.clean(rows)[0].flip(2)).abs().max() > 1e-3  # not the mirrored latent


def test_pixels_are_read_as_before_where_there_is_no_autoencoder(settings: Make) -> None:
    data, rows = load_images(settings(autoencoder=None)), np.array([5, 2])
    assert data.latents is None
    mirrored = torch.tensor([True, False])
    x = to_float(data.images[rows])
    torch.testing.assert_close(
        data.clean(rows, mirrored), torch.where(mirrored[:, None, None, None], x.flip(3), x), atol=0, rtol=0
    )
    np.testing.assert_array_equal(data.clean_held_out(slice(3)), data.held_out_images[:3])


def test_images_are_encoded_once(settings: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[int, int]] = []
    first = load_images(settings(), encoding=lambda done, total: seen.append((done, total)))
    count = len(first.images) + len(first.held_out_images)
    assert seen[-1] == (count, count)
    monkeypatch.setattr(module, "encode_images", None)
    again = load_images(settings())
    assert first.latents is not None
    assert again.latents is not None
    np.testing.assert_array_equal(first.latents.train, again.latents.train)
    assert first.latents.space == again.latents.space


def test_a_scale_that_does_not_fit_the_latents_is_said_with_one_that_does(
    settings: Make, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = make_autoencoder("VQModel", tmp_path / "vq")
    path = folder / "config.json"
    config = json.loads(path.read_text())
    del config["scaling_factor"]
    path.write_text(json.dumps(config))
    load_images(settings(autoencoder=str(folder)))
    found = re.search(r"scaling_factor \(none, so 0.18215\) .* set scaling_factor to (\S+) in its config", caplog.text)
    assert found is not None
    caplog.clear()
    path.write_text(json.dumps(config | {"scaling_factor": float(found[1])}))
    data = load_images(settings(autoencoder=str(folder)))
    clean = data.clean(np.arange(len(data.images)))
    assert clean.transpose(0, 1).flatten(1).var(1).mean().sqrt() == pytest.approx(1, rel=1e-2)
    assert "scaling_factor" not in caplog.text


@pytest.mark.parametrize("changed", [{"flip": True}, {"latent_type": "float16"}, {"limit": 32}])
def test_other_images_flips_or_types_have_an_entry_of_their_own(settings: Make, changed: dict[str, object]) -> None:
    load_images(settings())
    load_images(settings(**changed))
    assert len(list(Path(settings().cache).glob("digits-latents-*"))) == 2


def test_float16_takes_half_the_space(settings: Make) -> None:
    half, full = load_images(settings(latent_type="float16")).latents, load_images(settings()).latents
    assert half is not None
    assert full is not None
    assert half.train.dtype == np.float16
    np.testing.assert_allclose(half.train, full.train, rtol=1e-3, atol=1e-4)


def test_without_factors_each_channel_is_brought_to_mean_0_and_deviation_1(
    settings: Make, tiny: Path, tmp_path: Path
) -> None:
    folder = with_config(tiny, tmp_path / "model", "scaling_factor", "shift_factor")
    data = load_images(settings(autoencoder=str(folder)))
    z = data.clean(np.arange(len(data.images))).double()
    torch.testing.assert_close(z.mean((0, 2, 3)), torch.zeros(2).double(), atol=1e-4, rtol=0)
    torch.testing.assert_close(z.std((0, 2, 3), correction=0), torch.ones(2).double(), atol=1e-4, rtol=0)
    assert data.latents is not None
    assert len(data.latents.space.scale) == 2
    decoder = load_decoder(data)
    assert decoder is not None
    expected = load_autoencoder(folder).decode(load_autoencoder(folder).encode(to_float(data.images[:4])))
    images = decoder.unpack(torch.device("cpu"))(data.clean(np.arange(4)))
    torch.testing.assert_close(images, expected, atol=1e-4, rtol=0)


def test_images_that_do_not_fit_are_refused(settings: Make) -> None:
    with pytest.raises(InputError, match=r"encodes images of 1 channels, and these have 3; set data.channels=1"):
        load_images(settings(channels=3))
    with pytest.raises(InputError, match=r"divides the side by 2, and images of 7 pixels.*set data.size=8"):
        load_images(settings(size=7))


def test_nan_from_encoding_is_refused(settings: Make, tiny: Path, tmp_path: Path) -> None:
    folder = with_config(tiny, tmp_path / "model")
    name = "diffusion_pytorch_model.safetensors"
    weights = {key: value * float("nan") for key, value in load_file(tiny / name).items()}
    save_file(weights, folder / name)
    with pytest.raises(InputError, match=r"encodes images to values that are not finite"):
        load_images(settings(autoencoder=str(folder)))
    assert not list(Path(settings().cache).glob("*latents*"))
    assert not list(Path(settings().cache).glob("*.part"))


def test_latents_beyond_float16_are_refused(settings: Make, tiny: Path, tmp_path: Path) -> None:
    folder = with_config(tiny, tmp_path / "model")
    name = "diffusion_pytorch_model.safetensors"
    weights = load_file(tiny / name)
    last = max(key for key in weights if key.startswith("encoder") and key.endswith("bias"))
    save_file(weights | {last: weights[last] + 1e5}, folder / name)
    with pytest.raises(InputError, match=r"do not fit into float16; set data.latent_type=float32"):
        load_images(settings(autoencoder=str(folder), latent_type="float16"))


def test_a_damaged_entry_is_named(settings: Make) -> None:
    load_images(settings())
    (entry,) = Path(settings().cache).glob("digits-latents-*")
    (entry / "train.npy").write_bytes(b"nothing")
    with pytest.raises(InputError, match=r"is damaged .* delete it: the images are encoded again"):
        load_images(settings())
    shutil.rmtree(entry)
    load_images(settings())


def test_a_moved_autoencoder_is_found_where_it_is_now(settings: Make, tiny: Path, tmp_path: Path) -> None:
    load_images(settings())
    copy = shutil.copytree(tiny, tmp_path / "copy")
    data = load_images(settings(autoencoder=str(copy)))
    assert data.latents is not None
    assert data.latents.space.autoencoder == str(copy)
    assert load_decoder(data) is not None
    assert len(list(Path(settings().cache).glob("digits-latents-*"))) == 1


def test_a_changed_autoencoder_is_noticed(settings: Make, tiny: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(tiny, tmp_path / "copy")
    data = load_images(settings(autoencoder=str(copy)))
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps(config | {"scaling_factor": 2.0}))
    with pytest.raises(InputError, match=r"has changed since the images were encoded"):
        load_decoder(data)


def test_a_checkpoint_belongs_to_one_autoencoder(settings: Make, tmp_path: Path) -> None:
    def key(**others: object) -> str:
        chosen = TrainerSettings(data=settings(**others))
        return training_key(chosen, load_images(chosen.data))

    other = make_autoencoder("AutoencoderTiny", tmp_path / "other", seed=1)
    keys = {key(), key(autoencoder=str(other)), key(latent_type="float16"), key(autoencoder=None)}
    assert len(keys) == 4
    assert key(cache=str(tmp_path / "elsewhere")) == key()
    assert key(autoencoder=None, latent_type="float16") == key(autoencoder=None)


def test_spectral_weights_are_those_of_latents(settings: Make) -> None:
    data = load_images(settings())
    weights = weights_of_data(data.of_network(1000))
    assert weights.shape == (2, 4, 4)
    torch.testing.assert_close(weights, weights_of_data(data.clean(np.arange(len(data.images))).numpy()))
    pixels = load_images(settings(autoencoder=None))
    assert pixels.of_network(3) is pixels.images


def test_a_process_that_stops_waiting_leaves_the_encoding_of_another(settings: Make) -> None:
    cache = LatentCache(settings(), "digits", "images", "autoencoder")
    cache._part.mkdir(parents=True)
    cache._lock.timeout = 0.01
    with FileLock(cache._lock.lock_file), pytest.raises(InputError, match=r"data\.cache"):
        cache.make(lambda part: pytest.fail("another process encodes"))
    assert cache._part.exists()
