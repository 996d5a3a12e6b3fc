"""Images that kill a process that reads them; a worker that gets them imports this module and no test's."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import numpy as np
import torch.distributed as dist


class Deadly:
    """Images whose reader is killed, once, when it has read for `steps` steps.

    It is the reader of a `rank`, or without one the first in another process than the driver.
    """

    def __init__(self, images: np.ndarray, mark: Path, steps: int, rank: int | None = None) -> None:
        self.images, self.shape, self.mark, self.left, self.rank = images, images.shape, mark, 3 * steps, rank
        self.driver = os.getpid()

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        if self.rank is not None or os.getpid() != self.driver:
            self.left -= 1
        if self.left < 0 and self._is_to_die() and not self.mark.exists():
            self.mark.write_text(str(os.getpid()))
            os.kill(os.getpid(), signal.SIGKILL)
        return self.images[rows]

    def _is_to_die(self) -> bool:
        if self.rank is None:
            return os.getpid() != self.driver
        return dist.is_initialized() and dist.get_rank() == self.rank
