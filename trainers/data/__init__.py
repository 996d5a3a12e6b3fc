"""Read images of every supported format as 8-bit arrays with labels, split, and with a fingerprint."""

from stepfront.trainers.data.dataset import ImageData, fingerprint, load_data, to_float, to_pixels
from stepfront.trainers.data.decode import Split
from stepfront.trainers.data.reading_report import ReadingReport
from stepfront.trainers.data.spill_buffer import Labels, Pixels, Progress, blocks

__all__ = [
    "ImageData",
    "Labels",
    "Pixels",
    "Progress",
    "ReadingReport",
    "Split",
    "blocks",
    "fingerprint",
    "load_data",
    "to_float",
    "to_pixels",
]
