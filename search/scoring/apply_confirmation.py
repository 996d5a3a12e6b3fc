"""Bring the front's table and the claim of a search in line with its confirmed scores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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


def apply_confirmation(directory: Path, settings: RunSettings, looks: Sequence[int] = ()) -> None:
    """Rewrite front.parquet, and the claim in search.json, from the confirmed scores on disk, if there are any.

    `looks` are further numbers of seeds at which the claim may be tested, beside those of earlier confirmations.
    """
    confirmed = read_confirmed(directory)
    if confirmed is None:
        return
    snapshot = read_snapshot(directory)
    objectives = Objectives.of_facts(snapshot.facts)
    used = confirmed[confirmed["used"]]
    write_table(with_confirmation(snapshot.front, used, objectives, own_sampler(settings)), directory / FRONT)
    facts = dict(snapshot.facts)
    rules = rules_of(facts, settings, int(used["images"].iloc[0]), looks)
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


def rules_of(facts: Mapping[str, Any], settings: RunSettings, images: int, looks: Sequence[int] = ()) -> Rules:
    """Return the rules of a claim from scores of that many images, with `looks` beside those of earlier claims.

    Seeds and noise are the same at every confirmation.  So whoever confirms again until a claim holds has taken a look
    each time, and all of them count.
    """
    confirm, before = settings.confirm, facts.get("savings") or {}
    earlier, others = before.get("looks") or (), int(before.get("looks_at_other_images") or 0)
    if before.get("images") != images:
        earlier, others = (), others + len(earlier)
    taken = sorted({*earlier, *looks}) or plan_looks(confirm.seeds, confirm.max_seeds)
    return Rules(confirm.margin, tuple(taken), Objectives.of_settings(settings).cost, others)
