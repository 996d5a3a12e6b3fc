"""Find which width of a slimmable diffusion network to run at which denoising step.

    import stepfront

    settings = stepfront.load_settings("configs/digits.yaml", ["budget.trials=40"])
    stepfront.train(settings)
    search = stepfront.run_search(settings)
    search.front()                         # a DataFrame
    search.sample("knee", images=16)       # uint8 [16, channels, height, width]

The functions stand in search/api.py and are imported when they are first used, so that this import is quick.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from stepfront.errors import InputError
from stepfront.version import __version__

if TYPE_CHECKING:
    from stepfront.search.api import Search, TrainedSupernet, adapt, load_settings, open_search, run_search, train

__all__ = [
    "InputError",
    "Search",
    "TrainedSupernet",
    "__version__",
    "adapt",
    "load_settings",
    "open_search",
    "run_search",
    "train",
]


def __getattr__(name: str) -> Any:
    """Import what stands in search/api.py when it is first used (PEP 562)."""
    if name in __all__:
        return getattr(importlib.import_module("stepfront.search.api"), name)
    raise AttributeError(f"module 'stepfront' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
