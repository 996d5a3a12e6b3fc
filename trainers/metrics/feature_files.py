"""Feature files of every kind -> a function from the 256 levels of an image file to feature rows.

`.pt` is TorchScript, `.pt2` torch.export and `.pth` the state dict of FID's Inception-v3.  A TorchScript network whose
forward takes `return_features` is the reference implementation's Inception (NVIDIA's `inception-2015-12-05.pt`) or
follows its convention: 8-bit RGB in, and the features on request.  All others take images in [-1, 1].
"""

from __future__ import annotations

import os
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import BytesIO

import torch
from torch import Tensor, nn

from stepfront.errors import InputError
from stepfront.trainers.metrics.inception import load_inception

Features = Callable[[Tensor], Tensor]
"""[N, C, H, W] float32, whole numbers of 0..255 -> [N, D]."""

_AT_ONCE = 50  # Inception enlarges images to 299 x 299: more of them would take gigabytes


def open_feature_file(name: str, content: bytes, suffix: str, device: torch.device) -> Features:
    """The network in a file's `content`, on `device`.  InputError when the bytes are not what the suffix says."""
    try:
        if suffix == ".pth":
            inception = load_inception(_state_dict(content)).to(device)
            return _in_parts(lambda levels: inception(_signed(levels)))
        if suffix == ".pt2":
            exported = _load_exported(content).to(device)
            return lambda levels: exported(_signed(levels))
        scripted = torch.jit.load(BytesIO(content), map_location=device).eval()
    except InputError as error:
        raise InputError(f"the file of features {name!r} is {error}") from None
    except Exception as error:  # all loaders raise a wide range
        line = next(iter(str(error).strip().splitlines()), type(error).__name__)
        kinds = "no state dict (.pth)" if suffix == ".pth" else "neither TorchScript (.pt) nor torch.export (.pt2)"
        raise InputError(f"the file of features {name!r} is {kinds}: {line}") from None
    if any(argument.name == "return_features" for argument in scripted.forward.schema.arguments):
        return _in_parts(lambda levels: scripted(_rgb(levels).to(torch.uint8), return_features=True))
    return lambda levels: scripted(_signed(levels))


def _signed(levels: Tensor) -> Tensor:
    return levels / 127.5 - 1


def _rgb(levels: Tensor) -> Tensor:
    return levels.expand(-1, 3, -1, -1)


def _in_parts(features: Features) -> Features:
    return lambda levels: torch.cat([features(part) for part in levels.split(_AT_ONCE)])


def _state_dict(content: bytes) -> dict[str, Tensor]:
    weights = torch.load(BytesIO(content), map_location="cpu", weights_only=True)
    if not isinstance(weights, dict) or not all(isinstance(value, Tensor) for value in weights.values()):
        raise ValueError("it is no mapping of names to tensors")
    return weights


def _load_exported(content: bytes) -> nn.Module:
    """The network of a torch.export file that holds tensors and a graph.

    torch.export.load on its own unpickles any object and loads compiled libraries; both are refused here.  It still
    evaluates the graph's symbolic sizes as expressions, so the file must come from someone who is trusted.
    """
    with zipfile.ZipFile(BytesIO(content)) as archive:
        for name in archive.namelist():
            if any(part in name for part in ("data/aotinductor/", "constants/opaque_obj", "constants/custom_obj")):
                raise ValueError(f"it holds more than tensors and a graph: {name}")
    with _only_tensors_unpickled():
        return torch.export.load(BytesIO(content)).module()


@contextmanager
def _only_tensors_unpickled() -> Iterator[None]:
    # The one switch that torch has for this; torch.export passes weights_only=False whatever its caller wants.
    switch = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"
    before = os.environ.get(switch)
    os.environ[switch] = "1"
    try:
        yield
    finally:
        del os.environ[switch]
        if before is not None:
            os.environ[switch] = before
