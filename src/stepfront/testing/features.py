"""Check a feature set: rows that are finite, repeatable, and identified by their packed bytes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from stepfront.trainers.config import FeatureSettings
from stepfront.trainers.data import ImageData, fingerprint, to_float
from stepfront.trainers.metrics.feature_set import find_feature_set
from stepfront.trainers.metrics.features import FeatureNetwork, PackedFeatures, check_features, prepare_features

CPU = torch.device("cpu")


class FeaturesConformance:
    """The contract of a feature set.  Set `features` to the name that settings would give it.

    Override `settings` where it needs others, and `data` where it can't take 8x8 grey images with labels.
    """

    features: str

    def settings(self) -> FeatureSettings:
        """Return the settings of the features."""
        return FeatureSettings(name=self.features, classifier_epochs=1, training_steps=3)

    def data(self) -> ImageData:
        """Return a few random images with labels."""
        rng = np.random.Generator(np.random.Philox(0))
        images, labels = rng.integers(0, 256, (160, 1, 8, 8), dtype=np.uint8), np.arange(160) % 4
        splits = ((images[:128], labels[:128]), (images[128:], labels[128:]))
        return ImageData("random", *splits[0], *splits[1], fingerprint(*splits))

    def prepared(self, folder: Path) -> PackedFeatures:
        """Return the features as a search packs them."""
        return prepare_features(self.data(), self.settings(), folder, CPU)[0]

    def opened(self, folder: Path) -> FeatureNetwork:
        """Return the features as a worker opens them."""
        return self.prepared(folder).unpack(CPU)

    def test_rows_are_finite_and_as_many_as_images(self, tmp_path: Path) -> None:
        """Images [N, C, H, W] give rows [N, D] of finite numbers that differ between images."""
        rows = self.opened(tmp_path)(to_float(self.data().held_out_images))
        assert rows.ndim == 2, f"features are {list(rows.shape)}, not [N, D]"
        assert len(rows) == len(self.data().held_out_images), "there is not one row per image"
        assert np.isfinite(rows).all(), "features are not all finite"
        assert np.ptp(rows, axis=0).max() > 0, "all images have the same features"

    def test_equal_images_give_equal_rows(self, tmp_path: Path) -> None:
        """Scores are compared to the last digit, so the features repeat themselves, also after opening again."""
        packed, images = self.prepared(tmp_path), to_float(self.data().held_out_images)
        features = packed.unpack(CPU)
        first = features(images)
        np.testing.assert_array_equal(features(images), first)
        np.testing.assert_array_equal(packed.unpack(CPU)(images), first)

    def test_a_row_depends_on_its_own_image_alone(self, tmp_path: Path) -> None:
        """The batch that an image is in does not matter beyond rounding."""
        features, images = self.opened(tmp_path), to_float(self.data().held_out_images[:6])
        one_by_one = np.concatenate([features(image[None]) for image in images])
        together = features(images)
        np.testing.assert_allclose(one_by_one, together, rtol=1e-4, atol=1e-4 * float(np.abs(together).max()))

    def test_the_packed_bytes_are_repeatable(self, tmp_path: Path) -> None:
        """Preparing again changes nothing, and preparing elsewhere gives the same digest."""
        first = self.prepared(tmp_path / "one")
        assert first.content, "the packed bytes are empty; pack at least a version of your code"
        assert self.prepared(tmp_path / "one").digest == first.digest, "preparing again gives other bytes"
        assert self.prepared(tmp_path / "two").digest == first.digest, "preparing elsewhere gives other bytes"

    def test_workers_need_the_packed_bytes_alone(self, tmp_path: Path) -> None:
        """A worker opens the features without the folder that they were prepared in."""
        folder = tmp_path / "gone"
        packed = self.prepared(folder)
        folder.rename(tmp_path / "moved")
        rows = packed.unpack(CPU)(to_float(self.data().images[:2]))
        assert len(rows) == 2, "the opened features need more than the packed bytes"

    def test_suitable_images_pass_the_check(self) -> None:
        """`check` refuses unsuitable images alone, before anything is trained."""
        check_features(self.data(), self.settings())
        find_feature_set(self.settings()).check(self.data())
