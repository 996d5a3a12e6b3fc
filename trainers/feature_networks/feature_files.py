"""Open feature files: networks in files that the user gives.

`.pt` is TorchScript, `.pt2` torch.export and `.pth` the state dict of FID's Inception-v3.  A TorchScript network whose
forward takes `return_features` is the reference implementation's Inception (NVIDIA's `inception-2015-12-05.pt`) or
follows its convention: 8-bit RGB in, and the features on request.  All others take images in [-1, 1].
"""

from __future__ import annotations

import os
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path

import torch
from torch import Tensor, nn

from stepfront.errors import InputError, first_line
from stepfront.trainers.feature_networks.inception import load_inception
from stepfront.trainers.metrics.feature_set import Features, FeatureSet

_BLOCK_IMAGES = 50  # Inception enlarges images to 299 x 299: more of them would take gigabytes


class FeatureFile(FeatureSet):
    """The features of the network in the file `features.path`."""

    def pack(self, directory: Path) -> bytes:
        """Return the file's bytes.  Raises InputError when there is no such file."""
        path = Path(str(self.settings.path))
        if not path.is_file():
            raise InputError(f"no feature file at {path}")
        return path.read_bytes()

    def open(self, content: bytes, device: torch.device) -> Features:
        """Return the function of the packed file.  Raises InputError when it is not what its suffix promises."""
        return open_feature_file(self.settings.name, content, Path(str(self.settings.path)).suffix, device)


def open_feature_file(name: str, content: bytes, suffix: str, device: torch.device) -> Features:
    """Return the network in a file's `content`.  Raises InputError when the bytes do not fit the suffix."""
    try:
        if suffix == ".pth":
            inception = load_inception(_state_dict(content)).to(device)
            return _in_parts(lambda levels: inception(_signed(levels)))
        if suffix == ".pt2":
            exported = _load_exported(content).to(device)
            number = _number_format(exported)
            return lambda levels: exported(_signed(levels).to(number))
        scripted = torch.jit.load(BytesIO(content), map_location=device).eval()
        for weight in scripted.parameters():  # it has no requires_grad_ of its own
            weight.requires_grad_(False)
    except InputError as error:
        raise InputError(f"the file of features {name!r} is {error}") from None
    except Exception as error:  # all loaders raise a wide range
        line = first_line(error)
        kinds = "not a state dict (.pth)" if suffix == ".pth" else "neither TorchScript (.pt) nor torch.export (.pt2)"
        raise InputError(f"the file of features {name!r} is {kinds}: {line}") from None
    if any(argument.name == "return_features" for argument in scripted.forward.schema.arguments):
        return _in_parts(lambda levels: scripted(_rgb(levels).to(torch.uint8), return_features=True))
    number = _number_format(scripted)
    return lambda levels: scripted(_signed(levels).to(number))


def _number_format(network: nn.Module) -> torch.dtype:
    """Return the number format of a network's weights, such as float16, in which it takes its images."""
    return next((weight.dtype for weight in network.parameters() if weight.is_floating_point()), torch.float32)


def _signed(levels: Tensor) -> Tensor:
    return levels / 127.5 - 1


def _rgb(levels: Tensor) -> Tensor:
    return levels.expand(-1, 3, -1, -1)


def _in_parts(features: Features) -> Features:
    return lambda levels: torch.cat([features(part) for part in levels.split(_BLOCK_IMAGES)])


def _state_dict(content: bytes) -> dict[str, Tensor]:
    weights = torch.load(BytesIO(content), map_location="cpu", weights_only=True)
    if not isinstance(weights, dict) or not all(isinstance(value, Tensor) for value in weights.values()):
        raise ValueError("it is not a mapping of names to tensors")
    return weights


def _load_exported(content: bytes) -> nn.Module:
    """Load the network of a torch.export file that holds tensors and a graph only.

    torch.export.load itself unpickles any object and loads compiled libraries; both are refused here.  It still
    evaluates the graph's symbolic sizes as expressions, so the file must come from a trusted source.
    """
    with zipfile.ZipFile(BytesIO(content)) as archive:
        for name in archive.namelist():
            if any(part in name for part in ("data/aotinductor/", "constants/opaque_obj", "constants/custom_obj")):
                raise ValueError(f"it holds more than tensors and a graph: {name}")
    with _only_tensors_unpickled():
        return torch.export.load(BytesIO(content)).module()


@contextmanager
def _only_tensors_unpickled() -> Iterator[None]:
    # torch's only switch for this; torch.export passes weights_only=False whatever its caller asks for.
    switch = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"
    before = os.environ.get(switch)
    os.environ[switch] = "1"
    try:
        yield
    finally:
        del os.environ[switch]
        if before is not None:
            os.environ[switch] = before
