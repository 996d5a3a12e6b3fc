"""Write the report of a search, or the comparison of several, as one HTML page of less than 6 MB."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from stepfront.dashboards.comparison import comparison_sections, parents_section
from stepfront.dashboards.html.page import Section, paragraph, room_for_images, write_page
from stepfront.dashboards.second_stage import second_stage_section
from stepfront.dashboards.sections.baselines import baselines_section
from stepfront.dashboards.sections.front import front_section, plans_section, points_section
from stepfront.dashboards.sections.images import images_body
from stepfront.dashboards.sections.judges import judges_section
from stepfront.dashboards.sections.learning import learning_section
from stepfront.dashboards.sections.overview import head, key_figures
from stepfront.dashboards.sections.own_scores import own_scores_section
from stepfront.dashboards.sections.provenance import facts_section, missing_note
from stepfront.dashboards.sections.steps import steps_section
from stepfront.dashboards.sections.study import (
    hypervolume_section,
    latency_section,
    origins_section,
    proxies_section,
    timeline_section,
)
from stepfront.errors import InputError
from stepfront.tables.schema import ADAPTATION, CONFIRM, METHOD_SCORES, PROGRESS, PROXY_SCORES, VERSUS
from stepfront.tables.search_tables import read_tables


def write_report(directory: Path, out: Path | None = None) -> Path:
    """Write the report of a search, by default as report.html into its directory, and return its path.

    A section that has nothing to show is left out; a note stands where its table is missing.  Raises InputError when
    the directory can't be read.
    """
    tables = read_tables(directory)
    before = [
        Section("figures", "Key figures", key_figures(tables)),
        Section("front", "The front", front_section(tables)),
        Section("points", "The points", missing_note(tables, CONFIRM) + points_section(tables)),
        Section("plans", "Width per step", plans_section(tables)),
        Section("steps", "Which step matters", steps_section(tables)),
        Section("own-scores", "Scores beside FID", own_scores_section(tables)),
    ]
    after = [
        Section("parents", "Where it started from", parents_section(tables)),
        Section("second-stage", "Second stage", missing_note(tables, ADAPTATION) + second_stage_section(tables)),
        Section("baselines", "Baselines", missing_note(tables, METHOD_SCORES, VERSUS) + baselines_section(tables)),
        Section("learning", "Samplers, measured or learnt", learning_section(tables)),
        Section("judges", "The judges", judges_section(tables)),
        Section("hypervolume", "Hypervolume", missing_note(tables, PROGRESS) + hypervolume_section(tables)),
        Section("timeline", "Time line", timeline_section(tables)),
        Section("origins", "Origins of the trials", origins_section(tables)),
        Section("proxies", "Proxies", missing_note(tables, PROXY_SCORES) + proxies_section(tables)),
        Section("latency", "Latency", latency_section(tables)),
        Section("facts", "What was run", facts_section(tables)),
    ]
    body = images_body(tables, room_for_images([*before, *after]))
    note = paragraph("All images start from the same noise.") if body else ""
    images = Section("images", "Images", note + body)
    out = Path(out) if out else Path(directory) / "report.html"
    return write_page(out, f"{tables.name} – stepfront", head(tables), [*before, images, *after])


def write_comparison(directories: Sequence[Path], out: Path) -> Path:
    """Write one page with the fronts and plans of several searches, and return its path.

    Raises InputError when no search is given, or one can't be read.
    """
    if not directories:
        raise InputError("no search directory was given to compare")
    searches = [read_tables(directory) for directory in directories]
    title = f"{len(searches)} searches compared" if len(searches) > 1 else "One search"
    return write_page(Path(out), f"{title} – stepfront", f"<h1>{title}</h1>", comparison_sections(searches))
