"""Declare every table of a search directory once: its file, its columns, their kinds and what they mean."""

from __future__ import annotations

import math
from typing import Any

from stepfront.plugins import PROXIES
from stepfront.tables.columns import Column, Table, with_required

FACTS_FILE, SETTINGS_FILE, JUDGES_FILE = "search.json", "settings.yaml", "judges.json"

TRIALS, FRONT, PROGRESS = "trials.parquet", "front.parquet", "progress.parquet"
BASELINES, METHOD_SCORES, VERSUS = "baselines.parquet", "methods.parquet", "versus.parquet"
CONFIRM, PROXY_SCORES, TRAINING = "confirm.parquet", "proxies.parquet", "training.parquet"
GAP, SENSITIVITY, ADAPTATION = "gap.parquet", "sensitivity.parquet", "adaptation.parquet"

PROXY_NAMES = tuple(PROXIES.ours)
"""The cheap scores that stand in for FID, from the cheapest to the most expensive to compute."""

PART_SECONDS = ("sampling_seconds", "features_seconds", "distance_seconds")
"""The parts of a trial's `seconds`."""

_TRIAL = (
    Column("trial", "integer", "number of the trial in its study; -1 for a baseline that no search proposed", True),
    Column("generation", "integer", "generation of the search that the trial belongs to; -1 for a baseline", True),
    Column(
        "origin",
        "text",
        "what made it: an initial plan's kind, crossover, mutation, neighbour, climb, random, or fit",
        True,
    ),
    Column("parents", "integers", "trials whose plans were combined"),
    Column("genome", "text", "the plan as the search varies it"),
    Column(
        "plan",
        "text",
        "widths as runs in sampling order, such as 12x0.50 8x1.00; r behind a width: reuses deep features, "
        "u: unguided, g3: guidance of scale 3, d2: depth 2",
        True,
    ),
    Column("widths", "numbers", "width per step, in sampling order; 0 where the step is skipped", True),
    Column("times", "numbers", "time per step, in sampling order"),
    Column("solver", "text", "solver of the sampler"),
    Column("grid", "text", "time grid that `times` are of; empty for a learnt sampler", fill=""),
    Column("paired", "number", "mean squared difference of the first images to full width's, from the same noise"),
    Column("fid", "number", "FID by the search's noise seed; NaN where the trial failed", True, finite="complete"),
    Column("features", "text", "features that FID is computed on"),
    Column("gflops", "number", "GFLOPs of the plan per image (2 FLOPs per multiply-add)", True, finite="complete"),
    Column("latency_ms", "number", "milliseconds of the plan per image, on the device that the search measured", True),
    Column("images", "integer", "images per score"),
    Column("noise_seed", "integer", "seed of the noise that the images are made from"),
    Column("seconds", "number", "seconds that the evaluation took"),
    Column("worker", "text", "worker that evaluated the plan"),
    Column("state", "text", "complete or failed", True),
    Column("error", "text", "why the trial failed; empty where it is complete"),
    Column("elapsed", "number", "seconds from the start of the search to the result"),
    Column(
        "violation", "number", "sum by which the plan exceeds the constraints; 0 where it meets them", finite="complete"
    ),
    Column("calls", "integer", "network calls made, one per image and step, two under guidance"),
    Column("calls_saved", "integer", "network calls that shared prefixes saved"),
    Column("gflops_saved", "number", "GFLOPs that shared prefixes saved, all images together"),
    Column("sampling_seconds", "number", "the part of `seconds` spent on the images", fill=math.nan),
    Column("features_seconds", "number", "the part of `seconds` spent on the images' features", fill=math.nan),
    Column("distance_seconds", "number", "the part of `seconds` spent on moments and distance", fill=math.nan),
    Column("prefix_states", "integer", "states of shared prefixes that the worker holds", fill=0),
    Column("prefix_mb", "number", "megabytes (2^20 bytes) of shared prefixes that the worker holds", fill=0.0),
    Column("device", "text", "device that evaluated the plan", fill=""),
    Column(
        "learnt",
        "text",
        "digests of weights fitted to the plan, in weights/, and of the sampler learnt for it, in samplers/",
        fill="",
    ),
)

_CONFIRMED = (
    Column("fid_confirmed", "number", "mean FID over held-out noise seeds; NaN where not confirmed", fill=math.nan),
    Column("fid_low", "number", "lower end of the 95 % interval of `fid_confirmed`", fill=math.nan),
    Column("fid_high", "number", "upper end of the 95 % interval of `fid_confirmed`", fill=math.nan),
    Column("confirm_images", "integer", "images per confirmed score; 0 where not confirmed", fill=0),
    Column("confirm_seeds", "integer", "number of held-out noise seeds; 0 where not confirmed", fill=0),
    Column("belongs", "truth", "whether the point is still on the front by its confirmed score", fill=True),
    Column("kid", "number", "mean KID over held-out noise seeds", fill=math.nan),
    Column("kid_low", "number", "lower end of the 95 % interval of `kid`", fill=math.nan),
    Column("kid_high", "number", "upper end of the 95 % interval of `kid`", fill=math.nan),
    Column("precision", "number", "mean precision over held-out noise seeds", fill=math.nan),
    Column("recall", "number", "mean recall over held-out noise seeds", fill=math.nan),
    Column("second_confirmed", "number", "mean FID on the second judge's features", fill=math.nan),
    Column("second_low", "number", "lower end of the 95 % interval of `second_confirmed`", fill=math.nan),
    Column("second_high", "number", "upper end of the 95 % interval of `second_confirmed`", fill=math.nan),
    Column("second_features", "text", "features of the second judge", fill=""),
    Column("fid_infinity", "number", "mean FID extrapolated to infinitely many images", fill=math.nan),
)

