"""Bring the front's table and the claim of a search in line with its confirmed scores."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from stepfront.files import write_json
from stepfront.search.claims.claim import Rules, compare_plans, make_claim
from stepfront.search.claims.disagreement import find_disagreements
from stepfront.search.claims.noninferiority import plan_looks
from stepfront.search.config import RunSettings
from stepfront.search.objectives import Objectives
from stepfront.search.records.front import read_confirmed, with_confirmation
from stepfront.search.records.plan_rows import own_sampler
from stepfront.search.records.run_directory import FACTS_FILE
from stepfront.tables.parquet import write_table
from stepfront.tables.schema import FRONT
from stepfront.tables.search_tables import read_snapshot


def apply_confirmation(directory: Path, settings: RunSettings, looks: tuple[int, ...] | None = None) -> None:
    """Rewrite front.parquet, and the claim in search.json, from the confirmed scores on disk, if there are any.

    `looks` are the numbers of seeds at which the claim may be tested; the default are those of the last confirmation.
    """
    confirmed = read_confirmed(directory)
    if confirmed is None:
        return
    snapshot = read_snapshot(directory)
    objectives = Objectives.of_facts(snapshot.facts)
    used = confirmed[confirmed["used"]]
    write_table(with_confirmation(snapshot.front, used, objectives, own_sampler(settings)), directory / FRONT)
    facts = dict(snapshot.facts)
    rules = Rules(settings.confirm.margin, looks or _looks_before(facts, settings), objectives.cost)
    facts["savings"] = claim_of(confirmed, used, rules)
    write_json(directory / FACTS_FILE, facts)


def claim_of(confirmed: pd.DataFrame, used: pd.DataFrame, rules: Rules) -> dict[str, Any] | None:
    """Return the claim as JSON values; None where full width was not confirmed.

    The claim is made from all seeds of the number of images that front and report use.
    """
    images = int(used["images"].iloc[0])
    standing = compare_plans(confirmed[confirmed["images"] == images], rules)
    if standing is None:
        return None
    return make_claim(standing, images) | {"disagreements": find_disagreements(used)}


def _looks_before(facts: Mapping[str, Any], settings: RunSettings) -> tuple[int, ...]:
    looks = (facts.get("savings") or {}).get("looks")
    return tuple(looks) if looks else plan_looks(settings.confirm.seeds, settings.confirm.max_seeds)
