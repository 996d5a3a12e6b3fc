"""Sort a supernet's channels by their Taylor importance for some times, without changing what full width computes.

The importance of a weight is |w dL/dw|, the first-order change of the loss where it is removed (Molchanov et al. 2019),
summed over noisy batches as Diff-Pruning does (Fang et al. 2023, arXiv 2305.10924).  That of a channel is the sum over
all weights that belong to it.  Step-Adaptive Training's own proxy is a language model's advice, which can't be
reproduced.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stepfront.errors import InputError
from stepfront.trainers.config import TrainerSettings
from stepfront.trainers.data import ImageData
from stepfront.trainers.interop.channel_importance import Stream, arrange, permute, streams
from stepfront.trainers.interop.dit.inner_importance import inner_streams
from stepfront.trainers.networks.dit import DiT
from stepfront.trainers.networks.supernet import Supernet
from stepfront.trainers.networks.unet import UNet
from stepfront.trainers.noise_schedule import noise_schedule
from stepfront.trainers.training.batches import BatchSource, NoiseTable, NoisyBatch, step_generator
from stepfront.trainers.training.distributed import Group

FIRST_STEP = 2**40
"""The first step whose generator draws a batch of the importance: no training has it."""


def channel_streams(network: nn.Module) -> list[Stream]:
    """Return the streams of channels that can change places.  Raises InputError for a family where they are unknown."""
    if type(network) is UNet:
        return streams(network)
    if isinstance(network, DiT):
        return inner_streams(network)
    raise InputError(
        f"the channels of a {type(network).__name__} can't be sorted; possible: the families unet and dit, or "
        "adapt.sort=none"
    )


def sort_for_times(supernet: Supernet, settings: TrainerSettings, data: ImageData, batches: int) -> None:
    """Sort the channels in place by their importance for the times of the settings' training.

    The function of full width stays the same up to rounding; narrow widths become others.
    """
    found, device = channel_streams(supernet.widest), torch.device("cpu")
    source = BatchSource(settings, data, NoiseTable(noise_schedule(settings.diffusion), device), Group(), device)
    totals = {id(weights): torch.zeros_like(weights) for weights in supernet.widest.parameters()}
    supernet.widest.requires_grad_(True).eval()
    for number in range(batches):
        for clean in source.draw(step_generator(settings.training.seed, FIRST_STEP + number)):
            _add_importance(supernet.widest, source.noisy(clean), totals)
    orders = [arrange(_importance(stream, totals), stream.cuts) for stream in found]
    permute(found, orders)
    supernet.widest.requires_grad_(False)


def _add_importance(network: nn.Module, batch: NoisyBatch, totals: dict[int, Tensor]) -> None:
    network.zero_grad(set_to_none=True)
    with torch.enable_grad():
        predicted = network(batch.x, batch.t, *(() if batch.label is None else (batch.label,)))
        F.mse_loss(predicted.float(), batch.target).backward()
    for weights in network.parameters():
        if weights.grad is not None:
            totals[id(weights)] += (weights * weights.grad).abs().detach()
    network.zero_grad(set_to_none=True)


def _importance(stream: Stream, totals: dict[int, Tensor]) -> Tensor:
    """Return the sum of the importances of all weights of each channel of a stream, [C]."""
    total = torch.zeros(stream.channels)
    for weights, axis, first in stream.places:
        part = totals[id(weights)].narrow(axis, first, stream.channels)
        total += part.transpose(0, axis).flatten(1).sum(1) if part.ndim > 1 else part
    return total
