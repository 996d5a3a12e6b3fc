"""Images of every supported format -> 8-bit arrays with labels, split into training and held out, and a fingerprint.

`dataset` is what the rest calls; each format has a reader in a file of its own, and `pixels` is what they share.
"""

from trainers.data.dataset import ImageData, fingerprint, load_data, to_float, to_pixels
from trainers.data.pixels import Labels, Pixels, Split
from trainers.data.room import Progress, blocks

__all__ = [
    "ImageData",
    "Labels",
    "Pixels",
    "Progress",
    "Split",
    "blocks",
    "fingerprint",
    "load_data",
    "to_float",
    "to_pixels",
]
