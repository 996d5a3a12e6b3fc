"""Check a score: a finite number of images, the same every time."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from stepfront.trainers.data import Labels
from stepfront.trainers.metrics.user_scores import UserScore, compute_scores


class ScoreConformance:
    """The contract of a score.  Set `score` to the import path that settings would give it.

    Override `images` and `labels` where it can't take random 8x8 grey images of ten classes.
    """

    score: str

    def images(self) -> Tensor:
        """Return images, uint8 [N, C, H, W], as the score would get them of a plan."""
        rng = np.random.Generator(np.random.Philox(0))
        return torch.from_numpy(rng.integers(0, 256, (64, 1, 8, 8), dtype=np.uint8))

    def labels(self) -> Labels | None:
        """Return the classes of the images [N]; None for images without classes."""
        return np.arange(len(self.images())) % 10

    def computed(self, images: Tensor) -> float:
        """Return the score of images as a search computes it."""
        values, problem = compute_scores({"score": UserScore("score", self.score).load()}, images, self.labels(), 0)
        assert not problem, problem
        return values["score"]

    def test_the_score_is_a_finite_number(self) -> None:
        """All images in one call give one number."""
        assert math.isfinite(self.computed(self.images()))

    def test_equal_images_give_equal_scores(self) -> None:
        """Plans are compared to the last digit, so the score repeats itself, also after importing it again."""
        assert self.computed(self.images()) == self.computed(self.images()), "equal images give two scores"

    def test_the_images_stay_as_they_are(self) -> None:
        """Several scores get the same images, so none may write to them."""
        images = self.images()
        self.computed(images)
        assert torch.equal(images, self.images()), "the score writes to the images"

    def test_no_random_state_is_moved(self) -> None:
        """A score that draws from torch's global generator changes what is drawn after it."""
        before = torch.get_rng_state()
        self.computed(self.images())
        assert torch.equal(torch.get_rng_state(), before), "the score draws from torch's global generator"

    def test_other_images_give_another_score(self) -> None:
        """A score that is the same for all images judges nothing."""
        images = self.images()
        assert self.computed(images) != self.computed(255 - images), "negatives of the images have the same score"
