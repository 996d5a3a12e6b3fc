"""Load the images that the settings name, and their latents where `data.autoencoder` names an autoencoder."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from stepfront.errors import InputError
from stepfront.trainers.config import DataSettings
from stepfront.trainers.data import ImageData, Progress, ReadingReport, load_data
from stepfront.trainers.devices import pick_device
from stepfront.trainers.latent_space import LatentSpace
from stepfront.trainers.latents.autoencoder import load_autoencoder
from stepfront.trainers.latents.decoder import PackedDecoder
from stepfront.trainers.latents.encode import check_fit, encode_images
from stepfront.trainers.latents.latent_cache import LatentCache


def load_images(
    settings: DataSettings,
    progress: Progress = lambda done, total: None,
    report: ReadingReport | None = None,
    encoding: Progress = lambda done, total: None,
) -> ImageData:
    """Load images as `load_data` does; with `data.autoencoder` also their latents, which are encoded once and cached.

    `encoding` is called with the number of encoded images and of all.  Raises InputError as `load_data` does, and when
    the autoencoder can't be loaded or does not fit the images.
    """
    if settings.autoencoder is None:
        return load_data(settings, progress, report)
    folder = Path(settings.autoencoder)
    autoencoder = load_autoencoder(folder)  # first: reading may take long
    data = load_data(settings, progress, report)
    digest = autoencoder.digest
    cache = LatentCache(settings, data.name, data.fingerprint, digest)
    found = cache.find()
    if found is None:
        check_fit(data, autoencoder)
        device = pick_device("auto")
        found = cache.make(lambda part: encode_images(data, autoencoder, settings, part, device, encoding))
    # The entry may have been made with a copy of the autoencoder elsewhere.
    space = found.space.model_copy(update={"autoencoder": str(folder)})
    return replace(data, latents=replace(found, space=space))


def load_decoder(data: ImageData, space: LatentSpace | None = None) -> PackedDecoder | None:
    """Return the decoder of the images' latents, None for pixels; `space` is that of a supernet's card.

    Raises InputError when the autoencoder is no longer the one that encoded them.
    """
    if data.latents is None:
        return None
    own = data.latents.space
    autoencoder = load_autoencoder(Path(own.autoencoder))
    if autoencoder.digest != own.digest:
        raise InputError(f"the autoencoder in {own.autoencoder} has changed since the images were encoded; start again")
    used = own if space is None else space.model_copy(update={"autoencoder": own.autoencoder})
    return PackedDecoder.of(autoencoder, used)
