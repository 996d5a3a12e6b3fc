"""Find the replaceable parts of the program by name: families, formats, features, solvers, proxies, scores, observers.

A part is named in the settings in one of three ways:

- a name of ours, such as `ddim`;
- a name that an installed package registers as an entry point of the part's group, such as `stepfront.solvers`;
- an import path, `package.module:function`, of a module that every process of the run can import.

Our own parts are import paths, too, so all three end in the same import.  Names are checked without importing anything.
The contract of each kind is the Protocol or base class that stands beside the function that looks it up.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache, reduce
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from stepfront.errors import InputError, first_line

_PART = r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*"
_IMPORT_PATH = re.compile(f"({_PART}):({_PART})")


def is_import_path(name: str) -> bool:
    """Return whether `name` looks like `package.module:function`."""
    return _IMPORT_PATH.fullmatch(name) is not None


@dataclass(frozen=True)
class Registry:
    """All parts of one kind: `kind` in words, the entry points' `group`, and our own parts by name."""

    kind: str
    group: str
    ours: Mapping[str, str]

    @property
    def possible(self) -> str:
        """The names that can be given, as a phrase for errors and help."""
        known = [*self.ours, *self._others()]
        return f"{', '.join(known)}{', or ' if known else ''}your own function as package.module:function"

    def check(self, name: str) -> str:
        """Return `name` if a part may be behind it.  Nothing is imported.

        Raises InputError when it is neither a known name nor an import path.
        """
        if name not in self.ours and not is_import_path(name) and name not in self._others():
            raise InputError(f"unknown {self.kind} {name!r}; possible: {self.possible}")
        return name

    def load(self, name: str) -> Callable[..., Any]:
        """Import the part of this name.

        Raises InputError when the name is unknown, its module can't be imported, or what it names can't be called.
        """
        path = self.ours.get(name) or self._others().get(self.check(name), name)
        try:
            part = _import(path)
        except Exception as error:  # importing a user's module runs it, so anything can be raised
            line = first_line(error)
            raise InputError(
                f"can't import the {self.kind} {name!r} ({type(error).__name__}: {line}); install its package, or put "
                "its folder on PYTHONPATH, on every machine of the run"
            ) from error
        if not callable(part):
            raise InputError(f"the {self.kind} {name!r} is not callable but {type(part).__name__}; name a function")
        found: Callable[..., Any] = part
        return found

    def _others(self) -> dict[str, str]:
        """Return the entry points of other packages, import path by name; names of ours are left out."""
        found: dict[str, str] = {}
        for point in _entry_points(self.group):
            if found.setdefault(point.name, point.value) != point.value:
                raise InputError(
                    f"two installed packages register the {self.kind} {point.name!r}: {found[point.name]} and "
                    f"{point.value}; uninstall one of them, or give the import path"
                )
        return {name: path for name, path in found.items() if name not in self.ours}


def _import(path: str) -> Any:
    module, _, attribute = path.partition(":")
    return reduce(getattr, attribute.split("."), importlib.import_module(module))


@cache
def _entry_points(group: str) -> tuple[EntryPoint, ...]:
    # Reads the metadata of all installed packages, so once per process.
    return tuple(entry_points(group=group))


FAMILIES = Registry(
    "network family",
    "stepfront.families",
    {
        "unet": "stepfront.trainers.networks.unet:build_unet",
        "spectral": "stepfront.trainers.network_families.spectral:build_spectral",
        "ode": "stepfront.trainers.network_families.ode:build_ode",
        "dit": "stepfront.trainers.networks.dit:build_dit",
        "unet2d_condition": "stepfront.trainers.network_families.unet2d_condition:build_unet2d_condition",
    },
)
"""`network.family`; the contract is `NetworkFamily` in trainers/networks/families.py."""

FORMATS = Registry(
    "dataset format",
    "stepfront.formats",
    {
        "digits": "stepfront.trainers.data.formats.digits:read_digits",
        "idx": "stepfront.trainers.data.formats.idx:read_idx",
        "npz": "stepfront.trainers.data.formats.npz:read_npz",
        "folder": "stepfront.trainers.data.formats.folder:read_folder",
        "cifar": "stepfront.trainers.data.formats.cifar:read_cifar",
        "parquet": "stepfront.trainers.data.formats.parquet:read_parquet",
        "webdataset": "stepfront.trainers.data.formats.webdataset:read_webdataset",
    },
)
"""`data.format`; the contract is `DatasetFormat` in trainers/data/formats/dataset_format.py."""

FEATURES = Registry(
    "feature set",
    "stepfront.features",
    {
        "degradations": "stepfront.trainers.feature_networks.degradation_features:DegradationFeatures",
        "random": "stepfront.trainers.feature_networks.random_features:RandomFeatures",
        "classifier": "stepfront.trainers.feature_networks.classifier:ClassifierFeatures",
    },
)
"""`features.name`; the contract is `FeatureSet` in trainers/metrics/feature_set.py."""

SOLVERS = Registry(
    "solver",
    "stepfront.solvers",
    {
        "ddim": "stepfront.trainers.diffusion.solvers:ddim",
        "ddpm": "stepfront.trainers.diffusion.solvers:ddpm",
        "ddpm_large": "stepfront.trainers.diffusion.solvers:ddpm_large",
        "dpmpp_2m": "stepfront.trainers.diffusion.solvers:dpmpp_2m",
        "dpmpp_3m": "stepfront.trainers.solvers.dpm_solver:dpmpp_3m",
        "unipc_2": "stepfront.trainers.solvers.unipc:unipc_2",
        "unipc_3": "stepfront.trainers.solvers.unipc:unipc_3",
        "ipndm_2": "stepfront.trainers.solvers.ipndm:ipndm_2",
        "ipndm_3": "stepfront.trainers.solvers.ipndm:ipndm_3",
        "ipndm_4": "stepfront.trainers.solvers.ipndm:ipndm_4",
        "deis_2": "stepfront.trainers.solvers.deis:deis_2",
        "deis_3": "stepfront.trainers.solvers.deis:deis_3",
    },
)
"""`sampler.solver`; the contract is `Solver` in trainers/diffusion/solvers.py."""

PROXIES = Registry(
    "proxy",
    "stepfront.proxies",
    {
        "gap": "stepfront.search.algorithm.proxies:make_gap_proxy",
        "paired": "stepfront.search.algorithm.proxies:make_paired_proxy",
        "model": "stepfront.search.algorithm.proxies:make_model_proxy",
    },
)
"""`screen.proxy`; the contract is `ProxyFactory` and `Proxy` in search/algorithm/proxies.py."""

SCORES = Registry("score", "stepfront.scores", {})
"""`scores`; the contract is `ScoreFunction` in trainers/metrics/user_scores.py.  None is ours."""

OBSERVERS = Registry("observer", "stepfront.observers", {})
"""`tracking.observers`; the contract is `Observer` in search/observers/observer.py.  None is ours."""
