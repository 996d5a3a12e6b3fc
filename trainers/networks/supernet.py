"""One set of weights that holds every width: settings in; a network for training and a plain subnet a width out."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, Field
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.func import functional_call

from stepfront.errors import InputError
from stepfront.files import read_json, write_atomically, write_json
from stepfront.trainers.config import DiffusionSettings, NetworkSettings, Settings, validate
from stepfront.trainers.networks.layers import parameter_segments, slice_parameters
from stepfront.trainers.networks.unet import build_unet

FORMAT = 1
WEIGHTS_FILE = "supernet.safetensors"
CARD_FILE = "supernet.json"


class SupernetCard(Settings):
    """What is saved beside the weights: all that is needed to build the network and to know what it was made from."""

    format: int
    network: NetworkSettings
    diffusion: DiffusionSettings
    image_channels: int
    resolution: int
    data_name: str
    data_fingerprint: str
    digest: str
    label_counts: tuple[int, ...] = Field((), description="training images of each class; empty: not known, or none")
    made_with: dict[str, Any] = Field(default_factory=dict)


def build_backbone(settings: NetworkSettings, image_channels: int, resolution: int, width: float) -> nn.Module:
    """A plain network of the settings' family at `width`.  One line a family."""
    return {"unet": build_unet}[settings.family](settings, image_channels, resolution, width)


class Supernet(nn.Module):
    """The widest network, and the rule by which narrower ones are cut from it.  Width is an argument, never a state.

    x [B, C, H, W], t [B] in training-time units, width, label [B] where there are classes -> predicted noise
    [B, C, H, W].
    """

    def __init__(self, settings: NetworkSettings, image_channels: int, resolution: int) -> None:
        super().__init__()
        self.settings, self.image_channels, self.resolution = settings, image_channels, resolution
        self.widest = build_backbone(settings, image_channels, resolution, 1.0)
        # Skeletons only carry shapes and the order of operations; a plain dict keeps them out of parameters().
        with torch.device("meta"):
            self._skeletons = {
                w: build_backbone(settings, image_channels, resolution, w) for w in settings.widths if w != 1.0
            }

    @property
    def widths(self) -> tuple[float, ...]:
        return self.settings.widths

    def train(self, mode: bool = True) -> Supernet:
        """As nn.Module.train, for the skeletons too: dropout is theirs to know."""
        for skeleton in self._skeletons.values():
            skeleton.train(mode)
        super().train(mode)
        return self

    def forward(self, x: Tensor, t: Tensor, width: float = 1.0, label: Tensor | None = None) -> Tensor:
        inputs = (x, t) if label is None else (x, t, label)
        if width == 1.0:
            return self.widest(*inputs)
        return functional_call(self._skeleton(width), self.sliced(width), inputs)

    def sliced(self, width: float) -> dict[str, Tensor]:
        """The parameters of `width` as differentiable slices of the widest ones."""
        return slice_parameters(
            dict(self.widest.named_parameters()),
            parameter_segments(self.widest),
            parameter_segments(self.widest if width == 1.0 else self._skeleton(width)),
        )

    def subnet(self, width: float) -> nn.Module:
        """A plain torch module in eval mode with contiguous weights of its own: what the supernet computes there."""
        self._check(width)
        with torch.device("meta"):
            network = build_backbone(self.settings, self.image_channels, self.resolution, width)
        # The widest subnet shares the supernet's memory; the copies of the narrower ones are what makes them fast.
        own = {name: weights.detach() for name, weights in self.sliced(width).items()}
        if width != 1.0:
            own = {name: weights.clone(memory_format=torch.contiguous_format) for name, weights in own.items()}
        network.load_state_dict(own, assign=True)
        return network.requires_grad_(False).eval()

    def _skeleton(self, width: float) -> nn.Module:
        self._check(width)
        return self._skeletons[width]

    def _check(self, width: float) -> None:
        if width not in self.settings.widths:
            raise InputError(f"width {width} is not one of the supernet's: {', '.join(map(str, self.settings.widths))}")


def weights_digest(weights: Mapping[str, Tensor]) -> str:
    """sha256 over names, shapes and float32 values: the same weights give the same digest on any device."""
    digest = hashlib.sha256()
    for name in sorted(weights):
        values = weights[name].detach().to("cpu", torch.float32).contiguous()
        digest.update(f"{name}{tuple(values.shape)}".encode())
        digest.update(values.numpy().tobytes())
    return digest.hexdigest()


def save_supernet(
    supernet: Supernet,
    directory: Path,
    diffusion: DiffusionSettings,
    data_name: str,
    data_fingerprint: str,
    made_with: Mapping[str, Any] | None = None,
    label_counts: tuple[int, ...] = (),
) -> SupernetCard:
    """Writes supernet.safetensors, then supernet.json beside it; the card's digest binds the two."""
    weights = {name: value.detach().cpu().contiguous() for name, value in supernet.widest.state_dict().items()}
    card = SupernetCard(
        format=FORMAT,
        network=supernet.settings,
        diffusion=diffusion,
        image_channels=supernet.image_channels,
        resolution=supernet.resolution,
        data_name=data_name,
        data_fingerprint=data_fingerprint,
        digest=weights_digest(weights),
        label_counts=label_counts,
        made_with=dict(made_with or {}),
    )
    write_atomically(Path(directory) / WEIGHTS_FILE, lambda path: save_file(weights, path))
    write_json(Path(directory) / CARD_FILE, card.model_dump(mode="json"))
    return card


