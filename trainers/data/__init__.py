"""Images of every supported format -> 8-bit arrays with labels, split into training and held out, and a fingerprint.

`dataset` is what the rest calls; each format has a reader in a file of its own, and `pixels` is what they share.
"""

from stepfront.trainers.data.dataset import ImageData, fingerprint, load_data, to_float, to_pixels
from stepfront.trainers.data.decode import Labels, Pixels, Split
from stepfront.trainers.data.spill_buffer import Progress, blocks

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
