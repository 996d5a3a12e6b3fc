"""Record a function of tensors as a CUDA graph, which one launch replays.

A U-Net is hundreds of small kernels.  On a fast GPU, launching them from Python takes longer than running them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

WARM_UP = 3
"""Calls before the recording: they compile, choose convolutions and allocate."""


class CudaGraph:
    """A recorded call: a function from tensors of these shapes, types and layouts to one tensor.

    The function may have effects on tensors that exist before, such as adding to gradients; a replay has them again.
    It must not wait for the GPU.  `pool` is a handle of memory for graphs that never run at the same time.
    """

    def __init__(self, function: Callable[..., Tensor], inputs: Sequence[Tensor], pool: Any = None) -> None:
        """Call the function a few times, and record it.

        Raises RuntimeError, or what CUDA raises, when it can't be recorded.
        """
        device = inputs[0].device
        with torch.cuda.device(device):
            with torch.inference_mode(False), torch.no_grad():  # inputs that any later mode may write to
                self._inputs = [torch.empty_like(each).copy_(each) for each in inputs]
            aside = torch.cuda.Stream(device)
            aside.wait_stream(torch.cuda.current_stream(device))
            with torch.cuda.stream(aside), _fastest_convolutions():
                for _ in range(WARM_UP):
                    function(*self._inputs)
            torch.cuda.current_stream(device).wait_stream(aside)
            self._graph = torch.cuda.CUDAGraph()
            # Other threads pin memory meanwhile, which the default mode takes for a part of the recording.
            with (
                _fastest_convolutions(),
                torch.cuda.graph(self._graph, pool=pool, capture_error_mode="thread_local"),
            ):
                self._output = function(*self._inputs)

    def __call__(self, *inputs: Tensor) -> Tensor:
        """Return the function's result on inputs of the recorded shapes, as a tensor of its own."""
        for own, given in zip(self._inputs, inputs, strict=True):
            own.copy_(given, non_blocking=True)
        self._graph.replay()
        return self._output.clone()


@contextmanager
def _fastest_convolutions() -> Iterator[None]:
    """Let cuDNN measure its algorithms.  The recording keeps the choice, so that a replay is always the same."""
    before = torch.backends.cudnn.benchmark
    torch.backends.cudnn.benchmark = True
    try:
        yield
    finally:
        torch.backends.cudnn.benchmark = before
