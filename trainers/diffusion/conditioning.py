"""Draw the class label of each generated image, and guide predictions by it.

A class-conditional network takes one label per image.  The label after the last class is the null class, "any of them".
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor

from stepfront.errors import InputError
from stepfront.trainers.data import ImageData, Labels
from stepfront.trainers.diffusion.types import Denoiser

Conditional: TypeAlias = Callable[[Tensor, Tensor, Tensor], Tensor]
"""x [B, ...], t [B], label [B] -> predicted noise [B, ...]."""


def check_classes(data: ImageData, classes: int | None) -> None:
    """Raise InputError when a network of so many classes can't be trained on these images; None takes any."""
    if classes is None:
        return
    if data.labels is None or data.held_out_labels is None:
        raise InputError(
            f"network.classes is {classes}, but the images have no labels; give images with labels, or null"
        )
    for labels in (data.labels, data.held_out_labels):
        if labels.min() < 0 or labels.max() >= classes:
            raise InputError(
                f"network.classes is {classes}, but the images' labels are {labels.min()} to {labels.max()}; "
                f"possible: {data.classes} or more, for labels from 0 on"
            )


def label_counts(data: ImageData, classes: int | None) -> tuple[int, ...]:
    """Return the number of training images per class; empty for an unconditional network."""
    if classes is None or data.labels is None:
        return ()
    return tuple(np.bincount(data.labels, minlength=classes).tolist())


def calls_per_step(guidance: float) -> int:
    """Return the number of network calls per step of a plan."""
    return 1 if guidance in (0.0, 1.0) else 2


@dataclass(frozen=True)
class Condition:
    """The labels of one sampler's images, and the scale of guidance by them.

    Labels are drawn in the proportions of `counts`, or all are `label`.
    """

    seed: int
    counts: tuple[int, ...]
    guidance: float = 1.0
    label: int | None = None

    def labels(self, images: range) -> Labels:
        """Return the label of each image, [B]: a function of (seed, image) alone, as its noise is."""
        if self.label is not None:
            return np.full(len(images), self.label)
        # The generator draws four numbers per count; its third word separates labels from all noise of this seed.
        first = images.start // 4
        generator = np.random.Generator(np.random.Philox(key=[self.seed, 0], counter=[first, 0, 1, 0]))
        drawn = generator.random(images.stop - 4 * first)[images.start - 4 * first :]
        return np.searchsorted(np.cumsum(self.counts) / sum(self.counts), drawn, side="right")

    def denoiser(
        self, network: Conditional, images: range, device: torch.device, scale: float | None = None
    ) -> Denoiser:
        """Return the network with the labels of these images filled in, guided at its own scale or another one."""
        labels = torch.from_numpy(self.labels(images)).to(device)
        return guided(network, labels, len(self.counts), self.guidance if scale is None else scale)


def make_condition(
    classes: int | None, counts: Sequence[int], guidance: float, seed: int, label: int | None = None
) -> Condition | None:
    """Return the condition under which a supernet of so many classes samples the images of `seed`.

    It is None for an unconditional supernet.  Without `counts`, as in a supernet of unknown images, all classes are
    equally likely.  Raises InputError for a label that is not a class, and for a label or guidance without classes.
    """
    if classes is None:
        if label is not None or guidance != 1:
            asked = f"guidance {guidance:g}" if label is None else f"label {label}"
            raise InputError(
                f"{asked} needs a class-conditional supernet; this one was trained without network.classes"
            )
        return None
    if label is not None and not 0 <= label < classes:
        raise InputError(f"no class {label}; possible: 0 to {classes - 1}")
    return Condition(seed, tuple(counts) or (1,) * classes, guidance, label)


def guided(network: Conditional, labels: Tensor, null: int, scale: float) -> Denoiser:
    """Return the denoiser of classifier-free guidance: eps = eps_null + scale (eps_label - eps_null).

    Scale 1 is the plain conditional prediction and 0 the unconditional one, of one network call each.  Any other scale
    takes two calls on the batch as it is, because a doubled batch would round differently.  The w of Ho & Salimans 2022
    (arXiv 2207.12598, eq. 6) is scale - 1.
    """

    def predict(x: Tensor, t: Tensor) -> Tensor:
        if scale == 1.0:
            return network(x, t, labels)
        unconditional = network(x, t, torch.full_like(labels, null))
        if scale == 0.0:
            return unconditional
        return unconditional + scale * (network(x, t, labels) - unconditional)

    return predict
