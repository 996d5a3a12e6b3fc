"""Refuse to continue a study with settings under which new scores would not compare with the stored ones."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from optuna.trial import FrozenTrial

from stepfront.errors import InputError
from stepfront.search.algorithm.trials import GENOME
from stepfront.search.study.trial_store import TrialStore

SPEC = "spec"
"""The study's attribute that holds everything that scores depend on, and the space of the plans."""

EARLIER_SPACES = "earlier_spaces"
"""The key of the specification that lists the spaces in which the search was before; most have none."""

BELOW = "below"
"""The key of an earlier space that says below which number trials were proposed in it."""

LEARNT = "learnt"
"""The key of the specification that has the digests of the learnt samplers by number of steps."""

_SPACE = ("space", "sampler", LEARNT)


GenomeMap = Callable[[str], str]
"""Return the genome that a plan has now, of the genome that it had in an earlier space."""


@dataclass(frozen=True)
class EarlierGenomes:
    """How trials of earlier spaces are read: `map_of` an earlier space, and whether the study may leave its own."""

    map_of: Callable[[Mapping[str, Any]], GenomeMap]
    may_widen: bool = False


@dataclass(frozen=True)
class StudySpec:
    """The specification of a study: as it is `given` now, and the spaces that its trials so far were proposed in.

    `left` is the space that the study leaves now; None where it stays.
    """

    given: Mapping[str, Any]
    before: tuple[dict[str, Any], ...] = field(default=())
    left: dict[str, Any] | None = None

    def earlier(self, trials: int) -> tuple[dict[str, Any], ...]:
        """Return the earlier spaces of a study with so many trials, each with its `below`."""
        return self.before if self.left is None else (*self.before, self.left | {BELOW: trials})

    def genome_of(self, map_of: Callable[[Mapping[str, Any]], GenomeMap]) -> Callable[[FrozenTrial], str]:
        """Return the function that gives the genome of a stored trial in the space of now."""
        spaces = (*self.before, *([self.left | {BELOW: math.inf}] if self.left else []))
        maps = [(space[BELOW], map_of(space)) for space in spaces]

        def genome(trial: FrozenTrial) -> str:
            stored = str(trial.user_attrs[GENOME])
            return next((mapped(stored) for below, mapped in maps if trial.number < below), stored)

        return genome

    def content(self, trials: int) -> dict[str, Any]:
        """Return what a study with so many trials stores."""
        earlier = self.earlier(trials)
        return dict(self.given) | ({EARLIER_SPACES: list(earlier)} if earlier else {})


def check_compatible(store: TrialStore, spec: Mapping[str, Any], may_widen: bool = False) -> StudySpec:
    """Store the `spec` of a new study; compare it with the stored one of an old study, and return it.

    It holds everything that two searches must share for their scores to compare.  With `may_widen` the space of plans
    may be another one; the study's is written later.  Raises InputError where anything else differs.
    """
    given = _as_stored(spec)
    stored = store.study_attribute(SPEC)
    if stored is None:
        store.set_study_attribute(SPEC, given)
        return StudySpec(given)
    return compared(stored, given, may_widen)


def _as_stored(spec: Mapping[str, Any]) -> dict[str, Any]:
    return dict(json.loads(json.dumps(dict(spec))))  # tuples become lists, as in the storage


def compared(stored: Mapping[str, Any], spec: Mapping[str, Any], may_widen: bool) -> StudySpec:
    """Return the specification of a study with a stored one.  Raises InputError where its scores would not compare."""
    given = _as_stored(spec)
    before = tuple(stored.get(EARLIER_SPACES, ()))
    now = {key: value for key, value in stored.items() if key != EARLIER_SPACES}
    for key in sorted(given.keys() | now.keys()):
        old, new = now.get(key), given.get(key)
        if new != old and not (may_widen and _may_differ(key, old, new)):
            raise InputError(
                f"this search was begun with {key} {old!r}, not {new!r}, so its scores would not be comparable.  "
                f"Choose another name, or start over with --fresh{_hint(key, old, new)}"
            )
    same = all(given.get(key) == now.get(key) for key in _SPACE)
    return StudySpec(given, before, None if same else {key: now[key] for key in _SPACE[:2]})


def _may_differ(key: str, stored: Any, given: Any) -> bool:
    """Return whether scores compare although a part of the specification differs: the space, or more steps."""
    if key == "sampler":
        return bool(stored | {"steps": given["steps"]} == given)
    if key == LEARNT:  # samplers of further numbers of steps
        return bool(stored and given and stored.items() <= given.items())
    return key == "space"


def _hint(key: str, stored: Any, given: Any) -> str:
    larger = key in _SPACE[:2] and _may_differ(key, stored, given)
    return "; `stepfront extend SEARCH --set` continues in a larger space" if larger else ""