NOT_CONFIRMED: dict[str, Any] = {column.name: column.fill for column in _CONFIRMED}
"""What a front point has in the columns of a confirmation before there is one."""

BESIDE_FID = ("kid", "precision", "recall")
"""Scores that confirmed points have beside FID, where features of real images are available."""

_WITHIN_NOISE = Column(
    "within_noise",
    "integer",
    "trial of the cheapest front point whose FID is equal within noise; -1 where there is none or noise is unknown",
    fill=-1,
)
_LABEL = Column("label", "text", "knee, best, cheapest, several with commas, or empty", True)

_METHOD = Column("method", "text", "name of the baseline", True)
_SAMPLER = Column("sampler", "text", "solver and grid, where the plan is not on the search's own sampler", fill="")

_TABLES = (
    Table(
        TRIALS,
        "one row per finished trial, in the order of their numbers; further columns per score of `scores` that is an "
        "objective",
        _TRIAL,
    ),
    Table(
        FRONT,
        "the trials that no other trial dominates, the cheapest first; further columns NAME_confirmed, NAME_low and "
        "NAME_high per score of `scores`",
        (*_TRIAL, *_CONFIRMED, _WITHIN_NOISE, _LABEL),
    ),
    Table(
        PROGRESS,
        "one row per complete trial, in the order in which the results came",
        (
            Column("evaluation", "integer", "how many trials were complete by then", True),
            Column("trial", "integer", "number of the trial"),
            Column("generation", "integer", "generation by then"),
            Column(
                "hypervolume", "number", "hypervolume of the front below the reference point", True, finite="always"
            ),
            Column("features", "text", "features that FID is computed on"),
            Column("front_size", "integer", "points on the front"),
            Column("best_fid", "number", "least FID so far"),
            Column("network_gflops", "number", "GFLOPs spent in networks so far", True, finite="always"),
            Column("seconds", "number", "seconds from the start of the search"),
        ),
    ),
    Table(
        BASELINES,
        "one row per baseline's plan, with the columns of trials.parquet; failed where its score is not finite",
        (*with_required(_TRIAL, {"plan", "fid", "gflops", "latency_ms", "state"}), _METHOD, _SAMPLER),
    ),
    Table(
        METHOD_SCORES,
        "one row per method: the search and each baseline",
        (
            Column("method", "text", "search, or name of the baseline", True),
            Column("evaluations", "integer", "plans scored", True),
            Column("hypervolume", "number", "hypervolume of the method's front", True, finite="always"),
            Column(
                "share", "number", "that as a share of the front that all methods make together", True, finite="always"
            ),
            Column("features", "text", "features that FID is computed on"),
            Column("network_gflops", "number", "GFLOPs spent in networks", True),
        ),
        made_by="baselines",
    ),
    Table(
        VERSUS,
        "one row per front point: the best baseline of equal or lower cost",
        (
            Column("trial", "integer", "number of the front point's trial", True),
            Column("gflops", "number", "GFLOPs of the front point per image", True, finite="always"),
            Column("fid", "number", "FID of the front point", True, finite="always"),
            Column("features", "text", "features that FID is computed on"),
            Column("baseline_method", "text", "method of the best baseline; empty where none is as cheap", True),
            Column("baseline_plan", "text", "plan of the best baseline", True),
            Column("baseline_gflops", "number", "GFLOPs of the best baseline per image", True),
            Column("baseline_fid", "number", "FID of the best baseline", True),
        ),
        made_by="baselines",
    ),
    Table(
        CONFIRM,
        "one row per confirmed plan, held-out noise seed and number of images; a further column per score of `scores`",
        (
            Column("kind", "text", "front, full, sampler (another at full width), baseline, or parent of a fit", True),
            Column("label", "text", "name of the point, or of the baseline's method"),
            Column("trial", "number", "number of the trial; NaN for a baseline"),
            Column("plan", "text", "widths as runs in sampling order", True),
            _SAMPLER,
            Column("learnt", "text", "digest of the sampler or the weights that were learnt for the plan", fill=""),
            Column("gflops", "number", "GFLOPs of the plan per image"),
            Column("latency_ms", "number", "milliseconds of the plan per image"),
            Column("fid_search", "number", "FID that the search had", True),
            Column("noise_seed", "integer", "the held-out noise seed"),
            Column("images", "integer", "images per score"),
            Column("fid", "number", "FID on the held-out noise seed", True, finite="always"),
            Column("kid", "number", "KID on the held-out noise seed", fill=math.nan),
            Column("precision", "number", "precision on the held-out noise seed", fill=math.nan),
            Column("recall", "number", "recall on the held-out noise seed", fill=math.nan),
            Column("real_images", "integer", "real images that KID, precision and recall compare with", fill=0),
            Column("fid_infinity", "number", "FID extrapolated to infinitely many images", fill=math.nan),
            Column("used", "truth", "whether front and report use the row: all its rows have equal images", fill=True),
            Column("features", "text", "features that the scores are computed on", fill=""),
            Column("second_fid", "number", "FID on the second judge's features", fill=math.nan),
            Column("second_features", "text", "features of the second judge", fill=""),
            Column("blurred_fid", "number", "FID of the images after a blur, of plans at full width", fill=math.nan),
            Column("second_blurred_fid", "number", "the same on the second judge's features", fill=math.nan),
            Column("second_digest", "text", "first digits of the digest of the second judge's features", fill=""),
        ),
        made_by="confirm",
    ),
    Table(
        PROXY_SCORES,
        "one row per complete trial and score",
        (
            Column("trial", "integer", "number of the trial", True),
            Column("proxy", "text", f"{', '.join(PROXY_NAMES)} or fid", True),
            Column("score", "number", "the trial's score; `model` is predicted without the trial itself", True),
            Column("features", "text", "features that FID is computed on"),
        ),
    ),
    Table(
        GAP,
        "one row per step and width: how much worse the width predicts the noise than full width, on held-out images",
        (
            Column("step", "integer", "the step in sampling order, from 1 on", True),
            Column("time", "number", "the step's time"),
            Column("width", "number", "the width", True, finite="always"),
            Column("gap", "number", "growth of the denoising loss against full width", True, finite="always"),
        ),
    ),
    Table(
        SENSITIVITY,
        "one row per stretch of steps and width: FID by the proxy `model` if front points had that width there",
        (
            Column("first_step", "integer", "first step of the stretch", True),
            Column("last_step", "integer", "last step of the stretch", True),
            Column("width", "number", "the width", True, finite="always"),
            Column("factor", "number", "expected FID divided by that of full width there", True, finite="always"),
            Column("plans", "integer", "front points that the factor is a mean over", True),
        ),
    ),
    Table(
        TRAINING,
        "one row per checkpoint of a training, in the supernet's directory; further columns loss/WIDTH per width, and "
        "loss/WIDTHdDEPTH (such as loss/0.50d2) per depth other than the full one",
        (
            Column("step", "integer", "training step of the checkpoint"),
            Column("time", "integer", "milliseconds since 1970"),
            Column("images_per_second", "number", "training speed"),
            Column("learning_rate", "number", "learning rate at the step"),
        ),
        made_by="train",
    ),
    Table(
        ADAPTATION,
        "one row per group of times and width of a supernet that `stepfront adapt` made, in its directory and in those "
        "of its searches",
        (
            Column("group", "integer", "number of the group, from 1 on, the least noisy first", True),
            Column("first_time", "integer", "first training time of the group", True),
            Column("last_time", "integer", "last training time of the group", True),
            Column("width", "number", "the width", True, finite="always"),
            Column("loss_before", "number", "held-out loss at the group's times before", True, finite="always"),
            Column("loss_after", "number", "held-out loss there of the supernet that was made", True, finite="always"),
            Column("factor", "number", "factor of the group in merged weights; NaN where groups keep their own"),
            Column("steps", "integer", "training steps of the group", True),
            Column("images", "integer", "images that the group's training drew", True),
            Column("gflops", "number", "GFLOPs of the group's training, forward and backward", True, finite="always"),
            Column("seconds", "number", "seconds of the group's training steps; NaN where they are unknown", True),
        ),
    ),
)

TABLES = {table.file: table for table in _TABLES}
"""Every table by the name of its file."""

TRIAL_COLUMNS = TABLES[TRIALS].names

RESERVED_NAMES = frozenset(
    ["domination_rank", "table_row"]  # metrics in MLflow
    + [name for table in _TABLES for column in table.columns for name in (column.name, f"{column.name}_confirmed")]
)
"""Names that a user's own score can't have."""


def confirmed_columns(score: str) -> tuple[str, str, str]:
    """Return the front's columns of a user's own score on held-out noise seeds: mean, and ends of its interval."""
    return f"{score}_confirmed", f"{score}_low", f"{score}_high"


def describe() -> list[tuple[str, str, str, str, str]]:
    """Return a row per column of every table: file, column, kind, meaning, and its value where older files lack it."""
    return [
        (table.file, column.name, column.kind, column.meaning, column.in_older_files)
        for table in TABLES.values()
        for column in table.columns
    ]
