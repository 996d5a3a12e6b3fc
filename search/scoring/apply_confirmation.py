"""Bring the front's table and the claim of a search in line with its confirmed scores."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from stepfront.files import write_json
from stepfront.search.claims.claim import Rules, Standing, make_claim
from stepfront.search.claims.disagreement import find_disagreements
from stepfront.search.config import RunSettings
from stepfront.search.genomes.encodings import EvenStages
from stepfront.search.objectives import Objectives
from stepfront.search.records.front import read_confirmed, with_confirmation
from stepfront.search.records.plan_rows import own_sampler
from stepfront.search.records.run_directory import FACTS_FILE
from stepfront.tables.facts import read_facts
from stepfront.tables.parquet import write_table
from stepfront.tables.schema import FRONT
from stepfront.tables.search_tables import read_snapshot

Look = tuple[int, int]
"""Images per score, 0 where they are not known, and noise seeds."""


def begin_looks(directory: Path, settings: RunSettings, images: int, seeds: Sequence[int]) -> Rules:
    """Write down, before anything is scored, at which numbers of seeds a confirmation may look; return its rules.

    Seeds and noise are the same at every confirmation.  So whoever confirms again until a claim holds has taken a look
    each time, and all of them count: also those of confirmations that were interrupted.
    """
    facts = read_facts(directory)
    looks = looks_taken(facts) | {(images, each) for each in seeds}
    kept = [list(look) for look in sorted(looks)]
    if facts.get("looks") != kept:
        write_json(directory / FACTS_FILE, facts | {"looks": kept})
    cost = Objectives.of_settings(settings).cost
    return Rules(settings.confirm.margin, tuple(seeds), cost, len(looks) - len(seeds))


def looks_taken(facts: Mapping[str, Any]) -> set[Look]:
    """Return the looks of all confirmations of a search; those of earlier versions are part of its claim."""
    if "looks" in facts:
        return {(images, seeds) for images, seeds in facts["looks"]}
    before = facts.get("savings") or {}
    known = {(int(before["images"]), seeds) for seeds in before.get("looks") or ()}
    return known | {(0, number) for number in range(before.get("looks_at_other_images") or 0)}


def reference_out_of_reach(standing: Standing, settings: RunSettings) -> dict[str, Any] | None:
    """Return the reference whose number of steps no plan of the search takes, with what `out_of_reach` says of it.

    Each judge has its own reference.  Of several, it is the one of most steps; `features` names its judge where the
    judges' references differ.  None where plans take the steps of all.
    """
    differ, missed = len({plan.key for plan in standing.references}) > 1, list[dict[str, Any]]()
    for judge, plan in zip(standing.judges, standing.references, strict=True):
        if (found := out_of_reach(plan.steps, settings)) is not None:
            named = {"plan": plan.plan, "sampler": plan.sampler} | ({"features": judge} if differ else {})
            missed.append(found | named)
    return max(missed, key=lambda each: int(each["steps"]), default=None)


def out_of_reach(steps: int, settings: RunSettings) -> dict[str, int] | None:
    """Return the steps that a full-width sampler takes, where no plan of the search's space takes as many.

    With stages of several steps, plans have some numbers of steps only.  A search whose `sampler.steps` is that number
    has such plans; `stages` is the most stages that it can have, where these are fewer than the search's.
    """
    space, most = settings.space, settings.sampler.steps
    if steps > most:
        return {"steps": steps}
    if space.skip != "even" or space.encoding != "stages" or steps in _step_counts(space.stages, most):
        return None
    return {"steps": steps} | ({"stages": steps} if steps < space.stages else {})


def _step_counts(stages: int, steps: int) -> tuple[int, ...]:
    return EvenStages(steps, (1.0,), stages).step_counts


def apply_confirmation(directory: Path, settings: RunSettings, images: int, standing: Standing | None) -> None:
    """Rewrite front.parquet from the confirmed scores on disk, and the claim in search.json from the standing.

    The claim stays as it is where front and report use the scores of another number of images.
    """
    confirmed = read_confirmed(directory)
    if confirmed is None:
        return
    snapshot = read_snapshot(directory)
    used = confirmed[confirmed["used"]]
    objectives = Objectives.of_facts(snapshot.facts)
    write_table(with_confirmation(snapshot.front, used, objectives, own_sampler(settings)), directory / FRONT)
    shown = int(used["images"].iloc[0])
    if shown != images:
        logging.getLogger("stepfront").warning(
            "front and claim stay those of %d images, at which more plans have scores; --images %d confirms them again",
            shown,
            shown,
        )
        return
    claim = None
    if standing is not None:
        claim = make_claim(standing, images) | {"disagreements": find_disagreements(used)}
        claim["out_of_reach"] = reference_out_of_reach(standing, settings)
    write_json(directory / FACTS_FILE, dict(snapshot.facts) | {"savings": claim})
