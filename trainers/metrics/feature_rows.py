"""Bring what a feature network returns into rows, and try a network on a few images before it is relied on."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from stepfront.errors import InputError

PROBE_SIZES = (2, 5)
"""Images per call of a trial: rows must not depend on it."""

_LEAST_AGREEMENT = 1e-2
"""Largest difference of equal rows, as a share of the largest value; float16 stays below it by far."""


def as_rows(returned: object, count: int, name: str) -> Tensor:
    """Return the features of `count` images as rows [count, D] in float32.

    A list, tuple or mapping of one tensor is that tensor, and maps of 1x1 pixels are rows.  Raises InputError with one
    line for everything else that is not one row per image.
    """
    while isinstance(returned, list | tuple | Mapping):
        inner = list(returned.values() if isinstance(returned, Mapping) else returned)
        if len(inner) != 1:
            raise InputError(
                f"features {name!r} gave {len(inner)} outputs ({_described(returned)}); rows [images, features] are "
                "needed: wrap the network so that it returns one of them"
            )
        (returned,) = inner
    if not isinstance(returned, Tensor) or returned.is_complex():
        kind = returned.dtype if isinstance(returned, Tensor) else type(returned).__name__
        raise InputError(f"features {name!r} gave {kind}; rows [images, features] of real numbers are needed")
    rows = returned.flatten(1) if returned.ndim == 4 and returned.shape[2:] == (1, 1) else returned
    if rows.ndim != 2:
        axes = "1 axis" if rows.ndim == 1 else f"{rows.ndim} axes"
        raise InputError(f"features {name!r} gave {axes}; rows [images, features] are needed")
    if len(rows) != count or not rows.shape[1]:
        raise InputError(
            f"features {name!r} gave {len(rows)} rows of {rows.shape[1]} for {count} images; one row per image is "
            "needed, for any number of images"
        )
    return rows.float()


def _described(returned: Mapping[object, object] | list[object] | tuple[object, ...]) -> str:
    names = list(map(str, returned)) if isinstance(returned, Mapping) else []
    values = list(returned.values() if isinstance(returned, Mapping) else returned)
    kinds = [str(list(value.shape)) if isinstance(value, Tensor) else type(value).__name__ for value in values]
    parts = [f"{key}: {kind}" for key, kind in zip(names, kinds, strict=True)] if names else kinds
    return ", ".join(parts[:4]) + (", ..." if len(parts) > 4 else "")


def try_features(features: Callable[[Tensor], NDArray[np.float32]], images: Tensor, name: str) -> int:
    """Return the number of features per image, after calls on few and on more images.

    Raises InputError when rows are not finite, differ between two equal calls, depend on the other images of a call,
    or are the same for all images.
    """
    many = images[: PROBE_SIZES[1]]
    few = many[: PROBE_SIZES[0]]
    first, again, more = features(few), features(few), features(many)
    if not all(np.isfinite(rows).all() for rows in (first, again, more)):
        raise InputError(f"features {name!r} are not finite on real images")
    most = float(np.abs(first).max()) or 1.0
    if np.abs(first - again).max() > _LEAST_AGREEMENT * most:
        raise InputError(f"features {name!r} differ between two calls on the same images; export it in eval mode")
    if np.abs(first - more[: len(few)]).max() > _LEAST_AGREEMENT * most:
        raise InputError(
            f"features {name!r} of an image depend on the other images of the call; export it in eval mode"
        )
    different = len(torch.unique(many.flatten(1), dim=0)) > 1
    if different and len(more) > 1 and (more == more[0]).all():
        raise InputError(
            f"features {name!r} are constant: the same for {len(more)} different images; give other features"
        )
    return int(first.shape[1])
