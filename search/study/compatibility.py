"""Refuse to continue a study with settings under which new scores would not compare with the stored ones."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from stepfront.errors import InputError
from stepfront.search.study.trial_store import TrialStore


def check_compatible(store: TrialStore, spec: Mapping[str, Any]) -> None:
    """Store the `spec` of a new study; compare it with the stored one of an old study.

    It holds everything that two searches must share for their scores to compare.  Raises InputError where it differs.
    """
    given = json.loads(json.dumps(dict(spec)))  # tuples become lists, as in the storage
    stored = store.study_attribute("spec")
    if stored is None:
        store.set_study_attribute("spec", given)
        return
    for key in sorted(given.keys() | stored.keys()):
        if given.get(key) != stored.get(key):
            raise InputError(
                f"this search was begun with {key} {stored.get(key)!r}, not {given.get(key)!r}, so its scores would "
                "not be comparable.  Choose another name, or start over with --fresh"
            )