def read_card(directory: Path) -> SupernetCard:
    """The card of a saved supernet.  InputError when it is absent, damaged or of another format version."""
    content = read_json(Path(directory) / CARD_FILE, "supernet card")
    if content.get("format") != FORMAT:
        raise InputError(
            f"{Path(directory) / CARD_FILE} has format version {content.get('format')!r}; this stepfront reads {FORMAT}"
        )
    return _validated(content, Path(directory) / CARD_FILE)


def _validated(content: dict[str, Any], path: Path) -> SupernetCard:
    try:
        return validate(SupernetCard, content)
    except InputError as error:
        raise InputError(f"{path} is not a supernet card: {error}") from None


def load_supernet(directory: Path, data_fingerprint: str | None = None) -> tuple[Supernet, SupernetCard]:
    """The supernet saved in `directory`, on the CPU.  Raises InputError when files are missing or damaged, when shapes
    or digest do not fit the card, or when it was made from other data than `data_fingerprint`."""
    directory = Path(directory)
    card = read_card(directory)
    check_fingerprint(card, data_fingerprint, directory)
    weights = read_weights(directory / WEIGHTS_FILE)
    return supernet_from_weights(card, weights, directory / WEIGHTS_FILE, verify=True), card


def check_fingerprint(card: SupernetCard, data_fingerprint: str | None, directory: Path) -> None:
    """InputError when the supernet was made from other data than `data_fingerprint`.

    An imported supernet has no fingerprint: nobody knows its images, so any are taken.
    """
    if data_fingerprint is not None and card.data_fingerprint and card.data_fingerprint != data_fingerprint:
        raise InputError(
            f"the supernet in {directory} was made from other data ({card.data_name}, fingerprint "
            f"{card.data_fingerprint[:12]}), not from the given ones (fingerprint {data_fingerprint[:12]}); "
            "train one on these data, or point data at those"
        )


def read_weights(path: Path) -> dict[str, Tensor]:
    """Tensors of a safetensors file; nothing else, a pickle least of all, is ever opened."""
    try:
        return load_file(path)
    except FileNotFoundError:
        raise InputError(f"no weights at {path}") from None
    except (SafetensorError, OSError, ValueError) as error:
        raise InputError(f"{path} is not a whole safetensors file: {error}") from None


def supernet_from_weights(
    card: SupernetCard, weights: Mapping[str, Tensor], source: Path | str = "the given weights", verify: bool = False
) -> Supernet:
    """A supernet around `weights` (not copied).  InputError when names, shapes or (with `verify`) digest differ."""
    with torch.device("meta"):
        supernet = Supernet(card.network, card.image_channels, card.resolution)
    expected = {name: tuple(value.shape) for name, value in supernet.widest.state_dict().items()}
    given = {name: tuple(value.shape) for name, value in weights.items()}
    for name in sorted(expected.keys() | given.keys()):
        if expected.get(name) != given.get(name):
            raise InputError(
                f"{source} does not fit its card: {name} is {given.get(name, 'missing')}, "
                f"the card's network has {expected.get(name, 'no such tensor')}"
            )
    if verify and weights_digest(weights) != card.digest:
        raise InputError(f"{source} does not belong to its card: the weights' digest differs")
    supernet.widest.load_state_dict(dict(weights), assign=True)
    return supernet.eval()


def starting_weights(
    directory: Path, network: NetworkSettings, diffusion: DiffusionSettings, own: Mapping[str, Tensor]
) -> tuple[dict[str, Tensor], SupernetCard]:
    """The weights in `directory` with which a training of these settings can begin: those that fit `own` in name and
    shape.  Images of another size or number of colours or classes leave a few layers to be drawn anew; widths and
    dropout may differ, too.

    Raises InputError when another setting of the network or of the noise differs.
    """
    supernet, card = load_supernet(directory)
    theirs = settings_json(card.network) | settings_json(card.diffusion)
    ours = settings_json(network) | settings_json(diffusion)
    for key in theirs:
        if key not in ("widths", "dropout", "classes") and theirs[key] != ours[key]:
            raise InputError(
                f"training.start: the supernet in {directory} has {key} {theirs[key]!r}, these settings {ours[key]!r}"
            )
    weights = dict(supernet.widest.state_dict())
    return {k: v for k, v in weights.items() if k in own and own[k].shape == v.shape}, card


def settings_json(settings: BaseModel) -> dict[str, Any]:
    """Settings as plain JSON values."""
    return settings.model_dump(mode="json")
