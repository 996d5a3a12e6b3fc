"""One search directory, or several, to one self-contained HTML page of less than 6 MB."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import Path

from dashboards.facts import facts_section
from dashboards.figures import comparison_data, comparison_figure, plans_data, plans_figure
from dashboards.figures.comparison import search_names
from dashboards.images import images_body
from dashboards.page import Section, embedded, html_table, paragraph, room_for_images, write_page
from dashboards.sections import (
    controls_section,
    front_section,
    head,
    hypervolume_section,
    key_figures,
    latency_section,
    origins_section,
    plans_section,
    points_section,
    rungs_section,
)
from dashboards.tables import SearchTables, TableError, read_tables
from dashboards.wording import decimal, significant


def write_report(directory: Path, out: Path | None = None) -> Path:
    """Writes the report of a search, by default as report.html into its directory, and returns its path.  A section
    whose table is absent or empty is left out.  Raises TableError when the directory can't be read."""
    tables = read_tables(directory)
    before = [
        Section("figures", "Key figures", key_figures(tables)),
        Section("front", "The front", front_section(tables)),
        Section("points", "The points", points_section(tables)),
        Section("plans", "Width by step", plans_section(tables)),
    ]
    after = [
        Section("controls", "What the search had to beat", controls_section(tables)),
        Section("hypervolume", "Hypervolume", hypervolume_section(tables)),
        Section("origins", "Where the trials came from", origins_section(tables)),
        Section("rungs", "Cheap scores against dear ones", rungs_section(tables)),
        Section("latency", "Latency", latency_section(tables)),
        Section("facts", "What was run", facts_section(tables)),
    ]
    body = images_body(tables, room_for_images([*before, *after]))
    note = paragraph("The same noise in each.") if body else ""
    images = Section("images", "Images", note + body)
    out = Path(out) if out else Path(directory) / "report.html"
    return write_page(out, f"{tables.name} – stepfront", head(tables), [*before, images, *after])


def write_comparison(directories: Sequence[Path], out: Path) -> Path:
    """Writes one page with the fronts of several searches and their plans, and returns its path.  Raises TableError
    when there are none, or one can't be read."""
    if not directories:
        raise TableError("no search directory was given to compare")
    searches = [read_tables(directory) for directory in directories]
    names = search_names(searches)
    caption = "Lower left is better. Each line stands at the best FID its search found for the cost."
    fronts = embedded("fronts", comparison_figure(comparison_data(searches)), caption)
    sections = [
        Section("searches", "The searches", _searches(names, searches)),
        Section("fronts", "The fronts", fronts),
        Section("plans", "Width by step", _all_plans(names, searches)),
    ]
    title = f"{len(searches)} searches compared" if len(searches) > 1 else "One search"
    warning = f"<p><strong>{escape(_unlike(searches))}</strong></p>" if _unlike(searches) else ""
    return write_page(Path(out), f"{title} – stepfront", f"<h1>{title}</h1>{warning}", sections)


def _unlike(searches: Sequence[SearchTables]) -> str:
    """A FID means something only beside one of the same images, features and number of samples."""
    words = {"dataset": "data sets", "fingerprint": "data", "features": "features", "images": "numbers of images"}
    differing = [word for key, word in words.items() if len({str(tables.facts.get(key)) for tables in searches}) > 1]
    return f"These FIDs can't be compared across searches: they differ in {', '.join(differing)}." if differing else ""


def _searches(names: Sequence[str], searches: Sequence[SearchTables]) -> str:
    columns = ("search", "data set", "solver", ">steps", "features", ">images", ">trials", ">front points")
    rows = [
        (
            name,
            *(tables.facts.get(key, "–") for key in ("dataset", "solver", "steps", "features", "images")),
            f"{len(tables.trials):,}",
            len(tables.front),
            decimal(tables.front.fid.min()),
            significant(tables.front.gflops.min()),
        )
        for name, tables in zip(names, searches, strict=True)
    ]
    return html_table((*columns, ">best FID", ">least GFLOPs"), rows)


def _all_plans(names: Sequence[str], searches: Sequence[SearchTables]) -> str:
    parts = []
    for place, (name, tables) in enumerate(zip(names, searches, strict=True)):
        data = plans_data(tables)
        if data.widths.size:
            caption = f"Plans of {name}, the cheapest at the bottom."
            parts += [f"<h3>{escape(name)}</h3>", embedded(f"plans-{place}", plans_figure(data), caption)]
    return "".join(parts)
