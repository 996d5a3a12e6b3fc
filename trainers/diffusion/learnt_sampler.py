"""Hold a learnt sampler: the times of its steps, what the network is told, and corrections to a solver's coefficients.

It is the parametrisation of Generalized Solvers (arXiv 2510.17699): a closed-form solver at learnt times, plus additive
corrections over all earlier states and predictions.  Learnt times alone (LD3, arXiv 2405.15506) have no corrections.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from stepfront.errors import InputError

Table = tuple[tuple[float, ...], ...]
"""[N, N], zero above the diagonal."""


@dataclass(frozen=True)
class LearntSampler:
    """A solver by name at `times` [N] (falling), with corrections that are added to its coefficients.

    `network_times` [N] is what the network is told at each step; equal to `times` unless it was learnt apart.
    `states` and `clean` [N, N] are added to the columns of the same name of `Coefficients`; None adds nothing.
    Raises InputError for lengths that differ, times that do not fall, and numbers that are not finite.
    """

    solver: str
    times: tuple[float, ...]
    network_times: tuple[float, ...]
    states: Table | None = None
    clean: Table | None = None

    def __post_init__(self) -> None:
        steps = len(self.times)
        if len(self.network_times) != steps:
            raise InputError(
                f"a learnt sampler of {steps} times and {len(self.network_times)} network times; give equally many"
            )
        if not all(map(math.isfinite, (*self.times, *self.network_times))):
            raise InputError("a learnt sampler's times must be finite")
        if not steps or any(later >= earlier for earlier, later in zip(self.times, self.times[1:], strict=False)):
            raise InputError("a learnt sampler's times must decrease, from noise to image")
        for name in ("states", "clean"):
            _check_table(name, getattr(self, name), steps)

    @property
    def digest(self) -> str:
        """Return a digest of all its numbers and its solver, 16 hexadecimal digits."""
        return hashlib.sha256(json.dumps(self.to_json(), sort_keys=True).encode()).hexdigest()[:16]

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values, from which `from_json` makes an equal sampler; floats keep every bit."""
        return {
            "solver": self.solver,
            "times": list(map(float, self.times)),
            "network_times": list(map(float, self.network_times)),
            "states": None if self.states is None else [list(map(float, row)) for row in self.states],
            "clean": None if self.clean is None else [list(map(float, row)) for row in self.clean],
        }

    @staticmethod
    def from_json(content: Mapping[str, Any]) -> LearntSampler:
        """Return the sampler of `to_json`.  Raises InputError when something is missing or not a number."""
        try:
            return LearntSampler(
                str(content["solver"]),
                tuple(map(float, content["times"])),
                tuple(map(float, content["network_times"])),
                _table(content["states"]),
                _table(content["clean"]),
            )
        except InputError:
            raise
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(f"not a learnt sampler ({type(error).__name__}: {error}); learn it again") from error


def _table(rows: Any) -> Table | None:
    return None if rows is None else tuple(tuple(map(float, row)) for row in rows)


def _check_table(name: str, table: Table | None, steps: int) -> None:
    if table is None:
        return
    if len(table) != steps or any(len(row) != steps for row in table):
        raise InputError(f"a learnt sampler's {name} must be a table of {steps} x {steps} for {steps} steps")
    if not all(map(math.isfinite, (number for row in table for number in row))):
        raise InputError(f"a learnt sampler's {name} must be finite")
    if any(number for place, row in enumerate(table) for number in row[place + 1 :]):
        raise InputError(f"a learnt sampler's {name} must be zero above the diagonal: no step reads later ones")
