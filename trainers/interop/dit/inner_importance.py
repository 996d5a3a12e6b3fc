"""Sort the heads and the MLP's hidden channels of a transformer by importance, without changing what it computes.

They are what every narrow width cuts.  Channels of tokens keep their order: each has the positions of its own.
"""

from __future__ import annotations

from torch import nn

from stepfront.trainers.interop.channel_importance import Stream, columns_norm, head_streams
from stepfront.trainers.networks.dit import Block, DiT


def inner_streams(network: DiT) -> list[Stream]:
    """Return the streams inside the blocks: the heads' channels and the MLP's hidden channels of each."""
    found = []
    for block in network.blocks:
        assert isinstance(block, Block)
        found += head_streams(block.qkv, block.out, block.heads)
        first, last = block.mlp[0], block.mlp[2]
        assert isinstance(first, nn.Linear)
        assert isinstance(last, nn.Linear)
        places = [(first.weight, 0, 0), (first.bias, 0, 0), (last.weight, 1, 0)]
        found.append(Stream(last.in_features, columns_norm(last), list(places)))
    return found
